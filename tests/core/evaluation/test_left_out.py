"""detector_core.evaluation.left_out: what a model misses of a generator that it was trained without."""

import csv
import io

import numpy as np
import pytest

from detector_core.evaluation import left_out
from detector_core.evaluation.calibration import UNCALIBRATED
from detector_core.evaluation.intervals import compare_aucs
from detector_core.evaluation.left_out import Evaluated, compare_left_out
from detector_core.evaluation.report import build_report
from tests.support.scores import of_sources

DATA = {"name": "tiny", "generated": False, "fingerprint": "a" * 64, "counts": {}}
REALS = ([-3.0, -2.0, -1.0, 0.5], [])


def evaluated(without: str | None = None, **fakes: list[float]) -> Evaluated:
    """A model with given logits of the fakes of each generator; all give the reals the same."""
    scores = of_sources(camera=REALS, **{source: ([], logits) for source, logits in fakes.items()})
    data = DATA | ({"left_out": [without]} if without else {})
    model = {"run": "run", "variant": "resnet68", "weights_sha256": "w", "data": data}
    return Evaluated(build_report(scores, UNCALIBRATED, model=model, data=DATA, split="test"), scores)


def test_figures_of_each_source_by_hand() -> None:
    result = compare_left_out(
        evaluated(easy=[4.0, 3.0], hard=[2.0, 1.0]),
        {
            "easy": evaluated("easy", easy=[4.0, 3.0], hard=[2.0, 1.0]),
            "hard": evaluated("hard", easy=[4.0, 3.0], hard=[-1.5, 1.0]),
        },
    )
    assert [row["source"] for row in result["rows"]] == ["hard", "easy"]
    assert result["worst"] == "hard"
    hard = result["rows"][0]
    assert hard["images"] == {"real": 0, "fake": 2}
    assert (hard["trained"]["auc"]["value"], hard["left_out"]["auc"]["value"]) == (1, 6 / 8)
    assert (hard["trained"]["fakes_passed_rate"]["value"], hard["left_out"]["fakes_passed_rate"]["value"]) == (0, 0.5)
    assert hard["reals_flagged_rate"]["value"] == 0.25
    expected = compare_aucs(
        np.array([False] * 4 + [True] * 2), np.array([-3, -2, -1, 0.5, -1.5, 1]), np.array([-3, -2, -1, 0.5, 2, 1])
    )
    assert hard["difference"]["difference"] == -0.25
    assert hard["difference"]["p_value"] == pytest.approx(expected.p_value)
    assert hard["difference"]["p_holm"] == pytest.approx(min(1, 2 * expected.p_value))  # type: ignore[operator]
    assert result["rows"][1]["difference"] == {
        **{"difference": 0, "low": 0, "high": 0, "p_value": 1},
        "p_holm": 1,
    }
    assert result["mean"]["left_out"]["auc"] == 7 / 8
    text = left_out.format_left_out(result)
    assert "0.8750 (with it in training 1.0000); the worst is hard with 0.7500" in text
    plots = left_out.draw_left_out(result)
    assert b"hard" in plots["generators.svg"]
    page = left_out.render_left_out(result, "a title", ["a note"], plots)
    assert "a note" in page
    assert "50.00%" in page
    lines = list(csv.DictReader(io.StringIO(left_out.to_csv(result).decode())))
    assert (lines[0]["source"], lines[0]["fakes"], lines[0]["auc_left_out"]) == ("hard", "2", "0.75")
    latex = left_out.to_latex(result, "a title").decode().splitlines()
    assert latex[1].startswith("% a title: Mean ROC AUC on a source that training did not have: 0.8750")
    assert latex[6].startswith("hard & 0.7500 (")
    assert latex[7].startswith("easy & 1.0000 ")


def test_with_one_class_nothing_is_tested_and_nothing_is_nan() -> None:
    def fakes_only(without: str | None = None) -> Evaluated:
        scores = of_sources(one=([], [1.0]), two=([], [-1.0]))
        data = DATA | ({"left_out": [without]} if without else {})
        model = {"run": "run", "variant": "resnet68", "weights_sha256": "w", "data": data}
        return Evaluated(build_report(scores, UNCALIBRATED, model=model, data=DATA, split="test"), scores)

    result = compare_left_out(fakes_only(), {source: fakes_only(source) for source in ("one", "two")})
    assert result["worst"] is None
    assert {row["difference"]["reason"] for row in result["rows"]} == {"the test split has one class only"}
    assert result["mean"]["left_out"] == {"auc": None, "fakes_passed_rate": 0.5, "reals_flagged_rate": None}
    assert left_out.draw_left_out(result) == {}
    page = left_out.render_left_out(result, "a title", [], {})
    assert "No ROC AUC is defined" in page
    assert ">nan" not in page
