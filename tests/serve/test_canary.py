"""A canary on a service, without Ray: who answers, what is counted, and how the candidate goes back."""

import asyncio
import logging
from dataclasses import replace
from pathlib import Path

import pytest

from detector_core.images.decode import Heat, Pixels
from detector_core.registry import canaries, versions
from detector_core.registry.canary import Answer, Comparison, Counts, Status
from serve_app import canary as canary_module
from serve_app import metrics
from serve_app.canary import CanaryRouter, NotLoaded
from serve_app.errors import Busy
from serve_app.middleware import RequestTimings
from tests.support.canary import AGREES, DISAGREES, IMAGES, Registry, Trial, make_registry


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Registry:
    return make_registry(tmp_path_factory.mktemp("registry"))


@pytest.fixture
def agreeing(registry: Registry, tmp_path: Path) -> Trial:
    return Trial(registry, tmp_path, AGREES)


@pytest.fixture
def disagreeing(registry: Registry, tmp_path: Path) -> Trial:
    return Trial(registry, tmp_path, DISAGREES)


def test_the_same_images_are_answered_by_the_candidate_each_time_and_counted_once(agreeing: Trial) -> None:
    answered = agreeing.ask_all()
    expected = [agreeing.new if data in agreeing.taken else agreeing.live for data in IMAGES]
    assert answered == expected == agreeing.ask_all()
    shown = agreeing.shown()
    count = len(agreeing.taken)
    assert 30 <= count <= 72
    assert shown == {
        **shown, "version": agreeing.new, "live": agreeing.live, "state": "comparing", "images": count, "errors": 0,
        "disagreements": 0, "low": 0, "p_fake_difference": 0, "share": 0.5, "ended": None, "reason": None,
    }  # fmt: skip
    assert shown["candidate_ms"] > 0 < shown["live_ms"]
    assert len(agreeing.comparisons) == count
    assert not any(comparison.disagrees for comparison in agreeing.comparisons)


def test_a_candidate_that_disagrees_goes_back_by_itself(disagreeing: Trial, caplog: pytest.LogCaptureFixture) -> None:
    assert {result["verdict"] for result in disagreeing.ask(*disagreeing.taken[:10])} == {"fake"}
    disagreeing.ask_all()
    with caplog.at_level(logging.INFO, "ray.serve"):
        shown = disagreeing.shown()
    assert (shown["state"], shown["disagreements"]) == ("went_back", len(disagreeing.taken))
    assert "the verdicts differ on" in shown["reason"]
    assert [record.levelname for record in caplog.records] == ["ERROR"]
    asked = disagreeing.candidate.asked
    assert set(disagreeing.ask_all()) == {disagreeing.live}
    assert disagreeing.candidate.asked == asked
    assert versions.live(disagreeing.models).name == disagreeing.live
    last = disagreeing.statuses[-1]
    assert last
    assert last.state == "went_back"


def test_several_ingresses_decide_together(disagreeing: Trial) -> None:
    """None of them has compared enough images, and one of them has died."""
    other = CanaryRouter(str(disagreeing.models), disagreeing.candidate)
    other.update()
    disagreeing.ask(*disagreeing.taken[:10])
    disagreeing.ask(*disagreeing.taken[10:20])
    assert disagreeing.shown()["state"] == "comparing"
    live = disagreeing.live_client
    service = disagreeing.http.app.state.service  # type: ignore[attr-defined]

    async def compare() -> None:
        for data in disagreeing.taken[:15]:
            ((image, _),) = await service.detect([data], "off", False, RequestTimings())
            await other.predict(data, live, image, live.predictor.info, left_s=30)

    asyncio.run(compare())
    other.update()
    assert disagreeing.shown()["state"] == "went_back"
    other.update()
    assert not other.is_running


@pytest.mark.parametrize("error", [ZeroDivisionError("broken engine"), None])
def test_the_live_version_answers_for_a_candidate_that_fails_or_is_late(
    agreeing: Trial, monkeypatch: pytest.MonkeyPatch, error: Exception | None
) -> None:
    agreeing.candidate.error = error
    if error is None:
        agreeing.candidate.seconds = 60
        monkeypatch.setattr(canary_module, "LATE_S", 0.01)
    assert set(agreeing.ask_all()) == {agreeing.live}
    shown = agreeing.shown()
    assert (shown["state"], shown["errors"], shown["disagreements"]) == ("went_back", *2 * [len(agreeing.taken)])
    assert shown["candidate_ms"] is None


def test_waiting_for_the_candidate_costs_no_request_its_time_and_then_counts_nothing(
    registry: Registry, tmp_path: Path
) -> None:
    trial = Trial(registry, tmp_path, AGREES, timeout_s=2)
    trial.candidate.seconds = 60
    (result,) = trial.ask(trial.taken[0])
    assert result["model"]["version"] == trial.live
    assert trial.shown()["images"] == 0
    trial.candidate.seconds, trial.candidate.error = 0, TimeoutError("of its engine")
    trial.ask(trial.taken[0])
    assert trial.shown()["errors"] == 1


@pytest.mark.parametrize("error", [NotLoaded(), Busy()])
def test_one_that_is_not_loaded_or_has_too_much_to_do_is_not_counted(agreeing: Trial, error: Exception) -> None:
    agreeing.candidate.error = error
    assert set(agreeing.ask_all()) == {agreeing.live}
    assert agreeing.shown()["images"] == 0


def test_the_heat_map_is_that_of_the_version_that_answers(agreeing: Trial) -> None:
    data = agreeing.taken[0]
    (result,) = agreeing.ask(data, query="?explain=true")
    assert (result["model"]["version"], result["heatmap"]["toward"]) == (agreeing.new, "fake")
    predict = agreeing.candidate.explain

    async def gone(image_SSC: Pixels, toward: str) -> Heat:
        agreeing.candidate.error = NotLoaded()
        return await predict(image_SSC, toward)

    agreeing.candidate.explain = gone  # type: ignore[method-assign]
    (result,) = agreeing.ask(data, query="?explain=true")
    assert result["model"]["version"] == agreeing.live
    assert result["heatmap"]


def test_a_rollback_ends_it_even_before_anybody_looks(agreeing: Trial, registry: Registry) -> None:
    agreeing.live_client.predictor = registry.others[DISAGREES]
    assert set(agreeing.ask_all()) == {registry.others[DISAGREES].info.version}
    versions.make_live(agreeing.models, registry.others[DISAGREES].info.version)
    shown = agreeing.shown()
    assert (shown["state"], shown["images"]) == ("live_changed", 0)


def test_without_a_canary_the_service_says_so(agreeing: Trial) -> None:
    canaries.stop(agreeing.models)
    agreeing.router.update()
    assert not agreeing.router.is_running
    assert agreeing.http.get("/v1/model").json()["canary"] is None
    assert agreeing.statuses[-1] is None
    agreeing.router.predict = None  # type: ignore[assignment,method-assign]  # requests do not even ask it
    assert set(agreeing.ask_all()) == {agreeing.live}


def test_a_damaged_record_ends_it_and_an_unreachable_one_does_not(
    agreeing: Trial, caplog: pytest.LogCaptureFixture
) -> None:
    record = agreeing.models / canaries.CANARY
    kept = record.read_text()
    record.unlink()
    record.mkdir()  # reading it fails with an OSError
    agreeing.router.update()
    assert agreeing.router.is_running
    record.rmdir()
    record.write_text(kept[:50])
    agreeing.router.update()
    assert not agreeing.router.is_running
    assert [entry.levelname for entry in caplog.records] == ["WARNING", "ERROR"]


def test_a_candidate_goes_back_here_even_if_nobody_can_be_told(disagreeing: Trial) -> None:
    disagreeing.ask_all()
    record = disagreeing.models / canaries.CANARY
    record.rename(record.with_name("aside"))
    record.mkdir()
    disagreeing.router.update()
    asked = disagreeing.candidate.asked
    assert set(disagreeing.ask_all()) == {disagreeing.live}
    assert disagreeing.candidate.asked == asked
    record.rmdir()
    record.with_name("aside").rename(record)
    canaries.record(disagreeing.models, disagreeing.canary, "another", Counts(images=10_000))
    assert disagreeing.shown()["state"] == "agrees"
    assert disagreeing.new in disagreeing.ask_all()


def test_the_metrics_count_by_version(agreeing: Trial, monkeypatch: pytest.MonkeyPatch) -> None:
    recorded: list[tuple[str, float, dict[str, str]]] = []

    class Recorder:
        def __init__(self, name: str, *_: object) -> None:
            self.name = name

        def inc(self, value: float, tags: dict[str, str]) -> None:
            recorded.append((self.name, value, tags))

        observe = inc

        def set(self, value: float) -> None:
            recorded.append((self.name, value, {}))

    for kind in ("Counter", "Gauge", "Histogram"):
        monkeypatch.setattr(metrics.metrics, kind, Recorder)
    shown = metrics.CanaryMetrics()
    real, fake = Answer(verdict="real", p_fake=0.1, seconds=0.2), Answer(verdict="fake", p_fake=0.9, seconds=0.3)
    recorded.clear()
    for answer in (real, fake, None):
        shown.compared(Comparison(canary=agreeing.canary, live=real, candidate=answer))
    live, new = ({"version": version} for version in (agreeing.live, agreeing.new))
    outcomes = [{**new, "outcome": outcome} for outcome in ("agrees", "disagrees", "error")]
    assert [tags for name, _, tags in recorded if name == metrics.CANARY_IMAGES] == outcomes
    for name, of_real, of_fake in ((metrics.CANARY_SECONDS, 0.2, 0.3), (metrics.CANARY_SCORES, 0.1, 0.9)):
        expected = [(of_real, live), (of_real, new), (of_real, live), (of_fake, new), (of_real, live)]
        assert [(value, tags) for recorded_name, value, tags in recorded if recorded_name == name] == expected
    recorded.clear()
    status = Status.of(agreeing.canary, Counts())
    shown.follow(status)
    shown.follow(Status.of(replace(agreeing.canary, outcome="not_loaded"), Counts()))
    shown.follow(None)
    assert recorded == [(metrics.CANARY_FAILED, value, {}) for value in (0, 1, 0)]
