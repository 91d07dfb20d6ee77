"""Phones' hours from a file: what is read, repeated and shared, and what is refused."""

import numpy as np
import pytest

from kbdfl.device_sim.devices import DAY_S
from kbdfl.device_sim.hours import Weekly
from kbdfl.device_sim.traces import Trace, open_hours
from kbdfl.errors import ConfigError, DataError

HEAD = "device,opens_s,closes_s\n"


@pytest.fixture
def trace(tmp_path):
    def make(*lines, head=HEAD):
        path = tmp_path / "trace.csv"
        path.write_text(head + "".join(f"{line}\n" for line in lines))
        return Trace(path)

    return make


def rows(windows):
    return sorted(zip(*(column.tolist() for column in windows), strict=True))


def test_windows_are_those_of_the_file_day_by_day(trace):
    found = trace("a,100,5000", "b,200,90000", f"a,{DAY_S + 50},{DAY_S + 60}")
    assert found.devices == 2
    assert rows(found.windows(0, np.arange(2))) == [(0, 100.0, 5000.0), (1, 200.0, 90000.0)]
    assert rows(found.windows(1, np.arange(2))) == [(0, DAY_S + 50, DAY_S + 60)]
    assert rows(found.windows(-1, np.arange(2))) == []


def test_the_file_begins_again_after_its_last_day(trace):
    found = trace("a,100,5000", f"b,{DAY_S + 7},{DAY_S + 70}")
    assert found.days == 2
    assert rows(found.windows(4, np.arange(2))) == [(0, 4 * DAY_S + 100, 4 * DAY_S + 5000)]
    assert rows(found.windows(5, np.arange(2))) == [(1, 5 * DAY_S + 7, 5 * DAY_S + 70)]


def test_a_file_longer_than_a_week_begins_again_on_a_monday(trace):
    assert trace("a,100,5000", f"a,{9 * DAY_S},{9 * DAY_S + 5}").days == 14


def test_more_phones_than_devices_follow_them_in_turn(trace):
    found = trace("a,1,10", "b,2,20", "c,3,30")
    assert rows(found.windows(0, np.arange(5, 9))) == [
        (5, 3.0, 30.0),
        (6, 1.0, 10.0),
        (7, 2.0, 20.0),
        (8, 3.0, 30.0),
    ]


def test_parquet_is_read_as_csv_is(tmp_path, trace):
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    table = pyarrow.table({"device": ["a", "b"], "opens_s": [100.0, 200.0], "closes_s": [5000.0, 90000.0]})
    parquet.write_table(table, tmp_path / "trace.parquet")
    found = open_hours(str(tmp_path / "trace.parquet"), seed=1)
    assert rows(found.windows(0, np.arange(2))) == rows(
        trace("a,100,5000", "b,200,90000").windows(0, np.arange(2))
    )
    parquet.write_table(table.drop(["closes_s"]), tmp_path / "short.parquet")
    for name in ("short", "none"):
        with pytest.raises(DataError, match="cannot be read as a Parquet trace"):
            Trace(tmp_path / f"{name}.parquet")


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([], "holds no window"),
        (["a,5,5"], "0 <= opens_s < closes_s, got 5 and 5 of a"),
        (["a,-1,5"], "0 <= opens_s < closes_s"),
        (["a,nan,5"], "0 <= opens_s < closes_s"),
        (["a,1,inf"], "0 <= opens_s < closes_s"),
        (["a,1,9", "b,2,3", "a,8,12"], "windows of a overlap at 8 s"),
        (["a,1"], "line 2 must be a device and two times"),
        (["a,1,2", "b,x,9"], "line 3 must be a device and two times"),
    ],
)
def test_a_file_that_is_no_trace_is_refused_in_one_line(trace, lines, message):
    with pytest.raises(DataError, match=message) as error:
        trace(*lines)
    assert "\n" not in str(error.value)


def test_another_first_line_or_no_file_is_refused(trace, tmp_path):
    with pytest.raises(DataError, match="must begin with the line device,opens_s,closes_s"):
        trace("a,1,2", head="who,from,to\n")
    with pytest.raises(DataError, match="cannot be read as CSV"):
        Trace(tmp_path / "none.csv")
    (tmp_path / "binary.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError):
        Trace(tmp_path / "binary.csv")


def test_without_pyarrow_a_parquet_file_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    with pytest.raises(ConfigError, match=r"pip install 'kbdfl\[parquet\]'"):
        Trace(tmp_path / "trace.parquet")


def test_an_availability_names_the_hours():
    assert open_hours("always", seed=1) is None
    assert open_hours("nightly", seed=1) is None
    assert isinstance(open_hours("weekly", seed=1), Weekly)
