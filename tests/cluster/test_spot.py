"""docs/clusters/spot.sh hears from a metadata service that its instance will be taken back, and tells Ray.

``bash reliability/cluster/run.sh spot`` does it with a real Ray and a training run.
"""

import http.server
import os
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from reliability.cluster.metadata import Handler as Amazon

SCRIPT = Path(__file__).parents[2] / "docs" / "clusters" / "spot.sh"


class Google(http.server.BaseHTTPRequestHandler):
    """Has TRUE for whoever asks as Google wants it, and nothing of Amazon's."""

    def do_PUT(self) -> None:
        self.send_error(404)

    def do_GET(self) -> None:
        asked = (self.path, self.headers["Metadata-Flavor"])
        if asked != ("/computeMetadata/v1/instance/preempted", "Google"):
            self.send_error(404)
            return
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"TRUE")


@contextmanager
def serving(handler: type[http.server.BaseHTTPRequestHandler]) -> Iterator[str]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.mark.parametrize(("provider", "seconds"), [(Amazon, "110"), (Google, "25")])
def test_a_notice_drains_the_node(
    tmp_path: Path, provider: type[http.server.BaseHTTPRequestHandler], seconds: str
) -> None:
    (tmp_path / "ray").write_text('#!/bin/sh\nprintf "%s\\n" "$@" >&2\n')
    (tmp_path / "ray").chmod(0o700)
    with serving(provider) as url:
        env = {**os.environ, "METADATA": url, "PATH": f"{tmp_path}:{os.environ['PATH']}", "no_proxy": "127.0.0.1"}
        done = subprocess.run(["bash", str(SCRIPT)], env=env, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0
    words = [line for line in done.stderr.splitlines() if not line.startswith("127.0.0.1 - -")]
    assert words[:3] == ["drain-node", "--reason", "DRAIN_NODE_REASON_PREEMPTION"]
    assert words[-2:] == ["--deadline-remaining-seconds", seconds]
