"""How long training stands still for a checkpoint on an object store, uploaded at once or in the background.

  python -m benchmarks.uploads

A Ray Train worker saves the state of resnet68 as jobs.train does, to an S3 server (moto) behind a relay that answers
after DELAY_MS and carries MB_PER_S. Between two checkpoints it sleeps for TRAIN_S, as the cores do while a GPU
computes. Prints one JSON object.
"""

import argparse
import contextlib
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks.machine import describe
from detector_core.networks.variants import spec_for
from detector_core.training.step import TrainState
from jobs.common.cluster import PrivateRay, start
from jobs.common.loopback import free_port
from jobs.run.launch import Trainer, storage_options
from jobs.run.uploads import CheckpointUploads
from tests.support.s3 import BUCKET, s3_server, use_server

DELAY_MS, MB_PER_S, CHECKPOINTS, TRAIN_S = 50, 50, 3, 20.0


def main() -> None:
    """Runs the command line."""
    argparse.ArgumentParser(
        prog="python -m benchmarks.uploads", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    ).parse_args()
    print(describe(), file=sys.stderr, flush=True)
    with tempfile.TemporaryDirectory(prefix="uploads-") as folder, _distant_store(Path(folder)), start(PrivateRay()):
        results = {name: _train(name, name == "background") for name in ("at once", "background")}
    setting = {"delay_ms": DELAY_MS, "mb_per_s": MB_PER_S, "checkpoints": CHECKPOINTS, "train_s": TRAIN_S}
    print(json.dumps({**setting, **results}))


@contextlib.contextmanager
def _distant_store(folder: Path) -> Iterator[None]:
    """Sets the environment so that s3:// is the server behind the relay."""
    with s3_server(folder / "log") as url, pytest.MonkeyPatch.context() as patch:
        port = free_port()
        words = [str(port), url.rpartition(":")[2], str(DELAY_MS), str(MB_PER_S)]
        relay = subprocess.Popen([sys.executable, "-m", "reliability.faults.relay", *words], stdout=subprocess.PIPE)
        try:
            assert relay.stdout
            relay.stdout.readline()
            use_server(patch, f"http://127.0.0.1:{port}")
            yield
        finally:
            relay.kill()
            relay.communicate()


def _train(name: str, in_background: bool) -> dict[str, float]:
    """One run; the seconds that training stood still for a checkpoint, and the size of one."""
    from ray.train import CheckpointConfig, RunConfig, ScalingConfig

    trainer = Trainer(
        _work,  # type: ignore[arg-type]  # the hint allows no return value, which Ray keeps
        train_loop_config={"in_background": in_background},
        scaling_config=ScalingConfig(num_workers=1),
        run_config=RunConfig(
            name=name.replace(" ", "-"),
            **storage_options(f"s3://{BUCKET}/runs"),
            checkpoint_config=CheckpointConfig(num_to_keep=2),
        ),
    )
    started = time.monotonic()
    result: dict[str, float] = trainer.fit().return_value  # type: ignore[attr-defined]  # that of rank 0
    return {**result, "run_s": round(time.monotonic() - started, 1)}


def _work(config: dict[str, Any]) -> dict[str, float]:
    state = _state_after_an_epoch()
    with tempfile.TemporaryDirectory() as scratch:
        state.save(Path(scratch))
        size = sum(path.stat().st_size for path in Path(scratch).iterdir())
    uploads, seconds = CheckpointUploads(0, in_background=config["in_background"]), []
    for number in range(CHECKPOINTS):
        time.sleep(TRAIN_S)
        started = time.monotonic()
        uploads.save(state, {"epoch": number})
        seconds.append(time.monotonic() - started)
    uploads.wait()
    return {"checkpoint_mb": round(size / 1e6, 1), "median_s": round(statistics.median(seconds), 2)}


def _state_after_an_epoch() -> TrainState:
    """A state as large as in training: weights, Adam's two moments of each, and the best weights."""
    state = TrainState(spec_for("resnet68-cutout", {"model.init": "none"}), "data", "cpu")
    for parameter in state.network.parameters():
        parameter.grad = torch.zeros_like(parameter)
    state.optimizer.step()
    state.best_weights = {name: value.detach().clone() for name, value in state.network.state_dict().items()}
    return state


if __name__ == "__main__":
    main()
