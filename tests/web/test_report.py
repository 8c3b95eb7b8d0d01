"""The report page in a real browser, opened from its file without a network."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from detector_core.config import ModelSpec, PreprocessSpec
from detector_core.data import manifest, seen
from detector_core.evaluation import explain, report_html, scoring
from detector_core.evaluation.baselines import MODEL, evaluate_baselines, fit_baselines
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
    """The report page of an untrained network, with every section that a report can have."""
    data = manifest.load(str(tiny_dataset))
    rows = data.split("test")
    network = factory.build(ModelSpec(architecture="timm:test_resnet")).eval()
    scores = scoring.score(network, rows, data.root, PREPROCESS)
    chosen_on = {"fingerprint": data.fingerprint, "name": data.name, "split": "valid", "n": 16, "weights_sha256": "w"}
    chosen = choose(is_fake(scores["label"]), scores["logit"].to_numpy(), chosen_on=chosen_on)
    scores["p_fake"] = chosen.p_fake(scores["logit"])
    model = {"run": "untrained", "variant": "timm:test_resnet", "weights_sha256": "w" * 64, "data": data.describe()}
    overlap = seen.overlap(seen.of_images(data.frame), rows)
    fitted = fit_baselines(data, rows, data.name)
    above = evaluate_baselines(fitted, rows, {MODEL: scores["logit"].to_numpy()})
    report = build_report(
        scores, chosen, model=model, data=data.describe(), split="valid", overlap=overlap, baselines=above
    )
    report["robustness"] = evaluate_grid(score_grid(network, rows, data.root, PREPROCESS), chosen)
    worst = explain.draw_worst_images(network, PREPROCESS, scores, data.root, chosen.fake_above)
    path = tmp_path / "report.html"
    path.write_text(report_html.render_page(report, report_html.draw_plots(report) | {explain.WORST_IMAGES: worst}))
    return path


def test_the_page_opens_without_a_network_and_without_errors(page_file: Path, tmp_path: Path) -> None:
    errors: list[str] = []
    requests: list[str] = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=str(CHROMIUM), args=["--no-sandbox"])
        context = browser.new_context(offline=True, viewport={"width": 1000, "height": 900})
        page: Any = context.new_page()
        page.on("console", lambda message: errors.append(message.text))
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("request", lambda request: requests.append(request.url))
        page.goto(page_file.as_uri())
        sizes = page.evaluate("[...document.images].map(i => [i.complete, i.naturalWidth, i.alt])")
        wide = page.evaluate("document.documentElement.scrollWidth > document.documentElement.clientWidth")
        font_size = page.evaluate("parseFloat(getComputedStyle(document.querySelector('.warning')).fontSize)")
        screenshot = page.screenshot(full_page=True, path=tmp_path / "report.png")
        browser.close()
    assert errors == []
    assert [url for url in requests if not url.startswith(("data:", "file:"))] == []
    assert len(sizes) == 6, "five plots and the worst images"
    assert all(complete and width > 100 and alt for complete, width, alt in sizes)
    assert not wide, "the page does not scroll sideways"
    assert font_size >= 20, "warnings are in large letters"
    assert np.asarray(Image.open(io.BytesIO(screenshot)).convert("L")).std() > 10
