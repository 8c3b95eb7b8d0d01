"""Choose the upper threshold of a promoted model for a place, by photographs from there, as a new live version.

  python -m jobs.recalibrate models --reals photographs --flag-at-most 0.005
  python -m jobs.recalibrate models --reals photographs --fakes known-fakes --flag-at-most 0.005

MODELS is the folder or URI that jobs.promote writes to. Its live version (or --version) scores the photographs, as
jobs.predict does, and the upper threshold is moved so that at most the given fraction of them is flagged. p_fake stays
the same. With --fakes the lower threshold is chosen, too. The result is a new version of the same weights, with its
reports and model card at the new thresholds; python -m jobs.promote --to MODELS --rollback returns to the one before.

Give photographs like those that the service will see, all of them genuine, and not those of training: a fake among them
raises the threshold. Few photographs cannot bound a small fraction, and the job says what they allow: 500 of which two
are flagged bound it to about 1.5%. Files without a face that can be scored are left out and counted.

The last line on stdout is one JSON object: version, before (the version before), fake_above, real_below, reals,
reals_flagged_rate (value, low, high), fakes, fakes_passed_rate (null without --fakes), left_out.
"""

import argparse
from typing import Any, NoReturn, get_args

import numpy as np
import pandas as pd
import ray
from numpy.typing import NDArray
from tqdm import tqdm

from detector_core import storage
from detector_core.data.index import no_images, scan_unlabeled
from detector_core.errors import BadConfig, BadData
from detector_core.evaluation.metrics import Estimate
from detector_core.registry import recalibration, versions
from detector_core.registry.predictor import describe
from jobs.common import cli
from jobs.common.chunks import CHUNK_IMAGES, map_chunks
from jobs.common.cluster import check_resources, connect
from jobs.scoring.rows import Task, predict_files
from serve_app.settings import Faces


def main(argv: list[str] | None = None) -> NoReturn:
    """The command line."""
    parser = cli.parser("recalibrate", __doc__)
    parser.add_argument("models", metavar="MODELS", help="folder or URI that jobs.promote writes to")
    parser.add_argument("--reals", required=True, metavar="FOLDER", help="photographs from the place, all genuine")
    parser.add_argument("--fakes", metavar="FOLDER", help="generated images from the place, if there are any")
    parser.add_argument(
        "--flag-at-most",
        type=float,
        required=True,
        metavar="FRACTION",
        help="the largest fraction of the photographs that may be flagged, such as 0.005",
    )
    parser.add_argument("--version", metavar="V", help="a version in MODELS [the live one]")
    parser.add_argument(
        "--faces",
        choices=get_args(Faces),
        default="auto",
        help="whether faces are looked for, as in a request to the service [%(default)s]",
    )
    cli.run(job, parser.parse_args(argv))


def job(arguments: argparse.Namespace) -> dict[str, Any]:
    """Scores the images, chooses the thresholds and adds the version."""
    share = arguments.flag_at_most
    if not 0 < share < 1:
        raise BadConfig(f"--flag-at-most is {share}: it must be above 0 and below 1")
    models = storage.absolute(arguments.models)
    known = versions.list_versions(models)
    if arguments.version and arguments.version not in known:
        raise BadConfig(f"--version {arguments.version}: {models} has {', '.join(known) or 'no versions'}")
    location = storage.join(models, arguments.version) if arguments.version else versions.live_location(models)
    model = describe(versions.fetch(location))
    cli.say(f"choosing the thresholds of {model.version} on {arguments.reals}")
    with connect():
        check_resources(cpus=1, purpose="jobs.recalibrate")
        reals = score(location, arguments.reals, arguments.faces)
        fakes = score(location, arguments.fakes, arguments.faces) if arguments.fakes else reals.iloc[:0]
    real_logit, fake_logit = (_logits(rows, of) for rows, of in ((reals, arguments.reals), (fakes, arguments.fakes)))
    name = storage.absolute(arguments.reals).rpartition("/")[2]
    chosen_on = {"fingerprint": f"place {name}", "name": name, "weights_sha256": model.sha256}
    chosen = recalibration.choose_for_place(model.calibration, real_logit, fake_logit, share, chosen_on)
    version = recalibration.add_version(models, model.version, chosen.calibration)
    cli.say(chosen.describe(share))
    cli.say(f"{version} is live; python -m jobs.promote --to {arguments.models} --rollback returns to the one before")
    return {
        "version": version,
        "before": model.version,
        "fake_above": chosen.calibration.fake_above,
        "real_below": chosen.calibration.real_below,
        "reals": len(real_logit),
        "reals_flagged_rate": _rate(chosen.reals_flagged),
        "fakes": len(fake_logit),
        "fakes_passed_rate": _rate(chosen.fakes_passed) if arguments.fakes else None,
        "left_out": len(reals) + len(fakes) - len(real_logit) - len(fake_logit),
    }


def _logits(rows: pd.DataFrame, folder: str | None) -> NDArray[np.float64]:
    """The scores of the files that have one. Raises BadData if none of the folder's files has."""
    logit_N = rows["logit"].dropna().to_numpy(dtype=np.float64)
    if folder and not len(logit_N):
        raise BadData(f"{folder}: none of the {len(rows):,} files shows a face that can be scored")
    return logit_N


def _rate(estimate: Estimate) -> dict[str, float | None]:
    return {"value": estimate.value, "low": estimate.low, "high": estimate.high}


def score(location: str, folder: str, faces: Faces) -> pd.DataFrame:
    """The predictions of a version for every file below a folder; no logit where there is no face or no image.

    Raises:
        BadData: the folder has no images.
    """
    index = scan_unlabeled(folder)
    paths = index.frame["path"].tolist()
    chunks = [paths[start : start + CHUNK_IMAGES] for start in range(0, len(paths), CHUNK_IMAGES)]
    task = ray.remote(num_cpus=1)(predict_files)
    work = Task(version=location, device="cpu", faces=faces, root=index.root)
    parts: list[pd.DataFrame] = []
    with tqdm(total=len(paths), desc=f"scoring {folder}", unit=" files") as bar:
        for _, predictions in map_chunks(task, [(work, chunk) for chunk in chunks]):
            parts.append(predictions)
            bar.update(len(predictions))
    rows: pd.DataFrame = pd.concat(parts, ignore_index=True)
    if rows["left_out"].notna().all():
        raise no_images(index.root, rows[["path", "left_out"]].rename(columns={"left_out": "reason"}))
    return rows


if __name__ == "__main__":
    main()
