"""Kills a round of relearning at each rung, starts it again, and compares it with one that nobody disturbed.

  python -m reliability.learning.killed

Real processes on made images: ``jobs.relearn`` is killed (SIGKILL) while it computes features for ``thresholds``, while
it trains the ``head``, and after the first checkpoint of ``network``. While the last one runs, a second round on the
same folder must be refused. Started again, each must end with the tags, candidates and error counts of the undisturbed
round, ``network`` from its checkpoint.

Prints each step, and one JSON object as the last line. An AssertionError says what did not end as it should.
"""

import json
import re
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.machine import describe
from detector_core.data import feedback, round_log
from detector_core.registry import versions
from jobs.common import cli
from tests.support.progress import Process, run
from tests.support.tagged import give_accepted, hashed_dataset, live_model

TAGS_PER_CLASS = 60
RUNGS = ("thresholds", "head", "network")
COMPARED = ("tags", "held_out_tags", "left_out", "candidates")


def main() -> None:
    """Runs the command line."""
    print(describe(), flush=True)
    with tempfile.TemporaryDirectory(prefix="killed-") as scratch:
        folder = Path(scratch)
        dataset = hashed_dataset(folder, {"train": 60, "valid": 30, "test": 24})
        versions.promote(live_model(folder / "live", dataset, balanced=True), folder / "models")
        give_accepted(folder / "given", TAGS_PER_CLASS)
        results = {rung: _kill_and_resume(rung, folder) for rung in RUNGS}
    print(json.dumps(results))


def _kill_and_resume(rung: str, folder: Path) -> dict[str, Any]:
    where = folder / rung
    where.mkdir()
    shutil.copytree(folder / "given", where / "feedback")
    command = _command(rung, folder, where)
    process, started = Process(command), time.monotonic()
    if rung == RUNGS[-1]:
        process.wait_until(lambda: "features of" in process.err)
        second = run(command)
        assert (second.returncode, "another round is running on" in second.stderr) == (1, True), second.stderr
    process.wait_until(lambda: _has_reached(rung, process, where))
    after = time.monotonic() - started
    process.send_signal(signal.SIGKILL)
    process.finish()
    assert not (where / "feedback" / round_log.ROUNDS).exists(), "it was killed too late"
    _say(f"{rung}: killed after {after:.1f} s")
    killed, messages = _finish(command, where)
    resumed = re.search(r"from epoch 1, step (\d+)", messages)
    step = int(resumed[1]) if resumed else None
    assert rung != RUNGS[-1] or (step is not None and step > 1), f"it did not go on from its checkpoint: {messages}"

    shutil.rmtree(where / "feedback")
    shutil.copytree(folder / "given", where / "feedback")
    calm, _ = _finish(command, where)
    assert killed == calm, f"{rung}: {killed} is not {calm}"
    _say(f"{rung}: started again, it ends as if nothing had happened{f', from step {step}' if step else ''}")
    return {"killed_after_s": round(after, 1), "from_step": step, "candidates": list(calm["candidates"])}


def _command(rung: str, folder: Path, where: Path) -> list[str]:
    paths = ["--models", folder / "models", "--feedback", where / "feedback", "--data", folder / "dataset"]
    words = [*paths, "--cache", where / "cache", "--rung", rung, "--per-giver", 2 * TAGS_PER_CLASS]
    return [sys.executable, "-m", "jobs.relearn", *map(str, words)]


def _has_reached(rung: str, process: Process, where: Path) -> bool:
    if rung == "network":
        return any((where / "feedback" / feedback.ROUND_RUNS).glob("network-*/checkpoint_*"))
    return ("features of" if rung == "thresholds" else "are held out") in process.err


def _finish(command: list[str], where: Path) -> tuple[dict[str, Any], str]:
    """Runs a round to its end; what it has recorded, and its messages."""
    done = run(command)
    assert done.returncode in (0, cli.NEGATIVE), done.stderr
    left = {path.name for path in (where / "feedback").iterdir()}
    assert not left & {feedback.ROUND_RUNS, feedback.ROUND_IMAGES}, f"it left {left}"
    (record,) = (where / "feedback" / round_log.ROUNDS).glob(f"*/{round_log.ROUND}")
    values = json.loads(record.read_text())
    return {name: values[name] for name in COMPARED}, done.stderr


def _say(text: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {text}", flush=True)


if __name__ == "__main__":
    main()
