"""The page in a real browser: each verdict, an error, the notices; no network beyond the service."""

import io
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import uvicorn
from PIL import Image

from detector_core.calibration import verdict
from detector_core.pictures import Pixels
from detector_core.runtime import ModelInfo, Prediction, describe
from serve_app.http import Unavailable, create_app
from tests.models import save_model

CHROMIUM = Path("/usr/bin/chromium")
if not CHROMIUM.exists():
    pytest.skip("no /usr/bin/chromium: apt-get install chromium", allow_module_level=True)
from playwright.sync_api import Page, expect, sync_playwright  # noqa: E402 -- only where there is a browser

BUSY = 255
"""A picture this bright finds the model busy; every other grey level is its own p_fake, in percent."""


@pytest.fixture(scope="module")
def info(tmp_path_factory: pytest.TempPathFactory) -> ModelInfo:
    return describe(save_model(tmp_path_factory.mktemp("page") / "tiny-v1"))


@pytest.fixture(scope="module")
def address(info: ModelInfo) -> Iterator[str]:
    async def detect(pixels_SSC: Pixels) -> Prediction:
        level = int(pixels_SSC.mean())
        if level == BUSY:
            raise Unavailable("too many pictures are waiting")
        return Prediction(p_fake=level / 100, logit=0.0, verdict=verdict(level / 100, info.calibration), model=info)

    server = uvicorn.Server(uvicorn.Config(create_app(detect, info), port=0, log_level="error", ws="none"))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        assert thread.is_alive()
        time.sleep(0.02)
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    server.should_exit = True
    thread.join(10)
    assert not thread.is_alive()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=str(CHROMIUM), args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(params=["light", "dark"])
def page(browser: Any, address: str, request: pytest.FixtureRequest) -> Iterator[Page]:
    """A fresh page; fails when it logs an error that is no answer of the service, or asks another host."""
    context = browser.new_context(color_scheme=request.param, viewport={"width": 375, "height": 800})
    page, complaints, hosts = context.new_page(), [], set()
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("request", lambda sent: hosts.add(sent.url.removeprefix("blob:").split("/")[2]))
    page.goto(f"{address}/")
    yield page
    context.close()
    assert [text for text in complaints if not text.startswith("Failed to load resource")] == []
    assert hosts == {address.removeprefix("http://")}


def grey(level: int, size: tuple[int, int] = (64, 64)) -> dict[str, Any]:
    """A picture to choose; size is (width, height)."""
    buffer = io.BytesIO()
    Image.fromarray(np.full((size[1], size[0], 3), level, dtype=np.uint8)).save(buffer, "PNG")
    return {"name": "my holiday.png", "mimeType": "image/png", "buffer": buffer.getvalue()}


@pytest.mark.parametrize(
    ("level", "headline", "meaning"),
    [
        (3, "This looks like a photograph.", "photograph: 97 %"),
        (50, "The detector cannot tell.", "generated: 50 %"),
        (100, "This looks generated.", "generated: 99 %"),
    ],
)
def test_each_verdict_is_said_in_words(page: Page, level: int, headline: str, meaning: str) -> None:
    page.get_by_label("Choose a picture").set_input_files(grey(level))
    expect(page.get_by_role("heading", name=headline)).to_be_visible()
    expect(page.locator("#meaning")).to_contain_text(meaning)
    expect(page.get_by_role("meter")).to_have_attribute("aria-label", "Estimated chance that the picture is generated")
    assert page.locator("#meter").evaluate("meter => meter.value") == level
    expect(page.get_by_alt_text("The picture you chose")).to_be_visible()
    expect(page.locator("#warnings li")).to_have_count(0)


def test_warnings_are_said_in_words(page: Page) -> None:
    page.get_by_label("Choose a picture").set_input_files(grey(3, (64, 20)))
    expect(page.locator("#warnings li")).to_have_count(2)
    expect(page.locator("#warnings")).to_contain_text("Only the middle square")


def test_errors_say_what_to_do_and_the_next_picture_works(page: Page) -> None:
    choose = page.get_by_label("Choose a picture")
    choose.set_input_files({"name": "a.png", "mimeType": "image/png", "buffer": b"text"})
    expect(page.locator("#meaning")).to_contain_text("Choose a JPEG, PNG or WebP file.")
    expect(page.locator("#picture")).to_be_hidden()
    choose.set_input_files(grey(BUSY))
    expect(page.locator("#meaning")).to_contain_text("Try again in a moment.")
    choose.set_input_files(grey(3))
    expect(page.get_by_role("heading", name="This looks like a photograph.")).to_be_visible()


def test_a_dropped_picture_is_judged(page: Page) -> None:
    page.evaluate(
        """async () => {
            const canvas = new OffscreenCanvas(64, 64);
            canvas.getContext("2d").fillRect(0, 0, 64, 64);
            const transfer = new DataTransfer();
            transfer.items.add(new File([await canvas.convertToBlob()], "a.png", { type: "image/png" }));
            document.getElementById("drop").dispatchEvent(
                new DragEvent("drop", { dataTransfer: transfer, bubbles: true, cancelable: true }));
        }"""
    )
    expect(page.get_by_role("heading", name="This looks like a photograph.")).to_be_visible()


def test_it_says_that_nothing_is_kept_and_that_the_model_is_a_demo(page: Page) -> None:
    expect(page.get_by_text("Nothing is kept.")).to_be_visible()
    expect(page.get_by_text("trained on generated demo data")).to_be_visible()
    expect(page.locator("#model")).to_contain_text("tiny-v1")
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_the_documentation_draws_itself(page: Page, address: str) -> None:
    page.goto(f"{address}/docs")
    expect(page.locator("article")).to_have_count(4)
    expect(page.get_by_role("cell", name="results[].p_fake")).to_be_visible()
