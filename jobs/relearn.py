"""Learn from accepted tags: a new version from the live one, which is promoted only if it is better.

  python -m jobs.relearn --models models --feedback FEEDBACK --data data/faces
  python -m jobs.relearn --models models --feedback FEEDBACK --data data/faces --rung head --promote

FEEDBACK is the service's http.feedback_folder; only tags that were accepted with jobs.review are learnt from. DATASET
is what the live model was trained on: its training images are replayed, so that nothing is forgotten, thresholds are
chosen on its validation images, and its test images decide whether the new version is as good as the live one.

The rungs of the ladder: "thresholds" chooses the temperature and the thresholds again, with the tags weighed in;
"head" also trains the last layer anew on frozen features, in seconds once these are cached; "auto" tries both and takes
the one with the fewest errors on held-out tags, of those that pass.

A third of the tags is held out. The new version passes the gate if on the test split neither error has become worse
(fakes passed, reals flagged; paired test, and by source if there are several), and if it makes fewer errors on the
held-out tags. Otherwise nothing is promoted, the exit code is 3, and the conditions that failed are printed. A tag is
left out if it shows the same as a validation or test image, if near-duplicates of it are used or tagged differently,
or if its giver has --per-giver tags already.

FEEDBACK/rounds/ROUND receives round.json (what was used, left out and compared) and, if the gate was passed, model/
with its report on the test split. --promote makes it the live version, as jobs.promote FEEDBACK/rounds/ROUND does;
jobs.promote --rollback takes it back. A round that was interrupted is started again with the same command. Only one
round at a time runs on a FEEDBACK. See docs/learning.md.

The last line on stdout is one JSON object: passed, rung, failed (names of the conditions), promoted (a version, or
null), round, model (null if not passed), tags, held_out, left_out (numbers), seconds.
"""

import argparse
import datetime
import json
import time
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

from detector_core import storage
from detector_core.data import manifest, review, tagged
from detector_core.data.manifest import Manifest
from detector_core.data.tagged import Selection
from detector_core.errors import BadConfig
from detector_core.evaluation import calibration
from detector_core.networks import artifacts
from detector_core.registry import versions
from detector_core.training import rounds
from detector_core.training.features import FeatureReport
from detector_core.training.relearn import Trunk
from detector_core.training.rounds import Candidate
from jobs.common import cli
from jobs.common.cluster import connect
from jobs.common.scoring_workers import ScoringWorkers
from jobs.evaluate import evaluate_model
from jobs.run.resource_flags import CACHE

AUTO = "auto"
ROUNDS, ROUND, LOCK = "rounds", "round.json", "relearn.lock"


def main(argv: list[str] | None = None) -> NoReturn:
    """The command line."""
    parser = cli.parser("relearn", __doc__)
    parser.add_argument("--models", required=True, metavar="MODELS", help="the registry with the live version")
    parser.add_argument("--feedback", required=True, metavar="FEEDBACK", help="the service's http.feedback_folder")
    parser.add_argument("--data", metavar="DATASET", help="the data set that the live model was trained on")
    parser.add_argument("--rung", choices=(*rounds.RUNGS, AUTO), default=AUTO, help="what to learn [%(default)s]")
    parser.add_argument("--promote", action="store_true", help="make the new version live if it passes the gate")
    parser.add_argument(
        "--per-giver", type=int, default=tagged.PER_GIVER, metavar="N", help="most tags of one giver [%(default)s]"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the training of the last layer [%(default)s]")
    parser.add_argument(
        "--cache", type=Path, default=CACHE, help="folder for features of the data set, may be deleted [%(default)s]"
    )
    cli.run(job, parser.parse_args(argv))


def job(arguments: argparse.Namespace) -> dict[str, Any]:
    """Checks the flags, makes the candidates, and keeps the one that passes the gate.

    Raises:
        NegativeResult: none passes.
    """
    started, models, feedback = time.monotonic(), storage.absolute(arguments.models), Path(arguments.feedback)
    if arguments.per_giver < 1:
        raise BadConfig(f"--per-giver is {arguments.per_giver}: it must be 1 or more")
    live = versions.live(models)
    if not arguments.data:
        raise BadConfig(
            f"the live version {live.name} does not carry its training data: name its data set with --data DATASET"
        )
    tags = review.read(feedback)
    data = _data_of(live, manifest.load(storage.absolute(arguments.data)))
    busy = f"another round is running on {feedback}: wait until it has ended"
    with storage.locked(feedback / LOCK, busy=busy), tagged.round_images(feedback) as work:
        selection = tagged.select(feedback, tags, data, work, per_giver=arguments.per_giver)
        result = _run_round(arguments, live, models, data, selection, work)
    result["seconds"] = round(time.monotonic() - started, 1)
    if not result["passed"]:
        raise cli.NegativeResult(result)
    return result


def _data_of(live: Path, data: Manifest) -> Manifest:
    """The images that the live model was trained on and tested with; says so if it is another data set."""
    trained_on = artifacts.read(live).data
    if trained_on["fingerprint"] == data.fingerprint:
        return data.without(trained_on.get("left_out", ()))
    cli.say(
        f"{data.name} is not the data set that {live.name} was trained on ({trained_on['name']}): its training images "
        f"are replayed all the same, and both models are compared on its test split"
    )
    return data


def _run_round(
    arguments: argparse.Namespace, live: Path, models: str, data: Manifest, selection: Selection, work: Path
) -> dict[str, Any]:
    network, artifact = artifacts.load(live)
    trunk = Trunk(network, artifact.spec.preprocess)
    frame = selection.frame
    cli.say(
        f"{live.name} learns from {(~frame['held_out']).sum()} tags; {frame['held_out'].sum()} are held out, "
        f"{len(selection.left_out)} left out"
    )
    images = rounds.load_images(trunk, data, selection, work, cache=arguments.cache, progress=_say_progress)
    candidates = []
    for rung in rounds.RUNGS if arguments.rung == AUTO else (arguments.rung,):
        candidate = rounds.try_rung(
            rung,
            trunk,
            calibration.load(str(live), artifact.weights_sha256),
            images,
            data,
            dtype=rounds.stored_dtype(live, trunk),
            seed=arguments.seed,
        )
        candidates.append(candidate)
        cli.say("\n".join([f"{rung}:", *(f"  {condition}" for condition in candidate.conditions)]))
    best = rounds.choose(candidates)
    tagged.check_unchanged(arguments.feedback, selection)
    folder = Path(arguments.feedback) / ROUNDS / f"{datetime.datetime.now(datetime.UTC):%Y%m%d-%H%M%S}-{live.name}"
    model, version = None, None
    if best.passed:
        model = str(folder / artifacts.MODEL_IN_RUN)
        rounds.save(best, trunk, live.name, live, images, model)
        with connect(), ScoringWorkers(workers=None, gpu=False) as scoring_workers:
            evaluate_model(model, data, scoring_workers)
    _write_round(folder, live.name, best, candidates, selection)
    if model and arguments.promote:
        version = _promote(model, models, data)
    failed = [condition.name for condition in best.conditions if not condition.passed]
    cli.say(_summary(arguments, best, failed, version, folder))
    return {
        "passed": best.passed,
        "rung": best.rung,
        "failed": failed,
        "promoted": version,
        "round": str(folder),
        "model": model,
        "tags": int((~frame["held_out"]).sum()),
        "held_out": int(frame["held_out"].sum()),
        "left_out": len(selection.left_out),
    }


def _promote(model: str, models: str, data: Manifest) -> str:
    """Makes the new model live. Its gate was stricter than the comparison of AUC that ``force`` skips."""
    from detector_core.registry import promotion

    add_runtime = partial(promotion.add_runtime, data=data, say=cli.say)
    return versions.promote(model, models, force=True, add_files=add_runtime, key=f"auto {data.fingerprint}")


def _write_round(folder: Path, parent: str, best: Candidate, candidates: list[Candidate], selection: Selection) -> None:
    frame = selection.frame
    values = {
        "parent": parent,
        "passed": best.passed,
        "rung": best.rung,
        "tags": sorted(frame["id"][~frame["held_out"]]),
        "held_out_tags": sorted(frame["id"][frame["held_out"]]),
        "left_out": selection.left_out,
        "candidates": {c.rung: [condition.to_dict() for condition in c.conditions] for c in candidates},
    }
    storage.write_bytes(folder / ROUND, json.dumps(values, indent=2).encode())


def _summary(
    arguments: argparse.Namespace, best: Candidate, failed: list[str], version: str | None, folder: Path
) -> str:
    models = arguments.models
    if failed:
        return f"nothing is promoted: {best.rung} does not pass ({'; '.join(failed)}); {folder / ROUND} has the details"
    if version:
        return f"live in {models}: {version} ({best.rung}); jobs.promote --rollback --to {models} takes it back"
    return f"{best.rung} passes: promote it with python -m jobs.promote {folder} --to {models} --data {arguments.data}"


def _say_progress(report: FeatureReport) -> None:
    if report.done == report.images:
        cli.say(f"features of {report.split}: {report.images} images in {report.seconds:.0f} s")


if __name__ == "__main__":
    main()
