"""Tagged images, a data set with real perceptual hashes, and a live model, for the tests of relearning."""

import io
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from detector_core.data import feedback, manifest, review
from detector_core.data.inspect import perceptual_hash
from detector_core.evaluation import calibration, scoring
from detector_core.evaluation.calibration import Calibration
from detector_core.images.decode import decode
from detector_core.networks import artifacts
from detector_core.training.relearn import Trunk
from tests.conftest import make_dataset
from tests.support.models import add_report, save_model

MODEL = {"name": "tiny", "version": "v1", "sha256": "00"}


def hashed_dataset(folder: Path, per_class: dict[str, int]) -> Path:
    """The data set of ``make_dataset``, with the hashes of its images."""
    dataset = make_dataset(folder, per_class)
    data = manifest.load(str(dataset))
    hashes = [perceptual_hash(decode(Path(data.root, path).read_bytes())) for path in data.frame["path"]]
    manifest.save(str(dataset), data.frame.assign(phash=hashes), root=data.root, name="tiny", generated=True, audit={})
    return dataset


def tagged_bytes(seed: int, label: str) -> bytes:
    """A coarse pattern and noise; fakes have rows of alternating brightness, which no fake of the data set has."""
    draw = np.random.default_rng(50_000 + seed)
    coarse = draw.uniform(60, 190, (8, 8, 3)).repeat(4, axis=0).repeat(4, axis=1)
    pixels = coarse + draw.normal(0, 10, (32, 32, 3))
    if label == "fake":
        pixels += 25 * (-1.0) ** np.arange(32)[:, None, None]
    buffer = io.BytesIO()
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def give_accepted(folder: Path, count: int) -> list[str]:
    """Donates ``count`` images of each class, each by another giver, and accepts their tags; returns the ids."""
    store = feedback.Store(folder, 10**8)
    ids = [
        store.add(
            tagged_bytes(2 * number + (label == "fake"), label),
            label,
            model=MODEL,
            giver=f"{number}-{label}",
        ).id
        for label in ("real", "fake")
        for number in range(count)
    ]
    review.decide(folder, ids, "accept", reviewer="anna")
    return ids


def live_model(folder: Path, dataset: Path, *, balanced: bool = False) -> Path:
    """A model folder with random weights, as trained on a data set and evaluated on its test split.

    Args:
        balanced: half of the validation images get the verdict fake; otherwise nearly none.
    """
    data = manifest.load(str(dataset))
    save_model(folder, run="live", auc=None, data=data.fingerprint)
    if balanced:
        network, artifact = artifacts.load(folder)
        logits = scoring.score(network, data.split("valid"), data.root, artifact.spec.preprocess)["logit"]
        with torch.no_grad():
            Trunk(network, artifact.spec.preprocess).last_layer.bias -= float(logits.median())
        saved = artifacts.save(folder, network.state_dict(), artifact)
        calibration.save(str(folder), Calibration(chosen_on={"weights_sha256": saved.weights_sha256}))
    add_report(folder, auc=0.5, data=data.describe())
    return folder


def network_of(folder: Path) -> torch.nn.Module:
    """The network of a model folder."""
    return artifacts.load(folder)[0]


def arguments(models: Path, folder: Path, dataset: Path, *more: object) -> list[object]:
    """The arguments of jobs.relearn, with features cached next to the feedback."""
    cache = folder.parent / "cache"
    return ["--models", models, "--feedback", folder, "--data", dataset, "--cache", cache, *more]
