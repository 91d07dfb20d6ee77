"""What is PostgreSQL's own: addresses, lines for what cannot be, and the records that several servers share."""

import subprocess
import sys
import threading
from types import SimpleNamespace

import pytest

from kbdfl.errors import (
    ConfigError,
    Conflict,
    DataError,
    Forbidden,
    KbdflError,
    ModelError,
    ServerUnavailable,
)
from kbdfl.identity import FRESH_S
from kbdfl.model import CifgConfig
from kbdfl.server import audit_log, backup
from kbdfl.server.administration import Administration, TaskAdministration
from kbdfl.server.postgres.address import Address
from kbdfl.server.postgres.link import Link, translated
from kbdfl.server.postgres.records import PostgresRecords
from kbdfl.server.postgres.store import PostgresStore
from kbdfl.server.postgres.turn import SharedTurn
from kbdfl.server.registry import TOKEN, Registry, make_tokens
from kbdfl.server.store import SqliteStore
from tests.server import cluster

SPEC = CifgConfig(vocab=8, embed=2, hidden=3).spec
NOW = 1_800_000_000.0


@pytest.fixture
def both(postgres):
    """The records as two servers see them."""
    opened = [PostgresRecords(Address(postgres)) for _ in range(2)]
    yield opened
    for each in opened:
        each.close()


# addresses


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("mysql://host/name", "must be an address like postgresql://"),
        ("server.sqlite3", "must be an address like postgresql://"),
        ("postgresql://user:secret@host/name", "must not hold a password"),
        ("postgresql://user@host/name?password=secret", "must not hold a password"),
        ("postgresql://[::1/name", "must be an address like"),
    ],
)
def test_an_address_that_cannot_be_is_one_line_that_shows_no_password(url, words):
    with pytest.raises(ConfigError, match=words) as error:
        Address(url)
    assert "\n" not in str(error.value)
    assert "secret" not in str(error.value)


def test_a_task_has_a_schema_of_its_own_whose_name_fits():
    assert Address("postgresql://host/name", "german").schema == "kbdfl_german"
    for name in ("", "x" * 58, "a\0b"):
        with pytest.raises(ConfigError, match="a name of 1 to 57 bytes"):
            Address("postgresql://host/name", name)


def test_a_folder_says_where_its_task_is_kept_and_keeps_to_it(tmp_path):
    address = Address("postgresql://host/name", "german")
    assert Address.of_folder(tmp_path) is None
    address.keep(tmp_path)
    address.keep(tmp_path)
    assert Address.of_folder(tmp_path) == address
    with pytest.raises(ConfigError, match="belongs to task 'german' of another database"):
        Address("postgresql://host/other", "german").keep(tmp_path)
    (tmp_path / "postgres.json").write_text("{}")
    with pytest.raises(DataError, match="does not say which database"):
        Address.of_folder(tmp_path)


def test_a_folder_that_keeps_a_task_itself_is_refused(tmp_path):
    SqliteStore(tmp_path, SPEC).close()
    with pytest.raises(ConfigError, match=r"keeps a task in server\.sqlite3"):
        PostgresStore(tmp_path, SPEC, address=Address("postgresql:///nowhere?host=/nowhere"))
    assert not (tmp_path / "postgres.json").exists()


def test_a_backup_of_a_folder_that_keeps_nothing_says_what_does(tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    Address("postgresql://host/name").keep(folder)
    with pytest.raises(ConfigError, match="pg_dump --schema='kbdfl_default' --schema=kbdfl"):
        backup.back_up(folder, tmp_path / "copy.tar.gz")


# what is refused


def test_a_server_that_cannot_be_reached_is_one_line(tmp_path):
    pytest.importorskip("psycopg")
    with pytest.raises(ServerUnavailable, match=r"^PostgreSQL: ") as error:
        PostgresStore(tmp_path / "run", SPEC, address=Address(f"postgresql://kbdfl@/x?host={tmp_path}"))
    assert "\n" not in str(error.value)
    assert not (tmp_path / "run" / "postgres.json").exists()


def test_without_psycopg_it_is_one_line_that_says_what_to_install(tmp_path):
    program = (
        "import sys; sys.modules['psycopg'] = None\n"
        "from kbdfl.errors import ConfigError\n"
        "from kbdfl.server.postgres.address import Address\n"
        "from kbdfl.server.postgres.link import Link\n"
        "try: Link('postgresql://host/name', ['kbdfl']).rows('SELECT 1')\n"
        "except ConfigError as error: print(error)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip().endswith("pip install 'kbdfl[postgres]'")


def test_a_server_that_does_not_flush_is_refused(tmp_path):
    if why := cluster.missing() or (cluster.programs() is None and "no PostgreSQL is installed here"):
        pytest.skip(why)
    with (
        cluster.running("fsync=off") as url,
        pytest.raises(ModelError, match="must flush what it commits"),
    ):
        PostgresStore(tmp_path / "run", SPEC, address=Address(url))


def test_commits_are_flushed_though_the_database_says_otherwise(postgres):
    import psycopg

    with psycopg.connect(postgres, autocommit=True) as connection:
        name = connection.info.dbname
        connection.execute(f"ALTER DATABASE {name} SET synchronous_commit TO off")
    link = Link(postgres, ["kbdfl"])
    assert link.one("SHOW synchronous_commit") == "on"
    link.close()


def test_a_connection_that_is_lost_in_a_transaction_is_not_replaced_in_it(postgres):
    """What came after would be kept, and what came before it would not."""
    import psycopg

    link = Link(postgres, ["public"])
    link.script("CREATE TABLE kept (what text)")

    def lose_it():
        with link.transaction():
            link.rows("INSERT INTO kept VALUES ('before')")
            with psycopg.connect(postgres, autocommit=True) as connection:
                connection.execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'kbdfl'"
                )
            for what in ("at", "after"):
                with pytest.raises(ServerUnavailable):
                    link.rows("INSERT INTO kept VALUES (%s)", what)

    with pytest.raises(ServerUnavailable, match="was lost in a transaction"):
        lose_it()
    assert link.rows("SELECT what FROM kept") == []
    link.rows("INSERT INTO kept VALUES ('anew')")
    assert link.one("SELECT what FROM kept") == "anew"
    link.close()


def test_tables_of_another_version_are_refused(postgres, tmp_path):
    store = PostgresStore(tmp_path / "run", SPEC, address=Address(postgres))
    store._link.rows("UPDATE format SET number = '0'")
    store.close()
    with pytest.raises(ConfigError, match="made by another version of this program"):
        PostgresStore(tmp_path / "run", SPEC, address=Address(postgres))


def test_tasks_of_one_database_do_not_see_each_other(postgres, tmp_path):
    stores = [
        PostgresStore(tmp_path / name, SPEC, address=Address(postgres, name))
        for name in ("german", 'odd "name"')
    ]
    assert stores[0].agreed("config", "a") == "a"
    assert stores[1].agreed("config", "b") == "b"
    assert stores[0].agreed("config", "c") == "a"
    for store in stores:
        store.close()


def test_queries_of_the_records_are_put_in_postgresqls_words():
    assert translated("SELECT a FROM b WHERE only = ? AND c LIKE '%' AND d IS ?") == (
        "SELECT a FROM b WHERE \"only\" = %s AND c LIKE '%%' AND d IS NOT DISTINCT FROM %s"
    )
    assert translated("json_extract(entry, '$.round') < ?") == "(entry::json ->> 'round')::bigint < %s"


# records


def test_who_enrols_at_one_server_is_known_at_the_other(both):
    here, there = (Registry(each) for each in both)
    device = here.enrol(b"k" * 32, NOW)
    assert there.public_key(device) == b"k" * 32
    assert (len(here), len(there)) == (1, 1)
    assert there.enrol(b"k" * 32, NOW) == device
    there.revoke(device, NOW)
    assert here.revoked(device)
    with pytest.raises(Forbidden, match="revoked"):
        here.enrol(b"k" * 32, NOW)
    assert here.counts() == there.counts() == {"enrolled": 1, "revoked": 1, "unused_tokens": 0}


def test_a_token_lets_one_device_in_though_two_show_it_at_once(both):
    (token,) = make_tokens(both[0], 1, NOW)
    told, begin = [], threading.Barrier(2)

    def enrol(number):
        registry = Registry(both[number], enrolment=TOKEN)
        begin.wait()
        try:
            told.append(registry.enrol(bytes([number]) * 32, NOW, token=token))
        except Forbidden as error:
            told.append(str(error))

    threads = [threading.Thread(target=enrol, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted("used by another" in each for each in told) == [False, True]
    assert Registry(both[0]).counts() == {"enrolled": 1, "revoked": 0, "unused_tokens": 0}


def test_entries_that_two_servers_append_at_once_are_one_chain(both):
    def append(number):
        for at in range(20):
            audit_log.append(both[number], at_s=NOW, by="a test", what="something", server=number, at=at)

    threads = [threading.Thread(target=append, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert audit_log.verify(both[0]).entries == 40
    found = audit_log.entries(both[1], before=40, most=3)
    assert [entry["number"] for entry in found] == [39, 38, 37]
    audit_log.append(both[0], at_s=NOW, by="server", what=audit_log.OPENED)
    assert [entry["number"] for entry in audit_log.acts(both[1], most=2)] == [40, 39]
    both[0].rows(
        "UPDATE audit_log SET entry = replace(entry, '\"at\":7', '\"at\":8') WHERE entry LIKE '%\"at\":7%'"
    )
    with pytest.raises(DataError, match="is not whole"):
        audit_log.verify(both[1])


def test_rounds_are_found_in_the_log_by_their_task(both):
    for number in range(3):
        for task in ({}, {"task": "german"}):
            audit_log.append(both[0], at_s=NOW, by="server", what="round committed", round=number, **task)
    audit_log.append(both[0], at_s=NOW, by="server", what="round opened", round=3)
    assert [entry["round"] for entry in audit_log.closed_rounds(both[1], before=2)] == [1, 0]
    assert len(audit_log.closed_rounds(both[1], task="german", most=2)) == 2
    assert audit_log.last_round(both[1], *audit_log.CLOSED) == 2
    assert audit_log.last_round(both[1], audit_log.OPENED, task="german") == -1


def test_a_state_and_its_entry_are_one_transaction_and_both_see_it(postgres, tmp_path):
    address, folders = Address(postgres), [tmp_path / name for name in "ab"]
    servers = []
    for folder in folders:
        folder.mkdir()
        address.keep(folder)
        servers.append(Administration(folder, wall_clock=lambda: NOW))
    assert isinstance(servers[0].records, PostgresRecords)
    here, there = (TaskAdministration(server, name="german") for server in servers)
    assert (here.state, there.touched) == ("open", False)
    here.become("paused", by="a test")
    assert (there.state, there.touched) == ("paused", True)
    with pytest.raises(Conflict, match="paused already"):
        there.become("paused", by="a test")
    assert audit_log.verify(servers[1].records).entries == 1
    for server in servers:
        server.close()


# nonces


def meet(nonces, nonce="n" * 32, *, signed_s=NOW, request=b"r" * 32, now=NOW):
    return nonces.meet("phone", nonce, signed_s=int(signed_s), request=request, now=now)


def test_a_nonce_that_came_to_one_server_is_known_at_the_other(both):
    here, there = (each.nonces(began_s=NOW - 1) for each in both)
    first = meet(here)
    assert (first.first, first.fresh, first.marked) == (True, True, False)
    again = meet(there)
    assert (again.first, again.fresh, again.marked) == (False, False, False)
    there.mark(again)
    assert meet(here).marked
    with pytest.raises(Conflict, match="with another request"):
        meet(there, request=b"s" * 32)
    assert meet(here, "o" * 32, signed_s=NOW - 10).fresh is False  # signed before anybody remembered


def test_of_two_that_come_at_once_one_is_the_first(both):
    nonces = [each.nonces(began_s=NOW - 1) for each in both]
    firsts, begin = [], threading.Barrier(2)

    def come(number):
        for at in range(30):
            begin.wait()
            firsts.append((at, meet(nonces[number], f"{at:032}").first))

    threads = [threading.Thread(target=come, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(firsts) == [(at, first) for at in range(30) for first in (False, True)]


def test_what_is_no_longer_fresh_is_forgotten_and_not_known_again(both):
    here = both[0].nonces(began_s=NOW - 1)
    meet(here)
    later = NOW + FRESH_S + 120
    assert meet(here, "m" * 32, signed_s=later, now=later).fresh
    assert len(here) == 1
    assert not meet(here, signed_s=NOW, now=later + 120).fresh  # should a clock be set back


def test_a_memory_that_postgresql_has_emptied_begins_anew(both):
    here = both[0].nonces(began_s=NOW - 1)
    meet(here)
    both[0].rows("TRUNCATE nonces, nonces_began")  # as it does after a crash with what is not logged
    replayed = meet(here, now=NOW + 5)
    assert (replayed.first, replayed.fresh) == (True, False)
    assert meet(here, "m" * 32, signed_s=NOW + 6, now=NOW + 6).fresh


def test_too_many_are_refused(both):
    nonces = both[0].nonces(began_s=NOW - 1)
    nonces._most = 3
    for number in range(4):
        meet(nonces, f"{number:032}")
    with pytest.raises(KbdflError, match="3 requests are remembered"):
        meet(nonces, "z" * 32, signed_s=NOW + 61, now=NOW + 61)


# tasks that one process alone can serve


@pytest.mark.parametrize(
    ("privacy", "secure", "words"),
    [(object(), False, "privacy must be none"), (None, True, "secure aggregation must be off")],
)
def test_a_task_that_one_process_alone_can_serve_is_refused_in_one_line(privacy, secure, words):
    algorithm = SimpleNamespace(secure=SimpleNamespace(on=secure))
    coordinator = SimpleNamespace(privacy=privacy, task=SimpleNamespace(algorithm=algorithm))
    with pytest.raises(ConfigError, match=words) as error:
        SharedTurn(SimpleNamespace(turn_link=None), coordinator)
    assert "\n" not in str(error.value)
