"""Forced colors, reduced motion, notes about the picture, the paste button and upload progress."""

import base64
import io
import re
from typing import Any

import numpy as np
import pytest

pytest.importorskip("playwright")
from PIL import Image
from playwright.sync_api import Page, expect

from tests.support.web_page import gray

SLOW_BYTES_S = 30_000


def picture(name: str, kind: str, side: int, **how: Any) -> dict[str, Any]:
    """A file with noise."""
    pixels = np.random.default_rng(0).normal(90, 30, (side, side, 3)).clip(0, 255).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind, **how)
    return {"name": name, "mimeType": f"image/{kind.lower()}", "buffer": buffer.getvalue()}


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_verdict_is_visible_in_forced_colors(open_page: Any, address: str, scheme: str) -> None:
    page = open_page(address, forced_colors="active", color_scheme=scheme)
    page.locator("#file").set_input_files(gray(90))
    expect(page.get_by_role("heading", name="This looks AI-generated.")).to_be_visible()
    colors = [
        page.locator(part).first.evaluate("node => getComputedStyle(node).backgroundColor")
        for part in (".needle", ".zone.fake", "body")
    ]
    assert len(set(colors)) == 3, colors


def test_nothing_moves_with_reduced_motion(open_page: Any, address: str) -> None:
    moving = "document.getAnimations().filter(animation => animation.effect.getTiming().duration > 1).length"
    running = {}
    for motion in ("no-preference", "reduce"):
        page = open_page(address, reduced_motion=motion)
        page.locator("#file").set_input_files(gray(90))
        page.wait_for_selector("[data-state=busy], .chance")
        running[motion] = page.evaluate(moving)
        expect(page.get_by_role("heading", name="This looks AI-generated.")).to_be_visible()
    assert running["reduce"] == 0


def test_notes_say_why_an_answer_is_less_reliable(page: Page) -> None:
    page.locator("#file").set_input_files(
        [picture("messenger.jpg", "JPEG", 150, quality=30), gray(12, (30, 30), shade=12)]
    )
    expect(page.locator(".chance")).to_have_count(2)
    first, second = page.locator(".card").all()
    expect(first).to_contain_text("The picture is heavily compressed")
    for words in (
        "is very small and had to be enlarged",
        "This face is small",
        "This face is blurred",
        "This face is dark",
    ):
        expect(second).to_contain_text(words)


def test_the_paste_button_adds_the_picture_in_the_clipboard(open_page: Any, address: str) -> None:
    page = open_page(address, permissions=["clipboard-read", "clipboard-write"])
    page.evaluate(
        """async (data) => {
            const bytes = Uint8Array.from(atob(data), (letter) => letter.charCodeAt(0));
            const copied = new ClipboardItem({ "image/png": new Blob([bytes], { type: "image/png" }) });
            await navigator.clipboard.write([copied]);
        }""",
        base64.b64encode(gray(90)["buffer"]).decode(),
    )
    page.get_by_role("button", name="Paste").click()
    expect(page.get_by_role("heading", name="This looks AI-generated.")).to_be_visible()


def test_an_upload_shows_its_progress(page: Page) -> None:
    session = page.context.new_cdp_session(page)
    session.send("Network.enable")
    limits = {"offline": False, "latency": 5, "downloadThroughput": -1, "uploadThroughput": SLOW_BYTES_S}
    session.send("Network.emulateNetworkConditions", limits)
    page.locator("#file").set_input_files(picture("large.png", "PNG", 300))
    expect(page.get_by_role("heading", name=re.compile(r"Uploading: [1-9]\d?%"))).to_be_visible()
    assert 0 < page.locator("progress").evaluate("bar => bar.value / bar.max") <= 1
    expect(page.locator(".chance")).to_be_visible(timeout=60_000)
