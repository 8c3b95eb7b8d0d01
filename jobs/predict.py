"""Score unlabeled images in bulk: p_fake and a verdict for each.

  python -m jobs.predict uploads --out scores
  python -m jobs.predict uploads --models models --out scores
  python -m jobs.predict s3://bucket/uploads --models s3://bucket/models --out s3://bucket/scores
  python -m jobs.predict uploads --models models --version first-0a1b2c3d --out scores --gpu

IMAGES is a folder or URI. Every image below it is scored as a whole, with the live model of MODELS (or the starter
model without --models), and gets the score that a service on the same device would give it. Faces are not detected: for
images that are not aligned portraits, use the service, or align them first (see jobs.prepare --faces).

OUT receives predictions.csv, the highest p_fake first: path, verdict (real, uncertain or fake), p_fake, logit, and
error for an image that cannot be read (the others are scored nevertheless); and predictions.json: the model, its error
rates and the counts.

After an interruption, run the same command again to continue. A score is no proof: predictions.json has the model's
error rates on its test split, and they may be higher on images of another kind.

The last line on stdout is one JSON object: predictions, model, images, verdicts, unreadable.
"""

import argparse
import json
from typing import Any, NoReturn

import ray
from tqdm import tqdm

from detector_core import storage
from detector_core.data.index import scan_unlabeled
from detector_core.errors import BadConfig
from detector_core.evaluation.calibration import VERDICTS
from detector_core.registry import starter, versions
from detector_core.registry.bulk_predict import predict_files
from detector_core.registry.predictor import describe
from jobs.common import cli
from jobs.common.chunks import CHUNK_IMAGES, ChunkStore, map_chunks
from jobs.common.cluster import check_resources, connect

TABLE, SUMMARY = "predictions.csv", "predictions.json"


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
    cli.say(f"{len(paths):,} images below {index.root}, model {model.version}")
    chunks = [paths[start : start + CHUNK_IMAGES] for start in range(0, len(paths), CHUNK_IMAGES)]
    device = "cuda" if arguments.gpu else "cpu"
    store = ChunkStore(out, f"{index.key}-{model.version}-{device}")
    stored = store.done()
    todo = [number for number in range(len(chunks)) if number not in stored]
    with connect(), tqdm(total=len(paths), initial=sum(len(chunks[n]) for n in stored), unit=" images") as bar:
        check_resources(cpus=1, gpus=int(arguments.gpu), purpose="jobs.predict")
        task = ray.remote(num_cpus=1, num_gpus=int(arguments.gpu))(predict_files)
        for position, predictions in map_chunks(
            task, [(location, device, index.root, chunks[number]) for number in todo]
        ):
            store.write(todo[position], predictions)
            bar.update(len(predictions))
    table = store.read(len(chunks)).sort_values(["p_fake", "path"], ascending=[False, True], na_position="last")
    counts = {verdict: int((table["verdict"] == verdict).sum()) for verdict in VERDICTS}
    unreadable = int(table["error"].notna().sum())
    result = {
        "predictions": storage.join(out, TABLE),
        "model": model.version,
        "images": len(table),
        "verdicts": counts,
        "unreadable": unreadable,
    }
    summary = {
        **result,
        "source": index.root,
        "device": device,
        "calibration": model.calibration.to_dict(),
        "test": list(model.test_metrics),
    }
    storage.write_bytes(storage.join(out, TABLE), table.to_csv(index=False).encode())
    storage.write_bytes(storage.join(out, SUMMARY), json.dumps(summary, indent=2, allow_nan=False).encode())
    store.remove()
    cli.say(", ".join(f"{count:,} {verdict}" for verdict, count in counts.items()) + f", {unreadable:,} unreadable")
    return result


if __name__ == "__main__":
    main()
