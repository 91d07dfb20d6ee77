"""In which order a folder's files and rows become durable, and whose it is. See also test_store_contract.py."""

import sqlite3
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest

from kbdfl.errors import ConfigError, ModelError
from kbdfl.model import CifgConfig
from kbdfl.server import store as store_module
from kbdfl.server import versions
from kbdfl.server.store import SqliteStore
from tests.server.test_store_contract import SPEC, params, result, state


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
    write = versions.write_atomically

    def spy(path, content):
        seen.append((path.name, store.metrics()[0]))
        write(path, content)

    monkeypatch.setattr(versions, "write_atomically", spy)
    store.save(result(0, 1), params(1), state(1))
    assert seen == [("000001.server.safetensors", []), ("000001.safetensors", [])]


def test_only_the_newest_checkpoints_are_kept(reopen):
    store = reopen(keep=2)
    for number in range(5):
        store.save(result(number, number + 1), params(number + 1), state(number + 1))
    names = sorted(path.name for path in store.checkpoints.iterdir())
    assert names == [f"00000{v}.{kind}" for v in (4, 5) for kind in ("safetensors", "server.safetensors")]
    assert store.newest_checkpoint().name == "000005.safetensors"


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


def test_a_folder_of_an_earlier_program_goes_on_and_gets_its_sha256s(reopen, tmp_path):
    """It has no table of them: a checkpoint's own seal is all there is."""
    store = reopen()
    store.save(result(0, 1), params(1), state(1))
    store.save(result(1, 2), params(2), state(2))
    store.close()
    with sqlite3.connect(tmp_path / "server.sqlite3") as database:
        database.execute("DROP TABLE versions")
    store = reopen()
    assert store.load().version == 2
    store.save(result(2, 3), params(3), state(3))
    with sqlite3.connect(tmp_path / "server.sqlite3") as database:
        assert database.execute("SELECT version FROM versions").fetchall() == [(3,)]
    for path in store.checkpoints.glob("00000[23].safetensors"):
        content = bytearray(path.read_bytes())
        content[-1] ^= 1
        path.write_bytes(content)
    store = reopen()
    assert store.load().version == 4
    np.testing.assert_array_equal(store.load().params, params(1))
