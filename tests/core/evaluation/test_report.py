import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from detector_core.config import INIT_KEYWORDS
from detector_core.evaluation.calibration import UNCALIBRATED, Calibration
from detector_core.evaluation.metrics import ERROR_RATES, METRICS, RANKING_METRICS, ROBUSTNESS_METRICS
from detector_core.evaluation.report import build_report, describe_model, report_folder, summarize
from detector_core.evaluation.report_tables import report_tables
from detector_core.evaluation.report_text import format_report, headline
from detector_core.networks import artifacts
from tests.support.models import save_model
from tests.support.scores import of_sources, scores_of

DATA = {"name": "tiny", "generated": False, "fingerprint": "a" * 64, "counts": {}}
MODEL = {"run": "run", "variant": "resnet68", "weights_sha256": "w", "data": DATA}
CHOSEN = Calibration(
    temperature=2.0, real_below=0.25, fake_above=0.75, chosen_on={"fingerprint": "a" * 64, "name": "tiny"}
)


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


def test_what_the_audit_warned_of_is_repeated() -> None:
    report = build_report(
        scores_of([-3.0], [3.0]), CHOSEN, model=MODEL, data=DATA, split="test", data_warnings=["SHORTCUT: bytes"]
    )
    assert report["warnings"] == ["The audit of the data set: SHORTCUT: bytes"]


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


def test_what_a_flag_is_worth_is_in_the_report() -> None:
    report = build_report(scores_of([-4.0] * 9 + [4.0], [4.0] * 10), CHOSEN, model=MODEL, data=DATA, split="test")
    assert [entry["one_in"] for entry in report["flag_value"]] == [2000, 100, 10, 2]
    assert report["flag_value"][-1]["right"]["value"] == pytest.approx(1 / 1.1)
    assert "1 image in 2 is fake" in format_report(report)


def test_the_text_table_shows_percent_with_intervals() -> None:
    report = build_report(scores_of([-4.0] * 9 + [4.0], [4.0] * 10), CHOSEN, model=MODEL, data=DATA, split="test")
    lines = [line.split() for line in format_report(report).splitlines()]
    assert ["reals", "flagged", "(paper's", "FNR,", "BPCER)", "10.00%", "(1.79-40.42)"] in lines
    assert any(line[:3] == ["called", "real", "9"] for line in lines)


PLANTED = {
    "camera": ([-4.0, -4.0, -4.0, 2.5], []),
    "scans": ([-4.0, -4.0], []),
    "easy": ([], [4.0, 4.0, 4.0, 4.0]),
    "hard": ([], [4.0, -4.0, -4.0, -5.0]),
}


def test_each_source_has_its_metrics_and_the_worst_comes_first() -> None:
    report = build_report(of_sources(**PLANTED), CHOSEN, model=MODEL, data=DATA, split="test")
    json.dumps(report, allow_nan=False)
    rows = {row["source"]: row for row in report["sources"]["rows"]}
    assert list(rows) == ["camera", "easy", "hard", "scans"]
    assert rows["hard"]["images"] == {"real": 0, "fake": 4}
    assert (rows["hard"]["fakes_passed_rate"]["count"], rows["hard"]["fakes_passed_rate"]["of"]) == (3, 4)
    assert rows["hard"]["reals_flagged_rate"] == {"value": None, "reason": "there are no reals"}
    # Ranked against all six reals: one fake above all of them, two tied with five, one below all.
    assert rows["hard"]["auc"]["value"] == pytest.approx((6 + 2 * 2.5 + 0) / 24)
    assert 0 < rows["hard"]["auc"]["low"] < rows["hard"]["auc"]["high"] < 1
    assert rows["easy"]["auc"]["value"] == 1
    assert rows["camera"]["reals_flagged_rate"]["value"] == 0.25
    assert {row["ranked_against"] for row in rows.values()} == {"all"}
    assert report["sources"]["worst"] == {"fakes_passed_rate": "hard", "reals_flagged_rate": "camera"}
    assert report["sources"]["mean"]["auc"] == {"value": pytest.approx((1 + 11 / 24) / 2), "sources": 2}
    assert report["sources"]["mean"]["fakes_passed_rate"] == {"value": pytest.approx(0.375), "sources": 2}
    assert report["sources"]["mean"]["reals_flagged_rate"] == {"value": pytest.approx(0.125), "sources": 2}
    assert headline(report)[3:] == [
        ("fakes passed, worst source", "hard: 75.00% (30.06-95.44)"),
        ("reals flagged, worst source", "camera: 25.00% (4.56-69.94)"),
    ]
    lines = [line.split() for line in format_report(report).splitlines()]
    assert any(line[:4] == ["hard", "0", "4", "75.00%"] for line in lines)
    assert any(line[:3] == ["mean", "over", "sources"] for line in lines)


def test_the_tables_are_csv_and_latex_files_too() -> None:
    report = build_report(of_sources(**PLANTED), CHOSEN, model=MODEL, data=DATA, split="test")
    auc, none = {"value": 0.625, "low": 0.5, "high": 0.75}, {"value": None, "reason": "no facts"}
    above = {"difference": 0.25, "low": 0.125, "high": 0.375, "p_value": 0.001}
    report["baselines"] = [
        {"name": "file_facts", "trained_on": "tiny", "auc": auc, "above": {"model": above}},
        {"name": "radial_spectrum", "trained_on": "tiny", "auc": none, "above": {}},
    ]
    report["robustness"] = [{"change": "JPEG, 50%", **dict.fromkeys(ROBUSTNESS_METRICS, auc)}]
    files = report_tables(report)
    assert {name.partition(".")[0] for name in files} == {"metrics", "sources", "baselines", "robustness"}
    assert sum(name.endswith(".tex") for name in files) == 4
    tables = {name: pd.read_csv(io.BytesIO(text)) for name, text in files.items() if name.endswith(".csv")}
    baselines = tables["baselines.csv"].set_index("baseline")
    expected = [0.625, 0.5, 0.75, 0.25, 0.125, 0.375, 0.001]
    columns = ["auc", "auc_low", "auc_high", "above", "above_low", "above_high", "p_value"]
    assert baselines.loc["file_facts", columns].tolist() == expected
    assert np.isnan(baselines.loc["radial_spectrum", "auc"])
    assert baselines.loc["radial_spectrum", "reason"] == "no facts"
    assert tables["robustness.csv"].loc[0, ["change", "accuracy", "auc_high"]].tolist() == ["JPEG, 50%", 0.625, 0.75]
    assert rb"JPEG, 50\% & 0.6250 (0.5000-0.7500) &" in files["robustness.tex"]
    assert rb"hard & 0 & 4 & 75.00\% (30.06-95.44) & - &" in files["sources.tex"]
    assert rb"file facts & 0.6250 (0.5000-0.7500) &" in files["baselines.tex"]
    assert b"equal error rate (EER) &" in files["metrics.tex"]
    metrics = tables["metrics.csv"].set_index("metric")
    assert list(metrics.index) == [*METRICS, *RANKING_METRICS]
    assert metrics.loc["fakes_passed_rate", ["value", "count", "of"]].tolist() == [0.375, 3, 8]
    assert metrics.loc["fakes_caught_at_0.01", "reason"] == "1% of 6 reals is less than one image, at least 100 needed"
    sources = tables["sources.csv"].set_index("source")
    assert sources.loc["hard", ["real", "fake", "fakes_passed_rate"]].tolist() == [0, 4, 0.75]
    assert np.isnan(sources.loc["hard", "reals_flagged_rate"])
    for name in ("sources", "baselines", "robustness"):
        del report[name]
    assert list(report_tables(report)) == ["metrics.csv", "metrics.tex"]


def test_a_source_of_both_classes_is_ranked_alone() -> None:
    scores = of_sources(own=([-1.0, 0.0], [1.0, -0.5]), other=([9.0], [-9.0]))
    rows = build_report(scores, CHOSEN, model=MODEL, data=DATA, split="test")["sources"]["rows"]
    assert [(row["source"], row["auc"]["value"], row["ranked_against"]) for row in rows] == [
        ("other", 0, "own"),
        ("own", 0.75, "own"),
    ]


def test_without_the_other_class_a_source_has_no_ranking() -> None:
    report = build_report(
        of_sources(one=([], [4.0]), two=([], [-4.0])), UNCALIBRATED, model=MODEL, data=DATA, split="test"
    )
    assert {row["auc"]["reason"] for row in report["sources"]["rows"]} == {"there are no reals"}
    assert report["sources"]["mean"]["auc"]["value"] is None
    assert "reals_flagged_rate" not in report["sources"]["worst"]
    assert "nan" not in format_report(report)


def test_a_source_left_out_of_training_is_reported_apart() -> None:
    model = {**MODEL, "data": {**DATA, "left_out": ["hard"]}}
    report = build_report(of_sources(**PLANTED), CHOSEN, model=model, data=DATA, split="test")
    assert report["images"] == {"real": 6, "fake": 4}
    assert report["metrics"]["fakes_passed_rate"]["value"] == 0
    assert report["sources"]["mean"]["auc"] == {"value": 1, "sources": 1}
    aucs = {row["source"]: row["auc"]["value"] for row in report["sources"]["rows"]}
    assert aucs["camera"] == aucs["scans"] == 1, "ranked without the fakes that were left out"
    assert report["sources"]["worst"] == {"reals_flagged_rate": "camera"}
    label, text = headline(report)[-1]
    assert label == "hard, left out of training"
    assert text.startswith("fakes passed 75.00% (30.06-95.44); ROC AUC 0.4583 (")
    assert "hard (left out of training)" in format_report(report)
    other = build_report(
        of_sources(**PLANTED), CHOSEN, model=model, data={**DATA, "fingerprint": "b" * 64}, split="test"
    )
    assert other["images"] == {"real": 6, "fake": 8}, "another data set may use the name for something else"
    alone = build_report(of_sources(hard=PLANTED["hard"]), CHOSEN, model=model, data=DATA, split="test")
    assert alone["images"] == {"real": 0, "fake": 4}, "nothing else is there"


def test_one_source_is_not_a_table() -> None:
    scores = of_sources(all=([-1.0], [1.0]))
    assert "sources" not in build_report(scores, CHOSEN, model=MODEL, data=DATA, split="test")


def test_a_model_is_described_without_the_paths_of_its_machine(tmp_path: Path) -> None:
    artifact = artifacts.read(save_model(tmp_path / "model"))
    described = describe_model("runs/tiny/model", artifact)
    assert described["settings"]["model.init"] in INIT_KEYWORDS
    spec = artifact.spec.replace({"model.init": str(tmp_path / "weights.safetensors")})
    described = describe_model("runs/tiny/model", replace(artifact, spec=spec))
    assert described["settings"]["model.init"] == "a file"
    assert report_folder("runs/tiny/model", "test") == "runs/tiny/model/evaluation/test"
    assert report_folder("runs/tiny/model", "test", "a" * 64) == f"runs/tiny/model/evaluation/test-{'a' * 12}"
