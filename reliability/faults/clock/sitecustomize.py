"""Shifts Python's wall clock by the number of seconds in the file that FALSE_CLOCK names.

Every Python whose PYTHONPATH begins with this folder imports it at start-up. It shifts ``time.time``,
``time.time_ns`` and ``datetime.now`` only: C++ code reads the real clock, so waits keep their length.
"""

import ctypes
import datetime
import gc
import os
import time
from pathlib import Path

_file = Path(os.environ["FALSE_CLOCK"])
_time, _time_ns, _now = time.time, time.time_ns, datetime.datetime.now


def _offset_s() -> int:
    return int(_file.read_text() or 0) if _file.exists() else 0


def _shifted_now(cls: type, tz: datetime.tzinfo | None = None) -> datetime.datetime:  # noqa: ARG001 -- a class method
    return _now(tz) + datetime.timedelta(seconds=_offset_s())


time.time = lambda: _time() + _offset_s()
time.time_ns = lambda: _time_ns() + _offset_s() * 10**9
# datetime is a C type, and pandas subclasses it, so the class stays and its method is replaced in place.
gc.get_referents(datetime.datetime.__dict__)[0]["now"] = classmethod(_shifted_now)
ctypes.pythonapi.PyType_Modified(ctypes.py_object(datetime.datetime))
