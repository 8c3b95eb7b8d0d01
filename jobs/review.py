"""Review the images that users have tagged: list, look at, accept or reject, export and delete them.

  python -m jobs.review list FEEDBACK
  python -m jobs.review sheet FEEDBACK --out review.html
  python -m jobs.review accept FEEDBACK 3f9a 77c0 --reviewer anna --because "the generator's page shows them"
  python -m jobs.review reject FEEDBACK 81bd --reviewer anna
  python -m jobs.review undo FEEDBACK 3f9a --reviewer anna
  python -m jobs.review export FEEDBACK 3f9a --out tags.zip
  python -m jobs.review delete FEEDBACK 3f9a --reviewer anna --models models
  python -m jobs.review delete FEEDBACK --older-than 180 --reviewer retention

FEEDBACK is the service's http.feedback_folder. Only accepted tags are learnt from (jobs.relearn). Tags are listed with
the most informative first: those that contradict the verdict, then those of uncertain scores. An ID may be shortened to
a beginning that no other has. "sheet" writes a page with the images side by side; it shows the tags that wait, or those
of --state.

Every decision is a file of its own in FEEDBACK, with the reviewer's name and the time, so several people can review at
once. A tag is accepted if somebody accepts it and nobody rejects it; if reviewers contradict each other it is disputed
and not learnt from. "undo" withdraws your own decision. "export" writes tags with their images and decisions to a ZIP
file. "delete" removes the tag, its decisions, its image and the models in FEEDBACK/rounds that learnt from it for good,
and logs only that; with --models it also lists the versions that learnt from the tag. Instead of IDs, --older-than DAYS
exports or deletes all tags that were given longer ago. See docs/learning.md.

The last line on stdout is one JSON object: waiting, accepted, rejected, disputed (numbers of tags), ids (those listed,
decided, exported or deleted), with sheet and export also that file (sheet, export), and with delete also versions and
rounds (those whose model was deleted).
"""

import argparse
import math
from pathlib import Path
from typing import Any, NoReturn

from detector_core import storage
from detector_core.data import review, round_log
from detector_core.errors import BadConfig
from detector_core.registry import lineage
from jobs.common import cli

DECIDE, DELETE, EXPORT, LIST, SHEET = review.ACTIONS, "delete", "export", "list", "sheet"
ALL = "all"


def main(argv: list[str] | None = None) -> NoReturn:
    """The command line."""
    parser = cli.parser("review", __doc__)
    parser.add_argument("action", choices=(LIST, SHEET, *DECIDE, EXPORT, DELETE), help="what to do; see above")
    parser.add_argument("feedback", metavar="FEEDBACK", help="the service's http.feedback_folder")
    parser.add_argument("ids", metavar="ID", nargs="*", help="tags to decide about, to export or to delete")
    parser.add_argument(
        "--older-than", type=float, metavar="DAYS", help="export or delete the tags that were given longer ago"
    )
    parser.add_argument("--reviewer", default="", metavar="NAME", help="your name, recorded with the decision")
    parser.add_argument("--because", default="", metavar="TEXT", help="how you know, recorded with the decision")
    parser.add_argument(
        "--state", choices=(*review.STATES, ALL), help="tags to list or show [list: all, sheet: waiting]"
    )
    parser.add_argument("--out", metavar="FILE", help="file for sheet (review.html) or export (tags.zip)")
    parser.add_argument(
        "--models", metavar="MODELS", help="with delete: list the versions here that learnt from the tags"
    )
    cli.run(job, parser.parse_args(argv))


def job(arguments: argparse.Namespace) -> dict[str, Any]:
    """Checks the flags, then lists, shows, decides or deletes."""
    action, folder = arguments.action, arguments.feedback
    _check(arguments)
    review.read(folder)
    if arguments.older_than is not None:
        arguments.ids = review.older_than(folder, arguments.older_than)
    more: dict[str, Any] = {}
    if action in DECIDE:
        ids = [
            d.id
            for d in review.decide(folder, arguments.ids, action, reviewer=arguments.reviewer, reason=arguments.because)
        ]
    elif action == DELETE:
        ids = review.delete(folder, arguments.ids, reviewer=arguments.reviewer)
        more["rounds"] = round_log.delete_models(folder)
        more["versions"] = lineage.versions_using(storage.absolute(arguments.models), ids) if arguments.models else []
        cli.say(
            f"deleted {', '.join(ids) or 'no tag'}; versions that learnt from them: "
            f"{_joined(arguments.models, more['versions'])}; rounds whose model was deleted, since it learnt from "
            f"them: {', '.join(more['rounds']) or 'none'}"
        )
    elif action == EXPORT:
        ids = review.export(folder, arguments.ids, arguments.out)
        more["export"] = arguments.out
        cli.say(f"{len(ids)} tags: {Path(arguments.out).absolute()}")
    else:
        ids, more = _show(arguments)
    counts = review.count_states(review.read(folder))
    cli.say(", ".join(f"{count} {state}" for state, count in counts.items()))
    return {**counts, "ids": ids, **more}


def _check(arguments: argparse.Namespace) -> None:
    """Raises BadConfig for flags that do not belong to the action, or that it needs."""
    action, by_age = arguments.action, arguments.older_than is not None
    if by_age and action not in (EXPORT, DELETE):
        raise BadConfig(f"--older-than {arguments.older_than:g} is for export and delete")
    if by_age and arguments.ids:
        raise BadConfig(f"{action} takes IDs or --older-than {arguments.older_than:g}, not both")
    if by_age and not 0 < arguments.older_than < math.inf:
        raise BadConfig(f"--older-than is {arguments.older_than:g}: it must be a number of days above 0")
    changes = action in (*DECIDE, EXPORT, DELETE)
    if changes != (by_age or bool(arguments.ids)):
        raise BadConfig(f"{action} needs the ID of a tag" if changes else f"{action} takes no ID: it shows all tags")
    if (action in (SHEET, EXPORT)) != bool(arguments.out):
        raise BadConfig("--out FILE is for sheet and export, which need it")
    if arguments.models and action != DELETE:
        raise BadConfig(f"--models {arguments.models} is for delete")


def _show(arguments: argparse.Namespace) -> tuple[list[str], dict[str, Any]]:
    from detector_core.evaluation import review_sheet

    state = arguments.state or (review.WAITING if arguments.action == SHEET else ALL)
    tags = [tag for tag in review.read(arguments.feedback) if state in (ALL, tag.state)]
    ids = [tag.record.id for tag in tags]
    if arguments.action == SHEET:
        storage.write_bytes(arguments.out, review_sheet.draw(arguments.feedback, tags).encode())
        cli.say(f"{len(tags)} tags: {Path(arguments.out).absolute()}")
        return ids, {"sheet": arguments.out}
    for tag in tags:
        record = tag.record
        score = "  -  " if record.p_fake is None else f"{record.p_fake:.3f}"
        verdict = record.verdict or "nothing"
        givers = f", {tag.givers} givers" if tag.givers > 1 else ""
        cli.say(f"{record.id:38}tagged {record.label}, predicted {verdict:10}p_fake {score}  {tag.state}{givers}")
    return ids, {}


def _joined(models: str | None, names: list[str]) -> str:
    return ", ".join(names) or ("none" if models else "not looked up, give --models MODELS")


if __name__ == "__main__":
    main()
