"""The registry of served models: copies of model folders as versions, and one file that names the live one.

::

    MODELS/
      VERSION/      a complete copy of a model folder with what promotion added; jobs.evaluate may add reports to it
      live          the live version; below it, newest first, the versions that were live before
      canary        a version that answers about a share of the images (:mod:`detector_core.registry.canaries`)
      canaries/     what was compared in each canary, and how it ended
      canary-set/   images on which no verdict may change (:mod:`detector_core.data.canary_set`), if an operator adds it

``live`` is replaced by an atomic rename, and a version appears completely or not at all, so whoever reads MODELS at any
time finds a complete model. On an object store, ``live`` is one small object, and a version exists once its
``artifact.json`` does, which is uploaded last; :func:`fetch` copies a version to the local disk. Not in this module:
training, evaluating, and notifying a running service.
"""

import hashlib
import re
import shutil
import tempfile
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

from detector_core import storage
from detector_core.errors import BadConfig, BrokenArtifact, OperationRefused
from detector_core.evaluation import calibration
from detector_core.networks import artifacts
from detector_core.registry import runtime_files, test_reports

LIVE = "live"
NOT_VERSIONS = (LIVE, "canary", "canaries", "canary-set")
"""What MODELS contains besides versions; see above."""
CACHE = "deepfake-detector-models"
"""Folder of the copies of versions from object stores, among each machine's temporary files; may be deleted."""


def promote(
    run_or_model: str | Path,
    models: str | Path,
    *,
    force: bool = False,
    add_files: Callable[[Path], object] | None = None,
    key: str = "",
) -> str:
    """Copies a model into MODELS and makes it the live version; a version that is live already stays as it is.

    Args:
        run_or_model: a run's folder or a model folder, local or a URI.
        models: folder or URI; created if it does not exist.
        force: promote a model even if it is worse than the live one.
        add_files: called with the copy before it becomes a version, to add files; an error leaves MODELS unchanged.
        key: what ``add_files`` depends on; another key makes another version.

    Returns:
        The version, see :func:`stage`.

    Raises:
        BrokenArtifact, OperationRefused: see :func:`stage`.
    """
    version = stage(run_or_model, models, force=force, add_files=add_files, key=key)
    make_live(models, version)
    return version


def stage(
    run_or_model: str | Path,
    models: str | Path,
    *,
    force: bool = False,
    add_files: Callable[[Path], object] | None = None,
    key: str = "",
) -> str:
    """Copies a model into MODELS as a version that may become live, and returns it; arguments as for :func:`promote`.

    The name of the version is that of the run and a checksum of everything that determines the predictions.

    Raises:
        BrokenArtifact: a file of the model is missing, was changed, or belongs to other weights.
        OperationRefused: the model was never evaluated on a test split, or is worse than the live one on the same data.
    """
    source = artifacts.find(run_or_model)
    with storage.local_copy(source) as local:
        verify(local)
        reports = test_reports.read(local)
        if not reports:
            raise OperationRefused(
                f"{source} was never evaluated on a test split: run "
                f"python -m jobs.evaluate {run_or_model} --data DATASET first"
            )
        version, before = version_name(local, key), history(models)
        if not force and before and before[0] != version and _exists(storage.join(models, before[0])):
            live_reports = test_reports.read(fetch(storage.join(models, before[0])))
            test_reports.refuse_if_worse(version, reports, before[0], live_reports)
        if not _is_intact(storage.join(models, version)):
            with _new_version(storage.join(models, version)) as copy:
                shutil.copytree(local, copy)
                if add_files:
                    add_files(copy)
                verify(copy)
    return version


def make_live(models: str | Path, version: str) -> None:
    """Makes a version of MODELS the live one; the one that is live already stays as it is."""
    before = history(models)
    if before[:1] != [version]:
        _write_history(models, [version, *(name for name in before if name != version)])


def live(models: str | Path) -> Path:
    """The local folder of the live version, as :func:`fetch` returns it.

    Raises:
        BadConfig: no model was promoted to MODELS.
        BrokenArtifact: the live version is missing.
    """
    return fetch(live_location(models))


def live_location(models: str | Path) -> str:
    """The folder or URI of the live version. Raises as :func:`live` does."""
    names = history(models)
    if not names:
        raise BadConfig(f"{models} has no live model: promote one with python -m jobs.promote RUN --to {models}")
    return locate(models, names[0], LIVE)


def locate(models: str | Path, version: str, named_by: str) -> str:
    """The folder or URI of a version that a file of MODELS names. Raises BrokenArtifact if it does not exist."""
    location = storage.join(models, version)
    if not _exists(location):
        raise BrokenArtifact(
            f"{storage.join(models, named_by)} names {version}, which does not exist: promote a model again, "
            f"or use --rollback"
        )
    return location


def fetch(location: str | Path) -> Path:
    """The local folder of a version: itself, or a verified copy from an object store, made once per machine.

    Raises:
        BrokenArtifact: the version is incomplete or damaged; no copy is kept.
    """
    if not storage.is_uri(str(location)):
        return Path(location)
    parent, _, version = str(location).rpartition("/")
    cached = storage.private_folder(CACHE) / hashlib.sha256(parent.encode()).hexdigest()[:16] / version
    cached.parent.mkdir(exist_ok=True)
    with storage.locked(cached.with_name(f".{version}.lock")):
        if not _exists(cached):
            with storage.local_copy(location) as local, storage.replacing(cached) as copy:
                verify(local)
                shutil.copytree(local, copy)
    return cached


def history(models: str | Path) -> list[str]:
    """The live version, then, newest first, those that were live before; empty if no model was promoted."""
    try:
        return storage.read_bytes(storage.join(models, LIVE)).decode().split()
    except FileNotFoundError:
        return []


def list_versions(models: str | Path) -> list[str]:
    """The complete versions in MODELS: the live one, those that were live before, newest first, then the others."""
    return _list_versions(models, history(models))


def _list_versions(models: str | Path, ever_live: list[str]) -> list[str]:
    names = [name for name in storage.names(models) if not name.startswith(".") and name not in NOT_VERSIONS]
    complete = [name for name in names if _exists(storage.join(models, name))]
    first = [name for name in ever_live if name in complete]
    return [*first, *(name for name in complete if name not in first)]


def rollback(models: str | Path) -> str:
    """Makes the version live that was live before, and returns it.

    Raises:
        OperationRefused: there is no such version.
        BrokenArtifact: it was changed since.
    """
    earlier = [name for name in history(models)[1:] if _exists(storage.join(models, name))]
    if not earlier:
        raise OperationRefused(f"{models} has no version that was live before: there is nothing to roll back to")
    with storage.local_copy(storage.join(models, earlier[0])) as local:
        verify(local)
    _write_history(models, earlier)
    return earlier[0]


def prune(models: str | Path, keep: int, spared: Collection[str] = ()) -> list[str]:
    """Removes all but the first ``keep`` of :func:`list_versions`, never the live one, and returns what it removed.

    Args:
        spared: versions that are kept, too.

    Raises:
        BadConfig: ``keep`` is below 1.
    """
    if keep < 1:
        raise BadConfig(f"--prune is {keep}: it must be 1 or more, the live version is always kept")
    ever_live = history(models)
    removed = [name for name in _list_versions(models, ever_live)[keep:] if name not in {*ever_live[:1], *spared}]
    if removed:
        _write_history(models, [name for name in ever_live if name not in removed])
    for name in removed:
        _remove(storage.join(models, name))
    return removed


def version_name(folder: Path, key: str = "") -> str:
    """The name of a local model folder as a version: the run's name and a checksum of what determines predictions."""
    digest = hashlib.sha256(key.encode())
    for name in (artifacts.ARTIFACT, artifacts.CALIBRATION):
        path = folder / name
        digest.update(path.read_bytes() if path.exists() else b"")
    run = re.sub(r"[^A-Za-z0-9._-]+", "-", artifacts.read(folder).run).lstrip(".") or "model"
    return f"{run}-{digest.hexdigest()[:8]}"


def verify(folder: Path) -> None:
    """Raises BrokenArtifact unless everything that serving reads exists, is unchanged and belongs together."""
    _, artifact = artifacts.load(folder)
    calibration.load(str(folder), artifact.weights_sha256)
    runtime_files.verify_files(folder, artifact.weights_sha256)


@contextmanager
def _new_version(location: str) -> Iterator[Path]:
    """A local folder to fill; without an error it becomes the version at ``location``."""
    if not storage.is_uri(location):
        with storage.replacing(Path(location)) as folder:
            yield folder
        return
    with tempfile.TemporaryDirectory(prefix="detector-") as scratch:
        folder = Path(scratch) / location.rpartition("/")[2]
        yield folder
        _remove(location)
        storage.put_folder(folder, location, last=artifacts.ARTIFACT)


def _remove(location: str) -> None:
    """Removes a version; it is hidden first, so that no reader finds half of it."""
    if storage.is_uri(location):
        storage.delete_file(storage.join(location, artifacts.ARTIFACT))
        storage.delete_folder(location)
        return
    path = Path(location)
    with tempfile.TemporaryDirectory(prefix=f".{path.name}.", dir=path.parent) as scratch:
        path.rename(Path(scratch) / path.name)


def _exists(location: str | Path) -> bool:
    return storage.exists(storage.join(location, artifacts.ARTIFACT))


def _is_intact(location: str) -> bool:
    try:
        with storage.local_copy(location) as local:
            verify(local)
    except (BrokenArtifact, FileNotFoundError):
        return False
    return True


def _write_history(models: str | Path, names: list[str]) -> None:
    storage.write_bytes(storage.join(models, LIVE), "".join(f"{name}\n" for name in names).encode())
