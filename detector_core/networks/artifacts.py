"""A model folder: everything needed to use a trained network, in file formats that run no code when read.

::

    MODEL/
      model.safetensors    the weights
      artifact.json        the Artifact: spec with preprocessing, labels, data, training, sha256, ...; written last
      seen.parquet         hashes of the images that it was trained and chosen on (detector_core.data.seen)
      calibration.json     temperature and thresholds, after ``jobs.evaluate`` has chosen them on the validation split
      evaluation/SPLIT/    scores.parquet, report.json

A folder without ``artifact.json`` is not a model, and weights that do not match its checksum are refused.
"""

import datetime
import hashlib
import importlib.metadata
import json
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from detector_core import storage
from detector_core.config import ModelSpec, RunSpec
from detector_core.errors import BadConfig, BrokenArtifact, first_line
from detector_core.labels import LABELS, TARGET

if TYPE_CHECKING:
    import torch

FORMAT = 2
WEIGHTS, ARTIFACT, CALIBRATION, EVALUATION = "model.safetensors", "artifact.json", "calibration.json", "evaluation"
MODEL_IN_RUN = "model"
LINEAGE = "lineage"
"""Key of ``Artifact.training`` for a model that learnt from tags (:mod:`detector_core.training.rounds`)."""
_LIBRARIES = ("torch", "timm", "facenet-pytorch", "albumentations", "pillow", "numpy")


@dataclass(frozen=True, kw_only=True)
class Artifact:
    """The content of ``artifact.json``.

    Attributes:
        run: name of the run that trained the network.
        spec: the RunSpec, including the preprocessing.
        data: :meth:`detector_core.data.manifest.Manifest.describe` of the training data.
        training: epochs and steps done, the best epoch and its metrics, and ``environments``: device, compute dtype and
            threads (:func:`detector_core.training.loop.environment`); LINEAGE of a model that learnt from tags.
        weights_sha256: of ``model.safetensors``.
        labels: training target of each label.
        created: UTC, ISO 8601.
        versions: of the libraries that influence the weights. A caller adds those that this package does not import,
            such as Ray.
        git_commit: of the checkout this code ran from, see :func:`git_commit`.
    """

    run: str
    spec: RunSpec
    data: dict[str, Any]
    training: dict[str, Any]
    weights_sha256: str = ""
    labels: dict[str, float] = field(default_factory=lambda: {label: TARGET[label] for label in LABELS})
    created: str = ""
    versions: dict[str, str] = field(default_factory=dict)
    git_commit: str | None = None
    format: int = FORMAT


def save(
    where: str | Path,
    weights: "Mapping[str, torch.Tensor]",
    artifact: Artifact,
    files: Mapping[str, bytes] | None = None,
) -> Artifact:
    """Writes a complete model folder or, after an error, none.

    Args:
        files: what else belongs into the folder, by name.

    Returns:
        The artifact with its checksum, date, git commit and versions of libraries filled in.
    """
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
            "versions": {name: importlib.metadata.version(name) for name in _LIBRARIES} | artifact.versions,
            "git_commit": git_commit(),
        }
        for name, content in (files or {}).items():
            (folder / name).write_bytes(content)
        (folder / ARTIFACT).write_text(json.dumps(values, indent=2))
        storage.put_folder(folder, where, last=ARTIFACT)
    return _parse(values, str(where))


def find(run_or_model: str | Path) -> str:
    """Finds the model folder: ``run_or_model`` itself, or the one inside a run's folder.

    Raises:
        BrokenArtifact: there is no ``artifact.json`` in either.
    """
    root = storage.absolute(run_or_model)
    for folder in (root, storage.join(root, MODEL_IN_RUN)):
        if storage.exists(storage.join(folder, ARTIFACT)):
            return folder
    raise BrokenArtifact(f"{run_or_model} has no {ARTIFACT}: it is not a model folder, or its run has not finished")


def read(model_folder: str | Path) -> Artifact:
    """Reads ``artifact.json`` without the weights. Raises BrokenArtifact."""
    where = storage.join(model_folder, ARTIFACT)
    try:
        values = storage.read_json(where)
    except FileNotFoundError:
        raise BrokenArtifact(f"{where} is missing: the folder is not a complete model") from None
    except ValueError as error:
        raise BrokenArtifact(f"{where} is not valid JSON: {error}") from None
    return _parse(values, where)


def load(run_or_model: str | Path) -> "tuple[torch.nn.Module, Artifact]":
    """Loads a trained network, in evaluation mode on the CPU, and its artifact.

    Raises:
        BrokenArtifact: a file is missing or was changed, or the weights do not fit the network.
    """
    # Imported here, so that code that only reads artifact.json saves the two seconds and the memory of PyTorch.
    import safetensors.torch

    from detector_core.networks.factory import build
    from detector_core.networks.frozen import load_trained_state

    folder = find(run_or_model)
    artifact = read(folder)
    with storage.local_copy(folder) as local:
        weights = local / WEIGHTS
        if not weights.exists():
            raise BrokenArtifact(f"{storage.join(folder, WEIGHTS)} is missing")
        digest = sha256_of(weights)
        if digest != artifact.weights_sha256:
            raise BrokenArtifact(
                f"{storage.join(folder, WEIGHTS)} was changed: its sha256 is {digest[:12]}..., "
                f"but {artifact.weights_sha256[:12]}... in {ARTIFACT}"
            )
        _check_shapes(artifact.spec.model, weights, storage.join(folder, WEIGHTS))
        model = build(artifact.spec.model, pretrained=False)
        load_trained_state(model, safetensors.torch.load_file(weights))
    return model.eval(), artifact


def _check_shapes(spec: ModelSpec, weights: Path, where: str) -> None:
    """Compares weights with the shapes of the network, before it takes memory. Raises BrokenArtifact."""
    import safetensors
    import torch

    from detector_core.networks.factory import build
    from detector_core.networks.frozen import trained_state

    with torch.device("meta"):
        expected = {name: list(tensor.shape) for name, tensor in trained_state(build(spec, pretrained=False)).items()}
    try:
        with safetensors.safe_open(weights, framework="pt") as file:
            actual = {name: file.get_slice(name).get_shape() for name in file.keys()}  # noqa: SIM118 -- no mapping
    except safetensors.SafetensorError as error:
        raise BrokenArtifact(f"{where} does not fit the network: {first_line(error)}") from None
    different = [name for name in {**expected, **actual} if expected.get(name) != actual.get(name)]
    if different:
        name = different[0]
        raise BrokenArtifact(
            f"{where} does not fit the network: {name} has shape {actual.get(name, 'none')}, "
            f"{expected.get(name, 'none')} was expected"
        )


def sha256_of(path: Path) -> str:
    """The sha256 of a local file, which is not read into memory as a whole."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


@cache
def git_commit(root: Path = Path(__file__).parents[2]) -> str | None:
    """The commit of the git checkout in ``root``, with ``-dirty`` appended if tracked files were changed.

    None if ``root`` is not the top of a checkout (an installed package, a container image) or git cannot tell.
    """
    if not (root / ".git").exists():
        return None
    command = ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def _parse(values: Any, where: str) -> Artifact:
    if not isinstance(values, dict) or values.get("format") != FORMAT:
        version = values.get("format") if isinstance(values, dict) else values
        raise BrokenArtifact(f"{where} has format {version!r}, but this version reads {FORMAT}: train the model again")
    try:
        artifact = Artifact(**{**values, "spec": RunSpec.from_dict(values["spec"])})
    except KeyError as error:
        raise BrokenArtifact(f"{where} is incomplete: it has no {error}") from None
    except (TypeError, BadConfig) as error:
        raise BrokenArtifact(f"{where} is not valid: {error}") from None
    for kind, names in (
        (str, ("run", "weights_sha256", "created")),
        (dict, ("data", "training", "labels", "versions")),
    ):
        for name in names:
            if not isinstance(getattr(artifact, name), kind):
                raise BrokenArtifact(f"{where} is not valid: {name} must be of type {kind.__name__}")
    return artifact
