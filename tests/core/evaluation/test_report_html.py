import io
import re
from html.parser import HTMLParser
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from detector_core.evaluation import report_html
from detector_core.evaluation.calibration import Calibration, choose
from detector_core.evaluation.explain import WORST_IMAGES
from detector_core.evaluation.report import build_report
from detector_core.evaluation.report_text import format_report
from detector_core.evaluation.robustness import CHANGES, UNCHANGED, evaluate_grid
from detector_core.labels import is_fake

DATA = {"name": "tiny <b>", "generated": True, "fingerprint": "a" * 64, "counts": {}}
MODEL = {"run": "run", "variant": "resnet68-cutout", "weights_sha256": "w" * 64, "data": DATA}
CHOSEN_ON = {"fingerprint": "a" * 64, "name": "tiny <b>", "split": "valid", "n": 80, "weights_sha256": "w" * 64}
COUNTS = {"real": 1200, "fake": 34}
VOID = {"meta", "link", "img"}


def make_report(labels: list[str], split: str = "test", calibration: Calibration | None = None) -> dict[str, Any]:
    draw = np.random.default_rng(0)
    fake = is_fake(labels)
    logit = (draw.normal(0, 1, len(labels)) + 3 * fake - 1.5).astype(np.float32)
    scores = pd.DataFrame({"path": [f"{i}.jpg" for i in range(len(labels))], "label": labels, "logit": logit})
    chosen = calibration or choose(fake, logit, chosen_on=CHOSEN_ON)
    return build_report(scores, chosen, model=MODEL, data=DATA, split=split)


class ParsedPage(HTMLParser):
    """Parses a page: checks that tags are closed, and collects its texts and what it loads."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.loads: list[str] = []
        self.words: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.loads += [value or "" for name, value in attrs if name in ("src", "href")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)


def test_the_page_is_well_formed_and_loads_nothing() -> None:
    report = make_report(["real", "fake"] * 40)
    plots = report_html.draw_plots(report)
    names = ("det", "histogram", "reliability", "roc", "roc_log")
    assert set(plots) == {f"{name}.{ending}" for name in names for ending in ("png", "svg")}
    page = ParsedPage(report_html.render_page(report, plots))
    assert page.open == []
    assert len(page.loads) == 6
    assert all(load.startswith("data:") for load in page.loads)
    text = " ".join(page.words)
    for words in ("fakes passed", "reals flagged", "Generated demo data", "tiny <b>", "AUC", "%"):
        assert words in text


def test_plots_are_png_and_svg_files_with_content() -> None:
    for name, data in report_html.draw_plots(make_report(["real", "fake"] * 40)).items():
        if name.endswith(".svg"):
            texts = [element.text for element in ElementTree.fromstring(data).iter() if element.tag.endswith("}text")]
            assert len(texts) > 5, "captions are text, which can be searched and edited"
            continue
        with Image.open(io.BytesIO(data)) as image:
            assert image.format == "PNG", name
            assert np.asarray(image.convert("L")).std() > 5, name


@pytest.mark.parametrize("label", ["real", "fake"])
def test_with_one_class_the_curves_are_left_out(label: str) -> None:
    report = make_report([label] * 5, calibration=Calibration())
    plots = report_html.draw_plots(report)
    assert sorted(plots) == [f"{name}.{ending}" for name in ("histogram", "reliability") for ending in ("png", "svg")]
    page = report_html.render_page(report, plots)
    assert "undefined: there are no" in page
    assert "nan" not in page.lower().split("<h2>plots")[0]


def test_the_run_is_described() -> None:
    model = {"settings": {"optim.epochs": 7}, "git_commit": "0123abc", "data": {**DATA, "counts": {"train": COUNTS}}}
    report = make_report(["real", "fake"] * 10)
    assert "The run" not in report_html.render_page(report, {}), "a report of an older version"
    page = report_html.render_page({**report, "model": {**MODEL, **model}}, {})
    for words in ("<td>optim.epochs</td><td>7</td>", "<code>0123abc</code>", "<td>train</td><td>1,200</td><td>34</td>"):
        assert words in page


@pytest.mark.parametrize(
    ("overlap", "text"),
    [
        ({"exact": 0, "near": 1}, "0 of 20, and 1 near-duplicate"),
        ({"exact": 2, "near": 0}, "2 of 20, and 0 near-duplicates"),
        ({"exact": 2, "near": None, "reason": "other hashes"}, "2 of 20, and near-duplicates not known: other hashes"),
        ({"exact": None, "near": None, "reason": "no record"}, "not known: no record"),
    ],
)
def test_how_many_images_the_model_has_seen_is_in_the_headline(overlap: dict[str, Any], text: str) -> None:
    report = make_report(["real", "fake"] * 10) | {"overlap": {"images": 20, **overlap}}
    row = f"<td>images the model was trained or chosen on</td><td>{text}</td>"
    assert row in report_html.render_page(report, {})
    assert text in format_report(report)


def test_baselines_stand_next_to_the_model() -> None:
    above = {"model": {"difference": 0.2, "low": 0.1, "high": 0.3, "p_value": 0.00001}}
    auc = {"value": 0.7, "low": 0.6, "high": 0.8}
    entries = [
        {"name": "file_facts", "trained_on": "d", "auc": auc, "above": above},
        {"name": "radial_spectrum", "trained_on": "d", "auc": {"value": None, "reason": "it is old"}, "above": {}},
    ]
    report = make_report(["real", "fake"] * 10) | {"baselines": entries}
    page = report_html.render_page(report, {})
    for words in (
        "<td>+0.2000 (+0.1000 to +0.3000)</td><td>&lt; 0.0001</td>",
        "<td>undefined: it is old</td><td>-</td>",
    ):
        assert words in page
    text = format_report(report)
    assert "0.7000 (0.6000-0.8000); the model has +0.2000 (+0.1000 to +0.3000) more, p < 0.0001\n" in text
    assert text.endswith("undefined: it is old")
    above["model"]["p_value"] = 0.04
    assert "more, p = 0.0400\n" in format_report(report)


def test_a_seen_split_is_a_warning() -> None:
    page = report_html.render_page(make_report(["real", "fake"] * 10, split="train"), {})
    assert '<p class="warning">The model was trained on these images' in page


def test_the_worst_images_come_last_and_in_full_width() -> None:
    report = make_report(["real", "fake"] * 10)
    page = report_html.render_page(report, {WORST_IMAGES: b"worst", "roc.png": b"roc"})
    assert "Largest errors" not in report_html.render_page(report, {"roc.png": b"roc"})
    plots, worst = page.split("<h2>Plots</h2>")[1].split("<h2>Largest errors</h2>")
    assert plots == report_html.image("roc.png", b"roc")
    assert "Grad-CAM" in worst
    assert worst.endswith(report_html.image(WORST_IMAGES, b"worst", width="100%") + "</body></html>")
    assert ParsedPage(page).open == []


def test_an_undefined_metric_has_no_color() -> None:
    report = make_report(["real"] * 10, calibration=Calibration())
    grid = pd.DataFrame(dict.fromkeys((UNCHANGED, *CHANGES), np.repeat([-1.0, 1.0], 5)))
    report["robustness"] = evaluate_grid(grid.assign(label="real"), Calibration())
    row = report_html.render_page(report, {}).split(f"<tr><td>{UNCHANGED}</td>")[1].split("</tr>")[0]
    cells = [ParsedPage(cell).words[0] for cell in row.split("</td>")[:-1]]
    assert ["style" in cell for cell in row.split("</td>")[:-1]] == [False, False, True, False, True]
    assert cells[2:] == ["50.00%", cells[0], "50.00%"]
    assert cells[0] == "undefined: there are no fakes"


def test_the_color_of_a_robustness_cell_starts_at_what_a_guess_scores() -> None:
    report = make_report(["real"] * 100 + ["fake"] * 100)
    scores = np.tile(np.linspace(-1, 1, 100), 2)  # the same for both classes
    grid = pd.DataFrame(dict.fromkeys((UNCHANGED, *CHANGES), np.repeat([-1.0, 1.0], 100)))
    grid = grid.assign(label=["real"] * 100 + ["fake"] * 100, screenshot=scores)
    report["robustness"] = evaluate_grid(grid, Calibration())
    page = report_html.render_page(report, {})
    hues = {
        change: [
            int(hue) for hue in re.findall(r"hsl\((\d+) ", page.split(f"<tr><td>{change}</td>")[1].split("</tr>")[0])
        ]
        for change in (UNCHANGED, "screenshot")
    }
    assert hues[UNCHANGED] == [120] * 5
    assert all(hue <= 2 for hue in hues["screenshot"]), hues


def test_the_robustness_grid_is_a_table() -> None:
    report = make_report(["real", "fake"] * 10)
    grid = pd.DataFrame(dict.fromkeys((UNCHANGED, *CHANGES), np.repeat([-1.0, 1.0], 10)))
    report["robustness"] = evaluate_grid(grid.assign(label=["real"] * 10 + ["fake"] * 10), Calibration())
    page = ParsedPage(report_html.render_page(report, {}))
    assert page.open == []
    assert {UNCHANGED, *CHANGES} <= set(page.words)
    assert "100.00%" in page.words
    assert format_report(report).splitlines()[-1].split()[-2:] == ["0.00%", "0.00%"]
