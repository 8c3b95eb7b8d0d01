"""Reads files for jobs that go through many of them."""

from detector_core import storage
from detector_core.errors import BadData, BadImage
from detector_core.images import formats, structure, video

CANNOT_OPEN = "the file cannot be opened"
"""How the error begins for a file that may be readable later."""


def read(root: str, path: str, *, clips: bool = False) -> bytes:
    """Reads the file ``path`` below a folder or URI, but only its head if that is not the head of an image.

    Args:
        clips: also read the clips.

    Raises:
        NotAnImage: the file is not an image.
        BadImage: the file cannot be opened: it was deleted since it was listed, or this user may not read it.
        BadData: the storage fails.
    """
    where = storage.join(root, path)
    filesystem, located = storage.locate(where)
    try:
        with filesystem.open_input_stream(located) as stream:
            head = bytes(stream.read(formats.HEAD_BYTES))
            if head and formats.identify(head) is None and not (clips and video.container_of(head)):
                raise structure.not_an_image()
            return head + bytes(stream.read())
    except (FileNotFoundError, PermissionError) as error:
        raise BadImage(f"{CANNOT_OPEN}: {error.strerror or error}") from None
    except OSError as error:
        raise BadData(f"{where} cannot be read ({error}): run the same command again to continue") from None
