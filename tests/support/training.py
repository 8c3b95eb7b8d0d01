"""A training job as a process, for tests that do something to it: started, watched, ended, its children found."""

import json
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pandas as pd

from detector_core.config import RunSpec
from detector_core.networks.variants import spec_for

LIMIT_S = 240
EPOCHS, STEPS = 10, 12
CPUS = ("--cpus", "1")


def long_spec(folder: Path) -> Path:
    """The file of a spec of many short epochs, of STEPS steps each on the tiny data set: a run to break."""
    spec: RunSpec = spec_for(
        "timm:test_resnet-cutout",
        {
            "model.init": "none",
            "preprocess.image_size": 32,
            "optim.epochs": EPOCHS,
            "optim.batch_size": 48 // STEPS,
            "optim.micro_batch": 2,
            "optim.learning_rate": 0.0005,
        },
    )
    path = folder / "spec.json"
    path.write_text(json.dumps(spec.to_dict()))
    return path


def command(spec_file: Path, dataset: Path | str, runs: Path | str, name: str, *flags: str) -> list[str]:
    """The words that train."""
    found = [sys.executable, "-m", "jobs.train", "timm:test_resnet-cutout", "--spec", str(spec_file)]
    return [*found, "--data", str(dataset), "--storage", str(runs), "--name", name, *CPUS, *flags]


def start(
    spec_file: Path, dataset: Path | str, runs: Path | str, name: str, *flags: str, env: dict[str, str] | None = None
) -> "subprocess.Popen[str]":
    """Trains in a process of its own."""
    whole = command(spec_file, dataset, runs, name, *flags)
    return subprocess.Popen(
        whole, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True, env=env
    )


def finish(process: "subprocess.Popen[str]", limit_s: float = LIMIT_S) -> tuple[int, str, str]:
    """Exit code, stdout and stderr."""
    out, err = process.communicate(timeout=limit_s)
    return process.returncode, out, err


def train(
    spec_file: Path, dataset: Path | str, runs: Path | str, name: str, *flags: str, env: dict[str, str] | None = None
) -> dict[str, Any]:
    """Trains to the end; the result."""
    code, out, err = finish(start(spec_file, dataset, runs, name, *flags, env=env))
    assert code == 0, err
    result: dict[str, Any] = json.loads(out.splitlines()[-1])
    return result


def val_losses(run: Path) -> list[float]:
    """Of each finished epoch."""
    losses: list[float] = pd.read_csv(run / "metrics.csv")["val_loss"].tolist()
    return losses


def children(pid: int) -> dict[int, str]:
    """Every process below ``pid`` and its command line."""
    found, todo = {}, [pid]
    while todo:
        for task in Path(f"/proc/{todo.pop()}/task").glob("*/children"):
            for child in task.read_text().split():
                found[int(child)] = Path(f"/proc/{child}/cmdline").read_text().replace("\0", " ")
                todo.append(int(child))
    return found


def wait_for(process: "subprocess.Popen[str]", run: Path, epochs: int) -> None:
    """Until a run has finished that many epochs."""
    deadline = time.monotonic() + LIMIT_S
    while time.monotonic() < deadline and process.poll() is None:
        if (run / "metrics.csv").exists() and len(val_losses(run)) >= epochs:
            return
        time.sleep(0.05)
    raise AssertionError(f"no {epochs} epochs: {process.communicate()[1] if process.poll() is not None else 'timeout'}")


def wait_until_gone(pids: Iterable[int], limit_s: float) -> None:
    """Until none of the processes is left."""
    deadline = time.monotonic() + limit_s
    while left := [pid for pid in pids if Path(f"/proc/{pid}").exists()]:
        assert time.monotonic() < deadline, f"left: {[Path(f'/proc/{pid}/cmdline').read_text() for pid in left]}"
        time.sleep(0.2)
