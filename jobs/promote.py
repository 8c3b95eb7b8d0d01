"""Choose the model that is served: promote one, list the versions, roll back, or remove old ones.

  python -m jobs.promote runs/resnet68-cutout-20260101-120000 --to models
  python -m jobs.promote models-of-others/faces --to models --data data/faces --precision int8
  python -m jobs.promote --list --to models
  python -m jobs.promote --rollback --to models
  python -m jobs.promote --prune 3 --to models

RUN_OR_MODEL is a run's folder or a model folder. It is copied to MODELS/VERSION, and the file MODELS/live is made to
name it; both happen whole or not at all. Refused are a model that no test split has judged (jobs.evaluate does), one
with a changed or missing file, and, unless --force is given, one whose AUC is below the live model's on a data set
that both were judged on. --rollback goes back to the version that was live before; repeat it to go further back.
--prune KEEP removes all but KEEP versions, the live one and its forerunners kept first.

The version is exported for OpenVINO, which a CPU serves: in int8 (calibrated on training images of DATASET), bf16 or
fp32. On the validation images of DATASET each is held against the network that was judged: AUC may fall by at most
0.002 and at most 0.5 % of the verdicts may flip. --precision auto takes the fastest that passes; one that is named and
does not pass is refused, unless --force is given. Without --data the data set of the run is used; a model folder has
none, and is then served in fp32. The table of precisions is kept in VERSION/runtime.json, and VERSION/MODEL_CARD.md
says what the model is worth.

A running service takes over what becomes live within seconds, without a restart.

The last line on stdout is one JSON object: live, version, previous (what was live before this call, or null),
precision; with --list live and versions, newest promotion first; with --prune live, versions and removed.
"""

import argparse
import json
from collections.abc import Callable
from functools import partial
from typing import Any, NoReturn

from tqdm import tqdm

from detector_core import storage
from detector_core.data import manifest
from detector_core.data.manifest import Manifest
from detector_core.errors import BadConfig, BadManifest
from detector_core.networks import artifacts
from detector_core.registry import versions
from detector_core.registry.engines import PRECISIONS
from detector_core.registry.predictor import describe
from jobs.common import cli


def main(argv: list[str] | None = None) -> NoReturn:
    """The command line."""
    parser = cli.parser("promote", __doc__)
    parser.add_argument("model", metavar="RUN_OR_MODEL", nargs="?", help="what to promote; see above")
    parser.add_argument(
        "--to", required=True, metavar="MODELS", help="folder, shared mount or URI that holds the versions"
    )
    parser.add_argument("--data", metavar="DATASET", help="where precisions are compared [the data set of the run]")
    parser.add_argument(
        "--precision", choices=("auto", *PRECISIONS), default="auto", help="what is served on a CPU [%(default)s]"
    )
    parser.add_argument(
        "--force", action="store_true", help="also a model worse than the live one, or a precision that does not pass"
    )
    instead = parser.add_mutually_exclusive_group()
    instead.add_argument("--rollback", action="store_true", help="go back to the version that was live before")
    instead.add_argument("--list", action="store_true", help="list the versions and change nothing")
    instead.add_argument("--prune", type=int, metavar="KEEP", help="remove all but KEEP versions, never the live one")
    cli.run(job, parser.parse_args(argv))


def job(arguments: argparse.Namespace) -> dict[str, Any]:
    """Lists, rolls back, prunes or promotes."""
    without_model = arguments.rollback or arguments.list or arguments.prune is not None
    if bool(arguments.model) == without_model:
        raise BadConfig("name a RUN_OR_MODEL to promote, or give --rollback, --list or --prune without one")
    models = storage.absolute(arguments.to)
    previous = next(iter(versions.history(models)), None)
    if arguments.prune is not None:
        removed = versions.prune(models, arguments.prune)
        cli.say(f"removed from {models}: {', '.join(removed) or 'nothing'}")
        return {**_listed(models, previous), "removed": removed}
    if arguments.list:
        listed = _listed(models, previous)
        for version in listed["versions"]:
            cli.say(f"{'live' if version == previous else '':6}{version}")
        return listed
    if arguments.rollback:
        version = versions.rollback(models)
    else:
        version = _promote(arguments, models)
        if previous not in (None, version):
            _say_how_it_compares(models, version, str(previous))
    precision = describe(versions.live(models)).precision
    cli.say(f"live in {models}: {version} in {precision} (before: {previous or 'none'})")
    return {"live": versions.live_location(models), "version": version, "previous": previous, "precision": precision}


def _listed(models: str, live: str | None) -> dict[str, Any]:
    return {"live": live and storage.join(models, live), "versions": versions.list_versions(models)}


def _promote(arguments: argparse.Namespace, models: str) -> str:
    from detector_core.registry import promotion  # torch and more, which listing and rolling back need not wait for

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
    # A version that was forced is another one: without --force it must pass the gate again.
    key = f"{arguments.precision} {data.fingerprint if data else ''}{' forced' if arguments.force else ''}"
    return versions.promote(arguments.model, models, force=arguments.force, add_files=add_runtime, key=key)


def data_of_run(run_or_model: str) -> Manifest | None:
    """The data set that a run was trained on, where its ``run.json`` names one that is still there and unchanged."""
    where = storage.join(storage.absolute(run_or_model), "run.json")
    if not storage.exists(where):
        return None
    try:
        data = manifest.load(json.loads(storage.read_bytes(where))["data"])
    except (ValueError, KeyError, BadManifest):
        return None
    return data if data.fingerprint == artifacts.read(artifacts.find(run_or_model)).data["fingerprint"] else None


def _bar(title: str, images: int) -> Callable[[int], object]:
    bar = tqdm(total=images, desc=title, unit=" images")

    def step(done: int) -> None:
        bar.update(done)
        if bar.n >= images:
            bar.close()

    return step


def _say_how_it_compares(models: str, now: str, before: str) -> None:
    if before not in versions.list_versions(models):
        return
    ours, theirs = (versions.test_reports(versions.fetch(storage.join(models, name))) for name in (now, before))
    both = list(versions.compare_auc(ours, theirs))
    for name, auc, auc_before in both:
        cli.say(f"AUC on the test split of {name}: {auc:.4f}, {before} had {auc_before:.4f}")
    if not both:
        cli.say(f"not compared with {before}: no data set has judged both")


if __name__ == "__main__":
    main()
