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
from detector_core.registry.engines import FILE_OF, PRECISIONS

FORMAT = 1
RECORD, FOLDER = "runtime.json", "openvino"
AGAIN = "promote the model again"


@dataclass(frozen=True, kw_only=True)
class Exported:
    """What ``runtime.json`` holds.

    Attributes:
        precision: what ``auto`` serves; ``asked``: what promotion was asked for.
        weights_sha256: of the network that was exported.
        checked_on: data set, split and images of the parity gate; empty where it was not run.
        table: one row a precision, see :class:`detector_core.registry.parity_gate.Row`.
        files: sha256 of each exported file by its path in the folder.
        measured: machine, threads and batch of the images/s, and whether its CPU has bf16.
        multiply_in: bf16 or f32 by precision: what was compared, and what is served on any other machine.
        versions: of the libraries that exported.
    """

    precision: str
    asked: str
    weights_sha256: str
    files: dict[str, str]
    table: list[dict[str, Any]] = field(default_factory=list)
    checked_on: dict[str, Any] = field(default_factory=dict)
    measured: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    multiply_in: dict[str, str] = field(default_factory=dict)
    format: int = FORMAT


def write(folder: Path, record: Exported) -> None:
    """Writes ``runtime.json``."""
    (folder / RECORD).write_text(json.dumps(asdict(record), indent=2, allow_nan=False))


def checksums(folder: Path) -> dict[str, str]:
    """The sha256 of each exported file."""
    return {f"{FOLDER}/{path.name}": sha256_of(path) for path in sorted((folder / FOLDER).iterdir())}


def read(folder: str | Path, weights_sha256: str) -> Exported | None:
    """The record; None for a plain model folder.

    Raises:
        BrokenArtifact: it is damaged, of another format, or about other weights.
    """
    where = Path(folder) / RECORD
    try:
        values = json.loads(where.read_bytes())
        found = Exported(**values)
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


def resolve(record: Exported | None, precision: str) -> str:
    """The precision that ``auto`` or a name stands for.

    Raises:
        BadConfig: one that was not exported.
    """
    if precision == "auto":
        return record.precision if record else "fp32"
    there = [name for name in PRECISIONS if record and f"{FOLDER}/{FILE_OF[name]}" in record.files] or ["fp32"]
    if precision not in there:
        raise BadConfig(f"precision is {precision!r}, this model has {', '.join(there)}: jobs.promote makes others")
    return precision


def checked(folder: str | Path, record: Exported, precision: str) -> Path:
    """The .xml to serve, once it and its .bin match their checksums.

    Raises:
        BrokenArtifact: a file is missing or was changed.
    """
    xml = Path(folder) / FOLDER / FILE_OF[precision]
    for path in (xml, xml.with_suffix(".bin")):
        name = f"{FOLDER}/{path.name}"
        if not path.is_file():
            raise BrokenArtifact(f"{path} is missing: {AGAIN}")
        found = sha256_of(path)
        if found != record.files.get(name):
            said = str(record.files.get(name))
            raise BrokenArtifact(f"{path} was changed: sha256 {found[:12]}..., {RECORD} says {said[:12]}...: {AGAIN}")
    return xml


def check(folder: str | Path, weights_sha256: str) -> None:
    """Raises BrokenArtifact unless every exported file is there and unchanged."""
    record = read(folder, weights_sha256)
    if record:
        for precision in PRECISIONS:
            if f"{FOLDER}/{FILE_OF[precision]}" in record.files:
                checked(folder, record, precision)
