"""E-mail addresses, web addresses and long numbers, replaced by their kind: `<EMAIL>`, `<URL>`, `<#>`.

Stricter than the chat package's rules (`kbdfl.device_sim.typing.chat`), on which published figures rest: here a
doubtful word is masked. The marks are those that `kbdfl.text` counts as one word which no vocabulary knows.

A number is masked when it has five digits in a row, three groups of two or more (12-34-56), or seven digits with
spaces, dots, dashes, slashes or brackets between them; that takes telephone, account and card numbers, and dates as
well. Every repetition is bounded, so that no text takes longer than its length is worth.
"""

import re

_EMAIL = re.compile(r"[^\s@＠﹫<>()\[\],;:\"]{1,64}[@＠﹫][\w-]{1,63}(?:[.．。][\w-]{1,63})+")
# Endings that are no common words: "see.you" and "what.is" are typed by those who forget a space.
_ENDINGS = (
    "com|org|net|edu|gov|mil|int|info|biz|io|app|dev|tv|me|ly|be|gg|ai|xyz|online|site|shop|club|blog|page|link|goo"
    "|eu|uk|de|fr|es|nl|ch|pl|cz|pt|se|dk|fi|gr|hu|ro|ie|ru|ua|tr|il|ir|sa|ae|jp|cn|kr|tw|hk|sg|vn|th|ph|br|mx|ar|cl"
    "|ca|au|nz|za|ng|ke|eg"
)
_URL = re.compile(
    r"[a-z][a-z0-9+.-]{0,20}://\S+|\b(?:mailto|tel|sms|geo|magnet):\S+|\bwww[.．]\S+"
    rf"|(?<![\w-])[\w-]{{1,63}}(?:[.．][\w-]{{1,63}}){{0,8}}[.．](?:{_ENDINGS})\b(?:[/:?#]\S*)?"
    r"|(?<![\w-])[\w-]{1,63}(?:[.．][\w-]{1,63}){0,8}[.．][a-z]{2,24}/\S*",
    re.IGNORECASE,
)
_BETWEEN = r"[ \t\u00a0\u202f.()/\-‐-―·]{0,3}"
_NUMBER = re.compile(rf"\+?\(?\d(?:{_BETWEEN}\d){{6,}}|\d{{5,}}|\+?\(?\d{{2,4}}\)?(?:[ .\-]\d{{2,4}}){{2,}}")
_MAY_BE_ADDRESS = re.compile(r"[.．:]")

_WORTH_A_LOOK = re.compile(r"[\d.．:@＠﹫]")

MARKS = {"email": "<EMAIL>", "url": "<URL>", "number": "<#>"}


def mask(text: str) -> str:
    """`text` without addresses and long numbers; one of `MARKS` stands for each. Masking twice is masking once."""
    while _WORTH_A_LOOK.search(text):
        before = text
        if "@" in text or "＠" in text or "﹫" in text:
            text = _EMAIL.sub(MARKS["email"], text)
        if _MAY_BE_ADDRESS.search(text):
            text = _URL.sub(MARKS["url"], text)
        text = _NUMBER.sub(MARKS["number"], text)
        if text == before:  # else once more: an address may have ended where a number began
            break
    return text
