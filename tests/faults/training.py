"""The faults of training: processes that are killed, disks, stores and files that fail, a clock, memory."""

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest

from detector_core import manifest
from tests.faults.runs import Place, Run, Story
from tests.faults.table import Fault, Skipped, root_only
from tests.s3 import BUCKET, free_port, s3_server, use
from tests.training import wait_until_gone

ORPHANS_S, AGENTS_S = 30, 90
"""Ray's agents first wait a minute for the control store that died with the driver; the rest ends at once."""
DISK_MIB = 24
"""Three checkpoints of the tiny network, and a little."""
FAKETIME = "/usr/lib/*/faketime/libfaketimeMT.so.1"
LEFT_OUT = 77
"""The exit code of tests/cluster/run.sh where there can be no hosts."""
BALLAST_MIB, ROOM_MIB, HELD_S = 3000, 1500, 8
"""What another process takes at once, what is free below Ray's threshold before, and for how long."""


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
    """A training picture becomes garbage, and is remembered."""
    data = manifest.load(str(run.dataset))
    file = Path(data.root) / data.split("train")["path"].iloc[3]
    run.told = str(file)
    file.with_suffix(".kept").write_bytes(file.read_bytes())
    file.write_bytes(os.urandom(4000))


def restore(run: Run) -> None:
    """The picture is put back."""
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
        self.words = [sys.executable, "-m", "tests.faults.door", str(port), str(behind)]

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
    """Processes whose wall clock a file moves."""
    found = sorted(Path("/").glob(FAKETIME[1:]))
    if not found:
        raise Skipped("libfaketime is not installed (Debian: faketime)")
    (corner / "clock").write_text("+0")
    faked = {
        "LD_PRELOAD": str(found[0]),
        "FAKETIME_TIMESTAMP_FILE": str(corner / "clock"),
        "FAKETIME_CACHE_DURATION": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        "FAKETIME_DONT_RESET": "1",
    }
    yield Place(where=str(corner / "runs"), env={**os.environ, **faked})


def turn_clock(run: Run, by: str) -> None:
    """The wall clock of the run jumps; a worker is lost a little later, so that a checkpoint must be found."""
    (run.corner / "clock").write_text(by)
    time.sleep(4)
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
        f"ended {found['seconds_from_cut_to_end']:.0f} s after the cut, on the host that was left; "
        f"went on from epoch {epoch}, step {step}; no epoch"
    )


TRAINING = (
    Fault(
        name="a Ray Train worker is killed",
        promise="it is replaced; the run goes on from the last checkpoint by itself",
        made="SIGKILL to one of two workers after the second epoch",
        checked="exit code, epochs, steps, the curve beside that of an unbroken run",
        run=Story(happens=lambda run: run.kill("RayTrainWorker"), flags=("--workers", "2")),
        elsewhere="tests/jobs/test_train.py",
    ),
    Fault(
        name="the driver is killed",
        promise="no process is left behind; the same command with --resume goes on within the epoch",
        made="SIGKILL to python -m jobs.train after the second epoch",
        checked="its processes, exit code of --resume, epochs, steps, the curve",
        run=Story(happens=Run.die, says="", code=-9, mend=orphans_gone, after=all_gone),
        elsewhere="tests/jobs/test_train.py",
    ),
    Fault(
        name="the head is killed: its control store",
        promise="the job says so in one line and exits 1; --resume goes on",
        made="SIGKILL to gcs_server",
        checked="the line, how soon, the curve after --resume",
        run=Story(happens=lambda run: run.kill("gcs_server"), says="^error: .*Ray.*--resume"),
    ),
    Fault(
        name="the head is killed: its raylet",
        promise="the job says so in one line and exits 1; --resume goes on",
        made="SIGKILL to raylet",
        checked="the line, how soon, the curve after --resume",
        run=Story(happens=lambda run: run.kill("raylet/raylet"), says="^error: .*Ray.*--resume"),
        quick=True,
    ),
    Fault(
        name="a checkpoint is truncated",
        promise="its checksum says so; the one before is taken, with a warning",
        made="the driver is killed, half of state.pt of the newest checkpoint cut off",
        checked="the warning, epochs, steps, the curve",
        run=Story(happens=Run.die, says="", code=-9, mend=tear, resumes="passing over a damaged checkpoint"),
        elsewhere="tests/jobs/test_train.py",
    ),
    Fault(
        name="what describes a checkpoint is truncated",
        promise="the same",
        made="the driver is killed, half of checkpoint.json cut off",
        checked="the warning, epochs, steps, the curve",
        run=Story(
            happens=Run.die,
            says="",
            code=-9,
            mend=partial(tear, name="checkpoint.json"),
            resumes="passing over a damaged checkpoint",
        ),
    ),
    Fault(
        name="the manifest is deleted",
        promise="a run that has begun ends as if it were there",
        made="manifest.parquet and dataset.json are deleted after the second epoch",
        checked="exit code, epochs, the curve, the model folder",
        run=Story(happens=lose_manifest),
        quick=True,
    ),
    Fault(
        name="a picture is replaced by garbage",
        promise="the run stops and names it; once it is mended --resume goes on",
        made="random bytes over a training picture after the second epoch",
        checked="the line, the curve after --resume",
        run=Story(happens=spoil, says="^error: broken picture: .*jpg", mend=restore),
    ),
    Fault(
        name="the disk is full while checkpointing",
        promise="the run stops and says so; what is there is whole; with room again --resume goes on",
        made=f"a disk of {DISK_MIB} MiB, which another fills after the second epoch",
        checked="the line, the curve after --resume",
        run=Story(happens=fill, says="^error: the disk is full", mend=empty, around=small_disk),
    ),
    Fault(
        name="the object store's process is killed",
        promise="the job says so in one line and exits 1; when the store is back --resume goes on",
        made="SIGKILL to the process through which an S3 server (moto) is reached, after the second epoch",
        checked="the line, how soon, the curve after --resume",
        run=Story(
            happens=lambda run: DOORS[run.corner].kill(),
            says="^error: .*s3://.* does not answer",
            mend=lambda run: DOORS[run.corner].open(),
            around=store,
        ),
    ),
    Fault(
        name="the clock jumps back a day",
        promise="the run goes on, from the newest checkpoint, not from the one with the latest date",
        made="libfaketime turns the wall clock of all its processes; a worker is killed 4 s later",
        checked="exit code, epochs, steps, the curve",
        run=Story(happens=partial(turn_clock, by="-1d"), around=false_clock),
    ),
    Fault(
        name="the clock jumps forward a day",
        promise="the run goes on",
        made="libfaketime turns the wall clock of all its processes; a worker is killed 4 s later",
        checked="exit code, epochs, steps, the curve",
        run=Story(happens=partial(turn_clock, by="+1d"), around=false_clock),
    ),
    Fault(
        name="memory is short",
        promise="Ray ends a worker before the machine swaps or the kernel chooses; the run goes on from a checkpoint",
        made=f"Ray's memory monitor set {ROOM_MIB} MiB above what is used, {BALLAST_MIB} MiB taken for {HELD_S} s",
        checked="exit code, epochs, steps, the curve",
        run=Story(happens=press, around=little_memory),
    ),
    Fault(
        name="the network between two hosts is cut",
        promise="the run goes on with the hosts that are left, from the last checkpoint",
        made="the cable of one of two hosts made of namespaces is pulled, Ray on both (tests/cluster/run.sh)",
        checked="the job's end, its epochs, how soon",
        run=cut_off,
        elsewhere="tests/cluster/test_hosts.py",
    ),
)
