"""Lists the files below a folder: each folder once, however many links lead to it, and nothing left out in silence."""

import os
import stat
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from pyarrow import fs

from detector_core.errors import BadData
from detector_core.storage.paths import exists, locate


@dataclass(frozen=True, kw_only=True)
class Listing:
    """The files below a folder; paths are relative to it.

    Attributes:
        files: path, size in bytes and time of modification in ns, sorted by path.
        left_out: path and reason of every other file or folder.
    """

    files: list[tuple[str, int, int]] = field(default_factory=list)
    left_out: list[tuple[str, str]] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A file below a folder, with its size in bytes and time of modification in ns; ``reason`` if it is left out."""

    path: str
    size: int = 0
    modified: int = 0
    reason: str | None = None


def list_files(where: str, expected: str) -> Listing:
    """Lists all files below a folder or URI, at any depth.

    Args:
        expected: ends the sentence of the error, such as "a folder of images".

    Raises:
        BadData: ``where`` is not a folder.
        StorageUnavailable, OSError: the folder cannot be listed. A subfolder that cannot is left out.
    """
    listing = Listing()
    for entry in walk_files(where, expected):
        if entry.reason is None:
            listing.files.append((entry.path, entry.size, entry.modified))
        else:
            listing.left_out.append((entry.path, entry.reason))
    listing.files.sort()
    listing.left_out.sort()
    return listing


def walk_files(where: str, expected: str) -> Iterator[Entry]:
    """:func:`list_files` one by one, in no particular order; of a local folder, no list is ever held in memory."""
    filesystem, top = locate(where)
    if filesystem.get_file_info(top).type != fs.FileType.Directory:
        problem = "is not a folder" if exists(where) else "does not exist"
        raise BadData(f"{where} {problem}: give {expected}")
    yield from _local(top) if isinstance(filesystem, fs.LocalFileSystem) else _remote(filesystem, top)


def _remote(filesystem: fs.FileSystem, top: str) -> Iterator[Entry]:
    prefix = len(top.rstrip("/")) + 1
    for info in filesystem.get_file_info(fs.FileSelector(top, recursive=True)):
        path = info.path[prefix:]
        if info.type != fs.FileType.File:
            continue  # a folder, whose files are listed too
        if path.startswith(".") or "/." in path:
            yield Entry(path=path, reason=_HIDDEN)
        else:
            yield Entry(path=path, size=info.size or 0, modified=info.mtime_ns or 0)


def _local(top: str) -> Iterator[Entry]:
    visited = set()
    folders, links = deque([""]), deque[str]()  # links last: a folder is listed under its own path, if it is below top
    while folders or links:
        folder = folders.popleft() if folders else links.popleft()
        found: dict[bool, list[str]] = {False: [], True: []}
        try:
            status = Path(top, folder).stat()
            if (status.st_dev, status.st_ino) in visited:
                yield Entry(path=folder, reason="a link to a folder that is listed already")
                continue
            visited.add((status.st_dev, status.st_ino))
            entries = os.scandir(Path(top, folder))
        except OSError as error:
            if not folder:
                raise
            yield Entry(path=folder, reason=f"the folder cannot be opened: {error.strerror}")
            continue
        with entries:
            for entry in entries:
                path = f"{folder}/{entry.name}" if folder else entry.name
                examined = _examine(entry)
                if isinstance(examined, str):
                    yield Entry(path=path.encode(errors="backslashreplace").decode(), reason=examined)
                elif stat.S_ISDIR(examined.st_mode):
                    found[entry.is_symlink()].append(path)
                else:
                    yield Entry(path=path, size=examined.st_size, modified=examined.st_mtime_ns)
        folders.extend(sorted(found[False]))
        links.extend(sorted(found[True]))


_HIDDEN = "hidden: its name begins with a dot"


def _examine(entry: "os.DirEntry[str]") -> os.stat_result | str:
    """The status of a file or folder, or the reason why it is left out."""
    if entry.name.startswith("."):
        return _HIDDEN
    try:
        entry.name.encode()
        status = entry.stat()
    except UnicodeEncodeError:
        return "its name is not valid UTF-8: rename it"
    except FileNotFoundError:
        return "a link to a file that does not exist"
    except OSError as error:
        return f"the file cannot be opened: {error.strerror}"
    is_file_or_folder = stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode)
    return status if is_file_or_folder else "a device, not a file"
