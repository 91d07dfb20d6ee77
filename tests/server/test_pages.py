"""The dashboard, and both pages' fit, in a real headless Chromium, against a real server on loopback."""

import re

import pytest

from kbdfl.server.app import create_app
from kbdfl.server.serving import running

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
expect = playwright.expect

pytestmark = pytest.mark.browser
PHONE, DESKTOP = {"width": 360, "height": 740}, {"width": 1280, "height": 800}


@pytest.fixture
def open_page(browser):
    """Open a page; at the end no page may have written an error to its console."""
    contexts, complaints = [], []

    def open_one(url: str, *, viewport=DESKTOP, **options):
        context = browser.new_context(viewport=viewport, **options)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(30_000)
        page.on("console", lambda message: complaints.append(message.text) if message.type != "log" else None)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.goto(url)
        return page

    yield open_one
    for context in contexts:
        context.close()
    assert complaints == []


def test_the_dashboard_draws_the_rounds_as_they_come(served, new_phone, open_page):
    service, client = served
    with running(create_app(service), max_body_bytes=service.task.max_report_bytes) as server:
        page = open_page(server.url)
        expect(page.locator("#phase")).to_have_text("learning")
        expect(page.locator("#latest")).to_contain_text("No round has been closed yet")
        phones = [new_phone(client) for _ in range(2)]
        for number in range(3):
            for phone in phones:
                phone.take_part(service, seed=number)
            assert service.wait_settled(20.0)
        expect(page.locator("#phase")).to_have_text("finished")
        expect(page.get_by_role("progressbar")).to_have_attribute("aria-valuenow", "3")
        expect(page.locator("#top1")).to_have_text("30.0 %")
        expect(page.locator("#top3")).to_have_text("60.0 %")
        expect(page.locator("#loss")).to_have_text("3.500")
        expect(page.locator("#enrolled")).to_have_text("2")
        expect(page.locator("#latest tr")).to_have_count(3)
        for chart, lines in (("recall", 2), ("loss", 1), ("bytes", 2), ("reports", 2)):
            drawn = page.locator(f"#chart-{chart} .scatterlayer path.js-line")
            expect(drawn).to_have_count(lines)
            assert all(len(path.get_attribute("d")) > 10 for path in drawn.all())
        expect(page.locator("#bundle")).to_contain_text("model.onnx")
        page.get_by_role("link", name="keyboard", exact=True).click()
        expect(page.locator("#model-rounds")).to_have_text("3 rounds")


@pytest.mark.parametrize("path", ["/", "/keyboard"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_page_fits_a_small_phone_in_both_schemes(served, open_page, path, scheme):
    service, _ = served
    with running(create_app(service), max_body_bytes=service.task.max_report_bytes) as server:
        page = open_page(server.url + path, viewport=PHONE, color_scheme=scheme)
        expect(page.locator("#bundle, #strip .best").first).not_to_be_empty()
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        paper = page.evaluate("getComputedStyle(document.body).backgroundColor")
        brightness = sum(map(int, re.findall(r"\d+", paper)[:3])) / 3
        assert (brightness > 200) == (scheme == "light")


def test_the_dashboard_says_when_its_server_is_gone(served, open_page, browser):
    service, _ = served
    with running(create_app(service), max_body_bytes=service.task.max_report_bytes) as server:
        context = browser.new_context()
        page = context.new_page()
        page.goto(server.url)
        expect(page.locator("#phase")).to_have_text("learning")
    expect(page.locator("#phase")).to_have_text("no answer")
    context.close()
