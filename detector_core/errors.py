"""Every error this package raises on purpose.

::

    DetectorError            the root: one line that says what was found and what to do
    +-- BadConfig            a field of a spec, or a flag, has a value that cannot work
    |   +-- UnknownVariant   no variant of that name
    +-- BadData              a folder, CSV or data set that cannot be used
    |   +-- BadManifest      a prepared data set that is missing, torn or of another format
    |   +-- BadImage         bytes that are not a whole image
    |   |   +-- TooManyPixels    an image larger than allowed, found before it is decoded
    |   |   +-- UnsupportedFormat     an image, but of a format that is not read
    |   +-- BadVideo     bytes that are not a clip of a known kind
    |       +-- VideoTooLarge     a clip longer or larger than allowed
    +-- WeightsUnavailable            pretrained weights that cannot be had
    +-- BrokenArtifact       a model folder or checkpoint that is incomplete or was changed
    +-- TrainingFailed       a run that cannot go on (loss is NaN, ...)
    +-- OperationRefused              an operation that would do harm, with the flag that allows it
    +-- StorageUnavailable            an object store that does not answer, refuses, or has no such bucket
    +-- InsufficientResources               too few cores, GPUs, memory or disk for what was asked
    +-- ClusterLost              the cluster broke down under a job

A job prints the message as its last line on stderr and exits 1; the service maps it to a status and a code.
"""

import difflib
from collections.abc import Iterable


class DetectorError(Exception):
    """What went wrong, in one line a newcomer can act on."""


class BadConfig(DetectorError):
    """A spec or flag that cannot work; names the field, the value and the rule."""


class UnknownVariant(BadConfig):
    """No variant of that name; names the nearest one."""


class BadData(DetectorError):
    """A source of images that cannot be used; names the folder or file."""


class BadManifest(BadData):
    """A prepared data set that is missing, torn or of another format."""


class BadImage(BadData):
    """Bytes that do not decode to a whole image."""


class TooManyPixels(BadImage):
    """An image larger than allowed; nothing of it was decoded."""


class UnsupportedFormat(BadImage):
    """An image of a format that is not read; says what to do."""


class BadVideo(BadData):
    """Bytes that are not a clip of a known kind."""


class VideoTooLarge(BadVideo):
    """A clip longer or larger than allowed."""


class WeightsUnavailable(DetectorError):
    """Pretrained weights that cannot be had; names the file to fetch and where to put it."""


class BrokenArtifact(DetectorError):
    """A model folder or checkpoint that is incomplete, changed or of another format."""


class TrainingFailed(DetectorError):
    """A run that cannot go on; names the step and what is kept."""


class OperationRefused(DetectorError):
    """An operation that would lose or worsen something; names the flag that allows it."""


class StorageUnavailable(DetectorError):
    """An object store that cannot be used; names the URI and what to do."""


class InsufficientResources(DetectorError):
    """Too few resources; names what was asked and what exists."""


class ClusterLost(DetectorError):
    """The cluster broke down under a job; says how to go on."""


def first_line(error: BaseException) -> str:
    """What an error of another library says, cut to one line."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def did_you_mean(name: str, names: Iterable[str], prefix: str = "") -> str:
    """``did you mean NAME? `` with the closest of ``names``; empty if none is close."""
    closest = difflib.get_close_matches(name, names, n=1, cutoff=0.3)
    return f"did you mean {prefix}{closest[0]}? " if closest else ""
