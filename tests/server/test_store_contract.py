"""What any store must do, whatever keeps it: one class of tests for SQLite and for PostgreSQL."""

import dataclasses

import numpy as np
import pytest

from kbdfl.errors import ConfigError, ModelError
from kbdfl.model import CifgConfig
from kbdfl.params import load_checkpoint
from kbdfl.rounds import RoundResult
from kbdfl.server.postgres.address import Address
from kbdfl.server.postgres.store import PostgresStore
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


class Sqlite:
    """How tests make a store in a folder, and harm it."""

    def __init__(self, folder):
        self.folder = folder

    def open(self, spec=SPEC, **options):
        return SqliteStore(self.folder, spec, **options)

    def path(self, version, kind):
        return (
            self.folder / "checkpoints" / f"{version:06d}{'.server' if kind == 'state' else ''}.safetensors"
        )

    def flip(self, version, kind, place):
        content = bytearray(self.path(version, kind).read_bytes())
        content[place] ^= 1
        self.path(version, kind).write_bytes(content)

    def lose(self, version):
        self.path(version, "checkpoint").unlink()


class Postgres:
    """The same in a database."""

    def __init__(self, folder, url):
        self.folder, self.url = folder, url

    def open(self, spec=SPEC, **options):
        return PostgresStore(self.folder, spec, address=Address(self.url), **options)

    def _execute(self, query, *arguments):
        import psycopg

        with psycopg.connect(self.url, options="-c search_path=kbdfl_default") as connection:
            found = connection.execute(query, arguments)
            return found.fetchone() if found.description else None

    def flip(self, version, kind, place):
        column = {"checkpoint": "checkpoint", "state": "state"}[kind]
        (content,) = self._execute(f"SELECT {column} FROM versions WHERE version = %s", version)
        content = bytearray(content)
        content[place] ^= 1
        self._execute(f"UPDATE versions SET {column} = %s WHERE version = %s", bytes(content), version)

    def lose(self, version):
        self._execute("DELETE FROM versions WHERE version = %s", version)


@pytest.fixture(params=["sqlite", "postgres"])
def kept(request, tmp_path):
    folder = tmp_path / "run"
    if request.param == "sqlite":
        return Sqlite(folder)
    return Postgres(folder, request.getfixturevalue("postgres"))


@pytest.fixture
def reopen(kept):
    """Stores over one place, one after another."""
    stores = []

    def open_again(**options):
        for store in stores:
            store.close()
        stores.append(kept.open(**options))
        return stores[-1]

    yield open_again
    for store in stores:
        store.close()


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


def test_a_round_is_never_saved_twice(reopen):
    store = reopen()
    store.save(result(0, 1), params(1), state(1))
    with pytest.raises(Exception, match=r"(?i)unique"):
        store.save(result(0, 1), params(1), state(1))
    assert store.totals()["reports"] == 4


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
    monkeypatch.setattr("kbdfl.server.postgres.store.KEPT_TRAFFIC", 2)
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


def test_the_wall_time_goes_on_over_a_restart(reopen):
    reopen().save(result(0, 1, started_s=1000.0, ended_s=1002.0), params(1), state(1))
    store = reopen()  # the new process's clock starts anew
    store.save(result(1, 2, started_s=3.0, ended_s=4.0), params(2), state(2))
    store.save(result(2, 3, started_s=5.0, ended_s=6.5), params(3), state(3))
    assert [row["wall_s"] for row in store.metrics()[0]] == [2.0, 3.0, 5.5]


def test_only_the_newest_versions_are_kept(reopen):
    store = reopen(keep=2)
    for number in range(5):
        store.save(result(number, number + 1), params(number + 1), state(number + 1))
    assert store.kept_versions() == [4, 5]
    np.testing.assert_array_equal(store.model(4)[0], params(4))
    assert store.newest_checkpoint().name == "000005.safetensors"
    with pytest.raises(ModelError, match="000003"):
        store.model(3)


def test_a_task_of_another_model_is_refused(kept, reopen):
    reopen().save(result(0, 1), params(1), state(1))
    reopen().close()
    with pytest.raises(ModelError, match="another model"):
        kept.open(CifgConfig(vocab=9, embed=2, hidden=3).spec)
    assert reopen().load().version == 1  # and the refused one let go of the folder


def test_one_process_a_folder(kept, reopen):
    reopen()
    with pytest.raises(ConfigError, match="already being served"):
        kept.open()


def test_the_reports_of_the_last_rounds_are_known_after_a_restart(reopen):
    store = reopen()
    for number in range(3):
        counted = [(f"phone {number}", bytes([number]) * 32), ("other", b"o" * 31 + bytes([number]))]
        store.save(result(number, number + 1), params(1), state(1), counted=counted)
    store.save(result(3, 3, status="abandoned"), params(1), state(1))
    counted = reopen().load().counted
    assert [len(each) for each in counted] == [0, 2, 2, 2]
    assert ("phone 2", bytes([2]) * 32) in counted[1]


@pytest.fixture
def three(reopen):
    """Three committed rounds, and one that was abandoned."""
    store = reopen()
    for number in range(3):
        store.save(result(number, number + 1), params(number + 1), state(number + 1))
    store.save(result(3, 3, status="abandoned"), params(3), state(3))
    return store


@pytest.mark.parametrize(
    ("kind", "place"), [("checkpoint", -1), ("checkpoint", 20), ("state", -1), ("state", 12)]
)
def test_a_flipped_byte_of_the_newest_version_costs_that_version_alone(
    three, kept, reopen, caplog, kind, place
):
    kept.flip(3, kind, place)
    store = reopen()
    saved = store.load()
    # Under a version that no phone has seen: the third one's phones hold another model.
    assert (saved.round, saved.version) == (3, 4)
    np.testing.assert_array_equal(saved.params, params(2))
    np.testing.assert_array_equal(saved.server_state["m"], state(2)["m"])
    assert "of the last 2 rounds nothing is left" in store.damage
    (record,) = [record for record in caplog.records if record.levelname == "WARNING"]
    assert "going on from version 2 as version 4" in record.getMessage()
    assert store.kept_versions() == [1, 2]
    assert load_checkpoint(store.newest_checkpoint())[2]["version"] == 2
    store.save(result(4, 5), params(5), state(5))
    store = reopen()
    assert (store.load().version, store.damage) == (5, None)


def test_a_version_that_is_missing_is_gone_back_from(three, kept, reopen):
    kept.lose(3)
    saved = reopen().load()
    assert (saved.round, saved.version) == (3, 4)
    np.testing.assert_array_equal(saved.params, params(2))


def test_an_abandoned_round_after_damage_keeps_the_model_that_it_began_from(three, kept, reopen):
    kept.flip(3, "checkpoint", -1)
    saved = (store := reopen()).load()
    store.save(result(4, 4, status="abandoned"), saved.params, saved.server_state)
    saved = (store := reopen()).load()
    assert (saved.round, saved.version, store.damage) == (4, 4, None)
    np.testing.assert_array_equal(saved.params, params(2))


def test_where_no_version_is_whole_it_is_one_clear_line(three, kept, reopen):
    for version in (1, 2, 3):
        kept.flip(version, "checkpoint" if version % 2 else "state", -1)
    with pytest.raises(ModelError, match=r"000003.*is damaged: it does not have the sha256") as error:
        reopen().load()
    assert "\n" not in str(error.value)


def test_a_state_that_another_version_left_is_not_taken_for_this_ones(three, kept, reopen):
    """Both files are whole by themselves; only the sha256 in the database tells them apart."""
    if isinstance(kept, Sqlite):
        kept.path(3, "state").write_bytes(kept.path(2, "state").read_bytes())
    else:
        kept._execute(
            "UPDATE versions SET state = (SELECT state FROM versions WHERE version = 2) WHERE version = 3"
        )
    assert reopen().load().version == 4
