"""One Ray that the tests of the jobs share."""

import os
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from tests.support.cluster import Head, head_node


@pytest.fixture(scope="session")
def requests_to_another_ray() -> Iterator[list[str]]:
    """The requests that the shared cluster sends to the dashboard of another Ray, which RAY_API_SERVER_ADDRESS names.

    A cluster without a dashboard may take any Ray on this machine for its own. Ray Train would ask that whether the
    controller of a run is alive, and end the run, because the other Ray does not know it.
    """
    requests: list[str] = []

    class AnotherRay(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            requests.append(self.path)
            self.send_error(503)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), AnotherRay) as server, pytest.MonkeyPatch.context() as patch:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        patch.setenv("RAY_API_SERVER_ADDRESS", f"http://127.0.0.1:{server.server_port}")
        yield requests
        server.shutdown()


@pytest.fixture(scope="session")
def ray_head(requests_to_another_ray: list[str]) -> Iterator[Head]:
    """A cluster with two cores that all tests of a session share."""
    another_ray = os.environ["RAY_API_SERVER_ADDRESS"]
    with head_node(token=os.environ["RAY_AUTH_TOKEN"], RAY_API_SERVER_ADDRESS=another_ray) as head:
        yield head
    assert requests_to_another_ray == []


@pytest.fixture
def shared_ray(ray_head: Head, monkeypatch: pytest.MonkeyPatch) -> str:
    """Makes jobs use the shared cluster, in this process and in those it starts."""
    monkeypatch.setenv("RAY_ADDRESS", ray_head.address)
    return ray_head.address
