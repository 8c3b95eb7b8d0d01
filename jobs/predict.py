"""Score unlabeled images in bulk: p_fake and a verdict for each.

  python -m jobs.predict uploads --out scores
  python -m jobs.predict uploads --models models --out scores
  python -m jobs.predict s3://bucket/uploads --models s3://bucket/models --out s3://bucket/scores
  python -m jobs.predict uploads --models models --version first-0a1b2c3d --out scores --gpu

IMAGES is a folder or URI. Every image below it, told by its bytes and not by its name, is scored as a whole, with the
live model of MODELS (or the starter model without --models), and gets the score that a service on the same device
would give it. Faces are not detected: for images that are not aligned portraits, use the service, or align them first
(see jobs.prepare --faces).

OUT receives

  predictions.csv    one row per image, the highest p_fake first: path, verdict (real, uncertain, fake, or no_face for
                     an image that is blank or tiny), p_fake, logit, the warnings of the service, and error for an
                     image that cannot be read (the others are scored nevertheless). A path that a spreadsheet would
                     take for a formula begins with ./ here
  left_out.csv       every other file below IMAGES, and why it was left out
  predictions.json   the model, its error rates and the counts

After an interruption, run the same command again to continue. A score is no proof: predictions.json has the model's
error rates on its test split, and they may be higher on images of another kind.

The last line on stdout is one JSON object: predictions, model, images, verdicts, unreadable, left_out.
"""

import argparse
import json
import re
from typing import Any, NoReturn

import pandas as pd
import ray
from tqdm import tqdm

from detector_core import storage
from detector_core.data.index import Index, no_images, scan_unlabeled
from detector_core.errors import BadConfig
from detector_core.evaluation.calibration import NO_FACE, VERDICTS
from detector_core.registry import starter, versions
from detector_core.registry.bulk_predict import FORMAT, predict_files
from detector_core.registry.predictor import ModelInfo, describe
from jobs.common import cli
from jobs.common.chunks import CHUNK_IMAGES, ChunkStore, map_chunks
from jobs.common.cluster import check_resources, connect

TABLE, LEFT_OUT, SUMMARY = "predictions.csv", "left_out.csv", "predictions.json"
FORMULA = re.compile(r"[=+\-@\t\r\n\uff1d\uff0b\uff0d\uff20]")
"""Characters with which a formula begins in a spreadsheet, also as wide characters of East Asian scripts."""


def main(argv: list[str] | None = None) -> NoReturn:
    """The command line."""
    parser = cli.parser("predict", __doc__)
    parser.add_argument("source", metavar="IMAGES", help="a folder or URI; subfolders are included")
    parser.add_argument(
        "--models",
        metavar="MODELS",
        help="folder or URI that jobs.promote writes to [the starter model, docs/starter.md]",
    )
    parser.add_argument("--version", metavar="V", help="a version in MODELS [the live one]")
    parser.add_argument("--out", required=True, metavar="OUT", help="folder or URI for the results")
    parser.add_argument("--gpu", action="store_true", help="predict on GPUs, one per task")
    cli.run(job, parser.parse_args(argv))


def job(arguments: argparse.Namespace) -> dict[str, Any]:
    """Lists the images, predicts chunk by chunk, sorts and saves."""
    models = storage.absolute(arguments.models or starter.private_models(cli.say))
    out = storage.absolute(arguments.out)
    if arguments.version and arguments.version not in versions.list_versions(models):
        raise BadConfig(
            f"--version {arguments.version}: {models} has {', '.join(versions.list_versions(models)) or 'no versions'}"
        )
    location = storage.join(models, arguments.version) if arguments.version else versions.live_location(models)
    model = describe(versions.fetch(location))
    index = scan_unlabeled(arguments.source)
    paths = index.frame["path"].tolist()
    cli.say(f"{len(paths):,} files below {index.root}, model {model.version}")
    chunks = [paths[start : start + CHUNK_IMAGES] for start in range(0, len(paths), CHUNK_IMAGES)]
    device = "cuda" if arguments.gpu else "cpu"
    store = ChunkStore(out, f"{index.key}-{model.version}-{device}-{FORMAT}")
    stored = store.done()
    todo = [number for number in range(len(chunks)) if number not in stored]
    with connect(), tqdm(total=len(paths), initial=sum(len(chunks[n]) for n in stored), unit=" files") as bar:
        check_resources(cpus=1, gpus=int(arguments.gpu), purpose="jobs.predict")
        task = ray.remote(num_cpus=1, num_gpus=int(arguments.gpu))(predict_files)
        for position, predictions in map_chunks(
            task, [(location, device, index.root, chunks[number]) for number in todo]
        ):
            store.write(todo[position], predictions)
            bar.update(len(predictions))
    result = write(out, store.read(len(chunks)), index, model, device)
    store.remove()
    return result


def write(out: str, rows: pd.DataFrame, index: Index, model: ModelInfo, device: str) -> dict[str, Any]:
    """Writes the tables and the summary, and returns the result of the job.

    Args:
        rows: of :func:`detector_core.registry.bulk_predict.predict_files`, for every file of the index.

    Raises:
        BadData: none of the files is an image.
    """
    is_image = rows["left_out"].isna()
    table = rows[is_image].drop(columns="left_out")
    table = table.sort_values(["p_fake", "path"], ascending=[False, True], na_position="last")
    others = rows.loc[~is_image, ["path", "left_out"]].rename(columns={"left_out": "reason"})
    left_out = pd.concat([index.left_out, others]).sort_values("path")
    if table.empty:
        raise no_images(index.root, left_out)
    reasons = left_out["reason"].str.split(":").str[0].value_counts().sort_index().to_dict()
    counts = {verdict: int((table["verdict"] == verdict).sum()) for verdict in (*VERDICTS, NO_FACE)}
    result: dict[str, Any] = {
        "predictions": storage.join(out, TABLE),
        "model": model.version,
        "images": len(table),
        "verdicts": counts,
        "unreadable": int(table["error"].notna().sum()),
        "left_out": len(left_out),
    }
    summary = {
        **result,
        "left_out": {"count": len(left_out), "reasons": reasons},
        "source": index.root,
        "device": device,
        "calibration": model.calibration.to_dict(),
        "test": list(model.test_metrics),
    }
    for name, frame in ((TABLE, table), (LEFT_OUT, left_out)):
        csv = frame.assign(path=frame["path"].map(not_a_formula)).to_csv(index=False)
        storage.write_bytes(storage.join(out, name), csv.encode())
    storage.write_bytes(storage.join(out, SUMMARY), json.dumps(summary, indent=2, allow_nan=False).encode())
    counts = {**counts, "unreadable": result["unreadable"], "left out": len(left_out)}
    why = f" ({', '.join(f'{count:,} {reason}' for reason, count in reasons.items())})" if reasons else ""
    cli.say(", ".join(f"{count:,} {name}" for name, count in counts.items()) + why)
    return result


def not_a_formula(path: str) -> str:
    """The same path, but never one that a spreadsheet would execute as a formula."""
    return f"./{path}" if FORMULA.match(path) else path


if __name__ == "__main__":
    main()
