import json
from dataclasses import fields

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kbdfl.algorithms import ClientRule
from kbdfl.assignment import Assignment
from kbdfl.errors import WireError
from kbdfl.model import CifgConfig

ASSIGNMENT = Assignment(
    task="next-word",
    round=3,
    version=2,
    model_sha256="ab" * 32,
    spec="cd" * 8,
    vocabulary="ef" * 32,
    config=CifgConfig(vocab=9, embed=3, hidden=5),
    client=ClientRule(learning_rate=0.1),
    download="float32",
    upload="int8",
    update_clip_norm=0.5,
    seed=2**64 - 1,
    round_seed=2**64 - 2,
    deadline_s=119.99999999999999,
    max_report_bytes=70_000,
    participations=4,
    separation=500,
    secure=False,
    noise_multiplier=0.0,
    noise_survivors=0,
)
TEXTS = {"task", "model_sha256", "spec", "vocabulary", "upload", "download"}
NUMBERS = {"round", "version", "seed", "round_seed", "max_report_bytes", "participations", "separation"}
BOOLEANS = {"partial_work", "partial_model", "secure"}
FLOATS = {"update_clip_norm", "deadline_s", "clip_norm", "momentum", "proximal", "noise_multiplier"}
FLOATS |= {"learning_rate", "final_learning_rate"}
PLACES = [
    *((None, field.name) for field in fields(Assignment)),
    *(("config", field.name) for field in fields(CifgConfig)),
    *(("client", field.name) for field in fields(ClientRule)),
]


def document():
    return json.loads(json.dumps(ASSIGNMENT.to_json()))


def test_an_assignment_survives_json():
    assert Assignment.from_json(document()) == ASSIGNMENT


@given(st.sampled_from(PLACES))
def test_an_assignment_without_a_field_is_refused(place):
    where, name = place
    changed = document()
    del (changed if where is None else changed[where])[name]
    with pytest.raises(WireError, match="must have the fields") as error:
        Assignment.from_json(changed)
    assert "\n" not in str(error.value)


@given(st.sampled_from([None, "config", "client"]), st.text(min_size=1, max_size=9))
def test_an_assignment_with_another_field_is_refused(where, name):
    changed = document()
    part = changed if where is None else changed[where]
    if name not in part:
        part[name] = 1
        with pytest.raises(WireError, match="must have the fields"):
            Assignment.from_json(changed)


JSON = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=300) | st.lists(st.integers())
)


def accepted(name, value):
    if name in TEXTS:
        return isinstance(value, str)
    if name in BOOLEANS:
        return isinstance(value, bool)
    if name in FLOATS:
        return isinstance(value, int | float) and not isinstance(value, bool)
    return isinstance(value, int) and not isinstance(value, bool) and name not in ("config", "client")


@given(st.sampled_from(PLACES), JSON)
def test_an_assignment_with_a_field_of_another_type_is_refused_in_one_line(place, value):
    where, name = place
    if accepted(name, value):
        return
    changed = document()
    (changed if where is None else changed[where])[name] = value
    with pytest.raises(WireError, match=f"an assignment's {name} must be a") as error:
        Assignment.from_json(changed)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) <= 200


@pytest.mark.parametrize("value", [None, [], "text", 3, {}])
def test_what_is_no_assignment_at_all_is_refused(value):
    with pytest.raises(WireError, match="an assignment's Assignment must have the fields task, round"):
        Assignment.from_json(value)


@pytest.mark.parametrize(
    ("where", "name", "value", "message"),
    [
        ("config", "vocab", 3, "vocab must be > 4, got 3"),
        ("client", "epochs", 0, "epochs must be >= 1, got 0"),
        ("client", "learning_rate", float("nan"), "learning_rate must be > 0"),
    ],
)
def test_an_assignment_of_the_impossible_is_refused(where, name, value, message):
    changed = document()
    changed[where][name] = value
    with pytest.raises(WireError, match=f"asks for something impossible: {message}"):
        Assignment.from_json(changed)


def test_a_whole_number_may_stand_for_a_float():
    changed = document()
    changed["client"]["learning_rate"] = 3
    assert Assignment.from_json(changed).client == ClientRule(learning_rate=3.0)
