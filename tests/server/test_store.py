"""What survives a restart, and in which order things become durable."""

import dataclasses
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest

from kbdfl.errors import ConfigError, ModelError
from kbdfl.model import CifgConfig
from kbdfl.params import load_checkpoint
from kbdfl.rounds import RoundResult
from kbdfl.server import store as store_module
from kbdfl.server.store import SqliteStore

SPEC = CifgConfig(vocab=8, embed=2, hidden=3).spec


def result(number: int, version: int, *, status: str = "committed", **changes) -> RoundResult:
    closed = RoundResult(
        round=number,
        status=status,
        version=version,
        reports=4,
        dropped=1,
        examples=20,
        tokens=90,
        train_loss=5.0,
        uplink_bytes=1000,
        downlink_bytes=3000,
        started_s=10.0,
        ended_s=12.5,
    )
    return dataclasses.replace(closed, **changes)


def params(version: int) -> np.ndarray:
    return np.full(SPEC.size, version + 0.25, np.float32)


def state(version: int) -> dict[str, np.ndarray]:
    return {"m": params(version) / 2, "v": params(version) * 3}


@pytest.fixture
def reopen(tmp_path):
    stores = []

    def open_again(**options) -> SqliteStore:
        for store in stores:
            store.close()
        stores.append(SqliteStore(tmp_path, SPEC, **options))
        return stores[-1]

    yield open_again
    stores[-1].close()


def test_a_fresh_folder_holds_nothing(reopen):
    store = reopen()
    assert store.load() is None
    assert store.metrics() == ([], 0)
    assert store.newest_checkpoint() is None
    assert store.last_committed() is None


def test_what_was_saved_comes_back_after_a_restart(reopen):
    store = reopen(facts={"preset": "tiny"})
    store.save(result(0, 1), params(1), state(1))
    store.save(result(1, 1, status="abandoned"), params(1), state(1))
    store.measured(0, {"recall_top1": 0.25, "recall_top3": 0.5})
    rows, totals = store.metrics(), store.totals()
    store = reopen()
    saved = store.load()
    assert (saved.round, saved.version) == (1, 1)
    np.testing.assert_array_equal(saved.params, params(1))
    assert saved.server_state.keys() == {"m", "v"}
    np.testing.assert_array_equal(saved.server_state["v"], state(1)["v"])
    assert (store.metrics(), store.totals()) == (rows, totals)
    _, _, facts = load_checkpoint(store.newest_checkpoint())
    assert (facts["preset"], facts["round"], facts["version"]) == ("tiny", 0, 1)


def test_an_abandoned_first_round_keeps_the_initial_model(reopen):
    reopen().save(result(0, 0, status="abandoned"), params(0), {})
    saved = reopen().load()
    assert (saved.round, saved.version, saved.server_state) == (0, 0, {})
    np.testing.assert_array_equal(saved.params, params(0))


def test_a_crash_before_the_row_leaves_the_round_before(reopen, monkeypatch):
    store = reopen()
    store.save(result(0, 1), params(1), state(1))

    def cut(row):
        raise OSError("power cut")

    with monkeypatch.context() as patch:
        patch.setattr(store_module, "json", SimpleNamespace(dumps=cut))  # files are written, the row is not
        with pytest.raises(OSError, match="power"):
            store.save(result(1, 2), params(2), state(2))
    store = reopen()
    assert store.load().version == 1
    store.save(result(1, 2), params(7), state(7))  # made again, and differently
    np.testing.assert_array_equal(reopen().load().params, params(7))


def test_the_checkpoint_stands_before_the_row_that_names_it(reopen, monkeypatch):
    store, seen = reopen(), []
    write = store_module.save_checkpoint

    def spy(path, *arguments):
        seen.append((path.name, store.metrics()[0]))
        write(path, *arguments)

    monkeypatch.setattr(store_module, "save_checkpoint", spy)
    store.save(result(0, 1), params(1), state(1))
    assert seen == [("000001.safetensors", [])]


def test_a_round_is_never_saved_twice(reopen):
    store = reopen()
    store.save(result(0, 1), params(1), state(1))
    with pytest.raises(Exception, match="UNIQUE"):
        store.save(result(0, 1), params(1), state(1))
    assert store.totals()["reports"] == 4


def test_only_the_newest_checkpoints_are_kept(reopen):
    store = reopen(keep=2)
    for number in range(5):
        store.save(result(number, number + 1), params(number + 1), state(number + 1))
    names = sorted(path.name for path in store.checkpoints.iterdir())
    assert names == [f"00000{v}.{kind}" for v in (4, 5) for kind in ("safetensors", "server.safetensors")]
    assert store.newest_checkpoint().name == "000005.safetensors"


def test_a_recall_that_comes_late_is_seen_by_a_reader_who_polls(reopen):
    store = reopen()
    for number in range(3):
        store.save(result(number, number + 1), params(number + 1), state(number + 1))
    rows, newest = store.metrics()
    assert [row["round"] for row in rows] == [0, 1, 2]
    store.measured(1, {"recall_top1": 0.1, "recall_top3": 0.2})
    ((row,), newer) = store.metrics(since=newest)
    assert (row["round"], row["recall_top1"], row["recall_top3"]) == (1, 0.1, 0.2)
    assert newer > newest
    assert store.metrics(since=newer) == ([], newer)


def test_totals_add_up(reopen):
    store = reopen()
    store.save(result(0, 1), params(1), state(1))
    store.save(
        result(1, 1, status="abandoned", reports=0, dropped=5, refused=2, uplink_bytes=0), params(1), state(1)
    )
    assert store.totals() == {
        "committed": 1,
        "abandoned": 1,
        "reports": 4,
        "dropped": 6,
        "refused": 2,
        "uplink_bytes": 1000,
        "downlink_bytes": 6000,
        "socket_up_bytes": None,
        "socket_down_bytes": None,
    }
    store.crossed(1, {"phone": (10, 20), "other": (1, 2)})
    assert [store.totals()[f"socket_{way}_bytes"] for way in ("up", "down")] == [11, 22]


def test_the_bytes_of_devices_add_up_and_old_ones_are_forgotten(reopen, monkeypatch):
    monkeypatch.setattr("kbdfl.server.store.KEPT_TRAFFIC", 2)
    store = reopen()
    for number in range(3):
        store.save(result(number, number + 1), params(1), state(1))
        store.crossed(number, {"phone": (1, 2), "": (5, 5)})
        store.crossed(number, {"phone": (10, 20)})
    assert store.traffic(2) == [
        {"device": "phone", "up_bytes": 11, "down_bytes": 22},
        {"device": None, "up_bytes": 5, "down_bytes": 5},
    ]
    assert (len(store.traffic(1)), store.traffic(0)) == (2, [])
    rows, _ = store.metrics()
    assert [(row["socket_up_bytes"], row["socket_devices"]) for row in rows] == [(16, 1)] * 3


def test_one_server_a_folder(reopen, tmp_path):
    reopen()
    with pytest.raises(ConfigError, match="already being served"):
        SqliteStore(tmp_path, SPEC)
    program = (
        "import sys; from kbdfl.server.store import SqliteStore; from kbdfl.model import CifgConfig\n"
        "SqliteStore(sys.argv[1], CifgConfig(vocab=8, embed=2, hidden=3).spec)"
    )
    other = subprocess.run([sys.executable, "-c", program, str(tmp_path)], capture_output=True, text=True)
    assert "already being served" in other.stderr


def test_a_killed_server_leaves_the_folder_to_the_next(tmp_path):
    program = (
        "import os, signal, sys; import numpy as np; from kbdfl.server.store import SqliteStore\n"
        "from kbdfl.model import CifgConfig; from kbdfl.rounds import RoundResult\n"
        "spec = CifgConfig(vocab=8, embed=2, hidden=3).spec\n"
        "store = SqliteStore(sys.argv[1], spec)\n"
        "result = RoundResult(0, 'committed', 1, 4, 0, 9, 9, 2.0, 10, 20, 0.0, 1.0)\n"
        "store.save(result, np.ones(spec.size, np.float32), {})\n"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    assert subprocess.run([sys.executable, "-c", program, str(tmp_path)]).returncode == -9
    store = SqliteStore(tmp_path, SPEC)
    assert store.load().version == 1
    store.close()


def test_a_folder_of_another_model_is_refused(reopen, tmp_path):
    reopen().save(result(0, 1), params(1), state(1))
    reopen().close()
    with pytest.raises(ModelError, match="another model"):
        SqliteStore(tmp_path, CifgConfig(vocab=9, embed=2, hidden=3).spec)
    reopen()  # and the refused one let go of the lock


def test_a_damaged_database_or_checkpoint_is_one_clear_line(reopen, tmp_path):
    store = reopen()
    store.save(result(0, 1), params(1), state(1))
    path = store.newest_checkpoint()
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(ModelError, match="damaged"):
        reopen().load()
    reopen().close()
    (tmp_path / "server.sqlite3").write_bytes(b"this is not a database" * 100)
    with pytest.raises(ModelError, match="not a database"):
        SqliteStore(tmp_path, SPEC)
    (tmp_path / "server.sqlite3").unlink()
    for leftover in tmp_path.glob("server.sqlite3-*"):
        leftover.unlink()
    reopen()


def test_the_wall_time_goes_on_over_a_restart(reopen):
    reopen().save(result(0, 1, started_s=1000.0, ended_s=1002.0), params(1), state(1))
    store = reopen()  # the new process's clock starts anew
    store.save(result(1, 2, started_s=3.0, ended_s=4.0), params(2), state(2))
    store.save(result(2, 3, started_s=5.0, ended_s=6.5), params(3), state(3))
    assert [row["wall_s"] for row in store.metrics()[0]] == [2.0, 3.0, 5.5]
