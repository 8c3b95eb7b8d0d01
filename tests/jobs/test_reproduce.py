"""jobs.reproduce: the paper's comparison on one or two workers, interrupted and continued."""

import argparse
import json
import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

from detector_core.config import RunSpec
from detector_core.data import manifest
from detector_core.networks import artifacts
from detector_core.networks.variants import VARIANTS, spec_for
from jobs.reproduce import main, specs
from jobs.run import resource_flags, spec_flags


def arguments(dataset: Path, runs: Path, workers: str) -> list[str]:
    flags = ["--init", "none", "--epochs-scale", "0.01", "--image-scale", "0.34", "--batch-size", "4"]
    where = ["--data", str(dataset), "--storage", str(runs), "--workers", workers, "--cpus", "1"]
    return [*where, *flags, "--micro-batch", "4"]


TWO = ("resnet68", "resnet68-cutout")
"""Enough for a winner, a pair and a run that is not repeated; each costs four processes that import torch."""


@pytest.fixture
def two_variants(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compares two of the six variants; the tests of the networks build and train each of them."""
    monkeypatch.setattr("jobs.reproduce.VARIANTS", TWO)


def terminate_once(condition: Callable[[], bool]) -> threading.Thread:
    """Sends SIGTERM to this process, which runs a job, as soon as a condition holds."""

    def wait() -> None:
        while not condition():
            time.sleep(0.1)
        os.kill(os.getpid(), signal.SIGTERM)

    thread = threading.Thread(target=wait, daemon=True)
    thread.start()
    return thread


@pytest.mark.usefixtures("shared_ray", "two_variants")
def test_variants_are_compared_and_none_is_trained_twice(small_dataset: Path, tmp_path: Path, run_job: Any) -> None:
    """The first is trained by an elastic group of workers, the second by one worker after SIGTERM, which is what
    ``ray job stop`` sends."""
    first = tmp_path / f"reproduce-{TWO[0]}-0" / "model" / "artifact.json"
    sender = terminate_once(first.exists)
    interrupted = run_job("reproduce", *arguments(small_dataset, tmp_path, "1:2"))
    sender.join()
    assert interrupted.code == 130, interrupted.messages
    assert "stopping after the current step, with a checkpoint" in interrupted.messages
    before = {path: path.stat().st_mtime_ns for path in tmp_path.glob("*/model/artifact.json")}
    assert first in before
    assert len(before) < len(TWO)

    done = run_job("reproduce", *arguments(small_dataset, tmp_path, "1"))
    assert done.code == 0, done.messages
    assert {path: path.stat().st_mtime_ns for path in before} == before
    result = done.result
    assert [row["variant"] for row in result["variants"]] == list(TWO)
    assert result["fewest_fakes_passed"] in TWO
    assert set(result["within_noise"]) <= set(TWO) - {result["fewest_fakes_passed"]}
    assert result["winner"] is None, "six images cannot tell"
    assert "may be guessing" in result["no_winner"]
    for variant in TWO:
        network, artifact = artifacts.load(tmp_path / f"reproduce-{variant}-0")
        size = artifact.spec.preprocess.image_size
        assert (artifact.spec.optim.epochs, size) == (1, round(spec_for(variant).preprocess.image_size * 0.34))
        with torch.inference_mode():
            assert network(torch.zeros(1, 3, size, size)).shape == (1, 1)
    folder = tmp_path / "reproduce"
    table = pd.read_csv(folder / "table5.csv")
    assert table["variant"].tolist() == [variant for variant in TWO for _ in range(2)]
    paper = table[(table["variant"] == "resnet68-cutout") & (table["source"] == "paper")]
    assert paper["fakes_passed_rate"].item() == pytest.approx(0.43)
    page = (folder / "comparison.html").read_text()
    for text in ("McNemar", "No winner: ", "By the paper's rule", "average precision", "3 real and 3 fake images"):
        assert text in page, text
    lines = (folder / "comparison.csv").read_text().splitlines()
    assert [line.split(",")[1] for line in lines[1:3]] == [f"reproduce-{variant}-0" for variant in TWO]
    assert "Table V" in (folder / "comparison.tex").read_text()
    rows = json.loads((folder / "comparison.json").read_text())["rows"]
    assert all(row["seconds"] > 0 and row["images_per_s"] > 0 and row["peak_memory_bytes"] > 10**8 for row in rows)

    refused = run_job("reproduce", *arguments(small_dataset, tmp_path, "1"), "--batch-size", "8")
    assert refused.code == 1
    assert "was started with different settings (optim.batch_size was 4, now 8)" in refused.last_message


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--epochs-scale", "0"], "--epochs-scale is 0.0: it must be above 0 and at most 1"),
        (["--image-scale", "2"], "--image-scale is 2.0: it must be above 0 and at most 1"),
        (["--seeds", "0"], "--seeds is 0: it must be 1 or more"),
        (["--spec", "best.json"], "cannot be used for all six"),
        (
            ["--init-of", "resnet86=none"],
            "--init-of resnet86=none: give NETWORK=INIT, where NETWORK is one of inception",
        ),
        (["--init", "none", "--init-of", "vggface2=nowhere.pt"], "there is no file"),
        (["--data", "nowhere"], "nowhere is not a prepared data set"),
    ],
)
def test_invalid_flags_are_reported_in_one_line(
    tiny_dataset: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], flags: list[str], message: str
) -> None:
    with pytest.raises(SystemExit) as exited:
        main(["--data", str(tiny_dataset), "--storage", str(tmp_path / "runs"), *flags])
    out, err = capfd.readouterr()
    assert (exited.value.code, out) == (1, "")
    assert message in err.splitlines()[-1]
    assert not (tmp_path / "runs").exists()


def test_a_test_split_of_one_class_is_refused_before_anything_is_trained(
    writable_dataset: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    data = manifest.load(str(writable_dataset))
    frame = data.frame[(data.frame["split"] != "test") | (data.frame["label"] != "fake")]
    manifest.save(str(writable_dataset), frame, root=data.root, name="tiny", generated=True, audit={})
    with pytest.raises(SystemExit) as exited:
        main(["--data", str(writable_dataset), "--storage", str(tmp_path / "runs"), "--init", "none"])
    assert exited.value.code == 1
    assert capfd.readouterr().err.splitlines()[-1].startswith("error: the data set tiny has no fake images in its")
    assert not (tmp_path / "runs").exists()


def test_scaled_sizes_are_never_smaller_than_a_network_accepts(tiny_dataset: Path, tmp_path: Path) -> None:
    parser = argparse.ArgumentParser()
    spec_flags.add_flags(parser)
    resource_flags.add_flags(parser)
    arguments = parser.parse_args(["--data", str(tiny_dataset), "--storage", str(tmp_path)])
    arguments.name, arguments.seeds, arguments.epochs_scale, arguments.image_scale = "r", 2, 0.05, 0.01
    arguments.init, arguments.init_of, arguments.matched = "none", ["vggface2=hub"], False
    runs: dict[str, RunSpec] = specs(arguments)
    assert len(runs) == 2 * len(VARIANTS)
    assert [spec.preprocess.image_size for spec in runs.values()] == [75] * 8 + [32] * 4
    assert [spec.optim.epochs for spec in runs.values()] == [1] * 8 + [5, 5, 1, 1]
    assert [spec.model.init for spec in runs.values()] == ["none"] * 4 + ["hub"] * 4 + ["none"] * 4
    assert [spec.seed for spec in runs.values()] == [0, 1] * len(VARIANTS)


def test_matched_runs_differ_in_cut_out_alone(tiny_dataset: Path, tmp_path: Path) -> None:
    parser = argparse.ArgumentParser()
    spec_flags.add_flags(parser)
    resource_flags.add_flags(parser)
    arguments = parser.parse_args(["--data", str(tiny_dataset), "--storage", str(tmp_path), "--init", "none"])
    arguments.name, arguments.seeds, arguments.epochs_scale, arguments.image_scale = "m", 1, 1.0, 1.0
    arguments.init_of, arguments.matched = [], True
    runs = {spec.variant: spec.flat() for spec in specs(arguments).values()}
    assert list(runs) == list(VARIANTS)
    for variant in ("inception_resnet_v2", "vggface2", "resnet68"):
        without, with_cutout = runs[variant], runs[f"{variant}-cutout"]
        assert {name for name in without if without[name] != with_cutout[name]} == {"variant", "augment.cutout"}
        assert without == spec_for(variant, {"model.init": "none"}).flat()
