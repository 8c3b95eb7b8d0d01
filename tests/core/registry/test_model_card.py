import json
from pathlib import Path

from detector_core.labels import SPLITS
from detector_core.registry.model_card import render_card
from tests.support.models import save_model


def rate(value: float | None) -> dict[str, float | None]:
    """As reports have it, with an interval."""
    return {"value": value, "low": 0.2, "high": 0.4} if value is not None else {"value": None, "reason": "no reals"}


def test_a_model_of_photographs(tmp_path: Path) -> None:
    model = save_model(tmp_path / "model", run="faces", generated=False)
    where = model / "evaluation" / "test" / "report.json"
    report = json.loads(where.read_text())
    row = {"accuracy": rate(0.3), "fakes_passed_rate": rate(0.3), "reals_flagged_rate": rate(None)}
    report |= {
        "warnings": ["the thresholds were chosen elsewhere"],
        "robustness": [
            {"change": "unchanged", "auc": rate(0.95), **row},
            {"change": "JPEG quality 95", "auc": rate(0.94), **row},
            {"change": "blur sigma 3", "auc": rate(0.75), **row},
            {"change": "noise sigma 5", "auc": rate(None), **row},
        ],
    }
    report["metrics"]["fakes_passed_rate"] = rate(0.3)
    where.write_text(json.dumps(report))
    text = render_card(model)
    assert text.startswith("# faces\n")
    assert "GENERATED" not in text
    for part in (
        "| **fakes passed** (a fake is called real) | 30.00 % (20.00-40.00) |",
        "| **reals flagged** (a real photograph is called fake) | 10.00 % |",
        "> the thresholds were chosen elsewhere",
        "p_fake 0.3000, which lets at most 1% of those fakes pass",
        "| blur sigma 3 | 0.7500 | 30.00 % (20.00-40.00) | 30.00 % (20.00-40.00) | undefined: no reals |",
        "- blur sigma 3: AUC 0.750 where unchanged images have 0.950.",
        "## What it is for",
        "50 real and 50 fake images",
    ):
        assert part in text, part
    assert "- JPEG quality 95: AUC" not in text


def test_generated_data_is_said_loudly_and_what_was_not_judged_is_named(tmp_path: Path) -> None:
    text = render_card(save_model(tmp_path / "model"))
    assert "**GENERATED DEMO DATA. This model has never seen a photograph.**" in text.split("## Data")[0]
    assert "**were not judged**" in text
    assert "## Precision" not in text


def test_the_counts_of_the_data_and_the_uncertain_are_tables(tmp_path: Path) -> None:
    model = save_model(tmp_path / "model")
    where, judged = model / "artifact.json", model / "evaluation" / "test" / "report.json"
    artifact, report = json.loads(where.read_text()), json.loads(judged.read_text())
    artifact["data"]["counts"] = {split: {"real": 2000, "fake": number} for number, split in enumerate(SPLITS)}
    three = {"coverage": 0.9, "accuracy_of_decided": 0.8, "fakes_passed_rate": 0.1, "reals_flagged_rate": None}
    report["with_uncertain"] = {name: rate(value) for name, value in three.items()}
    where.write_text(json.dumps(artifact))
    judged.write_text(json.dumps(report))
    text = render_card(model)
    for part in (
        "| split | real | fake |\n|---|---|---|\n| train | 2,000 | 0 |\n| valid | 2,000 | 1 |\n| test | 2,000 | 2 |\n",
        "| decided (not uncertain) | 90.00 % (20.00-40.00) |\n| right where decided | 80.00 % (20.00-40.00) |\n"
        "| fakes called real, of all fakes, with uncertain | 10.00 % (20.00-40.00) |\n"
        "| reals called fake, of all reals, with uncertain | undefined: no reals |\n",
    ):
        assert part in text, part


def test_a_model_without_chosen_thresholds_says_so(tmp_path: Path) -> None:
    model = save_model(tmp_path / "model")
    (model / "calibration.json").unlink()
    text = render_card(model)
    assert "None were chosen: from p_fake 0.5 on an image is called fake, and no verdict is uncertain." in text
    assert "Temperature" not in text
