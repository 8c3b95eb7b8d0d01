"""A predictor from a model folder: images in, verdicts out, with the preprocessing and thresholds of the model.

It computes with OpenVINO on a CPU if promotion exported the network, otherwise with torch. torch is imported only if it
computes: a replica without it starts sooner and needs a fraction of the memory. Not in this module: where models come
from (:mod:`detector_core.registry.versions`).
"""

import threading
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from detector_core.config import PreprocessSpec
from detector_core.errors import BrokenArtifact
from detector_core.evaluation import calibration, flag_value
from detector_core.evaluation.calibration import Calibration, verdict
from detector_core.images.decode import Pixels
from detector_core.images.preprocess import square
from detector_core.labels import FAKE, REAL
from detector_core.networks import artifacts
from detector_core.networks.openvino_graphs import FLOAT32
from detector_core.registry import runtime_files, test_reports, versions
from detector_core.registry.engines import OpenVinoEngine, TorchEngine

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, kw_only=True)
class ModelInfo:
    """The description of a model, as it accompanies its predictions.

    Attributes:
        name: name of the run that trained it.
        version: name of its folder.
        sha256: checksum of the weights.
        variant: name of its recipe, see :mod:`detector_core.networks.variants`.
        created: when it was written, UTC, in ISO 8601.
        data: name of the training data.
        generated: whether it was trained on generated demo data.
        terms: those of the training data; empty if none were given.
        preprocess: how an image becomes its input.
        calibration: temperature and thresholds that turn its logits into p_fake and verdicts.
        test_metrics: metrics on test splits, one entry per data set: ``data``, ``generated``, ``images``, and ``auc``,
            ``accuracy``, ``fakes_passed_rate``, ``reals_flagged_rate`` as fractions (None if undefined).
        precision: the precision that computes the scores: int8, bf16 or fp32.
        score_histogram: how many reals and how many fakes of its own test split have p_fake in each of equal bins of
            [0, 1]; None if it was not evaluated on images of both.
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
    test_metrics: tuple[dict[str, Any], ...]
    precision: str = "fp32"
    score_histogram: tuple[tuple[int, ...], tuple[int, ...]] | None = None
    terms: str = ""


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """The prediction of a model for one image; ``p_fake`` is calibrated, ``verdict`` is real, uncertain or fake."""

    p_fake: float
    logit: float
    verdict: str
    model: ModelInfo

    @property
    def confidence(self) -> float:
        """The probability that the verdict is correct; for ``uncertain``, that of the more likely label.

        Source: the paper shows such a percentage (section V); calibration makes it a probability.
        """
        probabilities = {FAKE: self.p_fake, REAL: 1 - self.p_fake}
        return probabilities.get(self.verdict, max(probabilities.values()))


def describe(model_folder: str | Path) -> ModelInfo:
    """Describes a local model folder without loading the weights. Raises BrokenArtifact."""
    folder = Path(model_folder)
    artifact = artifacts.read(folder)
    record = runtime_files.read(folder, artifact.weights_sha256)
    reports = test_reports.read(folder)
    return ModelInfo(
        name=artifact.run,
        version=versions.version_name(folder) if folder.name == artifacts.MODEL_IN_RUN else folder.name,
        sha256=artifact.weights_sha256,
        variant=artifact.spec.variant,
        created=artifact.created,
        data=artifact.data["name"],
        generated=artifact.data["generated"],
        terms=artifact.data.get("terms", ""),
        preprocess=artifact.spec.preprocess,
        calibration=calibration.load(str(folder), artifact.weights_sha256),
        test_metrics=tuple(_test_metrics(report) for report in reports.values()),
        precision=runtime_files.resolve_precision(record, "auto"),
        score_histogram=_score_histogram(reports.get(artifact.data["fingerprint"])),
    )


def _score_histogram(report: dict[str, Any] | None) -> tuple[tuple[int, ...], tuple[int, ...]] | None:
    if report is None or not all(report["images"].values()):
        return None
    return tuple(report["histogram"][REAL]), tuple(report["histogram"][FAKE])


def _test_metrics(report: dict[str, Any]) -> dict[str, Any]:
    metrics = report["metrics"]
    return {
        "data": report["data"]["name"],
        "generated": report["data"]["generated"],
        "images": sum(report["images"].values()),
        "auc": report["ranking"]["auc"]["value"],
        "accuracy": metrics["accuracy"]["value"],
        "fakes_passed_rate": metrics["fakes_passed_rate"]["value"],
        "reals_flagged_rate": metrics["reals_flagged_rate"]["value"],
        "flag_value": [
            {"share_of_fakes": entry["share_of_fakes"], **{n: entry["right"].get(n) for n in ("value", "low", "high")}}
            for entry in flag_value.of_report(report)
        ],
    }


class Predictor:
    """A loaded model; several threads may use it.

    Args:
        model_folder: a local folder, see :mod:`detector_core.networks.artifacts`.
        batch_size: largest number of images in one forward pass.
        device: a torch device; on ``cpu``, OpenVINO computes what promotion exported.
        threads: number of compute threads on a CPU; 0 is the default of OpenVINO or torch.
        precision: ``auto`` for the precision of ``runtime.json`` (fp32 without that file), or one that was exported.
        passes: how many batches OpenVINO may compute at a time, from several threads; torch computes one at a time.

    Attributes:
        passes: how many batches are really computed at a time.

    Raises:
        BrokenArtifact: the folder is incomplete or damaged.
        BadConfig: the precision was not exported.
    """

    def __init__(
        self,
        model_folder: str | Path,
        *,
        batch_size: int = 32,
        device: str = "cpu",
        threads: int = 0,
        precision: str = "auto",
        passes: int = 1,
    ) -> None:
        self.batch_size, self.device, self.threads = batch_size, device, threads
        self._folder, self._lock = Path(model_folder), threading.Lock()
        self._network: torch.nn.Module | None = None
        self.info, self._engine = self._load(precision, passes)
        self.passes = self._engine.passes
        for batch_size in self._engine.batch_sizes:  # warm up, so that no request waits for a slow first forward pass
            self.predict([blank_image(self.info)] * batch_size)

    def _load(self, precision: str, passes: int) -> tuple[ModelInfo, OpenVinoEngine | TorchEngine]:
        info = describe(self._folder)
        record = runtime_files.read(self._folder, info.sha256)
        info = replace(info, precision=runtime_files.resolve_precision(record, precision))
        if self.device == "cpu" and record:
            file = runtime_files.verified_file(self._folder, record, info.precision)
            compute_dtype = record.compute_dtypes.get(info.precision, FLOAT32)
            return info, OpenVinoEngine(file, info.precision, self.threads, compute_dtype, passes)
        if info.precision == "int8":  # torch cannot run int8: use bf16 if it passed, else fp32
            passed = {result["precision"] for result in record.results if result["passed"]} if record else set()
            info = replace(info, precision="bf16" if "bf16" in passed else "fp32")
        network = self._load_network()
        return info, TorchEngine(
            network, info.preprocess, info.precision, device=self.device, batch_size=self.batch_size
        )

    def predict(self, images: Sequence[Pixels]) -> list[Prediction]:
        """Predicts each image_HWC (uint8 RGB, any size; squares of the model's size are used unchanged), in order.

        Raises:
            BrokenArtifact: the network returns a score that is not finite.
        """
        predictions: list[Prediction] = []
        for start in range(0, len(images), self.batch_size):
            predictions += self._predict_batch(images[start : start + self.batch_size])
        return predictions

    def explain(self, image: Pixels, toward: str) -> NDArray[np.float32]:
        """Computes a heat map of the evidence for a label in the center square of image_HWC.

        The network is loaded in torch at the first call. Calls from several threads compute one after the other.

        Returns:
            heat_SS of the model's size, from 0 to 1.

        Raises:
            BadConfig: the network has no feature map to explain.
            BrokenArtifact: the weights are missing or were changed.
        """
        from detector_core.evaluation.explain import heat_maps
        from detector_core.images.preprocess import to_input

        with self._lock:
            self._network = self._network or self._load_network()
            x_BCHW = to_input(image, self.info.preprocess)[None].to(next(self._network.parameters()).device)
            (heat_SS,) = heat_maps(self._network, x_BCHW, [toward])
        return heat_SS

    def _load_network(self) -> "torch.nn.Module":
        import torch

        if self.threads:
            torch.set_num_threads(self.threads)
        network, _ = artifacts.load(self._folder)
        self._network = network.requires_grad_(False)
        return self._network

    def _predict_batch(self, images: Sequence[Pixels]) -> list[Prediction]:
        info = self.info
        logit_B = self._engine(np.stack([square(image, info.preprocess) for image in images]))
        if not np.isfinite(logit_B).all():
            raise BrokenArtifact(
                f"the network of {info.version} returns scores that are not finite: promote another model"
            )
        p_fake_B = info.calibration.p_fake(logit_B)
        return [
            Prediction(p_fake=p_fake, logit=logit, verdict=verdict(p_fake, info.calibration), model=info)
            for p_fake, logit in zip(p_fake_B.tolist(), logit_B.tolist(), strict=True)
        ]


def blank_image(info: ModelInfo) -> Pixels:
    """A gray image of the model's size, for warming up: image_SSC."""
    side = info.preprocess.image_size
    return np.full((side, side, 3), 128, dtype=np.uint8)
