from dataclasses import dataclass, fields

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kbdfl.config import from_table, read_toml, to_table, write_toml
from kbdfl.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Sample:
    count: int = 1
    rate: float = 0.5
    name: str = "x"
    exact: bool = False
    bound: float | None = None


SAMPLES = st.builds(
    Sample,
    count=st.integers(-(2**63), 2**63 - 1),
    rate=st.floats(allow_nan=False),
    name=st.text(st.characters(codec="utf-8"), max_size=20),
    exact=st.booleans(),
    bound=st.none() | st.floats(allow_nan=False),
)


@given(SAMPLES)
def test_a_configuration_reads_back_as_it_was_written(tmp_path_factory, sample):
    path = tmp_path_factory.mktemp("config") / "config.toml"
    path.write_text(write_toml({"sample": to_table(sample)}), "utf-8")
    back = from_table(Sample, read_toml(path)["sample"], where="sample")
    assert back == sample
    assert [type(getattr(back, f.name)) for f in fields(Sample)] == [
        type(getattr(sample, f.name)) for f in fields(Sample)
    ]


def test_missing_fields_take_their_defaults():
    assert from_table(Sample, {}, where="sample") == Sample()
    assert from_table(Sample, {"count": 7}, where="sample") == Sample(count=7)


def test_a_whole_number_may_stand_for_a_float():
    rate = from_table(Sample, {"rate": 3}, where="sample").rate
    assert (rate, type(rate)) == (3.0, float)


def test_a_field_that_is_none_is_left_out():
    assert to_table(Sample()) == {"count": 1, "rate": 0.5, "name": "x", "exact": False}


VALUES = st.one_of(
    st.integers(),
    st.floats(),
    st.text(max_size=300),
    st.booleans(),
    st.lists(st.integers(), max_size=2),
    st.dictionaries(st.text(max_size=3), st.integers(), max_size=2),
)
ACCEPTED = {"count": (int,), "rate": (int, float), "name": (str,), "exact": (bool,), "bound": (int, float)}


@given(st.sampled_from(sorted(ACCEPTED)), VALUES)
def test_a_value_of_another_type_is_refused_in_one_line(name, value):
    if type(value) in ACCEPTED[name]:
        assert getattr(from_table(Sample, {name: value}, where="sample"), name) in (
            value,
            pytest.approx(value, nan_ok=True),
        )
        return
    with pytest.raises(ConfigError, match=rf"^sample\.{name} must be ") as error:
        from_table(Sample, {name: value}, where="sample")
    assert "\n" not in str(error.value)
    assert len(str(error.value)) <= 200


@given(st.text(max_size=300).filter(lambda name: name not in ACCEPTED))
def test_an_unknown_field_is_refused_and_the_known_are_named(name):
    with pytest.raises(
        ConfigError, match=r"^sample has no field .* count, rate, name, exact, bound$"
    ) as error:
        from_table(Sample, {name: 1}, where="sample")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("table", [None, 3, "text", [1]])
def test_what_is_no_table_is_refused(table):
    with pytest.raises(ConfigError, match="sample must be a table"):
        from_table(Sample, table, where="sample")


def test_an_integer_beyond_float_is_refused():
    with pytest.raises(ConfigError, match=r"sample\.rate must be float, got an integer beyond its range"):
        from_table(Sample, {"rate": 10**400}, where="sample")


@pytest.mark.parametrize(
    "content",
    [b"a = ", b"\xff\xfe", b"a = 1\na = 2", b"a = " + b"9" * 5000, b"a = " + b"[" * 5000, b"\x00"],
    ids=["no value", "not utf-8", "twice", "5,000 digits", "deep", "binary"],
)
def test_a_file_that_is_not_toml_is_refused_in_one_line(tmp_path, content):
    path = tmp_path / "config.toml"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match="is not TOML: ") as error:
        read_toml(path)
    assert "\n" not in str(error.value)


def test_a_missing_file_and_a_folder_are_refused(tmp_path):
    with pytest.raises(ConfigError, match="no configuration file at"):
        read_toml(tmp_path / "config.toml")
    with pytest.raises(ConfigError, match="cannot be read: Is a directory"):
        read_toml(tmp_path)
