"""Score many images that nobody has labelled: p_fake and a verdict for each.

  python -m jobs.predict uploads --out scores
  python -m jobs.predict uploads --models models --out scores
  python -m jobs.predict s3://bucket/uploads --models s3://bucket/models --out s3://bucket/scores
  python -m jobs.predict uploads --models models --version first-0a1b2c3d --out scores --gpu

IMAGES is a folder or URI; every image below it is judged as a whole, by the live model of MODELS or --version, as a
service on the same device would. No face is looked for: crop them first where the model was trained on crops
(jobs.prepare --faces says how), or ask the service.

OUT receives predictions.csv, the most suspicious first: path, verdict (real, uncertain or fake), p_fake, logit, and
error for an image that cannot be read, which stops nothing; and predictions.json: the model, how good it is, counts.

Interrupted, the same command goes on where it was. A score is no proof: predictions.json has the model's errors on its
test split, and images of another kind may fare worse.

The last line on stdout is one JSON object: predictions, model, images, verdicts, unreadable.
"""

import argparse
import json
from typing import Any, NoReturn

import ray
from tqdm import tqdm

from detector_core import storage
from detector_core.data.index import scan_unlabelled
from detector_core.errors import BadConfig
from detector_core.evaluation.calibration import VERDICTS
from detector_core.registry import starter, versions
from detector_core.registry.bulk_predict import predict_files
from detector_core.registry.predictor import describe
from jobs.common import cli
from jobs.common.chunks import CHUNK, ChunkStore, map_chunks
from jobs.common.cluster import check_room, connect

TABLE, SUMMARY = "predictions.csv", "predictions.json"


def main(argv: list[str] | None = None) -> NoReturn:
    """The command line."""
    parser = cli.parser("predict", __doc__)
    parser.add_argument("source", metavar="IMAGES", help="a folder of images, or a URI; searched through")
    parser.add_argument(
        "--models",
        metavar="MODELS",
        help="folder or URI that jobs.promote writes to [the starter model, docs/starter.md]",
    )
    parser.add_argument("--version", metavar="V", help="one of its versions [the live one]")
    parser.add_argument("--out", required=True, metavar="OUT", help="folder or URI of the results")
    parser.add_argument("--gpu", action="store_true", help="judge on GPUs, one for each task")
    cli.run(job, parser.parse_args(argv))


def job(arguments: argparse.Namespace) -> dict[str, Any]:
    """Lists, judges chunk by chunk, sorts, saves."""
    models = storage.absolute(arguments.models or starter.private_models(cli.say))
    out = storage.absolute(arguments.out)
    if arguments.version and arguments.version not in versions.list_versions(models):
        raise BadConfig(
            f"--version {arguments.version}: {models} has {', '.join(versions.list_versions(models)) or 'none'}"
        )
    where = storage.join(models, arguments.version) if arguments.version else versions.live_location(models)
    model = describe(versions.fetch(where))
    index = scan_unlabelled(arguments.source)
    paths = index.frame["path"].tolist()
    cli.say(f"{len(paths):,} images below {index.root}, judged by {model.version}")
    chunks = [paths[start : start + CHUNK] for start in range(0, len(paths), CHUNK)]
    device = "cuda" if arguments.gpu else "cpu"
    parts = ChunkStore(out, f"{index.key}-{model.version}-{device}")
    done = parts.done()
    todo = [number for number in range(len(chunks)) if number not in done]
    with connect(), tqdm(total=len(paths), initial=sum(len(chunks[n]) for n in done), unit=" images") as bar:
        check_room(cpus=1, gpus=int(arguments.gpu), purpose="jobs.predict")
        task = ray.remote(num_cpus=1, num_gpus=int(arguments.gpu))(predict_files)
        for place, scores in map_chunks(task, [(where, device, index.root, chunks[number]) for number in todo]):
            parts.write(todo[place], scores)
            bar.update(len(scores))
    found = parts.read(len(chunks)).sort_values(["p_fake", "path"], ascending=[False, True], na_position="last")
    counts = {verdict: int((found["verdict"] == verdict).sum()) for verdict in VERDICTS}
    unreadable = int(found["error"].notna().sum())
    result = {
        "predictions": storage.join(out, TABLE),
        "model": model.version,
        "images": len(found),
        "verdicts": counts,
        "unreadable": unreadable,
    }
    said = {
        **result,
        "source": index.root,
        "device": device,
        "calibration": model.calibration.to_dict(),
        "test": list(model.test),
    }
    storage.write_bytes(storage.join(out, TABLE), found.to_csv(index=False).encode())
    storage.write_bytes(storage.join(out, SUMMARY), json.dumps(said, indent=2, allow_nan=False).encode())
    parts.remove()
    cli.say(", ".join(f"{count:,} {verdict}" for verdict, count in counts.items()) + f", {unreadable:,} unreadable")
    return result


if __name__ == "__main__":
    main()
