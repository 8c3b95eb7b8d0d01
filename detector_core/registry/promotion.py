"""What promotion adds to the copy of a model: exported files, the parity gate's record, the model card.

Left out: the versions and which one is live (:mod:`detector_core.registry.versions`).
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
from detector_core.registry import model_card, openvino_export, parity_gate, runtime_files
from detector_core.registry.engines import (
    FILE_NAMES,
    PRECISIONS,
    Engine,
    OpenVinoEngine,
    TorchEngine,
    arithmetic_of,
    cpu_has_bf16,
)
from detector_core.registry.parity_gate import BASELINE, PrecisionResult
from detector_core.registry.runtime_files import RuntimeRecord

GATE_SPLIT, CALIBRATION_SPLIT = "valid", "train"
NOISE_IMAGES, NOISE_DISTANCE = 4, 1e-3
Say = Callable[[str], object]


def check_requested_precision(requested_precision: str, data: Manifest | None) -> None:
    """Raises BadConfig when a precision is requested cannot be checked."""
    if data is None and requested_precision in ("int8", "bf16"):
        raise BadConfig(
            f"--precision {requested_precision} is checked on validation images: name the data set with --data DATASET"
        )


def add_runtime(
    folder: Path,
    *,
    requested_precision: str = "auto",
    data: Manifest | None = None,
    force: bool = False,
    say: Say = print,
    progress: Callable[[str, int], Callable[[int], object]] | None = None,
) -> RuntimeRecord:
    """Exports, compares and chooses; writes ``openvino/``, ``runtime.json`` and the card into a local model folder.

    Args:
        requested_precision: ``auto``, or a precision that is refused when it does not pass.
        data: validation images for the gate, training images for int8; without it fp32 is served.
        force: also a precision that does not pass.
        progress: given a title and how many images, returns what to call with each number done.

    Raises:
        BadConfig: a precision that needs data, without data.
        OperationRefused: the precision that was requested_precision for does not pass; names the figures.
        BrokenArtifact: the exported network is not the same network.
    """
    check_requested_precision(requested_precision, data)
    network, artifact = artifacts.load(folder)
    base = TorchEngine(network, artifact.spec.preprocess)
    fp32 = openvino_export.export(network, artifact.spec.preprocess, folder)
    compared_on: dict[str, Any] = {}
    if data is None:
        say("no data set was found to check faster precisions on: fp32 is served (--data DATASET names one)")
        _compare_on_noise(base, OpenVinoEngine(fp32, "fp32"), artifact)
        table = [PrecisionResult(precision="fp32", reason="not compared: no data set was named")]
    else:
        if data.fingerprint != artifact.data["fingerprint"]:
            say(f"{data.name} is not the data set that the model was trained on: the gate is run on it all the same")
        rows = data.split(GATE_SPLIT)
        counts = rows["label"].value_counts().to_dict()
        compared_on = {"name": data.name, "fingerprint": data.fingerprint, "split": GATE_SPLIT, "images": counts}
        if parity_gate.small_split_warning(len(rows)):
            say(parity_gate.small_split_warning(len(rows)))
        wanted = (
            PRECISIONS
            if requested_precision == "auto"
            else tuple(name for name in PRECISIONS if name in (requested_precision, "fp32"))
        )
        engines, missing = _engines(wanted, fp32, data, artifact, say)
        step = progress("comparing precisions", len(rows)) if progress else None
        frozen = calibration.load(str(folder), artifact.weights_sha256)
        compared = parity_gate.compare_precisions(
            {BASELINE: base, **engines}, rows, data.root, artifact.spec.preprocess, frozen, step
        )
        table = sorted([*compared, *missing], key=lambda row: [*PRECISIONS, BASELINE].index(row.precision))
    try:
        chosen = parity_gate.choose_precision(table, requested_precision, force=force) if data else "fp32"
    except OperationRefused:
        say(parity_gate.format_table(table, ""))
        raise
    say(parity_gate.format_table(table, chosen))
    if chosen != "int8":
        _drop(fp32.with_name("int8.xml"), unless=any(row.precision == "int8" and row.passed for row in table))
    record = RuntimeRecord(
        precision=chosen,
        requested_precision=requested_precision,
        weights_sha256=artifact.weights_sha256,
        files=runtime_files.checksums(folder),
        table=[vars(row) for row in table],
        compared_on=compared_on,
        measured={
            "machine": machine(),
            "bf16": cpu_has_bf16(),
            "threads": torch.get_num_threads(),
            "batch": parity_gate.BATCH,
        },
        arithmetic={name: arithmetic_of(name) for name in PRECISIONS},
        versions={name: version(name) for name in ("openvino", "nncf", "torch")},
    )
    runtime_files.write(folder, record)
    (folder / model_card.CARD_FILE).write_text(model_card.render_card(folder))
    return record


def _engines(
    wanted: tuple[str, ...], fp32: Path, data: Manifest, artifact: Artifact, say: Say
) -> tuple[dict[str, Engine], list[PrecisionResult]]:
    """An engine for each precision, and rows for those that cannot be had here."""
    engines: dict[str, Engine] = {}
    missing = []
    threads = torch.get_num_threads()
    for name in wanted:
        try:
            if name == "bf16" and not cpu_has_bf16():
                raise BadData("this CPU does not multiply bf16")
            if name == "int8":
                say(f"calibrating int8 on training images of {data.name} ...")
                rows = data.split(CALIBRATION_SPLIT)
                openvino_export.quantize(
                    fp32, openvino_export.calibration_images(rows, data.root, artifact.spec.preprocess)
                )
            engines[name] = OpenVinoEngine(fp32.with_name(FILE_NAMES[name]), name, threads)
        except BadData as error:
            missing.append(PrecisionResult(precision=name, passed=False, reason=str(error)))
    return engines, missing


def _compare_on_noise(base: Engine, other: Engine, artifact: Artifact) -> None:
    """Raises BrokenArtifact unless the exported network gives the scores of the network, on images of noise."""
    size = artifact.spec.preprocess.image_size
    draw = np.random.default_rng(0)
    noise: Pixels = draw.integers(0, 256, (NOISE_IMAGES, size, size, 3), dtype=np.uint8)
    expected, found = base(noise), other(noise)
    distance = float(np.abs(expected - found).max() / max(1.0, float(np.abs(expected).max())))
    if not distance <= NOISE_DISTANCE:
        raise BrokenArtifact(
            f"the exported network of {artifact.run} differs by {distance:.2g} on noise, {NOISE_DISTANCE} is allowed: "
            f"this OpenVINO cannot export {artifact.spec.model.architecture}"
        )


def _drop(file: Path, *, unless: bool) -> None:
    if not unless:
        for path in (file, file.with_suffix(".bin")):
            path.unlink(missing_ok=True)


def machine() -> str:
    """Processor and cores."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    other = platform.processor() or platform.machine()  # an ARM processor has no name there
    model = next((line.split(": ")[1] for line in lines if line.startswith("model name")), other)
    return f"{model}, {os.cpu_count()} cores"
