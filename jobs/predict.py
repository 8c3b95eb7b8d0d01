"""Score unlabeled images: single files at once, or whole folders in bulk.

  python -m jobs.predict portrait.jpg
  python -m jobs.predict *.jpg --explain
  python -m jobs.predict clip.mp4
  python -m jobs.predict uploads --out scores
  python -m jobs.predict s3://bucket/uploads --models s3://bucket/models --out s3://bucket/scores --gpu

Without --models, the starter model scores (docs/starter.md).

FILES without --out: prints one JSON object per file, with its path and what the service answers about it (p_fake,
verdict, faces, warnings: docs/http-api.md), or "error" instead. No cluster is started. Clips are scored too; "-" reads
stdin. With --explain, each image with the evidence for its verdict in color is written beside it, as FILE.heatmap.png;
clips get no heat map.

A FOLDER with --out: scores every image and clip below it on Ray, told by its bytes and not by its name, and gives
each what the service would answer. OUT receives

  predictions.csv    one row per image or clip, the highest p_fake first: path, verdict (real, uncertain, fake or
                     no_face), p_fake, logit, faces (how many were scored; empty if none was searched), crop_box
                     (what decided: left top right bottom), the warnings of the service, provenance (what the file
                     says about its origin, which is no part of the score: KIND:CLAIM:STANDING, see
                     docs/http-api.md#provenance), and error for a file that cannot be read (the others are scored
                     nevertheless). A path that a spreadsheet would take for a formula begins with ./ here
                     Also copies (how many files have the same content, which is scored once) and group (a number that
                     near-duplicates share; empty beyond 200,000 different images). From half a million rows on there
                     are predictions-2.csv and so on
  predictions.parquet  the same rows
  faces.csv          with --per-face: one row per scored face
  left_out.csv       every other file below FOLDER, and why it was left out
  suspicious.html    the files with the highest p_fake side by side, one per group (--sheet N)
  predictions.json   the model, its error rates and the counts
  .scores            what was scored, by content and model: the same command again scores only what is new, also after
                     an interruption. It may be deleted

A score is no proof: predictions.json has the model's
error rates on its test split, and how many flags are right at several shares of fakes (test[].flag_value); both may be
worse on images of another kind.

With --out, the last line on stdout is one JSON object: predictions, model, images, scored, verdicts, unreadable,
left_out. The
exit code is 1 if a file could not be scored.
"""

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn, get_args

from detector_core import storage
from detector_core.errors import BadConfig
from detector_core.images import claims
from detector_core.networks import artifacts
from detector_core.registry import starter, versions
from jobs.common import cli
from serve_app.settings import Faces


def main(argv: list[str] | None = None) -> NoReturn:
    """The command line."""
    parser = cli.parser("predict", __doc__)
    parser.add_argument("sources", nargs="+", metavar="IMAGES", help="files, or with --out one folder; URIs work too")
    model = parser.add_mutually_exclusive_group()
    model.add_argument(
        "--models",
        metavar="MODELS",
        help="folder or URI that jobs.promote writes to [the starter model, docs/starter.md]",
    )
    model.add_argument("--model", metavar="RUN", help="a run that need not have been promoted: a folder, no URI")
    parser.add_argument("--version", metavar="V", help="a version in MODELS [the live one]")
    parser.add_argument("--out", metavar="OUT", help="score a whole folder: folder or URI for the results")
    parser.add_argument("--gpu", action="store_true", help="predict on a GPU; with --out on GPUs, one per task")
    parser.add_argument(
        "--faces",
        choices=get_args(Faces),
        default="auto",
        help="on: find and score each face; off: score the center square, which is faster and enough for aligned "
        "portraits; auto: on, unless the model was trained on generated demo data [auto]",
    )
    parser.add_argument("--per-face", action="store_true", help="with --out: also write faces.csv")
    parser.add_argument(
        "--signers", metavar="FILE", help="certificates (PEM) of signers whose C2PA signatures are trusted"
    )
    parser.add_argument(
        "--sheet",
        type=int,
        default=60,
        metavar="N",
        help="with --out: how many files suspicious.html shows; 0 writes none [%(default)s]",
    )
    parser.add_argument(
        "--pipeline",
        choices=("tasks", "data"),
        help="with --out: decode and predict on the same core, or on cores and GPUs apart with Ray Data; the rows are "
        "the same [data with --gpu, otherwise tasks]",
    )
    parser.add_argument(
        "--explain", action="store_true", help="of single images: write FILE.heatmap.png; clips get none"
    )
    cli.run(job, parser.parse_args(argv))


def job(arguments: argparse.Namespace) -> dict[str, Any] | Iterator[dict[str, Any]]:
    """Scores a folder or files."""
    _check(arguments)
    device = "cuda" if arguments.gpu else "cpu"
    if arguments.out:
        from jobs.scoring.bulk import predict_folder  # pandas and Ray, which take seconds to import

        (source,) = arguments.sources
        return predict_folder(
            source,
            _model(arguments),
            storage.absolute(arguments.out),
            device,
            faces=arguments.faces,
            per_face=arguments.per_face,
            sheet=arguments.sheet,
            signers=claims.read_signers(arguments.signers) if arguments.signers else "",
            pipeline=arguments.pipeline,
        )
    from jobs.scoring.single import predict_each  # FastAPI and the runtime of the model

    return predict_each(
        arguments.sources,
        _model(arguments),
        device,
        faces=arguments.faces,
        explain=arguments.explain,
        signers_file=arguments.signers,
    )


def _check(arguments: argparse.Namespace) -> None:
    """Raises BadConfig for a source without a name, and for flags that do not fit together."""
    if "" in arguments.sources:
        which = arguments.sources.index("") + 1
        raise BadConfig(f"number {which} of the IMAGES is empty: name a file, or leave the empty argument out")
    if arguments.model and storage.is_uri(arguments.model):
        raise BadConfig(f"--model {arguments.model}: a run in an object store must be promoted first (jobs.promote)")
    if arguments.version and not arguments.models:
        raise BadConfig("--version is a version in MODELS: add --models MODELS")
    if arguments.out and len(arguments.sources) > 1:
        raise BadConfig(f"--out needs one folder, but there are {len(arguments.sources)} IMAGES")
    if arguments.out and arguments.explain:
        raise BadConfig("--explain is for single files: leave out --out, and name the files")
    if arguments.sheet < 0:
        raise BadConfig(f"--sheet is {arguments.sheet}: it must be 0 or more, the number of files on the sheet")
    if arguments.per_face and not arguments.out:
        raise BadConfig("--per-face is for a folder with --out: the answer about a file has its faces")
    if arguments.pipeline and not arguments.out:
        raise BadConfig("--pipeline is for a folder with --out: single files take neither")
    if not arguments.out and (folders := [source for source in arguments.sources if Path(source).is_dir()]):
        raise BadConfig(f"{folders[0]} is a folder: add --out OUT, which receives a table of its images")


def _model(arguments: argparse.Namespace) -> str:
    """Folder or URI of the model. Raises BadConfig, BrokenArtifact."""
    if arguments.model:
        return artifacts.find(arguments.model)
    models = storage.absolute(arguments.models or starter.private_models(cli.say))
    if not arguments.version:
        return versions.live_location(models)
    known = versions.list_versions(models)
    if arguments.version not in known:
        raise BadConfig(f"--version {arguments.version}: {models} has {', '.join(known) or 'no versions'}")
    return storage.join(models, arguments.version)


if __name__ == "__main__":
    main()
