"""Enrolling with and without tokens, revocation, and what a restart remembers."""

import subprocess
import sys
import threading
from contextlib import suppress

import pytest

from kbdfl.errors import ConfigError, DataError, Forbidden, ModelError, NotFound
from kbdfl.identity import device_id
from kbdfl.server.records import DATABASE, SqliteRecords
from kbdfl.server.registry import OPEN, TOKEN, Registry, make_tokens

KEY, OTHER = b"k" * 32, b"o" * 32


@pytest.fixture
def records(tmp_path):
    opened = SqliteRecords(tmp_path)
    yield opened
    opened.close()


@pytest.fixture
def guarded(records):
    return Registry(records, enrolment=TOKEN)


def test_whoever_comes_is_enrolled_where_enrolment_is_open(records):
    registry = Registry(records, enrolment=OPEN)
    assert [registry.enrol(KEY, 1.0) for _ in range(2)] == [device_id(KEY)] * 2
    assert registry.public_key(device_id(KEY)) == KEY
    assert registry.public_key("nobody") is None
    assert len(registry) == 1


def test_a_token_lets_one_device_in_as_often_as_it_asks(records, guarded):
    (token,) = make_tokens(records, 1, 1.0)
    assert [guarded.enrol(KEY, 2.0, token=token) for _ in range(3)] == [device_id(KEY)] * 3
    with pytest.raises(Forbidden, match="used by another device"):
        guarded.enrol(OTHER, 3.0, token=token)
    assert guarded.public_key(device_id(OTHER)) is None
    assert guarded.counts() == {"enrolled": 1, "revoked": 0, "unused_tokens": 0}


@pytest.mark.parametrize("token", [None, "", "0" * 32, "0" * 31, "A" * 32, "0" * 33, "é" * 32])
def test_no_other_token_lets_anybody_in(records, guarded, token):
    make_tokens(records, 5, 1.0)
    with pytest.raises(Forbidden, match="token"):
        guarded.enrol(KEY, 2.0, token=token)
    assert len(guarded) == 0
    assert guarded.counts()["unused_tokens"] == 5


def test_a_device_that_is_known_does_not_use_up_a_second_token(records, guarded):
    first, second = make_tokens(records, 2, 1.0)
    guarded.enrol(KEY, 2.0, token=first)
    assert guarded.enrol(KEY, 2.0, token=second) == device_id(KEY)
    assert guarded.enrol(OTHER, 2.0, token=second) == device_id(OTHER)


def test_of_many_that_show_one_token_at_once_one_is_let_in(records, guarded):
    (token,) = make_tokens(records, 1, 1.0)
    barrier, let_in = threading.Barrier(8), []

    def run(number):
        barrier.wait()
        with suppress(Forbidden):
            let_in.append(guarded.enrol(bytes([number]) * 32, 2.0, token=token))

    threads = [threading.Thread(target=run, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(let_in) == len(guarded) == 1


def test_tokens_are_kept_as_hashes_only(records, tmp_path):
    tokens = make_tokens(records, 20, 1.0)
    assert len(set(tokens)) == 20
    kept = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    assert not [token for token in tokens if token.encode() in kept or bytes.fromhex(token) in kept]


@pytest.mark.parametrize("count", [0, -1, 100_001])
def test_a_number_of_tokens_is_bounded(records, count):
    with pytest.raises(ConfigError, match=r"must lie in \[1, 100000\]"):
        make_tokens(records, count, 1.0)


def test_a_revoked_device_cannot_enrol_again_even_after_a_restart(records):
    registry = Registry(records)
    registry.enrol(KEY, 1.0)
    registry.revoke(device_id(KEY), 2.0)
    registry.revoke(device_id(KEY), 3.0)
    for known in (registry, Registry(records)):
        assert known.revoked(device_id(KEY))
        assert not known.revoked(device_id(OTHER))
        with pytest.raises(Forbidden, match="revoked"):
            known.enrol(KEY, 4.0)
    with pytest.raises(NotFound, match="no device nobody"):
        registry.revoke("nobody", 1.0)


def test_who_enrolled_is_known_after_a_kill(tmp_path):
    program = (
        "import os, signal, sys; from kbdfl.server.records import SqliteRecords\n"
        "from kbdfl.server.registry import Registry, make_tokens\n"
        "records = SqliteRecords(sys.argv[1]); registry = Registry(records, enrolment='token')\n"
        "registry.enrol(b'k' * 32, 1.0, token=make_tokens(records, 1, 1.0)[0])\n"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    assert subprocess.run([sys.executable, "-c", program, str(tmp_path)]).returncode == -9
    records = SqliteRecords(tmp_path)
    assert Registry(records).public_key(device_id(KEY)) == KEY
    records.close()


def test_what_is_no_enrolment_and_no_folder_of_a_server_is_one_clear_line(records, tmp_path):
    with pytest.raises(ConfigError, match="enrolment must be open or token, got closed"):
        Registry(records, enrolment="closed")
    with pytest.raises(DataError, match="must be a folder that `kbdfl serve` has kept"):
        SqliteRecords.existing(tmp_path / "nowhere")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / DATABASE).write_bytes(b"no database" * 1_000)
    with pytest.raises(ModelError, match="is not a database of this server"):
        SqliteRecords(tmp_path / "other")


def test_a_transaction_is_all_or_nothing(records):
    def fail():
        with records.writing():
            with records.writing():
                make_tokens(records, 3, 1.0)
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert records.one("SELECT count(*) FROM tokens") == 0
