"""A real Prometheus and a real Alertmanager for one service, and a receiver of what Alertmanager sends."""

import contextlib
import http.server
import json
import re
import subprocess
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from jobs.common.loopback import free_port, send

MONITORING = Path(__file__).parents[2] / "docs" / "monitoring"
PROGRAMS = ("prometheus", "prometheus-alertmanager")
"""As Debian names them."""
SHORTER = {
    "for: 3m": "for: 3s",
    "for: 5m": "for: 3s",
    "for: 10m": "for: 3s",
    "for: 1h": "for: 3s",
    "[2m]": "[8s]",
    "[5m]": "[10s]",
    "[1h]": "[20s]",
    "[7d]": "[90s]",
}
"""What stands in the rules -> what is tested, so that an alert does not take minutes to fire."""
START_S = 30


def shortened_rules() -> str:
    """The alert rules with shorter durations; an AssertionError names one that SHORTER lacks."""
    text = (MONITORING / "alerts.yml").read_text()
    for original, shorter in SHORTER.items():
        assert original in text, f"no rule has {original}"
        text = text.replace(original, shorter)
    left = re.findall(r"for: \d+[mhd]|\[\d+[mhd]\]", text)
    assert not left, f"add {left} to SHORTER"
    return text


def alerts() -> dict[str, str]:
    """Alert -> severity, as in alerts.yml."""
    (group,) = yaml.safe_load((MONITORING / "alerts.yml").read_text())["groups"]
    return {rule["alert"]: rule["labels"]["severity"] for rule in group["rules"]}


@dataclass
class Receiver:
    """What Alertmanager has sent: (alert, firing or resolved, path of the receiver), in order."""

    received: list[tuple[str, str, str]] = field(default_factory=list)

    def wait_for(self, alert: str, status: str, within_s: float, after: int = 0) -> str:
        """Waits until an alert was sent with a status, as one of those ``after`` the first; returns its path.

        Raises:
            AssertionError: it was not sent in time.
        """
        deadline = time.monotonic() + within_s
        while time.monotonic() < deadline:
            for name, sent, path in self.received[after:]:
                if (name, sent) == (alert, status):
                    return path
            time.sleep(0.1)
        raise AssertionError(f"{alert} was not sent as {status} within {within_s:g} s; sent: {self.received[after:]}")


@contextlib.contextmanager
def _receiving() -> Iterator[tuple[Receiver, int]]:
    receiver = Receiver()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            receiver.received += [
                (alert["labels"]["alertname"], alert["status"], self.path) for alert in body["alerts"]
            ]
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, name="receiver")
    thread.start()
    try:
        yield receiver, server.server_port
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@contextlib.contextmanager
def monitoring(session: Path, folder: Path) -> Iterator[Receiver]:
    """Watches the Ray of a session folder as docs/monitoring does, for the duration of a ``with`` block."""
    with _receiving() as (receiver, port), contextlib.ExitStack() as stack:
        prometheus_port, alertmanager_port = free_port(), free_port()
        folder.mkdir()
        text = (MONITORING / "alertmanager.yml").read_text().replace("127.0.0.1:9095", f"127.0.0.1:{port}")
        text = re.sub(r"group_wait: \d+s", "group_wait: 0s", text)
        text = text.replace("group_by:", "group_interval: 1s\n  group_by:")
        (folder / "alertmanager.yml").write_text(text)
        (folder / "alerts.yml").write_text(shortened_rules())
        config = yaml.safe_load((session / "metrics" / "prometheus" / "prometheus.yml").read_text())
        config |= {
            "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
            "rule_files": [str(folder / "alerts.yml")],
            "alerting": {"alertmanagers": [{"static_configs": [{"targets": [f"127.0.0.1:{alertmanager_port}"]}]}]},
        }
        (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
        alertmanager = (
            "prometheus-alertmanager",
            f"--config.file={folder / 'alertmanager.yml'}",
            f"--storage.path={folder / 'alertmanager'}",
            f"--web.listen-address=127.0.0.1:{alertmanager_port}",
            "--cluster.listen-address=",
        )
        prometheus = (
            "prometheus",
            f"--config.file={folder / 'prometheus.yml'}",
            f"--storage.tsdb.path={folder / 'prometheus'}",
            f"--web.listen-address=127.0.0.1:{prometheus_port}",
        )
        for command, ready_at in ((alertmanager, alertmanager_port), (prometheus, prometheus_port)):
            stack.enter_context(_running(command, ready_at, folder / f"{command[0]}.log"))
        yield receiver


@contextlib.contextmanager
def _running(command: tuple[str, ...], port: int, log: Path) -> Iterator[None]:
    with log.open("w") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)
    try:
        deadline = time.monotonic() + START_S
        while True:
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, f"{command[0]} was not ready within {START_S} s: {log.read_text()}"
            with contextlib.suppress(OSError):
                send(f"http://127.0.0.1:{port}/-/ready", timeout_s=2)
                break
            time.sleep(0.2)
        yield
    finally:
        process.terminate()
        process.wait(30)
