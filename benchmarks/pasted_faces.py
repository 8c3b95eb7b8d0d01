"""Faces in ordinary photos: portraits pasted at random size, rotation and place onto larger canvases, then predicted.

  python -m benchmarks.pasted_faces --model runs/lite-ensemble/model --data data/faces
  python -m benchmarks.pasted_faces --data data/faces --limit 100

Takes the way of the service: find faces, align, predict. Each portrait of the test split is pasted once, so that its
face is 64 to 400 px wide and turned by up to 25 degrees. For each range of face sizes prints the ROC AUC, how many
faces were found, how often the verdict is that of the portrait itself, and how often the two contradict each other: one
is real, the other fake. Without --model the starter model answers.

The last line on stdout is one JSON object: rows.
"""

import argparse
import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image
from sklearn.metrics import roc_auc_score
from tqdm import tqdm

from benchmarks import machine
from detector_core import labels, storage
from detector_core.data import manifest
from detector_core.evaluation.calibration import UNCERTAIN
from detector_core.images.decode import Pixels, decode
from detector_core.images.preprocess import square
from detector_core.networks import artifacts
from detector_core.registry import starter, versions
from detector_core.registry.predictor import Predictor
from serve_app.pipeline import find_crops
from serve_app.settings import Limits

FACE_PX = (64, 400)
FACE_OF_PORTRAIT = 0.73
"""A face fills this much of the side of an aligned portrait (median of FFHQ portraits)."""
DEGREES = 25
CANVAS = 1200
BINS = (64, 128, 192, 256, 400)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", metavar="RUN_OR_MODEL", help="a run's folder or a model folder [the starter model]")
    parser.add_argument("--data", required=True, metavar="DATASET", help="a data set made by jobs.prepare")
    parser.add_argument("--split", default="test", help="[%(default)s]")
    parser.add_argument("--limit", type=int, metavar="N", help="only N portraits, evenly spaced")
    arguments = parser.parse_args()
    print(machine.describe(), flush=True)
    folder = artifacts.find(arguments.model) if arguments.model else versions.live(starter.private_models(print))
    data = manifest.load(storage.absolute(arguments.data))
    rows = data.split(arguments.split)
    if arguments.limit:
        rows = rows.iloc[np.linspace(0, len(rows) - 1, arguments.limit).astype(int)]
    table = predict(Predictor(Path(folder)), rows, data.root)
    summary = summarize(table)
    print(summary.to_string(index=False))
    print(json.dumps({"rows": summary.to_dict("records")}))


def paste(portrait: Pixels, draw: np.random.Generator) -> tuple[Pixels, float]:
    """A canvas of smooth noise with a portrait on it, and the width of its face in pixels."""
    face_px = float(np.exp(draw.uniform(*np.log(FACE_PX))))
    side, degrees = round(face_px / FACE_OF_PORTRAIT), draw.uniform(-DEGREES, DEGREES)
    coarse = draw.integers(40, 216, (CANVAS // 40, CANVAS // 40, 3), dtype=np.uint8)
    canvas = Image.fromarray(coarse).resize((CANVAS, CANVAS), Image.Resampling.BICUBIC)
    resized = Image.fromarray(portrait).resize((side, side), Image.Resampling.BICUBIC).convert("RGBA")
    turned = resized.rotate(degrees, Image.Resampling.BICUBIC, expand=True)
    left, top = (int(draw.integers(0, CANVAS - extent + 1)) for extent in turned.size)
    canvas.paste(turned, (left, top), turned)
    return np.asarray(canvas), face_px


def predict(predictor: Predictor, rows: pd.DataFrame, root: str) -> pd.DataFrame:
    """Columns label, face_px, found, p_fake, verdict (of the pasted face; none where it was not found), portrait."""
    found: list[dict[str, Any]] = []
    for number, (path, label) in enumerate(tqdm(list(zip(rows["path"], rows["label"], strict=True)), unit=" images")):
        portrait = decode(storage.read_bytes(storage.join(root, path)))
        canvas, face_px = paste(portrait, np.random.default_rng((0, number)))
        (alone,) = predictor.predict([square(portrait, predictor.info.preprocess)])
        crops = find_crops(canvas, predictor.info, Limits(), search_faces=True).crops
        predictions = predictor.predict([crop.image_SSC for crop in crops]) if crops else []
        decisive = max(predictions, key=lambda prediction: prediction.p_fake, default=None)
        found.append(
            {
                "label": label,
                "face_px": face_px,
                "found": bool(crops),
                "p_fake": decisive.p_fake if decisive else np.nan,
                "verdict": decisive.verdict if decisive else None,
                "portrait": alone.verdict,
            }
        )
    return pd.DataFrame(found)


def summarize(table: pd.DataFrame) -> pd.DataFrame:
    """One row for each range of face sizes, and one for all faces of 128 px and more."""
    ranges = [*itertools.pairwise(BINS), (128, BINS[-1])]
    rows = []
    for low, high in ranges:
        part = table[(table["face_px"] >= low) & (table["face_px"] <= high)]
        seen = part[part["found"]]
        both = seen["label"].nunique() == 2
        rows.append(
            {
                "face": f"{low}-{high} px",
                "images": len(part),
                "found": part["found"].mean(),
                "auc": roc_auc_score(labels.targets(seen["label"]), seen["p_fake"]) if both else None,
                "same_verdict": (seen["verdict"] == seen["portrait"]).mean(),
                "contradiction": (
                    (seen["verdict"] != seen["portrait"])
                    & (seen[["verdict", "portrait"]] != UNCERTAIN).all(axis="columns")
                ).mean(),
            }
        )
    return pd.DataFrame(rows)


if __name__ == "__main__":
    main()
