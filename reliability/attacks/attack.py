"""What an attack is, and what it cost."""

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What an attack cost the service, and what an ordinary user saw meanwhile.

    Attributes:
        answers: what the attackers got, such as ``400``.
        cpu_s: CPU time of the replicas and their children for the whole attack, without that of the ordinary user.
        asked, refused: requests of the ordinary user during the attack, and how many of them were not answered.
        slowest_s: the longest that the ordinary user waited.
        cut_off: whether the measurement ended before the attack did.
    """

    answers: str
    cpu_s: float
    asked: int
    refused: int
    slowest_s: float
    cut_off: bool = False


@dataclass(frozen=True, kw_only=True)
class Attack:
    """One row of the table.

    Attributes:
        name: what the attackers do.
        make: the bodies they send, all at the same time, each on its own connection.
        path, content_type: where to, and as what.
        max_cpu_s: CPU time that the attack may cost on one core of a server.
        before: the outcome of the same attack on the service before it had bounds (commit fee5771).
        needs_faces: whether the bodies are made of real faces (DETECTOR_FACES).
    """

    name: str
    make: Callable[[], list[bytes]]
    before: Outcome
    max_cpu_s: float
    path: str = "/v1/detect"
    content_type: str = "image/jpeg"
    needs_faces: bool = False
