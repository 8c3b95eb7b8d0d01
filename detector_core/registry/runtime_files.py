"""``runtime.json`` of a promoted version: which precision is served and why, and checksums of the exported files.

::

    VERSION/
      runtime.json               this record; it belongs to one set of weights
      openvino/fp32.xml, .bin    for fp32 and bf16
      openvino/int8.xml, .bin    if int8 passed the parity gate or was forced

A model folder may also carry ``parity_gate.json``, the record of an earlier promotion on its own data set: it decides
about bf16, which needs no file of its own, if the model is promoted without that data set (the starter model).

Reading it needs neither OpenVINO nor torch. A model folder without it is served with torch in fp32.
"""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from detector_core import storage
from detector_core.errors import BadConfig, BrokenArtifact
from detector_core.networks.artifacts import sha256_of
from detector_core.registry.engines import FILE_NAMES, PRECISIONS

FORMAT = 2
RUNTIME_FILE, RUNTIME_FOLDER = "runtime.json", "openvino"
CARRIED_FILE = "parity_gate.json"
REMEDY = "promote the model again"


@dataclass(frozen=True, kw_only=True)
class RuntimeRecord:
    """The content of ``runtime.json``.

    Attributes:
        precision: what ``auto`` serves.
        requested_precision: the ``--precision`` of the promotion.
        weights_sha256: checksum of the weights that were exported.
        files: sha256 of each exported file by its path in the folder.
        results: one :class:`detector_core.registry.parity_gate.PrecisionResult` per precision, as dicts.
        compared_on: data set, split and images of the parity gate; empty if it did not run.
        measured_on: machine, threads and batch size of the images/s, and whether the CPU has bf16.
        compute_dtypes: bf16 or f32 by precision, as it was compared; a machine without that dtype uses f32.
        versions: versions of the libraries that exported.
    """

    precision: str
    requested_precision: str
    weights_sha256: str
    files: dict[str, str]
    results: list[dict[str, Any]] = field(default_factory=list)
    compared_on: dict[str, Any] = field(default_factory=dict)
    measured_on: dict[str, Any] = field(default_factory=dict)
    compute_dtypes: dict[str, str] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    format: int = FORMAT


def write(folder: Path, record: RuntimeRecord, name: str = RUNTIME_FILE) -> None:
    """Writes ``runtime.json``, or :data:`CARRIED_FILE`."""
    (folder / name).write_text(json.dumps(asdict(record), indent=2, allow_nan=False))


def checksums(folder: Path) -> dict[str, str]:
    """The sha256 of each exported file by its path in the folder."""
    return {f"{RUNTIME_FOLDER}/{path.name}": sha256_of(path) for path in sorted((folder / RUNTIME_FOLDER).iterdir())}


def read(folder: str | Path, weights_sha256: str, name: str = RUNTIME_FILE) -> RuntimeRecord | None:
    """Reads ``runtime.json``, or :data:`CARRIED_FILE`; None for a model folder without it.

    Raises:
        BrokenArtifact: the record is damaged, has another format, or belongs to other weights.
    """
    path = Path(folder) / name
    try:
        values = storage.read_json(path)
        if values["format"] != FORMAT:
            raise BrokenArtifact(f"{path} has format {values['format']!r}, {FORMAT} was expected: {REMEDY}")
        record = RuntimeRecord(**values)
    except FileNotFoundError:
        return None
    except (ValueError, TypeError, KeyError) as error:
        raise BrokenArtifact(f"{path} is damaged ({error!r}): {REMEDY}") from None
    if record.precision not in PRECISIONS:
        raise BrokenArtifact(f"{path} has precision {record.precision!r}, not {', '.join(PRECISIONS)}: {REMEDY}")
    if record.weights_sha256 != weights_sha256:
        raise BrokenArtifact(f"{path} belongs to other weights: {REMEDY}")
    return record


def resolve_precision(record: RuntimeRecord | None, precision: str) -> str:
    """The precision to serve: the record's for ``auto``, otherwise ``precision`` itself.

    Raises:
        BadConfig: the precision was not exported.
    """
    if precision == "auto":
        return record.precision if record else "fp32"
    exported = _exported_precisions(record) if record else ["fp32"]
    if precision not in exported:
        raise BadConfig(
            f"precision is {precision!r}, but this model has {', '.join(exported)}: export others with jobs.promote"
        )
    return precision


def verified_file(folder: str | Path, record: RuntimeRecord, precision: str) -> Path:
    """The .xml file of a precision, after verifying the checksums of it and its .bin file.

    Raises:
        BrokenArtifact: a file is missing or was changed.
    """
    xml = Path(folder) / RUNTIME_FOLDER / FILE_NAMES[precision]
    for path in (xml, xml.with_suffix(".bin")):
        if not path.is_file():
            raise BrokenArtifact(f"{path} is missing: {REMEDY}")
        actual, expected = sha256_of(path), str(record.files.get(f"{RUNTIME_FOLDER}/{path.name}"))
        if actual != expected:
            raise BrokenArtifact(
                f"{path} was changed: its sha256 is {actual[:12]}..., {RUNTIME_FILE} has {expected[:12]}...: {REMEDY}"
            )
    return xml


def verify_files(folder: str | Path, weights_sha256: str) -> None:
    """Raises BrokenArtifact unless every exported file exists unchanged."""
    record = read(folder, weights_sha256)
    if record:
        for precision in _exported_precisions(record):
            verified_file(folder, record, precision)


def _exported_precisions(record: RuntimeRecord) -> list[str]:
    return [name for name in PRECISIONS if f"{RUNTIME_FOLDER}/{FILE_NAMES[name]}" in record.files]
