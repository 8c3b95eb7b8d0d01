"""What a model was trained and chosen on: the hashes of these images, kept in its folder, and what a data set repeats.

A model travels without its data set. With the hashes, any later evaluation can tell whether the images that it is
evaluated on are new to it. Hashes are no images: neither kind can be turned back into one.
"""

import io
from dataclasses import asdict, dataclass
from typing import Any, Final

import numpy as np
import pandas as pd

from detector_core import storage
from detector_core.data.duplicates import near_matches, unpack_hashes
from detector_core.data.inspect import HASH_BYTES
from detector_core.errors import BrokenArtifact

SEEN: Final = "seen.parquet"
"""The file in a model folder: ``sha256`` and ``phash`` of each image, and its ``use``, a split or TAGS."""
TAGS: Final = "tags"
UNKNOWN: Final = "the model folder does not say what the model was trained on"
OTHER_HASHES: Final = "a data set has perceptual hashes of another length"
NEAR_LIMIT: Final = 0.01
"""Above this fraction of near-duplicates, a set of images is not new to a model. Below it they are mostly other images
that happen to be alike: of 400 portraits of the set in docs/measured.md one is such a neighbor."""
_MAX_EXAMPLES: Final = 20


@dataclass(frozen=True, kw_only=True)
class Overlap:
    """How many of some images a model was trained or chosen on.

    Attributes:
        images: how many images there are.
        exact: how many of them are files that the model was trained or chosen on; None with ``reason``.
        near: how many others are near-duplicates of such files; None with ``reason``.
        examples: the first of both: ``path``, ``use`` of the image that it repeats, and ``exact``.
        reason: why a number is not known.
    """

    images: int = 0
    exact: int | None = None
    near: int | None = None
    examples: tuple[dict[str, Any], ...] = ()
    reason: str | None = None

    @property
    def found(self) -> bool:
        """Whether there is any."""
        return bool(self.exact or self.near)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "Overlap":
        """The inverse of :meth:`to_dict`."""
        return cls(**{**values, "examples": tuple(values["examples"])})

    def to_dict(self) -> dict[str, Any]:
        """The overlap as plain values; ``reason`` only if there is one."""
        values = {**asdict(self), "examples": list(self.examples)}
        return values if self.reason else {name: value for name, value in values.items() if name != "reason"}


def of_images(frame: pd.DataFrame) -> pd.DataFrame:
    """The hashes of a manifest's rows, all but those of its test split: columns sha256, phash (hexadecimal) and use.

    Args:
        frame: columns split, sha256 and phash.
    """
    return frame.loc[frame["split"] != "test", ["sha256", "phash", "split"]].rename(columns={"split": "use"})


def record(frame: pd.DataFrame) -> bytes:
    """The content of :data:`SEEN` for a manifest's rows, see :func:`of_images`."""
    return _to_bytes(of_images(frame))


def read(folder: str) -> pd.DataFrame | None:
    """The hashes in a model folder, columns sha256, phash (hexadecimal) and use; None if it has none.

    Raises:
        BrokenArtifact: the file is damaged.
    """
    where = storage.join(folder, SEEN)
    if not storage.exists(where):
        return None
    try:
        rows = pd.read_parquet(io.BytesIO(storage.read_bytes(where)), columns=["sha256", "phash", "use"])
        return rows.assign(**{name: rows[name].map(bytes.hex).astype("str") for name in ("sha256", "phash")})
    except (ValueError, OSError, TypeError) as error:
        raise BrokenArtifact(f"{where} cannot be read ({error}): copy the model again, or delete the file") from None


def extended(seen: pd.DataFrame | None, *more: pd.DataFrame) -> bytes | None:
    """The content of :data:`SEEN` of a model that learnt from more images; None if what it learnt before is not known.

    Args:
        more: columns sha256, phash and, unless they are tags, split.
    """
    if seen is None:
        return None
    tables = [rows.assign(use=rows.get("split", TAGS))[["sha256", "phash", "use"]] for rows in more]
    return _to_bytes(pd.concat([seen, *tables]).drop_duplicates("sha256"))


def overlap(seen: pd.DataFrame | None, rows: pd.DataFrame) -> Overlap:
    """Counts the images that a model was trained or chosen on.

    Args:
        seen: of :func:`read`, or None.
        rows: of a manifest: columns path, sha256 and phash.
    """
    if seen is None:
        return Overlap(images=len(rows), reason=UNKNOWN)
    uses: dict[str, str] = dict(zip(seen["sha256"], seen["use"], strict=True))
    exact_N = rows["sha256"].isin(list(uses)).to_numpy()
    examples = [
        {"path": path, "use": uses[sha256], "exact": True}
        for path, sha256 in rows.loc[exact_N, ["path", "sha256"]].head(_MAX_EXAMPLES).to_numpy().tolist()
    ]
    others = rows[~exact_N]
    if not all((of["phash"].str.len() == 2 * HASH_BYTES).all() for of in (seen, others)):
        return Overlap(images=len(rows), exact=int(exact_N.sum()), examples=tuple(examples), reason=OTHER_HASHES)
    ours, theirs = (unpack_hashes(of["phash"].tolist(), HASH_BYTES) for of in (others, seen))
    match_M = near_matches(ours, theirs)
    for index in np.flatnonzero(match_M >= 0)[: _MAX_EXAMPLES - len(examples)]:
        examples.append({"path": others["path"].iloc[index], "use": seen["use"].iloc[match_M[index]], "exact": False})
    near = int((match_M >= 0).sum())
    return Overlap(images=len(rows), exact=int(exact_N.sum()), near=near, examples=tuple(examples))


def _to_bytes(rows: pd.DataFrame) -> bytes:
    buffer = io.BytesIO()
    packed = {name: rows[name].map(bytes.fromhex) for name in ("sha256", "phash")}
    rows.assign(**packed).reset_index(drop=True).to_parquet(buffer, index=False)
    return buffer.getvalue()
