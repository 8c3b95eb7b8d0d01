"""What reviewed tags teach: a generator that the model never saw, against the number of tags, with and without replay.

  python -m benchmarks.relearn --data data/faces
  python -m benchmarks.relearn --data data/faces --model runs/lite-frozen --out docs/images/relearn.png
  python -m benchmarks.relearn --data data/faces --slow network "network without replay" --slow-tags 30 100

The new generator is an encoder-decoder (benchmarks/second_generator.py) fitted on training photographs. Tagged fakes
repaint training photographs, tagged reals are other training photographs, both saved as JPEG files of the same quality;
a third of the tags is held out for the gate, as in jobs.relearn. What is reported is measured on images that no tag
shows: repainted test photographs, and the old test split. Then 20 % of the tags are flipped, as one giver within its
cap could do, and 30 %, as many givers could; with and without the search for label errors.

--slow adds ways that train for minutes or longer, in this process: the rung network, with and without replay, and full
retraining, which is the recipe of the model from its own beginning on the training split and the tags.

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
from detector_core.data.sources import GROUP, SOURCE
from detector_core.images.decode import Pixels, decode
from detector_core.labels import FAKE, REAL
from detector_core.networks import artifacts
from detector_core.networks.catalog import find_network
from detector_core.registry import starter
from detector_core.training import fine_tuning, rounds
from detector_core.training.loop import fit
from detector_core.training.relearn import Trunk
from detector_core.training.round_inputs import Images, LiveModel, RoundImages
from detector_core.training.rounds import Candidate, Learned
from detector_core.training.step import TrainState

TAGS = (12, 30, 60, 100, 200)
FLIPPED = {"20% flipped": 0.2, "30% flipped": 0.3}
FLIPPED_TAGS = 100
HELD_OUT_ONE_IN = 3
FITTED_ON = 60
QUALITY = 92
FAST = ("thresholds", "head", "head without replay")
SLOW = ("network", "network without replay", "full retraining")
SHOWN = {
    "new_fakes_passed": "fakes passed, new generator",
    "fakes_passed": "fakes passed, old test",
    "reals_flagged": "reals flagged, old test",
}


@dataclasses.dataclass(frozen=True)
class Setting:
    """The model, the images of the data set, and those of the new generator."""

    live: LiveModel
    data: Manifest
    images: dict[str, Images]
    cache: Path | None


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, metavar="DATASET", help="a data set made by jobs.prepare")
    parser.add_argument("--model", metavar="RUN_OR_MODEL", help="a run's folder or a model folder [the starter model]")
    parser.add_argument("--cache", type=Path, metavar="FOLDER", help="keeps features for another run [none]")
    parser.add_argument("--slow", nargs="+", default=[], choices=SLOW, metavar="WAY", help=f"one of {', '.join(SLOW)}")
    parser.add_argument(
        "--slow-tags", nargs="+", type=int, default=[100], metavar="N", help="numbers of tags for --slow [100]"
    )
    parser.add_argument("--out", type=Path, metavar="FILE", help="where to write the plot [none]")
    arguments = parser.parse_args()
    print(machine.describe(), flush=True)
    model = Path(artifacts.find(arguments.model or Path(starter.__file__).parents[1] / starter.NAME))
    live, data = LiveModel.load(model), manifest.load(storage.absolute(arguments.data))
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as work:
        images = load(live.trunk, data, Path(work), arguments.cache)
        print(f"features of all images: {time.perf_counter() - started:.0f} s", flush=True)
        rows = measure(Setting(live, data, images, arguments.cache), arguments.slow, arguments.slow_tags)
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
        name: Images(
            rows=of,
            root=roots.get(name, data.root),
            inputs=trunk.inputs(of, roots.get(name, data.root), name, cache=cache),
            trunk_sha256=trunk.sha256,
        )
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
        rows[-1]["id"] = path.stem
    return pd.DataFrame(rows)


def measure(setting: Setting, slow: Sequence[str], slow_tags: Sequence[int]) -> list[dict[str, Any]]:
    """One row without tags, one for each way and number of tags, and two for each share of flipped tags."""
    learned = rounds.learn_thresholds(setting.live)
    none = Candidate(learned=learned, calibration=setting.live.calibration, conditions=[])
    rows = [_row(setting, "live", 0, none, 0.0)]
    tags = setting.images["tags"]
    runs = [(way, way, count, tags) for count in TAGS for way in FAST]
    runs += [(way, way, count, tags) for count in slow_tags for way in slow]
    for name, share in FLIPPED.items():
        flipped = flip(tags.take(np.arange(FLIPPED_TAGS)), share)
        runs.append((f"head, {name}", "head", FLIPPED_TAGS, flipped))
        runs.append((f"head, {name}, doubtful left out", "head", FLIPPED_TAGS, flipped))
    for name, way, count, of in runs:
        rows.append(_try(setting, name, way, count, of))
        print(json.dumps(rows[-1]), flush=True)
    return rows


def _try(setting: Setting, name: str, way: str, count: int, tags: Images) -> dict[str, Any]:
    held_out = np.arange(count) // 2 % HELD_OUT_ONE_IN == 0
    images = RoundImages(
        **{split: setting.images[split] for split in ("train", "valid", "test")},
        tags=tags.take(np.flatnonzero(~held_out)),
        held_out=tags.take(np.flatnonzero(held_out)),
    )
    started = time.perf_counter()
    left_out = rounds.doubtful_tags(images) if name.endswith("left out") else {}
    images = images.without(left_out)
    candidate = rounds.try_candidate(_learn(setting, way, images), setting.live, images, setting.data)
    return _row(setting, name, count, candidate, time.perf_counter() - started) | {"left_out": len(left_out)}


def _learn(setting: Setting, way: str, images: RoundImages) -> Learned:
    live, replay = setting.live, not way.endswith("without replay")
    if way == "thresholds":
        return rounds.learn_thresholds(live)
    if way.startswith("head"):
        return rounds.learn_head(live, images, seed=0, replay=replay)
    spec = live.artifact.spec
    with tempfile.TemporaryDirectory() as folder:
        if way == "full retraining":
            data = _with_tags(setting.data, images.tags, folder)
        else:
            fine_tuning.check_trainable(live.trunk.network, spec.variant)
            start = Path(folder) / "start.safetensors"
            fine_tuning.save_start(start, live, images, seed=0, replay=replay)
            spec = fine_tuning.settings(spec, str(start), seed=0)
            data = fine_tuning.save_data_set(folder, images, setting.data, seed=0)
            if not replay:
                kept = (data.frame[SOURCE] == fine_tuning.TAGS) | (data.frame["split"] != "train")
                data = dataclasses.replace(data, frame=data.frame[kept].reset_index(drop=True))
        state = TrainState(spec, data.fingerprint)
        cache = setting.cache if find_network(spec.model.architecture).features_only else None
        for _ in fit(state, data, cache=cache):
            pass
    assert state.best_weights is not None
    return rounds.learned_network(live, state.best_weights)


def _with_tags(data: Manifest, tags: Images, folder: str) -> Manifest:
    """The data set with the tags in its training split, each once."""
    old = data.frame.assign(path=[storage.join(data.root, path) for path in data.frame["path"]])
    new = tags.rows.assign(path=[storage.join(tags.root, path) for path in tags.rows["path"]], split="train")
    new = new.assign(width=0, height=0, bytes=0, phash="", **{SOURCE: fine_tuning.TAGS, GROUP: None})
    frame = pd.concat([old, new.reindex(columns=old.columns)], ignore_index=True)
    return manifest.save(folder, frame, root="", name=f"{data.name} and tags", generated=data.generated, audit={})


def _row(setting: Setting, name: str, tags: int, candidate: Candidate, seconds: float) -> dict[str, Any]:
    """The error rates of a candidate, whether it passes the gate, and why not."""
    called: dict[str, np.ndarray] = {}
    for which in ("new", "test"):
        p_fake = candidate.calibration.p_fake(setting.images[which].logits(candidate.learned.trunk))
        called[which] = p_fake >= candidate.calibration.fake_above
    is_fake = setting.images["test"].is_fake
    return {
        "way": name,
        "tags": tags,
        "new_fakes_passed": float(np.mean(~called["new"])),
        "fakes_passed": float(np.mean(~called["test"][is_fake])),
        "reals_flagged": float(np.mean(called["test"][~is_fake])),
        "passed": candidate.passed,
        "failed": "; ".join(condition.name for condition in candidate.conditions if not condition.passed),
        "seconds": round(seconds, 2),
    }


def flip(images: Images, share: float) -> Images:
    """The images with a share of the labels flipped, drawn with a seed."""
    count = len(images.rows)
    wrong = np.random.default_rng(0).permutation(count) < share * count
    other = images.rows["label"].map({REAL: FAKE, FAKE: REAL})
    return dataclasses.replace(images, rows=images.rows.assign(label=images.rows["label"].mask(wrong, other)))


def draw(rows: list[dict[str, Any]]) -> bytes:
    """A PNG: one plot for each of SHOWN, with a line for each way; those of FAST begin at the live model."""
    figure = plotting.new_figure(11, 3.6)
    live = rows[0]
    for axes, (metric, label) in zip(figure.subplots(1, len(SHOWN)), SHOWN.items(), strict=True):
        for way in dict.fromkeys(r["way"] for r in rows if r["way"] in (*FAST, *SLOW)):
            points = sorted((r["tags"], r[metric]) for r in rows if r["way"] == way)
            if way in FAST:
                axes.plot(*zip((0, live[metric]), *points, strict=True), marker="o", markersize=3, label=way)
            else:  # few numbers of tags
                axes.plot(*zip(*points, strict=True), marker="D", linestyle="--", label=way)
        axes.axhline(live[metric], color="gray", linestyle=":", label="live model, no relearning")
        axes.set(title=label, xlabel="reviewed tags", ylim=(0, 1 if metric == "new_fakes_passed" else 0.5))
        axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    return plotting.png(figure)


if __name__ == "__main__":
    main()
