"""detector_core.training.fine_tuning: the data set and settings of the rung network, and that it learns from them."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from detector_core.data import manifest, review, tagged
from detector_core.data.epochs import WorkerRank, plan, spread_evenly, strata
from detector_core.data.manifest import Manifest
from detector_core.data.sources import SOURCE
from detector_core.errors import BadConfig
from detector_core.networks.frozen import FrozenNetwork
from detector_core.networks.variants import spec_for
from detector_core.training import fine_tuning, round_inputs, rounds
from detector_core.training.loop import EpochReport, fit
from detector_core.training.round_inputs import LiveModel, RoundImages
from detector_core.training.rounds import NETWORK, learned_network, try_candidate
from detector_core.training.step import TrainState
from tests.support.models import Backbone
from tests.support.tagged import give_accepted, hashed_dataset, live_model


@pytest.fixture(scope="module")
def setting(tmp_path_factory: pytest.TempPathFactory) -> tuple[LiveModel, RoundImages, Manifest]:
    folder = tmp_path_factory.mktemp("fine-tuning")
    dataset = hashed_dataset(folder, {"train": 24, "valid": 12, "test": 12})
    data, work = manifest.load(str(dataset)), folder / "work"
    work.mkdir()
    give_accepted(folder / "feedback", 24)
    selection = tagged.select(folder / "feedback", review.read(folder / "feedback"), data, work)
    live = LiveModel.load(live_model(folder / "live", dataset, balanced=True))
    return live, round_inputs.load_images(live.trunk, data, selection, work, cache=None), data


def test_half_of_each_batch_is_replayed_with_all_sources_and_classes_in_proportion(
    setting: tuple[LiveModel, RoundImages, Manifest], tmp_path: Path
) -> None:
    live, images, data = setting
    source = np.where(np.arange(len(data.frame)) % 4 == 0, "camera", "generator")
    data = manifest.save(
        str(tmp_path / "old"), data.frame.assign(source=source), root=data.root, name="old", generated=True, audit={}
    )
    made = fine_tuning.save_data_set(str(tmp_path / "new"), images, data, seed=0)
    assert manifest.load(str(tmp_path / "new")).fingerprint == made.fingerprint
    train = made.split("train")
    is_tag = (train[SOURCE] == fine_tuning.TAGS).to_numpy()
    tags = images.tags.rows
    assert is_tag.sum() == len(is_tag) / 2 == fine_tuning.PASSES * len(tags) // 2 * 2
    assert train[is_tag]["label"].value_counts().nunique() == 1, "as many reals as fakes"
    assert train[is_tag]["path"].nunique() == len(tags)
    replayed, old = train[~is_tag], data.split("train")
    for column in (SOURCE, "label"):
        pd.testing.assert_series_equal(
            replayed[column].value_counts(normalize=True), old[column].value_counts(normalize=True), atol=0.02
        )
    assert all(Path(path).is_file() for path in made.frame["path"])
    assert set(made.split("valid")["sha256"]) == set(data.split("valid")["sha256"])

    spec = fine_tuning.settings(live.artifact.spec, "weights", 3)
    epoch_plan = plan(len(train), spec.optim, spec.seed, WorkerRank(), strata(train))
    batches = [[row for _, row in batch] for batch in epoch_plan.keys(0, 0, WorkerRank())]
    assert sorted(row for batch in batches for row in batch) == list(range(len(train)))
    for batch in batches:
        assert abs(is_tag[batch].sum() - len(batch) / 2) <= 1.5
        assert abs((train[SOURCE].iloc[batch] == "camera").mean() - (train[SOURCE] == "camera").mean()) < 2 / len(batch)


def test_rows_of_a_stratum_come_at_regular_intervals_in_their_order() -> None:
    strata_NK = np.array([[0], [1], [0], [0], [0]])
    assert spread_evenly(np.array([4, 1, 3, 2, 0]), strata_NK).tolist() == [4, 3, 1, 2, 0]


def test_the_settings_are_the_recipes_with_the_live_weights_and_a_lower_rate() -> None:
    recipe = spec_for("lite-ensemble")
    spec = fine_tuning.settings(recipe, "/models/live.safetensors", 5)
    assert (spec.model.init, spec.seed, spec.optim.epochs) == ("/models/live.safetensors", 5, 1)
    assert spec.optim.learning_rate == pytest.approx(recipe.optim.learning_rate / 10)
    assert spec.optim.stratify
    assert spec.preprocess == recipe.preprocess
    assert spec.augment == replace(recipe.augment, versions=0)


def test_the_tags_are_learnt_and_the_result_is_checked_as_it_is_stored(
    setting: tuple[LiveModel, RoundImages, Manifest], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    live, images, data = setting
    monkeypatch.setattr(fine_tuning, "LEARNING_RATE_FACTOR", 30.0)  # the live weights are random
    monkeypatch.setattr(fine_tuning, "PASSES", 8)
    made = fine_tuning.save_data_set(str(tmp_path / "data"), images, data, seed=0)
    fine_tuning.save_start(tmp_path / "start.safetensors", live, images, seed=0)
    spec = fine_tuning.settings(live.artifact.spec, str(tmp_path / "start.safetensors"), 0)
    state = TrainState(spec.replace({"optim.batch_size": 16}), made.fingerprint)
    head = rounds.learn_head(live, images, seed=0).weights
    for name, value in live.trunk.network.state_dict().items():
        assert torch.equal(state.network.state_dict()[name], head.get(name, value)), (
            "live weights, and the new last layer"
        )
    assert any(isinstance(report, EpochReport) for report in fit(state, made))
    assert state.best_weights is not None
    candidate = try_candidate(learned_network(live, state.best_weights), live, images, data)
    assert candidate.rung == NETWORK
    assert candidate.held_out_errors < candidate.conditions[-1].live
    layer_inputs = candidate.learned.trunk.inputs(images.test.rows, data.root, "test", cache=None)
    np.testing.assert_allclose(
        images.test.logits(candidate.learned.trunk), candidate.learned.trunk.logits(layer_inputs), rtol=1e-5
    )
    assert {value.dtype for value in candidate.learned.weights.values()} <= set(live.stored.values())


def test_a_recipe_of_frozen_backbones_alone_has_nothing_to_fine_tune() -> None:
    with pytest.raises(BadConfig, match="lite-frozen are frozen, so there is nothing to fine-tune but its heads"):
        fine_tuning.check_trainable(FrozenNetwork([Backbone()], 0.5), "lite-frozen")
    fine_tuning.check_trainable(FrozenNetwork([Backbone()], 0.5, torch.nn.Linear(1, 1)), "lite-ensemble")
