"""The starter model: a detector for real faces that comes with the project, so a fresh clone can serve predictions.

``detector_core/starter/`` is an ordinary model folder: artifact, weights (half precision; frozen backbones stay in
their packages), calibration and test report. It is checked by checksum and promoted like any other model.
``python -m benchmarks.recipes --starter detector_core/starter`` builds it.
"""

from collections.abc import Callable
from functools import partial
from importlib.resources import as_file, files
from pathlib import Path

from detector_core import storage
from detector_core.registry import versions

NAME = "starter"
"""Name of the starter model's run; answers carry it as the name of the model."""


def promote_if_empty(models: str | Path, say: Callable[[str], object]) -> str | None:
    """Promotes the starter model if MODELS has no live one; returns its version, or None.

    Raises:
        BrokenArtifact: a file of the starter model was changed.
    """
    if versions.history(models):
        return None
    from detector_core.registry import promotion  # torch and OpenVINO's converter, which a live model does not need

    say(f"no model was promoted to {models} yet: promoting the starter model (docs/starter.md) ...")
    with as_file(files("detector_core") / NAME) as folder:
        return versions.promote(folder, models, add_files=partial(promotion.add_runtime, say=say))


def private_models(say: Callable[[str], object]) -> str:
    """A MODELS folder of this user with the starter model as the live one, made at the first call.

    The folder's name contains the starter's version, so that an update of the project with a newer starter uses a new
    folder.
    """
    with as_file(files("detector_core") / NAME) as folder:
        models = str(storage.private_folder(f"deepfake-detector-{versions.version_name(folder)}"))
    promote_if_empty(models, say)
    return models
