"""States of the page that the other files leave out: forced colours, reduced motion, notes, pasting, progress."""

import base64
import io
import re
from typing import Any

import numpy as np
import pytest

pytest.importorskip("playwright")
from PIL import Image
from playwright.sync_api import Page, expect

from tests.support.web_page import grey

SLOW_BYTES_S = 30_000


def picture(name: str, kind: str, side: int, **how: Any) -> dict[str, Any]:
    """Noise, as a file to choose."""
    pixels = np.random.default_rng(0).normal(90, 30, (side, side, 3)).clip(0, 255).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind, **how)
    return {"name": name, "mimeType": f"image/{kind.lower()}", "buffer": buffer.getvalue()}


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_in_forced_colours_the_verdict_is_still_seen(open_page: Any, address: str, scheme: str) -> None:
    page = open_page(address, forced_colors="active", color_scheme=scheme)
    page.locator("#file").set_input_files(grey(90))
    expect(page.get_by_role("heading", name="This looks generated.")).to_be_visible()
    colours = [
        page.locator(part).first.evaluate("one => getComputedStyle(one).backgroundColor")
        for part in (".needle", ".zone.fake", "body")
    ]
    assert len(set(colours)) == 3, colours


def test_with_reduced_motion_nothing_moves(open_page: Any, address: str) -> None:
    moving = "document.getAnimations().filter(one => one.effect.getTiming().duration > 1).length"
    found = {}
    for motion in ("no-preference", "reduce"):
        page = open_page(address, reduced_motion=motion)
        page.locator("#file").set_input_files(grey(90))
        page.wait_for_selector("[data-state=busy], .chance")
        found[motion] = page.evaluate(moving)
        expect(page.get_by_role("heading", name="This looks generated.")).to_be_visible()
    assert found["reduce"] == 0


def test_what_lowers_the_worth_of_an_answer_stands_beside_it(page: Page) -> None:
    page.locator("#file").set_input_files([picture("messenger.jpg", "JPEG", 150, quality=30), grey(3, (30, 30))])
    expect(page.locator(".chance")).to_have_count(2)
    first, second = page.locator(".card").all()
    expect(first).to_contain_text("The picture has been compressed again")
    for words in ("The picture is very small", "This face is small", "This face is blurred", "This face is dark"):
        expect(second).to_contain_text(words)


def test_the_paste_button_takes_what_was_copied(open_page: Any, address: str) -> None:
    page = open_page(address, permissions=["clipboard-read", "clipboard-write"])
    page.evaluate(
        """async (data) => {
            const bytes = Uint8Array.from(atob(data), (one) => one.charCodeAt(0));
            const copied = new ClipboardItem({ "image/png": new Blob([bytes], { type: "image/png" }) });
            await navigator.clipboard.write([copied]);
        }""",
        base64.b64encode(grey(90)["buffer"]).decode(),
    )
    page.get_by_role("button", name="Paste").click()
    expect(page.get_by_role("heading", name="This looks generated.")).to_be_visible()


def test_an_upload_shows_how_far_it_is(page: Page) -> None:
    session = page.context.new_cdp_session(page)
    session.send("Network.enable")
    limits = {"offline": False, "latency": 5, "downloadThroughput": -1, "uploadThroughput": SLOW_BYTES_S}
    session.send("Network.emulateNetworkConditions", limits)
    page.locator("#file").set_input_files(picture("large.png", "PNG", 300))
    expect(page.get_by_role("heading", name=re.compile(r"Sending: [1-9]\d?%"))).to_be_visible()
    assert 0 < page.locator("progress").evaluate("one => one.value / one.max") <= 1
    expect(page.locator(".chance")).to_be_visible(timeout=60_000)
