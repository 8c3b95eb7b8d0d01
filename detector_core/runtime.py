"""A model folder -> a predictor: pictures in, verdicts out, with the preprocessing and thresholds of the model.

Torch in float32. Left out: where models come from (:mod:`detector_core.registry`) and who asks.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from detector_core import artifacts, calibration, registry
from detector_core.calibration import Calibration, verdict
from detector_core.config import PreprocessSpec
from detector_core.errors import BrokenArtifact
from detector_core.labels import FAKE, REAL
from detector_core.pictures import Pixels
from detector_core.preprocess import normalize, square


@dataclass(frozen=True, kw_only=True)
class ModelInfo:
    """What an answer, and whoever reads it, may want to know about a model.

    Attributes:
        name: of the run that trained it.
        version: name of its folder.
        sha256: of the weights.
        data: name of the training data; ``generated`` is True for generated demo data.
        test: figures on test splits, one entry a data set: ``data``, ``generated``, ``pictures``, and ``auc``,
            ``accuracy``, ``fakes_passed``, ``reals_flagged`` as fractions (None where undefined).
    """

    name: str
    version: str
    sha256: str
    variant: str
    created: str
    data: str
    generated: bool
    preprocess: PreprocessSpec
    calibration: Calibration
    test: tuple[dict[str, Any], ...]


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """What one model says about one picture; ``p_fake`` is calibrated, ``verdict`` real, uncertain or fake."""

    p_fake: float
    logit: float
    verdict: str
    model: ModelInfo

    @property
    def confidence(self) -> float:
        """The percentage beside the verdict, as a fraction: how likely it is right; for uncertain, the likelier side.

        Source: paper section V shows one; calibration makes it a probability.
        """
        sides = {FAKE: self.p_fake, REAL: 1 - self.p_fake}
        return sides.get(self.verdict, max(sides.values()))


def describe(model_folder: str | Path) -> ModelInfo:
    """What a local model folder holds, without loading the weights. Raises BrokenArtifact."""
    folder = Path(model_folder)
    artifact = artifacts.read(folder)
    return ModelInfo(
        name=artifact.run,
        version=folder.name,
        sha256=artifact.weights_sha256,
        variant=artifact.spec.variant,
        created=artifact.created,
        data=artifact.data["name"],
        generated=artifact.data["generated"],
        preprocess=artifact.spec.preprocess,
        calibration=calibration.load(str(folder), artifact.weights_sha256),
        test=tuple(_figures(report) for report in registry.judgements(folder).values()),
    )


def _figures(report: dict[str, Any]) -> dict[str, Any]:
    rates = report["rates"]
    return {
        "data": report["data"]["name"],
        "generated": report["data"]["generated"],
        "pictures": sum(report["pictures"].values()),
        "auc": report["ranking"]["auc"]["value"],
        "accuracy": rates["accuracy"]["value"],
        "fakes_passed": rates["fakes_passed_rate"]["value"],
        "reals_flagged": rates["reals_flagged_rate"]["value"],
    }


class Predictor:
    """A loaded model.

    Args:
        model_folder: a local folder, see :mod:`detector_core.artifacts`.
        batch_size: most pictures of one forward pass.
        device: of the network, in torch's words.

    Raises:
        BrokenArtifact: the folder is not a whole model.
    """

    def __init__(self, model_folder: str | Path, *, batch_size: int = 32, device: str = "cpu") -> None:
        network, _ = artifacts.load(model_folder)
        self.info = describe(model_folder)
        self.batch_size, self.device = batch_size, device
        self._network = network.to(device, memory_format=torch.channels_last).eval()  # type: ignore[call-overload]
        self.predict([blank(self.info)])  # the first pass is slow: not in a request

    def predict(self, images: Sequence[Pixels]) -> list[Prediction]:
        """One prediction for each image_HWC (uint8 RGB, any size; squares of the model's size are taken as they are).

        Raises:
            BrokenArtifact: the network gives a score that is not finite.
        """
        predictions: list[Prediction] = []
        for start in range(0, len(images), self.batch_size):
            predictions += self._predict_batch(images[start : start + self.batch_size])
        return predictions

    def _predict_batch(self, images: Sequence[Pixels]) -> list[Prediction]:
        info = self.info
        pixels_BSSC = torch.from_numpy(np.stack([square(image, info.preprocess) for image in images]))
        with torch.inference_mode():
            x_BCHW = normalize(pixels_BSSC.to(self.device), info.preprocess)
            logit_B = self._network(x_BCHW).flatten().float().cpu().numpy()
        if not np.isfinite(logit_B).all():
            raise BrokenArtifact(f"the network of {info.version} gives scores that are not finite: promote another")
        p_fake_B = info.calibration.p_fake(logit_B)
        return [
            Prediction(p_fake=p_fake, logit=logit, verdict=verdict(p_fake, info.calibration), model=info)
            for p_fake, logit in zip(p_fake_B.tolist(), logit_B.tolist(), strict=True)
        ]


def blank(info: ModelInfo) -> Pixels:
    """A grey picture of the model's size, to warm up with: image_SSC."""
    side = info.preprocess.image_size
    return np.full((side, side, 3), 128, dtype=np.uint8)
