"""Recipes for real faces: frozen backbones, an ensemble, a moving average, warm-up, smoothing, optimizer groups."""

import dataclasses
import math
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import distributed

from detector_core.config import RunSpec
from detector_core.data import manifest
from detector_core.data.epochs import WorkerRank
from detector_core.evaluation.explain import heat_maps
from detector_core.images.decode import decode
from detector_core.images.preprocess import square, to_input
from detector_core.networks import artifacts
from detector_core.networks.artifacts import Artifact
from detector_core.networks.frozen import BACKBONES, FrozenNetwork
from detector_core.networks.variants import RECIPES, spec_for
from detector_core.registry import openvino_export
from detector_core.registry.engines import OpenVinoEngine
from detector_core.training.features import FeatureReport
from detector_core.training.loop import EpochReport, fit
from detector_core.training.optimizer import create_optimizer, learning_rate
from detector_core.training.step import StepReport, TrainState
from tests.conftest import make_dataset

SMALL = {
    "preprocess.image_size": 64,
    "optim.epochs": 2,
    "optim.batch_size": 24,
    "optim.micro_batch": 8,
    "optim.warmup_steps": 2,
    "optim.compute_dtype": "fp32",
}
CROP = {"augment.crop": 48}


def recipe(name: str, **changes: Any) -> RunSpec:
    crop = CROP if RECIPES[name].changes.get("augment.crop") else {}
    return spec_for(name, {**SMALL, **crop, **changes})


def losses(spec: RunSpec, dataset: Path, worker: WorkerRank | None = None, cache: Path | None = None) -> list[float]:
    data = manifest.load(str(dataset))
    state = TrainState(spec, data.fingerprint)
    reports = [report for report in fit(state, data, worker, cache=cache) if not isinstance(report, FeatureReport)]
    return [report.loss if isinstance(report, StepReport) else report.val_loss for report in reports]


@pytest.mark.parametrize("name", ["lite0-frozen", "lite-ensemble"])
def test_a_recipe_resumes_as_if_it_had_not_stopped(tiny_dataset: Path, tmp_path: Path, name: str) -> None:
    spec, data = recipe(name), manifest.load(str(tiny_dataset))
    expected = losses(spec, tiny_dataset, cache=tmp_path / "cache")
    state, first = TrainState(spec, data.fingerprint), list[float]()
    for report in fit(state, data, cache=tmp_path / "cache"):
        if isinstance(report, StepReport):
            first.append(report.loss)
            break
    (tmp_path / "checkpoint").mkdir()
    state.save(tmp_path / "checkpoint")
    assert not any(name.startswith(BACKBONES) for name in torch.load(tmp_path / "checkpoint" / "state.pt")["network"])
    resumed = TrainState.load(tmp_path / "checkpoint", spec, data.fingerprint)
    rest = [report for report in fit(resumed, data, cache=tmp_path / "cache") if not isinstance(report, FeatureReport)]
    found = [report.loss if isinstance(report, StepReport) else report.val_loss for report in rest]
    assert [*first, *found] == pytest.approx(expected, rel=1e-5)


def test_two_workers_share_the_features_and_have_the_losses_of_one(tiny_dataset: Path, tmp_path: Path) -> None:
    spec = recipe("lite0-frozen")
    alone = losses(spec, tiny_dataset)
    torch.multiprocessing.spawn(_worker, args=(2, spec, tiny_dataset, tmp_path), nprocs=2)
    together = [torch.load(tmp_path / f"losses-{rank}.pt") for rank in range(2)]
    assert together[0] == together[1] == pytest.approx(alone, rel=1e-3)


def _worker(rank: int, world_size: int, spec: RunSpec, dataset: Path, out: Path) -> None:
    os.environ.update({"MASTER_ADDR": "127.0.0.1", "GLOO_SOCKET_IFNAME": "lo"})
    torch.set_num_threads(1)
    method = f"file://{out}/rendezvous"
    distributed.init_process_group("gloo", init_method=method, rank=rank, world_size=world_size)
    found = losses(spec, dataset, WorkerRank(rank=rank, world_size=world_size), out / "cache")
    torch.save(found, out / f"losses-{rank}.pt")
    distributed.destroy_process_group()


def test_an_ensemble_becomes_one_model_folder_and_one_graph(tiny_dataset: Path, tmp_path: Path) -> None:
    spec, data = recipe("lite-ensemble"), manifest.load(str(tiny_dataset))
    state = TrainState(spec, data.fingerprint)
    last = [report for report in fit(state, data) if isinstance(report, EpochReport)][-1]
    assert state.best_weights is not None
    artifact = Artifact(run="r", spec=spec, data=data.describe(), training={"history": [last.to_dict()]})
    artifacts.save(tmp_path / "model", {name: value.half() for name, value in state.best_weights.items()}, artifact)
    assert (tmp_path / "model" / artifacts.WEIGHTS).stat().st_size < 12e6, "the frozen backbones are not in it"
    network, _ = artifacts.load(tmp_path / "model")
    path = Path(data.root, data.split("test")["path"].iloc[0])
    image = square(decode(path.read_bytes()), spec.preprocess)
    with torch.inference_mode():
        expected = network(to_input(image, spec.preprocess)[None]).item()
    weights = str(tmp_path / "model" / artifacts.WEIGHTS)
    again = TrainState(spec.replace({"model.init": weights, "optim.epochs": 1}), data.fingerprint)
    kept = again.network.head.mean.clone()
    assert torch.equal(kept, network.head.mean), "trained heads have the statistics that they were trained with"
    for report in fit(again, dataclasses.replace(data, frame=data.frame.iloc[::-1])):
        if isinstance(report, StepReport):
            break
    assert torch.equal(again.network.head.mean, kept)
    engine = OpenVinoEngine(openvino_export.export(network, spec.preprocess, tmp_path), "fp32")
    assert engine(image[None])[0] == pytest.approx(expected, abs=1e-3)


@pytest.mark.parametrize("name", [name for name in RECIPES if name != "lite-ensemble"])
def test_a_recipe_becomes_one_model_folder_and_one_graph_and_is_explained(
    small_dataset: Path, tmp_path: Path, name: str
) -> None:
    spec, data = recipe(name, **{"optim.epochs": 1}), manifest.load(str(small_dataset))
    state = TrainState(spec, data.fingerprint)
    last = [report for report in fit(state, data) if isinstance(report, EpochReport)][-1]
    assert math.isfinite(last.val_loss)
    assert state.best_weights is not None
    artifact = Artifact(run="r", spec=spec, data=data.describe(), training={"history": [last.to_dict()]})
    artifacts.save(tmp_path / "model", state.best_weights, artifact)
    network, _ = artifacts.load(tmp_path / "model")
    image = square(decode(Path(data.root, data.split("test")["path"].iloc[0]).read_bytes()), spec.preprocess)
    x_BCHW = to_input(image, spec.preprocess)[None]
    with torch.inference_mode():
        expected = network(x_BCHW).item()
    engine = OpenVinoEngine(openvino_export.export(network, spec.preprocess, tmp_path), "fp32")
    assert engine(image[None])[0] == pytest.approx(expected, abs=1e-3)
    assert heat_maps(network, x_BCHW, ["fake"])[0].shape == (64, 64)


def test_the_moving_average_is_what_is_validated_and_kept(tiny_dataset: Path, tiny_spec: RunSpec) -> None:
    data = manifest.load(str(tiny_dataset))
    state = TrainState(tiny_spec.replace({"optim.ema": 0.9, "optim.epochs": 1}), data.fingerprint)
    expected: dict[str, torch.Tensor] = {}
    for report in fit(state, data):
        if isinstance(report, StepReport):
            for name, value in state.network.named_parameters():
                before = expected.get(name, value.detach())
                expected[name] = 0.9 * before + 0.1 * value.detach()
    assert state.best_weights is not None
    for name, value in expected.items():
        assert state.best_weights[name] == pytest.approx(value, abs=1e-6)


def test_the_learning_rate_warms_up_and_then_falls(tiny_spec: RunSpec) -> None:
    optim = tiny_spec.replace({"optim.warmup_steps": 4, "optim.schedule": "cosine", "optim.epochs": 2}).optim
    rates = [learning_rate(optim, step, 10) for step in range(20)]
    assert rates[:4] == pytest.approx(
        [optim.learning_rate * (step + 1) / 4 * (1 + math.cos(math.pi * step / 20)) / 2 for step in range(4)]
    )
    assert rates[4:] == sorted(rates[4:], reverse=True)
    assert rates[-1] < 0.01 * optim.learning_rate


def test_the_head_has_a_learning_rate_of_its_own(tiny_dataset: Path) -> None:
    spec, data = recipe("lite0"), manifest.load(str(tiny_dataset))
    state = TrainState(spec, data.fingerprint)
    next(report for report in fit(state, data) if isinstance(report, StepReport))
    body, head = state.optimizer.param_groups
    assert head["lr"] == pytest.approx(spec.optim.head_learning_rate_factor * body["lr"])
    assert isinstance(state.optimizer, torch.optim.AdamW)
    assert {parameter.numel() for parameter in head["params"]} == {1280, 1}


def test_a_frozen_backbone_is_not_in_the_optimizer() -> None:
    spec = recipe("lite0-frozen")
    network = TrainState(spec, "").network
    trained = {id(p) for group in create_optimizer(network, spec).param_groups for p in group["params"]}
    assert isinstance(network, FrozenNetwork)
    assert trained == {id(parameter) for parameter in network.head.parameters()}


def test_label_smoothing_keeps_a_confident_network_from_a_loss_of_zero(tiny_dataset: Path, tiny_spec: RunSpec) -> None:
    sharp, smooth = (
        losses(tiny_spec.replace({"optim.label_smoothing": x, "optim.epochs": 1}), tiny_dataset) for x in (0.0, 0.2)
    )
    assert not np.allclose(sharp, smooth)
    entropy = -(0.1 * math.log(0.1) + 0.9 * math.log(0.9))
    assert min(smooth[:-1]) > entropy


def test_forty_images_of_any_size_and_grayscale_ones_are_brought_to_the_size_of_the_network(tmp_path: Path) -> None:
    """The features of a larger image are those of the same image reduced to the size of the network."""
    dataset = make_dataset(tmp_path, {"train": 20, "valid": 4, "test": 4})
    before = manifest.load(str(dataset))
    rows = before.frame.copy()
    for number, path in enumerate(rows["path"]):
        file = Path(before.root, path)
        side = (40, 64, 128, 256)[number % 4]
        with Image.open(file) as image:
            changed = image.convert(("RGB", "L")[number % 2]).resize((side, side + 8 * (number % 3)))
        changed.save(file, quality=95)
        rows.loc[number, ["sha256", "width", "height"]] = artifacts.sha256_of(file), *changed.size
    data = manifest.save(str(dataset), rows, root=before.root, name="mixed", generated=True, audit={})
    state = TrainState(recipe("lite0-frozen", **{"optim.epochs": 1}), data.fingerprint)
    reports = list(fit(state, data))
    assert isinstance(reports[-1], EpochReport)
    assert math.isfinite(reports[-1].val_loss)

    network, spec = state.network, state.spec
    assert isinstance(network, FrozenNetwork)
    large = decode(Path(data.root, rows["path"][rows["width"] == 256].iloc[0]).read_bytes())
    small = square(large, spec.preprocess)
    assert small.shape == (64, 64, 3)
    with torch.inference_mode():
        features = [network.features(to_input(image, spec.preprocess)[None]) for image in (large, small)]
    assert torch.equal(*features)
