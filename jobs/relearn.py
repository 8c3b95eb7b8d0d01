"""Learn from accepted tags: a new version from the live one, which is promoted only if it is better.

  python -m jobs.relearn --models models --feedback FEEDBACK --data data/faces
  python -m jobs.relearn --models models --feedback FEEDBACK --data data/faces --rung head --promote
  python -m jobs.relearn --models models --feedback FEEDBACK --data data/faces --rung network --workers 2
  python -m jobs.relearn --models models --feedback FEEDBACK --data data/faces --promote --watch

FEEDBACK is the service's http.feedback_folder; only tags that were accepted with jobs.review are learnt from. DATASET
is what the live model was trained on: its training images are replayed, so that nothing is forgotten, thresholds are
chosen on its validation images, and its test images decide whether the new version is as good as the live one.

The rungs of the ladder: "thresholds" chooses the temperature and the thresholds again, with the tags weighed in;
"head" also trains the last layer anew on frozen features, in seconds once these are cached; "network" fine-tunes the
whole network from the live weights under Ray Train, in minutes: half of each batch are tags, half are old training
images of all sources. "auto" tries the first two and takes the one with the fewest errors on held-out tags, of those
that pass; if none does, it tries the third.

A third of the tags is held out. The new version passes the gate if on the test split neither error has become worse
(fakes passed, reals flagged; paired test, and by source if there are several), if no verdict on the canary set changes,
and if it makes fewer errors on the held-out tags. Otherwise nothing is promoted, the exit code is 3, and the conditions
that failed are printed. A tag is left out if it shows the same as a validation or test image, if near-duplicates of it
are used or tagged differently, if its giver has --per-giver tags already, or if the other tags contradict its label.

FEEDBACK/rounds/ROUND receives round.json (what was used, left out and compared) and, if the gate was passed, model/
with its report on the test split. --promote makes it the live version, as jobs.promote FEEDBACK/rounds/ROUND does;
jobs.promote --rollback takes it back. If another version became live while the round ran, such as by a rollback, it is
not promoted, and the error says so. A round that was interrupted is started again with the same command, and the
training of "network" continues from its last checkpoint. Only one round at a time runs on a FEEDBACK.

With --watch the job does not end: it looks every SECONDS, and runs a round when there are --new-tags accepted tags that
no round has used or left out, or a single one while the scores of the service drift (--metrics). Killed and started
again, it goes on where it was. See docs/learning.md.

The last line on stdout is one JSON object: passed, rung, failed (names of the conditions), promoted (a version, or
null), round, model (null if not passed), tags, held_out, left_out (numbers), seconds; with --watch, one for each round,
with its reason.
"""

import argparse
import datetime
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

import torch

from detector_core import storage
from detector_core.data import canary_set, feedback, manifest, review, round_log, tagged
from detector_core.data.manifest import Manifest
from detector_core.data.tagged import Selection
from detector_core.errors import BadConfig, InsufficientResources, OperationRefused, TrainingFailed
from detector_core.networks import artifacts
from detector_core.registry import lineage, versions
from detector_core.training import fine_tuning, relearned_model, round_inputs, rounds
from detector_core.training.features import FeatureReport
from detector_core.training.round_inputs import LiveModel, RoundImages
from detector_core.training.rounds import Candidate, Learned
from jobs.common import cli
from jobs.common.cluster import connect
from jobs.common.scoring_workers import ScoringWorkers
from jobs.evaluate import evaluate_model
from jobs.run import fine_tune, round_promotion, round_watch
from jobs.run.resource_flags import CACHE

AUTO = "auto"


def main(argv: list[str] | None = None) -> NoReturn:
    """The command line."""
    parser = cli.parser("relearn", __doc__)
    parser.add_argument("--models", required=True, metavar="MODELS", help="the registry with the live version")
    parser.add_argument("--feedback", required=True, metavar="FEEDBACK", help="the service's http.feedback_folder")
    parser.add_argument("--data", metavar="DATASET", help="the data set that the live model was trained on")
    parser.add_argument("--rung", choices=(*rounds.RUNGS, AUTO), default=AUTO, help="what to learn [%(default)s]")
    parser.add_argument("--promote", action="store_true", help="make the new version live if it passes the gate")
    parser.add_argument(
        "--canary-set",
        metavar="FOLDER",
        help=f"image files on which no verdict may change [MODELS/{canary_set.IN_MODELS}, if it exists]",
    )
    parser.add_argument(
        "--per-giver", type=int, default=tagged.PER_GIVER, metavar="N", help="most tags of one giver [%(default)s]"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the training [%(default)s]")
    parser.add_argument(
        "--cache", type=Path, default=CACHE, help="folder for features of the data set, may be deleted [%(default)s]"
    )
    parser.add_argument(
        "--workers", type=int, default=1, metavar="W", help="Ray Train workers of network [%(default)s]"
    )
    parser.add_argument("--gpu", action="store_true", help="one GPU for each of these workers")
    round_watch.add_flags(parser)
    cli.run(job, parser.parse_args(argv))


def job(arguments: argparse.Namespace) -> dict[str, Any] | Iterator[dict[str, Any]]:
    """Checks the flags, and runs a round or, with --watch, one after the other.

    Raises:
        NegativeResult: no candidate passes the gate.
    """
    for name in ("per_giver", "workers"):
        if getattr(arguments, name) < 1:
            raise BadConfig(f"--{name.replace('_', '-')} is {getattr(arguments, name)}: it must be 1 or more")
    arguments.feedback = storage.absolute(arguments.feedback)  # Ray's workers have another working directory
    round_watch.check(arguments)
    if arguments.watch is not None:
        return round_watch.watch(arguments, lambda: _run(arguments))
    return _run(arguments)


def _run(arguments: argparse.Namespace) -> dict[str, Any]:
    """Makes the candidates of a round, and keeps the one that passes the gate."""
    started, models, folder = time.monotonic(), storage.absolute(arguments.models), Path(arguments.feedback)
    live = versions.live(models)
    if not arguments.data:
        raise BadConfig(
            f"the live version {live.name} does not carry its training data: name its data set with --data DATASET"
        )
    tags = review.read(folder)
    data = _data_of(live, manifest.load(storage.absolute(arguments.data)))
    busy = f"another round is running on {folder}: wait until it has ended"
    with storage.locked(folder / feedback.ROUND_LOCK, busy=busy), tagged.round_images(folder) as work:
        round_log.delete_unfinished(folder)
        parts = round_log.parts(folder)
        selection = tagged.select(folder, tags, data, work, per_giver=arguments.per_giver, parts=parts)
        result = _run_round(arguments, LiveModel.load(live), models, data, selection, work)
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
    arguments: argparse.Namespace, live: LiveModel, models: str, data: Manifest, selection: Selection, work: Path
) -> dict[str, Any]:
    if arguments.rung == rounds.NETWORK:
        fine_tuning.check_trainable(live.trunk.network, live.artifact.spec.variant)
    images, selection = _load(arguments, live, models, data, selection, work)
    candidates: list[Candidate] = []
    for learned in _learn(arguments, live, images, data, candidates):
        candidate = rounds.try_candidate(learned, live, images, data)
        candidates.append(candidate)
        cli.say("\n".join([f"{candidate.rung}:", *(f"  {condition}" for condition in candidate.conditions)]))
    best = rounds.choose(candidates)
    tagged.check_unchanged(arguments.feedback, selection)
    name = f"{datetime.datetime.now(datetime.UTC):%Y%m%d-%H%M%S}-{live.folder.name}"
    folder = Path(arguments.feedback) / round_log.ROUNDS / name
    model, version = None, None
    if best.passed:
        model = str(folder / artifacts.MODEL_IN_RUN)
        relearned_model.save(best, live, images, model, parent=live.folder.name)
        with connect(), ScoringWorkers(workers=None, gpu=False) as scoring_workers:
            evaluate_model(model, data, scoring_workers)
    compared = {c.rung: [condition.to_dict() for condition in c.conditions] for c in candidates}
    outcome = {"parent": live.folder.name, "passed": best.passed, "rung": best.rung, "candidates": compared}
    round_log.write(folder, selection, **outcome, inherited_tags=lineage.tags_of(live.folder))
    try:
        tagged.check_unchanged(arguments.feedback, selection)
    except OperationRefused:
        storage.delete_folder(folder)  # a deletion before the record was written did not see the model
        raise
    if model and arguments.promote:
        command = _promotion(arguments, folder)
        version = round_promotion.promote(model, models, data, parent=live.folder.name, command=command)
    failed = [condition.name for condition in best.conditions if not condition.passed]
    cli.say(_summary(arguments, best, failed, version, folder))
    return {
        "passed": best.passed,
        "rung": best.rung,
        "failed": failed,
        "promoted": version,
        "round": str(folder),
        "model": model,
        "tags": len(images.tags.rows),
        "held_out": len(images.held_out.rows),
        "left_out": len(selection.left_out),
    }


def _load(
    arguments: argparse.Namespace, live: LiveModel, models: str, data: Manifest, selection: Selection, work: Path
) -> tuple[RoundImages, Selection]:
    """The images of the round, and the selection without the tags whose label is doubtful."""
    where = arguments.canary_set or storage.join(models, canary_set.IN_MODELS)
    canaries = None
    if arguments.canary_set or storage.exists(where):
        canaries = canary_set.load(where, work, generated=data.generated)
    images = round_inputs.load_images(
        live.trunk, data, selection, work, cache=arguments.cache, canary=canaries, progress=_say_progress
    )
    doubtful = rounds.doubtful_tags(images)
    selection, images = selection.without(doubtful), images.without(doubtful)
    reasons = "".join(f"\n  {n} left out: {why}" for why, n in Counter(selection.left_out.values()).most_common())
    cli.say(
        f"{live.folder.name} learns from {len(images.tags.rows)} tags; {len(images.held_out.rows)} are held out, "
        f"{len(selection.left_out)} left out{reasons}"
    )
    selection.check_classes(arguments.feedback)
    return images, selection


def _learn(
    arguments: argparse.Namespace, live: LiveModel, images: RoundImages, data: Manifest, candidates: list[Candidate]
) -> Iterator[Learned]:
    """What each rung learns; of ``auto``, the network only if none of the candidates so far passes."""
    if arguments.rung in (rounds.THRESHOLDS, AUTO):
        yield rounds.learn_thresholds(live)
    if arguments.rung in (rounds.HEAD, AUTO):
        yield rounds.learn_head(live, images, seed=arguments.seed)
    if arguments.rung == AUTO:
        if any(candidate.passed for candidate in candidates):
            return
        try:
            fine_tuning.check_trainable(live.trunk.network, live.artifact.spec.variant)
        except BadConfig as error:
            cli.say(f"network is not tried: {error}")
            return
    if arguments.rung in (rounds.NETWORK, AUTO):
        weights = _fine_tune(arguments, live, images, data)
        if weights is not None:
            yield rounds.learned_network(live, weights)


def _fine_tune(
    arguments: argparse.Namespace, live: LiveModel, images: RoundImages, data: Manifest
) -> dict[str, torch.Tensor] | None:
    """The weights of the rung *network*; None if it has failed and there are those of ``auto`` before it."""
    try:
        with connect():
            return fine_tune.fine_tune(
                live,
                images,
                data,
                arguments.feedback,
                workers=arguments.workers,
                gpu=arguments.gpu,
                seed=arguments.seed,
            )
    except (InsufficientResources, TrainingFailed) as error:
        if arguments.rung != AUTO:
            raise
        cli.say(f"network has failed: {error}")
        return None


def _promotion(arguments: argparse.Namespace, folder: Path) -> str:
    return f"python -m jobs.promote {folder} --to {arguments.models} --data {arguments.data}"


def _summary(
    arguments: argparse.Namespace, best: Candidate, failed: list[str], version: str | None, folder: Path
) -> str:
    models = arguments.models
    if failed:
        details = folder / round_log.ROUND
        return f"nothing is promoted: {best.rung} does not pass ({'; '.join(failed)}); {details} has the details"
    if version:
        return f"live in {models}: {version} ({best.rung}); jobs.promote --rollback --to {models} takes it back"
    return f"{best.rung} passes: promote it with {_promotion(arguments, folder)}"


def _say_progress(report: FeatureReport) -> None:
    if report.done == report.images:
        cli.say(f"features of {report.split}: {report.images} images in {report.seconds:.0f} s")


if __name__ == "__main__":
    main()
