"""Mailboxes: which mails are one's own, and which of their words."""

from email.message import EmailMessage

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kbdfl.device_sim.typing.imports import mail
from kbdfl.device_sim.typing.imports.items import NO_TEXT, OTHERS, Malformed, Note, Options, Skipped
from kbdfl.device_sim.typing.imports.mail import read_mail
from kbdfl.device_sim.typing.imports.opened import Opened
from kbdfl.device_sim.typing.imports.quoting import own_words, text_of_html, unwrapped
from kbdfl.device_sim.typing.records import Message
from kbdfl.errors import ConfigError

SEPARATOR = "From x Wed Mar 13 21:04:05 2024\n"


def letter(text, **headers):
    headers = {"From": "ann@example.org", "Date": "Wed, 13 Mar 2024 21:04:05 +0000"} | headers
    lines = "".join(f"{name.replace('_', '-')}: {value}\n" for name, value in headers.items())
    return f"{SEPARATOR}{lines}\n{text}\n\n"


@pytest.fixture
def read(tmp_path):
    def items(text, *me, name="mails"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, "utf-8", newline="")
        return list(read_mail(Opened(path), Options(me)))

    return items


def test_ones_own_go_by_address_by_label_or_by_folder(read):
    text = letter("mine", X_Gmail_Labels="Sent,Important") + letter("theirs", From="bob@example.org")
    mine = Message("me", "mine", 1_710_363_845.0, "mail")
    assert read(text, "ANN@example.org") == [mine, OTHERS]
    assert read(text) == [mine, OTHERS]  # by the label
    for name in ("Sent", "sent.mbox", "Sent Messages.mbox/mbox", "Gesendet"):
        assert [item.text for item in read(text, name=name)] == ["mine", "theirs"]
    assert read(letter("mine", X_Gmail_Labels="=?UTF-8?Q?Envoy=C3=A9s?="))[0] == mine
    assert read(letter("mine", X_Gmail_Labels="Sent,Trash")) == [Skipped("a draft, or thrown away")]


def test_a_mailbox_that_does_not_say_is_refused(read):
    with pytest.raises(ConfigError, match="--me must be your address"):
        read(letter("whose"))


def test_a_line_that_begins_with_from_is_no_mail_of_its_own(read):
    text = letter("See below.\n\nFrom here it is not far.\n\n>From there neither.") + letter("next")
    assert [item.text for item in read(text, "ann@example.org")] == [
        "See below.\n\nFrom here it is not far.\n\nFrom there neither.",
        "next",
    ]


@given(
    st.text(st.characters(codec="utf-8", categories=["L", "Zs"]), max_size=80),
    st.sampled_from(["7bit", "base64", "quoted-printable"]),
)
@settings(max_examples=60, deadline=None)
def test_any_encoding_of_a_mail_gives_its_text(tmp_path_factory, text, encoding):
    text = " ".join(text.split())
    written = EmailMessage()
    written["From"], written["To"] = "Ann Löw <ann@example.org>", "bob@example.org"
    written.set_content(text + "\n", charset="utf-8", cte=None if encoding == "7bit" else encoding)
    written.add_attachment(b"\x00" * 999, maintype="image", subtype="png", filename="a.png")
    path = tmp_path_factory.mktemp("mail") / "mails"
    path.write_bytes(SEPARATOR.encode() + written.as_bytes() + b"\n")
    (item,) = read_mail(Opened(path), Options(("ann@example.org",)))
    assert getattr(item, "text", "") == text


def test_windows_line_ends_and_broken_encodings_are_read(read):
    text = letter("one\ntwo", Content_Type="text/plain; charset=nothing-known").replace("\n", "\r\n")
    assert read(text, "ann@example.org")[0].text == "one\ntwo"
    text = letter("!!!", Content_Transfer_Encoding="base64")
    for charset in ("nothing", "u\x00tf-8", "ütf-8", ""):
        coded = {
            "From": f"=?{charset}?q?=C3?= <ann@example.org>",
            "Content_Type": f'text/plain; charset="{charset}"',
        }
        text += letter("a", **coded)
    assert [getattr(item, "text", item) for item in read(text, "ann@example.org")] == [NO_TEXT, *"aaaa"]


def test_a_long_mail_is_read_from_its_beginning_and_noted(read, monkeypatch):
    monkeypatch.setattr(mail, "MOST_BYTES", 2000)
    items = read(letter("short\n\n-- \n" + "x" * 70 + "\n" * 3000) + letter("next"), "ann@example.org")
    assert [item.text for item in items[:2]] == ["short", "next"]
    assert isinstance(items[2], Note)


def test_a_mail_without_a_sender_is_named_by_its_line(read):
    assert read(letter("a") + f"{SEPARATOR}Subject: s\n\nb\n", "ann@example.org")[1] == Malformed(
        7, "a mail without a sender"
    )


@pytest.mark.parametrize(
    "quote",
    [
        "\n\nOn Tue, 12 Mar 2024 at 20:00, Bob <bob@example.org> wrote:\n> old\n>> older\n",
        "\n\nOn Tue, 12 Mar 2024 at 20:00, Bob\n<bob@example.org> wrote:\n\n> old\n",
        "\n\nAm 12.03.2024 um 20:00 schrieb Bob:\n> old\n",
        "\n\nLe mar. 12 mars 2024 à 20:00, Bob <bob@example.org> a écrit :\n> old\n",
        "\n\nOn Tue, Bob wrote:\n\nold without marks\n",
        "\n-- \nAnn Lee\n+1 555 0100\n",
        "\n\n-----Original Message-----\nFrom: Bob\n\nold\n",
        "\n\n---------- Forwarded message ---------\nold\n",
        "\n________________________________\nFrom: Bob\nold\n",
        "\n\nFrom: Bob\nSent: Tuesday\nTo: Ann\n\nold\n",
        "\n\nVon: Bob\nGesendet: Dienstag\n\nold\n",
    ],
)
def test_what_is_quoted_or_signed_is_not_ones_own(quote):
    assert own_words("Hello Bob,\nfine by me." + quote) == "Hello Bob,\nfine by me."


def test_answers_between_quoted_lines_are_kept():
    assert own_words("On Tue, Bob wrote:\n> where?\nhere\n> when?\nnow") == "here\nnow"


def test_soft_line_breaks_are_taken_out():
    assert (
        unwrapped("one \ntwo\nthree\n> quoted \n from\n-- \nAnn")
        == "one two\nthree\n> quoted \nfrom\n-- \nAnn"
    )


def test_html_gives_its_text_without_quotes_and_scripts():
    page = (
        "<html><head><style>p {}</style></head><body><p>Fine &amp;\n good</p><div>see <b>you</b></div>"
        "<script>x()</script><blockquote>old</blockquote><div class='gmail_quote'>old <div>x</div> old</div></body>"
    )
    assert text_of_html(page) == "Fine & good\nsee you"
    assert text_of_html("kept<![oops <p>").startswith("kept")
