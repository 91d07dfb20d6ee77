"""WhatsApp chats: both phones' styles, what WhatsApp wrote itself, and who one is."""

from datetime import UTC

import pytest

from kbdfl.device_sim.typing.imports.items import MEDIA, OTHERS, SYSTEM, Malformed, Note, Options, Skipped
from kbdfl.device_sim.typing.imports.opened import Opened
from kbdfl.device_sim.typing.imports.whatsapp import read_whatsapp
from kbdfl.device_sim.typing.records import Message
from kbdfl.errors import ConfigError

LRM = "\u200e"
EVENING = 1_710_363_840.0  # 13 March 2024, 21:04


@pytest.fixture
def read(tmp_path):
    def items(text, *me, dates="auto"):
        path = tmp_path / "chat.txt"
        path.write_text(text, "utf-8")
        return list(read_whatsapp(Opened(path), Options(me or ("Ann",), dates=dates, zone=UTC)))

    return items


@pytest.mark.parametrize(
    "start",
    [
        "[13/03/2024, 21:04:00] ", "[13.03.24, 21:04:00] ", "[2024-03-13, 9:04:00 PM] ", "[3/13/24, 9:04:00\u202fPM] ",
        "13/03/2024, 21:04 - ", "13.03.24, 21:04 - ", "3/13/24, 9:04 PM - ", "13/3/24 9:04 p. m. - ",
        "13-03-2024 21:04 - ", "2024/03/13 21:04 - ", "13/03/2024 às 21:04 - ", "[13.3.2024 klo 21.04.00] ",
        f"{LRM}[13/03/2024, 21:04:00] ", "\ufeff13/03/2024, 21:04 – ",
    ],
)  # fmt: skip
def test_every_phones_style_is_the_same_message(start, read):
    assert read(f"{start}Ann: see you\nsoon\n") == [Message("me", "see you\nsoon", EVENING, "chat")]


IOS, ANDROID = "[13/03/2024, 21:04:00] ", "13/03/2024, 21:04 - "


@pytest.mark.parametrize(
    ("line", "item"),
    [
        (f"{ANDROID}Ann created group", SYSTEM),
        (f"{ANDROID}Ann changed the subject to: something", OTHERS),
        (f"{IOS}Ann: {LRM}Missed voice call", SYSTEM),
        (f"{IOS}Ann: {LRM}<attached: 00001-PHOTO.jpg>", SYSTEM),
        (f"{ANDROID}Ann: <Medien ausgeschlossen>", MEDIA),
        (f"{ANDROID}Ann: IMG-20240313-WA0001.jpg (Datei angehängt)", MEDIA),
        (f"{ANDROID}Ann: Du hast diese Nachricht gelöscht", Skipped("deleted, or a missed call")),
        (f"{ANDROID}Ann: null", Skipped("deleted, or a missed call")),
        (f"{ANDROID}Ann: ", Skipped("no text")),
        (f"{ANDROID}Ann: POLL:\nwhere?\nOPTION: here", MEDIA),
        (f"{ANDROID}Annie: hello", OTHERS),
        ("30/02/2024, 21:04 - Ann: hello", Malformed(1, "no such day or hour")),
    ],
)
def test_what_is_not_typed_by_oneself_is_left_and_says_why(line, item, read):
    assert read(line + "\n", dates="dmy") == [item]


def test_a_caption_a_mention_and_an_edited_message_keep_their_words(read):
    text = (
        f"{ANDROID}Ann: IMG-1.jpg (file attached)\nat the lake\n"
        f"{IOS}Ann: by the sea {LRM}<attached: 1.jpg>\n"
        f"{ANDROID}Ann: see you then <This message was edited>\n"
    )
    assert [item.text for item in read(text, dates="dmy")] == ["at the lake", "by the sea", "see you then"]


def test_names_may_be_several_and_of_any_case(read):
    text = f"{ANDROID}Ann: a\n{ANDROID}~\u202fAnn Lee: b\n{ANDROID}Bob: c\n"
    assert [getattr(item, "text", item) for item in read(text, "ANN", "ann lee", dates="dmy")] == [
        "a",
        "b",
        OTHERS,
    ]


def test_without_a_name_the_senders_are_named_and_nothing_is_kept(tmp_path):
    path = tmp_path / "chat.txt"
    path.write_text(f"{ANDROID}Ann: a secret\n{ANDROID}Bob: b\n")
    with pytest.raises(
        ConfigError, match="does not say who you are: --me must name you, one of Ann, Bob"
    ) as error:
        list(read_whatsapp(Opened(path), Options()))
    assert "secret" not in str(error.value)


def test_dates_in_doubt_are_one_note_and_an_option_decides(read):
    text = "1/2/24, 10:00 - Ann: a\n2/3/24, 10:00 - Ann: b\n"
    note, first, _ = read(text)
    assert isinstance(note, Note)
    assert "--dates mdy" in note.text
    by_day, by_month = read(text, dates="dmy")[0], read(text, dates="mdy")[0]
    assert first == by_day
    assert by_day.time - by_month.time == 30 * 86_400  # 1 February and 2 January


def test_lines_before_the_first_message_are_named(read):
    assert read(f"who\n\nwhat\n{ANDROID}Ann: a\n", dates="dmy")[:2] == [
        Malformed(1, "before the first message"),
        Malformed(3, "before the first message"),
    ]
