"""The page in a real Chromium, served by the real application with a model client that reads gray levels."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from detector_core.evaluation.calibration import Calibration
from detector_core.images import faces as face_search
from detector_core.images.faces import Search
from detector_core.registry.predictor import describe
from serve_app import url_fetch
from serve_app.routes import create_app
from serve_app.settings import HttpSettings, Limits
from tests.support.models import save_model
from tests.support.web_page import GrayLevelClient, fetch, find_faces, served

CHROMIUM = Path("/usr/bin/chromium")
LIMITS = Limits(max_bytes=300_000, max_pixels=200_000, frames=5)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    if not CHROMIUM.exists():
        pytest.skip("no /usr/bin/chromium: apt-get install chromium")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=str(CHROMIUM), args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def feedback_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("feedback")


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory, feedback_folder: Path) -> Iterator[str]:
    """A service with a model for photographs that accepts feedback."""
    info = describe(save_model(tmp_path_factory.mktemp("page") / "tiny-v1", generated=False))
    settings = HttpSettings(limits=LIMITS, faces="on", feedback_folder=str(feedback_folder))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(face_search, "search", lambda image, _: Search(find_faces(image), True))
        with served(create_app(GrayLevelClient(info), lambda: info, settings)) as address:
            yield address


@pytest.fixture(scope="module")
def bare_address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A service with a demo model that requires a key and accepts neither feedback nor clips."""
    folder = tmp_path_factory.mktemp("bare")
    (folder / "keys").write_text("a-long-enough-key-for-a-test\n")
    info = describe(save_model(folder / "tiny-v1"))
    settings = HttpSettings(limits=Limits(frames=0), api_keys_file=str(folder / "keys"))
    with served(create_app(GrayLevelClient(info), lambda: info, settings)) as address:
        yield address


@pytest.fixture(scope="module")
def demo_address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A service with a demo model that is never uncertain, and that fetches pictures from addresses."""
    info = describe(save_model(tmp_path_factory.mktemp("demo") / "tiny-v1"))
    info = replace(info, calibration=Calibration())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(url_fetch, "fetch", fetch)
        settings = HttpSettings(allow_url=True)
        with served(create_app(GrayLevelClient(info), lambda: info, settings)) as address:
            yield address


@pytest.fixture
def open_page(browser: Any) -> Iterator[Any]:
    """Opens pages; fails if one logs anything but error answers of the service, or contacts another host."""
    contexts, messages, hosts, own = [], [], set(), set()

    def open_(address: str, path: str = "/", **options: Any) -> Any:
        context = browser.new_context(**{"locale": "en-GB", "viewport": {"width": 375, "height": 800}, **options})
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(20_000)
        page.on("console", lambda message: messages.append(message.text))
        page.on("pageerror", lambda error: messages.append(str(error)))
        page.on("request", lambda sent: hosts.add(sent.url.removeprefix("blob:").split("/")[2]))
        own.add(address.removeprefix("http://"))
        page.goto(f"{address}{path}")
        page.wait_for_selector("body.ready")
        return page

    yield open_
    for context in contexts:
        context.close()
    assert [text for text in messages if not text.startswith("Failed to load resource")] == []
    assert hosts <= own


@pytest.fixture
def page(open_page: Any, address: str) -> Any:
    return open_page(address)
