"""detector_core.training.rounds: candidates, what is saved of them, and which one is chosen."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch

from detector_core.data import manifest, review, seen, tagged
from detector_core.data.manifest import Manifest
from detector_core.evaluation import calibration, scoring
from detector_core.evaluation.gate import Condition
from detector_core.networks import artifacts
from detector_core.training import relearn, relearned_model, round_inputs, rounds
from detector_core.training.round_inputs import LiveModel, RoundImages
from detector_core.training.rounds import Candidate, Learned
from tests.support.tagged import give_accepted, hashed_dataset, live_model


@dataclasses.dataclass(frozen=True)
class Setting:
    """A live model and the images of a round."""

    live: LiveModel
    data: Manifest
    images: RoundImages
    work: Path


@pytest.fixture(scope="module")
def setting(tmp_path_factory: pytest.TempPathFactory) -> Setting:
    folder = tmp_path_factory.mktemp("round")
    dataset = hashed_dataset(folder, {"train": 24, "valid": 12, "test": 12})
    live = live_model(folder / "live", dataset)
    half = {k: v.half() for k, v in safetensors.torch.load_file(live / artifacts.WEIGHTS).items()}  # as the starter
    known = seen.record(manifest.load(str(dataset)).frame)
    artifacts.save(live, half, artifacts.read(live), {seen.SEEN: known})
    give_accepted(folder / "feedback", 30)
    data, work = manifest.load(str(dataset)), folder / "work"
    work.mkdir()
    selection = tagged.select(folder / "feedback", review.read(folder / "feedback"), data, work)
    model = dataclasses.replace(LiveModel.load(live), calibration=calibration.UNCALIBRATED)
    assert set(model.stored.values()) == {torch.float16}
    return Setting(model, data, round_inputs.load_images(model.trunk, data, selection, work, cache=None), work)


def try_rung(setting: Setting, rung: str) -> Candidate:
    live, images = setting.live, setting.images
    learned = rounds.learn_thresholds(live) if rung == rounds.THRESHOLDS else rounds.learn_head(live, images, seed=0)
    return rounds.try_candidate(learned, live, images, setting.data)


def save(candidate: Candidate, setting: Setting, where: Path, parent: str) -> artifacts.Artifact:
    return relearned_model.save(candidate, setting.live, setting.images, where, parent=parent)


def test_the_saved_model_predicts_what_the_gate_has_checked(setting: Setting, tmp_path: Path) -> None:
    candidate = try_rung(setting, rounds.HEAD)
    artifact = save(candidate, setting, tmp_path / "new", "live-v1")
    network, read = artifacts.load(tmp_path / "new")
    test = setting.images.test
    scores = scoring.score(network, test.rows, setting.data.root, read.spec.preprocess)
    expected = candidate.learned.trunk.logits(test.inputs)
    np.testing.assert_allclose(scores["logit"], expected, rtol=1e-3, atol=1e-3)
    saved = calibration.load(str(tmp_path / "new"), artifact.weights_sha256)
    assert saved.fake_above == candidate.calibration.fake_above
    tensors = safetensors.torch.load_file(tmp_path / "new" / artifacts.WEIGHTS)
    old = safetensors.torch.load_file(setting.live.folder / artifacts.WEIGHTS)
    changed = {name for name in tensors if not torch.equal(tensors[name], old[name])}
    assert changed == {f"{setting.live.trunk.name}.weight", f"{setting.live.trunk.name}.bias"}
    assert {value.dtype for name, value in tensors.items() if name in changed} == {torch.float16}


def test_the_lineage_names_parent_tags_and_what_changed(setting: Setting, tmp_path: Path) -> None:
    first = try_rung(setting, rounds.THRESHOLDS)
    artifact = save(first, setting, tmp_path / "first", "live-v1")
    lineage = artifact.training[artifacts.LINEAGE]
    assert (artifact.run, lineage["parent"], lineage["rung"]) == ("live-r1", "live-v1", "thresholds")
    assert artifact.weights_sha256 == lineage["parent_weights_sha256"]  # only the calibration is new
    assert lineage["changed"] == ["calibration"]
    assert lineage["tag_weight"] is None
    assert lineage["tags"] == sorted(setting.images.tags.rows["id"])
    assert not set(lineage["tags"]) & set(lineage["held_out_tags"])
    assert artifact.training["complete"] is True
    known = seen.read(str(tmp_path / "first"))
    assert known is not None
    assert set(known.loc[known["use"] == seen.TAGS, "sha256"]) == {
        *setting.images.tags.rows["sha256"],
        *setting.images.held_out.rows["sha256"],
    }
    assert (known["use"] == "train").sum() == len(setting.images.train.rows), "each image once"
    head = try_rung(setting, rounds.HEAD)
    after_first = dataclasses.replace(setting, live=LiveModel.load(tmp_path / "first"))
    second = save(head, after_first, tmp_path / "second", "r1-v1")
    assert second.run == "live-r2"
    assert second.training[artifacts.LINEAGE]["inherited_tags"] == lineage["tags"]
    assert second.training[artifacts.LINEAGE]["changed"] == ["calibration", setting.live.trunk.name]
    assert second.training[artifacts.LINEAGE]["tag_weight"] == head.learned.tag_weight


def test_the_tags_are_weighed_into_the_thresholds_up_to_a_quarter(setting: Setting) -> None:
    chosen_on = try_rung(setting, rounds.THRESHOLDS).calibration.chosen_on
    assert chosen_on["n"] == 24
    tags, validation = chosen_on["tags"] * chosen_on["times"], chosen_on["n"] * chosen_on["valid_times"]
    assert tags == chosen_on["tags"] > 8, "as they are, since they are more than a quarter already"
    assert 0.2 < tags / (tags + validation) <= rounds.CALIBRATION_TAG_WEIGHT
    few = setting.images.tags.take(np.arange(2))
    weighed = rounds.recalibrate(setting.live.trunk, setting.images.valid, few, setting.data).chosen_on
    assert (weighed["tags"], weighed["times"], weighed["valid_times"]) == (2, 4, 1)
    head = try_rung(setting, rounds.HEAD).calibration.chosen_on
    assert "tags" not in head  # the last layer has learnt them: they would flatter the thresholds


def test_replay_makes_a_difference(setting: Setting) -> None:
    layers = [
        rounds.learn_head(setting.live, setting.images, seed=0, replay=replay).weights for replay in (True, False)
    ]
    assert not all(torch.equal(layers[0][name], layers[1][name]) for name in layers[0])


@pytest.mark.parametrize(
    ("losses", "expected"),
    [([0.20, 0.20, 0.20, 0.195], 1), ([0.20, 0.18, 0.17, 0.175], 1 / 2), ([0.50, 0.40, 0.30, 0.20], 1 / 8)],
)
def test_the_tags_weigh_as_much_as_costs_little_on_the_validation_split(
    setting: Setting, monkeypatch: pytest.MonkeyPatch, losses: list[float], expected: float
) -> None:
    monkeypatch.setattr(rounds, "_loss", lambda *_: losses.pop(0))
    monkeypatch.setattr(relearn, "STEPS", 1)
    learned = rounds.learn_head(setting.live, setting.images, seed=0)
    full = relearn.tag_weights(len(setting.images.tags.rows), len(setting.images.train.rows))[0]
    assert learned.tag_weight == full * expected


def test_of_the_candidates_that_pass_the_one_with_the_fewest_errors_on_tags_is_chosen(setting: Setting) -> None:
    def candidate(rung: str, passed: bool, errors: int) -> Candidate:
        condition = Condition(name="", passed=passed, live=5, new=errors, images=9, p_value=1.0, limit="")
        learned = Learned(rung=rung, trunk=setting.live.trunk, weights={})
        return Candidate(learned=learned, calibration=calibration.UNCALIBRATED, conditions=[condition])

    assert rounds.choose([candidate("a", True, 3), candidate("b", True, 2)]).rung == "b"
    assert rounds.choose([candidate("a", True, 2), candidate("b", True, 2)]).rung == "a"
    assert rounds.choose([candidate("a", True, 3), candidate("b", False, 1)]).rung == "a"
    assert rounds.choose([candidate("a", False, 3), candidate("b", False, 1)]).rung == "b"


@pytest.mark.parametrize(("run", "name"), [("starter", "starter-r1"), ("starter-r9", "starter-r10"), ("r2", "r2-r1")])
def test_the_name_of_a_successor(run: str, name: str) -> None:
    assert relearned_model.next_name(run) == name
