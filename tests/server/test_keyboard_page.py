"""The keyboard in a real headless Chromium: one page, loaded once, and then cut off from the network."""

import re
from types import SimpleNamespace

import numpy as np
import pytest

from kbdfl.kernels.train import local_sgd
from kbdfl.model import CifgConfig, init_params
from kbdfl.rng import stream
from kbdfl.server.app import create_app
from kbdfl.server.assets import WebRuntime, distance_library
from kbdfl.server.bundles import open_bundle, write_precisions
from kbdfl.server.serving import running
from kbdfl.text import Vocabulary, training_batches

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
expect = playwright.expect

pytestmark = pytest.mark.browser
needs_npm = pytest.mark.skipif(
    WebRuntime.find() is None or distance_library() is None,
    reason="the page's libraries are not installed (npm ci in server/web)",
)
SENTENCES = (
    """
see you later|see you tomorrow|see you at home|see you tomorrow at home|i am on my way home|i'm at home
how are you|how are you today|thanks for the help|hello how are you|don't be late|we will be there tomorrow
""".replace("\n", "|")
    .strip("|")
    .split("|")
)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    """A small model that has read SENTENCES until it knew them, at every precision."""
    folder = tmp_path_factory.mktemp("keyboard") / "model"
    vocabulary = Vocabulary.of_words(sorted(set(" ".join(SENTENCES).split())), "a test")
    config = CifgConfig(vocab=len(vocabulary), embed=24, hidden=32)
    batches = training_batches(
        vocabulary.encode_many(SENTENCES),
        batch_size=len(SENTENCES),
        epochs=100,
        max_words=10,
        random=stream(1, "keyboard"),
    )
    params = init_params(config, seed=1)
    shape = {"vocab": config.vocab, "embed": config.embed, "hidden": config.hidden}
    delta, *_ = local_sgd(params, **shape, **batches.arrays, learning_rate=1.0, clip_norm=1.0)
    facts = {"rounds": 7, "version": 7, "data": "a test"}
    trained = (params + delta).astype(np.float32)
    write_precisions(folder, params=trained, config=config, vocabulary=vocabulary, facts=facts)
    return open_bundle(folder)


@pytest.fixture(scope="module")
def app(bundle, tmp_path_factory):
    task = SimpleNamespace(name="a test", max_report_bytes=1 << 20)
    folder = tmp_path_factory.mktemp("served")
    return create_app(SimpleNamespace(task=task, folder=folder, current_bundle=lambda: bundle))


@pytest.fixture(scope="module")
def address(app):
    with running(app) as server:
        yield f"{server.url}/keyboard"


@pytest.fixture(scope="module")
def open_keyboard(browser, address):
    """Open the page and wait for its first suggestions; it keeps a list of what it complains about."""
    contexts = []

    def open_one(where: str):
        context = browser.new_context(viewport={"width": 1280, "height": 900})
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(15_000)
        page.complaints = []
        page.on("console", lambda message: page.complaints.append(message.text))
        page.on("pageerror", lambda error: page.complaints.append(str(error)))
        page.goto(address)
        expect(page.locator("#where")).to_have_attribute("data-where", where, timeout=15_000)
        expect(page.locator("#strip .best")).not_to_be_empty()
        return page

    yield open_one
    for context in contexts:
        context.close()


@pytest.fixture(scope="module")
def offline_page(open_keyboard):
    """The page that most tests share. From here on it cannot ask the network for anything."""
    page = open_keyboard("browser")
    page.asked = []
    page.on("request", lambda request: page.asked.append(request.url))
    page.context.set_offline(True)
    return page


@pytest.fixture
def keyboard(offline_page):
    """The shared page as it was in the beginning."""
    page = offline_page
    page.locator("#forget").click()
    if page.locator("#incognito").get_attribute("aria-pressed") == "true":
        page.locator("#incognito").click()
    if page.locator('[data-key="letters"]').count():
        page.locator('[data-key="letters"]').click()
    message(page).press("Control+a")
    message(page).press("Backspace")
    expect(message(page)).to_have_value("")
    expect(page.locator("#own-words")).to_be_hidden()
    page.complaints.clear()
    yield page
    assert page.complaints == []
    assert page.asked == []


def message(page):
    return page.get_by_role("textbox", name="Message")


def best(page):
    return page.locator("#strip .best")


def slot(page, word: str):
    return page.locator(f'#strip [data-word="{word}"]')


def press(page, *keys: str) -> None:
    for key in keys:
        page.locator(f'[data-key="{key}"]').click()


def send(page, text: str) -> None:
    sent = page.locator(".message").count()
    page.keyboard.type(text)
    page.keyboard.press("Enter")
    expect(page.locator(".message")).to_have_count(sent + 1)


@needs_npm
def test_prediction_needs_no_network(keyboard):
    expect(keyboard.locator("#where")).to_have_text("In this page")
    keyboard.keyboard.type("how are ")
    expect(best(keyboard)).to_have_text("you")
    expect(keyboard.locator("#latency")).to_have_text(re.compile(r"^[\d.]+ / [\d.]+ ms$"))


@needs_npm
def test_typing_see_y_offers_the_rest_and_a_tap_takes_it_with_a_space(keyboard):
    keyboard.keyboard.type("see y")
    expect(best(keyboard)).to_have_text("you")
    best(keyboard).click()
    expect(message(keyboard)).to_have_value("see you ")
    expect(message(keyboard)).to_be_focused()
    expect(keyboard.locator("#saved-count")).to_have_text(re.compile(r"^\d+ keys pressed, [1-9]\d* saved"))
    keyboard.keyboard.type("?!")
    expect(message(keyboard)).to_have_value("see you?! ")  # marks close up to the word


@needs_npm
def test_the_keys_of_the_screen_do_what_they_say(keyboard):
    press(keyboard, "h", "i", "space", "shift", "y", "o", "back", "o", ",", "space", "i")
    expect(message(keyboard)).to_have_value("Hi Yo, i")  # a capital at the beginning, as on a phone
    press(keyboard, "symbols", "4", "more", "€", "symbols", "letters")
    keyboard.locator('[data-key="shift"]').dblclick()
    press(keyboard, "a", "b", "shift", "c")
    expect(message(keyboard)).to_have_value("Hi Yo, i4€ABc")
    press(keyboard, ".", "enter")
    expect(keyboard.locator(".message").last).to_have_text("Hi Yo, i4€ABc.")
    expect(keyboard.locator("#send")).to_be_disabled()


@needs_npm
def test_emoji_have_a_page_and_one_backspace_takes_one(keyboard):
    press(keyboard, "emoji", "👍", "❤\ufe0f", "back")  # the heart with what makes it a picture
    expect(message(keyboard)).to_have_value("👍")
    keyboard.keyboard.type("ok")  # the caret has stayed in the message
    expect(message(keyboard)).to_have_value("👍ok")
    press(keyboard, "letters")
    expect(keyboard.locator('[data-key="q"]')).to_be_visible()


@needs_npm
def test_a_held_key_shows_its_letter_and_held_backspace_erases_on(keyboard):
    keyboard.keyboard.type("hello there")
    for name in ("g", "back"):
        key = keyboard.locator(f'[data-key="{name}"]')
        box = key.bounding_box()
        keyboard.mouse.move(box["x"] + 10, box["y"] + 10)
        keyboard.mouse.down()
        expect(key).to_have_class(re.compile("pressed"))
        if name == "g":
            shown = key.evaluate("key => getComputedStyle(key, '::after').content")
            assert shown == '"g"'
        else:
            expect(message(keyboard)).to_have_value("")
        keyboard.mouse.up()
        expect(key).not_to_have_class(re.compile("pressed"))


@needs_npm
def test_two_spaces_end_a_sentence_and_the_next_begins_with_a_capital(keyboard):
    press(keyboard, "h", "e", "y", "space", "space", "s")
    expect(message(keyboard)).to_have_value("Hey. S")
    expect(best(keyboard)).to_have_text("See")


@needs_npm
def test_a_slip_is_corrected_and_one_backspace_takes_that_back_for_good(keyboard):
    keyboard.keyboard.type("see you tomorow")
    expect(best(keyboard)).to_have_attribute("data-kind", "correction")
    keyboard.keyboard.type(" ")
    expect(message(keyboard)).to_have_value("see you tomorrow ")
    keyboard.keyboard.press("Backspace")
    expect(message(keyboard)).to_have_value("see you tomorow ")
    keyboard.keyboard.type("and tomorow ")
    expect(best(keyboard)).not_to_be_empty()
    expect(message(keyboard)).to_have_value("see you tomorow and tomorow ")


@needs_npm
def test_the_keys_of_the_screen_correct_and_undo_too(keyboard):
    press(keyboard, *"yhanks", "space")
    expect(message(keyboard)).to_have_value("Thanks ")
    press(keyboard, "back")
    expect(message(keyboard)).to_have_value("Yhanks ")
    press(keyboard, "back")
    expect(message(keyboard)).to_have_value("Yhanks")


@needs_npm
def test_the_word_as_typed_can_be_kept_by_a_tap(keyboard):
    keyboard.keyboard.type("for the hlep")
    expect(best(keyboard)).to_have_text("help")
    slot(keyboard, "hlep").click()
    expect(message(keyboard)).to_have_value("for the hlep ")
    keyboard.keyboard.type("for the hlep")
    expect(best(keyboard)).to_have_text("“hlep”")
    keyboard.keyboard.type(".")
    expect(message(keyboard)).to_have_value("for the hlep for the hlep.")


CORRECTED = [
    ("hwo are you", "how are you"),
    ("ho ware you", "ho are you"),
    ("see ypu ", "see you "),
    ("see yuo ", "see you "),
    ("dont be late", "don't be late"),
    ("i am, i'm ", "I am, I'm "),
    ("see Tomorow ", "see Tomorow "),
    ("TOMOROW ", "TOMOROW "),
    ("see you zorbax ", "see you zorbax "),
    ("see homes ", "see homes "),
    ("tomorow123 ", "tomorow123 "),
]


@needs_npm
@pytest.mark.parametrize(("typed", "left"), CORRECTED)
def test_autocorrect_is_certain_or_silent(keyboard, typed, left):
    keyboard.keyboard.type(typed)
    expect(message(keyboard)).to_have_value(left)


SLIPS = [
    "dont don't",
    "hwllo hello",
    "hlelo hello",
    "hllo hello",
    "hpllo hello",
    "shirt shirts",
    "hrrlo hello",
]


@needs_npm
def test_slips_cost_less_the_likelier_they_are(keyboard):
    costs = keyboard.evaluate(
        """async (pairs) => {
          const { slip } = await import("/static/autocorrect.js");
          return pairs.map(([typed, word]) => slip(typed, word));
        }""",
        [pair.split() for pair in SLIPS],
    )
    assert costs == sorted(set(costs))


def open_menu(page, how: str):
    keyboard_slot = best(page)
    if how == "hold":
        box = keyboard_slot.bounding_box()
        page.mouse.move(box["x"] + 20, box["y"] + 20)
        page.mouse.down()
    elif how == "right click":
        keyboard_slot.click(button="right")
    else:
        keyboard_slot.focus()
        page.keyboard.press("Shift+F10")
    menu = page.get_by_role("dialog", name="Suggestion")
    expect(menu).to_be_visible()
    page.mouse.up()
    return menu


@needs_npm
def test_holding_a_suggestion_shows_how_likely_it_is_and_can_block_it(keyboard):
    keyboard.keyboard.type("how are ")
    expect(best(keyboard)).to_have_text("you")
    menu = open_menu(keyboard, "hold")
    expect(menu).to_contain_text(re.compile(r"\d+ % likely here"))
    menu.get_by_role("button", name="Never suggest “you”").click()
    expect(menu).to_be_hidden()
    expect(best(keyboard)).not_to_have_text("you")
    expect(message(keyboard)).to_have_value("how are ")  # the press that opened the menu took nothing
    keyboard.keyboard.type("yo")
    expect(best(keyboard)).not_to_have_text("you")
    assert keyboard.evaluate("localStorage['kbdfl.blocked']") == '["you"]'
    keyboard.get_by_role("button", name="Suggest you again").click()
    expect(best(keyboard)).to_have_text("you")


@needs_npm
@pytest.mark.parametrize("how", ["right click", "menu key"])
def test_the_menu_opens_without_holding_and_escape_closes_it(keyboard, how):
    keyboard.keyboard.type("how are ")
    expect(best(keyboard)).to_have_text("you")
    menu = open_menu(keyboard, how)
    for name in ("Close", "Never suggest “you”"):
        keyboard.keyboard.press("Tab")  # stays inside
        expect(menu.get_by_role("button", name=name)).to_be_focused()
    keyboard.keyboard.press("Escape")
    expect(menu).to_be_hidden()
    expect(best(keyboard)).to_have_text("you")


@needs_npm
def test_a_phrase_of_ones_own_becomes_the_first_suggestion_until_it_is_forgotten(keyboard):
    for _ in range(5):
        send(keyboard, "zorbax quimble tonight")
    expect(best(keyboard)).to_have_text("Zorbax")
    best(keyboard).click()
    expect(best(keyboard)).to_have_text("quimble")
    expect(best(keyboard)).to_have_class(re.compile("personal"))
    expect(keyboard.locator("#personal li").first).to_contain_text("quimble")
    expect(keyboard.locator("#shared")).not_to_contain_text("quimble")
    expect(keyboard.locator("#own-words")).to_contain_text("zorbax")
    expect(keyboard.locator("#learned-note")).to_contain_text("5 sent messages")
    message(keyboard).fill("how are ")
    expect(best(keyboard)).to_have_text("you")  # what was learned stays where it belongs
    message(keyboard).fill("zorbax ")
    expect(best(keyboard)).to_have_text("quimble")
    keyboard.get_by_role("button", name="Forget everything").click()
    expect(best(keyboard)).not_to_have_text("quimble")
    expect(keyboard.locator("#own-words")).to_be_hidden()
    assert keyboard.evaluate("Object.keys(localStorage).filter((name) => name.startsWith('kbdfl.'))") == []


@needs_npm
def test_incognito_learns_nothing_and_says_so(keyboard):
    keyboard.get_by_role("button", name="Incognito").click()
    expect(keyboard.get_by_text("Nothing you send is learned")).to_be_visible()
    light = keyboard.locator("#strip").evaluate("(strip) => getComputedStyle(strip).backgroundColor")
    assert max(map(int, re.findall(r"\d+", light)[:3])) < 60
    for _ in range(5):
        send(keyboard, "zorbax quimble")
    message(keyboard).fill("zorbax ")
    expect(best(keyboard)).not_to_be_empty()
    expect(best(keyboard)).not_to_have_text("quimble")
    expect(keyboard.locator("#learned-note")).to_contain_text("Nothing yet")
    assert keyboard.evaluate("localStorage['kbdfl.personal']") is None


LEARN = """async ({ times, others }) => {
  const { Personal } = await import("/static/personal.js");
  const words = ["<pad>", "<unk>", "<bos>", "<eos>", "a", "b", "c"];
  const shape = { words, embed: 4, version: 3 };
  const here = { logits: Float32Array.of(-20, -20, -20, -20, 2, 1, 0), r: Float32Array.of(1, 0, 0, 0) };
  const there = { logits: here.logits, r: Float32Array.of(0, 0, 2, 0) };
  const personal = new Personal(shape);
  for (let i = 0; i < times; i++) personal.learn([{ context: here, word: "mine" }]);
  const learned = Array.from(personal.adjust(here));
  const again = new Personal(shape);
  again.restore(JSON.parse(JSON.stringify(personal.save())));
  const older = new Personal({ ...shape, version: 2 });
  older.restore(personal.save());
  const elsewhere = Array.from(personal.adjust(there));
  for (let i = 0; i < others; i++) personal.learn([{ context: there, word: "a" }]);
  return { learned, again: Array.from(again.adjust(here)), older: older.words, elsewhere,
    later: Array.from(personal.adjust(here)), row: Math.hypot(...personal.save().rows.find(([w]) => w === "mine")[1]) };
}"""


@needs_npm
def test_what_is_learned_is_kept_bounded_and_fades(keyboard):
    result = keyboard.evaluate(LEARN, {"times": 200, "others": 60})
    *vocabulary, own = result["learned"]
    assert own > max(vocabulary)
    assert vocabulary == [-20, -20, -20, -20, 2, 1, 0]  # nothing else was sent
    assert own < 12  # it has won by then; nothing drives it on
    assert result["again"] == pytest.approx(result["learned"], abs=0.01)
    assert result["older"] == []  # learned beside a model that this one is older than
    assert max(result["elsewhere"]) == 2  # in another context the shared model still decides
    assert result["later"][-1] < own - 1
    assert 0 < result["row"] < 16


@needs_npm
def test_markup_in_a_message_stays_text(keyboard):
    send(keyboard, "<img src=x onerror=alert(1)>")
    expect(keyboard.locator(".message").last).to_have_text("<img src=x onerror=alert(1)>")
    assert keyboard.locator(".message img").count() == 0


@needs_npm
def test_the_tab_key_reaches_everything_and_arrows_walk_over_the_keys(keyboard):
    keyboard.keyboard.type("how are ")
    expect(best(keyboard)).to_have_text("you")
    message(keyboard).focus()
    reached = []
    for _ in range(5):
        keyboard.keyboard.press("Tab")
        reached.append(keyboard.evaluate("document.activeElement.getAttribute('aria-label')"))
    assert reached[0] == "Send"
    assert reached[2].startswith("you, ")
    assert reached[4] == "q"
    for key in ("ArrowRight", "ArrowDown", "Enter"):
        keyboard.keyboard.press(key)
    expect(message(keyboard)).to_have_value("how are s")
    for role, name in (("group", "Keyboard"), ("group", "Suggestions"), ("log", "Messages")):
        expect(keyboard.get_by_role(role, name=name)).to_be_visible()
    assert keyboard.evaluate(
        "[...document.querySelectorAll('button')].every((b) => b.ariaLabel || b.textContent)"
    )


SIZES = """() => {
  const keys = [...document.querySelectorAll(".key")].map((key) => key.getBoundingClientRect());
  return { width: document.documentElement.scrollWidth, narrowest: Math.min(...keys.map((key) => key.width)),
    bottom: Math.max(...keys.map((key) => key.bottom)) };
}"""


@needs_npm
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 390, 768, 1280])
def test_the_page_fits_from_a_small_phone_to_a_desktop(keyboard, width, scheme):
    keyboard.set_viewport_size({"width": width, "height": 740})
    keyboard.emulate_media(color_scheme=scheme)
    try:
        sizes = keyboard.evaluate(SIZES)
        assert sizes["width"] <= width  # nothing to scroll sideways
        assert sizes["narrowest"] >= 29
        assert sizes["bottom"] <= 740  # all keys without scrolling
        paper = keyboard.evaluate("getComputedStyle(document.body).backgroundColor")
        assert (sum(map(int, re.findall(r"\d+", paper)[:3])) > 600) == (scheme == "light")
    finally:
        keyboard.set_viewport_size({"width": 1280, "height": 900})
        keyboard.emulate_media(color_scheme="light")


@needs_npm
def test_the_precision_can_be_switched_and_what_was_learned_outlives_a_reload(open_keyboard):
    page = open_keyboard("browser")
    sizes = []
    for precision in ("float32", "int4"):
        page.get_by_role("radio", name=precision).check()
        expect(page.locator("#where")).to_have_attribute("data-where", "browser")
        expect(page.get_by_role("radio", name=precision)).to_be_checked()
        message(page).fill("how are ")
        expect(best(page)).to_have_text("you")
        sizes.append(float(page.locator("#model-size").text_content().split()[0]))
    assert sizes[0] > sizes[1]
    message(page).fill("")
    for _ in range(5):
        send(page, "zorbax quimble")
    expect(best(page)).to_have_text("Zorbax")
    page.reload()
    expect(best(page)).to_have_text("Zorbax")
    expect(page.get_by_role("radio", name="int4")).to_be_checked()
    assert page.complaints == []


OVERTAKEN = """async () => {
  const { Brain } = await import("/static/brain.js");
  const brain = new Brain();
  const done = await Promise.all(["float32", "int8", "int4"].map((precision) => brain.load(precision)));
  return [done, brain.model.precision, (await brain.suggest("how are ", "")).slots[0].text];
}"""


@needs_npm
def test_the_last_choice_of_a_precision_wins(open_keyboard):
    page = open_keyboard("browser")
    assert page.evaluate(OVERTAKEN) == [[False, False, True], "int4", "you"]
    assert page.complaints == []


@needs_npm
def test_a_precision_that_cannot_be_fetched_leaves_the_model_in_place(keyboard):
    keyboard.get_by_role("radio", name="float32").click()
    note = "No float32 model: The server does not answer. int8 goes on."
    for place in ("#where-note", "#said"):
        expect(keyboard.locator(place)).to_have_text(note)
    expect(keyboard.get_by_role("radio", name="int8")).to_be_checked()
    message(keyboard).fill("how are ")
    expect(best(keyboard)).to_have_text("you")
    keyboard.asked.clear()
    keyboard.complaints.clear()  # the browser's own, of the request that failed


@needs_npm
@pytest.mark.parametrize("kept", ["{", "3", '{"rows": 1}', "null"])
def test_the_page_opens_whatever_was_kept(open_keyboard, kept):
    page = open_keyboard("browser")
    for name in ("personal", "blocked", "alone", "precision"):
        page.evaluate("([name, kept]) => (localStorage[`kbdfl.${name}`] = kept)", [name, kept])
    page.reload()
    expect(best(page)).not_to_be_empty()
    assert page.complaints == []


@needs_npm
@pytest.mark.parametrize("storage", ["throw new DOMException('denied')", "return null"])
def test_the_page_works_without_storage(browser, address, storage):
    context = browser.new_context()
    context.add_init_script(f"Object.defineProperty(window, 'localStorage', {{ get() {{ {storage}; }} }})")
    page = context.new_page()
    page.goto(address)
    expect(best(page)).not_to_be_empty()
    for _ in range(5):
        send(page, "zorbax quimble")
    expect(best(page)).to_have_text("Zorbax")
    expect(page.locator("#learned-note")).to_contain_text("until it closes")
    page.get_by_role("button", name="Forget everything").click()
    expect(best(page)).not_to_have_text("Zorbax")
    context.close()


@pytest.fixture
def served_page(app, open_keyboard, monkeypatch):
    """The page as it is where npm was not there."""
    monkeypatch.setitem(app.config, "WEB_RUNTIME", None)
    monkeypatch.setitem(app.config, "WEB_DISTANCE", None)
    page = open_keyboard("server")
    yield page
    assert page.complaints == []


def test_without_a_runtime_the_server_predicts_and_the_page_says_so(served_page):
    expect(served_page.locator("#where")).to_have_text("On the server")
    expect(served_page.get_by_text("What you type is sent to this server")).to_be_visible()
    expect(served_page.locator("#learned-note")).to_contain_text("need the model in the page")
    served_page.keyboard.type("see y")
    slot(served_page, "you").click()
    expect(message(served_page)).to_have_value("see you ")
    served_page.keyboard.type("tomorow ")
    send(served_page, "again")
    expect(served_page.locator(".message").last).to_have_text("see you tomorow again")


def test_an_answer_that_comes_late_does_not_replace_a_newer_one(served_page):
    held = []

    def hold(route):
        if route.request.post_data_json["text"] == "a":
            held.append(route)
        else:
            route.continue_()

    served_page.route("**/v1/predict", hold)
    with served_page.expect_request("**/v1/predict"):
        message(served_page).press("a")
    message(served_page).press("Backspace")
    served_page.keyboard.type("tom")
    expect(slot(served_page, "tomorrow")).to_be_visible()
    with served_page.expect_response("**/v1/predict"):
        held[0].continue_()
    expect(best(served_page)).to_have_text("tomorrow")


def test_the_page_says_when_its_server_is_gone_and_recovers(served_page):
    served_page.route("**/v1/predict", lambda route: route.abort())
    served_page.clock.install()
    for letter in "see y":
        with served_page.expect_event("requestfailed"):
            served_page.keyboard.type(letter)
    expect(served_page.locator("#where")).to_have_text("No answer")
    expect(served_page.get_by_text("The server does not answer")).to_be_visible()
    expect(best(served_page)).to_be_empty()
    again = []
    served_page.on("requestfailed", lambda request: again.append(request.url))
    with served_page.expect_event("requestfailed"):
        served_page.clock.fast_forward(2_000)
    assert len(again) == 1  # and not one for each letter
    served_page.unroute("**/v1/predict")
    served_page.clock.fast_forward(2_000)
    expect(slot(served_page, "you")).to_be_visible()
    expect(served_page.locator("#where")).to_have_text("On the server")
    served_page.complaints.clear()  # the browser's own, of the requests that failed
