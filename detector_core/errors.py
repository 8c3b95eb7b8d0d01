"""Every error that this package raises on purpose.

::

    DetectorError                    the base class: one line that says what was found and what to do
    +-- BadConfig                    a field of a spec, or a flag, has a value that cannot work
    |   +-- UnknownVariant           there is no variant of that name
    +-- BadData                      a folder, CSV or data set that cannot be used
    |   +-- BadManifest              a prepared data set that is missing, damaged or of another format
    |   +-- BadImage                 bytes that are not a complete image
    |   |   +-- NotAnImage           bytes that are not an image in any known format
    |   |   +-- TooManyPixels        an image larger than allowed, detected before it is decoded
    |   |   +-- TooCostly            an image that takes more CPU time or memory to decode than allowed
    |   |   +-- UnsupportedFormat    an image in a format that cannot be read
    |   |       +-- FormatNotAccepted  an image in a format that is turned off
    |   +-- BadVideo                 bytes that are not a clip in a known container
    |       +-- VideoTooLarge        a clip that is too long, too large or takes too long to decode
    |           +-- VideoTooCostly   a clip that takes more CPU time or memory to decode than allowed
    +-- WeightsUnavailable           pretrained weights that are missing or do not fit
    +-- BrokenArtifact               a model folder or checkpoint that is incomplete or was changed
    +-- TrainingFailed               a run that cannot continue (the loss is NaN, ...)
    +-- OperationRefused             an operation that would lose or worsen something
    +-- StorageUnavailable           an object store that does not answer, denies access, or has no such bucket
    +-- InsufficientResources        too few cores, GPUs, or too little memory or disk space
    +-- ClusterLost                  the cluster failed under a job

A job prints the message as its last line on stderr and exits with code 1; the service maps it to a status and a code.
"""

import difflib
from collections.abc import Iterable


class DetectorError(Exception):
    """What went wrong, in one line that a newcomer can act on."""


class BadConfig(DetectorError):
    """A spec or flag that cannot work; names the field, the value and the rule."""


class UnknownVariant(BadConfig):
    """There is no variant of that name; names the closest one."""


class BadData(DetectorError):
    """A source of images that cannot be used; names the folder or file."""


class BadManifest(BadData):
    """A prepared data set that is missing, damaged or of another format."""


class BadImage(BadData):
    """Bytes that do not decode to a complete image."""


class NotAnImage(BadImage):
    """Bytes that are not an image in any known format."""


class TooManyPixels(BadImage):
    """An image larger than allowed; none of it was decoded."""


class TooCostly(BadImage):
    """An image that takes more CPU time or memory to decode than allowed."""


class UnsupportedFormat(BadImage):
    """An image in a format that cannot be read; says what to do."""


class FormatNotAccepted(UnsupportedFormat):
    """An image in a format that is turned off."""


class BadVideo(BadData):
    """Bytes that are not a clip in a known container."""


class VideoTooLarge(BadVideo):
    """A clip that is too long, has too large frames, or takes too much time or memory to decode."""


class VideoTooCostly(VideoTooLarge):
    """A clip that takes more CPU time or memory to decode than allowed."""


class WeightsUnavailable(DetectorError):
    """Pretrained weights that are missing or do not fit; names the file to fetch and where to put it."""


class BrokenArtifact(DetectorError):
    """A model folder or checkpoint that is incomplete, was changed, or is of another format."""


class TrainingFailed(DetectorError):
    """A run that cannot continue; names the step and what was saved."""


class OperationRefused(DetectorError):
    """An operation that would lose or worsen something; names the flag that allows it, if there is one."""


class StorageUnavailable(DetectorError):
    """An object store that cannot be used; names the URI and what to do."""


class InsufficientResources(DetectorError):
    """Too few cores or GPUs, or too little memory or disk space; names what is needed and what exists."""


class ClusterLost(DetectorError):
    """The cluster failed under a job; says how to continue."""


def first_line(error: BaseException) -> str:
    """The first line of another library's error message, or the name of its class if the message is empty."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def did_you_mean(name: str, names: Iterable[str], prefix: str = "") -> str:
    """``did you mean NAME? `` with the closest of ``names``; an empty string if none is close."""
    closest = difflib.get_close_matches(name, names, n=1, cutoff=0.3)
    return f"did you mean {prefix}{closest[0]}? " if closest else ""
