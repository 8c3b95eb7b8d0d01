"""Readiness is probed rarely and survives load; a broken or hanging model is noticed."""

import asyncio

import httpx
import numpy as np
import pytest
from fastapi.testclient import TestClient

from detector_core.images.decode import Pixels
from detector_core.registry.predictor import Prediction, Predictor
from serve_app import health
from serve_app.errors import Busy, Unavailable
from serve_app.health import ForwardPassMonitor, HealthTracked, Readiness
from tests.support.http_service import JPEG, PredictorClient, image_bytes, make_app, status_and_code

PIXELS = np.zeros((32, 32, 3), np.uint8)


class ScriptedClient(PredictorClient):
    """Counts its predictions; each takes ``seconds`` and then raises ``error``, if there is one."""

    def __init__(self, predictor: Predictor) -> None:
        super().__init__(predictor)
        self.predictions, self.seconds = 0, 0.0
        self.error: Exception | None = None

    async def predict(self, image_SSC: Pixels) -> Prediction:
        self.predictions += 1
        await asyncio.sleep(self.seconds)
        if self.error:
            raise self.error
        return await super().predict(image_SSC)


@pytest.fixture
def model_client(predictor: Predictor) -> ScriptedClient:
    return ScriptedClient(predictor)


@pytest.fixture
def client(predictor: Predictor, model_client: ScriptedClient) -> TestClient:
    return TestClient(make_app(predictor, model_client))


def test_an_answer_is_reused_for_a_few_seconds(
    client: TestClient, model_client: ScriptedClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert [client.get("/readyz").status_code for _ in range(5)] == [200] * 5
    assert model_client.predictions == 1
    model_client.error = Unavailable("restarting")
    assert client.get("/readyz").status_code == 200
    monkeypatch.setattr(health, "FRESH_S", 0)
    assert status_and_code(client.get("/readyz")) == (503, "unavailable")
    model_client.error = None
    assert client.get("/readyz").status_code == 200


def test_an_answer_to_any_request_counts(client: TestClient, model_client: ScriptedClient) -> None:
    client.get("/readyz")
    assert client.post("/v1/detect", content=image_bytes(), headers=JPEG).status_code == 200
    assert model_client.predictions == 2
    assert client.get("/readyz").status_code == 200
    assert model_client.predictions == 2


def test_a_busy_model_is_ready_once_it_has_answered(
    client: TestClient, model_client: ScriptedClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(health, "FRESH_S", 0)
    model_client.error = Busy()
    assert status_and_code(client.get("/readyz")) == (503, "unavailable")
    model_client.error = None
    assert client.get("/readyz").status_code == 200
    model_client.error = Busy()
    assert client.get("/readyz").status_code == 200


def test_a_model_that_hangs_is_not_ready(
    client: TestClient, model_client: ScriptedClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert client.get("/readyz").status_code == 200
    monkeypatch.setattr(health, "FRESH_S", 0)
    monkeypatch.setattr(health, "ANSWER_S", 0.1)
    model_client.seconds = 60
    assert status_and_code(client.get("/readyz")) == (503, "unavailable")


@pytest.mark.parametrize("way", ["error", "time limit"])
def test_a_full_queue_is_no_excuse_once_four_images_in_a_row_had_no_answer(
    model_client: ScriptedClient, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    tracked = HealthTracked(model_client)
    readiness = Readiness(tracked, lambda: tracked.predict(PIXELS))

    async def fail_one() -> None:
        model_client.error, model_client.seconds = (RuntimeError("CUDA"), 0) if way == "error" else (None, 60)
        with pytest.raises((RuntimeError, TimeoutError)):
            async with asyncio.timeout(0.05):
                await tracked.predict(PIXELS)
        model_client.error, model_client.seconds = Busy(), 0

    async def play() -> None:
        await readiness.check()
        monkeypatch.setattr(health, "ANSWER_S", 0.01)
        for _ in range(3):
            await fail_one()
            await readiness.check()
        await fail_one()
        monkeypatch.setattr(health, "ANSWER_S", 5)
        with pytest.raises(Busy):
            await readiness.check()
        model_client.error = None
        await readiness.check()

    asyncio.run(play())


def test_clients_that_leave_early_do_not_make_a_model_look_broken(
    model_client: ScriptedClient,
) -> None:
    tracked = HealthTracked(model_client)

    async def leave_early() -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await tracked.predict(PIXELS)

    model_client.seconds = 60
    asyncio.run(leave_early())
    assert tracked.unanswered == 0


@pytest.mark.parametrize("error", [None, Unavailable("restarting")])
def test_concurrent_probes_share_one_prediction(
    predictor: Predictor, model_client: ScriptedClient, error: Exception | None
) -> None:
    model_client.seconds, model_client.error = 0.2, error

    async def run() -> set[int]:
        transport = httpx.ASGITransport(app=make_app(predictor, model_client))
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            return {answer.status_code for answer in await asyncio.gather(*(client.get("/readyz") for _ in range(20)))}

    assert asyncio.run(run()) == {503 if error else 200}
    assert model_client.predictions == 1


def broken() -> None:
    raise RuntimeError("CUDA error")


def test_a_detector_is_healthy_while_its_passes_succeed() -> None:
    monitor = ForwardPassMonitor()
    monitor.check(broken)
    with monitor.track():
        monitor.check(broken)
    monitor.check(broken)


def test_a_failed_pass_is_retried_before_the_detector_is_unhealthy() -> None:
    monitor, retries = ForwardPassMonitor(), list[int]()
    with pytest.raises(ValueError, match="once"), monitor.track():
        raise ValueError("once")
    with pytest.raises(RuntimeError, match="CUDA"):
        monitor.check(broken)
    monitor.check(lambda: retries.append(1))
    monitor.check(lambda: retries.append(2))
    assert retries == [1]


def test_a_pass_that_hangs_makes_the_detector_unhealthy(monkeypatch: pytest.MonkeyPatch) -> None:
    monitor = ForwardPassMonitor()
    monkeypatch.setattr(health, "STUCK_S", -1)
    with monitor.track(), pytest.raises(TimeoutError, match="forward pass"):
        monitor.check(broken)


def test_passes_may_overlap_and_the_oldest_one_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monitor = ForwardPassMonitor()
    stuck = monitor.track()
    with stuck:
        with monitor.track():
            pass
        monitor.check(broken)
        monkeypatch.setattr(health, "STUCK_S", -1)
        with monitor.track(), pytest.raises(TimeoutError, match="forward pass"):
            monitor.check(broken)
