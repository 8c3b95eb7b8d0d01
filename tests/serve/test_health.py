"""Whether the model answers: /readyz costs little and holds under load; a broken detector is noticed."""

import asyncio

import httpx
import pytest
from fastapi.testclient import TestClient

from detector_core.images.decode import Pixels
from detector_core.registry.predictor import Prediction, Predictor
from serve_app import health
from serve_app.errors import Busy, Unavailable
from serve_app.health import ForwardPassMonitor
from tests.support.http_service import JPEG, PredictorClient, image_bytes, make_app, status_and_code


class Counting(PredictorClient):
    """Counts what it is asked; raises ``error`` while there is one; takes ``seconds``."""

    def __init__(self, predictor: Predictor) -> None:
        super().__init__(predictor)
        self.asked, self.seconds = 0, 0.0
        self.error: Exception | None = None

    async def predict(self, image_SSC: Pixels) -> Prediction:
        self.asked += 1
        await asyncio.sleep(self.seconds)
        if self.error:
            raise self.error
        return await super().predict(image_SSC)


@pytest.fixture
def judge(predictor: Predictor) -> Counting:
    return Counting(predictor)


@pytest.fixture
def client(predictor: Predictor, judge: Counting) -> TestClient:
    return TestClient(make_app(predictor, judge))


def test_one_answer_holds_for_a_while(client: TestClient, judge: Counting, monkeypatch: pytest.MonkeyPatch) -> None:
    assert [client.get("/readyz").status_code for _ in range(5)] == [200] * 5
    assert judge.asked == 1
    judge.error = Unavailable("restarting")
    assert client.get("/readyz").status_code == 200
    monkeypatch.setattr(health, "FRESH_S", 0)
    assert status_and_code(client.get("/readyz")) == (503, "unavailable")
    judge.error = None
    assert client.get("/readyz").status_code == 200


def test_an_answer_to_anybody_counts(client: TestClient, judge: Counting) -> None:
    client.get("/readyz")
    assert client.post("/v1/detect", content=image_bytes(), headers=JPEG).status_code == 200
    assert judge.asked == 2
    assert client.get("/readyz").status_code == 200
    assert judge.asked == 2


def test_a_busy_model_is_ready_once_it_has_answered(
    client: TestClient, judge: Counting, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(health, "FRESH_S", 0)
    judge.error = Busy()
    assert status_and_code(client.get("/readyz")) == (503, "unavailable")
    judge.error = None
    assert client.get("/readyz").status_code == 200
    judge.error = Busy()
    assert client.get("/readyz").status_code == 200


def test_a_model_that_hangs_is_not_ready(client: TestClient, judge: Counting, monkeypatch: pytest.MonkeyPatch) -> None:
    assert client.get("/readyz").status_code == 200
    monkeypatch.setattr(health, "FRESH_S", 0)
    monkeypatch.setattr(health, "ANSWER_S", 0.1)
    judge.seconds = 60
    assert status_and_code(client.get("/readyz")) == (503, "unavailable")


@pytest.mark.parametrize("error", [None, Unavailable("restarting")])
def test_those_who_ask_at_the_same_time_share_one_pass(
    predictor: Predictor, judge: Counting, error: Exception | None
) -> None:
    judge.seconds, judge.error = 0.2, error

    async def run() -> set[int]:
        transport = httpx.ASGITransport(app=make_app(predictor, judge))
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            return {answer.status_code for answer in await asyncio.gather(*(client.get("/readyz") for _ in range(20)))}

    assert asyncio.run(run()) == {503 if error else 200}
    assert judge.asked == 1


def test_passes_that_fail_are_tried_again_before_a_detector_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    passes, tried = ForwardPassMonitor(), list[int]()

    def broken() -> None:
        tried.append(1)
        raise RuntimeError("CUDA error")

    passes.check(broken)
    with passes.one():
        passes.check(broken)
    assert tried == []
    with pytest.raises(ValueError, match="once"), passes.one():
        raise ValueError("once")
    with pytest.raises(RuntimeError, match="CUDA"):
        passes.check(broken)
    passes.check(lambda: tried.append(2))
    passes.check(broken)
    assert tried == [1, 2]
    monkeypatch.setattr(health, "STUCK_S", -1)
    with passes.one(), pytest.raises(TimeoutError):
        passes.check(broken)
