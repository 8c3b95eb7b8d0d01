"""A real HAProxy with the configuration that Ray writes, and a server behind it that answers what it was sent."""

import contextlib
import dataclasses
import http.client
import importlib
import json
import os
import socket
import subprocess
import sys
import time
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

from jobs.common.loopback import free_port
from serve_app import front
from serve_app.front import Front

LIMITS = Front(
    bind="0.0.0.0",
    header_bytes=4096,
    header_s=1,
    body_bytes=300_000,
    body_s=1,
    connections_per_address=20,
    trusted_proxies=("127.0.0.9/32",),
)
STARTS_S = 20


class Echo(BaseHTTPRequestHandler):
    """Answers with the headers and the length of the body that arrived; the first time it may die instead."""

    protocol_version = "HTTP/1.1"
    paths: list[str]

    def do_GET(self) -> None:
        length = int(self.headers.get("Content-Length", 0))
        received = len(self.rfile.read(length))
        self.paths.append(self.path)
        if "X-Die-Once" in self.headers and self.paths.count(self.path) == 1:
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)
            return
        body = json.dumps({"headers": list(self.headers.items()), "received": received}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_POST = do_GET

    def log_message(self, *_: object) -> None:
        pass


@dataclass
class Running:
    """A running front.

    Attributes:
        parent: the process that started HAProxy, whose id is ``pid``.
        paths: the paths of the requests that reached the server behind it.
        host: where it listens.
    """

    port: int
    folder: Path
    parent: "subprocess.Popen[str]"
    pid: int
    paths: list[str] = field(default_factory=list)
    host: str = "127.0.0.1"

    def request(
        self,
        method: str,
        path: str,
        body: bytes = b"",
        headers: dict[str, str] | None = None,
        source: str = "",
    ) -> tuple[int, dict[str, str], Any]:
        """Sends a request from an address of this machine: status, headers with lower-case names, and the body."""
        source_address = (source or self.host, 0)
        connection = http.client.HTTPConnection(self.host, self.port, timeout=30, source_address=source_address)
        with contextlib.closing(connection):  # also if it is refused
            connection.request(method, path, body, headers or {})
            response = connection.getresponse()
            text = response.read().decode()
        is_json = response.headers.get_content_type() == "application/json" or text.startswith("{")
        answer = json.loads(text) if is_json else text
        return response.status, {name.lower(): value for name, value in response.getheaders()}, answer

    def connect(self, source: str = "") -> socket.socket:
        """A connection on which nothing was sent yet."""
        source_address = (source or self.host, 0)
        return socket.create_connection((self.host, self.port), timeout=30, source_address=source_address)


def write_configuration(folder: Path, port: int, server_ports: list[int] | None) -> Path:
    """The configuration that Ray writes for an application with so many replicas, or before it knows one (None)."""
    haproxy: Any = importlib.import_module("ray.serve._private.haproxy")
    from ray.serve.config import HTTPOptions

    servers = [haproxy.ServerConfig(name="replica", host="127.0.0.1", port=number) for number in server_ports or []]
    config = haproxy.HAProxyConfig(
        http_options=HTTPOptions(host="127.0.0.1", port=port),
        socket_path=str(folder / "admin.sock"),
        server_state_base=str(folder),
        server_state_file=str(folder / "server-state"),
        metrics_port=free_port(),
        stats_port=free_port(),
        metrics_enabled=False,
        maxconn=200,
        nbthread=1,
        bufsize=front.BUFFER_BYTES,
        retry_on=front.VARIABLES["RAY_SERVE_HAPROXY_RETRY_ON"].value,
        timeout_client_s=LIMITS.body_s,
        timeout_server_s=30,
        has_received_routes=True,
        is_head=True,
    )
    backend = haproxy.BackendConfig(name="http-app", path_prefix="/", app_name="app", servers=servers)
    backends = {} if server_ports is None else {"http-app": backend}
    path = folder / "haproxy.cfg"
    haproxy.HAProxyApi(config, backends, config_file_path=str(path))._generate_config_file_internal()
    return path


def start(folder: Path, server_ports: list[int] | None, host: str = "") -> Running:
    """Starts HAProxy as Ray does, as the child of another process.

    Args:
        host: listens there only, instead of everywhere.
    """
    port = free_port()
    configuration = write_configuration(folder, port, server_ports)
    front.install(folder)
    limits = dataclasses.replace(LIMITS, bind=host or LIMITS.bind)
    environment = os.environ | front.environment(limits, str(folder))
    command = [environment["RAY_SERVE_HAPROXY_BINARY_PATH"], "-db", "-f", str(configuration), "-dR"]
    code = "import subprocess, sys; child = subprocess.Popen(sys.argv[1:]); print(child.pid, flush=True); child.wait()"
    with (folder / "stderr").open("w") as stderr:
        parent = subprocess.Popen(
            [sys.executable, "-c", code, *command], env=environment, stdout=subprocess.PIPE, stderr=stderr, text=True
        )
    assert parent.stdout
    running = Running(port, folder, parent, int(parent.stdout.readline()), host=host or "127.0.0.1")
    deadline = time.monotonic() + STARTS_S
    while not _listens(running):
        assert time.monotonic() < deadline, (folder / "stderr").read_text()
        time.sleep(0.05)
    return running


def _listens(running: Running) -> bool:
    try:
        running.connect().close()
    except ConnectionRefusedError:
        return False
    return True


def stop(running: Running) -> None:
    """Ends the parent, with which HAProxy ends."""
    running.parent.kill()
    running.parent.wait()
    assert running.parent.stdout
    running.parent.stdout.close()
