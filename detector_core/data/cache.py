"""A cache of the decoded images of a split on a node's disk, shared by all processes through the page cache.

::

    CACHE/KEY/
      pixels.npy     uint8 NSSC, each image as :func:`detector_core.images.preprocess.square` returns it; memory-mapped
      broken.json    {row: reason} for images that could not be decoded; written last

The first process that needs a split fills the cache under a lock while the others wait. The key is a hash over the data
set's fingerprint and everything that affects the pixels, so all runs on the same images at the same size share a cache.
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
"""Disk space that filling a cache leaves free."""


class DecodedSplit:
    """A filled cache of one split."""

    def __init__(self, folder: Path) -> None:
        self.pixels_NSSC: Pixels = np.load(folder / PIXELS, mmap_mode="r")
        reasons: dict[str, str] = json.loads((folder / BROKEN).read_text())
        self.broken = {int(row): reason for row, reason in reasons.items()}

    def read(self, row: int) -> Pixels | str:
        """A copy of the row's image_SSC, or the reason why it could not be decoded."""
        return self.broken.get(row) or np.array(self.pixels_NSSC[row])


def load_square(path: str, preprocess: PreprocessSpec) -> Pixels | str:
    """Reads an image file as image_SSC uint8; returns the reason if it cannot be decoded."""
    try:
        return square(decode(storage.read_bytes(path)), preprocess)
    except BadImage as error:
        return f"{path}: {error}"
    except FileNotFoundError:
        return f"{path}: the file does not exist"


def open_split(
    cache: Path, fingerprint: str, rows: pd.DataFrame, root: str, preprocess: PreprocessSpec
) -> DecodedSplit:
    """Opens the cache of a split's rows, filling it first if it does not exist.

    Args:
        cache: folder for all caches.
        fingerprint: fingerprint of the data set.
        rows: the rows of the split, with ``path``.
        root: folder or URI that the paths are relative to.
        preprocess: size and interpolation of the cached images.

    Raises:
        BadConfig: the disk has too little space.
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
            f"--cache {folder.parent}: {len(paths):,} images at {size} px need {needed / 2**30:.1f} GiB, and "
            f"{free / 2**30:.1f} GiB are free: use a larger disk, or --cache none to decode images at every use"
        )
    broken: dict[int, str] = {}
    with storage.replacing(folder) as temporary:
        temporary.mkdir()
        pixels = np.lib.format.open_memmap(temporary / PIXELS, "w+", np.uint8, (len(paths), size, size, 3))

        def decode_row(row: int) -> None:
            image_SSC = load_square(paths[row], preprocess)
            if isinstance(image_SSC, str):
                broken[row] = image_SSC
            else:
                pixels[row] = image_SSC

        with ThreadPoolExecutor(os.cpu_count()) as pool:
            for _ in pool.map(decode_row, range(len(paths))):
                pass
        pixels.flush()
        (temporary / BROKEN).write_text(json.dumps(broken))


def _key(fingerprint: str, rows: pd.DataFrame, preprocess: PreprocessSpec) -> str:
    split = hashlib.sha256("\n".join(rows["path"]).encode()).hexdigest()
    parts = f"{fingerprint} {split} {preprocess.image_size} {preprocess.interpolation}"
    return hashlib.sha256(parts.encode()).hexdigest()[:32]
