"""Hosts made of Linux namespaces, each with its own network, processes, name, /tmp, home and sshd; the disk is shared.

Use it only inside the namespaces that ``run.sh`` makes. There this process sees none of the machine's network links,
and everything it creates ends with it. Folders below the machine's /tmp that a host needs (the project, Python) are
bound into the host's own /tmp.
"""

import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

NETWORK = "10.77.0"
SHARED = Path("/tmp/shared")
"""A folder that every host mounts under the same path, as machines would mount NFS."""
PROJECT = Path(__file__).parents[2]

_BOOT = """
set -e
while ! ip link show eth0 >/dev/null 2>&1; do sleep 0.05; done
hostname {name}
ip link set lo up
ip address add {address}/24 dev eth0
ip link set eth0 up
mount --rbind {root}/tmp /tmp
mount --bind {root}/passwd /etc/passwd
mount --bind {root}/hosts /etc/hosts
mount -t tmpfs -o size=2g none /dev/shm
mkdir -p /run/sshd
exec /usr/sbin/sshd -D -e -f {root}/sshd_config
"""


@dataclass
class Host:
    """One host. ``process`` is its first process; when it ends, the kernel ends all others of the host."""

    name: str
    address: str
    root: Path
    process: "subprocess.Popen[bytes]"

    def command(self, line: str) -> list[str]:
        """The command that runs a shell line on this host, as root, in its home folder."""
        enter = ["nsenter", "--target", str(_first_child(self.process.pid)), "--all"]
        environment = ["env", "-i", "HOME=/tmp/home", "USER=root", "LANG=C.UTF-8", "TERM=dumb"]
        path = f"PATH={PROJECT}/.venv/bin:/usr/sbin:/usr/bin:/sbin:/bin"
        return [
            *enter,
            *environment,
            path,
            "RAY_AUTH_MODE=token",
            "RAY_USAGE_STATS_ENABLED=0",
            "bash",
            "-c",
            f"cd; {line}",
        ]

    def processes(self) -> list[str]:
        """The command lines of all processes on this host, except its sshd and the ``ps`` that lists them."""
        listing = subprocess.run(self.command("ps -eo args="), capture_output=True, text=True, check=True).stdout
        return [line for line in listing.splitlines() if "sshd" not in line and "ps -eo" not in line]

    def set_link(self, state: str) -> None:
        """Pulls the network cable (``down``) or puts it back (``up``)."""
        subprocess.run(["ip", "link", "set", f"to-{self.name}", state], check=True)

    def power_off(self) -> None:
        """Ends every process of this host at once."""
        self.process.kill()
        self.process.wait()


class Hosts:
    """Hosts on one switch, by name, for the length of a ``with`` block; ``root`` is a folder outside /tmp."""

    def __init__(self, root: Path, names: list[str]) -> None:
        self.root = root
        self.hosts: dict[str, Host] = {}
        self.addresses = {name: f"{NETWORK}.{number}" for number, name in enumerate(names, 2)}
        self.key = root / "key"

    def __enter__(self) -> "Hosts":
        (self.root / "shared").mkdir()
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(self.key)], check=True)
        subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
        subprocess.run(["ip", "link", "add", "switch", "type", "bridge"], check=True)
        subprocess.run(["ip", "link", "set", "switch", "up"], check=True)
        for name in self.addresses:
            self.hosts[name] = self._boot(name)
        return self

    def __exit__(self, *_: object) -> None:
        for host in self.hosts.values():
            host.power_off()

    def __getitem__(self, name: str) -> Host:
        return self.hosts[name]

    def _boot(self, name: str) -> Host:
        root = self.root / name
        (root / "tmp" / "home" / ".ray").mkdir(parents=True)
        _bind(self.root / "shared", root / SHARED.relative_to("/"))
        for folder in {PROJECT, (PROJECT / ".venv").resolve(), Path(sys.base_prefix).resolve()}:
            if folder.is_relative_to("/tmp"):
                _bind(folder, root / folder.relative_to("/"))
        users = [line for line in Path("/etc/passwd").read_text().splitlines() if not line.startswith("root:")]
        (root / "passwd").write_text("\n".join(["root:x:0:0:root:/tmp/home:/bin/bash", *users]) + "\n")
        addresses = [f"{address} {other}" for other, address in self.addresses.items()]
        (root / "hosts").write_text("\n".join(["127.0.0.1 localhost", *addresses]) + "\n")
        host_key = root / "host_key"
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(host_key)], check=True)
        (root / "sshd_config").write_text(
            f"ListenAddress {self.addresses[name]}\nHostKey {host_key}\nAuthorizedKeysFile {self.key}.pub\n"
            "StrictModes no\nPasswordAuthentication no\nPermitRootLogin yes\nUsePAM no\nPidFile none\n"
        )
        boot = _BOOT.format(name=name, address=self.addresses[name], root=root)
        namespaces = ["--net", "--mount", "--pid", "--uts", "--ipc", "--fork", "--kill-child", "--mount-proc"]
        with (root / "sshd.log").open("wb") as log:
            process = subprocess.Popen(["unshare", *namespaces, "bash", "-c", boot], stdout=log, stderr=log)
        _wait_until(lambda: _first_child(process.pid) > 0)
        subprocess.run(["ip", "link", "add", f"to-{name}", "type", "veth", "peer", "name", "end"], check=True)
        subprocess.run(["ip", "link", "set", "end", "netns", str(process.pid), "name", "eth0"], check=True)
        subprocess.run(["ip", "link", "set", f"to-{name}", "master", "switch", "up"], check=True)
        _wait_until(lambda: "listening" in (root / "sshd.log").read_text())
        return Host(name, self.addresses[name], root, process)


def _bind(source: Path, target: Path) -> None:
    target.mkdir(parents=True, exist_ok=True)
    subprocess.run(["mount", "--bind", str(source), str(target)], check=True)


def _first_child(pid: int) -> int:
    file = Path(f"/proc/{pid}/task/{pid}/children")
    children = file.read_text().split() if file.exists() else []
    return int(children[0]) if children else 0


def _wait_until(condition: Callable[[], bool], limit_s: float = 30) -> None:
    deadline = time.monotonic() + limit_s
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError("a host did not start")
        time.sleep(0.05)
