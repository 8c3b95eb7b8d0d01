"""Takes docs/images/page.png from a service with the starter model, and prints the JSON answer that the README shows.

  make serve                                      # in another terminal; MODELS=FOLDER must hold no other model
  python docs/images/screenshot.py

The image is the page's own example, a generated portrait (docs/images/example.py): nobody's picture belongs in this
repository. Needs /usr/bin/chromium.
"""

import io
import json
import sys
from pathlib import Path

import httpx
from PIL import Image
from playwright.sync_api import sync_playwright

OUT = Path(__file__).with_name("page.png")
WIDTH, MARGIN = 960, 24
COLORS = 128
HEAT_PERCENT = "45"
"""Opacity of the heat map, so that the portrait stays visible."""
SHORT = 12
"""Characters of the heat map and the checksum that are printed."""
SETTLE_MS = 1500
"""Until the page's animations have ended."""


def main(address: str) -> None:
    """Has the example analyzed in a browser and once more by itself."""
    portrait = httpx.get(f"{address}/static/example.jpg", timeout=60).content
    answer = httpx.post(
        f"{address}/v1/detect", params={"explain": "true"}, files={"file": ("face.jpg", portrait)}, timeout=60
    )
    answer.raise_for_status()
    result = answer.json()
    for image in result["results"]:
        image["heatmap"]["png_base64"] = image["heatmap"]["png_base64"][:SHORT] + "..."
        image["model"]["sha256"] = image["model"]["sha256"][:SHORT] + "..."
    print(json.dumps(result, indent=1))
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=["--no-sandbox"])
        page = browser.new_context(
            locale="en-GB", viewport={"width": WIDTH, "height": 800}, color_scheme="light"
        ).new_page()
        page.goto(address)
        page.wait_for_selector("body.ready")
        page.locator("#example").click()
        page.get_by_role("meter").wait_for(timeout=60_000)
        page.locator(".heat-part button").click()
        page.get_by_role("slider").fill(HEAT_PERCENT, timeout=60_000)
        page.evaluate("scrollTo(0, 0)")  # boxes are relative to the viewport
        page.wait_for_timeout(SETTLE_MS)
        card = page.locator("article, .card").first.bounding_box()
        assert card
        clip = {"x": 0, "y": 0, "width": WIDTH, "height": card["y"] + card["height"] + MARGIN}
        shot = page.screenshot(full_page=True, clip=clip)
        browser.close()
    Image.open(io.BytesIO(shot)).quantize(COLORS).save(OUT, optimize=True)
    print(f"{OUT}: {OUT.stat().st_size / 1024:.0f} KiB", file=sys.stderr)


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:8000")
