"""The folder of batches: what clients have sent to be scored later, and the results.

Several replicas share it. A batch appears by a rename, a result by a rename, and who works on a batch holds a lock that
the kernel releases when its process dies: so nothing is lost and nothing has two results, whenever a replica is killed.
"""

import dataclasses
import fcntl
import hashlib
import hmac
import json
import logging
import os
import re
import secrets
import shutil
import threading
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from detector_core.data.feedback import FREE_BYTES
from detector_core.errors import BadConfig
from detector_core.storage import replacing
from serve_app.errors import Refusal, Unavailable

Status = Literal["queued", "running", "done", "canceled"]
MAX_ATTEMPTS: Final = 3
"""How often a file is begun: one that ends the process each time is given up."""
RETRY_AFTER_S: Final = 60
_ID: Final = re.compile(r"[0-9a-f]{32}")
_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Batch:
    """A batch as it was sent.

    Attributes:
        created: Unix time.
        owner: pseudonym of the client.
        digest: of everything that was sent, so that the same request is told from another one with the same key.
        files: how many.
        webhook: where to report the end; None for nowhere.
        webhook_secret: the key of the webhook's signature.
    """

    id: str
    created: float
    owner: str
    digest: str
    files: int
    webhook: str | None
    webhook_secret: str


@dataclass(frozen=True, kw_only=True)
class Progress:
    """How far a batch is; ``ended`` is the Unix time of its end."""

    status: Status
    done: int
    failed: int
    ended: float | None


class BatchStore:
    """A folder of batches.

    Args:
        folder: created if it does not exist. On a cluster every node sees it under this path.
        files_per_client: how many files of one client may wait at a time.
        keep_s: how long a batch is kept after its end, in seconds.

    Raises:
        BadConfig: the folder cannot be written to.
    """

    def __init__(self, folder: str, files_per_client: int, keep_s: float) -> None:
        self._folder, self._files_per_client, self.keep_s = Path(folder), files_per_client, keep_s
        self._adding = threading.Lock()
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._secret = self._read_secret()
        except OSError as error:
            raise BadConfig(f"batches_folder {folder} cannot be used ({error.strerror})") from None

    def pseudonym(self, client: str) -> str:
        """What a client is called in the folder."""
        return hmac.new(self._secret, client.encode(), "sha256").hexdigest()[:32]

    def create(self, contents: Sequence[bytes | str], owner: str, key: str | None, webhook: str | None) -> Batch:
        """Adds a batch, or returns the one that the same client has sent with the same key.

        Args:
            contents: the bytes of each file, or its URL.
            key: of an idempotent request; None if every request is a batch of its own.

        Raises:
            Refusal: 422 if another request had the key, 429 if too many files of the client wait.
            Unavailable: the disk is full or fails.
        """
        digest = hashlib.sha256(repr(webhook).encode())
        for content in contents:
            data = content.encode() if isinstance(content, str) else content
            digest.update(hashlib.sha256(data).digest() + type(content).__name__.encode())
        batch = Batch(
            id=self.pseudonym(f"{owner} {key}") if key else uuid.uuid4().hex,
            created=time.time(),
            owner=owner,
            digest=digest.hexdigest(),
            files=len(contents),
            webhook=webhook,
            webhook_secret=secrets.token_hex(32),
        )
        with self._adding:  # requests that come at the same time see each other's files
            if known := self._known(batch.id, batch.digest):
                return known
            waiting = sum(other.files - self.progress(other).done for other in self.pending() if other.owner == owner)
            if waiting + batch.files > self._files_per_client:
                text = f"{waiting} files of yours wait: at most {self._files_per_client} may"
                raise Refusal(429, text, headers={"Retry-After": str(RETRY_AFTER_S)})
            return self._add(batch, contents)

    def get(self, identifier: str, owner: str) -> Batch:
        """A batch of a client. Raises Refusal (404)."""
        batch = self._read(identifier)
        if batch is None or batch.owner != owner:
            raise Refusal(404, "there is no such batch, or it was deleted, or it is another client's")
        return batch

    def progress(self, batch: Batch) -> Progress:
        """How far a batch is."""
        folder = self._folder / batch.id
        names = [entry.name for entry in os.scandir(folder / "results")] if (folder / "results").is_dir() else []
        done = [name for name in names if name.endswith((".ok", ".failed"))]
        ended = _read_json(folder / "ended.json")
        status: Status = "running" if done else "queued"
        return Progress(
            status=ended["status"] if ended else "canceled" if self.is_canceled(batch) else status,
            done=len(done),
            failed=sum(name.endswith(".failed") for name in done),
            ended=ended["time"] if ended else None,
        )

    def results(self, batch: Batch, start: int, count: int) -> list[dict[str, Any]]:
        """The results that exist, of the files from ``start`` on."""
        numbers = range(start, min(batch.files, start + count))
        return [json.loads(path.read_bytes()) for number in numbers if (path := self._result(batch, number))]

    def cancel(self, batch: Batch) -> None:
        """Ends a batch after the file that is being scored; its results stay."""
        (self._folder / batch.id / "canceled").touch()

    def is_canceled(self, batch: Batch) -> bool:
        """Whether somebody has canceled a batch."""
        return (self._folder / batch.id / "canceled").exists()

    def pending(self) -> Iterator[Batch]:
        """The batches that have not ended, the oldest first."""
        batches = (self._read(path.name) for path in self._folder.iterdir() if not (path / "ended.json").exists())
        yield from sorted((batch for batch in batches if batch), key=lambda batch: batch.created)

    def unreported(self) -> Iterator[Batch]:
        """The batches whose end has not been reported to their webhook."""
        for path in self._folder.iterdir():
            batch = self._read(path.name) if (path / "ended.json").exists() else None
            if batch and batch.webhook and not self.is_reported(batch):
                yield batch

    @contextmanager
    def claimed(self, batch: Batch) -> Iterator[bool]:
        """Tries to be the only one who works on a batch, for a ``with`` block."""
        try:
            lock = (self._folder / batch.id / "lock").open("w")
        except FileNotFoundError:  # deleted meanwhile
            yield False
            return
        with lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield False
                return
            yield True

    def begin(self, batch: Batch, index: int) -> int:
        """Records that a file is begun; returns how often it was, 0 if it has a result."""
        if self._result(batch, index):
            return 0
        attempts = self._folder / batch.id / "attempts" / f"{index}"
        count = (int(attempts.read_text()) if attempts.exists() else 0) + 1
        with replacing(attempts) as temporary:
            temporary.write_text(str(count))
        return count

    def content(self, batch: Batch, index: int) -> bytes | str:
        """The bytes of a file, or its URL."""
        path = self._folder / batch.id / "files" / f"{index}"
        url = path.with_suffix(".url")
        return url.read_text() if url.exists() else path.read_bytes()

    def put_result(self, batch: Batch, index: int, result: dict[str, Any]) -> None:
        """Stores the result of a file, and deletes the file."""
        suffix = "failed" if result.get("error") else "ok"
        with replacing(self._folder / batch.id / "results" / f"{index}.{suffix}") as temporary:
            temporary.write_text(json.dumps(result))
        for path in (self._folder / batch.id / "files").glob(f"{index}*"):
            if path.stem == f"{index}":
                path.unlink()

    def end(self, batch: Batch) -> None:
        """Records that a batch has ended, and deletes its files."""
        status = "canceled" if self.is_canceled(batch) else "done"
        shutil.rmtree(self._folder / batch.id / "files", ignore_errors=True)
        _write_json(self._folder / batch.id / "ended.json", {"status": status, "time": time.time()})

    def is_reported(self, batch: Batch) -> bool:
        """Whether the webhook was called, or given up."""
        return (self._folder / batch.id / "reported.json").exists()

    def reported(self, batch: Batch, *, delivered: bool) -> None:
        """Records that the webhook was called."""
        _write_json(self._folder / batch.id / "reported.json", {"delivered": delivered})

    def sweep(self) -> None:
        """Deletes batches whose time is over, and what a killed process has left."""
        for path in self._folder.iterdir():
            with suppress(FileNotFoundError):  # another replica was faster
                ended = _read_json(path / "ended.json")
                since = ended["time"] if ended else path.stat().st_mtime if path.name.startswith(".new-") else None
                if since is not None and time.time() > since + self.keep_s:
                    shutil.rmtree(path, ignore_errors=True)

    def _add(self, batch: Batch, contents: Sequence[bytes | str]) -> Batch:
        new = self._folder / f".new-{uuid.uuid4().hex}"
        try:
            if shutil.disk_usage(self._folder).free < FREE_BYTES:
                raise OSError(f"less than {FREE_BYTES:,} bytes are free")
            (new / "files").mkdir(parents=True)
            for index, content in enumerate(contents):
                if isinstance(content, str):
                    (new / "files" / f"{index}.url").write_text(content)
                else:
                    (new / "files" / f"{index}").write_bytes(content)
            _write_json(new / "batch.json", dataclasses.asdict(batch))
            new.rename(self._folder / batch.id)
        except OSError:
            shutil.rmtree(new, ignore_errors=True)
            if known := self._known(batch.id, batch.digest):  # the same request came twice at the same time
                return known
            _log.exception("a batch of %d files was not stored", batch.files)
            raise Unavailable("the batch cannot be stored now: send it again later", RETRY_AFTER_S) from None
        return batch

    def _known(self, identifier: str, digest: str) -> Batch | None:
        known = self._read(identifier)
        if known and known.digest != digest:
            raise Refusal(422, "another request had this Idempotency-Key: choose a new one", "bad_parameter")
        return known

    def _read(self, identifier: str) -> Batch | None:
        fields = _read_json(self._folder / identifier / "batch.json") if _ID.fullmatch(identifier) else None
        return Batch(**fields) if fields else None

    def _result(self, batch: Batch, index: int) -> Path | None:
        paths = (self._folder / batch.id / "results" / f"{index}.{suffix}" for suffix in ("ok", "failed"))
        return next((path for path in paths if path.exists()), None)

    def _read_secret(self) -> bytes:
        """The key of pseudonyms, made by the first process that needs it."""
        path, new = self._folder / "key", self._folder / f".new-key-{uuid.uuid4().hex}"
        if not path.exists():
            new.touch(0o600)
            new.write_bytes(secrets.token_bytes(32))
            try:
                os.link(new, path)
            except FileExistsError:
                pass
            finally:
                new.unlink()
        return path.read_bytes()


def _read_json(path: Path) -> dict[str, Any] | None:
    try:
        fields: dict[str, Any] = json.loads(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        return None
    return fields


def _write_json(path: Path, fields: dict[str, Any]) -> None:
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(fields))
