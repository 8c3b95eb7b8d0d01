"""The page in a real browser: verdicts, ways to add pictures, errors, heat map, faces, feedback, API key."""

import json
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("playwright")
from playwright.sync_api import Page, expect

from tests.support.web_page import BUSY, NO_FACE, gray, three


def add(page: Page, *files: dict[str, Any]) -> None:
    page.locator("#file").set_input_files(list(files))


def heading(page: Page, name: str) -> None:
    expect(page.get_by_role("heading", name=name)).to_be_visible(timeout=20_000)


@pytest.mark.parametrize(
    ("level", "headline", "chance", "meaning"),
    [
        (3, "This looks like a photograph.", "97%", "about 3 are AI-generated"),
        (50, "The detector cannot tell.", "50%", "about 50 are AI-generated"),
        (100, "This looks AI-generated.", "> 99%", "more than 99 are AI-generated"),
    ],
)
def test_each_verdict_is_explained_in_words(page: Page, level: int, headline: str, chance: str, meaning: str) -> None:
    add(page, gray(level))
    heading(page, headline)
    expect(page.locator(".chance strong")).to_have_text(chance)
    expect(page.locator(".of-hundred")).to_contain_text(meaning)
    meter = page.get_by_role("meter")
    assert meter.get_attribute("aria-valuenow") == str(level)
    assert "from 70% as AI-generated" in str(meter.get_attribute("aria-valuetext"))
    expect(page.locator(".face")).to_have_count(1)
    expect(page.locator("#live")).to_contain_text(headline)
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_a_picture_without_a_face_gets_advice(page: Page) -> None:
    add(page, gray(3, NO_FACE))
    heading(page, "No face was found.")
    expect(page.locator(".help")).to_contain_text("says nothing about whether the picture is real")
    expect(page.get_by_role("meter")).to_have_count(0)
    expect(page.get_by_role("button", name="Show what influenced the score")).to_have_count(0)


def test_a_face_is_chosen_from_the_list_or_in_the_picture(page: Page) -> None:
    add(page, three(5, 90, 50))
    heading(page, "1 of 3 faces looks AI-generated.")
    expect(page.get_by_role("radio", name="Face 2: 90% likely to be AI-generated")).to_be_checked()
    page.get_by_role("radio", name="Face 1: 5% likely to be AI-generated").check()
    heading(page, "Face 1 looks like a photograph.")
    page.locator(".face").nth(2).click()
    heading(page, "Face 3: the detector cannot tell.")
    expect(page.get_by_role("radio", name="Face 3")).to_be_checked()


def test_the_heat_map_is_shown_with_a_slider(page: Page) -> None:
    add(page, gray(90))
    page.get_by_role("button", name="Show what influenced the score").click()
    slider = page.get_by_role("slider", name="Heat map over the picture")
    expect(slider).to_be_focused()
    expect(page.locator(".heat-part")).to_contain_text("not what is false")
    slider.press("Home")
    assert page.locator("canvas.heat").evaluate("heat => heat.style.opacity") == "0"
    slider.press("End")
    assert page.locator("canvas.heat").evaluate("heat => heat.style.opacity") == "1"


def test_each_of_several_files_gets_a_card_and_a_request(page: Page) -> None:
    posted: list[str] = []
    page.on("request", lambda sent: posted.append(sent.url) if sent.method == "POST" else None)
    add(page, gray(3), {"name": "a.png", "mimeType": "image/png", "buffer": b"text"}, gray(90))
    heading(page, "This looks AI-generated.")
    heading(page, "This looks like a photograph.")
    heading(page, "This file could not be analyzed.")
    expect(page.locator(".card .title > :first-child")).to_have_text(["Picture 1", "Picture 2", "Picture 3"])
    assert len(posted) == 3
    page.get_by_role("button", name="Remove Picture 2").click()
    expect(page.locator(".card")).to_have_count(2)
    page.get_by_role("button", name="Remove all").click()
    expect(page.locator("#results")).to_be_hidden()
    expect(page.locator("#file")).to_be_focused()


@pytest.mark.parametrize("way", ["drop", "paste"])
def test_a_dropped_or_pasted_picture_is_analyzed(page: Page, way: str) -> None:
    page.evaluate(
        """async (way) => {
            const canvas = new OffscreenCanvas(64, 64);
            const context = canvas.getContext("2d");
            context.fillRect(0, 0, 64, 64);
            context.fillStyle = "#0a0a0a";  // a picture of one color has no face
            context.fillRect(32, 0, 32, 64);
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


def fail_next_request(page: Page, status: int, code: str, headers: dict[str, str] | None = None) -> None:
    """Replaces the next answer of the service by an error."""
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
        (408, "upload took too long"),
        (413, "Do not scale the picture down"),
        (415, "cannot read this kind of file"),
        (422, "Choose the file again"),
        (500, "Something went wrong in the service"),
    ],
)
def test_each_error_says_what_to_do(page: Page, status: int, words: str) -> None:
    fail_next_request(page, status, "code")
    add(page, gray(3))
    heading(page, "This file could not be analyzed.")
    expect(page.locator(".body")).to_contain_text(words)
    expect(page.locator(".body")).to_contain_text("r-1")


@pytest.mark.parametrize("status", [429, 503])
def test_a_busy_service_is_tried_again_after_the_time_it_names(page: Page, status: int) -> None:
    fail_next_request(page, status, "busy", {"Retry-After": "2"})
    add(page, gray(3))
    heading(page, "Trying again in 2 s")
    heading(page, "This looks like a photograph.")
    fail_next_request(page, status, "busy", {"Retry-After": "120"})
    add(page, gray(90))
    expect(page.locator(".body").first).to_contain_text("in 120 s")
    expect(page.get_by_role("button", name="Try again")).to_be_disabled()


def test_a_long_wait_can_be_cancelled(page: Page) -> None:
    add(page, gray(BUSY))
    heading(page, "Trying again in")
    page.get_by_role("button", name="Cancel").click()
    heading(page, "Canceled.")
    expect(page.get_by_role("button", name="Try again")).to_be_visible()


def test_a_lost_connection_is_reported_and_can_be_tried_again(page: Page) -> None:
    page.route("**/v1/detect*", lambda route: route.abort(), times=1)
    add(page, gray(3))
    expect(page.locator(".body")).to_contain_text("Check your connection")
    page.get_by_role("button", name="Try again").click()
    heading(page, "This looks like a photograph.")


def test_a_file_that_is_too_large_or_not_a_picture_is_never_sent(page: Page) -> None:
    posted: list[str] = []
    page.on("request", lambda sent: posted.append(sent.url) if sent.method == "POST" else None)
    large = {**gray(3), "buffer": gray(3)["buffer"] + b"0" * 400_000}
    text = {"name": "a.pdf", "mimeType": "application/pdf", "buffer": b"%PDF"}
    add(page, large, gray(3, (700, 700)), text)
    expect(page.locator(".body").nth(0)).to_contain_text("Its size is 0.4 MB, but this service accepts at most 0.3 MB")
    expect(page.locator(".body").nth(1)).to_contain_text("megapixels")
    expect(page.locator(".body").nth(2)).to_contain_text("Choose a JPEG")
    assert posted == []


def test_heic_that_cannot_be_read_is_explained(page: Page) -> None:
    add(page, {"name": "IMG.HEIC", "mimeType": "image/heic", "buffer": b"\0\0\0\x18ftypheic" + b"0" * 99})
    expect(page.locator(".body")).to_contain_text("Most Compatible")
    expect(page.locator(".unseen")).to_contain_text("cannot display this file")


def test_feedback_is_stored_with_consent_only(page: Page, feedback_folder: Path) -> None:
    add(page, gray(91))
    page.get_by_text("Was this wrong?").click()
    form = page.locator(".feedback")
    expect(form).to_contain_text("Not stored: your name")
    page.get_by_role("button", name="Send the picture").click()
    expect(form).to_contain_text("choose first what you know")
    page.get_by_role("radio", name="It is a photograph").check()
    page.get_by_role("button", name="Send the picture").click()
    expect(form).to_contain_text("Nothing is sent without your consent. Tick the box")
    expect(page.get_by_role("checkbox")).to_be_focused()
    assert not list(feedback_folder.rglob("*.json"))
    page.get_by_role("checkbox").check()
    page.get_by_role("button", name="Send the picture").click()
    expect(form).to_contain_text("Thank you. The picture was stored with the ID")
    (record,) = feedback_folder.rglob("*.json")
    stored = json.loads(record.read_text())
    assert (stored["label"], stored["verdict"]) == ("real", "fake")
    assert "holiday" not in record.read_text()


def test_a_key_is_requested_and_kept_in_this_tab_only(open_page: Any, bare_address: str) -> None:
    page = open_page(bare_address)
    expect(page.get_by_text("This is a demo model.")).to_be_visible()
    expect(page.get_by_role("heading", name="This service requires a key")).to_be_visible()
    add(page, gray(3))
    expect(page.locator(".body")).to_contain_text("requires a key")
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
