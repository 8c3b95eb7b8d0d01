"""Plays the whole way from a tag to a changed verdict, in a real browser against a real service.

  python -m reliability.learning
  python -m reliability.learning --screenshots FOLDER

A generator that the live model never saw draws a picture. A visitor of the page gets a wrong verdict and tags it;
others tag more. An operator accepts the tags at /review with the keyboard. ``jobs.relearn --promote`` makes a new
version, the running service follows, and the same visitor asks again: the verdict has changed. Then the version is
rolled back, and so is the verdict. The model is a tiny one with random weights. Needs Debian's chromium.

Prints each step, and one JSON object as the last line. Exits with 1 if a step does not end as it should, and with 77
if there is no browser.
"""

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NoReturn

from playwright.sync_api import Page, expect, sync_playwright

from benchmarks.machine import describe
from detector_core.data import review
from detector_core.registry import versions
from detector_core.training import rounds
from jobs import relearn
from tests.support.serving import Service, running
from tests.support.tagged import hashed_dataset, live_model, tagged_bytes

CHROMIUM = Path("/usr/bin/chromium")
NO_BROWSER = 77
KEY, REVIEWER = "an-operator-s-key", "anna"
GIVEN_PER_CLASS = 30
LIVE_WITHIN_S = 60
FAKE, REAL, WRONG = "This looks AI-generated.", "This looks like a photograph.", "Was this wrong?"


def main() -> NoReturn:
    """Runs the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m reliability.learning", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--screenshots", type=Path, metavar="FOLDER", help="write a picture of each step there")
    arguments = parser.parse_args()
    if not CHROMIUM.exists():
        print(f"there is no {CHROMIUM}: apt-get install chromium", file=sys.stderr)
        sys.exit(NO_BROWSER)
    print(describe(), flush=True)
    with tempfile.TemporaryDirectory(prefix="learning-") as scratch:
        result = play(Path(scratch), arguments.screenshots)
    print(json.dumps(result))
    sys.exit(0)


def play(folder: Path, screenshots: Path | None) -> dict[str, Any]:
    """Plays all steps; returns the versions and verdicts. An AssertionError names the step that went wrong."""
    dataset = hashed_dataset(folder, {"train": 60, "valid": 30, "test": 24})
    models, feedback = folder / "models", folder / "feedback"
    first = versions.promote(live_model(folder / "live", dataset, balanced=True), models)
    (folder / "operators").write_text(KEY)
    (folder / "home").mkdir()
    settings = {"feedback_folder": str(feedback), "operator_keys_file": str(folder / "operators"), "faces": "off"}
    (folder / "serve.json").write_text(json.dumps({"poll_s": 0.5, "http": settings}))
    config = ("--config", str(folder / "serve.json"))
    with running(models, folder / "home", folder / "log", *config) as service, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=str(CHROMIUM), args=["--no-sandbox"])
        page = browser.new_context(locale="en-GB").new_page()
        address = f"http://127.0.0.1:{service.port}"

        def shot(name: str) -> None:
            if screenshots:
                screenshots.mkdir(parents=True, exist_ok=True)
                page.screenshot(path=screenshots / f"{name}.png", full_page=True)

        picture = _picture_called_real(service)
        _say("a visitor asks about a picture of a new generator")
        before = _ask(page, address, picture, REAL)
        shot("1-asked")
        _say(f"the answer is {before!r}; the visitor tags it as AI-generated")
        _tag(page)
        shot("2-tagged")
        _give_more(service, address)
        tagged = len(review.read(feedback))
        _say(f"{tagged} tags wait; an operator accepts them with the keyboard")
        _accept_all(page, address, shot)
        assert review.count_states(review.read(feedback))["accepted"] == tagged
        _say("a round learns from them")
        second = _relearn(models, feedback, dataset, folder / "cache")
        _wait_until_live(service, second)
        after = _ask(page, address, picture, FAKE)
        shot("4-asked-again")
        _say(f"the same picture: {after!r}; now back to the version before")
        versions.rollback(models)
        _wait_until_live(service, first)
        back = _ask(page, address, picture, REAL)
        browser.close()
    return {"tags": tagged, "versions": [first, second], "verdicts": [before, after, back]}


def _picture_called_real(service: Service) -> bytes:
    """A fake of the new generator with the verdict real."""
    for seed in range(1000, 1100):
        data = tagged_bytes(seed, "fake")
        status, text = service.request("POST", "/v1/detect", data, "image/png")
        if status == 200 and json.loads(text)["results"][0]["verdict"] == "real":
            return data
    raise AssertionError("the live model calls every fake of the new generator fake")


def _ask(page: Page, address: str, picture: bytes, headline: str) -> str:
    """Drops the picture on the page and waits for a headline."""
    page.goto(address)
    page.wait_for_selector("body.ready")
    page.set_input_files("#file", {"name": "picture.png", "mimeType": "image/png", "buffer": picture})
    expect(page.get_by_role("heading", name=headline)).to_be_visible(timeout=20_000)
    return headline


def _tag(page: Page) -> None:
    page.get_by_text(WRONG).click()
    page.get_by_role("radio", name="It is AI-generated").check()
    page.get_by_role("checkbox").check()
    page.get_by_role("button", name="Send the picture").click()
    expect(page.locator(".feedback")).to_contain_text("Thank you. The picture was stored with the ID")


def _give_more(service: Service, address: str) -> None:
    """Other visitors tag images with their request; the service sees one address, so they come in one round."""
    for number in range(GIVEN_PER_CLASS):
        for label in ("real", "fake"):
            data = tagged_bytes(2 * number + (label == "fake"), label)
            status, text = service.request("POST", f"/v1/detect?tag={label}&consent=true", data, "image/png")
            assert status == 200, f"{address}: {text}"


def _accept_all(page: Page, address: str, shot: Any) -> None:
    """Signs in at /review and presses A until nothing waits."""
    page.goto(f"{address}/review")
    page.get_by_label("Operator key").fill(KEY)
    page.get_by_label("Your name").fill(REVIEWER)
    page.keyboard.press("Enter")
    cards = page.locator("#tags > article")
    for turn in range(10):
        expect(page.locator("#tags > article, #none:not([hidden])").first).to_be_visible(timeout=20_000)
        count = cards.count()
        if not count:
            return
        if not turn:
            shot("3-review")
        for index in range(count):
            cards.nth(index).focus()
            page.keyboard.press("a")
            expect(cards.nth(index)).to_contain_text(f"{REVIEWER} accepts")
        page.reload()
    raise AssertionError("tags still wait after ten pages")


def _relearn(models: Path, feedback: Path, dataset: Path, cache: Path) -> str:
    """Runs a round that promotes; its learning rate suits the random last layer of the live model."""
    rounds.relearn.LEARNING_RATE = 0.01
    where = ["--models", models, "--feedback", feedback, "--data", dataset, "--cache", cache]
    try:
        relearn.main([*map(str, where), "--per-giver", "100", "--promote"])
    except SystemExit as exited:
        if exited.code:
            raise AssertionError(f"jobs.relearn ended with {exited.code}") from None
    return str(versions.history(str(models))[0])


def _wait_until_live(service: Service, version: str) -> None:
    deadline = time.monotonic() + LIVE_WITHIN_S
    while json.loads(service.request("GET", "/v1/model")[1])["version"] != version:
        assert time.monotonic() < deadline, f"{version} was not live within {LIVE_WITHIN_S} s"
        time.sleep(0.5)


def _say(text: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {text}", flush=True)


if __name__ == "__main__":
    main()
