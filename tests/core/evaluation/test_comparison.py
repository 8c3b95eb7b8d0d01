"""The comparison of runs that reproduce the paper's confusion matrices, and of small runs counted by hand."""

import io
from dataclasses import replace
from html.parser import HTMLParser
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from detector_core.errors import BadData
from detector_core.evaluation import comparison, comparison_html
from detector_core.evaluation.calibration import UNCALIBRATED
from detector_core.evaluation.comparison import EvaluatedRun, compare, mcnemar, paper_confusion, table_5, winner
from detector_core.evaluation.metrics import METRICS
from detector_core.evaluation.report import build_report
from detector_core.networks.variants import VARIANTS, spec_for

DATA = {
    "name": "tiny <b>",
    "generated": False,
    "fingerprint": "a" * 64,
    "counts": {"train": {"real": 50_000, "fake": 50_000}},
}
HISTORY = [
    {
        "epoch": epoch,
        "train_loss": 1 / epoch,
        "val_loss": 1.1 / epoch,
        "train_accuracy": 0.9,
        "val_accuracy": 0.8,
        "images_per_s": 10.0 * epoch,
        "peak_memory_bytes": epoch * 2**20,
    }
    for epoch in (1, 2, 3)
]


def evaluated(variant: str, called_fake: list[bool], label: list[str], seed: int = 0) -> EvaluatedRun:
    scores = pd.DataFrame({"path": [f"{i}.jpg" for i in range(len(label))], "label": label})
    scores["p_fake"] = np.where(called_fake, 0.9, 0.1)
    scores["logit"] = np.where(called_fake, 2.0, -2.0).astype(np.float32)
    model = {"run": variant, "variant": variant, "weights_sha256": "w" * 64, "data": DATA}
    report = build_report(scores, UNCALIBRATED, model=model, data=DATA, split="test")
    training = {"epochs": 3, "seconds": 60.0, "best": HISTORY[-1]}
    spec = spec_for(variant, {"seed": seed})
    return EvaluatedRun(spec=spec, report=report, scores=scores, training=training, history=HISTORY)


def with_paper_counts(variant: str) -> EvaluatedRun:
    counts = paper_confusion(variant)
    called = [False] * counts.reals_passed + [True] * counts.reals_flagged
    called += [False] * counts.fakes_passed + [True] * counts.fakes_caught
    return evaluated(variant, called, ["real"] * 10_000 + ["fake"] * 10_000)


@pytest.fixture(scope="module")
def paper() -> list[EvaluatedRun]:
    return [with_paper_counts(variant) for variant in VARIANTS]


def test_paper_counts_give_the_paper_metrics_and_winner(paper: list[EvaluatedRun]) -> None:
    compared = compare(paper)
    table = table_5(compared["means"])
    ours, theirs = (table[table["source"] == source].reset_index(drop=True) for source in ("ours", "paper"))
    assert ours["variant"].tolist() == theirs["variant"].tolist() == list(VARIANTS)
    pd.testing.assert_frame_equal(ours[list(METRICS)], theirs[list(METRICS)])
    assert compared["winner"]["variant"] == "resnet68-cutout"
    row = compared["rows"][-1]
    assert (row["fakes_passed"], row["images_per_s"], row["peak_memory_bytes"]) == (43, 20.0, 3 * 2**20)


def test_mcnemar_by_hand() -> None:
    # The first alone is correct on 10 images, the second alone on 2: 2 * (1 + 12 + 66) / 2 ** 12
    first = evaluated("resnet68", [False] * 10 + [True] * 2 + [False] * 8, ["real"] * 20)
    second = evaluated("vggface2", [True] * 10 + [False] * 2 + [False] * 8, ["real"] * 20)
    result = mcnemar(first, second)
    assert (result["only_first_correct"], result["only_second_correct"]) == (10, 2)
    assert result["p_value"] == pytest.approx(158 / 4096)
    assert mcnemar(first, first)["p_value"] == 1
    assert result["fakes"]["p_value"] == 1, "there are none"
    with_fakes = [
        evaluated(name, [False] * 20 + caught, ["real"] * 20 + ["fake"] * 8)
        for name, caught in (("resnet68", [True] * 8), ("vggface2", [False] * 6 + [True] * 2))
    ]
    assert mcnemar(*with_fakes)["fakes"]["p_value"] == pytest.approx(2 / 2**6)
    shuffled = replace(second, scores=second.scores.sample(frac=1, random_state=0))
    assert mcnemar(first, shuffled) == result


def test_different_images_cannot_be_compared() -> None:
    with pytest.raises(BadData, match="resnet68 and vggface2 were evaluated on different images"):
        mcnemar(evaluated("resnet68", [False], ["real"]), evaluated("vggface2", [False] * 2, ["real"] * 2))


def mean(variant: str, passed: float | None, accuracy: float) -> dict[str, Any]:
    return {"variant": variant, "fakes_passed_rate": passed, "accuracy": accuracy}


def test_the_fewest_fakes_passed_win_and_ties_go_to_accuracy() -> None:
    rows = [mean("a", 0.02, 0.99), mean("b", 0.01, 0.8), mean("c", 0.01, 0.9)]

    def pair(first: str, second: str, only_first: int, only_second: int, p_value: float) -> dict[str, Any]:
        counts = {"only_first_correct": only_first, "only_second_correct": only_second}
        return {"variants": [first, second], "fakes": {**counts, "p_value": p_value}}

    pairs = [pair("a", "c", 1, 10, 0.01), pair("b", "c", 3, 6, 0.4)]
    assert winner(rows, pairs) == {"variant": "c", "within_noise": ["b"]}
    against = [pair("a", "c", 10, 1, 0.01), pair("c", "b", 10, 1, 0.01)]
    assert winner(rows, against) == {"variant": "c", "within_noise": ["a"]}, "between first seeds a is the better one"
    with pytest.raises(BadData, match="no fakes"):
        winner([mean("a", None, 0.5)], [])


def test_seeds_are_averaged_and_their_spread_is_reported() -> None:
    label = ["real"] * 4 + ["fake"] * 4
    runs = [
        evaluated("resnet68", [False] * 4 + [True] * caught + [False] * (4 - caught), label, caught)
        for caught in (2, 4)
    ]
    (row,) = compare(runs)["means"]
    assert row["seeds"] == [2, 4]
    assert row["fakes_passed_rate"] == pytest.approx(0.25)
    assert row["fakes_passed_rate_spread"] == [0.0, 0.5]
    assert "25.000 (0.00-50.00)" in comparison_html.render_page(compare(runs), runs, {})


class Links(HTMLParser):
    def __init__(self, page: str) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.words = ""
        self.feed(page)

    def handle_starttag(self, _tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.loads += [value or "" for name, value in attrs if name in ("src", "href")]

    def handle_data(self, data: str) -> None:
        self.words += f"{data} "


def test_the_page_marks_every_misprint_and_needs_no_network(paper: list[EvaluatedRun]) -> None:
    page = Links(comparison_html.render_page(compare(paper), paper, comparison_html.draw_learning_curves(paper)))
    assert len(page.loads) == 2
    assert all(load.startswith("data:") for load in page.loads)
    for row in comparison.PAPER["misprints"]:
        assert row["why"] in page.words
    assert page.words.count("*") == len(comparison.PAPER["misprints"]) + 1  # and the sentence that explains it
    assert "tiny <b>" in page.words
    assert "resnet68-cutout" in comparison_html.format_comparison(compare(paper))
    tables = comparison_html.latex_tables(compare(paper))
    assert [(len(table.rows), table.rows[-1][0]) for table in tables[:2]] == [
        (12, "resnet68-cutout"),
        (12, "resnet68-cutout"),
    ]
    assert "Not trained as in the paper" not in page.words


def test_settings_that_differ_from_the_paper_come_first(paper: list[EvaluatedRun]) -> None:
    small = {"optim.epochs": 1, "preprocess.image_size": 120}
    runs = [*paper[:-1], replace(paper[-1], spec=paper[-1].spec.replace(small))]
    page = Links(comparison_html.render_page(compare(runs), runs, {}))
    assert "Not trained as in the paper: different optim.epochs, preprocess.image_size" in page.words
    assert page.words.index("Not trained") < page.words.index("Table V")
    assert "120 (224)" in page.words
    assert "1 (10)" in page.words
    assert "different optim.epochs, preprocess.image_size" in comparison_html.format_comparison(compare(runs))


@pytest.mark.parametrize("runs", [1, 2, 3])
def test_a_cell_without_a_run_is_blank(paper: list[EvaluatedRun], runs: int) -> None:
    pixels = np.asarray(
        Image.open(io.BytesIO(comparison_html.draw_learning_curves(paper[:runs])["curves.png"])).convert("L")
    )
    upper = pixels[: pixels.shape[0] * 3 // 4]  # the legend is below
    middles = [np.array_split(third, 3, axis=1)[1] for third in np.array_split(upper, 3, axis=1)]
    assert [bool((middle < 255).any()) for middle in middles] == [number < runs for number in range(3)]


def test_seed_micro_batch_and_a_weights_file_are_no_differences(paper: list[EvaluatedRun]) -> None:
    def differences(**fields: Any) -> list[str]:
        changed = {name.replace("__", "."): value for name, value in fields.items()}
        return comparison.differences(replace(paper[0], spec=paper[0].spec.replace(changed)))

    assert differences(seed=3, optim__micro_batch=7, model__init="weights.pt") == []
    assert differences(model__init="none", augment__cutout=0.8, optim__schedule="cosine") == [
        "model.init",
        "optim.schedule",
        "augment.cutout",
    ]


def test_settings_do_not_show_the_path_of_a_weights_file(paper: list[EvaluatedRun]) -> None:
    run = replace(paper[0], spec=paper[0].spec.replace({"model.init": "home/weights.pt", "optim.epochs": 3}))
    settings = comparison.settings(run)
    assert settings["initial weights"] == {"used": "a file", "default": "hub"}
    assert settings["epochs"] == {"used": 3, "default": 10}
