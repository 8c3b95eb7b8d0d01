import json
from pathlib import Path

from detector_core.evaluation.by_source import evaluate_sources
from detector_core.evaluation.calibration import UNCALIBRATED
from detector_core.evaluation.metrics import ROBUSTNESS_METRICS
from detector_core.labels import SPLITS
from detector_core.registry.model_card import render_card
from tests.support.models import save_model
from tests.support.scores import of_sources


def estimate(value: float | None) -> dict[str, float | None]:
    """As in a report, with an interval."""
    return {"value": value, "low": 0.2, "high": 0.4} if value is not None else {"value": None, "reason": "no reals"}


def test_the_card_of_a_model_of_photographs(tmp_path: Path) -> None:
    model = save_model(tmp_path / "model", run="faces", generated=False)
    where = model / "evaluation" / "test" / "report.json"
    report = json.loads(where.read_text())
    row = dict.fromkeys(ROBUSTNESS_METRICS, estimate(0.3)) | {"reals_flagged_rate": estimate(None)}
    report |= {
        "warnings": ["the thresholds were chosen elsewhere"],
        "robustness": [
            {**row, "change": change, "auc": {"value": auc} if auc else {"value": None, "reason": "no reals"}}
            for change, auc in (
                ("unchanged", 0.95),
                ("JPEG quality 95", 0.94),
                ("blur sigma 3", 0.75),
                ("noise sigma 5", None),
            )
        ],
    }
    report["metrics"]["fakes_passed_rate"] = estimate(0.3)
    report["sources"] = evaluate_sources(of_sources(camera=([-1.0], []), stylegan=([], [1.0])), UNCALIBRATED)
    where.write_text(json.dumps(report))
    report["overlap"] = {"images": 4, "exact": 1, "near": 0, "examples": []}
    report["baselines"] = [{"name": "radial_spectrum", "auc": estimate(0.3)}]
    where.write_text(json.dumps(report))
    artifact = json.loads((model / "artifact.json").read_text())
    artifact["data"]["terms"] = "not for sale"
    (model / "artifact.json").write_text(json.dumps(artifact))
    text = render_card(model)
    assert text.startswith("# faces\n")
    assert "GENERATED" not in text
    for part in (
        "| **fakes passed** (a fake is called real; the paper's FPR, APCER) | 30.00% (20.00-40.00) |",
        "| **reals flagged** (a real photograph is called fake; the paper's FNR, BPCER) | 10.00% |",
        "> the thresholds were chosen elsewhere",
        "**Terms of the training data, which hold for the model, too:** not for sale\n",
        "| images that it was trained or chosen on | 1 of 4, and 0 near-duplicate",
        "| ROC AUC of a logistic regression on radial spectrum, without a network | 0.3000 (0.2000-0.4000) |",
        "p_fake is below 0.3000 (at most 1% of the fakes of that split pass)",
        "| changed images | ROC AUC | fakes caught at 1% reals flagged | accuracy | fakes passed | reals flagged |",
        f"| blur sigma 3 | 0.7500 |{3 * ' 30.00% (20.00-40.00) |'} undefined: no reals |",
        "- blur sigma 3: ROC AUC 0.750, compared with 0.950 on unchanged images.",
        "| 1 image in 2 is fake | 90 (81-96) of 100 flags |",
        "| stylegan | 0 | 1 |",
        "## Intended use",
        "50 real and 50 fake images",
    ):
        assert part in text, part
    assert "- JPEG quality 95: ROC AUC" not in text


def test_generated_data_is_a_warning_and_missing_evaluations_are_named(tmp_path: Path) -> None:
    text = render_card(save_model(tmp_path / "model"))
    assert "**GENERATED DEMO DATA. This model has never seen a photograph.**" in text.split("## Training data")[0]
    assert "**Not evaluated** on changed images" in text
    assert "## Precision" not in text


def test_counts_and_metrics_with_uncertain_are_in_tables(tmp_path: Path) -> None:
    model = save_model(tmp_path / "model")
    where, report_file = model / "artifact.json", model / "evaluation" / "test" / "report.json"
    artifact, report = json.loads(where.read_text()), json.loads(report_file.read_text())
    artifact["data"]["counts"] = {split: {"real": 2000, "fake": number} for number, split in enumerate(SPLITS)}
    with_uncertain = {"coverage": 0.9, "accuracy_of_decided": 0.8, "fakes_passed_rate": 0.1, "reals_flagged_rate": None}
    report["with_uncertain"] = {name: estimate(value) for name, value in with_uncertain.items()}
    where.write_text(json.dumps(artifact))
    report_file.write_text(json.dumps(report))
    text = render_card(model)
    for part in (
        "| split | real | fake |\n|---|---|---|\n| train | 2,000 | 0 |\n| valid | 2,000 | 1 |\n| test | 2,000 | 2 |\n",
        "| decided, not uncertain (coverage) | 90.00% (20.00-40.00) |\n"
        "| correct among those decided | 80.00% (20.00-40.00) |\n"
        "| fakes called real, of all fakes, if uncertain is allowed | 10.00% (20.00-40.00) |\n"
        "| reals called fake, of all reals, if uncertain is allowed | undefined: no reals |\n",
    ):
        assert part in text, part


def test_default_thresholds_are_named(tmp_path: Path) -> None:
    model = save_model(tmp_path / "model")
    (model / "calibration.json").unlink()
    text = render_card(model)
    assert "None were chosen: an image is called fake if p_fake is at least 0.5, and no verdict is uncertain." in text
    assert "Temperature" not in text
