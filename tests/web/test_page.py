"""The page in a real browser: each verdict, each way in, each error, heat map, faces, feedback, a key."""

import json
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("playwright")
from playwright.sync_api import Page, expect

from tests.support.web_page import BUSY, NO_FACE, grey, three


def give(page: Page, *files: dict[str, Any]) -> None:
    page.locator("#file").set_input_files(list(files))


def heading(page: Page, name: str) -> None:
    expect(page.get_by_role("heading", name=name)).to_be_visible(timeout=20_000)


@pytest.mark.parametrize(
    ("level", "headline", "chance", "meaning"),
    [
        (3, "This looks like a photograph.", "97%", "about 3 are generated"),
        (50, "The detector cannot tell.", "50%", "about 50 are generated"),
        (100, "This looks generated.", "> 99%", "more than 99 are generated"),
    ],
)
def test_each_verdict_is_said_in_words(page: Page, level: int, headline: str, chance: str, meaning: str) -> None:
    give(page, grey(level))
    heading(page, headline)
    expect(page.locator(".chance strong")).to_have_text(chance)
    expect(page.locator(".of-hundred")).to_contain_text(meaning)
    meter = page.get_by_role("meter")
    assert meter.get_attribute("aria-valuenow") == str(level)
    assert "from 70% on generated" in str(meter.get_attribute("aria-valuetext"))
    expect(page.locator(".face")).to_have_count(1)
    expect(page.locator("#live")).to_contain_text(headline)
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_no_face_is_said_kindly(page: Page) -> None:
    give(page, grey(3, NO_FACE))
    heading(page, "No face was found here.")
    expect(page.locator(".help")).to_contain_text("says nothing about whether the picture is real")
    expect(page.get_by_role("meter")).to_have_count(0)
    expect(page.get_by_role("button", name="Show what moved the score")).to_have_count(0)


def test_one_of_several_faces_is_picked_from_the_list_or_the_picture(page: Page) -> None:
    give(page, three(5, 90, 50))
    heading(page, "1 of 3 faces looks generated.")
    expect(page.get_by_role("radio", name="Face 2: 90% generated")).to_be_checked()
    page.get_by_role("radio", name="Face 1: 5% generated").check()
    heading(page, "Face 1 looks like a photograph.")
    page.locator(".face").nth(2).click()
    heading(page, "Face 3: the detector cannot tell.")
    expect(page.get_by_role("radio", name="Face 3")).to_be_checked()


def test_the_heat_map_slides_in(page: Page) -> None:
    give(page, grey(90))
    page.get_by_role("button", name="Show what moved the score").click()
    slider = page.get_by_role("slider", name="Heat map over the picture")
    expect(slider).to_be_focused()
    expect(page.locator(".heat-part")).to_contain_text("not what is false")
    slider.press("Home")
    assert page.locator("canvas.heat").evaluate("heat => heat.style.opacity") == "0"
    slider.press("End")
    assert page.locator("canvas.heat").evaluate("heat => heat.style.opacity") == "1"


def test_several_files_get_a_card_and_a_request_each(page: Page) -> None:
    asked: list[str] = []
    page.on("request", lambda sent: asked.append(sent.url) if sent.method == "POST" else None)
    give(page, grey(3), {"name": "a.png", "mimeType": "image/png", "buffer": b"text"}, grey(90))
    heading(page, "This looks generated.")
    heading(page, "This looks like a photograph.")
    heading(page, "There is no answer for this file.")
    expect(page.locator(".card .title > :first-child")).to_have_text(["Picture 1", "Picture 2", "Picture 3"])
    assert len(asked) == 3
    page.get_by_role("button", name="Remove Picture 2").click()
    expect(page.locator(".card")).to_have_count(2)
    page.get_by_role("button", name="Remove all").click()
    expect(page.locator("#results")).to_be_hidden()
    expect(page.locator("#file")).to_be_focused()


@pytest.mark.parametrize("way", ["drop", "paste"])
def test_a_dropped_or_pasted_picture_is_judged(page: Page, way: str) -> None:
    page.evaluate(
        """async (way) => {
            const canvas = new OffscreenCanvas(64, 64);
            canvas.getContext("2d").fillRect(0, 0, 64, 64);
            const transfer = new DataTransfer();
            transfer.items.add(new File([await canvas.convertToBlob()], "a.png", { type: "image/png" }));
            const options = { bubbles: true, cancelable: true };
            document.body.dispatchEvent(way === "drop"
                ? new DragEvent("drop", { ...options, dataTransfer: transfer })
                : new ClipboardEvent("paste", { ...options, clipboardData: transfer }));
        }""",
        way,
    )
    heading(page, "This looks like a photograph.")


def refuse(page: Page, status: int, code: str, headers: dict[str, str] | None = None) -> None:
    """The next answer of the service."""
    body = json.dumps({"error": {"code": code, "message": "no", "request_id": "r-1"}})
    page.route(
        "**/v1/detect*",
        lambda route: route.fulfill(
            status=status, body=body, headers={"Content-Type": "application/json", **(headers or {})}
        ),
        times=1,
    )


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (400, "Save it as JPEG or PNG"),
        (408, "too long to arrive"),
        (413, "Do not make the picture smaller"),
        (415, "does not read this kind of file"),
        (422, "Choose the file once more"),
        (500, "The service made a mistake"),
    ],
)
def test_each_error_says_what_to_do(page: Page, status: int, words: str) -> None:
    refuse(page, status, "code")
    give(page, grey(3))
    heading(page, "There is no answer for this file.")
    expect(page.locator(".body")).to_contain_text(words)
    expect(page.locator(".body")).to_contain_text("r-1")


@pytest.mark.parametrize("status", [429, 503])
def test_a_busy_service_is_asked_again_as_late_as_it_says(page: Page, status: int) -> None:
    refuse(page, status, "busy", {"Retry-After": "2"})
    give(page, grey(3))
    heading(page, "Trying again in 2 s")
    heading(page, "This looks like a photograph.")
    refuse(page, status, "busy", {"Retry-After": "120"})
    give(page, grey(90))
    expect(page.locator(".body").first).to_contain_text("in 120 s")
    expect(page.get_by_role("button", name="Try again")).to_be_disabled()


def test_a_long_wait_can_be_cancelled(page: Page) -> None:
    give(page, grey(BUSY))
    heading(page, "Trying again in")
    page.get_by_role("button", name="Cancel").click()
    heading(page, "Cancelled.")
    expect(page.get_by_role("button", name="Try again")).to_be_visible()


def test_without_a_network_it_says_so_and_tries_again(page: Page) -> None:
    page.route("**/v1/detect*", lambda route: route.abort(), times=1)
    give(page, grey(3))
    expect(page.locator(".body")).to_contain_text("Check your connection")
    page.get_by_role("button", name="Try again").click()
    heading(page, "This looks like a photograph.")


def test_what_is_too_large_or_no_picture_is_never_sent(page: Page) -> None:
    asked: list[str] = []
    page.on("request", lambda sent: asked.append(sent.url) if sent.method == "POST" else None)
    large = {**grey(3), "buffer": grey(3)["buffer"] + b"0" * 400_000}
    text = {"name": "a.pdf", "mimeType": "application/pdf", "buffer": b"%PDF"}
    give(page, large, grey(3, (700, 700)), text)
    expect(page.locator(".body").nth(0)).to_contain_text("It has 0.4 MB, and this service takes up to 0.3 MB")
    expect(page.locator(".body").nth(1)).to_contain_text("megapixels")
    expect(page.locator(".body").nth(2)).to_contain_text("Choose a picture as JPEG")
    assert asked == []


def test_heic_that_cannot_be_read_is_explained(page: Page) -> None:
    give(page, {"name": "IMG.HEIC", "mimeType": "image/heic", "buffer": b"\0\0\0\x18ftypheic" + b"0" * 99})
    expect(page.locator(".body")).to_contain_text("Most Compatible")
    expect(page.locator(".unseen")).to_contain_text("cannot show this file")


def test_feedback_is_stored_with_consent_only(page: Page, feedback_folder: Path) -> None:
    give(page, grey(91))
    page.get_by_text("Was this wrong?").click()
    form = page.locator(".feedback")
    expect(form).to_contain_text("Not stored are: your name")
    page.get_by_role("button", name="Give the picture").click()
    expect(form).to_contain_text("say first what you know")
    page.get_by_role("radio", name="It is a photograph").check()
    page.get_by_role("button", name="Give the picture").click()
    expect(form).to_contain_text("Without your consent nothing is sent. Tick the box")
    expect(page.get_by_role("checkbox")).to_be_focused()
    assert not list(feedback_folder.rglob("*.json"))
    page.get_by_role("checkbox").check()
    page.get_by_role("button", name="Give the picture").click()
    expect(form).to_contain_text("Thank you. The picture was stored under the number")
    (record,) = feedback_folder.rglob("*.json")
    said = json.loads(record.read_text())
    assert (said["label"], said["verdict"]) == ("real", "fake")
    assert "holiday" not in record.read_text()


def test_a_key_is_asked_for_and_kept_in_this_tab_only(open_page: Any, bare_address: str) -> None:
    page = open_page(bare_address)
    expect(page.get_by_text("This is a demo model.")).to_be_visible()
    expect(page.get_by_role("heading", name="This service asks for a key")).to_be_visible()
    give(page, grey(3))
    expect(page.locator(".body")).to_contain_text("needs a key")
    page.get_by_role("button", name="Enter the key").click()
    page.keyboard.type("wrong")
    page.keyboard.press("Enter")
    expect(page.locator("#key-wrong")).to_contain_text("not accepted")
    page.get_by_label("Key", exact=True).fill("a-long-enough-key-for-a-test")
    page.get_by_role("button", name="Use this key").click()
    heading(page, "This looks like a photograph.")
    assert page.evaluate("[sessionStorage['api-key'], localStorage.length, document.cookie]") == [
        "a-long-enough-key-for-a-test",
        0,
        "",
    ]
    expect(page.get_by_text("Was this wrong?")).to_have_count(0)


def test_the_documentation_draws_itself(page: Page, address: str) -> None:
    page.goto(f"{address}/docs")
    expect(page.locator("article")).to_have_count(6)
    expect(page.get_by_role("cell", name="results[].p_fake")).to_be_visible()
    expect(page.get_by_role("cell", name="explain", exact=True)).to_be_visible()
