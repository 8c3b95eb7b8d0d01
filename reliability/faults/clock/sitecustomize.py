"""Python's wall clock, moved by the seconds in the file FALSE_CLOCK: first on PYTHONPATH, every Python reads this.

Only ``time.time``, ``time.time_ns`` and ``datetime.now`` are moved, not what C++ code asks: waits stay as long as they
are. The type datetime is of C and cannot be replaced (pandas is built on it), so its method is changed in place.
"""

import ctypes
import datetime
import gc
import os
import time
from pathlib import Path

_file = Path(os.environ["FALSE_CLOCK"])
_time, _time_ns, _now = time.time, time.time_ns, datetime.datetime.now


def _moved() -> int:
    return int(_file.read_text() or 0) if _file.exists() else 0


def _false_now(cls: type, tz: datetime.tzinfo | None = None) -> datetime.datetime:  # noqa: ARG001 -- a class method
    return _now(tz) + datetime.timedelta(seconds=_moved())


time.time = lambda: _time() + _moved()
time.time_ns = lambda: _time_ns() + _moved() * 10**9
gc.get_referents(datetime.datetime.__dict__)[0]["now"] = classmethod(_false_now)
ctypes.pythonapi.PyType_Modified(ctypes.py_object(datetime.datetime))
