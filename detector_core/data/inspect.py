"""Properties of an image file, for the manifest and the audit.

An image is decoded by the same strict function that training uses, so that a file which passes here does not stop a
run later. Pixels never leave this module, only properties.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import numpy as np
import pandas as pd
from PIL import Image, JpegImagePlugin

from detector_core.data import image_files
from detector_core.data.spectrum import radial_spectrum
from detector_core.errors import BadImage
from detector_core.images.decode import Pixels, opened
from detector_core.images.quality import jpeg_quality

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
    "spectrum": "object",
}
"""Keys of :func:`image_properties` and the dtypes of these columns, which are nullable: a broken image has none."""
NOT_JPEG: Final = "none"
HASH_SIDE: Final = 17
"""Side of the thumbnail under the perceptual hash: 17 x 16 horizontal and 16 x 17 vertical steps, 544 bits."""
HASH_BYTES: Final = 2 * HASH_SIDE * (HASH_SIDE - 1) // 8
_SAMPLING: Final = {0: "4:4:4", 1: "4:2:2", 2: "4:2:0", -1: "other"}

Transform = Callable[[str, bytes], bytes]
"""``transform(path, data)`` returns the file to inspect instead, such as a crop of the image."""


def image_properties(data: bytes) -> dict[str, Any]:
    """The recorded properties of one image file.

    Returns:
        ``sha256`` of the file, ``width`` and ``height`` in pixels with the EXIF orientation applied, ``bytes``,
        ``format`` with the color mode, ``jpeg_quality`` 1-100 (None unless it is a JPEG), ``jpeg_tables`` (a short
        hash of the quantization tables), ``chroma`` subsampling, ``metadata_bytes`` (EXIF, color profile, comments),
        ``brightness`` (mean gray level, 0-255), ``phash`` (hexadecimal) and ``spectrum``
        (:func:`detector_core.data.spectrum.radial_spectrum`, as a list).

    Raises:
        BadImage: the bytes are not a complete image.
    """
    with opened(data) as image:
        tables: Mapping[int, Sequence[int]] | None = getattr(image.header, "quantization", None) or None
        format_, chroma = f"{image.file.format} {image.header.mode}", _chroma(image.header)
        image_HWC = image.decode().image_HWC
    return {
        "sha256": hashlib.sha256(data).hexdigest(),
        "width": image_HWC.shape[1],
        "height": image_HWC.shape[0],
        "bytes": len(data),
        "format": format_,
        "jpeg_quality": jpeg_quality(image.quantization),
        "jpeg_tables": _tables_id(tables) if tables else NOT_JPEG,
        "chroma": chroma,
        "metadata_bytes": image.file.metadata_bytes,
        "brightness": float(np.asarray(Image.fromarray(image_HWC).convert("L")).mean()),
        "phash": perceptual_hash(image_HWC),
        "spectrum": radial_spectrum(image_HWC).tolist(),
    }


def inspect_images(root: str, paths: Sequence[str], transform: Transform | None = None) -> pd.DataFrame:
    """The properties of each image, one row per path in the given order.

    An image that cannot be used has the reason in the column ``problem`` and no properties.

    Args:
        root: folder or URI that the paths are relative to.
        paths: paths of the images.
        transform: what to do with each file before it is inspected; nothing by default.

    Raises:
        BadData: the storage fails. The properties read so far are lost.
        OSError: the disk that ``transform`` writes to is full.
    """
    rows = []
    for path in paths:
        try:
            data = image_files.read(root, path)
            rows.append(
                {"path": path, "problem": None, **image_properties(transform(path, data) if transform else data)}
            )
        except BadImage as error:
            rows.append({"path": path, "problem": str(error)})
    columns = ["path", "problem", *PROPERTIES]
    return pd.DataFrame(rows, columns=columns).astype({"path": "str", "problem": "str", **PROPERTIES})


def perceptual_hash(image_HWC: Pixels) -> str:
    """A difference hash of 544 bits, hexadecimal: the sign of each step between neighbors in a 17 x 17 thumbnail.

    Aligned portraits share their low frequencies, so the usual 64 bits would call different people near-duplicates; 544
    bits do not. Recompression, resizing and changes of brightness flip a few bits;
    :data:`detector_core.data.duplicates.MAX_DISTANCE` gives the measurements.
    """
    thumbnail = np.asarray(
        Image.fromarray(image_HWC).convert("L").resize((HASH_SIDE, HASH_SIDE), Image.Resampling.LANCZOS), dtype=np.int16
    )
    across, down = np.diff(thumbnail, axis=1) > 0, np.diff(thumbnail, axis=0) > 0
    return np.packbits(np.concatenate([across.ravel(), down.ravel()])).tobytes().hex()


def _tables_id(tables: Mapping[int, Sequence[int]]) -> str:
    text = repr([list(tables[key]) for key in sorted(tables)])
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def _chroma(header: Image.Image) -> str:
    if not isinstance(header, JpegImagePlugin.JpegImageFile):
        return NOT_JPEG
    return "gray" if header.layers == 1 else _SAMPLING[JpegImagePlugin.get_sampling(header)]
