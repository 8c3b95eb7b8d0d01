"""By what the faults of a training are made: places that fail, and hands that break."""

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from detector_core.data import manifest
from reliability.faults.runs import Place, Run, until_epochs
from reliability.faults.table import Scene, Skipped, ensure, last_line, root_only
from tests.support.s3 import BUCKET, free_port, s3_server, use
from tests.support.training import wait_until_gone

ORPHANS_S, AGENTS_S = 30, 90
"""Ray's agents first wait a minute for the control store that died with the driver; the rest ends at once."""
DISK_MIB = 40
"""Several checkpoints of the tiny network: what was half-written when the disk was full stays until the run ends."""
LEFT_OUT = 77
"""The exit code of reliability/cluster/run.sh where there can be no hosts."""
BALLAST_MIB, ROOM_MIB, HELD_S = 5000, 3500, 8
"""What another process takes at once, what is free below Ray's threshold before the run, and for how long."""


def orphans_gone(run: Run) -> str:
    """What a killed driver leaves ends by itself."""
    agents = {pid for pid, line in run.below.items() if "agent" in line.lower()}
    wait_until_gone(run.below.keys() - agents, ORPHANS_S)
    return ""


def all_gone(run: Run) -> str:
    """The agents too."""
    wait_until_gone(run.below, AGENTS_S)
    return f"; all its {len(run.below)} processes ended by themselves"


def tear(run: Run, name: str = "state.pt") -> None:
    """Half of a file of the newest checkpoint is lost; nobody writes a newer one any more."""
    orphans_gone(run)
    file = run.newest() / name
    os.truncate(file, file.stat().st_size // 2)


def lose_manifest(run: Run) -> None:
    """The data set's own files are deleted; a worker that is replaced must do without."""
    for name in (manifest.MANIFEST, manifest.DATASET):
        (run.dataset / name).unlink()


def spoil(run: Run) -> None:
    """A training image becomes garbage, and is remembered."""
    data = manifest.load(str(run.dataset))
    file = Path(data.root) / data.split("train")["path"].iloc[3]
    run.told = str(file)
    file.with_suffix(".kept").write_bytes(file.read_bytes())
    file.write_bytes(os.urandom(4000))


def restore(run: Run) -> None:
    """The image is put back."""
    kept = Path(run.told).with_suffix(".kept")
    kept.rename(run.told)


@contextmanager
def small_disk(corner: Path) -> Iterator[Place]:
    """A disk of DISK_MIB."""
    root_only("mounting a small disk")
    where = corner / "disk"
    where.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={DISK_MIB}m", "none", where]).returncode:
        raise Skipped("this system lets nobody mount a tmpfs")
    try:
        yield Place(where=str(where / "runs"), env=dict(os.environ))
    finally:
        subprocess.run(["umount", "--lazy", where], check=True)


def fill(run: Run) -> None:
    """Another takes the rest of the disk."""
    with contextlib.suppress(OSError), (Path(run.where).parent / "ballast").open("wb", buffering=0) as stream:
        while True:
            stream.write(b"x" * 65536)


def empty(run: Run) -> None:
    """The disk has room again; what is there is whole."""
    (Path(run.where).parent / "ballast").unlink()


@contextmanager
def store(corner: Path) -> Iterator[Place]:
    """An S3 store behind a process that passes its bytes on, so that what it holds outlives that process."""
    with s3_server(corner / "s3.log") as url, pytest.MonkeyPatch.context() as patch:
        port = free_port()
        use(patch, f"http://127.0.0.1:{port}")
        door = Door(port, int(url.rpartition(":")[2]))
        door.open()
        DOORS[corner] = door
        try:
            yield Place(where=f"s3://{BUCKET}/runs", env=dict(os.environ))
        finally:
            door.kill()


class Door:
    """The process by which a store is reached."""

    def __init__(self, port: int, behind: int) -> None:
        self.words = [sys.executable, "-m", "reliability.faults.door", str(port), str(behind)]

    def open(self) -> None:
        """Starts it."""
        self.process = subprocess.Popen(self.words, stdout=subprocess.PIPE)
        assert self.process.stdout
        self.process.stdout.readline()

    def kill(self) -> None:
        """SIGKILL."""
        self.process.kill()
        self.process.communicate()


DOORS: dict[Path, Door] = {}


@contextmanager
def false_clock(corner: Path) -> Iterator[Place]:
    """Processes in whose Python a file moves the wall clock."""
    path = f"{Path(__file__).parent / 'clock'}:{os.environ.get('PYTHONPATH', '')}".rstrip(":")
    yield Place(
        where=str(corner / "runs"), env={**os.environ, "PYTHONPATH": path, "FALSE_CLOCK": str(corner / "clock")}
    )


def turn_clock(run: Run, by_s: int) -> None:
    """The wall clock of the run jumps; a worker is lost two epochs later, so that a checkpoint must be found."""
    (run.corner / "clock").write_text(str(by_s))
    until_epochs(run, 4)
    run.kill("RayTrainWorker")


@contextmanager
def little_memory(corner: Path) -> Iterator[Place]:
    """Ray's memory monitor acts when the machine holds ROOM_MIB more than now."""
    facts = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
    total, free = (int(facts[name].split()[0]) / 1024 for name in ("MemTotal", "MemAvailable"))
    if free < 2 * BALLAST_MIB:
        raise Skipped(f"only {free:.0f} MiB of memory are free")
    room = {"RAY_memory_usage_threshold": f"{(total - free + ROOM_MIB) / total:.4f}"}
    yield Place(where=str(corner / "runs"), env={**os.environ, **room})


def press(_: Run) -> None:
    """Another process takes the memory for some seconds."""
    code = f"import time; held = b'x' * ({BALLAST_MIB} << 20); time.sleep({HELD_S})"
    subprocess.run([sys.executable, "-c", code], check=True)


def cut_off(_: Scene) -> str:
    """The story of a cluster of hosts, in one chapter of which a cable is pulled."""
    script = Path(__file__).parents[1] / "cluster" / "run.sh"
    done = subprocess.run(["bash", script], capture_output=True, text=True)
    if done.returncode == LEFT_OUT:
        raise Skipped(last_line(done.stderr).removeprefix("skipped: "))
    ensure(done.returncode == 0, done.stderr[-3000:])
    found = json.loads(last_line(done.stdout))
    epoch, step = found["went_on_at"]
    return (
        f"the lost host was noticed after {found['seconds_until_noticed']:.0f} s, the run went on after "
        f"{found['seconds_until_went_on']:.0f} s on the host that was left, from epoch {epoch}, step {step}; no epoch"
    )
