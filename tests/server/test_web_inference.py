"""The model in a real browser: the modules of server/static against the Python they repeat, and without a network."""

import unicodedata
from types import SimpleNamespace

import numpy as np
import pytest

from kbdfl.export.casing import cased
from kbdfl.export.precision import PRECISIONS
from kbdfl.export.predictor import Predictor, as_typed, typed
from kbdfl.model import CifgConfig, init_params
from kbdfl.rng import stream
from kbdfl.server.app import create_app
from kbdfl.server.assets import WebRuntime
from kbdfl.server.bundles import open_bundle, write_precisions
from kbdfl.server.serving import running
from kbdfl.text import Vocabulary, public_words

pytestmark = pytest.mark.browser
needs_runtime = pytest.mark.skipif(
    WebRuntime.find() is None, reason="onnxruntime-web is not installed (npm ci in server/web)"
)
WORDS = 1_000

# What the page does; each is called with one JSON value and gives one back.
SPLIT = """async (texts) => {
  const { Tokens } = await import("/static/tokens.js");
  const tokens = new Tokens(await (await fetch("/v1/models/latest/tokenizer.json")).json());
  return texts.map((text) => [tokens.split(text), tokens.context(tokens.split(text)),
    tokens.typed(text).committed, tokens.typed(text).partial, tokens.asTyped(text)]);
}"""
CASE = """async (rows) => {
  const { cased } = await import("/static/casing.js");
  return rows.map(([word, partial, before]) => cased(word, partial, before));
}"""
OPEN = """async (precision) => {
  const [{ openModel }, { Suggester }] = await Promise.all([import("/static/model.js"), import("/static/suggest.js")]);
  window.model = await openModel(precision);
  window.blocked = new Set();
  window.suggester = new Suggester(model, { blocked });
  const { where, reason, bytes, rounds, version, embed, words } = model;
  return { where, reason, bytes, rounds, version, embed, words: words.length, precision: model.precision };
}"""
SUGGEST = """async (texts) => {
  const said = [];
  for (const text of texts) said.push(await suggester.suggest(text));
  return said;
}"""
FAILURE = """async (precision) => {
  const { openModel } = await import("/static/model.js");
  return openModel(precision).then(() => "opened", (error) => error.message);
}"""


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    """Every precision of a random model whose words depend on what was typed, as a server holds them."""
    folder = tmp_path_factory.mktemp("web") / "model"
    words, frequencies = public_words(WORDS - 4)
    vocabulary = Vocabulary.of_words(words, "a test")
    config = CifgConfig(vocab=len(vocabulary), embed=64, hidden=128)
    params = init_params(config, seed=1)
    views = config.spec.views(params)
    views["emb"][:] = 0.5 * stream(1, "web").standard_normal(views["emb"].shape, np.float32)
    views["bias"][4:] = 0.3 * np.log(frequencies)
    facts = {"rounds": 7, "version": 8}
    write_precisions(folder, params=params, config=config, vocabulary=vocabulary, facts=facts)
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


@pytest.fixture
def page(browser, address):
    """An empty page under the policy of the keyboard's; nothing may be written to its console."""
    complaints = []
    context = browser.new_context()
    page = context.new_page()
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.route(
        address, lambda route: route.fulfill(response=route.fetch(), body="<!doctype html><title>-</title>")
    )
    page.goto(address)
    yield page
    context.close()
    assert complaints == []


def texts_to_split() -> list[str]:
    """Hand-picked ones, and random strings over letters and marks of many scripts."""
    picked = """
    |hello|Don’t|DON'T stop|rock 'n' roll|'tis|dogs'|o'clock|a''b|ʼn|x'|x' y|it’s' ok|good-bye|e-mail|snake_case
    <email>|mail <email> or <url>|<#>|<EMAIL>|＜email＞|<email|email>|a<#>b|<unk>|<bos> hi <eos>|#tag|@you|c++|3.14
    1,000|2nd|４２|½|①|x²|ﬁne|Ωm|ΑΣ ΟΔΟΣ|İstanbul|STRASSE ß|ǅ|naïve|nai\u0308ve|e\u0301|\u0301e|a\u0301\u0327b|ञि|한국어
    👍|👍🏽 ok|❤️|❤️love|\U0001f468\u200d\U0001f469\u200d\U0001f467|🇬🇧 uk|1️⃣|你好 world|ﷺ|日本語テキスト|ｶﾞ
    |שָׁלוֹם|مَرْحَبًا|ไทย|𝐇ello|𝟙𝟚|𐐀𐐁
    a\u200db|a\u200bb|soft\u00adhyphen
    tab\there|line\nbreak|nul\x00|nbsp\u00a0x|\ufeffbom|…|«quoted»|“Hi”|OK.Go|see you |see yo|i'm|I’M |wh
    """
    table = [text.strip(" ") for line in picked.strip().splitlines() for text in line.strip().split("|")]
    table += [f"{text} " for text in table] + ["", " "]
    random = stream(1, "texts")
    # Assigned since long: the browser and the tokenizer need not have the same edition of Unicode.
    blocks = (
        (0x20, 0x17F),
        (0x300, 0x36F),
        (0x370, 0x5FF),
        (0x900, 0x97F),
        (0x1E00, 0x20CF),
        (0x3040, 0x30FF),
    )
    blocks += ((0xFB00, 0xFB4F), (0xFF00, 0xFFEF), (0x1D400, 0x1D7FF), (0x1F300, 0x1F64F))
    letters = [chr(code) for first, last in blocks for code in range(first, last + 1)]
    letters = [letter for letter in letters if unicodedata.category(letter) not in ("Cn", "Cs")]
    letters += ["'", "\u2019", " ", "e", "A"] * 40
    for _ in range(300):
        table.append("".join(random.choice(letters, size=random.integers(1, 12))))
    return table


def test_the_browser_splits_words_as_python_does(page, bundle):
    texts = texts_to_split()
    vocabulary = bundle.predictor.bundle.vocabulary
    here = []
    for text in texts:
        words = vocabulary.split(text)
        here.append(
            [words, vocabulary.encode(text)[:-1], *typed(vocabulary, text), as_typed(vocabulary, text)]
        )
    there = page.evaluate(SPLIT, texts)
    assert len(texts) > 400
    assert [row for row in zip(texts, there, here, strict=True) if row[1] != row[2]] == []


def test_the_browser_writes_capitals_as_python_does(page):
    befores = [
        "",
        " ",
        "Hi",
        "Hi ",
        "Hi. ",
        "Hi.",
        "What?! ",
        "He said (ok.) ",
        "one\n",
        "…so ",
        "“",
        "end.” ",
        "1. ",
        "¿",
    ]
    rows = [
        [word, partial, before]
        for word in ("i", "i'm", "is", "hello", "ökonom", "ßa", "𐐨a")
        for partial in ("", "h", "H", "HE", "He", "hE", "I'", "Ö", "1A", "A1", "ΑΒ")
        for before in befores
    ]
    assert page.evaluate(CASE, rows) == [cased(*row) for row in rows]


def keys_of(bundle) -> list[str]:
    """50 contexts, each between words and inside one, with slips of the finger and words that nobody knows."""
    random = stream(2, "contexts")
    words = bundle.predictor.bundle.vocabulary.tokens[4:]
    texts = []
    for _ in range(50):
        context = " ".join(random.choice(words, size=random.integers(0, 9)).tolist())
        word = str(random.choice(words))
        texts += [f"{context} {end}" for end in ("", word[:1], word[:2], word[:3].upper(), f"{word}q")]
    return [*texts, "zzgxq", "Qzzx", "a " * 200, "b " * 200 + "th", "I'", "don’", "👍", "<email> yo"]


@needs_runtime
@pytest.mark.parametrize("precision", PRECISIONS)
def test_the_browser_suggests_what_the_predictor_does(page, bundle, precision):
    folder = bundle.predictor.bundle.folder
    predictor = Predictor(folder if precision == "float32" else folder / precision)
    about = page.evaluate(OPEN, precision)
    assert about == {
        "where": "browser",
        "reason": None,
        "precision": precision,
        "bytes": len(predictor.bundle.model),
        "rounds": 7,
        "version": 8,
        "embed": 64,
        "words": WORDS,
    }
    texts = keys_of(bundle)
    there = page.evaluate(SUGGEST, texts)
    here = [predictor.suggest(text) for text in texts]
    assert len({s["word"] for said in there for s in said}) > 100  # contexts matter
    differing = []
    # A rounding step of an activation may fall the other way on another machine, and moves what comes of it.
    tolerance = 1e-4 if precision == "float32" else 0.1
    for text, said, expected in zip(texts, there, here, strict=True):
        assert [s["probability"] for s in said] == pytest.approx(
            [s.probability for s in expected], rel=tolerance
        )
        if [s["word"] for s in said] != [s.word for s in expected]:
            differing.append((text, said, expected))
    assert len(differing) <= (0 if precision == "float32" else len(texts) // 50), differing
    assert page.evaluate("suggester.latencies.count") == len(texts)
    assert page.evaluate("suggester.latencies.p50 <= suggester.latencies.p99")


@needs_runtime
def test_the_browser_suggests_with_the_network_cut(page):
    page.evaluate(OPEN, "int8")
    asked = []
    page.on("request", lambda request: asked.append(request.url))
    page.context.set_offline(True)
    page.context.route("**/*", lambda route: route.abort())
    first, second, third = page.evaluate(SUGGEST, ["", "see ", "see yo"])
    assert len(first) == len(second) == len(third) == 3
    assert first != second != third
    assert all(s["word"].startswith("yo") for s in third)
    assert asked == []


@needs_runtime
def test_the_browser_never_suggests_a_blocked_word(page, bundle):
    predictor = Predictor(bundle.predictor.bundle)
    page.evaluate(OPEN, "float32")
    texts = ["", "see ", "th", "see yo", "zzgx", "Zzgx"]
    blocked = {"zzgx", *(s.word.lower() for text in texts for s in predictor.suggest(text, 2))}
    predictor.block(*blocked)
    page.evaluate("(words) => words.forEach((word) => blocked.add(word))", sorted(blocked))
    there = [[s["word"] for s in said] for said in page.evaluate(SUGGEST, texts)]
    assert there == [[s.word for s in predictor.suggest(text)] for text in texts]
    assert not blocked & {word.lower() for said in there for word in said}


@needs_runtime
def test_words_of_ones_own_are_suggested_in_the_browser(page):
    page.evaluate(OPEN, "int8")
    (shared,) = page.evaluate(SUGGEST, ["see "])
    page.evaluate("""() => {
      const raised = ({ logits }) => Float32Array.from([...logits, Math.max(...logits) + 9]);
      suggester.personal = { words: ["kbdflish"], adjust: raised };
    }""")
    own, unknown = page.evaluate(SUGGEST, ["see ", "see kbdf"])
    assert own[0]["word"] == "kbdflish"
    assert own[0]["personal"] is True
    assert 0.9 < own[0]["probability"] < 1
    assert [(s["word"], s.get("personal")) for s in own[1:]] == [(s["word"], None) for s in shared[:2]]
    assert unknown[0]["word"] == "kbdflish"  # and "kbdf" is not offered beside it as unknown


def test_without_the_runtime_the_browser_asks_the_server_and_says_so(page, app, bundle, monkeypatch):
    monkeypatch.setitem(app.config, "WEB_RUNTIME", None)
    about = page.evaluate(OPEN, "int8")
    assert (about["where"], about["precision"], about["words"]) == ("server", "float32", WORDS)
    assert "not installed" in about["reason"]
    (said,) = page.evaluate(SUGGEST, ["see yo"])
    expected = bundle.predictor.suggest("see yo", k=4)
    assert [s["word"] for s in said] == [s.word for s in expected[:3]]
    page.evaluate("(word) => blocked.add(word)", said[0]["word"])
    (said,) = page.evaluate(SUGGEST, ["see yo"])
    assert [s["word"] for s in said] == [s.word for s in expected[1:]]


@needs_runtime
def test_the_browser_refuses_a_model_that_was_altered_on_the_way(page):
    def altered(route):
        response = route.fetch()
        body = response.body()
        route.fulfill(response=response, body=body[:-1] + bytes([body[-1] ^ 1]))

    page.route("**/int8/model.onnx", altered)
    assert page.evaluate(FAILURE, "int8") == "the int8 model does not match its manifest"
    page.unroute("**/int8/model.onnx")
    page.route("**/int8/model.onnx", altered, times=1)  # a bundle that was replaced in between
    assert page.evaluate(FAILURE, "int8") == "opened"


@needs_runtime
def test_the_browser_is_told_which_precisions_there_are(page):
    said = page.evaluate(FAILURE, "int2")
    assert said == f"the server has no int2 model, only {', '.join(PRECISIONS)}"
