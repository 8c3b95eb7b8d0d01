"""Models next to each other: planted differences are found, and nothing else wins."""

import csv
import io
import json
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import expit
from scipy.stats import t

from detector_core.data.seen import Overlap
from detector_core.errors import BadData
from detector_core.evaluation import model_comparison_html
from detector_core.evaluation.intervals import compare_aucs, compare_means
from detector_core.evaluation.latex import Table
from detector_core.evaluation.model_comparison import ScoredRun, compare_models
from detector_core.evaluation.model_comparison_tables import comparison_files
from detector_core.evaluation.significance import compare_seeds, holm, limit_at
from tests.support.scores import few

LABEL = ["real"] * 150 + ["fake"] * 150


def scored(model: str, distance: float, *, seed: int = 0, shift: float = 0.0, **fields: Any) -> ScoredRun:
    """A run whose fakes score ``distance`` standard deviations above its reals; ``shift`` moves all of its scores."""
    draw = np.random.default_rng([seed, len(model), *map(ord, model)])
    logit = draw.normal(size=300) + distance * (np.arange(300) >= 150) - distance / 2 + shift
    scores = pd.DataFrame({"path": [f"{i}.jpg" for i in range(300)], "label": LABEL, "logit": logit})
    scores["p_fake"] = expit(logit)
    given = {"threshold": 0.5, "matched_limit": float(np.quantile(logit[:150], 0.95)), **fields}
    return ScoredRun(name=f"{model}-{seed}", model=model, seed=seed, scores=scores, **given)


def compare(*runs: ScoredRun) -> dict[str, Any]:
    compared = {"name": "tiny <b>", "reals_flagged": 0.05, "warnings": [], **compare_models(runs)}
    json.dumps(compared, allow_nan=False)
    return compared


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.03, None, 0.02]) == [pytest.approx(0.04), None, pytest.approx(0.04)]
    assert holm([]) == []
    assert holm([0.9, 0.8]) == [1, 1]


@few
@given(st.lists(st.one_of(st.none(), st.floats(0, 1)), max_size=12))
def test_holm_rejects_what_the_stepwise_procedure_rejects(p_values: list[float | None]) -> None:
    """Holm's procedure: go through the p-values from the smallest, stop at the first above alpha / (those left)."""
    tested = sorted((p, i) for i, p in enumerate(p_values) if p is not None)
    for alpha in (0.01, 0.05, 0.3):
        rejected = set()
        for rank, (p_value, index) in enumerate(tested):
            if p_value * (len(tested) - rank) > alpha:
                break
            rejected.add(index)
        assert {i for i, p in enumerate(holm(p_values)) if p is not None and p <= alpha} == rejected


def test_a_better_model_wins_and_equal_ones_do_not() -> None:
    compared = compare(scored("strong", 4.0), scored("weak", 1.0), scored("middle", 2.0))
    assert compared["winner"]["model"] == "strong"
    assert compared["winner"]["not_distinguished"] == []
    pair = compared["pairs"][0]
    assert pair["models"] == ["strong", "weak"]
    assert pair["auc"]["difference"] > 0.15
    assert pair["auc"]["p_value"] < pair["auc"]["p_holm"] < 0.001
    assert pair["matched"]["only_first_correct"] > 5 * pair["matched"]["only_second_correct"]
    equal = compare(scored("one", 2.0), scored("two", 2.0))["winner"]
    assert equal["model"] is None
    assert {equal["leader"], *equal["not_distinguished"]} == {"one", "two"}
    assert "not significantly" in equal["reason"]


def test_a_guessing_model_is_never_named_however_few_fakes_it_passes() -> None:
    """The paper's rule would crown it: at its own threshold it passes the fewest fakes."""
    compared = compare(scored("guess", 0.05, shift=3.0), scored("better", 0.75))
    rates = {row["model"]: row["fakes_passed_rate"]["value"] for row in compared["rows"]}
    assert rates["guess"] < 0.01 < rates["better"]
    assert "guess" in compared["winner"]["excluded"]
    assert "holds 0.5" in compared["winner"]["excluded"]["guess"]
    assert compared["winner"]["leader"] == "better"
    alone = compare(scored("guess", 0.05), scored("chance", 0.0))
    assert alone["winner"]["model"] is alone["winner"]["leader"] is None
    assert "may be guessing" in alone["winner"]["reason"]


def test_a_weak_model_does_not_win_because_a_far_better_one_cannot() -> None:
    strong = scored("strong", 3.0, shift=2.2)
    compared = compare(scored("weak", 0.7), strong)
    pair, winner = compared["pairs"][0], compared["winner"]
    assert pair["auc"]["difference"] < -0.3
    assert pair["auc"]["p_holm"] < 1e-9
    assert list(winner["excluded"]) == ["strong"]
    assert winner["excluded"]["strong"].endswith("% of the reals at its threshold")
    assert (winner["model"], winner["leader"], winner["not_distinguished"]) == (None, "weak", ["strong"])
    assert winner["reason"] == (
        "weak leads the models that may win, but its ROC AUC is not significantly higher than that of strong (which "
        "cannot win itself)"
    )
    assert "No winner: weak leads" in model_comparison_html.render_page([compared], "t", [])
    seeds = [replace(strong, seed=1, overlap=Overlap(images=300, exact=300, near=0)), strong]
    memorized = compare(scored("weak", 0.7), *seeds)["winner"]
    assert memorized["excluded"] == {"strong": "was trained or chosen on 300 of these images"}
    assert memorized["model"] == "weak", "what a model scores on images that it has seen says nothing"
    better = compare(scored("guess", 0.05, shift=3.0), scored("better", 2.0))["winner"]
    assert (better["model"], list(better["excluded"])) == ("better", ["guess"])


def test_a_model_that_calls_everything_fake_does_not_beat_one_that_separates() -> None:
    """Its ROC AUC is higher, but it flags every real; neither wins, for the other one does not separate better."""
    compared = compare(scored("all-fake", 5.0, shift=20.0), scored("good", 3.5))
    assert compared["winner"]["excluded"] == {"all-fake": "flags 100% of the reals at its threshold"}
    assert compared["winner"]["model"] is None
    assert compared["winner"]["not_distinguished"] == ["all-fake"]
    matched = {row["model"]: row["matched_fakes_passed_rate"]["value"] for row in compared["rows"]}
    assert matched["all-fake"] < matched["good"], "at a matched share of reals its threshold does not matter"


def test_a_reversed_model_and_one_that_has_seen_the_images_cannot_win() -> None:
    compared = compare(
        scored("reversed", -2.0), scored("trained-on-test", 6.0, overlap=Overlap(images=300, exact=12, near=0))
    )
    assert compared["winner"]["excluded"]["reversed"].startswith("orders the images worse than guessing")
    assert compared["winner"]["excluded"]["trained-on-test"] == "was trained or chosen on 12 of these images"
    assert compared["winner"]["model"] is None
    assert "has seen 12 of these images" in model_comparison_html.render_page([compared], "t", [])


def test_near_duplicates_of_training_images_bar_a_model_only_if_there_are_many() -> None:
    def winner(**overlap: Any) -> dict[str, Any]:
        row = Overlap(images=300, **overlap)
        compared = compare(scored("strong", 4.0, overlap=row), scored("weak", 1.0))
        assert compared["rows"][0]["overlap"] == row.to_dict()
        page = model_comparison_html.render_page([compared], "t", [])
        assert ("may have seen these images" in page) == (row.exact is None)
        return dict(compared["winner"])

    assert winner(exact=0, near=3)["model"] == "strong"
    assert winner(exact=0, near=4)["excluded"]["strong"].startswith("was trained or chosen on near-duplicates of 4")
    assert winner(exact=1, near=0)["excluded"]["strong"] == "was trained or chosen on 1 of these images"
    assert winner(reason="nothing tells")["model"] == "strong", "not knowing is said, and proves nothing"


def test_the_lead_of_one_lucky_seed_is_no_lead() -> None:
    """Between first seeds the difference is certain; the other seeds say that the models are alike."""
    lucky = [scored("lucky", distance, seed=seed) for seed, distance in enumerate((3.5, 1.3, 2.2))]
    steady = [scored("steady", 2.0, seed=seed) for seed in range(3)]
    first = compare(lucky[0], steady[0])
    assert first["winner"]["model"] == "lucky"
    assert "Each model has one seed" in model_comparison_html.render_page([first], "t", [])
    over_seeds = compare(*lucky, *steady)
    pair = over_seeds["pairs"][0]
    assert over_seeds["winner"]["model"] is None
    assert pair["auc"]["p_value"] > 0.3
    assert pair["auc"]["low"] < 0 < pair["auc"]["high"]
    assert pair["matched"]["low"] < 0 < pair["matched"]["high"]
    assert {"p_value", "p_holm"} <= set(pair["seeds"])
    text = model_comparison_html.render_page([over_seeds], "t", [])
    assert "that of the seeds" in text
    assert "points\n(" in text


def test_a_test_over_seeds_and_images_by_hand() -> None:
    """Variances 4 of the images, 1 / 3 and 4 / 3 of the two means: t = -4 / sqrt(17 / 3)."""
    test = compare_means([1, 2, 3], [4, 6, 8], image_variance=4.0)
    total = 4 + 1 / 3 + 4 / 3
    freedom = total**2 / ((1 / 3) ** 2 / 2 + (4 / 3) ** 2 / 2)
    assert test.difference == -4
    assert test.p_value == pytest.approx(2 * t.sf(4 / np.sqrt(total), freedom))
    assert test.high == pytest.approx(-4 + t.ppf(0.975, freedom) * np.sqrt(total))
    alone = compare_means([1, 2, 3], [5], image_variance=4.0)
    assert alone.p_value == pytest.approx(2 * t.sf(3 / np.sqrt(4 + 1 / 3 + 1), (16 / 3) ** 2 / ((1 / 9 + 1) / 2)))
    assert compare_means([1], [1], image_variance=0.0).p_value == 1
    assert compare_means([1], [2], image_variance=0.0).p_value is None


def test_equal_models_with_seeds_differ_as_rarely_as_the_level_says() -> None:
    """Seeds differ by more than images allow: DeLong's test between first seeds would find differences in half."""
    found = []
    for number in range(200):
        draw = np.random.default_rng(number)
        image, seed = draw.normal(size=80) + (np.arange(80) >= 40), draw.normal(0, 0.6, (2, 3))
        noise = draw.normal(0, 0.5, (2, 3, 80)) + (np.arange(80) >= 40) * seed[..., None]
        p_value = compare_aucs(np.arange(80) >= 40, image + noise[0], image + noise[1]).p_value
        found.append(p_value is not None and p_value < 0.05)
    assert np.mean(found) <= 0.085


def test_seeds_are_one_model_with_mean_and_standard_deviation() -> None:
    runs = [scored("strong", distance, seed=seed) for seed, distance in enumerate((3.0, 3.2, 2.8))]
    compared = compare(*runs, *(scored("weak", 1.0, seed=seed) for seed in (0, 1, 2)))
    strong = compared["models"][0]
    aucs = [row["auc"]["value"] for row in compared["rows"][:3]]
    assert strong["seeds"] == [0, 1, 2]
    assert strong["auc"] == {"mean": pytest.approx(np.mean(aucs)), "deviation": pytest.approx(np.std(aucs, ddof=1))}
    assert len(compared["pairs"]) == 1
    assert compared["pairs"][0]["seeds"]["p_value"] < 0.05
    assert "±" in model_comparison_html.render_page([compared], "t", [])
    # Welch: t = -4 / sqrt(1 / 3 + 4 / 3), 2.94 degrees of freedom
    assert compare_seeds([1, 2, 3], [4, 6, 8])["p_value"] == pytest.approx(
        2 * t.sf(4 / np.sqrt(5 / 3), (5 / 3) ** 2 / ((1 / 3) ** 2 / 2 + (4 / 3) ** 2 / 2))
    )
    assert compare_seeds([0.9], [0.8, 0.7])["p_value"] is None
    assert compare_seeds([0.9, 0.9], [0.8, 0.8]) == {
        "difference": pytest.approx(0.1),
        "p_value": None,
        "reason": "all seeds of a model gave the same value",
    }


def test_the_order_of_the_images_does_not_matter_and_other_images_are_refused() -> None:
    first, second = scored("one", 2.0), scored("two", 1.5)
    shuffled = ScoredRun(**{**vars(second), "scores": second.scores.sample(frac=1, random_state=0)})
    assert compare(first, shuffled) == compare(first, second)
    fewer = ScoredRun(**{**vars(second), "scores": second.scores.head(200)})
    with pytest.raises(BadData, match="one-0 and two-0 were evaluated on different images"):
        compare(first, fewer)


def test_figures_that_cannot_be_had_are_none_with_the_reason() -> None:
    def fakes(run: ScoredRun) -> ScoredRun:
        return ScoredRun(**{**vars(run), "scores": run.scores[150:]})

    compared = compare(
        fakes(scored("one", 2.0, matched_limit=None, no_limit="there is none")), fakes(scored("two", 1.0))
    )
    assert compared["images"] == {"real": 0, "fake": 150}
    row = compared["rows"][0]
    assert row["auc"] == {"value": None, "reason": "there are no reals"}
    assert row["matched_fakes_passed_rate"] == {"value": None, "reason": "there is none"}
    assert row["fakes_passed_rate"]["value"] is not None
    pair = compared["pairs"][0]
    assert (pair["auc"]["p_value"], pair["auc"]["p_holm"], pair["auc"]["reason"]) == (
        None,
        None,
        "there are no reals",
    )
    assert pair["matched"]["reason"] == "one-0: there is none"
    assert compared["winner"]["model"] is None
    page = model_comparison_html.render_page([compared], "t", [])
    assert "undefined: there are no reals" in page
    assert ">nan" not in page


def test_the_limit_flags_at_most_the_share_of_the_reals() -> None:
    assert limit_at(np.arange(100.0), 0.05) == (94.0, None)
    assert limit_at(np.arange(100.0), 0.055) == (94.0, None)
    assert limit_at(np.repeat(1.0, 40), 0.05) == (1.0, None), "ties are not flagged"
    assert limit_at(np.arange(19.0), 0.05) == (None, "5% of 19 validation reals is less than one image")
    assert limit_at(np.zeros(0), 0.05) == (None, "5% of 0 validation reals is less than one image")


def test_the_page_the_text_and_the_csv_have_every_run() -> None:
    above = {"strong": {"difference": 0.3, "low": 0.2, "high": 0.4, "p_value": 0.001}}
    auc = {"value": 0.69, "low": 0.6, "high": 0.78}
    baseline = {"name": "file_facts", "trained_on": "<tiny>", "auc": auc, "above": above}
    compared = compare(scored("strong", 4.0), scored("weak", 1.0)) | {"baselines": [baseline]}
    other = {**compare(scored("strong", 4.0)), "name": "other"}
    page = model_comparison_html.render_page([compared, other], "2 models on 2 sets", ["Generated"])
    assert "tiny &lt;b&gt;" in page
    assert "tiny <b>" not in page
    assert '<p class="warning">Generated</p>' in page
    for text in (page, model_comparison_html.format_sets([compared, other])):
        assert "Winner by ROC AUC: strong" in text
    for cells in ("the baseline alone</td><td>0.6900\n(0.6000-0.7800)", "<td>+0.3000\n(+0.2000 to +0.4000)"):
        assert cells in page
    assert "file facts of &lt;tiny&gt;" in page
    files = comparison_files([{**compared, "name": "100%_real & more"}], Table("more", ("a_b", "c"), [("1 %", "~")]))
    assert list(files) == ["comparison.csv", "comparison.tex"], "the images have one source"
    latex = files["comparison.tex"].decode()
    assert latex.count(r"\\") == 5, "a header and two runs, a header and a row"
    assert r"a\_b & c \\" in latex
    assert r"1 \% & \textasciitilde{} \\" in latex
    assert "% 100%_real & more: Winner by ROC AUC: strong\n" in latex
    assert r"\begin{tabular}{lrrrrrrr}" in latex
    assert r"5.33\% (2.73-10.17)" in latex
    assert "strong & 0.99" in latex
    rows = list(csv.DictReader(io.StringIO(comparison_files([compared, other])["comparison.csv"].decode())))
    assert [(row["set"], row["run"], row["reals"]) for row in rows] == [
        ("tiny <b>", "strong-0", "150"),
        ("tiny <b>", "weak-0", "150"),
        ("tiny <b>", "baseline: file facts of <tiny>", "150"),
        ("other", "strong-0", "150"),
    ]
    assert float(rows[0]["auc_low"]) < float(rows[0]["auc"]) < float(rows[0]["auc_high"])


def test_without_fakes_there_is_no_threshold_to_match() -> None:
    runs = [scored(name, 1.0) for name in ("one", "two")]
    compared = compare(*(ScoredRun(**{**vars(run), "scores": run.scores[:150]}) for run in runs))
    assert compared["images"] == {"real": 150, "fake": 0}
    assert compared["pairs"][0]["matched"]["reason"] == "there are no fakes"
