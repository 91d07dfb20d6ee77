"""Capitals where a phone would put them."""

import pytest

from kbdfl.export.casing import cased


@pytest.mark.parametrize(
    ("word", "partial", "shown"),
    [
        ("hello", "he", "hello"),
        ("hello", "He", "Hello"),
        ("hello", "HE", "HELLO"),
        ("hello", "HeL", "Hello"),
        ("hello", "H", "Hello"),
        ("hello", "hE", "hello"),
        ("i", "i", "I"),
        ("i'm", "i", "I'm"),
        ("i'm", "I", "I'm"),
        ("i'm", "I'", "I'm"),
        ("i'm", "I'M", "I'M"),
        ("is", "i", "is"),
        ("is", "I", "Is"),
        ("don't", "DON'", "DON'T"),
        ("été", "É", "Été"),
        ("99", "9", "99"),
    ],
)
def test_the_case_that_is_typed_is_kept_and_i_is_a_capital(word, partial, shown):
    assert cased(word, partial, "see ") == shown
    assert cased(word, partial, "") == shown


@pytest.mark.parametrize(
    "before", ["", " ", "See you. ", "really?  ", "no!\n", "well\n", "“", "He said “no.” ", "(ok.) ", "so… ("]
)
def test_a_sentence_begins_with_a_capital(before):
    assert cased("how", before=before) == "How"


@pytest.mark.parametrize("before", ["see ", "see, ", "3.", "www.", "a: ", "well - ", "ok) ", "😀 "])
def test_elsewhere_only_the_pronoun_has_one(before):
    assert cased("how", before=before) == "how"
    assert cased("i", before=before) == "I"
    assert cased("i'll", before=before) == "I'll"
