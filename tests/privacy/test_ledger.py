"""A ledger that is durable before its models, and cannot be overspent or altered."""

import json
from dataclasses import replace

import pytest

import kbdfl.privacy.ledger
from kbdfl.errors import ConfigError, DataError
from kbdfl.privacy import Account, FileBooks, Ledger, MemoryBooks, Parts, Privacy
from kbdfl.privacy.ledger import account_of, check_rows

ACCOUNT = Account(Privacy("gaussian", noise_multiplier=3.0, separation=2), 1.0, 10, 5, 100)


@pytest.fixture(params=["memory", "file"])
def reopen(request, tmp_path):
    """Opens the same books again, as after a crash."""
    if request.param == "file":
        return lambda: FileBooks(tmp_path)
    books = MemoryBooks()
    return lambda: books


def book(ledger, round, devices=("ann", "bob")):
    return ledger.book(round, devices, clip_norm=1.0, next_clip_norm=1.0)


def test_rows_and_parts_are_there_when_the_books_are_opened_again(reopen):
    ledger = Ledger(ACCOUNT, reopen())
    rows = [book(ledger, 0), book(ledger, 3, ["bob"]), book(ledger, 4, ["cid", "ann"])]
    again = Ledger(ACCOUNT, reopen())
    assert reopen().rows() == rows
    assert again.last == rows[-1]
    assert [row.number for row in rows] == [0, 1, 2]
    assert reopen().participations() == {"ann": Parts(2, 2), "bob": Parts(2, 1), "cid": Parts(1, 2)}


def test_each_row_says_what_is_spent_so_far(reopen):
    ledger = Ledger(ACCOUNT, reopen())
    assert ledger.epsilon == 0.0
    for number in range(5):
        row = book(ledger, number)
        assert row.rho == pytest.approx((number // 2 + 1) / 18)
        assert row.epsilon == ledger.epsilon == ACCOUNT.epsilon(number + 1)
        assert row.delta == 1e-10


def test_releases_are_counted_and_not_rounds(reopen):
    ledger = Ledger(ACCOUNT, reopen())
    book(ledger, 0)
    assert book(ledger, 900).rho == pytest.approx(1 / 18)


def test_a_release_beyond_the_budget_is_refused_and_leaves_no_row(reopen):
    tight = replace(ACCOUNT, privacy=replace(ACCOUNT.privacy, epsilon=ACCOUNT.epsilon(2)))
    ledger = Ledger(tight, reopen())
    book(ledger, 0)
    assert ledger.affords()
    book(ledger, 1)
    assert not ledger.affords()
    with pytest.raises(ConfigError, match=r"budget of epsilon = .* is spent: round 2 cannot be released"):
        book(ledger, 2)
    assert len(reopen().rows()) == 2


def test_a_ledger_of_another_promise_is_refused(reopen):
    book(Ledger(ACCOUNT, reopen()), 0)
    for other in (
        replace(ACCOUNT, clip_norm=2.0),
        replace(ACCOUNT, privacy=replace(ACCOUNT.privacy, noise_multiplier=4.0)),
        replace(ACCOUNT, cohort=6),
    ):
        with pytest.raises(ConfigError, match="another promise"):
            Ledger(other, reopen())


def test_a_row_says_which_account_it_is_of(reopen):
    assert account_of(book(Ledger(ACCOUNT, reopen()), 0)) == ACCOUNT
    with pytest.raises(DataError, match="does not say what"):
        account_of(replace(reopen().rows()[0], terms={"privacy": {"mechanism": "magic"}}))


def test_a_row_that_was_changed_or_left_out_is_noticed(tmp_path):
    ledger = Ledger(ACCOUNT, FileBooks(tmp_path))
    rows = [book(ledger, number) for number in range(4)]
    assert check_rows(rows) == rows
    changed = [rows[0], replace(rows[1], rho=0.0), *rows[2:]]
    for bad in (changed, rows[1:], rows[:1] + rows[2:], [*rows[:2], rows[1], *rows[2:]]):
        with pytest.raises(DataError, match="altered"):
            check_rows(bad)
    path = tmp_path / "ledger.jsonl"
    path.write_text(path.read_text().replace('"round": 1,', '"round": 0,'))
    with pytest.raises(DataError, match="altered"):
        Ledger(ACCOUNT, FileBooks(tmp_path))


@pytest.mark.parametrize("line", ["[]", "{}", "nonsense", '{"number": 0}'])
def test_a_line_that_is_no_row_is_refused(line, tmp_path):
    (tmp_path / "ledger.jsonl").write_text(line + "\n")
    with pytest.raises(DataError, match="a ledger must hold"):
        Ledger(ACCOUNT, FileBooks(tmp_path))


def test_a_line_that_was_not_written_to_its_end_is_dropped(tmp_path):
    row = book(Ledger(ACCOUNT, FileBooks(tmp_path)), 0)
    for name in ("ledger.jsonl", "participations.jsonl"):
        with open(tmp_path / name, "a") as file:
            file.write('{"number": 1, "de')
    books = FileBooks(tmp_path)
    assert books.rows() == [row]
    assert books.participations().keys() == {"ann", "bob"}
    book(Ledger(ACCOUNT, books), 1, ["cid"])
    assert len(FileBooks(tmp_path).rows()) == 2


def test_devices_are_written_before_the_row_that_counts_them(tmp_path, monkeypatch):
    """A crash between the two bars devices that were not released; the other way round it would let them in twice."""
    ledger = Ledger(ACCOUNT, FileBooks(tmp_path))

    real = kbdfl.privacy.ledger._append

    def full(path, line):
        if path.name == "ledger.jsonl":
            raise OSError("no space left")
        real(path, line)

    monkeypatch.setattr("kbdfl.privacy.ledger._append", full)
    with pytest.raises(OSError, match="no space"):
        book(ledger, 0)
    assert len(ledger) == 0
    assert FileBooks(tmp_path).rows() == []
    assert FileBooks(tmp_path).participations() == {"ann": Parts(1, 0), "bob": Parts(1, 0)}


def test_a_row_is_on_the_disk_before_book_returns(tmp_path, monkeypatch):
    synced = []
    monkeypatch.setattr("os.fsync", lambda descriptor: synced.append(descriptor))
    book(Ledger(ACCOUNT, FileBooks(tmp_path)), 0)
    assert len(synced) == 4  # two files, and their folder for each


def test_the_ledger_is_read_as_json_lines(tmp_path):
    book(Ledger(ACCOUNT, FileBooks(tmp_path)), 0)
    (line,) = (tmp_path / "ledger.jsonl").read_text().splitlines()
    assert json.loads(line)["terms"]["privacy"]["noise_multiplier"] == 3.0
