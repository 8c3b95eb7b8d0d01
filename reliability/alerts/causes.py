"""What makes each alert fire: real trouble for a running service, which ends with the ``with`` block."""

import contextlib
import os
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from detector_core.networks import artifacts
from detector_core.registry import canaries, versions
from tests.support.serving import Service, marked

CLIENTS, PAUSE_S = 4, 0.15
CROWD = 40
DETECTOR = b"ServeReplica:detector:Detector"
TIMEOUT_S = 7
"""``http.timeout_s`` of the service."""
SLOW_S, FAST_S = 5.5, 1.0
READY, NOT_READY = 200, 503


@dataclass
class Traffic:
    """What the clients send, one image after another; may be changed while they run.

    Attributes:
        body: the image.
        path: where it is sent.
    """

    service: Service
    body: bytes
    path: str = "/v1/detect"

    @contextlib.contextmanager
    def running(self, clients: int = CLIENTS) -> Iterator[None]:
        """Runs some clients for the duration of a ``with`` block."""
        ended = threading.Event()
        threads = [threading.Thread(target=self._client, args=(ended,), name="client") for _ in range(clients)]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            ended.set()
            for thread in threads:
                thread.join()

    def _client(self, ended: threading.Event) -> None:
        while not ended.wait(PAUSE_S):
            with contextlib.suppress(OSError):  # a service that was killed is what some alerts are about
                self.service.request("POST", self.path, self.body, "image/png")


@dataclass(frozen=True, kw_only=True)
class Scene:
    """What a cause may disturb.

    Attributes:
        fake: an image that the model calls fake; the traffic's own is called real.
        feedback: the folder of the service's feedback.
    """

    service: Service
    traffic: Traffic
    fake: bytes
    feedback: Path


@dataclass(frozen=True, kw_only=True)
class Cause:
    """How an alert is made to fire.

    Attributes:
        alert: its name in alerts.yml.
        what: in words, for the table.
        disturb: does it for the duration of a ``with`` block, and undoes it then.
        ready: the status of ``/readyz`` once the alert fires; None if nothing answers.
    """

    alert: str
    what: str
    disturb: Callable[[Scene], AbstractContextManager[None]]
    ready: int | None = READY


@contextlib.contextmanager
def _stopped_detector(scene: Scene) -> Iterator[None]:
    (detector,) = scene.service.pids(DETECTOR)
    os.kill(detector, signal.SIGSTOP)
    try:
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):  # Serve may have replaced it
            os.kill(detector, signal.SIGCONT)


@contextlib.contextmanager
def _slow_detector(scene: Scene) -> Iterator[None]:
    (detector,) = scene.service.pids(DETECTOR)
    ended = threading.Event()

    def pulse() -> None:
        while not ended.is_set():
            os.kill(detector, signal.SIGSTOP)
            ended.wait(SLOW_S)
            os.kill(detector, signal.SIGCONT)
            ended.wait(FAST_S)

    thread = threading.Thread(target=pulse, name="pulse")
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


@contextlib.contextmanager
def _lost_feedback(scene: Scene) -> Iterator[None]:
    aside = scene.feedback.with_name("aside")
    scene.feedback.rename(aside)
    scene.feedback.write_text("not a folder")
    scene.traffic.path = "/v1/detect?tag=real&consent=true"
    try:
        yield
    finally:
        scene.traffic.path = "/v1/detect"
        scene.feedback.unlink()
        aside.rename(scene.feedback)


@contextlib.contextmanager
def _crowd(scene: Scene) -> Iterator[None]:
    with scene.traffic.running(CROWD):
        yield


@contextlib.contextmanager
def _damaged_model(scene: Scene) -> Iterator[None]:
    models = scene.service.models
    live = versions.history(models)[0]
    shutil.copytree(models / live, models / "damaged")
    (models / "damaged" / artifacts.WEIGHTS).write_bytes(b"cut off")
    (models / versions.LIVE).write_text(f"damaged\n{live}\n")
    try:
        yield
    finally:
        versions.rollback(models)


@contextlib.contextmanager
def _damaged_candidate(scene: Scene) -> Iterator[None]:
    models = scene.service.models
    shutil.copytree(models / versions.history(models)[0], models / "candidate")
    (models / "candidate" / artifacts.WEIGHTS).write_bytes(b"cut off")
    canaries.start(models, "candidate", share=0.1)
    try:
        yield
    finally:
        canaries.stop(models)


@contextlib.contextmanager
def _fakes_only(scene: Scene) -> Iterator[None]:
    real, scene.traffic.body = scene.traffic.body, scene.fake
    try:
        yield
    finally:
        scene.traffic.body = real


@contextlib.contextmanager
def _killed(scene: Scene) -> Iterator[None]:
    scene.service.process.kill()
    while marked(scene.service.mark):
        time.sleep(0.2)
    yield


CAUSES = (
    Cause(
        alert="DetectorScoresDrift",
        what="500 images whose scores lie where the model's own test split has none",
        disturb=lambda _: contextlib.nullcontext(),
    ),
    Cause(
        alert="DetectorVerdictsShift",
        what="after a time of images called real, all are called fake",
        disturb=_fakes_only,
    ),
    Cause(
        alert="DetectorErrors",
        what="the feedback folder becomes a file, and clients send tags",
        disturb=_lost_feedback,
    ),
    Cause(
        alert="DetectorKeepsAnOldModel",
        what="a model whose weights are cut off is made live",
        disturb=_damaged_model,
    ),
    Cause(
        alert="DetectorCanaryFailed",
        what="a canary of a candidate whose weights are cut off",
        disturb=_damaged_candidate,
    ),
    Cause(
        alert="DetectorSlow",
        what=f"SIGSTOP to the detector for {SLOW_S:g} of every {SLOW_S + FAST_S:g} s",
        disturb=_slow_detector,
    ),
    Cause(
        alert="DetectorRefuses",
        what=f"{CROWD} more clients than the service has room for",
        disturb=_crowd,
    ),
    Cause(
        alert="DetectorAnswersNobody",
        what="SIGSTOP to the detector",
        disturb=_stopped_detector,
        ready=NOT_READY,
    ),
    Cause(
        alert="DetectorGone",
        what="SIGKILL to the service",
        disturb=_killed,
        ready=None,
    ),
)
"""In the order in which they are tried; the last one ends the service."""
