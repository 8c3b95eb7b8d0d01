"""The id of a request: the client's own if it is valid, else a new one."""

import re
import uuid
from collections.abc import Sequence
from typing import Final

HEADER: Final = "X-Request-ID"
_VALID = re.compile(r"[A-Za-z0-9._-]{1,64}")


def choose(given: Sequence[str]) -> str:
    """The id of a request.

    Args:
        given: the values of its X-Request-ID headers. Anything but a single valid one is ignored, because the id
            appears in the answer, the log and feedback.
    """
    return given[0] if len(given) == 1 and _VALID.fullmatch(given[0]) else str(uuid.uuid4())
