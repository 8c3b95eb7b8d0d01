"""The report of a judgement in a real browser, from its file and without network."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from detector_core.config import ModelSpec, PreprocessSpec
from detector_core.data import manifest
from detector_core.evaluation import explain, report_html, scoring
from detector_core.evaluation.calibration import choose
from detector_core.evaluation.report import build_report
from detector_core.evaluation.robustness import evaluate_grid, score_grid
from detector_core.labels import is_fake
from detector_core.networks import factory

CHROMIUM = Path("/usr/bin/chromium")
if not CHROMIUM.exists():
    pytest.skip("no /usr/bin/chromium: apt-get install chromium", allow_module_level=True)
from playwright.sync_api import sync_playwright  # noqa: E402 -- only where there is a browser

PREPROCESS = PreprocessSpec(image_size=32)


@pytest.fixture
def page_file(tiny_dataset: Path, tmp_path: Path) -> Path:
    """A report of an untrained network with everything that a report can have."""
    data = manifest.load(str(tiny_dataset))
    rows = data.split("test")
    network = factory.build(ModelSpec(architecture="timm:test_resnet")).eval()
    scores = scoring.score(network, rows, data.root, PREPROCESS)
    where = {"fingerprint": data.fingerprint, "name": data.name, "split": "valid", "n": 16, "weights_sha256": "w"}
    chosen = choose(is_fake(scores["label"]), scores["logit"].to_numpy(), chosen_on=where)
    scores["p_fake"] = chosen.p_fake(scores["logit"])
    model = {"run": "untrained", "variant": "timm:test_resnet", "weights_sha256": "w" * 64, "data": data.describe()}
    judged = build_report(scores, chosen, model=model, data=data.describe(), split="valid")
    judged["robustness"] = evaluate_grid(score_grid(network, rows, data.root, PREPROCESS), chosen)
    worst = explain.draw_worst_images(network, PREPROCESS, scores, data.root, chosen.fake_above)
    path = tmp_path / "report.html"
    path.write_text(report_html.render_page(judged, report_html.draw_plots(judged) | {explain.WORST_IMAGES: worst}))
    return path


def test_it_opens_without_network_and_without_complaints(page_file: Path, tmp_path: Path) -> None:
    complaints: list[str] = []
    asked: list[str] = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=str(CHROMIUM), args=["--no-sandbox"])
        context = browser.new_context(offline=True, viewport={"width": 1000, "height": 900})
        page: Any = context.new_page()
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("request", lambda sent: asked.append(sent.url))
        page.goto(page_file.as_uri())
        sizes = page.evaluate("[...document.images].map(i => [i.complete, i.naturalWidth, i.alt])")
        wide = page.evaluate("document.documentElement.scrollWidth > document.documentElement.clientWidth")
        loud = page.evaluate("parseFloat(getComputedStyle(document.querySelector('.warning')).fontSize)")
        picture = page.screenshot(full_page=True, path=tmp_path / "report.png")
        browser.close()
    assert complaints == []
    assert [url for url in asked if not url.startswith(("data:", "file:"))] == []
    assert len(sizes) == 5
    assert all(complete and width > 100 and alt for complete, width, alt in sizes)
    assert not wide, "nothing sticks out to the right"
    assert loud >= 20, "a split that chose the thresholds is said in large letters"
    assert np.asarray(Image.open(io.BytesIO(picture)).convert("L")).std() > 10
