"""docs/clusters/firewall.nft, loaded on a host made of a network namespace and tried from the side of three others."""

import os
import re
import shutil
import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

FILE = Path(__file__).parents[2] / "docs" / "clusters" / "firewall.nft"
HOST = "10.99.0.1"
OTHERS = {"cluster": "10.99.0.2", "admin": "10.99.0.3", "stranger": "10.99.0.4"}
PORTS = {"service": 8000, "control store": 6379, "dashboard": 8265, "metrics": 8080, "ssh": 22}
LISTEN = """
import socket, sys
sockets = [socket.create_server(("", int(port))) for port in sys.argv[1:]]
print("listening", flush=True)
sys.stdin.read()
"""
CONNECT = """
import socket, sys
host, *ports = sys.argv[1:]
for port in ports:
    with socket.socket() as client:
        client.settimeout(0.3)
        print(client.connect_ex((host, int(port))) == 0)
"""
pytestmark = pytest.mark.skipif(
    os.geteuid() != 0 or not shutil.which("ip") or not shutil.which("nft"),
    reason="needs root and Debian's iproute2 and nftables",
)


def run(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


@pytest.fixture(scope="module")
def hosts() -> Iterator[dict[str, list[str]]]:
    """Name -> the beginning of a command that runs on that host: one with the firewall, and three others."""
    mark = uuid.uuid4().hex[:6]
    names = {name: f"{name[:4]}-{mark}" for name in ("host", *OTHERS)}
    bridge = f"switch-{mark}"
    try:
        for name in (bridge, *names.values()):
            run("ip", "netns", "add", name)
        run("ip", "-n", bridge, "link", "add", "switch", "type", "bridge")
        run("ip", "-n", bridge, "link", "set", "switch", "up")
        for number, name in enumerate(names.values(), 1):
            port = f"port{number}"
            run("ip", "-n", bridge, "link", "add", port, "type", "veth", "peer", "name", "net0", "netns", name)
            run("ip", "-n", bridge, "link", "set", port, "master", "switch", "up")
            run("ip", "-n", name, "address", "add", f"10.99.0.{number}/24", "dev", "net0")
            for device in ("lo", "net0"):
                run("ip", "-n", name, "link", "set", device, "up")
        yield {name: ["ip", "netns", "exec", namespace] for name, namespace in names.items()}
    finally:
        for name in (bridge, *names.values()):
            subprocess.run(["ip", "netns", "delete", name], check=False, capture_output=True)


@pytest.fixture(scope="module")
def firewall(hosts: dict[str, list[str]], tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The host listens on every port, behind the file as an operator edits it."""
    text = FILE.read_text()
    for name, value in {"CLUSTER": "10.99.0.2", "ADMINS": "10.99.0.3", "PUBLIC_PORTS": "8000"}.items():
        text, edited = re.subn(rf"(?m)^(define {name} = ){{[^}}]*}}(.*# EDIT)", rf"\g<1>{{ {value} }}\2", text)
        assert edited == 1, name
    edited_file = tmp_path_factory.mktemp("firewall") / "firewall.nft"
    edited_file.write_text(text)
    for _ in range(2):  # loading it again replaces it
        run(*hosts["host"], "nft", "-f", str(edited_file))
    listener = subprocess.Popen(
        [*hosts["host"], "python3", "-c", LISTEN, *map(str, PORTS.values())],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert listener.stdout
    assert listener.stdin
    try:
        assert listener.stdout.readline() == "listening\n"
        yield
    finally:
        listener.stdin.close()
        listener.wait(10)
        listener.stdout.close()


@pytest.mark.usefixtures("firewall")
@pytest.mark.parametrize(
    ("who", "reaches"),
    [("cluster", set(PORTS)), ("admin", {"service", "ssh"}), ("stranger", {"service"}), ("host", set(PORTS))],
)
def test_who_reaches_which_door(hosts: dict[str, list[str]], who: str, reaches: set[str]) -> None:
    target = "127.0.0.1" if who == "host" else HOST
    answers = run(*hosts[who], "python3", "-c", CONNECT, target, *map(str, PORTS.values())).split()
    assert {name for name, answer in zip(PORTS, answers, strict=True) if answer == "True"} == reaches
