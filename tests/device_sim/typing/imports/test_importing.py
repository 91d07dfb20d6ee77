"""Imports of every format: what is kept, what is counted, and what is named."""

import importlib.util
import json
from datetime import UTC
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from kbdfl.device_sim.typing.imports.detect import FORMATS
from kbdfl.device_sim.typing.imports.importing import NAMED_LINES, import_typing
from kbdfl.device_sim.typing.imports.items import Options
from kbdfl.device_sim.typing.records import read_messages
from kbdfl.device_sim.typing.sources import open_source
from kbdfl.errors import ConfigError, DataError
from kbdfl.text import Vocabulary

SPEC = importlib.util.spec_from_file_location("samples", Path(__file__).with_name("samples.py"))
samples = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(samples)

# format -> texts kept, lines that are malformed, whole records that are skipped
EXPECTED = {
    "jsonl": (["see you soon", "no", "last \U0001f600 one", "nobody's"], [2, 4, 6], {"no text": 1}),
    "csv": (["see you, soon", "no", "two\nlines", "last one"], [6, 7, 8], {"no text": 1}),
    "leaf": (
        ["see you soon", "last one", "so it is", "no way", "to be or"],
        [18, 85],
        {"overlaps the window before it": 2},
    ),
    "sms": (
        ["see you \U0001f600\nsoon", "look at <this>", "last one"],
        [7, 8, 9],
        {"received": 1, "a draft": 1},
    ),
    "whatsapp": (
        ["see you soon\nand bring the map\n\nit rains", "mail me at <EMAIL>", "14:30 at the door: fine?"],
        [8],
        {"system line": 1, "someone else's": 2},
    ),
    "telegram": (
        ["see you soon", "read <URL> first", "buy milk"],
        [60, 68, 94],
        {"system line": 1, "someone else's": 1, "media without words": 1, "forwarded": 1},
    ),
    "mbox": (
        ["See you at the café.\nFrom here it is not far.", "It rains, bring a coat"],
        [23],
        {"someone else's": 1},
    ),
}


@pytest.fixture
def exports(tmp_path):
    return {format: (path, me) for format, path, me in samples.write_all(tmp_path)}


@pytest.fixture
def run(tmp_path):
    """Import a path and give the summary and the messages."""

    def imported(path, me=(), *, format="auto", masked=True, strict=False, **options):
        out = tmp_path / "imported.jsonl"
        options = Options(tuple(me), **{"zone": UTC, **options})
        summary = import_typing(path, out, format=format, options=options, masked=masked, strict=strict)
        return summary, list(read_messages(out))

    return imported


@pytest.mark.parametrize("format", EXPECTED)
def test_a_format_is_found_read_and_its_broken_records_are_named(format, exports, run):
    path, me = exports[format]
    texts, lines, skipped = EXPECTED[format]
    summary, messages = run(path, me)
    assert summary.format == format
    assert [message.text for message in messages] == texts
    assert [each["line"] for each in summary.malformed_lines] == lines
    assert summary.malformed == len(lines)
    assert summary.skipped == skipped
    assert summary.messages == len(texts)
    assert summary.lines_not_utf8 == 0


@pytest.mark.parametrize("format", EXPECTED)
def test_the_format_that_is_asked_for_gives_the_same(format, exports, run):
    path, me = exports[format]
    assert run(path, me, format=format)[1] == run(path, me)[1]


@pytest.mark.parametrize("format", EXPECTED)
def test_strict_ends_at_the_first_malformed_record_and_writes_nothing(format, exports, run, tmp_path):
    path, me = exports[format]
    with pytest.raises(DataError, match=rf"line {EXPECTED[format][1][0]}: "):
        run(path, me, strict=True)
    assert not (tmp_path / "imported.jsonl").exists()
    assert not list(tmp_path.glob("*.part"))


@pytest.mark.parametrize("format", EXPECTED)
def test_nothing_but_messages_holds_a_word_of_the_file(format, exports, run):
    path, me = exports[format]
    said = json.dumps([*run(path, me)[0].malformed_lines, *run(path, me)[0].skipped])
    for word in ("soon", "broken", "never", "noon", "Ann", "bob"):
        assert word not in said


@pytest.mark.parametrize("format", EXPECTED)
def test_a_cut_file_keeps_what_came_before(format, exports, run):
    path, me = exports[format]
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * 0.8)])
    summary, messages = run(path, me)
    assert summary.format == format
    assert messages[0].text == EXPECTED[format][0][0]
    assert len(messages) <= len(EXPECTED[format][0])


@pytest.mark.parametrize("format", EXPECTED)
@pytest.mark.parametrize("harm", range(6))
def test_bytes_that_are_overwritten_never_end_in_another_error(format, harm, exports, run):
    path, me = exports[format]
    content = bytearray(path.read_bytes())
    for place in range(97 + harm, len(content), 211 - 7 * harm):
        content[place] = (b'"', b"<", b"\n", b"\xff", b"\x00", b"{")[harm][0]
    path.write_bytes(content)
    said = []
    try:
        summary, messages = run(path, me, format=format)
        said = [summary.messages == len(messages) > 0]
    except (DataError, ConfigError) as error:
        said = ["\n" not in str(error)]
    assert said == [True]


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"])
@pytest.mark.parametrize("format", ["jsonl", "csv", "leaf", "sms", "whatsapp", "telegram"])
def test_other_encodings_give_the_same_messages(format, encoding, exports, run):
    path, me = exports[format]
    expected = run(path, me)[1]
    path.write_bytes(path.read_text("utf-8").encode(encoding))
    assert run(path, me)[1] == expected


@pytest.mark.parametrize("format", ["jsonl", "csv", "sms", "whatsapp", "telegram"])
def test_windows_1252_is_read_line_by_line_and_counted(format, exports, run):
    path, me = exports[format]
    path.write_bytes(path.read_bytes().replace(b"see you", "é you".encode("cp1252")))
    summary, messages = run(path, me)
    assert messages[0].text.startswith("é you")
    assert summary.lines_not_utf8 == 1


@pytest.mark.parametrize("format", EXPECTED)
def test_gzip_and_zip_give_the_same_messages(format, exports, run, tmp_path):
    path, me = exports[format]
    expected = run(path, me)[1]
    inside = {"whatsapp": "_chat.txt", "mbox": "all.mbox"}.get(format, path.name)
    for packed in (
        samples.gzipped(tmp_path / "a.gz", path.read_bytes()),
        samples.zipped(tmp_path / "a.zip", **{inside: path.read_bytes(), "photo.jpg": b"\x00" * 99}),
    ):
        assert run(packed, me)[1] == expected


def test_words_are_counted_as_the_vocabulary_splits_them(exports, run):
    vocabulary = Vocabulary.of_words([], "")
    for path, me in exports.values():
        summary, messages = run(path, me)
        assert summary.words == sum(len(vocabulary.split(message.text)) for message in messages)


def test_a_log_that_was_imported_is_a_source(exports, run, tmp_path):
    run(*exports["jsonl"])
    source = open_source(str(tmp_path / "imported.jsonl"), seed=1)
    assert list(source.users()) == ["ann", "bob", "me"]
    assert [message.text for message in source.messages("ann")] == ["see you soon", "last \U0001f600 one"]


def test_masks_are_counted_and_can_be_left_out(run, tmp_path):
    path = tmp_path / "log.jsonl"
    path.write_text('{"user": "a", "text": "x@example.org, www.example.org, 0155501234", "time": 1}\n')
    summary, messages = run(path)
    assert messages[0].text == "<EMAIL>, <URL> <#>"
    assert summary.masked == {"email": 1, "url": 1, "number": 1}
    summary, messages = run(path, masked=False)
    assert messages[0].text == "x@example.org, www.example.org, 0155501234"
    assert summary.masked is None


def test_telegrams_own_links_stand_when_nothing_is_masked(exports, run):
    assert run(*exports["telegram"], masked=False)[1][1].text == "read page.example/x first"


def test_a_user_whose_name_is_an_address_or_a_number_gets_another(run, tmp_path):
    path = tmp_path / "log.jsonl"
    users = ["ann", "bob@example.org", "+15550100199", "bob@example.org"]
    path.write_text("".join(json.dumps({"user": user, "text": "hello"}) + "\n" for user in users))
    summary, messages = run(path)
    assert [message.user for message in messages] == ["ann", "user-2", "user-3", "user-2"]
    assert (summary.users, summary.renamed) == (3, 2)
    assert [message.user for message in run(path, masked=False)[1]] == users


def test_a_format_that_names_users_can_be_cut_to_oneself(exports, run):
    summary, messages = run(exports["csv"][0], ["BOB"])
    assert [message.text for message in messages] == ["no"]
    assert summary.skipped["someone else's"] > 1


def test_only_some_malformed_lines_are_named_and_all_are_counted(run, tmp_path):
    path = tmp_path / "log.jsonl"
    path.write_text('{"text": "hello"}\n' + "{\n" * 50)
    summary, _ = run(path)
    assert summary.malformed == 50
    assert [each["line"] for each in summary.malformed_lines] == list(range(2, 2 + NAMED_LINES))


def test_invisible_characters_and_pasted_pages_are_not_kept(run, tmp_path):
    path = tmp_path / "log.jsonl"
    texts = ["\u2068ann\u2069\x00 \ud800", "x" * 10_001, "\u200e"]
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    summary, messages = run(path)
    assert [message.text for message in messages] == ["ann \ufffd"]
    assert summary.skipped == {"longer than 10,000 characters": 1, "no text": 1}


def test_times_without_a_zone_are_those_of_the_zone_that_is_named(exports, run):
    utc = run(*exports["whatsapp"])[1][0].time
    assert utc == 1_710_363_845
    assert run(*exports["whatsapp"], zone=ZoneInfo("Etc/GMT-2"))[1][0].time == utc - 7200


def test_a_file_without_a_message_of_ones_own_says_what_it_holds(exports, run):
    with pytest.raises(DataError, match=r"no message to keep .* read as whatsapp: .*someone else's 7"):
        run(exports["whatsapp"][0], ["Zoe"])


@pytest.mark.parametrize(
    ("format", "name"), [("whatsapp", "Ann"), ("telegram", "Ann"), ("csv", "ann"), ("mbox", "@")]
)
def test_whoever_is_called_otherwise_hears_who_is_in_the_file(format, name, exports, run):
    with pytest.raises(DataError, match=rf"someone else's .*; --me must be one of .*{name}"):
        run(exports[format][0], ["Zoe"])


@pytest.mark.parametrize("content", [b"", b" \n", b"\xef\xbb\xbf"])
def test_an_empty_file_is_refused(content, run, tmp_path):
    path = tmp_path / "file"
    path.write_bytes(content)
    with pytest.raises(DataError, match="is empty"):
        run(path)


@pytest.mark.parametrize(
    "content", [b"hello there\n", b"\x89PNG\r\n\x1a\n\x00\x00", b"<html></html>", b"{", b"[1]"]
)
def test_a_file_of_no_known_format_is_refused(content, run, tmp_path):
    path = tmp_path / "file"
    path.write_bytes(content)
    with pytest.raises(DataError, match="looks like none of"):
        run(path)


@pytest.mark.parametrize("format", FORMATS)
def test_a_format_forced_on_something_else_is_one_line(format, run, tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"hello there\nthis is nothing\n")
    with pytest.raises((DataError, ConfigError)) as error:
        run(path, ["ann"], format=format)
    assert "\n" not in str(error.value)


def test_what_is_not_there_is_refused(run, tmp_path):
    with pytest.raises(DataError, match="no file at"):
        run(tmp_path / "none")
    with pytest.raises(DataError, match="must hold one of"):
        run(tmp_path)
    with pytest.raises(ConfigError, match="format must be auto or one of"):
        run(tmp_path, format="pdf")


def test_the_file_that_is_read_is_not_written_over(tmp_path):
    path = tmp_path / "log.jsonl"
    path.write_text('{"text": "hello"}\n')
    with pytest.raises(ConfigError, match="another file"):
        import_typing(path, path, format="auto", options=Options())
    assert path.read_text() == '{"text": "hello"}\n'


@pytest.mark.parametrize(
    ("format", "option"),
    [
        ("sms", {"me": ("ann",)}),
        ("leaf", {"user": "ann"}),
        ("telegram", {"dates": "dmy"}),
        ("whatsapp", {"text_column": "a"}),
    ],
)
def test_an_option_that_means_nothing_to_the_format_is_refused(format, option, exports, run):
    with pytest.raises(ConfigError, match=f"means nothing to {format}"):
        run(exports[format][0], **option)


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [({"dates": "dd"}, "dates must be one of"), ({"user": ""}, "user"), ({"me": (" ",)}, "me")],
)
def test_impossible_options_are_refused(wrong, reason):
    with pytest.raises(ConfigError, match=reason):
        Options(**wrong)
