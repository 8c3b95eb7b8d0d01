"""The review of tagged pictures in a real Chromium: decided by keys, kept by the server."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from detector_core.data import feedback, review
from detector_core.images import faces as face_search
from detector_core.images.faces import Search
from detector_core.registry.predictor import describe
from serve_app.routes import create_app
from serve_app.settings import HttpSettings
from tests.support.models import save_model
from tests.support.tagged import MODEL
from tests.support.web_page import GrayLevelClient, assert_accessible, find_faces, gray, served

KEY = "an-operator-s-key"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two tags: of a fake that was called real, and of a photograph that was called one."""
    store = feedback.Store(tmp_path / "feedback", 10**8)
    store.add(gray(30)["buffer"], "fake", model=MODEL, verdict="real", p_fake=0.3)
    store.add(gray(10)["buffer"], "real", model=MODEL, verdict="real", p_fake=0.1)
    return tmp_path / "feedback"


@pytest.fixture
def address(folder: Path, tmp_path: Path) -> Iterator[str]:
    (tmp_path / "operators").write_text(KEY)
    info = describe(save_model(tmp_path / "tiny-v1", generated=False))
    settings = HttpSettings(faces="on", feedback_folder=str(folder), operator_keys_file=str(tmp_path / "operators"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(face_search, "search", lambda image, _: Search(find_faces(image), True))
        with served(create_app(GrayLevelClient(info), lambda: info, settings)) as address:
            yield address


def test_tags_are_decided_with_the_keyboard_and_the_decisions_stay(open_page: Any, address: str, folder: Path) -> None:
    from playwright.sync_api import expect

    page = open_page(address, path="/review")
    page.get_by_label("Operator key").fill("guessed")
    page.get_by_label("Your name").fill("anna")
    page.keyboard.press("Enter")
    expect(page.get_by_role("alert")).to_have_text("This key is not valid. Ask the operator for one.")
    page.get_by_label("Operator key").fill(KEY)
    page.keyboard.press("Enter")

    cards = page.locator("#tags > article")
    expect(cards).to_have_count(2)
    first, second = cards.nth(0), cards.nth(1)
    expect(first).to_contain_text("Tagged: AI-generated")
    expect(first).to_contain_text("Answer then: photograph, 30%")
    expect(first).to_be_focused()
    for index in range(2):
        expect(cards.nth(index).locator("img")).to_have_js_property("naturalWidth", 64)
    page.keyboard.press("h")
    expect(first.locator("canvas")).to_be_visible()
    assert_accessible(page)

    first.get_by_label("How do you know?").fill("the generator's page shows it: r")
    first.focus()
    page.keyboard.press("a")
    expect(first).to_contain_text("anna accepts: the generator's page shows it: r")
    expect(second).to_be_focused()
    page.keyboard.press("r")
    expect(second).to_contain_text("anna rejects")
    page.keyboard.press("u")
    expect(second).to_contain_text("anna takes it back")
    page.get_by_role("button", name="Deutsch").click()
    expect(second).to_contain_text("anna nimmt es zurück")
    page.get_by_label("Anzeigen").select_option("accepted")
    expect(cards).to_have_count(1)
    expect(page.get_by_label("Anzeigen")).to_contain_text("offen (1)")

    states = {tag.record.label: tag.state for tag in review.read(folder)}
    assert states == {"fake": "accepted", "real": "waiting"}
