"""Canaries of a registry: when one agrees and goes back, what ends it, and what is refused."""

import dataclasses
import json
import shutil
from pathlib import Path

import pytest

from detector_core import storage
from detector_core.data import canary_set
from detector_core.errors import BadConfig, BrokenArtifact, DetectorError, OperationRefused
from detector_core.networks import artifacts
from detector_core.registry import canaries, versions
from detector_core.registry.canary import Canary, Counts, Status
from tests.support.models import save_model, tiny_spec


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A registry with a live version and another one, and the name of that."""
    folder = tmp_path_factory.mktemp("registry")
    versions.promote(save_model(folder / "live", run="live"), folder / "models")
    return folder / "models", versions.stage(save_model(folder / "new", run="new", seed=1), folder / "models")


@pytest.fixture
def models(registry: tuple[Path, str], tmp_path: Path) -> Path:
    """A copy of that registry."""
    return Path(shutil.copytree(registry[0], tmp_path / "models"))


@pytest.fixture
def candidate(registry: tuple[Path, str]) -> str:
    return registry[1]


@pytest.fixture
def canary(models: Path, candidate: str) -> Canary:
    return canaries.start(models, candidate, share=0.25)


def state(models: Path) -> str:
    status = canaries.settle(models)
    assert status
    return status.state


def test_a_candidate_is_a_version_that_is_not_live(models: Path, canary: Canary) -> None:
    assert versions.live(models).name == canary.live != canary.candidate
    assert versions.list_versions(models) == [canary.live, canary.candidate]
    assert canaries.latest(models) == canary


def test_what_models_contains_besides_versions_is_known() -> None:
    others = {versions.LIVE, canaries.CANARY, canaries.CANARIES, canary_set.IN_MODELS}
    assert others == set(versions.NOT_VERSIONS)
    assert all(f"\n      {name}" in str(versions.__doc__) for name in others)


def test_it_takes_its_share_of_the_files_and_always_the_same(canary: Canary) -> None:
    files = [str(number).encode() for number in range(4000)]
    taken = [canary.takes(canary.digest(file)) for file in files]
    assert taken == [canary.takes(canary.digest(file)) for file in files]
    assert sum(taken) / len(files) == pytest.approx(canary.share, abs=0.03)
    another = dataclasses.replace(canary, id="another")
    assert taken != [another.takes(another.digest(file)) for file in files]


@pytest.mark.parametrize(
    ("images", "disagreements", "expected"),
    [(0, 0, "comparing"), (29, 29, "comparing"), (30, 30, "disagrees"), (150, 0, "comparing"), (170, 0, "agrees"),
     (400, 5, "agrees"), (400, 20, "comparing"), (400, 30, "comparing"), (400, 60, "disagrees")],
)  # fmt: skip
def test_the_interval_decides_not_the_proportion(images: int, disagreements: int, expected: str) -> None:
    canary = Canary(id="1", candidate="new", live="live", share=0.1, max_disagreement=0.05, started="")
    assert Status.of(canary, Counts(images=images, disagreements=disagreements)).state == expected


def test_the_replicas_decide_together_also_those_that_have_died(models: Path, canary: Canary) -> None:
    for replica in ("a", "b", "c"):
        canaries.record(models, canary, replica, Counts(images=20, disagreements=20, errors=1, difference=0.5))
    status = canaries.settle(models)
    assert status
    assert (status.state, status.counts) == ("went_back", Counts(images=60, disagreements=60, errors=3, difference=1.5))
    assert "60 of 60 images, 3 of them because the candidate failed" in status.canary.reason
    assert versions.live(models).name == canary.live
    ended = models / canaries.CANARIES / canary.id / canaries.END
    assert json.loads(ended.read_text()) == json.loads((models / canaries.CANARY).read_text())
    kept = ended.read_text()
    canaries.record(models, canary, "late", Counts(images=1000))
    assert canaries.settle(models) == status
    assert canaries.end(models, status, "promoted", "too late") == status
    assert ended.read_text() == kept


@pytest.mark.usefixtures("canary")
def test_another_live_version_ends_it(models: Path) -> None:
    other = versions.promote(save_model(models.parent / "other", run="other", seed=2), models)
    status = canaries.settle(models)
    assert status
    assert (status.state, status.canary.reason) == ("live_changed", f"{other} became the live version")
    versions.rollback(models)
    assert state(models) == "live_changed"


def test_a_candidate_that_is_promoted_is_no_candidate_any_more(models: Path, canary: Canary) -> None:
    versions.make_live(models, canary.candidate)
    assert state(models) == "promoted"
    assert versions.history(models) == [canary.candidate, canary.live]


def test_it_is_finished_once_it_agrees_or_by_force(models: Path, canary: Canary) -> None:
    canaries.record(models, canary, "a", Counts(images=100))
    with pytest.raises(OperationRefused, match=r"differ on 0 of 100 images \(95% interval 0.0% to 7.3%; at most 5.0%"):
        canaries.finish(models)
    canaries.record(models, canary, "a", Counts(images=200))
    assert canaries.finish(models) == versions.live(models).name == canary.candidate
    assert state(models) == "promoted"
    with pytest.raises(OperationRefused, match="no canary is running"):
        canaries.finish(models, force=True)


def test_a_damaged_candidate_is_not_promoted(models: Path, canary: Canary) -> None:
    (models / canary.candidate / artifacts.WEIGHTS).write_bytes(b"damaged")
    with pytest.raises(BrokenArtifact):
        canaries.finish(models, force=True)
    assert versions.live(models).name == canary.live


def test_one_that_is_stopped_is_reported_no_more_but_stays_in_the_record(models: Path, canary: Canary) -> None:
    assert canaries.stop(models).outcome == "stopped"
    assert canaries.settle(models) is None
    assert (models / canaries.CANARIES / canary.id / canaries.END).exists()
    with pytest.raises(OperationRefused, match="there is no canary"):
        canaries.stop(models)
    canaries.not_loaded(models, canary, "too late")
    assert canaries.settle(models) is None


def test_prune_spares_what_it_is_told_to(models: Path, canary: Canary) -> None:
    assert versions.prune(models, 1, spared=[canary.candidate]) == []
    assert versions.prune(models, 1) == [canary.candidate]


@pytest.mark.parametrize("another", [False, True])
def test_one_that_ends_while_the_candidate_is_copied_is_not_promoted(
    models: Path, canary: Canary, monkeypatch: pytest.MonkeyPatch, another: bool
) -> None:
    verify = versions.verify

    def slow(folder: Path) -> None:
        verify(folder)
        canaries.stop(models)
        if another:
            begun = dataclasses.replace(canary, id="another")
            (models / canaries.CANARY).write_text(json.dumps(dataclasses.asdict(begun)))

    monkeypatch.setattr(versions, "verify", slow)
    with pytest.raises(OperationRefused, match="another canary has begun" if another else "no canary is running"):
        canaries.finish(models, force=True)
    assert versions.live(models).name == canary.live


def test_one_that_an_operator_stops_while_a_replica_ends_it_stays_stopped(
    models: Path, canary: Canary, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = storage.write_bytes

    def write_and_stop(where: str, data: bytes) -> None:
        write(where, data)
        if where.endswith(canaries.END):
            (models / canaries.CANARY).unlink()

    monkeypatch.setattr(storage, "write_bytes", write_and_stop)
    canaries.not_loaded(models, canary, "damaged")
    assert canaries.latest(models) is None


@pytest.mark.parametrize("share", [0, -0.1, 0.51, float("nan")])
def test_a_share_that_cannot_work_is_refused(models: Path, candidate: str, share: float) -> None:
    with pytest.raises(BadConfig, match=r"--canary is .*: it must be above 0 and at most 0.5"):
        canaries.start(models, candidate, share=share)


def test_what_cannot_be_compared_is_refused(models: Path, candidate: str, tmp_path: Path) -> None:
    live = versions.live(models).name
    spec = tiny_spec()
    larger = dataclasses.replace(spec, preprocess=dataclasses.replace(spec.preprocess, image_size=64))
    other_size = versions.stage(save_model(tmp_path / "larger", run="larger", spec=larger), models)
    for version, bound, part in (
        (live, 0.05, "is live in .* already"),
        ("nowhere", 0.05, "names nowhere, which does not exist"),
        (other_size, 0.05, "differently .64 and 32 px"),
        (candidate, 1.0, "--max-disagreement is 1: it must be above 0 and below 1"),
    ):
        with pytest.raises(DetectorError, match=part):
            canaries.start(models, version, share=0.1, max_disagreement=bound)
    assert canaries.latest(models) is None
    canaries.start(models, candidate, share=0.1)
    with pytest.raises(OperationRefused, match=f"a canary of {candidate} is running"):
        canaries.start(models, candidate, share=0.1)
    with pytest.raises(BadConfig, match="has no live model"):
        canaries.start(tmp_path / "empty", candidate, share=0.1)


def test_damaged_files_are_named(models: Path, canary: Canary) -> None:
    canaries.record(models, canary, "a", Counts(images=5))
    counts = models / canaries.CANARIES / canary.id / "a.json"
    counts.write_text('{"images": 5, "other": 1}')
    with pytest.raises(BrokenArtifact, match=f"{counts} is damaged"):
        canaries.settle(models)
    kept = json.loads((models / canaries.CANARY).read_text())
    damaged = ({"share": 2}, {"share": "a"}, {"outcome": "?"}, {"counts": [1]})
    for text in ("{}", "[]", *(json.dumps({**kept, **values}) for values in damaged)):
        (models / canaries.CANARY).write_text(text)
        with pytest.raises(BrokenArtifact, match=f"{models / canaries.CANARY} is damaged"):
            canaries.latest(models)


def test_a_status_in_words_and_as_values(canary: Canary) -> None:
    status = Status.of(canary, Counts(images=200, disagreements=4))
    assert str(status).startswith("the verdicts differ on 4 of 200 images (95% interval 0.")
    assert json.loads(json.dumps(status.to_dict()))["counts"]["images"] == 200
    assert status.to_dict()["state"] == "comparing"
