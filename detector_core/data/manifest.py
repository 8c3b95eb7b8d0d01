"""A prepared data set: what ``index`` writes and everything later reads.

A data set folder holds ``manifest.parquet`` (one row an image), ``audit.json`` and ``dataset.json``, written last:
``{"format": 1, "root": where the images are, "name", "generated", "fingerprint", "counts"}``. The images stay
where they are; ``path`` in the manifest is relative to ``root``.
"""

import hashlib
import io
import json
from dataclasses import dataclass
from typing import Any

import pandas as pd

from detector_core import storage
from detector_core.errors import BadManifest
from detector_core.labels import LABELS, SPLITS

FORMAT = 1
MANIFEST, AUDIT, DATASET = "manifest.parquet", "audit.json", "dataset.json"
COLUMNS = ("path", "label", "split", "sha256", "width", "height", "bytes", "jpeg_quality", "phash")
GENERATED_MARK = "generated.json"
"""A folder of images that holds this file was rendered by ``detector_core.data.demo``."""


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """One row an image, and where the images are.

    Attributes:
        root: folder or URI that ``path`` is relative to.
        name: what to call the data set where its results are shown.
        generated: True for generated demo data.
        fingerprint: sha256 over every image's path, label, split and content hash.
        frame: the columns of :data:`COLUMNS`.
    """

    root: str
    name: str
    generated: bool
    fingerprint: str
    frame: pd.DataFrame

    def split(self, name: str) -> pd.DataFrame:
        """The rows of one split, in order of path. Raises BadManifest when there are none."""
        rows = self.frame[self.frame["split"] == name].sort_values("path").reset_index(drop=True)
        if rows.empty:
            raise BadManifest(f"the data set {self.name} has no images in its {name!r} split")
        return rows

    def describe(self) -> dict[str, Any]:
        """What a model or a report says about its data: plain values."""
        return {
            "name": self.name,
            "generated": self.generated,
            "fingerprint": self.fingerprint,
            "counts": counts(self.frame),
        }


def counts(frame: pd.DataFrame) -> dict[str, dict[str, int]]:
    """Images per split and label: ``{"train": {"real": n, "fake": m}, ...}``."""
    return {
        split: {label: int(((frame["split"] == split) & (frame["label"] == label)).sum()) for label in LABELS}
        for split in SPLITS
    }


def fingerprint(frame: pd.DataFrame) -> str:
    """sha256 over (path, label, split, sha256) of every row, in order of path."""
    rows = frame.sort_values("path")[["path", "label", "split", "sha256"]]
    digest = hashlib.sha256()
    for row in rows.itertuples(index=False):
        digest.update(("\t".join(row) + "\n").encode())
    return digest.hexdigest()


def save(
    dataset: str, frame: pd.DataFrame, *, root: str, name: str, generated: bool, audit: dict[str, Any]
) -> Manifest:
    """Writes a data set folder; ``dataset.json`` last, so that a folder without it is not a data set."""
    frame = frame[list(COLUMNS)].sort_values("path").reset_index(drop=True)
    manifest = Manifest(root=root, name=name, generated=generated, fingerprint=fingerprint(frame), frame=frame)
    buffer = io.BytesIO()
    frame.to_parquet(buffer, index=False)
    info = {"format": FORMAT, "root": root, **manifest.describe()}
    storage.write_bytes(storage.join(dataset, MANIFEST), buffer.getvalue())
    storage.write_bytes(storage.join(dataset, AUDIT), json.dumps(audit, indent=2).encode())
    storage.write_bytes(storage.join(dataset, DATASET), json.dumps(info, indent=2).encode())
    return manifest


def load(dataset: str) -> Manifest:
    """Reads a data set folder.

    Raises:
        BadManifest: not a prepared data set, of another format, or torn.
    """
    try:
        info = json.loads(storage.read_bytes(storage.join(dataset, DATASET)))
        frame = pd.read_parquet(io.BytesIO(storage.read_bytes(storage.join(dataset, MANIFEST))))
    except FileNotFoundError as error:
        raise BadManifest(
            f"{dataset} is not a prepared data set ({error.filename or DATASET} is missing): "
            f"make one with python -m jobs.prepare IMAGES --out DATASET, and name that DATASET"
        ) from None
    except (ValueError, OSError) as error:
        raise BadManifest(f"{dataset} cannot be read ({error}): prepare it again") from None
    if not isinstance(info, dict) or info.get("format") != FORMAT:
        found = info.get("format") if isinstance(info, dict) else info
        raise BadManifest(f"{dataset} has format {found!r}, this version reads {FORMAT}: prepare it again")
    lacking = [name for name in ("root", "name", "generated", "fingerprint") if name not in info]
    if lacking:
        raise BadManifest(f"{storage.join(dataset, DATASET)} has no {lacking[0]!r}: prepare it again")
    missing = [column for column in COLUMNS if column not in frame.columns]
    if missing:
        raise BadManifest(f"{storage.join(dataset, MANIFEST)} has no column {missing[0]!r}: prepare it again")
    if fingerprint(frame) != info["fingerprint"]:
        raise BadManifest(f"{dataset}: {MANIFEST} and {DATASET} do not belong together: prepare it again")
    return Manifest(
        root=info["root"],
        name=info["name"],
        generated=info["generated"],
        fingerprint=info["fingerprint"],
        frame=frame,
    )
