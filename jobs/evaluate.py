"""Judge a trained model on a split of a data set: both errors by name, with intervals.

  python -m jobs.evaluate runs/resnet68-cutout-20260101-120000 --data data/faces
  python -m jobs.evaluate models/VERSION --data data/other-faces --split test --workers 8

RUN_OR_MODEL is a run's folder or a model folder. Before the first judgement the validation split of DATASET is scored,
and the temperature and both thresholds are chosen on it and saved as calibration.json in the model folder. From then
on they are frozen: a later call, on whatever data, reads them, unless --recalibrate is given.

MODEL/evaluation/SPLIT/ receives scores.parquet (path, label, logit, p_fake of each image; p_fake calibrated) and
report.json (fractions, each with its 95 % interval), plots, worst.png (the images it gets most wrong, with heat
maps), and report.html, which holds all of it and needs no network. On another data set than the one the model was
trained on, the folder is SPLIT-FINGERPRINT, and the report of the model's own data stays. The table for people goes
to stderr.

The scores are the same whatever the number of workers.

The last line on stdout is one JSON object: model, split, accuracy, auc, fakes_passed, reals_flagged (fractions, null
where the split has one class only), report.
"""

import argparse
import io
import json
from collections.abc import Callable
from typing import Any, NoReturn

import pandas as pd
import ray
import ray.exceptions
import torch
from ray.util import ActorPool
from tqdm import tqdm

from detector_core import labels, storage
from detector_core.data import manifest
from detector_core.data.manifest import Manifest
from detector_core.errors import BadConfig, BadManifest, DetectorError, InsufficientResources
from detector_core.evaluation import calibration, explain, report_html, scoring
from detector_core.evaluation.calibration import UNCALIBRATED, Calibration
from detector_core.evaluation.report import REPORT, build_report, format_report
from detector_core.evaluation.robustness import evaluate_grid, score_grid
from detector_core.labels import SPLITS
from detector_core.networks import artifacts
from detector_core.networks.artifacts import Artifact
from jobs.common import cli
from jobs.common.cluster import check_resources, connect

BATCH = 64
"""Images of one forward pass: fixed, so that the workers do not change which images share a batch."""
BATCHES_PER_TASK = {"CPU": 1, "GPU": 16}
Score = Callable[..., pd.DataFrame]
CHOSEN_ON = "valid"
RETRIES = 2


def main(argv: list[str] | None = None) -> NoReturn:
    """The command line."""
    parser = cli.parser("evaluate", __doc__)
    parser.add_argument("model", metavar="RUN_OR_MODEL", help="a run's folder or a model folder, local or a URI")
    parser.add_argument("--data", required=True, metavar="DATASET", help="a data set made by jobs.prepare")
    parser.add_argument("--split", choices=SPLITS, default="test", help="what to judge on [%(default)s]")
    parser.add_argument("--workers", type=int, metavar="W", help="processes that score [all cores, or GPUs with --gpu]")
    parser.add_argument("--gpu", action="store_true", help="one GPU for each worker")
    parser.add_argument("--recalibrate", action="store_true", help="choose temperature and thresholds again")
    parser.add_argument(
        "--hold",
        type=float,
        metavar="RATE",
        help="share of fakes passed that the threshold for real holds, from 0 up to 1 "
        "[0.01; up to 0.05 where less than half of the reals would be called real]",
    )
    parser.add_argument(
        "--robustness",
        action="store_true",
        help="also judge the images re-encoded, resized, blurred, noisy and cropped: takes about 18 times as long",
    )
    cli.run(job, parser.parse_args(argv))


def job(arguments: argparse.Namespace) -> dict[str, Any]:
    """Checks, calibrates once, scores, judges, writes."""
    if arguments.hold is not None and not 0 <= arguments.hold < 1:
        raise BadConfig(f"--hold is {arguments.hold}: it must be 0 or more and below 1")
    if arguments.workers is not None and arguments.workers < 1:
        raise BadConfig(f"--workers is {arguments.workers}: it must be 1 or more")
    with connect():
        folder, report, where = judge(
            arguments.model,
            manifest.load(storage.absolute(arguments.data)),
            split=arguments.split,
            workers=arguments.workers,
            gpu=arguments.gpu,
            again=arguments.recalibrate or arguments.hold is not None,
            hold=arguments.hold,
            robustness=arguments.robustness,
        )
    cli.say(format_report(report))
    rates = report["metrics"]
    return {
        "model": folder,
        "split": arguments.split,
        "accuracy": rates["accuracy"]["value"],
        "auc": report["ranking"]["auc"]["value"],
        "fakes_passed": rates["fakes_passed_rate"]["value"],
        "reals_flagged": rates["reals_flagged_rate"]["value"],
        "report": where,
    }


def judge(
    run_or_model: str,
    data: Manifest,
    *,
    split: str = "test",
    workers: int | None = None,
    gpu: bool = False,
    again: bool = False,
    hold: float | None = None,
    robustness: bool = False,
) -> tuple[str, dict[str, Any], str]:
    """Calibrates where that was not done (or ``again``), scores, judges and writes. Use inside ``connect()``.

    Returns:
        the model folder, the report, and where ``report.json`` is.
    """
    folder = artifacts.find(run_or_model)
    artifact = artifacts.read(folder)
    rows = data.split(split)
    frozen = UNCALIBRATED if again else calibration.load(folder, artifact.weights_sha256)
    with Scorers(folder, data.root, workers=workers, gpu=gpu) as scorers:
        scored: dict[str, pd.DataFrame] = {}
        if not frozen.chosen_on:
            frozen, scored = calibrate(scorers, artifact, data, hold=hold)
            if frozen.chosen_on:
                calibration.save(folder, frozen)
        scores = scored.get(split)
        if scores is None:
            scores = scorers.score(rows, f"scoring {split}")
        grid = scorers.score(rows, "scoring changed images", score_grid) if robustness else None
    scores = scores.assign(p_fake=frozen.p_fake(scores["logit"]))
    report = build_report(scores, frozen, model=describe(folder, artifact), data=data.describe(), split=split)
    if grid is not None:
        report["robustness"] = evaluate_grid(grid, frozen)
    network, _ = artifacts.load(folder)
    worst = explain.draw_worst_images(network, artifact.spec.preprocess, scores, data.root, frozen.fake_above)
    own = data.fingerprint == artifact.data["fingerprint"]
    where = report_folder(folder, split, data, own=own)
    return folder, report, write(where, scores, report, {explain.WORST_IMAGES: worst})


def report_folder(model_folder: str, split: str, data: Manifest, *, own: bool) -> str:
    """Where the judgement of a split goes: each data set but the model's own has a folder of its own."""
    name = split if own else f"{split}-{data.fingerprint[:12]}"
    return storage.join(model_folder, artifacts.EVALUATION, name)


def describe(folder: str, artifact: Artifact) -> dict[str, Any]:
    """What a report says about the model."""
    return {
        "folder": folder,
        "run": artifact.run,
        "variant": artifact.spec.variant,
        "weights_sha256": artifact.weights_sha256,
        "data": artifact.data,
    }


def calibrate(
    scorers: "Scorers", artifact: Artifact, data: Manifest, *, hold: float | None
) -> tuple[Calibration, dict[str, pd.DataFrame]]:
    """A calibration chosen on the validation split, and its scores; the default one where the data cannot give it."""
    try:
        rows = data.split(CHOSEN_ON)
    except BadManifest as error:
        cli.say(f"{error}: no thresholds can be chosen, 0.5 is used")
        return UNCALIBRATED, {}
    scores = scorers.score(rows, f"scoring {CHOSEN_ON} to choose the thresholds")
    chosen = calibration.choose(
        labels.is_fake(scores["label"]),
        scores["logit"].to_numpy(),
        max_fakes_passed=hold,
        chosen_on={
            "fingerprint": data.fingerprint,
            "name": data.name,
            "split": CHOSEN_ON,
            "n": len(rows),
            "weights_sha256": artifact.weights_sha256,
        },
    )
    if not chosen.chosen_on:
        cli.say(f"the {CHOSEN_ON} split of {data.name} has one class only: no thresholds can be chosen, 0.5 is used")
    elif hold is None and chosen.max_fakes_passed != calibration.FAKES_PASSED_LIMITS[0]:
        cli.say(
            f"holding fakes passed at {calibration.FAKES_PASSED_LIMITS[0]:.0%} would leave less than half of the reals called "
            f"real: it is held at {chosen.max_fakes_passed:.0%} (--hold 0.01 insists)"
        )
    return chosen, {CHOSEN_ON: scores}


def write(folder: str, scores: pd.DataFrame, report: dict[str, Any], images: dict[str, bytes]) -> str:
    """Writes the files of a judgement, ``report.json`` last, and returns where that is."""
    buffer = io.BytesIO()
    scores.to_parquet(buffer, index=False)
    plots = report_html.draw_plots(report) | images
    files = {
        scoring.SCORES: buffer.getvalue(),
        **plots,
        report_html.PAGE: report_html.render_page(report, plots).encode(),
        REPORT: json.dumps(report, indent=2, allow_nan=False).encode(),
    }
    for name, content in files.items():
        storage.write_bytes(storage.join(folder, name), content)
    return storage.join(folder, REPORT)


class _Scorer:
    """One worker: the model, loaded once, and the images' root."""

    def __init__(self, folder: str, root: str, device: str, threads: int) -> None:
        self.folder, self.root, self.device, self.threads = folder, root, device, threads
        self.loaded: tuple[torch.nn.Module, Artifact] | None = None

    def score(self, start: int, rows: pd.DataFrame, scorer: Score) -> tuple[int, pd.DataFrame]:
        # Not in __init__: an error there would reach the driver as a dead actor, without its message.
        model, artifact = self.loaded = self.loaded or artifacts.load(self.folder)
        how = {"batch_size": BATCH, "device": self.device, "threads": self.threads}
        return start, scorer(model, rows, self.root, artifact.spec.preprocess, **how)


class Scorers:
    """Workers that each hold the model. Use inside :func:`jobs.common.cluster.connect`.

    Raises:
        InsufficientResources: more workers than this Ray has cores or GPUs.
    """

    def __init__(self, folder: str, root: str, *, workers: int | None, gpu: bool) -> None:
        unit = "GPU" if gpu else "CPU"
        has = ray.cluster_resources()
        self.workers = workers or max(1, int(has.get(unit, 1)))
        # A network on a GPU is fed by all cores; one on a CPU works on the core that decodes.
        cpus = max(1, int(has.get("CPU", 1)) // self.workers) if gpu else 1
        purpose = f"scoring with {self.workers} workers"
        check_resources(cpus=self.workers * cpus, gpus=self.workers * gpu, purpose=purpose)
        self.chunk = BATCH * BATCHES_PER_TASK[unit]
        self.options = {"num_cpus": cpus, "num_gpus": int(gpu), "max_restarts": RETRIES, "max_task_retries": RETRIES}
        self.given = (folder, root, "cuda" if gpu else "cpu", cpus)
        self.actors: list[Any] = []

    def __enter__(self) -> "Scorers":
        return self

    def __exit__(self, *_: object) -> None:
        for actor in self.actors:
            ray.kill(actor)

    def score(self, rows: pd.DataFrame, title: str, scorer: Score = scoring.score) -> pd.DataFrame:
        """The scores of a split in the order of its rows; a progress bar on stderr.

        Args:
            scorer: :func:`detector_core.evaluation.scoring.score` or
                :func:`detector_core.evaluation.robustness.score_grid`.

        Raises:
            DetectorError: what a worker found (a broken image, changed weights).
            InsufficientResources: workers were lost again and again.
        """
        chunks = [(start, rows.iloc[start : start + self.chunk]) for start in range(0, len(rows), self.chunk)]
        wanted = min(self.workers, len(chunks))
        actor = ray.remote(_Scorer).options(**self.options)
        self.actors += [actor.remote(*self.given) for _ in range(wanted - len(self.actors))]
        done: dict[int, pd.DataFrame] = {}
        try:
            with tqdm(total=len(rows), desc=title, unit=" images") as bar:
                results = ActorPool(self.actors).map_unordered(
                    lambda worker, chunk: worker.score.remote(*chunk, scorer), chunks
                )
                for start, scores in results:
                    done[start] = scores
                    bar.update(len(scores))
        except ray.exceptions.RayTaskError as error:
            # Ray adds the worker's traceback to the message; ours is one line.
            raise error.cause if isinstance(error.cause, DetectorError) else error from None
        except ray.exceptions.RayActorError:
            raise InsufficientResources(
                f"a scoring worker was lost {RETRIES + 1} times (killed, or out of memory): use fewer --workers"
            ) from None
        return pd.concat([done[start] for start, _ in chunks], ignore_index=True)


if __name__ == "__main__":
    main()
