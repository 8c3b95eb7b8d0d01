"""The deployments as plain objects, without a running Ray Serve."""

import asyncio
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from detector_core.evaluation import drift
from serve_app.deployments import BoundedModelClient, Detector
from serve_app.errors import Busy
from serve_app.settings import Settings
from tests.support.models import SIZE, save_model

IMAGE = np.zeros((SIZE, SIZE, 3), np.uint8)


def test_a_replica_with_a_broken_engine_fails_its_health_check(tmp_path: Path) -> None:
    """Until a forward pass succeeds again."""

    async def run() -> None:
        detector = Detector.func_or_class(Settings(model=str(save_model(tmp_path / "tiny"))))
        await detector.check_health()
        await detector.predict(IMAGE)
        loaded = detector._live.current
        engine, loaded._engine = loaded._engine, lambda _: 1 / 0
        with pytest.raises(ZeroDivisionError):
            await detector.predict(IMAGE)
        with pytest.raises(ZeroDivisionError):
            await detector.check_health()
        loaded._engine = engine
        await detector.check_health()

    asyncio.run(run())


def test_a_replica_measures_how_far_its_scores_drift(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The model calls everything the same, which no mix of the reals and fakes of its test report explains."""
    monkeypatch.setattr(drift, "WINDOW", 20)
    monkeypatch.setattr(drift, "STEP", 5)

    async def run(model: Path) -> float:
        detector = Detector.func_or_class(Settings(model=str(model)))
        await asyncio.gather(*(detector.predict(IMAGE) for _ in range(20)))
        return float(detector._metrics.drift._value)

    assert asyncio.run(run(save_model(tmp_path / "evaluated", auc=0.9))) > 0.25
    assert asyncio.run(run(save_model(tmp_path / "never-evaluated", auc=None))) == 0


class StubHandle:
    """A handle to detectors that answer only once ``answers`` is set."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.answers = asyncio.Event()

    def __getattr__(self, method: str) -> Any:
        class Method:
            @staticmethod
            async def remote(*_: object) -> str:
                self.calls.append(method)
                await self.answers.wait()
                return method

        return Method


def test_a_question_about_the_model_does_not_count_as_an_image() -> None:
    async def run() -> None:
        handle, waiting = StubHandle(), list[int]()
        client = BoundedModelClient(handle, Settings(model="m", max_queued=50), waiting.append)  # type: ignore[arg-type]
        infos = [asyncio.create_task(client.model_info()) for _ in range(3)]
        images = [asyncio.create_task(client.predict(IMAGE)) for _ in range(50)]
        await asyncio.sleep(0.1)
        with pytest.raises(Busy):
            await client.predict(IMAGE)
        handle.answers.set()
        await asyncio.gather(*infos, *images)
        assert handle.calls.count("model_info") == 1
        assert handle.calls.count("predict") == 50
        assert (max(waiting), waiting[-1]) == (50, 0)

    asyncio.run(run())
