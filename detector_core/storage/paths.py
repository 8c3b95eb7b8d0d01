"""Places that hold files: a local folder, a shared mount, or an object store (``s3://``, ``gs://``), alike.

Everything goes through pyarrow's filesystems, which need no further package for S3 and Google Cloud Storage;
:mod:`detector_core.storage.object_stores` opens these two.
Writes are atomic: a local file is written beside its name and renamed, an object appears only when it is complete.
"""

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from pathlib import Path

from pyarrow import fs

from detector_core.errors import BadConfig, BadData
from detector_core.storage import object_stores


def is_uri(where: str) -> bool:
    """Whether ``where`` names an object store or another filesystem instead of a local path."""
    return "://" in where


def absolute(where: str | Path) -> str:
    """``where`` as a URI, or as an absolute local path: the same place whatever the working directory."""
    where = str(where)
    if where.startswith("file://"):
        where = where.removeprefix("file://")
    return where.rstrip("/") if is_uri(where) else str(Path(where).expanduser().absolute())


def join(where: str | Path, *parts: str) -> str:
    """``where`` with path parts appended."""
    return "/".join([str(where).rstrip("/"), *parts])


def locate(where: str | Path) -> tuple[fs.FileSystem, str]:
    """The filesystem of a place and the path in it.

    Raises:
        BadConfig: a URI that says more than bucket and path.
        BadData: a URI whose scheme is not known.
        StorageUnavailable: an object store that does not answer, refuses, or has no such bucket; tried once a process.
    """
    if _in_store(where):
        return object_stores.locate(absolute(where))
    try:
        found: tuple[fs.FileSystem, str] = fs.FileSystem.from_uri(absolute(where))
    except (ValueError, OSError) as error:
        raise BadData(f"{where} cannot be opened: {error}") from None
    return found


def exists(where: str | Path) -> bool:
    """Whether a file or folder is there."""
    filesystem, path = locate(where)
    with _named(where):
        return bool(filesystem.get_file_info(path).type != fs.FileType.NotFound)


def read_bytes(where: str | Path) -> bytes:
    """A whole file. Raises FileNotFoundError."""
    filesystem, path = locate(where)
    with _named(where), filesystem.open_input_stream(path) as stream:
        return bytes(stream.read())


def write_bytes(where: str | Path, data: bytes) -> None:
    """Writes a whole file atomically, making the folders above it."""
    where = absolute(where)
    if not is_uri(where):
        with replacing(Path(where)) as beside:
            beside.write_bytes(data)
        return
    filesystem, path = locate(where)
    with _named(where):
        if not _in_store(where):  # an object needs no folder
            filesystem.create_dir(path.rpartition("/")[0], recursive=True)
        with filesystem.open_output_stream(path) as stream:
            stream.write(data)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary name beside ``path`` to write a file or folder under; on success it takes the place of ``path``.

    On an error the temporary name is removed and ``path`` is as it was. A folder that stood at ``path`` is
    replaced by two renames.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
    beside = scratch / path.name
    try:
        yield beside
        if path.is_dir():
            path.rename(scratch / "old")
        beside.replace(path)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def put_folder(local: Path, where: str | Path, last: str) -> None:
    """Moves a finished local folder to its place; the file named ``last`` arrives last, so it marks completeness."""
    where = absolute(where)
    if not is_uri(where):
        with replacing(Path(where)) as beside:
            shutil.copytree(local, beside)
        return
    names = sorted(p.relative_to(local).as_posix() for p in local.rglob("*") if p.is_file())
    for name in sorted(names, key=lambda name: name == last):
        write_bytes(join(where, name), (local / name).read_bytes())


@contextmanager
def local_copy(where: str | Path) -> Iterator[Path]:
    """A local folder with the files of ``where``: itself when it is local, else a temporary download."""
    where = absolute(where)
    if not is_uri(where):
        yield Path(where)
        return
    with tempfile.TemporaryDirectory(prefix="detector-") as scratch:
        filesystem, path = locate(where)
        with _named(where):
            fs.copy_files(path, scratch, source_filesystem=filesystem)
        yield Path(scratch)


def names(where: str | Path) -> list[str]:
    """The names of the files and folders in a folder, in order; none where there is no such folder."""
    filesystem, path = locate(where)
    with _named(where):
        found = filesystem.get_file_info(fs.FileSelector(path, allow_not_found=True))
    return sorted(info.base_name for info in found)


def delete_file(where: str | Path) -> None:
    """Removes a file; nothing where there is none."""
    filesystem, path = locate(where)
    with _named(where):
        if filesystem.get_file_info(path).type == fs.FileType.File:
            filesystem.delete_file(path)


def delete_folder(where: str | Path) -> None:
    """Removes a folder and all that is in it; nothing where there is none."""
    filesystem, path = locate(where)
    with _named(where):
        if filesystem.get_file_info(path).type == fs.FileType.Directory:
            filesystem.delete_dir(path)


def private_folder(name: str) -> Path:
    """A folder of this user alone below the machine's folder of temporary files.

    Raises:
        BadConfig: somebody else made it.
    """
    folder = Path(tempfile.gettempdir()) / f"{name}-{os.getuid()}"
    with suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    if folder.is_symlink() or not folder.is_dir() or folder.stat().st_uid != os.getuid():
        raise BadConfig(f"{folder} belongs to somebody else: remove it, or set TMPDIR to a folder of your own")
    return folder


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Holds a file lock, which a process that dies lets go."""
    with path.open("w") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield


def _in_store(where: str | Path) -> bool:
    return str(where).partition("://")[0] in object_stores.SCHEMES and is_uri(str(where))


def _named(where: str | Path) -> AbstractContextManager[None]:
    """Errors of an object store in one line; those of a disk as they are."""
    return object_stores.named(absolute(where)) if _in_store(where) else nullcontext()
