"""What the page says about an answer: the mix it assumes, a demo model, what was stored; the example, links, saving."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("playwright")
from playwright.sync_api import Page, Route, expect

from tests.support import provenance
from tests.support.clips import make_clip
from tests.support.images import png_chunk
from tests.support.web_page import GONE, PICTURE, assert_accessible, gray, three

VIDEO = {"name": "clip.webm", "mimeType": "video/webm"}


def add(page: Page, *files: dict[str, Any]) -> None:
    page.locator("#file").set_input_files(list(files))


def heading(page: Page, name: str) -> None:
    expect(page.get_by_role("heading", name=name)).to_be_visible(timeout=20_000)


def video() -> dict[str, Any]:
    return {**VIDEO, "buffer": make_clip(30, codec="libvpx", container="webm", size=(64, 64))}


def test_the_number_of_100_says_which_mix_it_assumes(page: Page) -> None:
    add(page, gray(90))
    expect(page.locator(".of-hundred")).to_have_text("Of 100 pictures with this score, about 90 are AI-generated.")
    expect(page.locator(".of-hundred + p")).to_contain_text("one AI-generated picture for every photograph")
    expect(page.locator(".demo-mark")).to_be_hidden()


def test_the_page_says_what_the_detector_cannot_detect(page: Page) -> None:
    limits = page.get_by_role("region", name="What it cannot detect")
    expect(limits.get_by_role("listitem")).to_have_count(4)
    for words in ("Swapped faces", "Edited photos", "Generators it has never seen", "tells the truth"):
        expect(limits).to_contain_text(words)


def test_the_page_says_in_words_what_a_flag_is_worth(page: Page) -> None:
    page.get_by_text("How often is it right?").click()
    worth = page.locator("#tests").get_by_text("pictures flagged as generated")
    expect(worth).to_have_count(4)
    expect(worth.first).to_contain_text("Where 1 picture in 2,000 is generated: of 100")
    expect(worth.last).to_contain_text(
        "Where 1 picture in 2 is generated: of 100 pictures flagged as generated, 90 are (81 to 96)."
    )


def test_a_demo_model_marks_every_answer_and_speaks_of_drawings(open_page: Any, demo_address: str) -> None:
    page = open_page(demo_address)
    expect(page.get_by_text("This is a demo model.")).to_be_visible()
    add(page, gray(3), gray(90), video())
    page.get_by_role("button", name="Analyze the whole clip").click(timeout=20_000)
    expect(page.locator(".bar-of")).to_have_count(16, timeout=30_000)
    expect(page.get_by_text("Demo model: this answer means nothing for real pictures.")).to_have_count(3)
    for mark in page.locator(".demo-mark").all():
        expect(mark).to_be_visible()
    expect(page.locator(".notes")).to_have_count(0)
    expect(page.locator(".of-hundred").first).to_contain_text("measured on computer-drawn portraits")
    expect(page.get_by_text("an even mix")).to_have_count(0)
    expect(page.locator("#model")).to_contain_text("trained on computer-drawn portraits")
    page.get_by_text("How often is it right?").click()
    expect(page.locator("#tests")).to_contain_text("computer-drawn portraits from data d1, not on photographs")
    expect(page.locator("#tests")).not_to_contain_text("generated pictures passed as photographs")


def test_without_an_uncertain_zone_the_scale_has_none(open_page: Any, demo_address: str, address: str) -> None:
    for where, zones in ((demo_address, ["photograph", "AI-generated"]), (address, None)):
        page = open_page(where)
        add(page, gray(90))
        expect(page.locator(".zones > span")).to_have_text(zones or ["photograph", "uncertain", "AI-generated"])
        expect(page.locator(".bar .zone")).to_have_count(2 if zones else 3)
        words = str(page.get_by_role("meter").get_attribute("aria-valuetext"))
        assert ("uncertain" in words) == (zones is None)
        assert "Below 50%" in words if zones else "Below 30%" in words


def test_a_clip_is_described_by_what_was_analyzed(open_page: Any, address: str, demo_address: str) -> None:
    page = open_page(address)
    add(page, video())
    page.get_by_role("button", name="Analyze the whole clip").click(timeout=20_000)
    expect(page.locator(".clip-answer")).to_contain_text("Moments with a face: 5", timeout=30_000)
    page = open_page(demo_address)
    add(page, video())
    page.get_by_role("button", name="Analyze the whole clip").click(timeout=20_000)
    expect(page.locator(".clip-answer")).to_contain_text("without looking for faces", timeout=30_000)
    expect(page.locator(".clip-answer")).not_to_contain_text("with a face")


def test_faces_that_were_left_out_are_said_and_shown(open_page: Any, demo_address: str) -> None:
    page = open_page(demo_address)
    for level, headline in (
        (5, "2 of 3 faces look like photographs; the others were not judged."),
        (90, "1 of 2 faces"),
    ):
        page.route("**/v1/detect*", left_out(level), times=1)
        add(page, three(5, level, 50))
        heading(page, headline)
        expect(page.locator(".notes").first).to_contain_text("2 of 3 faces were judged, the largest ones.")
        expect(page.locator(".card").first.locator(".face.left-out")).to_have_count(1)
        expect(page.locator(".card").first.locator(".face.pickable")).to_have_count(2)


def left_out(level: int) -> Callable[[Route], None]:
    """Answers as if the last of three faces had been too many; the second has this p_fake, in percent."""

    def answer(route: Route) -> None:
        body = route.fetch(url=f"{route.request.url.partition('?')[0]}?faces=off").json()
        (result,) = body["results"]
        verdicts = [(p_fake, "fake" if p_fake >= 0.5 else "real") for p_fake in (0.05, level / 100)]
        result["faces"] = [
            {"box": box, "crop_box": box, "score": 0.99, "p_fake": p_fake, "verdict": verdict, "quality": []}
            for box, (p_fake, verdict) in zip(([1, 11, 39, 49], [41, 11, 79, 49]), verdicts, strict=True)
        ]
        result["faces_left_out"] = [[81, 11, 119, 49]]
        result["verdict"] = "fake" if level >= 50 else "uncertain"
        result["warnings"] = ["several_faces", "faces_left_out"]
        route.fulfill(json=body)

    return answer


def test_what_a_file_says_about_its_origin_is_on_the_card_and_changes_no_score(page: Page) -> None:
    original = gray(90)
    signed = provenance.signed(original["buffer"], "image/png")
    broken = signed[:-12] + png_chunk(b"tEXt", b"Comment\0later") + signed[-12:]
    add(page, original, {**original, "buffer": signed}, {**original, "buffer": broken})
    expect(page.locator(".origin")).to_have_count(3, timeout=20_000)
    words = [part.inner_text() for part in page.locator(".origin").all()]
    expect(page.locator(".of-hundred")).to_have_text(
        ["Of 100 pictures with this score, about 90 are AI-generated."] * 3
    )
    assert sorted("Nothing. That is no sign of anything" in part for part in words) == [False, False, True]
    (claim,) = [part for part in words if "made by AI." in part]
    assert "Named: Painter. Signed in the name of Test cameras, but nobody vouches for that name." in claim
    assert "The score does not depend on this." in claim
    (claim,) = [part for part in words if "cannot be relied on." in part]
    assert "The signature does not match the file" in claim
    assert_accessible(page)
    page.get_by_role("button", name="Deutsch").click()
    expect(page.get_by_text("von KI erzeugt.")).to_have_count(1)


def test_the_example_is_analyzed_like_any_picture(page: Page) -> None:
    page.get_by_role("button", name="Try an example").click()
    expect(page.get_by_role("meter")).to_be_visible(timeout=20_000)
    expect(page.locator(".title .name")).to_have_text("Example: a portrait drawn by a computer")
    assert page.locator(".picture img").evaluate("image => image.naturalWidth") >= 256
    page.get_by_role("button", name="Deutsch").click()
    expect(page.locator(".title .name")).to_have_text("Beispiel: ein vom Computer gezeichnetes Porträt")


def test_a_link_is_analyzed_where_the_operator_allows_it(open_page: Any, demo_address: str, address: str) -> None:
    page = open_page(demo_address)
    field = page.get_by_label("Or give the address of a picture on the web")
    field.fill("nonsense")
    page.get_by_role("button", name="Analyze", exact=True).click()
    expect(page.locator("#intake-note")).to_contain_text("must begin with https://")
    field.fill(PICTURE)
    field.press("Enter")
    heading(page, "This looks AI-generated.")
    expect(page.locator(".title .name")).to_have_text(PICTURE)
    expect(page.locator(".unseen")).to_contain_text("not shown here")
    expect(page.get_by_role("button", name="Show what influenced the score")).to_have_count(0)
    expect(field).to_have_value("")
    for link, words in (
        (GONE, "cannot fetch a picture"),
        (f"{PICTURE}.html", "not a picture that the service can read"),
    ):
        field.fill(link)
        field.press("Enter")
        expect(page.locator(".body").first).to_contain_text(words)
    expect(open_page(address).get_by_label("Or give the address of a picture on the web")).to_be_hidden()


def test_a_pasted_link_waits_in_the_field_until_it_is_sent(open_page: Any, demo_address: str, address: str) -> None:
    paste = """(text) => {
        const transfer = new DataTransfer();
        transfer.setData("text/plain", text);
        document.body.dispatchEvent(new ClipboardEvent("paste", { bubbles: true, clipboardData: transfer }));
    }"""
    page = open_page(demo_address)
    page.evaluate(paste, PICTURE)
    expect(page.get_by_label("Or give the address of a picture on the web")).to_have_value(PICTURE)
    expect(page.locator("#intake-note")).to_be_hidden()
    expect(page.locator(".card")).to_have_count(0)
    page = open_page(address)
    page.evaluate(paste, PICTURE)
    expect(page.locator("#intake-note")).to_contain_text("perhaps only a link")


def test_the_promise_changes_once_a_picture_was_given(page: Page, feedback_folder: Path) -> None:
    expect(page.locator(".promise")).to_contain_text("Nothing is stored unless you share it.")
    for number, words in ((1, "One picture is stored"), (1, "One picture is stored"), (2, "2 pictures are stored")):
        add(page, gray(80 + number))
        page.get_by_text("Was this wrong?").first.click()
        page.get_by_role("radio", name="It is a photograph").first.check()
        page.get_by_role("checkbox").first.check()
        page.get_by_role("button", name="Send the picture").first.click()
        expect(page.locator(".thanks").first).to_be_visible(timeout=20_000)
        page.get_by_role("button", name="Remove Picture").click()
        expect(page.locator(".promise")).to_contain_text(words)
        expect(page.locator(".promise")).to_contain_text("Every other picture is analyzed in memory")
    records = [json.loads(path.read_text()) for path in feedback_folder.glob("records/*.json")]
    given = [record for record in records if record["verdict"] == "fake"]
    assert len(given) >= 2
    assert all(record["request_id"] for record in given)


def test_an_answer_that_the_service_does_not_recognize_is_explained(page: Page) -> None:
    body = json.dumps({"error": {"code": "bad_receipt", "message": "no", "request_id": "r-1"}})
    page.route("**/v1/feedback", lambda route: route.fulfill(status=422, body=body))
    add(page, gray(90))
    page.get_by_text("Was this wrong?").click()
    page.get_by_role("radio", name="It is a photograph").check()
    page.get_by_role("checkbox").check()
    page.get_by_role("button", name="Send the picture").click()
    expect(page.locator(".feedback")).to_contain_text("no longer recognizes this answer")


def saved(page: Page, folder: Path) -> Path:
    """The answer of the only card, saved as a file."""
    with page.expect_download() as download:
        page.get_by_role("button", name="Save this answer").click()
    path = folder / download.value.suggested_filename
    download.value.save_as(path)
    return path


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_an_answer_is_saved_as_one_page_that_needs_nothing_else(
    browser: Any, page: Page, tmp_path: Path, scheme: str
) -> None:
    picture = three(5, 90, 50)
    add(page, picture)
    page.get_by_role("button", name="Show what influenced the score").click(timeout=20_000)
    expect(page.get_by_role("slider", name="Heat map")).to_be_visible(timeout=20_000)
    path = saved(page, tmp_path)
    assert path.name.startswith("answer-")
    html = path.read_text()
    assert "holiday" not in html  # the name of the file
    assert hashlib.sha256(picture["buffer"]).hexdigest() in html
    requests: list[str] = []
    context = browser.new_context(offline=True, color_scheme=scheme, viewport={"width": 375, "height": 800})
    alone = context.new_page()
    alone.on("request", lambda sent: requests.append(sent.url[:5]))
    alone.goto(path.as_uri())
    expect(alone.get_by_role("heading", name="1 of 3 faces looks AI-generated.")).to_be_visible()
    assert alone.locator(".stage img").evaluate("image => [image.naturalWidth, image.naturalHeight]") == [640, 320]
    for words in (
        "about 90 are AI-generated",
        "Swapped faces",
        "can be wrong",
        "p(fake), calibrated",
        "brighter an area",
    ):
        expect(alone.locator("body")).to_contain_text(words)
    expect(alone.locator("button, input, script, link, .feedback")).to_have_count(0)
    assert set(requests) <= {"file:", "data:"}
    assert alone.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert_accessible(alone)
    context.close()


def test_the_answer_about_a_clip_is_saved_with_a_frame_and_its_table(browser: Any, page: Page, tmp_path: Path) -> None:
    page.get_by_role("button", name="Deutsch").click()
    add(page, video())
    page.get_by_role("button", name="Ganzen Clip auswerten").click(timeout=20_000)
    expect(page.locator(".bar-of")).to_have_count(5, timeout=30_000)
    with page.expect_download() as download:
        page.get_by_role("button", name="Antwort speichern").click()
    download.value.save_as(tmp_path / "a.html")
    context = browser.new_context(offline=True)
    alone = context.new_page()
    alone.goto((tmp_path / "a.html").as_uri())
    assert alone.evaluate("document.documentElement.lang") == "de"
    expect(alone.locator("tbody tr")).to_have_count(5)
    assert alone.locator(".stage img").evaluate("image => image.naturalWidth") == 64
    expect(alone.get_by_text("Gehen Sie zu einem Moment")).to_have_count(0)
    context.close()
