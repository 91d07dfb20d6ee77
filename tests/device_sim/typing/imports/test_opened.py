"""Texts in files: lines of any length, any encoding, packed or not, and bounds on what unpacks."""

import gzip
import zipfile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kbdfl.device_sim.typing.imports import opened
from kbdfl.device_sim.typing.imports.opened import Opened
from kbdfl.errors import DataError

LINES = st.lists(
    st.text(st.characters(codec="utf-8", exclude_characters="\n\r\ufeff"), max_size=40), min_size=1
)


@given(
    LINES,
    st.sampled_from(["utf-8", "utf-8-sig", "utf-16"]),
    st.sampled_from(["\n", "\r\n"]),
    st.integers(4, 40),
)
@settings(max_examples=80, deadline=None)
def test_lines_are_those_that_were_written_whatever_the_block(tmp_path_factory, lines, encoding, end, block):
    lines = ["start of it", *lines, "end"]  # some ASCII first, as all of these exports have
    path = tmp_path_factory.mktemp("text") / "text"
    path.write_bytes(end.join(lines).encode(encoding))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(opened, "BLOCK", block)
        file = Opened(path)
        assert list(file.lines()) == list(enumerate(lines, 1))
        assert "".join(file.chunks()) == end.join(lines)
        assert file.fallback_lines == 0


def test_lines_that_are_no_utf8_are_windows_1252_and_counted(tmp_path):
    path = tmp_path / "text"
    path.write_bytes("é\n".encode() + b"\xe9 \x80\n" + "ü\n".encode() + b"\x81\n")
    file = Opened(path)
    assert [line for _, line in file.lines()] == ["é", "é €", "ü", "\ufffd"]
    assert file.fallback_lines == 2


@pytest.mark.parametrize("content", [b"\x80" * 300_000, b"a" * 300_000, "é".encode() * 150_000])
def test_a_line_without_an_end_is_read_in_pieces(content, tmp_path, monkeypatch):
    path = tmp_path / "text"
    path.write_bytes(content)
    assert max(map(len, Opened(path).chunks())) <= 3 * opened.BLOCK
    monkeypatch.setattr(opened, "LONGEST_LINE", 1000)
    assert list(Opened(path).lines()) == [(1, None)]


def test_a_line_that_is_too_long_is_none_and_the_next_is_whole(tmp_path, monkeypatch):
    monkeypatch.setattr(opened, "LONGEST_LINE", 1000)
    path = tmp_path / "text"
    path.write_bytes(b"one\n" + b"x" * 500_000 + b"\nthree")
    assert list(Opened(path).lines()) == [(1, "one"), (2, None), (3, "three")]


@pytest.mark.parametrize("kind", ["gzip", "zip"])
def test_what_unpacks_to_more_than_it_could_hold_is_refused(kind, tmp_path, monkeypatch):
    monkeypatch.setattr(opened, "FREELY_UNPACKED", 1 << 20)
    path = tmp_path / "bomb"
    if kind == "gzip":
        path.write_bytes(gzip.compress(bytes(20 << 20)))
    else:
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("_chat.txt", bytes(20 << 20))
    with pytest.raises(DataError, match="unpacks to more"):
        list(Opened(path).lines())
    monkeypatch.setattr(opened, "MOST_RATIO", 10_000)
    assert sum(map(len, Opened(path).blocks())) == 20 << 20
    monkeypatch.setattr(opened, "MOST_UNPACKED", 10 << 20)
    with pytest.raises(DataError, match="unpacks to more"):
        list(Opened(path).lines())


def test_a_zip_with_several_texts_is_refused_unless_one_has_a_name_that_counts(tmp_path):
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.txt", "a")
        archive.writestr("b.txt", "b")
    with pytest.raises(DataError, match=r"must hold one text .* got 2"):
        Opened(path)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("folder/_chat.txt", "chat")
    assert Opened(path).head() == "chat"
    assert Opened(path).inner_name == "folder/_chat.txt"


def test_a_zip_without_a_text_and_a_locked_one_are_refused(tmp_path):
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.jpg", "a")
    with pytest.raises(DataError, match="got 0"):
        Opened(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.txt", "a")
    content = bytearray(path.read_bytes())
    content[content.index(b"PK\x01\x02") + 8] |= 1  # the flag of encryption in the central directory
    path.write_bytes(content)
    with pytest.raises(DataError, match="password"):
        Opened(path)


@pytest.mark.parametrize(
    "content", [gzip.compress(b"hello" * 99, mtime=0)[:-9], b"\x1f\x8bnothing", b"PK\x03\x04 nothing"]
)
def test_a_broken_archive_is_refused(content, tmp_path):
    path = tmp_path / "file"
    path.write_bytes(content)
    with pytest.raises(DataError, match="cannot be read"):
        list(Opened(path).lines())


def test_a_zip_whose_content_was_altered_is_refused(tmp_path):
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.txt", "hello there")
    path.write_bytes(path.read_bytes().replace(b"hello", b"hallo"))
    with pytest.raises(DataError, match="cannot be read"):
        list(Opened(path).lines())
