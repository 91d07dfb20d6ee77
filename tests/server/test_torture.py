"""A server that is killed while phones report: KBDFL_KILLS says how often; by default 6 times."""

import os

from tests.server.torture import torture


def test_a_server_that_is_killed_loses_nothing_and_counts_nothing_twice(tmp_path):
    kills = int(os.environ.get("KBDFL_KILLS", "6"))
    found = torture(tmp_path, kills=kills, seed=20_260)
    assert (found["kills"], found["lost"]) == (kills, 0)
    assert found["acknowledged"] > 10
