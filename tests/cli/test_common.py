"""What a command prints where it has no table of its own."""

import json

import pytest

from kbdfl.cli.common import show

FOUND = {"run": "runs/a", "rounds": 20, "recall": 0.055739135856350146, "wall_s": 5.50, "socket_bytes": None}


def test_a_key_has_a_line_and_no_value_none(capsys):
    show(FOUND, as_json=False)
    assert capsys.readouterr().out == "   run  runs/a\nrounds  20\nrecall  0.05574\nwall_s  5.5\n"
    show({}, as_json=False)
    assert capsys.readouterr().out == "\n"


def test_json_has_all_of_it(capsys):
    show(FOUND, as_json=True, text="not this")
    assert json.loads(capsys.readouterr().out) == FOUND


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0"),
        (100.0, "100"),
        (-0.5, "-0.5"),
        (1234567.875, "1234567.875"),
        (1.1e-6, "1.1e-06"),
        (float("inf"), "inf"),
        ({"p50_ms": 15.123456, "p99_ms": None}, "p50_ms 15.1235"),
    ],
)
def test_numbers_are_as_one_reads_them(capsys, value, text):
    show({"a": value}, as_json=False)
    assert capsys.readouterr().out == f"a  {text}\n"
