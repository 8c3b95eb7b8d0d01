import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.special import expit
from torch import nn

from detector_core import storage
from detector_core.config import PreprocessSpec, RunSpec
from detector_core.data import manifest
from detector_core.errors import BadImage, BrokenArtifact
from detector_core.evaluation import scoring
from detector_core.evaluation.calibration import UNCALIBRATED, Calibration
from detector_core.evaluation.metrics import ERROR_RATES
from detector_core.evaluation.report import build_report, format_report, summarize
from detector_core.images.preprocess import decode, to_input
from detector_core.networks import factory

DATA = {"name": "tiny", "generated": False, "fingerprint": "a" * 64, "counts": {}}
MODEL = {"run": "run", "variant": "resnet68", "weights_sha256": "w", "data": DATA}
CHOSEN = Calibration(
    temperature=2.0, real_below=0.25, fake_above=0.75, chosen_on={"fingerprint": "a" * 64, "name": "tiny"}
)


@pytest.fixture
def network(tiny_spec: RunSpec) -> nn.Module:
    torch.manual_seed(0)
    return factory.build(tiny_spec.model)


def scores_of(real: list[float], fake: list[float]) -> pd.DataFrame:
    logit = np.array(real + fake, dtype=np.float32)
    label = ["real"] * len(real) + ["fake"] * len(fake)
    return pd.DataFrame({"path": [f"{i}.jpg" for i in range(len(label))], "label": label, "logit": logit})


def test_scores_are_those_of_the_serving_path_whatever_the_batch(
    network: nn.Module, tiny_spec: RunSpec, tiny_dataset: Path
) -> None:
    data = manifest.load(str(tiny_dataset))
    rows, seen = data.split("test"), []
    found = scoring.score(network, rows, data.root, tiny_spec.preprocess, batch_size=5, progress=seen.append)
    assert seen == [5, 5, 5, 1]
    assert list(found.columns) == ["path", "label", "logit", "p_fake"]
    assert found["path"].tolist() == rows["path"].tolist()
    again = scoring.score(network, rows.iloc[3:9], data.root, tiny_spec.preprocess, batch_size=64, threads=3)
    assert again["logit"].to_numpy() == pytest.approx(found["logit"][3:9].to_numpy(), abs=1e-5)
    with torch.inference_mode():
        for path, logit in zip(found["path"], found["logit"], strict=True):
            x_CHW = to_input(decode(storage.read_bytes(storage.join(data.root, path))), tiny_spec.preprocess)
            assert network.eval()(x_CHW[None]).item() == pytest.approx(logit, abs=1e-5)
    assert found["p_fake"].to_numpy() == pytest.approx(expit(found["logit"].to_numpy(dtype=np.float64)))


def test_a_broken_or_missing_image_is_named(network: nn.Module, tiny_spec: RunSpec, writable_dataset: Path) -> None:
    data = manifest.load(str(writable_dataset))
    rows = data.split("test")
    victim = Path(data.root) / rows["path"][2]
    victim.write_bytes(victim.read_bytes()[:200])
    with pytest.raises(BadImage, match=str(victim)):
        scoring.score(network, rows, data.root, tiny_spec.preprocess)
    victim.unlink()
    with pytest.raises(BadImage, match=f"{victim}: the file is gone"):
        scoring.score(network, rows, data.root, tiny_spec.preprocess)


def test_a_network_that_gives_nan_is_named(tiny_dataset: Path) -> None:
    class Broken(nn.Module):
        def forward(self, x_BCHW: torch.Tensor) -> torch.Tensor:
            return x_BCHW.flatten(1)[:, :1] * float("nan")

    data = manifest.load(str(tiny_dataset))
    with pytest.raises(BrokenArtifact, match="gives nan"):
        scoring.score(Broken(), data.split("test"), data.root, PreprocessSpec(image_size=32))


def test_judgement_by_hand() -> None:
    report = summarize(scores_of([-4.0, -4.0, 0.0, 4.0], [4.0, 4.0, 4.0, -4.0, 0.0]), CHOSEN)
    assert report["images"] == {"real": 4, "fake": 5}
    assert report["confusion"] == {"reals_passed": 3, "fakes_passed": 2, "reals_flagged": 1, "fakes_caught": 3}
    assert report["metrics"]["fakes_passed_rate"]["value"] == pytest.approx(0.4)
    half = {name: (rate["count"], rate["of"]) for name, rate in report["uncalibrated"].items() if name in ERROR_RATES}
    assert half == {"fakes_passed_rate": (1, 5), "reals_flagged_rate": (2, 4)}, (
        "at 0.5 exactly, p_fake of 0, it is fake"
    )
    three = report["with_uncertain"]
    assert three["verdicts"] == {
        "real": {"real": 2, "uncertain": 1, "fake": 1},
        "fake": {"real": 1, "uncertain": 1, "fake": 3},
    }
    assert (three["coverage"]["count"], three["coverage"]["of"]) == (7, 9)
    assert (three["accuracy_of_decided"]["count"], three["accuracy_of_decided"]["of"]) == (5, 7)
    assert three["fakes_passed_rate"]["value"] == pytest.approx(1 / 5)
    assert three["reals_flagged_rate"]["value"] == pytest.approx(1 / 4)
    assert sum(report["histogram"]["real"]) == 4
    assert sum(report["histogram"]["fake"]) == 5


@pytest.mark.parametrize(("real", "fake"), [([-1.0, 1.0], []), ([], [2.0, -2.0])])
def test_one_class_is_null_with_the_reason_and_never_nan(real: list[float], fake: list[float]) -> None:
    report = build_report(scores_of(real, fake), UNCALIBRATED, model=MODEL, data=DATA, split="test")
    json.dumps(report, allow_nan=False)
    missing = "there are no fakes" if real else "there are no reals"
    for figure in (*report["ranking"].values(), report["metrics"]["precision"], report["metrics"]["f1"]):
        assert figure == {"value": None, "reason": missing}
    assert missing in format_report(report)
    assert "as it is, at 0.5: accuracy" in format_report(report)
    assert "nan" not in format_report(report)


def test_a_split_that_was_seen_says_so_in_large_letters() -> None:
    scores = scores_of([-3.0, -2.0], [2.0, 3.0])
    for split, word in (("train", "TRAINED ON THESE"), ("valid", "CHOSEN ON THESE")):
        report = build_report(scores, CHOSEN, model=MODEL, data=DATA, split=split)
        assert report["seen"]
        assert any(word in warning for warning in report["warnings"])
        assert word in format_report(report)
    report = build_report(scores, CHOSEN, model=MODEL, data=DATA, split="test")
    assert (report["seen"], report["warnings"]) == (False, [])


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"data": {**DATA, "generated": True}}, "generated demo data"),
        ({"data": {**DATA, "fingerprint": "b" * 64, "name": "other"}}, "another data set"),
        (
            {"calibration": Calibration(chosen_on={"fingerprint": "c" * 64, "name": "elsewhere"})},
            "the thresholds were chosen on elsewhere, not on the model's own data",
        ),
    ],
)
def test_what_a_reader_must_know_first(changes: dict[str, Any], word: str) -> None:
    scores = scores_of([-3.0, -2.0], [2.0, 3.0])
    told = {"calibration": CHOSEN, "model": MODEL, "data": DATA, "split": "test", **changes}
    report = build_report(scores, **told)
    assert [word in warning for warning in report["warnings"]] == [True]


def test_the_default_thresholds_are_a_warning() -> None:
    report = build_report(scores_of([-3.0], [3.0]), UNCALIBRATED, model=MODEL, data=DATA, split="test")
    assert "no thresholds were chosen" in report["warnings"][0]


def test_the_table_shows_percent_with_intervals() -> None:
    report = build_report(scores_of([-4.0] * 9 + [4.0], [4.0] * 10), CHOSEN, model=MODEL, data=DATA, split="test")
    lines = format_report(report).splitlines()
    assert any(line.split() == ["REALS", "FLAGGED", "10.00", "%", "(1.79-40.42)"] for line in lines)
    assert any(line.split()[:3] == ["called", "real", "9"] for line in lines)
