"""Choose the model that is served: promote one, list the versions, roll back, or remove old versions.

  python -m jobs.promote runs/resnet68-cutout-20260101-120000 --to models
  python -m jobs.promote downloads/model --to models --data data/faces --precision int8
  python -m jobs.promote runs/second --to models --canary 0.1
  python -m jobs.promote --canary-finish --to models
  python -m jobs.promote --list --to models
  python -m jobs.promote --rollback --to models
  python -m jobs.promote --prune 3 --to models

RUN_OR_MODEL is the folder of a run or of a model. It is copied to MODELS/VERSION, and the file MODELS/live is changed
to name that version; both are atomic. A model is refused if it was never evaluated on a test split (see jobs.evaluate),
if a file of it is missing or was changed, or if its AUC is below that of the live model on a data set that both were
evaluated on; --force skips only that comparison with the live model, and that of a given --precision (see below).
--rollback returns to the version that was live before; repeat it to go further back. --prune KEEP removes all but KEEP
versions; the live version and those that were live last are kept first.

The version is exported to OpenVINO, which serves it on a CPU, in int8 (quantized with activation ranges from training
images of DATASET), bf16 or fp32. Each precision is compared with the evaluated network on the validation images of
DATASET: it passes if AUC falls by at most 0.002 and at most 0.5% of the verdicts change. --precision auto takes the
fastest precision that passes. A given precision that does not pass is refused, unless --force is given. Without --data
the data set of the run is used; a model folder does not name one, and is then served in fp32, or in bf16 if it carries
the record of a passed comparison, as the starter model does. The comparison is saved in VERSION/runtime.json, and
VERSION/MODEL_CARD.md describes the model and its error rates.

A running service switches to the new live version within seconds, without a restart.

--canary SHARE does not make the model live. It becomes the candidate: a running service answers about that share of
the images with it, always the same ones, scores them with the live version too, and compares the verdicts. If they
differ on more than --max-disagreement of the images (the 95% interval lies above it, with at least 30 images), or a
replica cannot load the candidate, the live version answers everything again by itself. --list shows how it does; once
it "agrees" (the whole interval lies below), --canary-finish makes it live. --canary-stop ends it, or clears the note of
one that failed. A promotion or a rollback ends it, too.

The last line on stdout is one JSON object: live, version, previous (what was live before this call, or null),
precision (null if it cannot be read at the moment); with --list, --canary and --canary-stop live, versions, newest
promotion first, and canary (the latest one and what it has compared; null without one, or if it cannot be read at the
moment); with --prune also removed.
"""

import argparse
from collections.abc import Callable
from functools import partial
from typing import Any, NoReturn, TypeVar

from tqdm import tqdm

from detector_core import storage
from detector_core.data import manifest
from detector_core.errors import BadConfig, DetectorError
from detector_core.registry import canaries, test_reports, versions
from detector_core.registry.canary import MAX_DISAGREEMENT, Status
from detector_core.registry.engines import PRECISIONS
from detector_core.registry.predictor import describe
from jobs.common import cli
from jobs.run.request import data_of_run

T = TypeVar("T")


def main(argv: list[str] | None = None) -> NoReturn:
    """The command line."""
    parser = cli.parser("promote", __doc__)
    parser.add_argument("model", metavar="RUN_OR_MODEL", nargs="?", help="what to promote; see above")
    parser.add_argument("--to", required=True, metavar="MODELS", help="folder, shared mount or URI for the versions")
    parser.add_argument("--data", metavar="DATASET", help="the data set to compare precisions on [that of the run]")
    parser.add_argument(
        "--precision", choices=("auto", *PRECISIONS), default="auto", help="numeric precision on a CPU [%(default)s]"
    )
    parser.add_argument(
        "--force",
        action="store_true",
        help="promote even a model worse than the live one, or a precision that does not pass",
    )
    parser.add_argument(
        "--canary",
        type=float,
        metavar="SHARE",
        help="do not make the model live: let it answer about this share of the images, at most 0.5, as a candidate",
    )
    parser.add_argument(
        "--max-disagreement",
        type=float,
        metavar="FRACTION",
        help=f"with --canary: most images on which its verdicts may differ from the live ones [{MAX_DISAGREEMENT}]",
    )
    instead = parser.add_mutually_exclusive_group()
    instead.add_argument("--canary-finish", action="store_true", help="make the candidate live if it agrees")
    instead.add_argument("--canary-stop", action="store_true", help="end the canary; the live version stays")
    instead.add_argument("--rollback", action="store_true", help="return to the version that was live before")
    instead.add_argument("--list", action="store_true", help="list the versions; promotes nothing")
    instead.add_argument(
        "--prune", type=int, metavar="KEEP", help="remove all but KEEP versions; the live one is always kept"
    )
    cli.run(job, parser.parse_args(argv))


def job(arguments: argparse.Namespace) -> dict[str, Any]:
    """Does what the flags say."""
    models = storage.absolute(arguments.to)
    _check(arguments)
    previous = next(iter(versions.history(models)), None)
    if arguments.prune is not None:
        removed = _prune(models, arguments.prune)
        cli.say(f"removed from {models}: {', '.join(removed) or 'nothing'}")
        return {**_listed(models, previous, _settled(models)), "removed": removed}
    if arguments.list:
        return _list(models, previous)
    if arguments.canary_stop:
        stopped = canaries.stop(models)
        cli.say(f"no canary runs in {models}; {stopped.candidate}: {stopped.outcome} ({stopped.reason})")
        return _listed(models, previous, _settled(models))
    if arguments.canary is not None:
        return _start_canary(arguments, models)
    if arguments.rollback:
        version = versions.rollback(models)
    elif arguments.canary_finish:
        version = canaries.finish(models, force=arguments.force)
    else:
        version = _stage(arguments, models)
        versions.make_live(models, version)
        if previous not in (None, version):
            _tried(f"not compared with {previous}", lambda: _compare_with_previous(models, version, str(previous)))
    return _promoted(models, version, previous)


def _check(arguments: argparse.Namespace) -> None:
    """Checks the flags against each other. Raises BadConfig."""
    without_model = arguments.prune is not None or any(
        (arguments.rollback, arguments.list, arguments.canary_finish, arguments.canary_stop)
    )
    if bool(arguments.model) == without_model:
        raise BadConfig(
            "give a RUN_OR_MODEL to promote, or one of --rollback, --list, --prune, --canary-finish and --canary-stop "
            "without it"
        )
    if arguments.canary is not None and without_model:
        raise BadConfig("--canary needs the RUN_OR_MODEL that is to answer about a share of the images")
    if arguments.max_disagreement is not None and arguments.canary is None:
        raise BadConfig("--max-disagreement belongs to --canary SHARE")


def _tried(otherwise: str, action: Callable[[], T]) -> T | None:
    """The result of what follows a change that is made: an error must not read as if the change had failed."""
    try:
        return action()
    except (OSError, DetectorError) as error:
        cli.say(f"{otherwise}: {error}")
        return None


def _promoted(models: str, version: str, previous: str | None) -> dict[str, Any]:
    """Says which version is live now, and ends a canary that was compared with the previous one."""
    location = storage.join(models, version)
    precision = _tried(
        "its precision cannot be read at the moment", lambda: describe(versions.fetch(location)).precision
    )
    in_precision = f" in {precision}" if precision else ""
    cli.say(f"live in {models}: {version}{in_precision} (before: {previous or 'none'})")
    _settled(models)
    return {"live": location, "version": version, "previous": previous, "precision": precision}


def _settled(models: str) -> Status | None:
    return _tried("the canary could not be checked", lambda: canaries.settle(models))


def _prune(models: str, keep: int) -> list[str]:
    status = canaries.settle(models)
    running = [status.canary.candidate] if status and not status.canary.outcome else []
    return versions.prune(models, keep, spared=running)


def _list(models: str, live: str | None) -> dict[str, Any]:
    status = _settled(models)
    listed = _listed(models, live, status)
    for version in listed["versions"]:
        cli.say(f"{'live' if version == live else '':6}{version}")
    if status:
        canary = status.canary
        cli.say(f"canary of {canary.candidate} on {canary.share:g} of the images: {status.state}; {status}")
    return listed


def _listed(models: str, live: str | None, status: Status | None) -> dict[str, Any]:
    return {
        "live": live and storage.join(models, live),
        "versions": versions.list_versions(models),
        "canary": status.to_dict() if status else None,
    }


def _start_canary(arguments: argparse.Namespace, models: str) -> dict[str, Any]:
    limit = MAX_DISAGREEMENT if arguments.max_disagreement is None else arguments.max_disagreement
    canaries.check(models, arguments.canary, limit)
    candidate = _stage(arguments, models)
    canary = canaries.start(models, candidate, share=arguments.canary, max_disagreement=limit)
    cli.say(
        f"{candidate} answers about {canary.share:g} of the images that {canary.live} is asked about; it goes back by "
        f"itself if the verdicts differ on more than {limit:.1%}; --list shows how it does"
    )
    return _listed(models, canary.live, _settled(models))


def _stage(arguments: argparse.Namespace, models: str) -> str:
    from detector_core.registry import promotion  # imports torch, which the other actions do not need

    data = manifest.load(storage.absolute(arguments.data)) if arguments.data else data_of_run(arguments.model)
    promotion.check_requested_precision(arguments.precision, data)
    add_runtime = partial(
        promotion.add_runtime,
        requested_precision=arguments.precision,
        data=data,
        force=arguments.force,
        say=cli.say,
        progress=_bar,
    )
    # A forced promotion makes another version, so that without --force the model must pass the gate.
    key = f"{arguments.precision} {data.fingerprint if data else ''}{' forced' if arguments.force else ''}"
    return versions.stage(arguments.model, models, force=arguments.force, add_files=add_runtime, key=key)


def _bar(title: str, images: int) -> Callable[[int], object]:
    bar = tqdm(total=images, desc=title, unit=" images")

    def step(done: int) -> None:
        bar.update(done)
        if bar.n >= images:
            bar.close()

    return step


def _compare_with_previous(models: str, version: str, previous: str) -> None:
    """Prints the AUC of both versions on every data set that both were evaluated on."""
    if previous not in versions.list_versions(models):
        return
    new, old = (test_reports.read(versions.fetch(storage.join(models, name))) for name in (version, previous))
    comparisons = list(test_reports.compare_auc(new, old))
    for data_name, auc, previous_auc in comparisons:
        cli.say(f"AUC on the test split of {data_name}: {auc:.4f}, {previous} had {previous_auc:.4f}")
    if not comparisons:
        cli.say(f"not compared with {previous}: no data set was used to evaluate both")


if __name__ == "__main__":
    main()
