"""A server that is killed while phones report: KBDFL_KILLS says how often; by default 6 times."""

import os
import shutil
import sqlite3

import pytest

from tests.server import torture_postgres, torture_privacy
from tests.server.torture import torture

KILLS = int(os.environ.get("KBDFL_KILLS", "6"))
NEEDS_CC = pytest.mark.skipif(
    shutil.which(os.environ.get("CC", "cc")) is None, reason="no C compiler is installed"
)


@pytest.mark.timeout(0)
def test_a_server_that_is_killed_loses_nothing_and_counts_nothing_twice(tmp_path):
    found = torture(tmp_path, kills=KILLS, seed=20_260)
    assert (found["kills"], found["lost"]) == (KILLS, 0)
    assert found["acknowledged"] > 10


@pytest.mark.timeout(0)
def test_a_server_that_is_killed_books_every_release_once_before_its_model(tmp_path):
    found = torture_privacy.torment(tmp_path, kills=max(3, KILLS // 10), seed=5)
    assert found["releases"] > 5


@NEEDS_CC
@pytest.mark.timeout(0)
def test_a_power_cut_costs_nothing_that_was_acknowledged(tmp_path):
    found = torture(tmp_path, kills=max(4, KILLS // 2), seed=7, power=True)
    assert found["lost"] == 0
    assert found["acknowledged"] > 10


@NEEDS_CC
def test_a_server_that_does_not_flush_is_caught_by_a_power_cut(tmp_path):
    with pytest.raises((AssertionError, sqlite3.Error)):
        torture(tmp_path, kills=4, seed=7, power=True, careless=True)


@pytest.mark.timeout(0)
def test_servers_on_one_task_that_are_killed_lose_nothing_and_count_nothing_twice(postgres):
    found = torture_postgres.torture(kills=max(3, KILLS // 10), servers=2, seed=11, url=postgres)
    assert found["lost"] == 0
    assert found["acknowledged"] > 10
