"""What reviewed tags teach: a generator that the model never saw, against the number of tags, with and without replay.

  python -m benchmarks.relearn --data data/faces
  python -m benchmarks.relearn --data data/faces --model runs/lite-frozen --out docs/images/relearn.png

The new generator is an encoder-decoder (benchmarks/second_generator.py) fitted on training photographs. Tagged fakes
repaint training photographs, tagged reals are other training photographs, both saved as JPEG files of the same quality;
a third of the tags is held out for the gate, as in jobs.relearn. What is reported is measured on images that no tag
shows: repainted test photographs, and the old test split. Then 20 % of the tags are flipped, as one giver within its
cap could do, and 30 %, as many givers could.

Without --model it is the starter model. The last line on stdout is one JSON object: rows.
"""

import argparse
import dataclasses
import hashlib
import json
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from benchmarks import machine
from benchmarks.second_generator import SecondGenerator
from detector_core import plotting, storage
from detector_core.data import manifest
from detector_core.data.manifest import Manifest
from detector_core.evaluation import calibration
from detector_core.evaluation.calibration import Calibration
from detector_core.evaluation.gate import Paired
from detector_core.images.decode import Pixels, decode
from detector_core.labels import FAKE, REAL
from detector_core.networks import artifacts
from detector_core.registry import starter
from detector_core.training import rounds
from detector_core.training.relearn import LastLayerInputs, Trunk
from detector_core.training.rounds import Candidate, Images, RoundImages

TAGS = (12, 30, 60, 100, 200)
FLIPPED = {"20% flipped": 0.2, "30% flipped": 0.3}
FLIPPED_TAGS = 100
HELD_OUT_ONE_IN = 3
FITTED_ON = 60
QUALITY = 92
WAYS = {
    "thresholds": (rounds.THRESHOLDS, True),
    "head": (rounds.HEAD, True),
    "head without replay": (rounds.HEAD, False),
}
"""Name -> rung, and whether the training split is replayed."""
SHOWN = {
    "new_fakes_passed": "fakes passed, new generator",
    "fakes_passed": "fakes passed, old test",
    "reals_flagged": "reals flagged, old test",
}


@dataclasses.dataclass(frozen=True)
class Setting:
    """The model, the images of the data set, and those of the new generator."""

    trunk: Trunk
    live: Calibration
    model: Path
    data: Manifest
    images: dict[str, Images]


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, metavar="DATASET", help="a data set made by jobs.prepare")
    parser.add_argument("--model", metavar="RUN_OR_MODEL", help="a run's folder or a model folder [the starter model]")
    parser.add_argument("--cache", type=Path, metavar="FOLDER", help="keeps features for another run [none]")
    parser.add_argument("--out", type=Path, metavar="FILE", help="where to write the plot [none]")
    arguments = parser.parse_args()
    print(machine.describe(), flush=True)
    model = Path(artifacts.find(arguments.model or Path(starter.__file__).parents[1] / starter.NAME))
    network, artifact = artifacts.load(model)
    live = calibration.load(str(model), artifact.weights_sha256)
    data = manifest.load(storage.absolute(arguments.data))
    trunk = Trunk(network, artifact.spec.preprocess)
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as work:
        setting = Setting(trunk, live, model, data, load(trunk, data, Path(work), arguments.cache))
    print(f"features of all images: {time.perf_counter() - started:.0f} s", flush=True)
    rows = measure(setting)
    table = pd.DataFrame(rows)
    print(table.to_string(index=False, float_format="%.3f"))
    if arguments.out:
        storage.write_bytes(arguments.out, draw(rows))
    print(json.dumps({"rows": rows}))


def load(trunk: Trunk, data: Manifest, work: Path, cache: Path | None) -> dict[str, Images]:
    """The splits; ``tags``, half of them fakes of the new generator; and ``new``, its fakes of test photographs."""
    splits = {name: data.split(name) for name in ("train", "valid", "test")}
    reals = {name: rows[rows["label"] == REAL] for name, rows in splits.items()}
    pixels = {
        name: [decode(storage.read_bytes(storage.join(data.root, path))) for path in rows["path"]]
        for name, rows in reals.items()
        if name != "valid"
    }
    generator = SecondGenerator.fit(pixels["train"][:FITTED_ON])
    count = max(TAGS) // 2
    fakes = [generator.repaint(image, seed) for seed, image in enumerate(pixels["train"][:count])]
    new = [generator.repaint(image, 10_000 + seed) for seed, image in enumerate(pixels["test"])]
    tags = [pair for pairs in zip(fakes, pixels["train"][count : 2 * count], strict=True) for pair in pairs]
    rows = {
        "tags": _save(tags, [FAKE, REAL] * count, work / "tags"),
        "new": _save(new, [FAKE] * len(new), work / "new"),
    }
    roots = {name: str(work / name) for name in rows}
    return {
        name: Images(rows=of, inputs=trunk.inputs(of, roots.get(name, data.root), name, cache=cache))
        for name, of in {**splits, **rows}.items()
    }


def _save(images: Sequence[Pixels], labels: Sequence[str], folder: Path) -> pd.DataFrame:
    """Saves images as JPEG files; returns their rows."""
    folder.mkdir()
    rows = []
    for number, (image, label) in enumerate(zip(images, labels, strict=True)):
        path = folder / f"{number:04}.jpg"
        Image.fromarray(image).save(path, quality=QUALITY)
        rows.append({"path": path.name, "label": label, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()})
    return pd.DataFrame(rows)


def measure(setting: Setting) -> list[dict[str, Any]]:
    """One row without tags, one for each way and number of tags, and one for each share of flipped tags."""
    none = Candidate(rung="", last_layer=setting.trunk.last_layer, calibration=setting.live, conditions=[])
    rows = [row(setting, "live", 0, none, 0.0)]
    for count in TAGS:
        for way in WAYS:
            rows.append(_try(setting, way, way, count, setting.images["tags"]))
    for name, share in FLIPPED.items():
        tags = flip(setting.images["tags"], share)
        rows.append(_try(setting, f"head, {name}", "head", FLIPPED_TAGS, tags))
    return rows


def _try(setting: Setting, name: str, way: str, count: int, tags: Images) -> dict[str, Any]:
    rung, replay = WAYS[way]
    held_out = np.arange(count) // 2 % HELD_OUT_ONE_IN == 0
    part = take(tags, np.arange(count))
    images = RoundImages(
        **{split: setting.images[split] for split in ("train", "valid", "test")},
        tags=take(part, np.flatnonzero(~held_out)),
        held_out=take(part, np.flatnonzero(held_out)),
    )
    started = time.perf_counter()
    candidate = rounds.try_rung(
        rung,
        setting.trunk,
        setting.live,
        images,
        setting.data,
        dtype=rounds.stored_dtype(setting.model, setting.trunk),
        seed=0,
        replay=replay,
    )
    return row(setting, name, count, candidate, time.perf_counter() - started)


def row(setting: Setting, name: str, tags: int, candidate: Candidate, seconds: float) -> dict[str, Any]:
    """The error rates of a candidate, whether it passes the gate, and why not."""
    called: dict[str, Paired] = {}
    for which in ("new", "test"):
        images = setting.images[which]
        p_fake = candidate.calibration.p_fake(setting.trunk.logits(images.inputs, candidate.last_layer))
        calls = p_fake >= candidate.calibration.fake_above
        called[which] = Paired(is_fake_N=images.is_fake, live_N=calls, new_N=calls)
    test = called["test"]
    return {
        "way": name,
        "tags": tags,
        "new_fakes_passed": float(np.mean(~called["new"].new_N)),
        "fakes_passed": float(np.mean(~test.new_N[test.is_fake_N])),
        "reals_flagged": float(np.mean(test.new_N[~test.is_fake_N])),
        "passed": candidate.passed,
        "failed": "; ".join(condition.name for condition in candidate.conditions if not condition.passed),
        "seconds": round(seconds, 2),
    }


def take(images: Images, rows_M: np.ndarray) -> Images:
    """Some of the images."""
    inputs = images.inputs
    other_N = None if inputs.other_N is None else inputs.other_N[rows_M]
    return Images(
        rows=images.rows.iloc[rows_M].reset_index(drop=True),
        inputs=LastLayerInputs(feature_ND=inputs.feature_ND[rows_M], other_N=other_N),
    )


def flip(images: Images, share: float) -> Images:
    """The images with a share of the labels flipped, drawn with a seed."""
    count = len(images.rows)
    wrong = np.random.default_rng(0).permutation(count) < share * count
    other = images.rows["label"].map({REAL: FAKE, FAKE: REAL})
    return dataclasses.replace(images, rows=images.rows.assign(label=images.rows["label"].mask(wrong, other)))


def draw(rows: list[dict[str, Any]]) -> bytes:
    """A PNG: one plot for each of SHOWN, with a line for each way; without tags, all begin at the live model."""
    figure = plotting.new_figure(11, 3.6)
    live = rows[0]
    for axes, (metric, label) in zip(figure.subplots(1, len(SHOWN)), SHOWN.items(), strict=True):
        for way in WAYS:
            points = [(0, live[metric]), *((r["tags"], r[metric]) for r in rows if r["way"] == way)]
            axes.plot(*zip(*points, strict=True), marker="o", markersize=3, label=way)
        axes.axhline(live[metric], color="gray", linestyle=":", label="live model, no relearning")
        axes.set(title=label, xlabel="reviewed tags", ylim=(0, 1 if metric == "new_fakes_passed" else 0.5))
        axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    return plotting.png(figure)


if __name__ == "__main__":
    main()
