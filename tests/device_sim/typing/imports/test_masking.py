"""Masking: whatever is typed, nothing that looks like an address or a long number survives."""

import re

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from kbdfl.device_sim.typing.imports.masking import MARKS, mask
from kbdfl.text import Vocabulary

# What a reader takes for such, in rules that are not the module's own.
LOOKS_LIKE = {
    "email": re.compile(r"[A-Za-z0-9._%+-]+@[A-Za-z0-9-]+\.[A-Za-z0-9-]+"),
    "url": re.compile(
        r"(?:https?|ftp)://[^\s<]|\bwww\.[a-z0-9]|\b[a-z0-9-]+\.(?:com|org|net)\b", re.IGNORECASE
    ),
    "digits": re.compile(r"\d{5,}"),
    "telephone": re.compile(r"\d(?:[ .()/-]{0,2}\d){6,}"),
}
PIECES = st.sampled_from(
    ["ann", "bob", "@", ".", "example", "com", "org", "https://", "www.", "/", "?", " ", "\n", "+", "(", ")", "-", "<",
     ">", "1", "22", "333", "0155", "5550100", "١٢", "é", "_", ":", ",", "#", "\u00a0", "x@y.z", "a.com"]
)  # fmt: skip
TYPED = st.one_of(st.lists(PIECES, max_size=30).map("".join), st.text(max_size=60))


@given(TYPED)
@settings(max_examples=500, deadline=None)
@example("a@b.c@d.e")
@example("1234www.example.com5678")
@example("0 1 5 5 5 0 1")
def test_nothing_that_looks_like_an_address_or_a_long_number_survives(text):
    masked = mask(text)
    left = {kind: found[0] for kind, rule in LOOKS_LIKE.items() if (found := rule.search(masked))}
    assert left == {}


@given(TYPED)
@settings(max_examples=150, deadline=None)
def test_masking_twice_is_masking_once(text):
    once = mask(text)
    assert mask(once) == once


@given(st.text(st.characters(categories=["L", "Zs", "Po"], exclude_characters=".@:·．。＠﹫"), max_size=60))
@settings(deadline=None)
def test_text_without_digits_dots_and_such_is_left_alone(text):
    assert mask(text) == text


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("write to jo.b+x@mail.example.co.uk now", "write to <EMAIL> now"),
        ("an＠example．com", "<EMAIL>"),
        ("größe@bücher.example", "<EMAIL>"),
        ("see https://example.org/a?b=c ok", "see <URL> ok"),
        ("see HTTP://EXAMPLE.ORG", "see <URL>"),
        ("it is on Example.com/page, or example.de", "it is on <URL> or <URL>"),
        ("my.shop/basket", "<URL>"),
        ("tel:+15550100", "<URL>"),
        ("call 0123456789", "call <#>"),
        ("call +1 (555) 010-9999 today", "call <#> today"),
        ("call 555-0100", "call <#>"),
        ("code 12-34-56", "code <#>"),
        ("card 4000 0000 0000 0002", "card <#>"),
        ("born 12.03.1990", "born <#>"),
        ("in 2018 at 10.30 for 25.50", "in 2018 at 10.30 for 25.50"),
        ("wait... what.is this", "wait... what.is this"),
        ("see you at 5:30, ok?", "see you at 5:30, ok?"),
    ],
)
def test_what_is_masked_and_what_is_not(text, masked):
    assert mask(text) == masked


def test_a_mark_is_one_word_that_no_vocabulary_holds():
    vocabulary = Vocabulary.of_words([], "")
    assert [len(vocabulary.split(mark)) for mark in MARKS.values()] == [1, 1, 1]


@pytest.mark.parametrize(
    "text", ["a" * 200_000 + "@", "a." * 100_000, "1 " * 3 + "(" * 200_000, "a-" * 100_000 + ".x"]
)
def test_no_text_takes_longer_than_its_length_is_worth(text):
    mask(text)
