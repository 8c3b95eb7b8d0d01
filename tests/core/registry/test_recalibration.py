"""A version with its threshold chosen for a place: by hand, as properties, and in a registry."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from scipy.stats import binomtest

from detector_core.evaluation import calibration, report, report_html
from detector_core.evaluation.calibration import Calibration
from detector_core.evaluation.intervals import images_to_bound
from detector_core.networks import artifacts
from detector_core.registry import predictor, recalibration, test_reports, versions
from detector_core.registry.recalibration import choose_for_place
from tests.support.models import save_model
from tests.support.scores import few

BEFORE = Calibration(temperature=2.0, real_below=0.3, fake_above=0.7, max_fakes_passed=0.01, chosen_on={"name": "own"})
NOTHING = np.zeros(0)


def place(reals: Any, fakes: Any = NOTHING, share: float = 0.1) -> recalibration.PlaceCalibration:
    real_logit, fake_logit = (np.asarray(logit, dtype=float) for logit in (reals, fakes))
    return choose_for_place(BEFORE, real_logit, fake_logit, share, {"name": "p"})


def test_the_threshold_lies_between_the_last_flagged_real_and_the_next() -> None:
    chosen = place(np.arange(20.0))
    low, high = BEFORE.p_fake([17.0, 18.0])
    assert chosen.calibration.fake_above == pytest.approx((low + high) / 2)
    assert (chosen.reals_flagged.count, chosen.reals_flagged.of) == (2, 20)
    assert (chosen.calibration.real_below, chosen.calibration.temperature) == (0.3, 2.0), "as before"
    assert chosen.calibration.chosen_on == {
        "name": "p",
        "split": "place",
        "n": 20,
        "reals": 20,
        "fakes": 0,
        "flag_at_most": 0.1,
    }
    assert chosen.fakes_passed.value is None


def test_a_threshold_below_one_half_stays_there() -> None:
    assert place(np.arange(-30.0, -10.0)).calibration.fake_above == 0.5


def test_with_fakes_the_lower_threshold_is_chosen_too() -> None:
    fakes = np.arange(-4.0, 16.0)
    chosen = place(np.arange(-10.0, 10.0), fakes)
    # At most 1% of 20 fakes, none, may lie below it: halfway between the lowest fake and the real below it.
    assert chosen.calibration.real_below == pytest.approx(float(BEFORE.p_fake([-4.5])[0]))
    assert chosen.fakes_passed.count == int((fakes <= 7).sum())


def test_what_few_reals_allow_is_said() -> None:
    text = place(np.arange(500.0) / 100 + 3, share=0.005).describe(0.005)
    assert text == (
        "2 of 500 reals are flagged; so many bound the share only to about 1.45%, and at least 765 are needed to bound "
        "it to 0.50%"
    )
    enough = place(np.arange(1000.0) / 100, share=0.1).describe(0.15)
    assert enough.startswith("100 of 1,000 reals are flagged, which bounds the share to 12.0")
    needed = images_to_bound(0.005)
    bounds = [binomtest(0, n).proportion_ci(0.95, method="wilson").high for n in (needed - 1, needed)]
    assert bounds[1] <= 0.005 < bounds[0]


@few
@given(
    arrays.arrays(np.float64, st.integers(1, 60), elements=st.floats(-8, 8, width=16)),
    st.floats(0.001, 0.9),
)
def test_at_most_the_share_is_flagged_and_the_calibration_can_be_read_again(reals: Any, share: float) -> None:
    chosen = place(reals, share=share)
    assert chosen.reals_flagged.value is not None
    assert chosen.reals_flagged.value <= share + 1e-9
    again = Calibration.from_dict(json.loads(json.dumps(chosen.calibration.to_dict())))
    assert again == chosen.calibration
    p_fake = again.p_fake(reals)
    lower = p_fake[p_fake < again.fake_above]
    if again.fake_above > 0.5 and len(lower):
        flagged_with_one_more = np.mean(p_fake >= lower.max())
        assert flagged_with_one_more > share, "no lower threshold would do"


def promoted(tmp_path: Path) -> tuple[str, str]:
    """A registry whose live version has scores of one data set, and a report without scores of another."""
    model = save_model(tmp_path / "model", auc=None)
    artifact = artifacts.read(model)
    logit = np.concatenate([np.linspace(-4, 2, 50), np.linspace(-1, 6, 50)])
    scores = pd.DataFrame({"path": [f"{i}.jpg" for i in range(100)], "label": ["real"] * 50 + ["fake"] * 50})
    scores = scores.assign(logit=logit, source="unnamed")
    loaded = calibration.load(str(model), artifact.weights_sha256)
    before = replace(loaded, chosen_on={**loaded.chosen_on, "name": artifact.data["name"], "n": 100})
    for name, data in (("test", artifact.data), ("test-other", {**artifact.data, "name": "other", "fingerprint": "o"})):
        described = report.describe_model(str(model), artifact)
        made = report.build_report(scores, before, model=described, data=data, split="test")
        report_html.write(str(model / "evaluation" / name), scores.assign(p_fake=before.p_fake(logit)), made, {})
    (model / "evaluation" / "test-other" / "scores.parquet").unlink()
    models = str(tmp_path / "models")
    return models, versions.promote(model, models)


def test_a_new_version_has_its_figures_at_the_new_threshold_and_can_be_rolled_back(tmp_path: Path) -> None:
    models, before = promoted(tmp_path)
    info = predictor.describe(versions.live(models))
    chosen_on = {"name": "camera", "fingerprint": "place", "weights_sha256": info.sha256}
    chosen = choose_for_place(info.calibration, np.linspace(-3, 4, 40), NOTHING, 0.05, chosen_on)
    version = recalibration.add_version(models, before, chosen.calibration)
    assert versions.history(models) == [version, before]
    live = predictor.describe(versions.live(models))
    assert live.sha256 == info.sha256
    assert live.calibration == chosen.calibration
    reports = {values["data"]["name"]: values for values in test_reports.read(versions.live(models)).values()}
    own = reports["data d1"]
    assert own["threshold"] == chosen.calibration.fake_above
    flagged = int((chosen.calibration.p_fake(np.linspace(-4, 2, 50)) >= chosen.calibration.fake_above).sum())
    assert own["confusion"]["reals_flagged"] == flagged
    assert any("chosen on camera, not on the model's own data set" in warning for warning in own["warnings"])
    page = (versions.live(models) / "evaluation" / "test" / "report.html").read_text()
    assert "The upper threshold was chosen on 40 photographs of camera, to flag at most 5.00%" in page
    other = reports["other"]
    assert other["metrics"]["accuracy"] == {"value": None, "reason": "the version has no scores: evaluate it again"}
    assert other["ranking"]["auc"]["value"] > 0.5
    assert "confusion" not in other
    assert [path.name for path in (versions.live(models) / "evaluation" / "test-other").iterdir()] == ["report.json"]
    card = (versions.live(models) / "MODEL_CARD.md").read_text()
    assert "chosen on 40 photographs of camera, to flag at most 5.00% of them" in card
    assert {test["data"]: test["accuracy"] is None for test in live.test_metrics} == {"data d1": False, "other": True}

    again = recalibration.add_version(models, before, chosen.calibration)
    assert again == version, "the same again is the same version"
    assert versions.rollback(models) == before
    assert predictor.describe(versions.live(models)).calibration == info.calibration
