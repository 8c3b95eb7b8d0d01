"""One image's bytes -> what the manifest and the audit say about it.

An image is decoded by the same strict function that training uses, so that a file which passes here does not stop a
run later. Only facts leave this module, never pixels.
"""

import errno
import hashlib
import io
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image, JpegImagePlugin

from detector_core import storage
from detector_core.errors import BadData, BadImage
from detector_core.images.decode import Pixels, decode

PROPERTIES: Final = {
    "sha256": "str",
    "width": "Int64",
    "height": "Int64",
    "bytes": "Int64",
    "format": "str",
    "jpeg_quality": "Int64",
    "jpeg_tables": "str",
    "chroma": "str",
    "metadata_bytes": "Int64",
    "brightness": "Float64",
    "phash": "str",
}
"""The columns of :func:`facts` and their types in a table, where an image with a problem has none of them."""
NOT_JPEG: Final = "none"
HASH_SIDE: Final = 17
"""Side of the thumbnail under the perceptual hash: 17 x 16 horizontal and 16 x 17 vertical steps, 544 bits."""

Change = Callable[[str, bytes], bytes]

# Luminance table of the JPEG standard (annex K.1), which libjpeg scales by quality.
_STANDARD: Final = np.array(
    [
        [16, 11, 10, 16, 24, 40, 51, 61],
        [12, 12, 14, 19, 26, 58, 60, 55],
        [14, 13, 16, 24, 40, 57, 69, 56],
        [14, 17, 22, 29, 51, 87, 80, 62],
        [18, 22, 37, 56, 68, 109, 103, 77],
        [24, 35, 55, 64, 81, 104, 113, 92],
        [49, 64, 78, 87, 103, 121, 120, 101],
        [72, 92, 95, 98, 112, 100, 103, 99],
    ]
).ravel()
_QUALITIES: Final = np.arange(1, 101)
_SCALES: Final = np.where(_QUALITIES < 50, 5000 // _QUALITIES, 200 - 2 * _QUALITIES)
_TABLES: Final = np.clip((_STANDARD * _SCALES[:, None] + 50) // 100, 1, 255)
_SAMPLING: Final = {0: "4:4:4", 1: "4:2:2", 2: "4:2:0", -1: "other"}


def image_properties(data: bytes) -> dict[str, Any]:
    """Everything that is recorded about one image.

    Returns:
        ``sha256`` of the file, ``width`` and ``height`` as they are seen (EXIF orientation applied), ``bytes``,
        ``format`` with colour mode, ``jpeg_quality`` 1-100 or None, ``jpeg_tables`` (an id of the quantisation
        tables), ``chroma`` subsampling, ``metadata_bytes``, ``brightness`` 0-255, ``phash`` (hexadecimal).

    Raises:
        BadImage: not a whole image.
    """
    image_HWC = decode(data)
    grey = Image.fromarray(image_HWC).convert("L")
    with Image.open(io.BytesIO(data)) as header:
        tables: Mapping[int, Sequence[int]] | None = getattr(header, "quantization", None) or None
        return {
            "sha256": hashlib.sha256(data).hexdigest(),
            "width": image_HWC.shape[1],
            "height": image_HWC.shape[0],
            "bytes": len(data),
            "format": f"{header.format} {header.mode}",
            "jpeg_quality": jpeg_quality(tables[0]) if tables and 0 in tables else None,
            "jpeg_tables": _id(tables) if tables else NOT_JPEG,
            "chroma": _chroma(header),
            "metadata_bytes": _metadata_bytes(header),
            "brightness": float(np.asarray(grey).mean()),
            "phash": perceptual_hash(image_HWC),
        }


def inspect_images(root: str, paths: Sequence[str], change: Change | None = None) -> pd.DataFrame:
    """The facts of each image, one row a path and in their order.

    An image that cannot be used has its reason in the column ``problem`` and no facts. ``change`` turns a path and
    its file into the file to look at, such as a crop of it.

    Raises:
        BadData: a store that does not answer; what was found out so far is lost.
    """
    filesystem, top = storage.locate(root)
    rows = []
    for path in paths:
        try:
            with filesystem.open_input_stream(f"{top}/{path}") as stream:
                data = bytes(stream.read())
            rows.append({"path": path, "problem": None, **image_properties(change(path, data) if change else data)})
        except BadImage as error:
            rows.append({"path": path, "problem": str(error)})
        except (FileNotFoundError, PermissionError) as error:  # gone since it was listed, or not for us
            rows.append({"path": path, "problem": f"the file cannot be opened: {error.strerror or error}"})
        except OSError as error:
            if error.errno == errno.ENOSPC:
                raise
            raise BadData(f"{root}/{path} cannot be read ({error}): run the same command again to go on") from None
    return pd.DataFrame(rows, columns=["path", "problem", *PROPERTIES]).astype(
        {"path": "str", "problem": "str", **PROPERTIES}
    )


def perceptual_hash(image_HWC: Pixels) -> str:
    """A difference hash of 544 bits, hexadecimal: the sign of each step between neighbours in a 17 x 17 thumbnail.

    Aligned portraits share their low frequencies, so the usual 64 bits call strangers near-duplicates; 544 do not.
    Recompression, resizing and brightness change a few bits; ``duplicates.NEAR`` has the figures.
    """
    thumbnail = np.asarray(
        Image.fromarray(image_HWC).convert("L").resize((HASH_SIDE, HASH_SIDE), Image.Resampling.LANCZOS), dtype=np.int16
    )
    across, down = np.diff(thumbnail, axis=1) > 0, np.diff(thumbnail, axis=0) > 0
    return np.packbits(np.concatenate([across.ravel(), down.ravel()])).tobytes().hex()


def jpeg_quality(luminance: Sequence[int]) -> int:
    """The libjpeg quality, 1-100, whose luminance table is nearest; exact for files written by libjpeg."""
    table: NDArray[np.int64] = np.asarray(luminance)
    return int(_QUALITIES[np.abs(_TABLES - table).sum(axis=1).argmin()])


def _id(tables: Mapping[int, Sequence[int]]) -> str:
    text = repr([list(tables[key]) for key in sorted(tables)])
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def _chroma(header: Image.Image) -> str:
    if not isinstance(header, JpegImagePlugin.JpegImageFile):
        return NOT_JPEG
    return "grey" if header.layers == 1 else _SAMPLING[JpegImagePlugin.get_sampling(header)]


def _metadata_bytes(header: Image.Image) -> int:
    """Bytes of EXIF, colour profile, comments and provenance records; JPEG's own JFIF header is not counted."""
    if isinstance(header, JpegImagePlugin.JpegImageFile):
        return sum(len(content) for _, content in header.applist if not content.startswith(b"JFIF"))
    return sum(len(value) for value in header.info.values() if isinstance(value, str | bytes))
