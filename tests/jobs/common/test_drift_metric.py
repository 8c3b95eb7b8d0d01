"""jobs.common.drift_metric: the largest drift of all replicas, and one line where it cannot be read."""

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from detector_core.errors import BadConfig, StorageUnavailable
from jobs.common import drift_metric

METRICS = """# HELP ray_detector_score_drift population stability index
# TYPE ray_detector_score_drift gauge
ray_detector_score_drift{Component="a",Version="1"} 0.125
ray_detector_score_drift{Component="b c",Version="1"} 0.5
ray_detector_score_drift{Component="d"} NaN
ray_detector_score_drift_other 9
"""


@pytest.fixture
def address() -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(METRICS.encode() if self.path == "/metrics" else b"other 1\n")

        def log_message(self, *_: object) -> None:
            """Prints nothing."""

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_the_largest_drift_counts_and_none_is_no_drift(address: str) -> None:
    assert drift_metric.read(f"{address}/metrics") == 0.5
    assert drift_metric.read(f"{address}/elsewhere") == 0.0


def test_an_address_that_cannot_be_read_is_named() -> None:
    with pytest.raises(BadConfig, match=r"--metrics file:///etc/passwd: give the address of Ray's metrics"):
        drift_metric.read("file:///etc/passwd")
    with pytest.raises(StorageUnavailable, match=r"--metrics http://127\.0\.0\.1:1/metrics cannot be read"):
        drift_metric.read("http://127.0.0.1:1/metrics")
