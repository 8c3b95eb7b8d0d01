"""``runtime.json`` of a promoted version: which precision is served, why, and checksums of what was exported.

::

    VERSION/
      runtime.json               this record; it belongs to one set of weights
      openvino/fp32.xml, .bin    for fp32 and bf16
      openvino/int8.xml, .bin    where int8 passed the gate or was forced

Reading it needs neither OpenVINO nor torch. A model folder without it is served by torch in fp32.
"""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from detector_core.errors import BadConfig, BrokenArtifact
from detector_core.networks.artifacts import sha256_of
from detector_core.registry.engines import FILE_NAMES, PRECISIONS

FORMAT = 1
RUNTIME_FILE, RUNTIME_FOLDER = "runtime.json", "openvino"
AGAIN = "promote the model again"


@dataclass(frozen=True, kw_only=True)
class RuntimeRecord:
    """What ``runtime.json`` holds.

    Attributes:
        precision: what ``auto`` serves; ``requested_precision``: what promotion was asked for.
        weights_sha256: of the network that was exported.
        compared_on: data set, split and images of the parity gate; empty where it was not run.
        table: one row a precision, see :class:`detector_core.registry.parity_gate.Row`.
        files: sha256 of each exported file by its path in the folder.
        measured: machine, threads and batch of the images/s, and whether its CPU has bf16.
        arithmetic: bf16 or f32 by precision: what was compared, and what is served on any other machine.
        versions: of the libraries that exported.
    """

    precision: str
    requested_precision: str
    weights_sha256: str
    files: dict[str, str]
    table: list[dict[str, Any]] = field(default_factory=list)
    compared_on: dict[str, Any] = field(default_factory=dict)
    measured: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    arithmetic: dict[str, str] = field(default_factory=dict)
    format: int = FORMAT


def write(folder: Path, record: RuntimeRecord) -> None:
    """Writes ``runtime.json``."""
    (folder / RUNTIME_FILE).write_text(json.dumps(asdict(record), indent=2, allow_nan=False))


def checksums(folder: Path) -> dict[str, str]:
    """The sha256 of each exported file."""
    return {f"{RUNTIME_FOLDER}/{path.name}": sha256_of(path) for path in sorted((folder / RUNTIME_FOLDER).iterdir())}


def read(folder: str | Path, weights_sha256: str) -> RuntimeRecord | None:
    """The record; None for a plain model folder.

    Raises:
        BrokenArtifact: it is damaged, of another format, or about other weights.
    """
    where = Path(folder) / RUNTIME_FILE
    try:
        values = json.loads(where.read_bytes())
        found = RuntimeRecord(**values)
        works = found.format == FORMAT and found.precision in PRECISIONS
    except FileNotFoundError:
        return None
    except (ValueError, TypeError) as error:
        raise BrokenArtifact(f"{where} is damaged ({error}): {AGAIN}") from None
    if not works:
        raise BrokenArtifact(f"{where} has format {found.format!r} and precision {found.precision!r}: {AGAIN}")
    if found.weights_sha256 != weights_sha256:
        raise BrokenArtifact(f"{where} is about other weights: {AGAIN}")
    return found


def resolve_precision(record: RuntimeRecord | None, precision: str) -> str:
    """The precision that ``auto`` or a name stands for.

    Raises:
        BadConfig: one that was not exported.
    """
    if precision == "auto":
        return record.precision if record else "fp32"
    there = [name for name in PRECISIONS if record and f"{RUNTIME_FOLDER}/{FILE_NAMES[name]}" in record.files] or [
        "fp32"
    ]
    if precision not in there:
        raise BadConfig(f"precision is {precision!r}, this model has {', '.join(there)}: jobs.promote makes others")
    return precision


def verified_file(folder: str | Path, record: RuntimeRecord, precision: str) -> Path:
    """The .xml to serve, once it and its .bin match their checksums.

    Raises:
        BrokenArtifact: a file is missing or was changed.
    """
    xml = Path(folder) / RUNTIME_FOLDER / FILE_NAMES[precision]
    for path in (xml, xml.with_suffix(".bin")):
        name = f"{RUNTIME_FOLDER}/{path.name}"
        if not path.is_file():
            raise BrokenArtifact(f"{path} is missing: {AGAIN}")
        found = sha256_of(path)
        if found != record.files.get(name):
            said = str(record.files.get(name))
            raise BrokenArtifact(
                f"{path} was changed: sha256 {found[:12]}..., {RUNTIME_FILE} says {said[:12]}...: {AGAIN}"
            )
    return xml


def verify_files(folder: str | Path, weights_sha256: str) -> None:
    """Raises BrokenArtifact unless every exported file is there and unchanged."""
    record = read(folder, weights_sha256)
    if record:
        for precision in PRECISIONS:
            if f"{RUNTIME_FOLDER}/{FILE_NAMES[precision]}" in record.files:
                verified_file(folder, record, precision)
