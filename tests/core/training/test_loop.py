"""detector_core.training.loop and step: what a run computes, whatever the workers and wherever it is interrupted."""

import itertools
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.multiprocessing
from torch import distributed

from detector_core.config import RunSpec
from detector_core.data import manifest
from detector_core.data.epochs import WorkerRank
from detector_core.errors import BadData, BrokenArtifact, TrainingFailed
from detector_core.training.loop import EpochReport, fit
from detector_core.training.step import StepReport, TrainState


def losses(spec: RunSpec, dataset: Path, place: WorkerRank | None = None) -> list[float]:
    """Every loss of a run: of each step, and of the validation after each epoch."""
    data = manifest.load(str(dataset))
    state = TrainState(spec, data.fingerprint)
    return [report.loss if isinstance(report, StepReport) else report.val_loss for report in fit(state, data, place)]


def test_a_run_learns_and_keeps_the_weights_of_the_best_epoch(tiny_dataset: Path, tiny_spec: RunSpec) -> None:
    data = manifest.load(str(tiny_dataset))
    state = TrainState(tiny_spec.replace({"optim.epochs": 8}), data.fingerprint)
    reports = list(fit(state, data))
    epochs = [report for report in reports if isinstance(report, EpochReport)]
    assert len(reports) - len(epochs) == 8 * 4
    assert epochs[-1].train_loss < 0.5 * epochs[0].train_loss
    assert epochs[-1].val_auc is not None
    assert epochs[-1].val_auc > 0.9
    lowest = min(range(8), key=lambda index: epochs[index].val_loss)
    assert state.progress.best_epoch == lowest
    assert epochs[lowest].best
    assert state.best_weights is not None
    if lowest != 7:
        assert any((state.best_weights[name] != value).any() for name, value in state.network.state_dict().items())


def test_losses_are_reproducible_for_a_seed_and_differ_for_another(tiny_dataset: Path, tiny_spec: RunSpec) -> None:
    spec = tiny_spec.replace({"optim.epochs": 1})
    first = losses(spec, tiny_dataset)
    assert losses(spec, tiny_dataset) == first
    assert losses(spec.replace({"seed": 1}), tiny_dataset) != first


def test_accumulating_micro_batches_gives_the_gradient_of_the_global_batch(
    tiny_dataset: Path, tiny_spec: RunSpec
) -> None:
    """BatchNorm is switched off, because its statistics are those of each micro-batch by design."""
    spec = tiny_spec.replace({"optim.epochs": 1, "augment.cutout": 0.0})
    data = manifest.load(str(tiny_dataset))
    found = []
    for micro in (12, 3):
        state = TrainState(spec.replace({"optim.micro_batch": micro}), data.fingerprint)
        for module in state.network.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.track_running_stats = False
                module.forward = lambda x: x  # type: ignore[method-assign]
        found.append([report.loss for report in fit(state, data) if isinstance(report, StepReport)])
    assert found[0] == pytest.approx(found[1], rel=1e-4)


@pytest.mark.parametrize("workers", [2, 3])
def test_several_workers_have_the_losses_of_a_single_one(
    tiny_dataset: Path, tiny_spec: RunSpec, tmp_path: Path, workers: int
) -> None:
    """Validation losses too, so BatchNorm's running statistics agree; three workers need filler passes."""
    spec = tiny_spec.replace({"optim.epochs": 2})
    alone = losses(spec, tiny_dataset)
    arguments = (workers, spec, tiny_dataset, tmp_path)
    torch.multiprocessing.spawn(_worker, args=arguments, nprocs=workers)
    together = [torch.load(tmp_path / f"losses-{rank}.pt") for rank in range(workers)]
    assert all(other == together[0] for other in together)
    assert together[0] == pytest.approx(alone, rel=5e-3)
    assert together[0][:2] == pytest.approx(alone[:2], rel=1e-5)


def _worker(rank: int, workers: int, spec: RunSpec, dataset: Path, out: Path) -> None:
    os.environ.update({"MASTER_ADDR": "127.0.0.1", "GLOO_SOCKET_IFNAME": "lo"})
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=f"file://{out}/rendezvous", rank=rank, world_size=workers)
    torch.save(losses(spec, dataset, WorkerRank(rank=rank, world_size=workers)), out / f"losses-{rank}.pt")
    distributed.destroy_process_group()


@pytest.mark.parametrize("stop_after", [1, 4, 5, 7])
def test_a_resumed_run_continues_where_it_was_saved(
    tiny_dataset: Path, tiny_spec: RunSpec, tmp_path: Path, stop_after: int
) -> None:
    spec = tiny_spec.replace({"optim.epochs": 2, "optim.schedule": "cosine"})
    data = manifest.load(str(tiny_dataset))
    expected = losses(spec, tiny_dataset)
    state = TrainState(spec, data.fingerprint)
    first: list[Any] = []
    for report in fit(state, data):
        first.append(report)
        if len(first) == stop_after:
            break
    state.save(tmp_path)
    torch.manual_seed(999)
    resumed = TrainState.load(tmp_path, spec, data.fingerprint)
    second = list(fit(resumed, data))
    found = [report.loss if isinstance(report, StepReport) else report.val_loss for report in [*first, *second]]
    assert found == pytest.approx(expected, rel=1e-6)
    assert [row["epoch"] for row in resumed.progress.history] == [1, 2]


def test_a_checkpoint_of_another_run_is_refused(tiny_spec: RunSpec, tmp_path: Path) -> None:
    TrainState(tiny_spec, "data").save(tmp_path)
    with pytest.raises(BrokenArtifact, match="another spec"):
        TrainState.load(tmp_path, tiny_spec.replace({"seed": 5}), "data")
    with pytest.raises(BrokenArtifact, match="another data set"):
        TrainState.load(tmp_path, tiny_spec, "other data")


def _truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def _flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("damage", [_truncate, _flip, Path.unlink], ids=["truncated", "one bit", "missing"])
@pytest.mark.parametrize("name", ["state.pt", "checkpoint.json"])
def test_a_damaged_checkpoint_is_refused(
    tiny_spec: RunSpec, tmp_path: Path, damage: Callable[[Path], None], name: str
) -> None:
    if name == "checkpoint.json" and damage is _flip:
        pytest.skip("a changed digit in the history still reads as JSON")
    TrainState(tiny_spec, "data").save(tmp_path)
    damage(tmp_path / name)
    with pytest.raises(BrokenArtifact, match=name):
        TrainState.load(tmp_path, tiny_spec, "data")


def test_a_second_fit_of_the_same_state_continues_the_first(tiny_dataset: Path, tiny_spec: RunSpec) -> None:
    """BatchNorm's statistics too: their momentum is the layers' own again whenever ``fit`` is left."""
    data, spec = manifest.load(str(tiny_dataset)), tiny_spec.replace({"optim.epochs": 2})
    uninterrupted, interrupted = (TrainState(spec, data.fingerprint) for _ in range(2))
    list(fit(uninterrupted, data))
    for reports in (1, 3, 100):
        list(itertools.islice(fit(interrupted, data), reports))
        momenta = {norm.momentum for norm in interrupted.network.modules() if isinstance(norm, torch.nn.BatchNorm2d)}
        assert momenta == {0.1}
    expected = uninterrupted.network.state_dict()
    for name, value in interrupted.network.state_dict().items():
        assert torch.equal(value, expected[name]), name


def test_training_leaves_the_random_state_of_the_caller_alone(tiny_dataset: Path, tiny_spec: RunSpec) -> None:
    data = manifest.load(str(tiny_dataset))
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    list(fit(TrainState(tiny_spec.replace({"optim.epochs": 1}), data.fingerprint), data))
    assert torch.equal(torch.rand(3), expected)


def test_the_environment_of_a_run_is_recorded_once(tiny_dataset: Path, tiny_spec: RunSpec, tmp_path: Path) -> None:
    data, spec = manifest.load(str(tiny_dataset)), tiny_spec.replace({"optim.compute_dtype": "fp32"})
    state = TrainState(spec, data.fingerprint)
    next(fit(state, data))
    state.save(tmp_path)
    resumed = TrainState.load(tmp_path, spec, data.fingerprint)
    next(fit(resumed, data))
    here = {"device": "cpu", "compute_dtype": "fp32", "torch_threads": torch.get_num_threads()}
    assert resumed.progress.environments == [here]


def test_a_loss_that_is_not_finite_stops_the_run(tiny_dataset: Path, tiny_spec: RunSpec) -> None:
    data = manifest.load(str(tiny_dataset))
    state = TrainState(tiny_spec, data.fingerprint)
    run = fit(state, data)
    next(run)
    with torch.no_grad():
        next(state.network.parameters()).fill_(math.nan)
    before = {name: value.clone() for name, value in state.network.state_dict().items()}
    with pytest.raises(TrainingFailed, match="the loss is nan at epoch 1, step 2"):
        list(run)
    for name, value in state.network.state_dict().items():
        if "num_batches_tracked" not in name:
            assert torch.equal(value.nan_to_num(), before[name].nan_to_num()), name


def test_a_broken_image_stops_the_run_or_is_listed(writable_dataset: Path, tiny_spec: RunSpec) -> None:
    data = manifest.load(str(writable_dataset))
    truncated = Path(data.root) / data.split("train")["path"][3]
    truncated.write_bytes(truncated.read_bytes()[:200])
    with pytest.raises(BadData, match=f"broken image: {truncated}.*--skip-broken"):
        list(fit(TrainState(tiny_spec, data.fingerprint), data))
    state = TrainState(tiny_spec, data.fingerprint)
    reports = list(fit(state, data, skip_broken=True))
    assert [str(truncated) in item for item in state.progress.broken_images] == [True]
    assert sum(report.images for report in reports if isinstance(report, StepReport)) == 3 * 15


@pytest.mark.parametrize(
    ("batch", "micro", "broken", "trained"),
    [(15, 15, 0, 16), (5, 2, 0, 16), (16, 2, 1, 14)],  # the other image of a broken one's micro-batch waits
)
def test_a_single_image_is_never_left_for_batchnorm(
    writable_dataset: Path, tiny_spec: RunSpec, batch: int, micro: int, broken: int, trained: int
) -> None:
    data = manifest.load(str(writable_dataset))
    for path in data.split("train")["path"][:broken]:
        (Path(data.root) / path).write_bytes(b"")
    spec = tiny_spec.replace({"optim.epochs": 1, "optim.batch_size": batch, "optim.micro_batch": micro})
    steps = [
        report
        for report in fit(TrainState(spec, data.fingerprint), data, skip_broken=True)
        if isinstance(report, StepReport)
    ]
    assert sum(step.images for step in steps) == trained
    assert all(math.isfinite(step.loss) for step in steps)


def test_a_broken_validation_image_stops_the_run_or_is_left_out(writable_dataset: Path, tiny_spec: RunSpec) -> None:
    data, spec = manifest.load(str(writable_dataset)), tiny_spec.replace({"optim.epochs": 1})
    first, *others = (Path(data.root) / path for path in data.split("valid")["path"])
    first.write_bytes(first.read_bytes()[:200])
    with pytest.raises(BadData, match=f"broken validation image: {first}.*--skip-broken"):
        list(fit(TrainState(spec, data.fingerprint), data))
    *_, epoch = fit(TrainState(spec, data.fingerprint), data, skip_broken=True)
    assert isinstance(epoch, EpochReport)
    assert epoch.val_accuracy * 7 == pytest.approx(round(epoch.val_accuracy * 7)), "of seven images, not eight"
    for path in others:
        path.write_bytes(b"")
    with pytest.raises(BadData, match="none of the validation images can be read: repair them"):
        list(fit(TrainState(spec, data.fingerprint), data, skip_broken=True))


def test_a_validation_loss_that_is_not_finite_stops_the_run(tiny_dataset: Path, tiny_spec: RunSpec) -> None:
    data = manifest.load(str(tiny_dataset))
    state = TrainState(tiny_spec, data.fingerprint)
    run = fit(state, data)
    assert [next(run).step for _ in range(4)] == [1, 2, 3, 4]  # type: ignore[union-attr]
    with torch.no_grad():
        next(state.network.parameters()).fill_(math.nan)
    with pytest.raises(
        TrainingFailed, match=r"the validation loss is nan after epoch 1: .*learning rate \(now 0\.003\)"
    ):
        next(run)
    assert state.progress.history == []
    assert state.best_weights is None


def test_patience_stops_early(tiny_dataset: Path, tiny_spec: RunSpec) -> None:
    spec = tiny_spec.replace({"optim.epochs": 50, "optim.patience": 1, "optim.learning_rate": 0.05})
    data = manifest.load(str(tiny_dataset))
    state = TrainState(spec, data.fingerprint)
    epochs = [report for report in fit(state, data) if isinstance(report, EpochReport)]
    assert len(epochs) < 50
    assert not epochs[-1].best
    assert state.progress.best_epoch == len(epochs) - 2
