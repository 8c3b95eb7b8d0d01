"""Lists the files below a folder: each folder once, however many links lead to it, and nothing left out in silence."""

import os
import stat
from collections import deque
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


def list_files(where: str, expected: str) -> Listing:
    """Lists all files below a folder or URI, at any depth.

    Args:
        expected: ends the sentence of the error, such as "a folder of images".

    Raises:
        BadData: ``where`` is not a folder.
        StorageUnavailable, OSError: the folder cannot be listed. A subfolder that cannot is left out.
    """
    filesystem, top = locate(where)
    if filesystem.get_file_info(top).type != fs.FileType.Directory:
        problem = "is not a folder" if exists(where) else "does not exist"
        raise BadData(f"{where} {problem}: give {expected}")
    listing = _local(top) if isinstance(filesystem, fs.LocalFileSystem) else _remote(filesystem, top)
    listing.files.sort()
    listing.left_out.sort()
    return listing


def _remote(filesystem: fs.FileSystem, top: str) -> Listing:
    listing, prefix = Listing(), len(top.rstrip("/")) + 1
    for info in filesystem.get_file_info(fs.FileSelector(top, recursive=True)):
        path = info.path[prefix:]
        if info.type != fs.FileType.File:
            continue  # a folder, whose files are listed too
        if path.startswith(".") or "/." in path:
            listing.left_out.append((path, _HIDDEN))
        else:
            listing.files.append((path, info.size or 0, info.mtime_ns or 0))
    return listing


def _local(top: str) -> Listing:
    listing, visited = Listing(), set()
    folders, links = deque([""]), deque[str]()  # links last: a folder is listed under its own path, if it is below top
    while folders or links:
        folder = folders.popleft() if folders else links.popleft()
        try:
            status = Path(top, folder).stat()
            if (status.st_dev, status.st_ino) in visited:
                listing.left_out.append((folder, "a link to a folder that is listed already"))
                continue
            visited.add((status.st_dev, status.st_ino))
            with os.scandir(Path(top, folder)) as entries:
                found = sorted(entries, key=lambda entry: entry.name)
        except OSError as error:
            if not folder:
                raise
            listing.left_out.append((folder, f"the folder cannot be opened: {error.strerror}"))
            continue
        for entry in found:
            path = f"{folder}/{entry.name}" if folder else entry.name
            examined = _examine(entry)
            if isinstance(examined, str):
                listing.left_out.append((path.encode(errors="backslashreplace").decode(), examined))
            elif stat.S_ISDIR(examined.st_mode):
                (links if entry.is_symlink() else folders).append(path)
            else:
                listing.files.append((path, examined.st_size, examined.st_mtime_ns))
    return listing


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
