"""Images that users chose to give, with their label: an append-only store that learning reads later.

::

    FOLDER/images/SHA256.jpg or .png      the image without metadata, once
    FOLDER/records/TIME-SHA256.json         one for each time it was given: label, what the service had said

An image lies before its record, and both appear whole. To forget a gift delete its record, and its image if no other
record names it. A label is what somebody claims: whoever learns from it must judge it first.
"""

import json
import os
import secrets
import shutil
import tempfile
import threading
import time
from collections.abc import Iterator
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

FORMAT: Final = 1
IMAGES: Final = "images"
RECORDS: Final = "records"
FREE_BYTES: Final = 10**9
"""The store takes nothing more when the disk has less left."""
_RECOUNT_S: Final = 60.0


@dataclass(frozen=True, kw_only=True)
class Record:
    """One gift.

    Attributes:
        id: its name; the time and the image's sha256 begin it.
        time: UTC, ISO 8601.
        sha256: of the stored file ``image``, a path relative to the folder.
        label: what the user says the image is: real or fake.
        verdict: what the service had said, empty if it was not asked; ``model`` its name, version and sha256.
        request_id: of the request that gave the verdict, empty if unknown.
    """

    id: str
    time: str
    sha256: str
    image: str
    label: str
    verdict: str
    model: dict[str, str]
    request_id: str
    consent: bool = True
    format: int = FORMAT


class Store:
    """A folder of gifts.

    Args:
        folder: several processes may share it.
        max_bytes: most that the files in it may take together. Processes that share it look at most a minute late.
    """

    def __init__(self, folder: str | Path, max_bytes: int) -> None:
        self._folder, self._max_bytes = Path(folder), max_bytes
        self._lock = threading.Lock()
        self._held, self._counted = 0, -_RECOUNT_S

    def probe(self) -> None:
        """Writes a file and takes it away. Raises BadConfig where gifts could not be kept."""
        try:
            with tempfile.TemporaryFile(dir=_made(self._folder)):
                pass
        except OSError as error:
            raise BadConfig(f"feedback_folder {self._folder} cannot be written to ({error.strerror})") from None

    def add(
        self,
        data: bytes,
        label: str,
        *,
        model: dict[str, str],
        verdict: str = "",
        request_id: str = "",
        max_pixels: int = MAX_PIXELS,
    ) -> str:
        """Keeps an image that its giver consented to; returns the id of the record.

        Raises:
            BadImage, TooManyPixels: not a whole image, or too large a one.
            InsufficientResources: the folder or the disk is full.
        """
        if label not in LABELS:
            raise BadData(f"label is {label!r}: it must be one of {', '.join(LABELS)}")
        bare, suffix = metadata.strip(data, decode(data, max_pixels=max_pixels))
        digest = sha256(bare).hexdigest()
        now = datetime.now(UTC)
        record = Record(
            id=f"{now:%Y%m%dT%H%M%S%fZ}-{digest[:16]}-{secrets.token_hex(2)}",
            time=now.isoformat(timespec="milliseconds"),
            sha256=digest,
            image=f"{IMAGES}/{digest}{suffix}",
            label=label,
            verdict=verdict,
            model=model,
            request_id=request_id,
        )
        said = json.dumps(asdict(record), indent=1).encode()
        with self._lock:
            self._take(len(bare) + len(said))
            image = self._folder / record.image
            if not image.exists():
                storage.write_bytes(image, bare)
            storage.write_bytes(self._folder / RECORDS / f"{record.id}.json", said)
        return record.id

    def _take(self, count: int) -> None:
        if time.monotonic() - self._counted > _RECOUNT_S:
            self._held = sum(_size(Path(top, name)) for top, _, names in os.walk(self._folder) for name in names)
            self._counted = time.monotonic()
        if self._held + count > self._max_bytes:
            raise InsufficientResources(
                f"the feedback folder holds its {self._max_bytes / 2**20:g} MiB: move its gifts elsewhere"
            )
        there = next(path for path in (self._folder.absolute(), *self._folder.absolute().parents) if path.exists())
        if shutil.disk_usage(there).free < FREE_BYTES + count:
            raise InsufficientResources("the disk of the feedback folder is nearly full")
        self._held += count


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:  # another process is writing
        return 0


def read(folder: str | Path) -> Iterator[Record]:
    """The gifts in a folder, the oldest first. Raises BadData for a record of another form."""
    for path in sorted((Path(folder) / RECORDS).glob("*.json")):
        try:
            found: dict[str, Any] = json.loads(path.read_bytes())
            record = Record(**found)
        except (ValueError, TypeError) as error:
            raise BadData(f"{path} is not a feedback record: {error}") from None
        if record.format != FORMAT:
            raise BadData(f"{path} has format {record.format}: {FORMAT} was expected")
        yield record
