"""Capitals for a model that knows none: how a lower-case word should be inserted where it is suggested."""

import re

# At the start of a message or a line, and after a full stop, exclamation or question mark; quotation marks
# and brackets that close the last sentence or open the next one may stand between.
_SENTENCE_BEGINS = re.compile(r"(?:^|[.!?…][\"'”’»)\]]*\s|\n)[\s\"'“‘«(\[¿¡]*$")


def cased(word: str, partial: str = "", before: str = "") -> str:
    """`word`, which is lower case, as it should be inserted in the place of `partial` after the text `before`.

    The user's case wins: a capital in the first typed letter ("He": "Hello"), all capitals once two letters
    were typed so ("HE": "HELLO"). Where nothing was typed a sentence begins with a capital. The pronoun I is
    always one, alone and in "I'm", "I'll" and their like.

    >>> cased("hello", "He"), cased("hello", "HE"), cased("hello", "he"), cased("hello", before="See you. ")
    ('Hello', 'HELLO', 'hello', 'Hello')
    >>> cased("i'm", "i"), cased("is", "i")
    ("I'm", 'is')
    """
    if partial.isupper() and sum(map(str.isalpha, partial)) > 1:
        return word.upper()
    capital = partial[:1].isupper() if partial else _SENTENCE_BEGINS.search(before) is not None
    if capital or word == "i" or word.startswith("i'"):
        return word[:1].upper() + word[1:]
    return word
