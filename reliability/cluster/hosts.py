"""Hosts made of Linux namespaces: each has its own network, processes, name, /tmp, home and sshd; they share the disk.

Call only inside the namespaces that ``run.sh`` makes: there this process sees no link of the machine's, and all that is
made here ends with it. Folders of the machine below /tmp that a host needs (the project, Python) are bound into the
host's own /tmp.
"""

import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

NETWORK = "10.77.0"
SHARED = Path("/tmp/shared")
"""What every host mounts at the same place, as machines would mount NFS."""
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
    """One host: ``process`` is its first process; when that ends the kernel ends all others of the host."""

    name: str
    address: str
    root: Path
    process: "subprocess.Popen[bytes]"

    def command(self, line: str) -> list[str]:
        """What runs a shell line on this host, as root, in its home."""
        inside = ["nsenter", "--target", str(_first_child(self.process.pid)), "--all"]
        environment = ["env", "-i", "HOME=/tmp/home", "USER=root", "LANG=C.UTF-8", "TERM=dumb"]
        path = f"PATH={PROJECT}/.venv/bin:/usr/sbin:/usr/bin:/sbin:/bin"
        return [
            *inside,
            *environment,
            path,
            "RAY_AUTH_MODE=token",
            "RAY_USAGE_STATS_ENABLED=0",
            "bash",
            "-c",
            f"cd; {line}",
        ]

    def processes(self) -> list[str]:
        """The command lines of what runs on this host, but for its sshd and the question itself."""
        found = subprocess.run(self.command("ps -eo args="), capture_output=True, text=True, check=True).stdout
        return [line for line in found.splitlines() if "sshd" not in line and "ps -eo" not in line]

    def link(self, state: str) -> None:
        """``down`` is a cable that is pulled; ``up`` puts it back."""
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
        for needed in {PROJECT, (PROJECT / ".venv").resolve(), Path(sys.base_prefix).resolve()}:
            if needed.is_relative_to("/tmp"):
                _bind(needed, root / needed.relative_to("/"))
        users = [line for line in Path("/etc/passwd").read_text().splitlines() if not line.startswith("root:")]
        (root / "passwd").write_text("\n".join(["root:x:0:0:root:/tmp/home:/bin/bash", *users]) + "\n")
        known = [f"{address} {other}" for other, address in self.addresses.items()]
        (root / "hosts").write_text("\n".join(["127.0.0.1 localhost", *known]) + "\n")
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
        _until(lambda: _first_child(process.pid) > 0)
        subprocess.run(["ip", "link", "add", f"to-{name}", "type", "veth", "peer", "name", "end"], check=True)
        subprocess.run(["ip", "link", "set", "end", "netns", str(process.pid), "name", "eth0"], check=True)
        subprocess.run(["ip", "link", "set", f"to-{name}", "master", "switch", "up"], check=True)
        _until(lambda: "listening" in (root / "sshd.log").read_text())
        return Host(name, self.addresses[name], root, process)


def _bind(what: Path, where: Path) -> None:
    where.mkdir(parents=True, exist_ok=True)
    subprocess.run(["mount", "--bind", str(what), str(where)], check=True)


def _first_child(pid: int) -> int:
    children = Path(f"/proc/{pid}/task/{pid}/children")
    found = children.read_text().split() if children.exists() else []
    return int(found[0]) if found else 0


def _until(holds: Callable[[], bool], limit_s: float = 30) -> None:
    deadline = time.monotonic() + limit_s
    while not holds():
        if time.monotonic() > deadline:
            raise TimeoutError("a host did not start")
        time.sleep(0.05)
