"""Both pages in a real headless Chromium, against a real server on loopback."""

import re
import shutil

import pytest

from kbdfl.server.app import create_app
from kbdfl.server.serving import running

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
expect = playwright.expect

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(
    CHROMIUM is None, reason="no Chromium is installed (Debian: apt install chromium)"
)
ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
PHONE, DESKTOP = {"width": 360, "height": 740}, {"width": 1280, "height": 800}


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture
def open_page(browser):
    """Open a page; at the end no page may have written an error to its console."""
    contexts, complaints = [], []

    def open_one(url: str, *, viewport=DESKTOP, **options):
        context = browser.new_context(viewport=viewport, **options)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(10_000)
        page.on("console", lambda message: complaints.append(message.text) if message.type != "log" else None)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.goto(url)
        return page

    yield open_one
    for context in contexts:
        context.close()
    assert complaints == []


@pytest.fixture
def keyboard(served, open_page):
    service, _ = served
    with running(create_app(service), max_body_bytes=service.task.max_report_bytes) as server:
        page = open_page(f"{server.url}/keyboard")
        expect(page.locator("#strip .best")).not_to_be_empty()
        yield page


def message(page):
    return page.get_by_role("textbox", name="Message")


def slot(page, word: str):
    return page.locator(f'#strip [data-word="{word}"]')


def press(page, *keys: str) -> None:
    for key in keys:
        page.locator(f'[data-key="{key}"]').click()


def test_type_a_word_tap_a_suggestion_and_see_the_text_grow(keyboard):
    press(keyboard, "h", "e", "l")
    expect(message(keyboard)).to_have_value("Hel")  # a capital at the beginning, as on a phone
    best = keyboard.locator("#strip .best")
    expect(best).to_have_text("Hello")
    expect(best).to_have_attribute("title", re.compile(r"probability \d+\.\d %"))
    best.click()
    expect(message(keyboard)).to_have_value("Hello ")
    expect(best).not_to_have_text("Hello")
    best.click()  # whichever word the strip shows at that moment
    expect(message(keyboard)).to_have_value(re.compile(r"^Hello [\w']+ $"))
    expect(message(keyboard)).to_be_focused()


def test_a_real_keyboard_types_into_the_same_message(keyboard):
    keyboard.keyboard.type("see y")
    slot(keyboard, "you").click()
    expect(message(keyboard)).to_have_value("see you ")
    keyboard.keyboard.type("lat")
    slot(keyboard, "later").click()
    keyboard.keyboard.type(".")
    expect(message(keyboard)).to_have_value("see you later. ")  # the mark closes up to the word
    keyboard.keyboard.press("Enter")
    expect(keyboard.get_by_role("log")).to_contain_text("see you later.")
    expect(message(keyboard)).to_have_value("")


def test_the_keys_of_the_screen_do_what_they_say(keyboard):
    press(keyboard, "h", "i", "space", "shift", "y", "o", "back", "o", ",", "space", "i")
    expect(message(keyboard)).to_have_value("Hi Yo, i")
    expect(slot(keyboard, "i")).to_have_text("I")
    press(keyboard, "symbols", "4", "symbols", "shift", "shift", "a", "b", "shift", "c")
    expect(message(keyboard)).to_have_value("Hi Yo, i4ABc")
    press(keyboard, ".", "enter")
    expect(keyboard.get_by_role("log")).to_contain_text("Hi Yo, i4ABc.")
    expect(keyboard.locator("#send")).to_be_disabled()


def test_holding_backspace_erases_on(keyboard):
    keyboard.keyboard.type("hello there")
    key = keyboard.locator('[data-key="back"]').bounding_box()
    keyboard.mouse.move(key["x"] + 10, key["y"] + 10)
    keyboard.mouse.down()
    expect(message(keyboard)).to_have_value("")
    keyboard.mouse.up()


def test_an_answer_that_comes_late_does_not_replace_a_newer_one(keyboard):
    held = []

    def hold(route):
        if route.request.post_data_json["text"] == "a":
            held.append(route)
        else:
            route.continue_()

    keyboard.route("**/v1/predict", hold)
    message(keyboard).press("a")
    while not held:
        keyboard.wait_for_timeout(10)
    message(keyboard).press("Backspace")
    keyboard.keyboard.type("tom")
    expect(slot(keyboard, "tomorrow")).to_be_visible()
    held[0].continue_()
    assert held[0].request.response().ok
    keyboard.wait_for_timeout(200)
    expect(keyboard.locator("#strip .best")).to_have_text("tomorrow")


def test_the_keyboard_says_where_inference_runs(keyboard):
    expect(keyboard.get_by_text("Inference runs on the server (onnxruntime)")).to_be_visible()
    expect(keyboard.locator("#about-model")).to_have_text("before the first round")
    expect(keyboard.locator("#about-size")).to_contain_text("MB of ONNX")


def test_markup_in_a_message_stays_text(keyboard):
    keyboard.keyboard.type("<img src=x onerror=alert(1)>")
    keyboard.keyboard.press("Enter")
    expect(keyboard.locator(".message")).to_have_text("<img src=x onerror=alert(1)>")
    assert keyboard.locator(".message img").count() == 0


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
        expect(page.locator("#about-model")).to_have_text("after 3 rounds, version 3")


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
