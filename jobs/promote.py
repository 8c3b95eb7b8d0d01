"""Choose the model that is served: promote one, list the versions, or roll back.

  python -m jobs.promote runs/resnet68-cutout-20260101-120000 --to models
  python -m jobs.promote --list --to models
  python -m jobs.promote --rollback --to models

RUN_OR_MODEL is a run's folder or a model folder. It is copied to MODELS/VERSION, and the file MODELS/live is made to
name it; both happen whole or not at all. Refused are a model that no test split has judged (jobs.evaluate does), one
with a changed or missing file, and, unless --force is given, one whose AUC is below the live model's on a data set
that both were judged on. --rollback goes back to the version that was live before; repeat it to go further back.

A running service keeps its model until it is started or deployed again.

The last line on stdout is one JSON object: live, version, previous (what was live before this call, or null); with
--list live and versions, newest promotion first.
"""

import argparse
from pathlib import Path
from typing import Any, NoReturn

from detector_core import artifacts, registry, storage
from detector_core.errors import BadConfig
from jobs import cli


def main(argv: list[str] | None = None) -> NoReturn:
    """The command line."""
    parser = cli.parser("promote", __doc__)
    parser.add_argument("model", metavar="RUN_OR_MODEL", nargs="?", help="what to promote; see above")
    parser.add_argument("--to", required=True, metavar="MODELS", help="local folder or mount that holds the versions")
    parser.add_argument("--force", action="store_true", help="promote a model that is worse than the live one")
    instead = parser.add_mutually_exclusive_group()
    instead.add_argument("--rollback", action="store_true", help="go back to the version that was live before")
    instead.add_argument("--list", action="store_true", help="list the versions and change nothing")
    cli.run(job, parser.parse_args(argv))


def job(arguments: argparse.Namespace) -> dict[str, Any]:
    """Lists, rolls back or promotes."""
    if storage.is_uri(arguments.to):
        raise BadConfig(f"--to is {arguments.to}: it must be a local folder or a mount, where a rename is atomic")
    if bool(arguments.model) == (arguments.rollback or arguments.list):
        raise BadConfig("name a RUN_OR_MODEL to promote, or give --rollback or --list without one")
    models = Path(storage.absolute(arguments.to))
    previous = next(iter(registry.history(models)), None)
    if arguments.list:
        there = registry.versions(models)
        for version in there:
            cli.say(f"{'live' if version == previous else '':6}{version}")
        return {"live": previous and str(models / previous), "versions": there}
    if arguments.rollback:
        version = registry.rollback(models)
    else:
        version = registry.promote(arguments.model, models, force=arguments.force)
        if previous not in (None, version):
            _say_how_it_compares(models / version, models / previous)
    cli.say(f"live in {models}: {version} (before: {previous or 'none'})")
    return {"live": str(registry.live(models)), "version": version, "previous": previous}


def _say_how_it_compares(now: Path, before: Path) -> None:
    if not (before / artifacts.ARTIFACT).exists():
        return
    both = list(registry.compared(registry.judgements(now), registry.judgements(before)))
    for name, auc, auc_before in both:
        cli.say(f"AUC on the test split of {name}: {auc:.4f}, {before.name} had {auc_before:.4f}")
    if not both:
        cli.say(f"not compared with {before.name}: no data set has judged both")


if __name__ == "__main__":
    main()
