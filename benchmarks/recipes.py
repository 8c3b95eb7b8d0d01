"""Trains recipes on real faces with several seeds, evaluates each once on the test split, and prints their table.

  python -m benchmarks.recipes --data data/faces --storage runs --recipes lite-frozen lite0 --seeds 0 1 2
  python -m benchmarks.recipes --data data/faces --storage runs --recipes lite-ensemble --seeds 0 1 2 \\
      --starter detector_core/starter

Every row is the mean over its seeds, in brackets the lowest and the highest; CPU minutes are those of training, with
frozen features computed in the first seed. Runs that are finished are not trained again. --starter also writes the run
with the lowest validation loss as the starter model: weights in half precision, evaluated and promoted as they are
written, with the model card, the learning curve and the record of the parity gate. No image of the data set is written.

The last line on stdout is one JSON object: rows.
"""

import argparse
import dataclasses
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import safetensors.torch

from benchmarks import machine
from detector_core.data import manifest, seen
from detector_core.networks import artifacts
from detector_core.networks.variants import RECIPES
from detector_core.registry import model_card, runtime_files, starter, versions
from tests.support.processes import children

LOOK_EVERY_S = 0.5
COLUMNS = {
    "auc": "ROC AUC",
    "accuracy": "accuracy",
    "fakes_caught_at_0.01": "fakes caught at 1% reals flagged",
    "fakes_passed_rate": "fakes passed",
    "reals_flagged_rate": "reals flagged",
}
NOT_SHIPPED = ("*.png", "report.html", "scores.parquet", "*.svg", "*.csv", "*.tex")
"""Files of an evaluation that show images of the data set, name its files, or repeat report.json."""


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, metavar="DATASET", help="a data set made by jobs.prepare")
    parser.add_argument("--storage", required=True, metavar="FOLDER", help="folder of the runs")
    parser.add_argument("--recipes", nargs="+", default=list(RECIPES), choices=list(RECIPES), metavar="RECIPE")
    parser.add_argument(
        "--seeds", nargs="+", type=int, default=[0, 1, 2], metavar="SEED", help="the seeds, not their number [0 1 2]"
    )
    parser.add_argument("--workers", type=int, default=2, help="workers of each training [%(default)s]")
    parser.add_argument("--robustness", action="store_true", help="also evaluate degraded images")
    parser.add_argument("--starter", type=Path, metavar="FOLDER", help="write the best run of the first recipe here")
    arguments = parser.parse_args()
    print(machine.describe(), flush=True)
    rows = {recipe: [run_seed(arguments, recipe, seed) for seed in arguments.seeds] for recipe in arguments.recipes}
    print_table(rows)
    if arguments.starter:
        best = min(rows[arguments.recipes[0]], key=lambda row: row["val_loss"])
        print(f"writing {best['run']} to {arguments.starter} ...", flush=True)
        write_starter(best["run"], arguments.data, arguments.starter)
    print(json.dumps({"rows": rows}))


def run_seed(arguments: argparse.Namespace, recipe: str, seed: int) -> dict[str, Any]:
    """Trains and evaluates one seed; returns its test metrics, validation loss and cost."""
    name = f"{recipe}-seed{seed}"
    where = ["--data", arguments.data, "--storage", arguments.storage, "--name", name]
    if (Path(arguments.storage) / name / "run.json").exists():
        where.append("--resume")
    started = time.perf_counter()
    trained, cpu_s = job("train", recipe, *where, "--seed", str(seed), "--workers", str(arguments.workers))
    minutes = (time.perf_counter() - started) / 60
    robustness = ["--robustness"] if arguments.robustness else []
    evaluated, _ = job("evaluate", trained["run"], "--data", arguments.data, *robustness)
    report = json.loads(Path(evaluated["report"]).read_text())
    metrics = {name: value["value"] for name, value in (report["ranking"] | report["metrics"]).items()}
    return {
        "run": trained["run"],
        "val_loss": trained["val_loss"],
        "minutes": minutes,
        "cpu_minutes": cpu_s / 60,
        **{name: metrics[name] for name in COLUMNS},
    }


def job(verb: str, *arguments: str) -> tuple[dict[str, Any], float]:
    """Runs a job; returns its result and the CPU seconds of all its processes. Its progress goes to stderr.

    What a process uses after it was last looked at is missed: half a second at most.
    """
    command = [sys.executable, "-m", f"jobs.{verb}", *arguments]
    used: dict[int, float] = {}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        while process.poll() is None:  # it prints one line, which fits the pipe
            used |= {pid: seconds for pid in (process.pid, *children(process.pid)) if (seconds := _cpu_s(pid))}
            time.sleep(LOOK_EVERY_S)
        assert process.stdout is not None
        output = process.stdout.read()
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command)
    result: dict[str, Any] = json.loads(output.splitlines()[-1])
    return result, sum(used.values())


def print_table(rows: dict[str, list[dict[str, Any]]]) -> None:
    """The table in Markdown."""
    print(f"| recipe | {' | '.join(COLUMNS.values())} | CPU minutes | minutes |")
    print("|---" * (len(COLUMNS) + 3) + "|")
    for recipe, seeds in rows.items():
        cells = [_cell([seed[name] for seed in seeds]) for name in COLUMNS]
        cost = [f"{statistics.mean(seed[name] for seed in seeds):.1f}" for name in ("cpu_minutes", "minutes")]
        print(f"| `{recipe}` | {' | '.join([*cells, *cost])} |", flush=True)


def write_starter(run: str, data: str, folder: Path) -> None:
    """Writes a run's model in half precision, evaluates and promotes what was written, and keeps what shows nobody."""
    model = Path(artifacts.find(run))
    with tempfile.TemporaryDirectory() as scratch:
        copy, models = Path(scratch) / "model", Path(scratch) / "models"
        weights = {name: value.half() for name, value in safetensors.torch.load_file(model / artifacts.WEIGHTS).items()}
        artifact = dataclasses.replace(artifacts.read(model), run=starter.NAME, data=manifest.load(data).describe())
        seen_file = {seen.SEEN: seen.record(manifest.load(data).frame)}
        artifacts.save(copy, weights, artifact, seen_file)
        job("evaluate", str(copy), "--data", data, "--robustness")
        job("promote", str(copy), "--to", str(models), "--data", data)
        promoted = versions.live(models)
        record = runtime_files.read(promoted, artifacts.read(copy).weights_sha256)
        assert record, "promotion writes a record"
        runtime_files.write(copy, record, runtime_files.CARRIED_FILE)
        shutil.copy(promoted / model_card.CARD_FILE, copy)
        for path in copy.glob("evaluation/*/report.json"):  # says where the model lay while it was evaluated
            report = json.loads(path.read_text())
            report["model"]["folder"] = starter.NAME
            path.write_text(json.dumps(report, indent=2))
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(copy, folder, ignore=shutil.ignore_patterns(*NOT_SHIPPED))
        shutil.copy(model.parent / "curves.png", folder)


def _cell(values: list[float]) -> str:
    mean = statistics.mean(values)
    return f"{mean:.3f} ({min(values):.3f}-{max(values):.3f})" if len(values) > 1 else f"{mean:.3f}"


def _cpu_s(pid: int) -> float:
    """The CPU seconds of a process so far; 0 if it has ended."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


if __name__ == "__main__":
    main()
