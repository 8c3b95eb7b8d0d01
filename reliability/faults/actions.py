"""How the faults of a training run are caused and repaired: storage that fails, a false clock, damaged files."""

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from detector_core.data import manifest
from reliability.faults.fault import CannotCause, Workspace, ensure, last_line, require_root
from reliability.faults.scenario import Run, RunEnvironment, wait_for_epochs
from tests.support.processes import wait_until_gone
from tests.support.s3 import BUCKET, free_port, s3_server, use_server

PROCESSES_END_S, AGENTS_END_S = 30, 90
"""Ray's agents wait a minute for the control store, which died with the driver; all other processes end at once."""
DISK_MIB = 40
"""Holds several checkpoints of the tiny network. Files half written on a full disk stay until the run ends."""
CANNOT_MAKE_HOSTS = 77
"""The exit code of reliability/cluster/run.sh on a machine that cannot make hosts."""
BALLAST_MIB, HEADROOM_MIB, HOLD_S = 5000, 3500, 8
"""Memory that another process allocates, what was free below Ray's threshold before, and for how long it is held."""
RELAYS: dict[Path, "Relay"] = {}
"""The relay to the object store, by the folder of the fault."""


def wait_for_orphans(run: Run) -> str:
    """Waits until the processes of a killed driver have ended, except Ray's agents."""
    agents = {pid for pid, line in run.descendants.items() if "agent" in line.lower()}
    wait_until_gone(run.descendants.keys() - agents, PROCESSES_END_S)
    return ""


def check_nothing_is_left(run: Run) -> str:
    """Waits until every process of a killed driver has ended."""
    wait_until_gone(run.descendants, AGENTS_END_S)
    return f"; all its {len(run.descendants)} processes ended by themselves"


def truncate_checkpoint(run: Run, name: str = "state.pt") -> None:
    """Cuts off half of a file of the newest checkpoint, once no process can write a newer one."""
    wait_for_orphans(run)
    file = run.newest_checkpoint() / name
    os.truncate(file, file.stat().st_size // 2)


def delete_manifest(run: Run) -> None:
    """Deletes the files that describe the data set."""
    for name in (manifest.MANIFEST, manifest.DATASET):
        (run.dataset / name).unlink()


def damage_image(run: Run) -> None:
    """Overwrites a training image with random bytes and keeps a copy."""
    data = manifest.load(str(run.dataset))
    run.damaged = Path(data.root) / data.split("train")["path"].iloc[3]
    run.damaged.with_suffix(".kept").write_bytes(run.damaged.read_bytes())
    run.damaged.write_bytes(os.urandom(4000))


def restore_image(run: Run) -> None:
    """Puts the original image back."""
    assert run.damaged
    run.damaged.with_suffix(".kept").rename(run.damaged)


@contextmanager
def small_disk(folder: Path) -> Iterator[RunEnvironment]:
    """Storage on a disk of DISK_MIB."""
    require_root("mounting a small disk")
    disk = folder / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={DISK_MIB}m", "none", disk]).returncode:
        raise CannotCause("this machine does not allow mounting a tmpfs")
    try:
        yield RunEnvironment(storage=str(disk / "runs"), env=dict(os.environ))
    finally:
        subprocess.run(["umount", "--lazy", disk], check=True)


def fill_disk(run: Run) -> None:
    """Writes a file that takes the rest of the disk."""
    with contextlib.suppress(OSError), (Path(run.storage).parent / "ballast").open("wb", buffering=0) as stream:
        while True:
            stream.write(b"x" * 65536)


def free_disk(run: Run) -> None:
    """Deletes the file that filled the disk."""
    (Path(run.storage).parent / "ballast").unlink()


@contextmanager
def object_store(folder: Path) -> Iterator[RunEnvironment]:
    """Storage on an S3 server that is reached through a relay, so that killing the relay loses no data."""
    with s3_server(folder / "s3.log") as url, pytest.MonkeyPatch.context() as patch:
        port = free_port()
        use_server(patch, f"http://127.0.0.1:{port}")
        relay = RELAYS[folder] = Relay(port, int(url.rpartition(":")[2]))
        relay.start()
        try:
            yield RunEnvironment(storage=f"s3://{BUCKET}/runs", env=dict(os.environ))
        finally:
            relay.kill()


class Relay:
    """The process through which the object store is reached."""

    def __init__(self, port: int, target_port: int) -> None:
        self.command = [sys.executable, "-m", "reliability.faults.relay", str(port), str(target_port)]

    def start(self) -> None:
        """Starts the process and waits until it listens."""
        self.process = subprocess.Popen(self.command, stdout=subprocess.PIPE)
        assert self.process.stdout
        self.process.stdout.readline()

    def kill(self) -> None:
        """Sends it SIGKILL."""
        self.process.kill()
        self.process.communicate()


@contextmanager
def false_clock(folder: Path) -> Iterator[RunEnvironment]:
    """An environment whose Python processes add the seconds in a file to the wall clock."""
    path = f"{Path(__file__).parent / 'clock'}:{os.environ.get('PYTHONPATH', '')}".rstrip(":")
    env = {**os.environ, "PYTHONPATH": path, "FALSE_CLOCK": str(folder / "clock")}
    yield RunEnvironment(storage=str(folder / "runs"), env=env)


def shift_clock(run: Run, by_s: int) -> None:
    """Shifts the wall clock, and kills a worker two epochs later, so that the run must find its newest checkpoint."""
    (run.folder / "clock").write_text(str(by_s))
    wait_for_epochs(run, 4)
    run.kill("RayTrainWorker")


@contextmanager
def little_memory(folder: Path) -> Iterator[RunEnvironment]:
    """An environment in which Ray's memory monitor acts when HEADROOM_MIB more than now are in use."""
    memory = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
    total, available = (int(memory[name].split()[0]) / 1024 for name in ("MemTotal", "MemAvailable"))
    if available < 2 * BALLAST_MIB:
        raise CannotCause(f"only {available:.0f} MiB of memory are available")
    threshold = (total - available + HEADROOM_MIB) / total
    env = {**os.environ, "RAY_memory_usage_threshold": f"{threshold:.4f}"}
    yield RunEnvironment(storage=str(folder / "runs"), env=env)


def use_memory(_: Run) -> None:
    """Another process holds BALLAST_MIB of memory for HOLD_S."""
    code = f"import time; ballast = b'x' * ({BALLAST_MIB} << 20); time.sleep({HOLD_S})"
    subprocess.run([sys.executable, "-c", code], check=True)


def cut_network(_: Workspace) -> str:
    """Runs the scenario of a cluster of hosts, in which a host is cut off during a training run."""
    result = _play_hosts()
    epoch, step = result["went_on_at"]
    return (
        f"no epoch lost; the lost host was noticed after {result['seconds_until_noticed']:.0f} s (with Ray's health "
        f"check shortened to 1 s; its defaults take about a minute); after {result['seconds_until_went_on']:.0f} s the "
        f"run resumed without it at epoch {epoch}, step {step}"
    )


def kill_head_node(_: Workspace) -> str:
    """Runs the scenario of a service on two hosts whose head is killed under load."""
    result = _play_hosts("head")
    return (
        f"of {result['requests']} requests: none, and the slowest took {result['longest_s']:.1f} s; the head was away "
        f"for {result['away_s']:.0f} s, in which a model was promoted, and obeyed again {result['back_s']:.0f} s after "
        "its start"
    )


def _play_hosts(*words: str) -> dict[str, Any]:
    """The result of a scenario of reliability/cluster."""
    script = Path(__file__).parents[1] / "cluster" / "run.sh"
    done = subprocess.run(["bash", script, *words], capture_output=True, text=True)
    if done.returncode == CANNOT_MAKE_HOSTS:
        raise CannotCause(last_line(done.stderr).removeprefix("skipped: "))
    ensure(done.returncode == 0, done.stderr[-3000:])
    result: dict[str, Any] = json.loads(last_line(done.stdout))
    return result
