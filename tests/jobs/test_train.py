"""The training job on a real Ray: the files it writes, and the faults it survives."""

import json
import os
import re
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest
import torch

from detector_core.config import RunSpec
from detector_core.data import manifest
from detector_core.images.preprocess import to_input
from detector_core.networks import artifacts
from detector_core.networks.variants import spec_for
from detector_core.training import checkpoint
from jobs.train import main
from tests.support.cluster import Head
from tests.support.processes import children, wait_until_gone
from tests.support.training import (
    STEPS,
    arguments,
    epochs_of,
    long_spec,
    start,
    undisturbed_losses,
    val_losses,
    wait_for_epochs,
)

FILES = {"model", "run.json", "metrics.csv", "curves.png", "curves.svg", "samples.png", "tensorboard"}


@pytest.fixture(scope="module")
def spec(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The spec file of a run of many short epochs."""
    return long_spec(tmp_path_factory.mktemp("long"))


@pytest.fixture(scope="module")
def agents() -> list[int]:
    """Ray's agents that a killed driver left behind; see the last test."""
    return []


@pytest.mark.usefixtures("shared_ray")
def test_a_finished_run_has_a_model_that_loads(
    spec_file: Path, tiny_spec: RunSpec, tiny_dataset: Path, tmp_path: Path, run_job: Any
) -> None:
    command = arguments(spec_file, tiny_dataset, tmp_path, "one")
    _, result, _ = run_job("train", *command)
    run = tmp_path / "one"
    assert {path.name for path in run.iterdir()} >= FILES
    assert not list(run.glob("checkpoint_2*"))
    assert len(val_losses(run)) == result["epochs"] == 3
    assert result["steps"] == 12
    assert min(val_losses(run)) == pytest.approx(result["val_loss"])
    network, artifact = artifacts.load(run)
    assert artifact.spec == tiny_spec
    assert artifact.data["fingerprint"] == manifest.load(str(tiny_dataset)).fingerprint
    image = torch.zeros(32, 32, 3, dtype=torch.uint8).numpy()
    with torch.inference_mode():
        assert network(to_input(image, artifact.spec.preprocess)[None]).shape == (1, 1)

    again = run_job("train", *command)
    assert again.code == 1
    assert again.last_message == f"error: {run} exists: choose another --name, or continue it with --resume"
    resumed = run_job("train", *command, "--resume")
    assert resumed.code == 0, resumed.messages
    assert resumed.result == result
    other = run_job("train", *command, "--resume", "--seed", "4")
    assert other.code == 1
    assert "was started with different settings (seed was 0, now 4)" in other.last_message


@pytest.mark.usefixtures("shared_ray")
def test_a_recipe_with_frozen_features_computes_them_on_the_workers(
    small_dataset: Path, tmp_path: Path, run_job: Any
) -> None:
    changes = {"preprocess.image_size": 32, "optim.epochs": 1, "optim.batch_size": 12}
    (tmp_path / "spec.json").write_text(json.dumps(spec_for("lite0-frozen", changes).to_dict()))
    command = arguments(tmp_path / "spec.json", small_dataset, tmp_path, "frozen", "--workers", "2", "--cache", "none")
    done = run_job("train", "lite0-frozen", *command[1:])
    assert done.code == 0, done.messages
    for split in ("train", "valid"):
        assert re.search(rf"frozen features of the {split} split: (\d+) of \1 images", done.messages)
    assert artifacts.read(tmp_path / "frozen" / "model").spec.variant == "lite0-frozen"


def test_a_killed_worker_and_a_killed_driver_do_not_change_the_result(
    spec: Path, agents: list[int], tiny_dataset: Path, tmp_path: Path, run_job: Any, request: pytest.FixtureRequest
) -> None:
    """A worker is killed, then the driver with its private Ray, and the newest checkpoint is damaged; the run goes on
    in another cluster, and the losses stay those without Ray."""
    epochs = 6
    flags = ("--workers", "2", "--checkpoint-every", "5", "--epochs", str(epochs))
    process = start(spec, tiny_dataset, tmp_path, "killed", *flags)
    wait_for_epochs(process, tmp_path / "killed", 1)
    workers = [pid for pid, line in children(process.pid).items() if "RayTrainWorker" in line]
    assert len(workers) == 2
    os.kill(workers[1], signal.SIGKILL)
    wait_for_epochs(process, tmp_path / "killed", 3)
    descendants = children(process.pid)
    os.kill(process.pid, signal.SIGKILL)
    process.finish()
    agents += [pid for pid, line in descendants.items() if "agent" in line.lower()]
    wait_until_gone(descendants.keys() - set(agents), 30)
    newest = max((tmp_path / "killed").glob("checkpoint_2*"))
    (newest / "state.pt").write_bytes(b"torn")
    request.getfixturevalue("shared_ray")
    resumed = run_job("train", *arguments(spec, tiny_dataset, tmp_path, "killed", *flags, "--resume"))
    assert resumed.code == 0, resumed.messages
    assert "skipping a damaged checkpoint" in resumed.messages
    assert resumed.result["steps"] == epochs * STEPS
    assert val_losses(tmp_path / "killed") == pytest.approx(undisturbed_losses(spec, tiny_dataset, epochs), rel=0.05)


def test_ctrl_c_in_a_private_ray_writes_a_checkpoint(
    spec: Path, writable_dataset: Path, tmp_path: Path, ray_head: Head
) -> None:
    """Ctrl-C reaches every process of the terminal, those of the private cluster too. `ray start` has started another
    cluster on this machine, which a job uses only if RAY_ADDRESS names it. The manifest is deleted meanwhile, which
    only a run that begins needs."""
    flags = ("--checkpoint-every", "0", "--epochs", "1000")
    process = start(spec, writable_dataset, tmp_path, "stopped", *flags, env=ray_head.env)
    wait_for_epochs(process, tmp_path / "stopped", 1)
    shutil.rmtree(writable_dataset)
    wait_for_epochs(process, tmp_path / "stopped", epochs_of(tmp_path / "stopped") + 2)
    os.killpg(process.pid, signal.SIGINT)
    code, out, err = process.finish()
    assert (code, out) == (130, ""), err
    port = ray_head.address.rpartition(":")[2]
    assert re.search(rf"to use the one that already runs on this machine, set RAY_ADDRESS=[\d.]+:{port}\n", err)
    assert "stopping after the current step, with a checkpoint" in err
    assert "--name stopped --resume to continue" in err.splitlines()[-1]
    newest = max((tmp_path / "stopped").glob("checkpoint_2*"))
    assert checkpoint.read(newest).step > 0, (
        "the checkpoint must be within an epoch, where --checkpoint-every 0 writes none unless the run is stopped"
    )
    assert not (tmp_path / "stopped" / "model").exists()


@pytest.mark.usefixtures("shared_ray")
def test_a_broken_image_stops_the_run_at_once_and_is_named(
    spec_file: Path, writable_dataset: Path, tmp_path: Path, run_job: Any
) -> None:
    data = manifest.load(str(writable_dataset))
    broken = Path(data.root) / data.split("train")["path"][0]
    broken.write_bytes(broken.read_bytes()[:100])
    done = run_job("train", *arguments(spec_file, writable_dataset, tmp_path, "broken", "--workers", "2"))
    assert (done.code, done.result) == (1, {})
    assert done.last_message.startswith(f"error: broken image: {broken}")
    assert not (tmp_path / "broken" / "model").exists()


@pytest.mark.usefixtures("shared_ray")
def test_too_many_workers_fail_in_seconds(spec_file: Path, tiny_dataset: Path, tmp_path: Path, run_job: Any) -> None:
    done = run_job("train", *arguments(spec_file, tiny_dataset, tmp_path, "bad", "--workers", "9"))
    assert (done.code, done.result) == (1, {})
    assert "training with 9 workers needs 9 CPU, and this Ray cluster has" in done.last_message
    assert not (tmp_path / "bad").exists()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--batch-size", "2", "--workers", "3"], "3 workers need at least one image each"),
        (["--workers", "0"], "--workers 0: give a number of 1 or more"),
        (["--set", "optim.nothing=1"], "RunSpec has no field 'optim.nothing'"),
        (["--epochs", "0"], "OptimSpec.epochs is 0: it must be 1 or more"),
        (["--image-size", "8"], "image size 8 is too small for resnet68"),
        (["--spec", "nowhere.json"], "--spec nowhere.json: there is no such file"),
        (["--resume"], "--resume needs --name"),
        (["--data", "nowhere"], "nowhere is not a prepared data set"),
    ],
)
def test_invalid_flags_are_reported_in_one_line(
    tiny_dataset: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], flags: list[str], message: str
) -> None:
    given = ["resnet68", "--data", str(tiny_dataset), "--storage", str(tmp_path / "runs"), "--init", "none", *flags]
    with pytest.raises(SystemExit) as exited:
        main(given)
    out, err = capfd.readouterr()
    assert (exited.value.code, out) == (1, "")
    assert message in err.splitlines()[-1]
    assert not (tmp_path / "runs").exists()


def test_an_unknown_variant_names_the_nearest(
    tiny_dataset: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main(["resnet86", "--data", str(tiny_dataset), "--storage", str(tmp_path)])
    assert "did you mean resnet68?" in capfd.readouterr().err.splitlines()[-1]


def test_moved_images_are_reported_before_ray_starts(
    writable_dataset: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    root = Path(manifest.load(str(writable_dataset)).root)
    root.rename(root.with_name("elsewhere"))
    with pytest.raises(SystemExit):
        main(["resnet68", "--data", str(writable_dataset), "--storage", str(tmp_path)])
    err = capfd.readouterr().err
    assert f"the images under {root} were moved" in err.splitlines()[-1]


def test_a_training_of_few_steps_is_warned_about(
    writable_dataset: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    count = len(manifest.load(str(writable_dataset)).split("train"))
    Path(manifest.load(str(writable_dataset)).root).rename(tmp_path / "elsewhere")  # ends the job early
    with pytest.raises(SystemExit):
        main(["resnet68-cutout", "--data", str(writable_dataset), "--storage", str(tmp_path)])
    warning = f"resnet68-cutout: {count} images in batches of 1,000 are only 1 step per epoch, 10 in total"
    assert warning in capfd.readouterr().err


def test_the_agents_of_a_killed_driver_end_by_themselves(agents: list[int]) -> None:
    """The last test, because they first wait a minute for the control store, which died with the driver."""
    if not agents:
        pytest.skip("the test that kills the driver did not run")
    wait_until_gone(agents, 90)
