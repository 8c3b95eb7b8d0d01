"""A model folder: everything needed to use a trained network, in formats that run no code when read.

::

    MODEL/
      model.safetensors    the weights
      artifact.json        what they are: spec (with its preprocessing), labels, data, training, sha256; written last
      calibration.json     temperature and thresholds, once ``jobs.evaluate`` has chosen them on the validation split
      evaluation/SPLIT/    scores.parquet, report.json

A folder without ``artifact.json`` is not a model; weights that do not match its checksum are refused.
"""

import datetime
import hashlib
import importlib.metadata
import json
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from detector_core import storage
from detector_core.config import RunSpec
from detector_core.errors import BadConfig, BrokenArtifact, first_line
from detector_core.labels import LABELS, TARGET

if TYPE_CHECKING:
    import torch

FORMAT = 1
WEIGHTS, ARTIFACT, CALIBRATION, EVALUATION = "model.safetensors", "artifact.json", "calibration.json", "evaluation"
MODEL_IN_RUN = "model"
_VERSIONED = ("torch", "timm", "facenet-pytorch", "albumentations", "pillow", "numpy")


@dataclass(frozen=True, kw_only=True)
class Artifact:
    """What ``artifact.json`` says.

    Attributes:
        run: name of the run that trained it.
        spec: the RunSpec, with the preprocessing record.
        data: :meth:`detector_core.data.manifest.Manifest.describe` of the training data.
        training: epochs and steps done, the best epoch and its metrics.
        weights_sha256: of ``model.safetensors``.
        labels: training target of each label.
        created: UTC, ISO 8601.
        versions: of the libraries that shaped the weights.
    """

    run: str
    spec: RunSpec
    data: dict[str, Any]
    training: dict[str, Any]
    weights_sha256: str = ""
    labels: dict[str, float] = field(default_factory=lambda: {label: TARGET[label] for label in LABELS})
    created: str = ""
    versions: dict[str, str] = field(default_factory=dict)
    format: int = FORMAT


def save(where: str | Path, weights: "Mapping[str, torch.Tensor]", artifact: Artifact) -> Artifact:
    """Writes a model folder whole or not at all, and returns the artifact with its checksum, date and versions."""
    import safetensors.torch

    with tempfile.TemporaryDirectory(prefix="detector-") as scratch:
        folder = Path(scratch)
        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in weights.items()}
        safetensors.torch.save_file(tensors, folder / WEIGHTS)
        values = {
            **asdict(artifact),
            "spec": artifact.spec.to_dict(),
            "weights_sha256": sha256_of(folder / WEIGHTS),
            "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            "versions": {name: importlib.metadata.version(name) for name in _VERSIONED},
        }
        (folder / ARTIFACT).write_text(json.dumps(values, indent=2))
        storage.put_folder(folder, where, last=ARTIFACT)
    return _parse(values, str(where))


def find(run_or_model: str | Path) -> str:
    """The model folder of a run folder, or the model folder itself.

    Raises:
        BrokenArtifact: neither holds an ``artifact.json``.
    """
    given = storage.absolute(run_or_model)
    for folder in (given, storage.join(given, MODEL_IN_RUN)):
        if storage.exists(storage.join(folder, ARTIFACT)):
            return folder
    raise BrokenArtifact(f"{run_or_model} holds no {ARTIFACT}: it is not a model folder, or its run has not finished")


def read(model_folder: str | Path) -> Artifact:
    """``artifact.json`` alone, without touching the weights. Raises BrokenArtifact."""
    where = storage.join(model_folder, ARTIFACT)
    try:
        values = json.loads(storage.read_bytes(where))
    except FileNotFoundError:
        raise BrokenArtifact(f"{where} is missing: the folder is not a complete model") from None
    except ValueError as error:
        raise BrokenArtifact(f"{where} is not JSON ({error})") from None
    return _parse(values, where)


def load(run_or_model: str | Path) -> "tuple[torch.nn.Module, Artifact]":
    """The network in eval mode on the CPU, and what it is.

    Raises:
        BrokenArtifact: a file is missing, changed, or does not fit the network.
    """
    # Here and not above: what only reads artifact.json does without PyTorch, its 2 s and its memory.
    import safetensors.torch

    from detector_core.networks.factory import build

    folder = find(run_or_model)
    artifact = read(folder)
    with storage.local_copy(folder) as local:
        weights = local / WEIGHTS
        if not weights.exists():
            raise BrokenArtifact(f"{storage.join(folder, WEIGHTS)} is missing")
        found = sha256_of(weights)
        if found != artifact.weights_sha256:
            raise BrokenArtifact(
                f"{storage.join(folder, WEIGHTS)} was changed: sha256 {found[:12]}..., "
                f"{ARTIFACT} says {artifact.weights_sha256[:12]}..."
            )
        model = build(artifact.spec.model, pretrained=False)
        try:
            model.load_state_dict(safetensors.torch.load_file(weights))
        except (RuntimeError, safetensors.SafetensorError) as error:
            where = storage.join(folder, WEIGHTS)
            raise BrokenArtifact(f"{where} does not fit the network: {first_line(error)}") from None
    return model.eval(), artifact


def sha256_of(path: Path) -> str:
    """The sha256 of a local file, read in pieces."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _parse(values: Any, where: str) -> Artifact:
    if not isinstance(values, dict) or values.get("format") != FORMAT:
        found = values.get("format") if isinstance(values, dict) else values
        raise BrokenArtifact(f"{where} has format {found!r}: this version reads {FORMAT}")
    try:
        return Artifact(**{**values, "spec": RunSpec.from_dict(values["spec"])})
    except KeyError as error:
        raise BrokenArtifact(f"{where} is not complete: it has no {error}") from None
    except (TypeError, BadConfig) as error:
        raise BrokenArtifact(f"{where} is not complete: {error}") from None
