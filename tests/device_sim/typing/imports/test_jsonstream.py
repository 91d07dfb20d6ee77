"""JSON as it goes by: any part at its line, across breaks, and within bounds."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kbdfl.device_sim.typing.imports import jsonstream
from kbdfl.device_sim.typing.imports.items import Malformed
from kbdfl.device_sim.typing.imports.jsonstream import Found, first_fields, parts
from kbdfl.device_sim.typing.imports.opened import Opened

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**20), 10**20) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)


def items(keys, scalar):
    """The items of the list "a"."""
    return keys == ["a", None]


def read(folder, text, wanted=items):
    path = folder / "doc.json"
    path.write_text(text)
    return list(parts(Opened(path), wanted))


@given(st.lists(VALUES, max_size=5), st.sampled_from([None, 0, 1, 2]), VALUES)
@settings(max_examples=80, deadline=None)
def test_parts_are_the_values_that_were_written(tmp_path_factory, values, indent, other):
    text = json.dumps({"b": other, "a": values, "c": {"a": [other]}}, indent=indent)
    found = read(tmp_path_factory.mktemp("doc"), text)
    assert [part.value for part in found] == values


def test_parts_name_the_line_that_they_begin_on(tmp_path):
    found = read(tmp_path, '{"a": [\n1,\n{"x":\n[2]},\n3\n]}')
    assert [(part.line, part.value) for part in found] == [(2, 1), (3, {"x": [2]}), (5, 3)]


def test_a_broken_object_costs_nothing_but_itself(tmp_path):
    document = {"who": 7, "a": [{"n": number, "t": "x"} for number in range(6)], "end": [1]}
    lines = json.dumps(document, indent=1).split("\n")
    lines[8] = '   "n": nothing'  # within the second object
    lines[17] = lines[17].replace('"', "", 1)  # and within another
    found = read(tmp_path, "\n".join(lines) + "\n")
    broken = [part.line for part in found if isinstance(part, Malformed)]
    assert broken == [9, 18]
    whole = [part.value["n"] for part in found if isinstance(part, Found)]
    assert len(whole) == 4
    assert whole == sorted(whole)
    assert whole[-1] == 5


def test_a_document_that_breaks_on_one_line_ends_there(tmp_path):
    found = read(tmp_path, '{"a": [1, 2, oops, 3]}')
    assert [part.value for part in found if isinstance(part, Found)] == [1, 2]
    assert found[-1] == Malformed(1, "not JSON")


@pytest.mark.parametrize("text", ['{"a": [1, 2,', '{"a": [1, 2, "x', '{"a": [1, 2]'])
def test_a_document_that_is_cut_off_says_so(text, tmp_path):
    found = read(tmp_path, text)
    assert [part.value for part in found if isinstance(part, Found)] == [1, 2]
    assert found[-1] == Malformed(1, "the file breaks off, or is not JSON")


@pytest.mark.parametrize("opening", ["[", '{"x":'])
def test_what_is_nested_without_end_is_refused(opening, tmp_path):
    for before in ("", '{"a": ['):
        found = read(tmp_path, before + opening * 200_000)
        assert [type(part) for part in found] == [Malformed]
        assert "deep" in found[0].reason


def test_a_value_of_millions_of_characters_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(jsonstream, "LONGEST_VALUE", 300_000)
    found = read(tmp_path, '{"a": [1, "' + "x" * 600_000 + '", 2]}')
    assert [getattr(part, "value", "broken") for part in found] == [1, "broken"]
    monkeypatch.setattr(jsonstream, "MOST_EVENTS", 100)
    found = read(tmp_path, '{"a": [1, ' + json.dumps([0] * 500) + ", 2]}")
    assert [getattr(part, "value", "broken") for part in found] == [1, "broken"]


@given(VALUES, st.integers(0, 200))
@settings(max_examples=80, deadline=None)
def test_the_first_objects_fields_are_known_from_a_head(value, cut):
    text = json.dumps({"users": value, "b": {"inside": 1}, "c": 2}) + "\n" + json.dumps({"next": 1})
    known = first_fields(text[:cut])
    assert known <= {"users", "b", "c"}
    assert first_fields(text) == {"users", "b", "c"}
