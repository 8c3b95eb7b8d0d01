"""Networks that are trained from a stage on, and classes that weigh the same."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn.functional import binary_cross_entropy_with_logits

from detector_core.config import RunSpec
from detector_core.data import manifest
from detector_core.data.loading import ImageDataset
from detector_core.data.manifest import Manifest
from detector_core.errors import BadConfig
from detector_core.evaluation.scoring import load_batches
from detector_core.images.preprocess import normalize
from detector_core.networks import factory
from detector_core.networks.frozen import FrozenNetwork
from detector_core.training.freezing import freeze
from detector_core.training.loop import fit
from detector_core.training.optimizer import class_weight
from detector_core.training.step import StepReport, TrainState


def first_step(spec: RunSpec, data: Manifest) -> tuple[TrainState, dict[str, torch.Tensor], StepReport]:
    """The state after one step, the weights before it, and its report."""
    state = TrainState(spec, data.fingerprint)
    before = {name: value.clone() for name, value in state.network.state_dict().items()}
    report = next(report for report in fit(state, data) if isinstance(report, StepReport))
    return state, before, report


def test_a_frozen_stage_and_all_before_it_stay_as_they_were(tiny_dataset: Path, tiny_spec: RunSpec) -> None:
    data = manifest.load(str(tiny_dataset))
    state, before, _ = first_step(tiny_spec.replace({"optim.freeze": "layer2"}), data)
    after = state.network.state_dict()
    changed = {name.split(".")[0] for name, value in after.items() if not torch.equal(value, before[name])}
    assert changed == {"layer3", "layer4", "fc"}
    trained = {id(parameter) for group in state.optimizer.param_groups for parameter in group["params"]}
    assert trained == {id(parameter) for parameter in state.network.parameters() if parameter.requires_grad}
    all_changed = first_step(tiny_spec, data)
    assert not torch.equal(all_changed[0].network.state_dict()["bn1.running_mean"], all_changed[1]["bn1.running_mean"])


def test_a_stage_may_be_an_element_of_a_list(tiny_spec: RunSpec) -> None:
    network = factory.build(tiny_spec.model)
    freeze(network, "layer2.0")
    assert next(name for name, p in network.named_parameters() if p.requires_grad).startswith(("layer2.1", "layer3"))


@pytest.mark.parametrize(
    ("stage", "message"),
    [
        ("layer9", r"no such stage; its stages are conv1 \(\.0 to \.6\), bn1, layer1, layer2"),
        ("fc", "nothing would be left to train"),
    ],
)
def test_a_stage_that_cannot_be_frozen_names_the_others(tiny_spec: RunSpec, stage: str, message: str) -> None:
    with pytest.raises(BadConfig, match=message):
        TrainState(tiny_spec.replace({"optim.freeze": stage}), "f")


def test_a_network_with_frozen_backbones_has_no_stage_to_freeze() -> None:
    with pytest.raises(BadConfig, match="are frozen already"):
        freeze(FrozenNetwork.__new__(FrozenNetwork), "head")


def test_balanced_classes_weigh_the_same(tiny_spec: RunSpec) -> None:
    balanced = tiny_spec.replace({"optim.class_weights": "balanced"}).optim
    is_fake = np.array([False] * 30 + [True] * 10)
    of_real, of_fake = class_weight(balanced, is_fake)
    assert (of_real, of_fake) == (pytest.approx(2 / 3), 2)
    assert 30 * of_real == pytest.approx(10 * of_fake)
    assert class_weight(balanced, is_fake[:30]) == class_weight(tiny_spec.optim, is_fake) == (1, 1)


def test_the_loss_of_a_step_is_weighted(tiny_dataset: Path, tiny_spec: RunSpec) -> None:
    """One batch of the whole split, by hand: the weighted mean of the losses of the untrained network."""
    whole = manifest.load(str(tiny_dataset))
    train = whole.frame[whole.frame["split"] == "train"]
    few = train[(train["label"] == "real") | (train["path"].str.contains("fake/00[0-5]"))]
    frame = whole.frame[whole.frame["split"] == "valid"]
    data = Manifest(root=whole.root, name="few", generated=True, fingerprint="f", frame=few.merge(frame, how="outer"))
    assert (few["label"] == "fake").sum() == 6
    one_batch = {"optim.batch_size": 30, "optim.micro_batch": 30, "augment.cutout": 0.0, "augment.flip": 0.0}
    plain = tiny_spec.replace({**one_batch, "augment.brightness": 0.0, "augment.contrast": 0.0})
    weighted = plain.replace({"optim.class_weights": "balanced"})
    losses = [first_step(spec, data)[2].loss for spec in (plain, weighted)]
    state = TrainState(plain, "f")
    state.network.train()
    batch = next(load_batches(ImageDataset(data.split("train"), data.root, plain.preprocess), 30, threads=1))
    logit = state.network(normalize(batch.pixels_BSSC, plain.preprocess)).flatten().detach()
    each = binary_cross_entropy_with_logits(logit, batch.target_B, reduction="none")
    assert losses[0] == pytest.approx(float(each.mean()), rel=1e-4)
    of_class = [float(each[batch.target_B == target].mean()) for target in (0, 1)]
    assert losses[1] == pytest.approx(sum(of_class) / 2, rel=1e-4)
