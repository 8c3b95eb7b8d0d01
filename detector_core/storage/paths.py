"""Files in a local folder, on a shared mount or in an object store (``s3://``, ``gs://``), through the same functions.

All of them use pyarrow's filesystems, which support S3 and Google Cloud Storage without further packages;
:mod:`detector_core.storage.object_stores` opens these two. Writes are atomic: a local file is written under a temporary
name and renamed, and an object appears only when it is complete.
"""

import errno
import fcntl
import json
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any, Final

from pyarrow import fs

from detector_core.errors import BadConfig, BadData, OperationRefused
from detector_core.storage import object_stores

MAX_JSON_BYTES: Final = 2**24
"""Maximum size of a JSON file that belongs to a model; a report of a large test split has less than 1 MB."""


def is_uri(where: str) -> bool:
    """Whether ``where`` is a URI of an object store or another filesystem, not a local path."""
    return "://" in where


def absolute(where: str | Path) -> str:
    """``where`` as a URI or an absolute local path, which does not depend on the working directory."""
    where = str(where)
    if where.startswith("file://"):
        where = where.removeprefix("file://")
    return where.rstrip("/") if is_uri(where) else str(Path(where).expanduser().absolute())


def join(where: str | Path, *parts: str) -> str:
    """Appends path components to ``where``; to nothing, if it is empty, for parts that are complete paths or URIs."""
    return "/".join([str(where).rstrip("/"), *parts] if str(where) else parts)


def locate(where: str | Path) -> tuple[fs.FileSystem, str]:
    """The filesystem of a path or URI, and the path within it.

    Raises:
        BadConfig: the URI contains more than bucket and path.
        BadData: the scheme of the URI is not supported.
        StorageUnavailable: the object store does not answer, denies access, or has no such bucket. Checked once per
            bucket and process.
    """
    if _in_store(where):
        return object_stores.locate(absolute(where))
    try:
        filesystem, path = fs.FileSystem.from_uri(absolute(where))
    except (ValueError, OSError) as error:
        raise BadData(f"{where} cannot be opened: {error}") from None
    return filesystem, path


def exists(where: str | Path) -> bool:
    """Whether a file or folder exists."""
    filesystem, path = locate(where)
    with _translate_errors(where):
        return bool(filesystem.get_file_info(path).type != fs.FileType.NotFound)


def read_bytes(where: str | Path) -> bytes:
    """Reads a whole file. Raises FileNotFoundError if it does not exist."""
    filesystem, path = locate(where)
    with _translate_errors(where), filesystem.open_input_stream(path) as stream:
        return bytes(stream.read())


def read_json(where: str | Path, max_bytes: int = MAX_JSON_BYTES) -> Any:
    """Reads a JSON file that may come from elsewhere.

    Raises:
        FileNotFoundError: it does not exist.
        ValueError: it is not valid JSON, larger than ``max_bytes``, or nested too deeply.
    """
    filesystem, path = locate(where)
    with _translate_errors(where), filesystem.open_input_stream(path) as stream:
        data = bytes(stream.read(max_bytes + 1))
    if len(data) > max_bytes:
        raise ValueError(f"it has more than {max_bytes:,} bytes")
    try:
        return json.loads(data)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def write_bytes(where: str | Path, data: bytes) -> None:
    """Writes a whole file atomically, creating its parent folders. Raises IsADirectoryError rather than replace one."""
    where = absolute(where)
    if not is_uri(where):
        if Path(where).is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), where)
        with replacing(Path(where)) as temporary:
            temporary.write_bytes(data)
        return
    filesystem, path = locate(where)
    with _translate_errors(where):
        if not _in_store(where):  # object stores have no folders
            filesystem.create_dir(path.rpartition("/")[0], recursive=True)
        with filesystem.open_output_stream(path) as stream:
            stream.write(data)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yields a temporary path next to ``path``; the file or folder written there replaces ``path`` on success.

    It gets the permissions that the umask gives to new files and folders. On an error it is removed and ``path`` stays
    as it was. Replacing an existing folder takes two renames.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
    temporary = scratch / path.name
    try:
        yield temporary
        _apply_umask(temporary)
        if path.is_dir():
            path.rename(scratch / "old")
        temporary.replace(path)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _apply_umask(top: Path) -> None:
    """Gives a file, or a folder and everything in it, the permissions that the umask gives to new ones.

    Copies of private files would stay private: another user could not serve a model that was copied from scratch.
    """
    probe = top.with_name(".probe")
    probe.mkdir()  # tells the umask without changing it for other threads, and what the folder inherits
    mode = stat.S_IMODE(probe.stat().st_mode)
    probe.rmdir()
    for path in (top, *top.rglob("*")):
        if not path.is_symlink():
            path.chmod(mode if path.is_dir() else mode & 0o666)


def put_folder(local: Path, where: str | Path, last: str) -> None:
    """Copies a local folder to ``where``; the file named ``last`` is written last and so marks completeness."""
    where = absolute(where)
    if not is_uri(where):
        with replacing(Path(where)) as temporary:
            shutil.copytree(local, temporary)
        return
    names = sorted(p.relative_to(local).as_posix() for p in local.rglob("*") if p.is_file())
    for name in sorted(names, key=lambda name: name == last):
        put_file(local / name, join(where, name))


def put_file(local: Path, where: str | Path) -> None:
    """Copies a local file to ``where``, atomically; it is never in memory as a whole."""
    where = absolute(where)
    if not is_uri(where):
        with replacing(Path(where)) as temporary:
            shutil.copyfile(local, temporary)
        return
    filesystem, path = locate(where)
    with _translate_errors(where):
        if not _in_store(where):  # object stores have no folders
            filesystem.create_dir(path.rpartition("/")[0], recursive=True)
        with local.open("rb") as source, filesystem.open_output_stream(path) as stream:
            shutil.copyfileobj(source, stream, 2**20)


@contextmanager
def local_copy(where: str | Path) -> Iterator[Path]:
    """Yields a local folder with the files of ``where``: the folder itself if it is local, else a temporary copy."""
    where = absolute(where)
    if not is_uri(where):
        yield Path(where)
        return
    with tempfile.TemporaryDirectory(prefix="detector-") as scratch:
        filesystem, path = locate(where)
        with _translate_errors(where):
            fs.copy_files(path, scratch, source_filesystem=filesystem)
        yield Path(scratch)


def names(where: str | Path) -> list[str]:
    """The sorted names of the files and folders in a folder; an empty list if the folder does not exist."""
    filesystem, path = locate(where)
    with _translate_errors(where):
        infos = filesystem.get_file_info(fs.FileSelector(path, allow_not_found=True))
    return sorted(info.base_name for info in infos)


def delete_file(where: str | Path) -> None:
    """Deletes a file if it exists."""
    filesystem, path = locate(where)
    with _translate_errors(where):
        if filesystem.get_file_info(path).type == fs.FileType.File:
            filesystem.delete_file(path)


def delete_folder(where: str | Path) -> None:
    """Deletes a folder and everything in it if it exists."""
    filesystem, path = locate(where)
    with _translate_errors(where):
        if filesystem.get_file_info(path).type == fs.FileType.Directory:
            filesystem.delete_dir(path)


def private_folder(name: str) -> Path:
    """A folder below the system's temporary folder that only this user can access; created if it does not exist.

    Raises:
        BadConfig: the path exists and is not a folder of this user.
    """
    folder = Path(tempfile.gettempdir()) / f"{name}-{os.getuid()}"
    with suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    if folder.is_symlink() or not folder.is_dir() or folder.stat().st_uid != os.getuid():
        raise BadConfig(f"{folder} is not a folder of this user: delete it, or set TMPDIR to another folder")
    return folder


@contextmanager
def locked(path: Path, *, busy: str = "") -> Iterator[None]:
    """Holds an exclusive file lock, which the kernel releases if the process dies.

    Args:
        busy: refuse with this message if another process holds the lock; by default, wait for it.

    Raises:
        OperationRefused: another process holds the lock.
    """
    with path.open("w") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | (fcntl.LOCK_NB if busy else 0))
        except BlockingIOError:
            raise OperationRefused(busy) from None
        yield


def _in_store(where: str | Path) -> bool:
    return str(where).partition("://")[0] in object_stores.SCHEMES and is_uri(str(where))


def _translate_errors(where: str | Path) -> AbstractContextManager[None]:
    """Translates errors of an object store; those of a disk stay as they are."""
    return object_stores.translate_errors(absolute(where)) if _in_store(where) else nullcontext()
