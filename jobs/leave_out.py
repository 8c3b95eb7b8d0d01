"""Leave each generator out of the training in turn, and measure how well it is recognized nevertheless.

  python -m jobs.leave_out lite-frozen --data data/faces --storage runs
  python -m jobs.leave_out resnet68-cutout --data data/faces --storage runs --source stylegan3 --source diffusion --gpu

What a detector is worth against generators that come later is not its test figure, whose generators it has seen. This
job trains one run with all sources, RUNS/NAME-all, and for each generator one run without it, RUNS/NAME-without-SOURCE;
evaluates them as jobs.evaluate does; and compares both on the images of that generator. A generator is a source that
has fakes in the training and in the test split (jobs.prepare --source-folder, --source-of or a CSV names sources).

After an interruption, run the same command again to continue: finished runs and evaluations are not repeated.

RUNS/NAME receives left_out.html (it opens offline), left_out.json, left_out.csv, left_out.tex (LaTeX, booktabs) and
generators.png and .svg.

The last line on stdout is one JSON object: comparison, worst (the generator with the lowest ROC AUC when left out),
mean (ROC AUC over the generators: left_out and trained), sources (for each: source, auc and fakes_passed_rate when left
out).
"""

import argparse
import json
import re
from typing import Any, NoReturn

from detector_core import storage
from detector_core.config import RunSpec
from detector_core.data import manifest
from detector_core.data.manifest import Manifest
from detector_core.errors import BadConfig
from detector_core.evaluation import left_out
from detector_core.evaluation.left_out import Evaluated, compare_left_out
from detector_core.evaluation.report import GENERATED
from detector_core.labels import FAKE
from jobs.common import cli
from jobs.common.cluster import connect
from jobs.common.scoring_workers import ScoringWorkers
from jobs.compare import check_classes, report_and_scores
from jobs.run import resource_flags, spec_flags
from jobs.run.candidates import open_candidate
from jobs.train import is_trained, train

COMPARISON, PAGE, TABLE, LATEX = (f"left_out.{ending}" for ending in ("json", "html", "csv", "tex"))
SPLIT = "test"
_NOT_IN_NAMES = re.compile(r"[^\w.-]+")


def main(argv: list[str] | None = None) -> NoReturn:
    """The command line."""
    parser = cli.parser("leave_out", __doc__)
    parser.add_argument("variant", metavar="VARIANT", help="what to train, as in jobs.train")
    parser.add_argument("--name", default="leave-out", help="prefix of the name of every run [%(default)s]")
    parser.add_argument(
        "--source",
        action="append",
        default=[],
        metavar="SOURCE",
        help="leave out this source, which may also be one of photographs; may be repeated [each generator]",
    )
    spec_flags.add_flags(parser)
    resource_flags.add_flags(parser)
    cli.run(job, parser.parse_args(argv))


def job(arguments: argparse.Namespace) -> dict[str, Any]:
    """Checks the flags, trains and evaluates what is missing, and compares."""
    spec = spec_flags.from_flags(arguments, arguments.variant)
    data = manifest.load(storage.absolute(arguments.data))
    check_classes(data, SPLIT)
    root = storage.absolute(arguments.storage)
    runs: dict[str, Manifest] = {f"{arguments.name}-all": data}
    run_of = _run_names(arguments.name, arguments.source or generators(data))
    tested = sorted({*data.split(SPLIT)["source"]})
    for source, run in run_of.items():
        runs[run] = data.without([source])
        if source not in tested or len(tested) < 2:
            raise BadConfig(
                f"--source {source}: it must be one of several sources of the {SPLIT} split, which has "
                f"{', '.join(tested)}"
            )
    resource_flags.check(arguments, [spec], data)
    todo = [run for run, of in runs.items() if not is_trained(storage.join(root, run), spec, of)]
    cli.say(f"{len(runs)} runs, {len(todo)} to train: {', '.join(todo) or 'none'}")
    with connect():
        if todo:
            requests = [
                request
                for run in todo
                for request in resource_flags.requests(arguments, {run: spec}, leave_out=runs[run].left_out)
            ]
            train(requests, data, keep_checkpoints=arguments.keep_checkpoints)
        cli.say(f"evaluating {len(runs)} runs on the {SPLIT} split")
        with ScoringWorkers(workers=None, gpu=arguments.gpu) as scoring_workers:
            evaluated = {
                run: Evaluated(
                    *report_and_scores(open_candidate(storage.join(root, run), [data]), data, SPLIT, scoring_workers)
                )
                for run in runs
            }
    result = compare_left_out(
        evaluated[f"{arguments.name}-all"], {source: evaluated[run] for source, run in run_of.items()}
    )
    where = _write(storage.join(root, arguments.name), result, spec, data)
    cli.say(left_out.format_left_out(result))
    return {
        "comparison": where,
        "worst": result["worst"],
        "mean": {which: figures["auc"] for which, figures in result["mean"].items()},
        "sources": [
            {
                "source": row["source"],
                **{name: row["left_out"][name]["value"] for name in ("auc", "fakes_passed_rate")},
            }
            for row in result["rows"]
        ],
    }


def generators(data: Manifest) -> list[str]:
    """The sources with fakes in the training and in the test split. Raises BadConfig if there are fewer than two."""
    splits = [data.split(split) for split in ("train", SPLIT)]
    sources = [{*rows.loc[rows["label"] == FAKE, "source"]} for rows in splits]
    found = sorted(set.intersection(*sources))
    if len(found) < 2:
        raise BadConfig(
            f"{data.name} has fakes of {', '.join(found) or 'no source'} in both the training and the test split: two "
            f"or more generators are needed (name them with jobs.prepare --source-folder, --source-of or a CSV)"
        )
    return found


def _run_names(name: str, sources: list[str]) -> dict[str, str]:
    """The name of the run without each source. Raises BadConfig if two sources would have the same."""
    names = {source: f"{name}-without-{_NOT_IN_NAMES.sub('-', source)}" for source in dict.fromkeys(sources)}
    if len({*names.values()}) < len(names):
        raise BadConfig(
            f"sources {', '.join(names)}: two differ only in characters that no folder's name has: rename one"
        )
    return names


def _write(folder: str, result: dict[str, Any], spec: RunSpec, data: Manifest) -> str:
    """Writes the files of the comparison, ``left_out.json`` last, and returns its path."""
    plots = left_out.draw_left_out(result)
    title = f"{spec.variant} on {data.name}, without one source at a time"
    notes = [GENERATED] if data.generated else []
    described = {"format": 1, "variant": spec.variant, "data": data.name, **result}
    files = {
        **plots,
        TABLE: left_out.to_csv(result),
        LATEX: left_out.to_latex(result, title),
        PAGE: left_out.render_left_out(result, title, notes, plots).encode(),
        COMPARISON: json.dumps(described, indent=2, allow_nan=False).encode(),
    }
    for name, content in files.items():
        storage.write_bytes(storage.join(folder, name), content)
    return storage.join(folder, COMPARISON)


if __name__ == "__main__":
    main()
