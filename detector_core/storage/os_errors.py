"""What a user can do about an error of the operating system, in one line: ``what (file): remedy``."""

import errno
import os
import re
from typing import Final

from detector_core.errors import first_line

_AGAIN: Final = "run the same command again to continue"
_REMEDIES: Final = {
    errno.ENOENT: ("there is no such file or folder", "check the path"),
    errno.EACCES: ("permission denied", "give user {user} access to it, or choose another path"),
    errno.EPERM: ("the operation is not permitted", "run the command as the owner, or choose another path"),
    errno.EROFS: ("the disk is read-only", "choose another path"),
    errno.ENOTDIR: ("a part of the path is a file, not a folder", "choose another path"),
    errno.EISDIR: ("a folder is where a file should be", "move it away, or choose another path"),
    errno.EEXIST: ("the file exists already", "move it away, or choose another path"),
    errno.ENOTEMPTY: ("the folder is not empty", "move its files away, or choose another path"),
    errno.ENAMETOOLONG: ("the name is too long", "choose a shorter path"),
    errno.ELOOP: ("the symbolic links lead in a circle", "correct them, or choose another path"),
    errno.ENOSPC: ("the disk is full", f"free some space, then {_AGAIN}"),
    errno.EDQUOT: ("the disk quota is used up", f"free some space, then {_AGAIN}"),
    errno.EFBIG: ("the file is too large for this disk or process", "choose another disk, or raise ulimit -f"),
    errno.EMFILE: ("too many files are open", f"raise ulimit -n, then {_AGAIN}"),
    errno.EPIPE: ("the reader of the output has ended", "run the command again without it"),
    errno.EADDRINUSE: ("the address is in use", "choose another port"),
    errno.EADDRNOTAVAIL: ("this machine does not have the address", "choose another host"),
}
"""What happened and what to do, for errors that remain until somebody does something."""


def is_lasting(error: OSError) -> bool:
    """Whether an error remains until somebody does something, so that a second attempt alone is pointless."""
    return error.errno in _REMEDIES


def explain(error: OSError) -> str:
    """Explains an error in one line that names the file and what to do."""
    cause = getattr(error, "cause", None)  # of an error that Ray carried here with the traceback of a worker
    error = cause if isinstance(cause, OSError) else error
    what, remedy = _REMEDIES.get(error.errno or 0, (error.strerror or first_line(error), _AGAIN))
    file = _file_of(error)
    return f"{what}{f' ({file})' if file else ''}: {remedy.format(user=os.geteuid())}"


def _file_of(error: OSError) -> str:
    """The file that an error is about; libraries such as pyarrow name it only in the message, in quotation marks."""
    if error.filename is not None:
        return os.fsdecode(error.filename) if isinstance(error.filename, str | bytes) else ""
    named = re.search(r"'([^']*/[^']*)'", str(error))
    return named[1] if named and error.errno in _REMEDIES else ""
