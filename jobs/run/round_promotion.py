"""The promotion of a round's new model: only over the version that the round started from."""

from functools import partial

from detector_core.data.manifest import Manifest
from detector_core.errors import DetectorError, OperationRefused
from detector_core.registry import versions
from jobs.common import cli


def promote(model: str, models: str, data: Manifest, *, parent: str, command: str) -> str:
    """Makes the new model live. Its gate was stricter than the comparison of AUC that ``force`` skips.

    The tags of the round count as used already, so no later round makes up for a promotion that fails: the error names
    the ``command`` that does.

    Raises:
        OperationRefused: ``parent`` is not live any more, so the gate compared the model with another version than it
            would replace. Checked again once the model is a version, which takes seconds.
    """
    from detector_core.registry import promotion

    add_runtime = partial(promotion.add_runtime, data=data, say=cli.say)
    passed = f"the round has passed: {command} promotes it"
    try:
        _check_live(models, parent)
        version = versions.stage(model, models, force=True, add_files=add_runtime, key=f"auto {data.fingerprint}")
        _check_live(models, parent)
        versions.make_live(models, version)
    except DetectorError as error:
        raise type(error)(f"{error}; {passed}") from error
    except OSError:
        cli.say(passed)
        raise
    return version


def _check_live(models: str, parent: str) -> None:
    """Returns if a version is still live. Raises OperationRefused."""
    live = versions.history(models)[:1]
    if live != [parent]:
        raise OperationRefused(
            f"{', '.join(live) or 'no version'} is live in {models} and no longer {parent}, which this round started "
            f"from, so nothing is promoted: start another round, or, if what became live meanwhile may be replaced, "
            f"promote this one"
        )
