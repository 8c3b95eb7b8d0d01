"""Accessibility: axe in both color schemes and languages, keyboard only, 320 px wide; and videos."""

from typing import Any

import pytest

pytest.importorskip("playwright")
from playwright.sync_api import FileChooser, Page, expect

from tests.support.clips import make_clip
from tests.support.web_page import NO_FACE, assert_accessible, gray, three

BROKEN = {"name": "a.png", "mimeType": "image/png", "buffer": b"text"}


def video() -> dict[str, Any]:
    data = make_clip(30, codec="libvpx", container="webm", size=(64, 64))
    return {"name": "clip.webm", "mimeType": "video/webm", "buffer": data}


def settle(page: Page) -> None:
    """Waits until no request is running."""
    expect(page.locator("[data-state=busy]")).to_have_count(0, timeout=30_000)


def check(page: Page, where: str) -> None:
    assert_accessible(page, where)
    overflowing = """[...document.querySelectorAll("main *")]
        .filter((node) => node.getBoundingClientRect().right > innerWidth)
        .map((node) => `${node.tagName}.${node.className}`)"""
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), f"{where}: {page.evaluate(overflowing)}"


@pytest.mark.parametrize(("scheme", "locale"), [("light", "en-GB"), ("dark", "de-AT"), ("dark", "en"), ("light", "de")])
def test_axe_finds_no_violation_in_any_state(open_page: Any, address: str, scheme: str, locale: str) -> None:
    page = open_page(address, color_scheme=scheme, locale=locale, viewport={"width": 320, "height": 640})
    assert page.evaluate("document.documentElement.lang") == locale[:2]
    check(page, "start")
    page.locator("#file").set_input_files(
        [gray(3), gray(50), gray(90), gray(3, NO_FACE), three(5, 90, 50), BROKEN, video()]
    )
    settle(page)
    page.locator(".actions button").last.click()
    expect(page.locator(".bars")).to_be_visible(timeout=30_000)
    page.locator(".heat-part button").first.click()
    expect(page.locator(".heat-part input")).to_be_visible(timeout=20_000)
    page.evaluate("document.querySelectorAll('details').forEach(node => (node.open = true)); key.hidden = false")
    check(page, "every state")


def test_switching_the_language_changes_texts_and_numbers(page: Page) -> None:
    page.locator("#file").set_input_files(gray(90))
    expect(page.locator(".chance strong")).to_have_text("90%", timeout=20_000)
    page.get_by_role("button", name="Deutsch").click()
    expect(page.get_by_role("heading", name="Das sieht KI-generiert aus.")).to_be_visible()
    expect(page.locator(".chance strong")).to_have_text("90\u00a0%")
    assert page.evaluate("[document.documentElement.lang, document.title]") == [
        "de",
        "Echtes oder KI-generiertes Gesicht?",
    ]


def test_every_text_exists_in_both_languages(page: Page) -> None:
    wrong = page.evaluate(
        """async () => {
            const names = ["texts", "texts_more", "texts_origin"];
            const modules = await Promise.all(names.map((name) => import(`/static/${name}.js`)));
            const texts = Object.assign({}, ...modules.map(({ TEXTS, MORE, ORIGIN }) => TEXTS ?? MORE ?? ORIGIN));
            const placeholders = (text) => (text.match(/{\\w+}/g) ?? []).sort().join();
            const isWrong = ([, [en, de]]) => !en || !de || placeholders(en) !== placeholders(de);
            return Object.entries(texts).filter(isWrong).map(([key]) => key);
        }"""
    )
    assert wrong == []


def test_the_page_works_with_the_keyboard_alone(page: Page) -> None:
    page.keyboard.press("Tab")
    expect(page.locator(".skip")).to_be_focused()
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    expect(page.locator("#file")).to_be_focused()
    assert page.locator("label[for=file]").evaluate("label => getComputedStyle(label).outlineStyle") == "solid"
    choosers: list[FileChooser] = []
    page.on("filechooser", lambda chooser: choosers.append(chooser))
    for _ in range(10):  # on a loaded machine the browser may lose a key press before it opens the dialog
        page.keyboard.press("Enter")
        page.wait_for_timeout(1000)
        if choosers:
            break
    choosers[0].set_files([gray(90)])  # type: ignore[list-item]
    expect(page.get_by_role("heading", name="This looks AI-generated.")).to_be_visible(timeout=20_000)
    focused = []
    for _ in range(12):
        page.keyboard.press("Tab")
        focused.append(page.evaluate("document.activeElement.textContent || document.activeElement.tagName"))
    order = ["Remove", "Show what influenced the score", "Details for experts", "Was this wrong?"]
    assert [name for name in focused if name in order] == order
    assert "For developers: the HTTP API" in focused


def test_a_frame_of_a_video_is_picked_and_analyzed(page: Page) -> None:
    page.locator("#file").set_input_files(video())
    slider = page.get_by_role("slider", name="Position in the video")
    expect(slider).to_be_visible(timeout=20_000)
    slider.press("Home")
    expect(page.locator(".time")).to_contain_text("0.0 of", timeout=20_000)
    page.get_by_role("button", name="Analyze this frame").click()
    expect(page.get_by_role("heading", name="This looks like a photograph.")).to_be_visible(timeout=20_000)
    expect(page.locator(".name").first).to_have_text("Video 1 at 0.0 s")


def test_a_whole_clip_gets_a_timeline_and_a_table(page: Page) -> None:
    page.locator("#file").set_input_files(video())
    page.get_by_role("button", name="Analyze the whole clip").click(timeout=20_000)
    expect(page.locator(".bar-of")).to_have_count(5, timeout=30_000)
    expect(page.locator(".clip-answer")).to_contain_text("Faces in 5 moments of the clip were analyzed")
    page.get_by_text("All frames as a table").click()
    expect(page.locator(".clip-answer tbody tr")).to_have_count(5)


def test_a_video_that_cannot_be_played_says_what_to_do(page: Page) -> None:
    page.locator("#file").set_input_files({"name": "a.mp4", "mimeType": "video/mp4", "buffer": b"text"})
    expect(page.get_by_role("heading", name="Your browser cannot play this video.")).to_be_visible(timeout=20_000)
    page.get_by_role("button", name="Analyze the whole clip").click()
    expect(page.locator(".clip")).to_contain_text("cannot be read as a video", timeout=20_000)


def test_a_phone_offers_its_camera(open_page: Any, address: str) -> None:
    page = open_page(address, has_touch=True, is_mobile=True)
    expect(page.get_by_text("Take a photo")).to_be_visible()
    assert page.locator("#camera").get_attribute("capture") == "environment"
