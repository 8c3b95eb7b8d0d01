import json
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from detector_core.evaluation.calibration import UNCALIBRATED, Calibration
from detector_core.evaluation.metrics import ERROR_RATES
from detector_core.evaluation.report import build_report, format_report, headline, summarize

DATA = {"name": "tiny", "generated": False, "fingerprint": "a" * 64, "counts": {}}
MODEL = {"run": "run", "variant": "resnet68", "weights_sha256": "w", "data": DATA}
CHOSEN = Calibration(
    temperature=2.0, real_below=0.25, fake_above=0.75, chosen_on={"fingerprint": "a" * 64, "name": "tiny"}
)


def scores_of(real: list[float], fake: list[float]) -> pd.DataFrame:
    logit = np.array(real + fake, dtype=np.float32)
    label = ["real"] * len(real) + ["fake"] * len(fake)
    return pd.DataFrame({"path": [f"{i}.jpg" for i in range(len(label))], "label": label, "logit": logit})


def test_metrics_counted_by_hand() -> None:
    summary = summarize(scores_of([-4.0, -4.0, 0.0, 4.0], [4.0, 4.0, 4.0, -4.0, 0.0]), CHOSEN)
    assert summary["images"] == {"real": 4, "fake": 5}
    assert summary["confusion"] == {"reals_passed": 3, "fakes_passed": 2, "reals_flagged": 1, "fakes_caught": 3}
    assert summary["metrics"]["fakes_passed_rate"]["value"] == pytest.approx(0.4)
    uncalibrated = [summary["uncalibrated"][name] for name in ERROR_RATES]
    # A logit of 0 is a p_fake of exactly 0.5, which is called fake.
    assert [(value["count"], value["of"]) for value in uncalibrated] == [(1, 5), (2, 4)]
    with_uncertain = summary["with_uncertain"]
    assert with_uncertain["verdicts"] == {
        "real": {"real": 2, "uncertain": 1, "fake": 1},
        "fake": {"real": 1, "uncertain": 1, "fake": 3},
    }
    assert (with_uncertain["coverage"]["count"], with_uncertain["coverage"]["of"]) == (7, 9)
    assert (with_uncertain["accuracy_of_decided"]["count"], with_uncertain["accuracy_of_decided"]["of"]) == (5, 7)
    assert with_uncertain["fakes_passed_rate"]["value"] == pytest.approx(1 / 5)
    assert with_uncertain["reals_flagged_rate"]["value"] == pytest.approx(1 / 4)
    assert sum(summary["histogram"]["real"]) == 4
    assert sum(summary["histogram"]["fake"]) == 5


@pytest.mark.parametrize(("real", "fake"), [([-1.0, 1.0], []), ([], [2.0, -2.0])])
def test_with_one_class_a_metric_is_null_with_a_reason_and_never_nan(real: list[float], fake: list[float]) -> None:
    report = build_report(scores_of(real, fake), UNCALIBRATED, model=MODEL, data=DATA, split="test")
    json.dumps(report, allow_nan=False)
    missing = "there are no fakes" if real else "there are no reals"
    for estimate in (*report["ranking"].values(), report["metrics"]["precision"], report["metrics"]["f1"]):
        assert estimate == {"value": None, "reason": missing}
    assert missing in format_report(report)
    assert "without calibration, at threshold 0.5: accuracy" in format_report(report)
    assert "nan" not in format_report(report)


def test_a_split_that_the_model_has_seen_is_a_warning() -> None:
    scores = scores_of([-3.0, -2.0], [2.0, 3.0])
    for split, words in (("train", "The model was trained on these images"), ("valid", "these metrics are optimistic")):
        report = build_report(scores, CHOSEN, model=MODEL, data=DATA, split=split)
        assert report["seen"]
        assert words in report["warnings"][0]
        assert words in format_report(report)
    report = build_report(scores, CHOSEN, model=MODEL, data=DATA, split="test")
    assert (report["seen"], report["warnings"]) == (False, [])


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"data": {**DATA, "generated": True}}, "Generated demo data"),
        ({"data": {**DATA, "fingerprint": "b" * 64, "name": "other"}}, "Not the model's own data set"),
        (
            {"calibration": Calibration(chosen_on={"fingerprint": "c" * 64, "name": "elsewhere"})},
            "The thresholds were chosen on elsewhere, not on the model's own data set",
        ),
    ],
)
def test_other_circumstances_that_a_reader_must_know_are_warnings(changes: dict[str, Any], words: str) -> None:
    scores = scores_of([-3.0, -2.0], [2.0, 3.0])
    arguments = {"calibration": CHOSEN, "model": MODEL, "data": DATA, "split": "test", **changes}
    report = build_report(scores, **arguments)
    assert [words in warning for warning in report["warnings"]] == [True]


def test_default_thresholds_are_a_warning() -> None:
    report = build_report(scores_of([-3.0], [3.0]), UNCALIBRATED, model=MODEL, data=DATA, split="test")
    assert "No thresholds were chosen" in report["warnings"][0]


@pytest.mark.parametrize(
    ("temperature", "words"), [(100.0, "upper bound, 100"), (0.1, "lower bound, 0.1"), (1.0, None)]
)
def test_a_temperature_at_its_bound_is_a_warning(temperature: float, words: str | None) -> None:
    calibration = replace(CHOSEN, temperature=temperature)
    report = build_report(scores_of([-3.0], [3.0]), calibration, model=MODEL, data=DATA, split="test")
    assert [words in warning for warning in report["warnings"] if words] == ([True] if words else [])
    assert len(report["warnings"]) == (1 if words else 0)


def test_the_first_figures_are_both_errors_at_the_threshold_and_the_auc() -> None:
    report = build_report(scores_of([-4.0] * 9 + [4.0], [4.0] * 10), CHOSEN, model=MODEL, data=DATA, split="test")
    assert headline(report) == [
        ("fakes passed", "0.00% (0.00-27.75)"),
        ("reals flagged", "10.00% (1.79-40.42)"),
        ("ROC AUC", headline(report)[2][1]),
    ]
    assert headline(report)[2][1].startswith("0.9500 (0.")
    first = format_report(report).splitlines()[1]
    assert first.split() == ["fakes", "passed", "0.00%", "(0.00-27.75)"]


def test_the_text_table_shows_percent_with_intervals() -> None:
    report = build_report(scores_of([-4.0] * 9 + [4.0], [4.0] * 10), CHOSEN, model=MODEL, data=DATA, split="test")
    lines = [line.split() for line in format_report(report).splitlines()]
    assert ["reals", "flagged", "(paper's", "FNR,", "BPCER)", "10.00%", "(1.79-40.42)"] in lines
    assert any(line[:3] == ["called", "real", "9"] for line in lines)
