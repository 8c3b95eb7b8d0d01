"""The page for everyone: axe in both schemes and languages, the keyboard alone, 320 px, video frames and clips."""

from typing import Any

import pytest

pytest.importorskip("playwright")
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import FileChooser, Page, expect

from tests.support.clips import make_clip
from tests.support.web_page import NO_FACE, grey, three

BROKEN = {"name": "a.png", "mimeType": "image/png", "buffer": b"text"}


def video() -> dict[str, Any]:
    data = make_clip(30, codec="libvpx", container="webm", size=(64, 64))
    return {"name": "clip.webm", "mimeType": "video/webm", "buffer": data}


def settle(page: Page) -> None:
    """Waits until nothing is under way."""
    expect(page.locator("[data-state=busy]")).to_have_count(0, timeout=30_000)


def check(page: Page, where: str) -> None:
    results = Axe().run(page)
    assert results.violations_count == 0, f"{where}: {results.generate_report()}"
    out = """[...document.querySelectorAll("main *")].filter((one) => one.getBoundingClientRect().right > innerWidth)
        .map((one) => `${one.tagName}.${one.className}`)"""
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), f"{where}: {page.evaluate(out)}"


@pytest.mark.parametrize(("scheme", "locale"), [("light", "en-GB"), ("dark", "de-AT"), ("dark", "en"), ("light", "de")])
def test_axe_finds_no_violation_in_any_state(open_page: Any, address: str, scheme: str, locale: str) -> None:
    page = open_page(address, color_scheme=scheme, locale=locale, viewport={"width": 320, "height": 640})
    assert page.evaluate("document.documentElement.lang") == locale[:2]
    check(page, "start")
    page.locator("#file").set_input_files(
        [grey(3), grey(50), grey(90), grey(3, NO_FACE), three(5, 90, 50), BROKEN, video()]
    )
    settle(page)
    page.locator(".actions button").last.click()
    expect(page.locator(".bars")).to_be_visible(timeout=30_000)
    page.locator(".heat-part button").first.click()
    expect(page.locator(".heat-part input")).to_be_visible(timeout=20_000)
    page.evaluate("document.querySelectorAll('details').forEach(one => (one.open = true)); key.hidden = false")
    check(page, "every state")


def test_the_language_is_switched_on_the_page_and_numbers_with_it(page: Page) -> None:
    page.locator("#file").set_input_files(grey(90))
    expect(page.locator(".chance strong")).to_have_text("90%", timeout=20_000)
    page.get_by_role("button", name="Deutsch").click()
    expect(page.get_by_role("heading", name="Das sieht künstlich erzeugt aus.")).to_be_visible()
    expect(page.locator(".chance strong")).to_have_text("90\u00a0%")
    assert page.evaluate("[document.documentElement.lang, document.title]") == [
        "de",
        "Echtes oder künstliches Gesicht?",
    ]


def test_no_text_is_missing_in_either_language(page: Page) -> None:
    wrong = page.evaluate(
        """async () => {
            const [first, second] = [await import("/static/texts.js"), await import("/static/texts_more.js")];
            const holes = (text) => (text.match(/{\\w+}/g) ?? []).sort().join();
            const odd = ([, [en, de]]) => !en || !de || holes(en) !== holes(de);
            return Object.entries({ ...first.TEXTS, ...second.MORE }).filter(odd).map(([key]) => key);
        }"""
    )
    assert wrong == []


def test_the_keyboard_alone_is_enough(page: Page) -> None:
    page.keyboard.press("Tab")
    expect(page.locator(".skip")).to_be_focused()
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    expect(page.locator("#file")).to_be_focused()
    assert page.locator("label[for=file]").evaluate("label => getComputedStyle(label).outlineStyle") == "solid"
    choosers: list[FileChooser] = []
    page.on("filechooser", lambda chooser: choosers.append(chooser))
    for _ in range(10):  # a browser that is short of time forgets that a key was pressed before it opens the window
        page.keyboard.press("Enter")
        page.wait_for_timeout(1000)
        if choosers:
            break
    choosers[0].set_files([grey(90)])  # type: ignore[list-item]
    expect(page.get_by_role("heading", name="This looks generated.")).to_be_visible(timeout=20_000)
    passed = []
    for _ in range(12):
        page.keyboard.press("Tab")
        passed.append(page.evaluate("document.activeElement.textContent || document.activeElement.tagName"))
    order = ["Remove", "Show what moved the score", "Details for experts", "Was this wrong?"]
    assert [name for name in passed if name in order] == order
    assert "For programs: the HTTP API" in passed


def test_a_frame_of_a_video_is_picked_and_judged(page: Page) -> None:
    page.locator("#file").set_input_files(video())
    slider = page.get_by_role("slider", name="Moment in the video")
    expect(slider).to_be_visible(timeout=20_000)
    slider.press("Home")
    expect(page.locator(".time")).to_contain_text("0.0 of", timeout=20_000)
    page.get_by_role("button", name="Judge this frame").click()
    expect(page.get_by_role("heading", name="This looks like a photograph.")).to_be_visible(timeout=20_000)
    expect(page.locator(".name").first).to_have_text("Video 1 at 0.0 s")


def test_a_whole_clip_gets_a_timeline_and_a_table(page: Page) -> None:
    page.locator("#file").set_input_files(video())
    page.get_by_role("button", name="Judge the whole clip").click(timeout=20_000)
    expect(page.locator(".bar-of")).to_have_count(5, timeout=30_000)
    expect(page.locator(".clip-answer")).to_contain_text("frames with a face look generated")
    page.get_by_text("All frames as a table").click()
    expect(page.locator(".clip-answer tbody tr")).to_have_count(5)


def test_a_video_that_cannot_be_played_says_what_to_do(page: Page) -> None:
    page.locator("#file").set_input_files({"name": "a.mp4", "mimeType": "video/mp4", "buffer": b"text"})
    expect(page.get_by_role("heading", name="Your browser cannot play this video.")).to_be_visible(timeout=20_000)
    page.get_by_role("button", name="Judge the whole clip").click()
    expect(page.locator(".clip")).to_contain_text("could not be read as a video", timeout=20_000)


def test_a_phone_offers_its_camera(open_page: Any, address: str) -> None:
    page = open_page(address, has_touch=True, is_mobile=True)
    expect(page.get_by_text("Take a photo")).to_be_visible()
    assert page.locator("#camera").get_attribute("capture") == "environment"
