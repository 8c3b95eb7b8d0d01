"""Python's wall clock, moved by the seconds in the file FALSE_CLOCK: first on PYTHONPATH, every Python reads this.

Only ``time.time``, ``time.time_ns`` and ``datetime`` are moved, not what C++ code asks: waits stay as long as they are.
"""

import datetime
import os
import time
from pathlib import Path

_file = Path(os.environ["FALSE_CLOCK"])
_time, _time_ns, _real = time.time, time.time_ns, datetime.datetime


def _moved() -> int:
    return int(_file.read_text() or 0) if _file.exists() else 0


class _Like(type):
    def __instancecheck__(cls, instance: object) -> bool:
        return isinstance(instance, _real)


class _False(_real, metaclass=_Like):
    """A datetime whose now is moved; what it makes is a plain one, unless a class was made of it."""

    def __new__(cls, *values, **named):  # type: ignore[no-untyped-def]
        return _real.__new__(_real if cls is _False else cls, *values, **named)

    @classmethod
    def now(cls, tz: datetime.tzinfo | None = None) -> datetime.datetime:  # type: ignore[override]
        return _real.now(tz) + datetime.timedelta(seconds=_moved())

    @classmethod
    def utcnow(cls) -> datetime.datetime:  # type: ignore[override]
        return _real.now(datetime.UTC).replace(tzinfo=None) + datetime.timedelta(seconds=_moved())

    @classmethod
    def today(cls) -> datetime.datetime:  # type: ignore[override]
        return cls.now()


time.time = lambda: _time() + _moved()
time.time_ns = lambda: _time_ns() + _moved() * 10**9
datetime.datetime = _False  # type: ignore[misc]
