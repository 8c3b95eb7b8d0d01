"""The documentation of the API in a real browser: complete, and every request can be tried."""

from typing import Any

import pytest

pytest.importorskip("playwright")
from playwright.sync_api import Locator, Page, expect

from tests.support.web_page import PICTURE, assert_accessible, gray


@pytest.fixture
def docs(open_page: Any, address: str) -> Page:
    page: Page = open_page(address)
    page.goto(f"{address}/docs")
    return page


def operation(page: Page, name: str) -> Locator:
    """The form of an operation, opened."""
    article = page.locator("article", has=page.get_by_role("heading", name=name, exact=True))
    article.get_by_text("Try it", exact=True).click()
    return article.locator("form")


def test_the_api_documentation_is_rendered(docs: Page) -> None:
    expect(docs.locator("article")).to_have_count(6)
    expect(docs.get_by_role("cell", name="results[].p_fake")).to_be_visible()
    expect(docs.get_by_role("cell", name="explain", exact=True)).to_be_visible()
    expect(docs.get_by_label("API key")).to_be_hidden()


def test_a_request_with_a_file_is_sent_and_its_answer_shown(docs: Page, address: str) -> None:
    form = operation(docs, "POST /v1/detect")
    form.get_by_label("file").set_input_files([{**gray(90), "name": "it's.png"}, gray(3)])  # type: ignore[list-item]
    expect(form.get_by_label("tag").locator("option")).to_have_text(["(not sent)", "real", "fake"])
    form.get_by_label("explain").select_option("true")
    form.get_by_role("button", name="Send").click()
    expect(form.get_by_role("status")).to_contain_text("200 OK", timeout=20_000)
    expect(form.get_by_role("status")).to_contain_text("X-Request-ID: ")
    curl, answer = form.locator("pre").all()
    expect(curl).to_have_text(
        f"curl -F 'file=@it'\\''s.png' -F 'file=@my holiday.png' '{address}/v1/detect?explain=true'"
    )
    expect(answer).to_contain_text('"verdict": "fake"')
    expect(answer).to_contain_text('"verdict": "real"')
    expect(answer).to_contain_text("characters)")  # of the heat map


def test_errors_and_plain_requests_are_shown_too(docs: Page) -> None:
    form = operation(docs, "POST /v1/feedback")
    form.get_by_label("file").set_input_files([gray(90)])  # type: ignore[list-item]
    form.get_by_label("label").select_option("fake")
    form.get_by_label("receipt").fill("x")
    form.get_by_role("button", name="Send").click()
    expect(form.get_by_role("status")).to_contain_text("422", timeout=20_000)
    expect(form.locator("pre").last).to_contain_text("bad_receipt")
    form = operation(docs, "GET /healthz")
    form.get_by_role("button", name="Send").click()
    expect(form.locator("pre").last).to_contain_text('"status": "ok"', timeout=20_000)


def test_a_key_and_an_address_can_be_given(open_page: Any, bare_address: str, demo_address: str) -> None:
    page = open_page(bare_address)
    page.goto(f"{bare_address}/docs")
    page.get_by_label("API key").fill("a-long-enough-key-for-a-test")
    form = operation(page, "POST /v1/detect")
    form.get_by_label("file").set_input_files([gray(90)])
    form.get_by_role("button", name="Send").click()
    expect(form.get_by_role("status")).to_contain_text("200 OK", timeout=20_000)
    expect(form.locator("pre").first).to_contain_text('-H "Authorization: Bearer $KEY"')
    page = open_page(demo_address)
    page.goto(f"{demo_address}/docs")
    form = operation(page, "POST /v1/detect")
    expect(form.get_by_label("JSON")).to_be_hidden()
    form.get_by_label("send").select_option("application/json")
    form.get_by_label("JSON").fill(f'{{"url": "{PICTURE}"}}')
    form.get_by_role("button", name="Send").click()
    expect(form.locator("pre").last).to_contain_text('"verdict": "fake"', timeout=20_000)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_no_violation_with_every_form_open(open_page: Any, address: str, scheme: str) -> None:
    page = open_page(address, color_scheme=scheme, viewport={"width": 320, "height": 640})
    page.goto(f"{address}/docs")
    operation(page, "GET /healthz").get_by_role("button", name="Send").click()
    expect(page.locator("pre").last).to_be_visible(timeout=20_000)
    page.evaluate("document.querySelectorAll('details').forEach(node => (node.open = true))")
    assert_accessible(page)
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
