"""An append-only store of images that users donate with a label, for later training.

::

    FOLDER/images/SHA256.SUFFIX                the image without metadata, stored once
    FOLDER/records/SHA256-LABEL.json           one per image and label, and what the service had predicted
    FOLDER/givers/SHA256-LABEL/GIVER           empty: somebody else who gave the same image with the same label

An image is written before its record, and both appear atomically. The same image given again with the same label
counts once, however many people, processes or machines give it; how many agree only decides how early it is reviewed. A
label is only what a user claims: nothing learns from it before it was reviewed (:mod:`detector_core.data.review`, which
also deletes donations).
"""

import json
import os
import re
import shutil
import tempfile
import threading
import time
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

from detector_core import storage
from detector_core.errors import BadConfig, BadData, InsufficientResources
from detector_core.images import metadata
from detector_core.images.decode import MAX_PIXELS, decode
from detector_core.labels import LABELS

FORMAT: Final = 2
READABLE: Final = (1, FORMAT)
"""Format 1 had neither ``p_fake`` nor ``giver``."""
_ID: Final = re.compile(r"[0-9a-f]+-(?:real|fake)")
_TYPES: Final[dict[str, Any]] = {
    **dict.fromkeys(("id", "time", "sha256", "image", "label", "verdict", "request_id", "giver"), str),
    "model": dict,
    "p_fake": float | int | None,
    "consent": bool,
}
IMAGES: Final = "images"
RECORDS: Final = "records"
GIVERS: Final = "givers"
MAX_GIVERS: Final = 20
"""Largest number of further givers that are noted for a tag; more would fill the folder without saying more."""
ROUND_IMAGES: Final = "round-images"
"""Where a round of relearning keeps the images that networks read, while it runs (:mod:`detector_core.data.tagged`)."""
ROUND_RUNS: Final = "round-runs"
"""Where a round keeps the run that fine-tunes the network, until it has finished (:mod:`jobs.run.fine_tune`)."""
ROUND_LOCK: Final = "relearn.lock"
"""Held by the round that is running on the folder."""
FREE_BYTES: Final = 10**9
"""Free disk space below which the store accepts no more donations."""
_RECOUNT_S: Final = 60.0
"""Seconds after which the size of the folder, which several processes may share, is measured again."""


@dataclass(frozen=True, kw_only=True)
class Record:
    """One donation.

    Attributes:
        id: name of the record: the beginning of the image's sha256, and the label.
        time: UTC, ISO 8601.
        sha256: of the stored image file.
        image: path of the image file, relative to the folder.
        label: what the image shows according to the user: real or fake.
        verdict: the verdict that the service had given; empty if there was none.
        p_fake: the probability of fake that the service had given; None if there was none.
        model: name, version and sha256 of the model that was live.
        request_id: id of the request with that verdict; empty if unknown.
        giver: pseudonym of the API key or network that sent it; empty if unknown.
        consent: whether the user agreed to the use of the image; always true.
        format: version of this format.
    """

    id: str
    time: str
    sha256: str
    image: str
    label: str
    verdict: str
    model: dict[str, str]
    request_id: str
    p_fake: float | None = None
    giver: str = ""
    consent: bool = True
    format: int = FORMAT


@dataclass(frozen=True, kw_only=True)
class Donation:
    """The answer to a donation: the id of its record, and whether it is new, not given before with this label."""

    id: str
    is_new: bool


class Store:
    """A folder of donations.

    Args:
        folder: created if it does not exist; several processes may share it.
        max_bytes: maximum total size of the images and records; what else the folder has, such as the rounds of
            relearning, does not count. Processes that share the folder may notice up to a minute late that
            it is full.
    """

    def __init__(self, folder: str | Path, max_bytes: int) -> None:
        self._folder, self._max_bytes = Path(folder), max_bytes
        self._lock = threading.Lock()
        self._used_bytes, self._measured_at = 0, -_RECOUNT_S

    def probe(self) -> None:
        """Writes a temporary file into the folder. Raises BadConfig if that fails."""
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=self._folder):
                pass
        except OSError as error:
            raise BadConfig(f"feedback_folder {self._folder} cannot be written to ({error.strerror})") from None

    def add(self, data: bytes, label: str, *, max_pixels: int = MAX_PIXELS, **more: Any) -> Donation:
        """:meth:`add_stripped` for the bytes of an image with its metadata, which is removed.

        Raises:
            BadImage, TooManyPixels: the bytes are not a complete image, or it is larger than ``max_pixels``.
        """
        return self.add_stripped(*metadata.strip(data, decode(data, max_pixels=max_pixels)), label, **more)

    def add_stripped(
        self,
        image: bytes,
        suffix: str,
        label: str,
        *,
        model: dict[str, str],
        verdict: str = "",
        p_fake: float | None = None,
        request_id: str = "",
        giver: str = "",
    ) -> Donation:
        """Stores an image whose user consented to it, unless it was stored with this label before.

        Args:
            image, suffix: a file without metadata, from :func:`detector_core.images.metadata.strip`.
            label: real or fake.
            model, verdict, p_fake, request_id, giver: see :class:`Record`.

        Raises:
            BadData: the label is neither real nor fake.
            InsufficientResources: the folder or the disk is full.
        """
        if label not in LABELS:
            raise BadData(f"label is {label!r}: it must be one of {', '.join(LABELS)}")
        digest = sha256(image).hexdigest()
        record = Record(
            id=f"{digest[:32]}-{label}",
            time=datetime.now(UTC).isoformat(timespec="microseconds"),
            sha256=digest,
            image=f"{IMAGES}/{digest}{suffix}",
            label=label,
            verdict=verdict,
            model=model,
            request_id=request_id,
            p_fake=p_fake,
            giver=giver,
        )
        record_json = json.dumps(asdict(record), indent=1).encode()
        path = self._folder / RECORDS / f"{record.id}.json"
        with self._lock:
            if path.exists():
                self._note_giver(record)
                return Donation(id=record.id, is_new=False)
            self._reserve(len(image) + len(record_json))
            image_path = self._folder / record.image
            if not image_path.exists():
                storage.write_bytes(image_path, image)
            storage.write_bytes(path, record_json)
        return Donation(id=record.id, is_new=True)

    def _note_giver(self, again: Record) -> None:
        """Notes that somebody else, if it is somebody else, has given a stored image with the same label."""
        first = read_one(self._folder, again.id)
        if first and again.giver not in ("", first.giver) and count_givers(self._folder, again.id) <= MAX_GIVERS:
            name = sha256(again.giver.encode()).hexdigest()[:16]
            storage.write_bytes(self._folder / GIVERS / again.id / name, b"")

    def _reserve(self, size: int) -> None:
        """Counts ``size`` more bytes as used. Raises InsufficientResources if there is no space for them."""
        if time.monotonic() - self._measured_at > _RECOUNT_S:
            given = (file for name in (IMAGES, RECORDS) for file in os.walk(self._folder / name))
            self._used_bytes = sum(_size(Path(top, name)) for top, _, names in given for name in names)
            self._measured_at = time.monotonic()
        if self._used_bytes + size > self._max_bytes:
            limit = f"{self._max_bytes / 2**20:g} MiB"
            raise InsufficientResources(f"the feedback folder is full ({limit}): move its donations elsewhere")
        existing = next(path for path in (self._folder.absolute(), *self._folder.absolute().parents) if path.exists())
        if shutil.disk_usage(existing).free < FREE_BYTES + size:
            raise InsufficientResources("the disk of the feedback folder is nearly full: free some space on it")
        self._used_bytes += size


def _size(path: Path) -> int:
    """The size of a file; 0 if another process has deleted or renamed it meanwhile."""
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def read(folder: str | Path) -> list[Record]:
    """The donations in a folder, the oldest first; those that are deleted meanwhile are left out.

    Raises:
        BadData: a file is not a valid record.
    """
    records = (_read(path) for path in (Path(folder) / RECORDS).glob("*.json"))
    return sorted((record for record in records if record), key=lambda record: (record.time, record.id))


def count_givers(folder: str | Path, id_: str) -> int:
    """How many have given the image of a record with its label; at most 1 + MAX_GIVERS are noted."""
    return 1 + sum(not path.name.startswith(".") for path in (Path(folder) / GIVERS / id_).glob("*"))


def read_one(folder: str | Path, id_: str) -> Record | None:
    """The donation with an id, which may come from a stranger; None if there is none. Raises BadData: see read."""
    return _read(Path(folder) / RECORDS / f"{id_}.json") if _ID.fullmatch(id_) else None


def _read(path: Path) -> Record | None:
    try:
        fields: dict[str, Any] = json.loads(path.read_bytes())
        record = Record(**fields)
    except FileNotFoundError:
        return None
    except (ValueError, TypeError) as error:
        raise BadData(f"{path} is not a feedback record: {error}") from None
    if record.format not in READABLE:
        raise BadData(f"{path} has format {record.format}, this version reads {READABLE[0]} to {FORMAT}")
    try:
        _check(record, path.stem)
    except ValueError as error:
        raise BadData(f"{path} is not a feedback record: {error}; restore it from a backup or delete it") from None
    return record


def _check(record: Record, name: str) -> None:
    """Raises ValueError, which names the field, unless the values of a record called ``name`` are possible.

    What deletes and exports images trusts ``image``, so it must be the file in ``images/`` that ``sha256`` names.
    """
    for field, kind in _TYPES.items():
        if not isinstance(getattr(record, field), kind):
            raise ValueError(f"{field} is {getattr(record, field)!r}")
    datetime.fromisoformat(record.time)
    if record.id != name:
        raise ValueError(f"id is {record.id!r}, and the file's name is another")
    if record.label not in LABELS:
        raise ValueError(f"label is {record.label!r}: it must be one of {', '.join(LABELS)}")
    if record.p_fake is not None and not 0 <= record.p_fake <= 1:
        raise ValueError(f"p_fake is {record.p_fake}: it must be from 0 to 1")
    if not re.fullmatch(r"[0-9a-f]{64}", record.sha256):
        raise ValueError(f"sha256 is {record.sha256!r}: it must be 64 hexadecimal digits")
    if not re.fullmatch(rf"{IMAGES}/{record.sha256}\.[a-z0-9]+", record.image):
        raise ValueError(f"image is {record.image!r}: it must be {IMAGES}/, the sha256 and a suffix")
