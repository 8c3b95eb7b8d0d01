"""What promotion adds to the copy of a model: the exported network, the record of the parity gate, the model card.

Not in this module: the versions and which of them is live (:mod:`detector_core.registry.versions`).
"""

import os
import platform
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch

from detector_core.data.manifest import Manifest
from detector_core.errors import BadConfig, BadData, BrokenArtifact, OperationRefused
from detector_core.evaluation import calibration
from detector_core.images.decode import Pixels
from detector_core.networks import artifacts
from detector_core.networks.artifacts import Artifact
from detector_core.networks.openvino_graphs import cpu_has_bf16
from detector_core.registry import model_card, openvino_export, parity_gate, runtime_files
from detector_core.registry.engines import (
    FILE_NAMES,
    PRECISIONS,
    Engine,
    OpenVinoEngine,
    TorchEngine,
    compute_dtype_of,
)
from detector_core.registry.parity_gate import BASELINE, PrecisionResult
from detector_core.registry.runtime_files import RuntimeRecord

GATE_SPLIT, QUANTIZATION_SPLIT = "valid", "train"
NOISE_IMAGES, MAX_NOISE_ERROR = 4, 1e-3
Say = Callable[[str], object]
ProgressBar = Callable[[str, int], Callable[[int], object]]
"""Given a title and the number of images, returns a function to call with the number of images just done."""


def check_requested_precision(requested_precision: str, data: Manifest | None) -> None:
    """Raises BadConfig if the requested precision needs a data set and there is none."""
    if data is None and requested_precision in ("int8", "bf16"):
        raise BadConfig(
            f"--precision {requested_precision} is compared on validation images: name their data set with "
            "--data DATASET"
        )


def add_runtime(
    folder: Path,
    *,
    requested_precision: str = "auto",
    data: Manifest | None = None,
    force: bool = False,
    say: Say = print,
    progress: ProgressBar | None = None,
) -> RuntimeRecord:
    """Exports the network, compares its precisions and chooses one.

    Writes ``openvino/``, ``runtime.json`` and the model card into a local model folder.

    Args:
        requested_precision: ``auto`` for the fastest that passes the parity gate, or a precision that must pass it.
        data: validation images for the gate and training images for int8; without it, bf16 is served if the record
            that the model folder carries says that it passed and this CPU has it, otherwise fp32.
        force: serve the requested precision even if it does not pass.
        say: prints a message.
        progress: shows a progress bar.

    Raises:
        BadConfig: the requested precision needs a data set.
        OperationRefused: the requested precision does not pass; the message has the numbers.
        BrokenArtifact: the exported network does not compute the same scores.
    """
    check_requested_precision(requested_precision, data)
    network, artifact = artifacts.load(folder)
    baseline = TorchEngine(network, artifact.spec.preprocess)
    fp32 = openvino_export.export(network, artifact.spec.preprocess, folder)
    compared_on: dict[str, Any] = {}
    if data is None:
        _check_export(baseline, OpenVinoEngine(fp32, "fp32"), artifact)
        results, compared_on, precision = _without_data(folder, artifact, say)
    else:
        precisions = [name for name in PRECISIONS if requested_precision in ("auto", name) or name == "fp32"]
        engines, failed = _build_engines(precisions, fp32, data, artifact, say)
        results, compared_on = _compare(folder, {BASELINE: baseline, **engines}, data, artifact, say, progress)
        results = sorted([*results, *failed], key=lambda result: [*PRECISIONS, BASELINE].index(result.precision))
        precision = _choose(results, requested_precision, force, say)
    say(parity_gate.format_table(results, precision))
    if precision != "int8" and not any(result.precision == "int8" and result.passed for result in results):
        _delete_export(fp32.with_name("int8.xml"))
    record = RuntimeRecord(
        precision=precision,
        requested_precision=requested_precision,
        weights_sha256=artifact.weights_sha256,
        files=runtime_files.checksums(folder),
        results=[vars(result) for result in results],
        compared_on=compared_on,
        **_origin(),
    )
    runtime_files.write(folder, record)
    (folder / model_card.CARD_FILE).write_text(model_card.render_card(folder))
    return record


def _without_data(folder: Path, artifact: Artifact, say: Say) -> tuple[list[PrecisionResult], dict[str, Any], str]:
    """The results that the model folder carries, what they were compared on, and the precision to serve."""
    carried = runtime_files.read(folder, artifact.weights_sha256, runtime_files.CARRIED_FILE)
    if carried is None:
        say("no data set to compare faster precisions on: fp32 is served (--data DATASET names one)")
        return [PrecisionResult(precision="fp32", reason="not compared: no data set was named")], {}, "fp32"
    results = [PrecisionResult(**values) for values in carried.results if values["precision"] != "int8"]
    bf16_passed = any(result.precision == "bf16" and result.passed for result in results)
    return results, carried.compared_on, "bf16" if bf16_passed and cpu_has_bf16() else "fp32"


def _origin() -> dict[str, Any]:
    """Where a record was made: machine, compute dtype of each precision, and versions."""
    return {
        "measured_on": _environment(),
        "compute_dtypes": {name: compute_dtype_of(name) for name in PRECISIONS},
        "versions": {name: version(name) for name in ("openvino", "nncf", "torch")},
    }


def _compare(
    folder: Path,
    engines: dict[str, Engine],
    data: Manifest,
    artifact: Artifact,
    say: Say,
    progress: ProgressBar | None,
) -> tuple[list[PrecisionResult], dict[str, Any]]:
    """The results of the parity gate, and a description of the images for the record."""
    if data.fingerprint != artifact.data["fingerprint"]:
        say(f"{data.name} is not the data set that the model was trained on: precisions are compared on it anyway")
    rows = data.split(GATE_SPLIT)
    warning = parity_gate.small_split_warning(len(rows))
    if warning:
        say(warning)
    step = progress("comparing precisions", len(rows)) if progress else None
    model_calibration = calibration.load(str(folder), artifact.weights_sha256)
    results = parity_gate.compare_precisions(
        engines, rows, data.root, artifact.spec.preprocess, model_calibration, step
    )
    counts = rows["label"].value_counts().to_dict()
    return results, {"name": data.name, "fingerprint": data.fingerprint, "split": GATE_SPLIT, "images": counts}


def _choose(results: list[PrecisionResult], requested_precision: str, force: bool, say: Say) -> str:
    try:
        return parity_gate.choose_precision(results, requested_precision, force=force)
    except OperationRefused:
        say(parity_gate.format_table(results, ""))
        raise


def _build_engines(
    precisions: list[str], fp32: Path, data: Manifest, artifact: Artifact, say: Say
) -> tuple[dict[str, Engine], list[PrecisionResult]]:
    """An engine for each precision, and results for the precisions that are not available here."""
    engines: dict[str, Engine] = {}
    failed = []
    threads = torch.get_num_threads()
    for precision in precisions:
        try:
            if precision == "bf16" and not cpu_has_bf16():
                raise BadData("this CPU has no bf16 instructions")
            if precision == "int8":
                say(f"quantizing to int8 with training images of {data.name} ...")
                rows = data.split(QUANTIZATION_SPLIT)
                images = openvino_export.quantization_images(rows, data.root, artifact.spec.preprocess)
                openvino_export.quantize(fp32, images)
            engines[precision] = OpenVinoEngine(fp32.with_name(FILE_NAMES[precision]), precision, threads)
        except BadData as error:
            failed.append(PrecisionResult(precision=precision, passed=False, reason=str(error)))
    return engines, failed


def _check_export(baseline: Engine, exported: Engine, artifact: Artifact) -> None:
    """Raises BrokenArtifact unless the exported network computes the scores of the network, on images of noise."""
    size = artifact.spec.preprocess.image_size
    rng = np.random.default_rng(0)
    noise: Pixels = rng.integers(0, 256, (NOISE_IMAGES, size, size, 3), dtype=np.uint8)
    expected, actual = baseline(noise), exported(noise)
    error = float(np.abs(expected - actual).max() / max(1.0, float(np.abs(expected).max())))
    if not error <= MAX_NOISE_ERROR:
        raise BrokenArtifact(
            f"the exported network of {artifact.run} differs by {error:.2g} on images of noise, the limit is "
            f"{MAX_NOISE_ERROR}: this OpenVINO cannot export {artifact.spec.model.architecture}"
        )


def _delete_export(file: Path) -> None:
    for path in (file, file.with_suffix(".bin")):
        path.unlink(missing_ok=True)


def _environment() -> dict[str, Any]:
    """Where images per second were measured."""
    return {
        "machine": machine(),
        "bf16": cpu_has_bf16(),
        "threads": torch.get_num_threads(),
        "batch_size": parity_gate.BATCH,
    }


def machine() -> str:
    """The processor's model and the number of cores."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    fallback = platform.processor() or platform.machine()  # /proc/cpuinfo has no model name on ARM
    model = next((line.split(": ")[1] for line in lines if line.startswith("model name")), fallback)
    return f"{model}, {os.cpu_count()} cores"
