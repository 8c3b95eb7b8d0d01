"""Decoded images of a split, kept on a node's disk and shared by every process of that node through the page cache.

::

    CACHE/KEY/
      pixels.npy     uint8 NSSC, as :func:`detector_core.images.preprocess.square` leaves each image; mapped, never
      copied
      broken.json    row: reason, for images that could not be decoded; written last

The first process that needs a split fills it under a lock, the others wait for it. A key holds the data set's
fingerprint and all that shapes the pixels, so one cache serves every run of the same images at the same size.
"""

import hashlib
import json
import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd

from detector_core import storage
from detector_core.config import PreprocessSpec
from detector_core.errors import BadConfig, BadImage
from detector_core.images.decode import Pixels, decode
from detector_core.images.preprocess import square

PIXELS, BROKEN = "pixels.npy", "broken.json"
SPARE_BYTES = 2**30
"""What filling leaves free on the disk."""


class DecodedSplit:
    """A filled cache of one split: ``read(row)`` is the row's pixels SSC, or the reason why there are none."""

    def __init__(self, folder: Path) -> None:
        self.pixels_NSSC: Pixels = np.load(folder / PIXELS, mmap_mode="r")
        reasons: dict[str, str] = json.loads((folder / BROKEN).read_text())
        self.broken = {int(row): reason for row, reason in reasons.items()}

    def read(self, row: int) -> Pixels | str:
        """A copy of the row's pixels, or a reason."""
        return self.broken.get(row) or np.array(self.pixels_NSSC[row])


def load_square(path: str, preprocess: PreprocessSpec) -> Pixels | str:
    """An image file as image_SSC uint8, or the reason why it cannot be read."""
    try:
        return square(decode(storage.read_bytes(path)), preprocess)
    except BadImage as error:
        return f"{path}: {error}"
    except FileNotFoundError:
        return f"{path}: the file is gone"


def open_split(
    cache: Path, fingerprint: str, rows: pd.DataFrame, root: str, preprocess: PreprocessSpec
) -> DecodedSplit:
    """The cache of a split's rows, filled first if nobody has.

    Raises:
        BadConfig: the disk has no room for it.
    """
    folder = cache / _key(fingerprint, rows, preprocess)
    cache.mkdir(parents=True, exist_ok=True)
    with storage.locked(folder.with_suffix(".lock")):
        if not (folder / BROKEN).exists():
            _fill(folder, [storage.join(root, path) for path in rows["path"]], preprocess)
    return DecodedSplit(folder)


def _fill(folder: Path, paths: list[str], preprocess: PreprocessSpec) -> None:
    size = preprocess.image_size
    needed, free = len(paths) * size * size * 3, shutil.disk_usage(folder.parent).free
    if needed + SPARE_BYTES > free:
        raise BadConfig(
            f"--cache {folder.parent}: {len(paths):,} images at {size} px take {needed / 2**30:.1f} GiB, and "
            f"{free / 2**30:.1f} GiB are free: name a larger disk, or --cache none to decode at every use"
        )
    broken: dict[int, str] = {}
    with storage.replacing(folder) as beside:
        beside.mkdir()
        pixels = np.lib.format.open_memmap(beside / PIXELS, "w+", np.uint8, (len(paths), size, size, 3))

        def put(row: int) -> None:
            found = load_square(paths[row], preprocess)
            if isinstance(found, str):
                broken[row] = found
            else:
                pixels[row] = found

        with ThreadPoolExecutor(os.cpu_count()) as pool:
            for _ in pool.map(put, range(len(paths))):
                pass
        pixels.flush()
        (beside / BROKEN).write_text(json.dumps(broken))


def _key(fingerprint: str, rows: pd.DataFrame, preprocess: PreprocessSpec) -> str:
    split = hashlib.sha256("\n".join(rows["path"]).encode()).hexdigest()
    parts = f"{fingerprint} {split} {preprocess.image_size} {preprocess.interpolation}"
    return hashlib.sha256(parts.encode()).hexdigest()[:32]
