"""Which model is served: copies of model folders under versions, and one file that names the live one.

::

    MODELS/
      VERSION/      a copy of a model folder and what promotion added, whole, never changed again
      live          the live version; below it, newest first, those that were live before

``live`` is replaced by an atomic rename and a version appears whole or not at all: whoever reads MODELS at any moment
finds a complete model. On an object store ``live`` is one small object, put whole, and a version is there once its
``artifact.json`` is, which is put last; who needs its files gets a copy (:func:`fetch`). Left out: training, judging,
and telling a running service.
"""

import hashlib
import json
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from detector_core import storage
from detector_core.errors import BadConfig, BrokenArtifact, OperationRefused
from detector_core.evaluation import calibration
from detector_core.networks import artifacts
from detector_core.registry import runtime_files

LIVE = "live"
TEST_SPLIT = "test"
REPORT = "report.json"
CACHE = "deepfake-detector-models"
"""Where versions from an object store lie on each machine, in its folder of temporary files; may be deleted."""


def promote(
    run_or_model: str | Path,
    models: str | Path,
    *,
    force: bool = False,
    add_files: Callable[[Path], object] | None = None,
    key: str = "",
) -> str:
    """Copies a model into MODELS and makes it the live one; a model that is live already is left as it is.

    Args:
        run_or_model: a run's folder or a model folder, local or a URI.
        models: a folder or URI; made if need be.
        force: also a model that is worse than the live one.
        complete: called with the copy before it takes its place, to add files; an error leaves MODELS as it was.
        key: what ``complete`` depends on; another key makes another version.

    Returns:
        The version: the run's name and a checksum of what decides the answers.

    Raises:
        BrokenArtifact: a file of the model is missing, changed, or does not fit.
        OperationRefused: the model was not judged on a test split, or is worse than the live one on the same data.
    """
    source = artifacts.find(run_or_model)
    with storage.local_copy(source) as local:
        _check(local)
        reports = test_reports(local)
        if not reports:
            raise OperationRefused(
                f"{source} has no report of a test split: judge it first with "
                f"python -m jobs.evaluate {run_or_model} --data DATASET"
            )
        version, before = _version_of(local, key), history(models)
        if not force and before and before[0] != version and _is_there(storage.join(models, before[0])):
            _refuse_worse(version, reports, before[0], test_reports(fetch(storage.join(models, before[0]))))
        if not _is_whole(storage.join(models, version)):
            with _adding(storage.join(models, version)) as beside:
                shutil.copytree(local, beside)
                if add_files:
                    add_files(beside)
                _check(beside)
    if before[:1] != [version]:
        _write_history(models, [version, *(name for name in before if name != version)])
    return version


def live(models: str | Path) -> Path:
    """The folder of the live model, :func:`fetch`.

    Raises:
        BadConfig: nothing was promoted there.
        BrokenArtifact: the live version is gone.
    """
    return fetch(live_location(models))


def live_location(models: str | Path) -> str:
    """The folder or URI of the live model. Raises as :func:`live` does."""
    names = history(models)
    if not names:
        raise BadConfig(f"{models} has no live model: promote one with python -m jobs.promote RUN --to {models}")
    where = storage.join(models, names[0])
    if not _is_there(where):
        raise BrokenArtifact(
            f"{storage.join(models, LIVE)} names {names[0]}, which is not there: promote a model again, "
            f"or use --rollback"
        )
    return where


def fetch(where: str | Path) -> Path:
    """A version as a local folder: itself, or a checked copy of one on an object store, made once on each machine.

    Raises:
        BrokenArtifact: it is not whole; no copy is kept.
    """
    if not storage.is_uri(str(where)):
        return Path(where)
    parent, _, version = str(where).rpartition("/")
    copy = storage.private_folder(CACHE) / hashlib.sha256(parent.encode()).hexdigest()[:16] / version
    copy.parent.mkdir(exist_ok=True)
    with storage.locked(copy.with_name(f".{version}.lock")):
        if not _is_there(copy):
            with storage.local_copy(where) as local, storage.replacing(copy) as beside:
                _check(local)
                shutil.copytree(local, beside)
    return copy


def history(models: str | Path) -> list[str]:
    """The live version, then, newest first, those that were live before; empty when nothing was promoted."""
    try:
        return storage.read_bytes(storage.join(models, LIVE)).decode().split()
    except FileNotFoundError:
        return []


def list_versions(models: str | Path) -> list[str]:
    """The complete versions in MODELS, the live one and its forerunners first, then the others by name."""
    names = [name for name in storage.names(models) if not name.startswith(".") and name != LIVE]
    there = [name for name in names if _is_there(storage.join(models, name))]
    once_live = [name for name in history(models) if name in there]
    return [*once_live, *(name for name in there if name not in once_live)]


def rollback(models: str | Path) -> str:
    """Makes the version live that was live before, and returns it.

    Raises:
        OperationRefused: there is none.
        BrokenArtifact: it was changed since.
    """
    earlier = [name for name in history(models)[1:] if _is_there(storage.join(models, name))]
    if not earlier:
        raise OperationRefused(f"{models} holds no version that was live before: there is nothing to roll back to")
    with storage.local_copy(storage.join(models, earlier[0])) as local:
        _check(local)
    _write_history(models, earlier)
    return earlier[0]


def prune(models: str | Path, keep: int) -> list[str]:
    """Removes all but the first ``keep`` of :func:`versions`, never the live one, and returns what was removed.

    Raises:
        BadConfig: ``keep`` is below 1.
    """
    if keep < 1:
        raise BadConfig(f"--prune is {keep}: it must be 1 or more, the live version is always kept")
    removed = [name for name in list_versions(models)[keep:] if name != next(iter(history(models)), None)]
    if removed:
        _write_history(models, [name for name in history(models) if name not in removed])
    for name in removed:
        _remove(storage.join(models, name))
    return removed


def test_reports(model_folder: Path) -> dict[str, dict[str, Any]]:
    """The reports of a local model on test splits, by fingerprint of the data; none that is about other weights.

    Raises:
        BrokenArtifact: a report that cannot be read.
    """
    sha256 = artifacts.read(model_folder).weights_sha256
    found = {}
    for path in sorted((model_folder / artifacts.EVALUATION).glob(f"{TEST_SPLIT}*/{REPORT}")):
        try:
            report = json.loads(path.read_bytes())
            if report["split"] == TEST_SPLIT and report["model"]["weights_sha256"] == sha256:
                found[report["data"]["fingerprint"]] = report
        except (ValueError, TypeError, KeyError) as error:
            raise BrokenArtifact(f"{path} is damaged ({error!r}): judge the model again") from None
    return found


def compare_auc(
    reports: dict[str, dict[str, Any]], others: dict[str, dict[str, Any]]
) -> Iterator[tuple[str, float, float]]:
    """Data set name and both AUCs, for each data set that two models were judged on."""
    for fingerprint, report in reports.items():
        if fingerprint in others:
            ours, theirs = (side[fingerprint]["ranking"]["auc"]["value"] for side in (reports, others))
            if ours is not None and theirs is not None:
                yield report["data"]["name"], ours, theirs


def _refuse_worse(
    version: str, reports: dict[str, dict[str, Any]], live_version: str, others: dict[str, dict[str, Any]]
) -> None:
    for name, auc, live_auc in compare_auc(reports, others):
        if auc < live_auc:
            raise OperationRefused(
                f"{version} is worse than the live {live_version} on the test split of {name} "
                f"(AUC {auc:.4f} against {live_auc:.4f}): --force promotes it all the same"
            )


def _version_of(folder: Path, key: str) -> str:
    digest = hashlib.sha256(key.encode())
    for name in (artifacts.ARTIFACT, artifacts.CALIBRATION):
        path = folder / name
        digest.update(path.read_bytes() if path.exists() else b"")
    run = re.sub(r"[^A-Za-z0-9._-]+", "-", artifacts.read(folder).run).lstrip(".") or "model"
    return f"{run}-{digest.hexdigest()[:8]}"


def _check(folder: Path) -> None:
    """Raises BrokenArtifact unless everything that serving reads is there, unchanged and fits together."""
    _, artifact = artifacts.load(folder)
    calibration.load(str(folder), artifact.weights_sha256)
    runtime_files.verify_files(folder, artifact.weights_sha256)


@contextmanager
def _adding(where: str) -> Iterator[Path]:
    """A local folder to fill, which becomes the version at ``where`` without an error."""
    if not storage.is_uri(where):
        with storage.replacing(Path(where)) as beside:
            yield beside
        return
    with tempfile.TemporaryDirectory(prefix="detector-") as scratch:
        folder = Path(scratch) / where.rpartition("/")[2]
        yield folder
        _remove(where)
        storage.put_folder(folder, where, last=artifacts.ARTIFACT)


def _remove(where: str) -> None:
    """Removes a version, out of sight first, so that nobody finds half of it."""
    if storage.is_uri(where):
        storage.delete_file(storage.join(where, artifacts.ARTIFACT))
        storage.delete_folder(where)
        return
    path = Path(where)
    with tempfile.TemporaryDirectory(prefix=f".{path.name}.", dir=path.parent) as scratch:
        path.rename(Path(scratch) / path.name)


def _is_there(where: str | Path) -> bool:
    return storage.exists(storage.join(where, artifacts.ARTIFACT))


def _is_whole(where: str) -> bool:
    try:
        with storage.local_copy(where) as local:
            _check(local)
    except (BrokenArtifact, FileNotFoundError):
        return False
    return True


def _write_history(models: str | Path, names: list[str]) -> None:
    storage.write_bytes(storage.join(models, LIVE), "".join(f"{name}\n" for name in names).encode())
