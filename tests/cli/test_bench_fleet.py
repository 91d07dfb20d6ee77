"""`kbdfl bench fleet`: a country in small, and rounds of clients, as they are printed."""

import json

import pytest


def bench(kbdfl, *arguments):
    code, out, err = kbdfl("bench", "fleet", *arguments, "--json")
    assert (code, err) == (0, "")
    return json.loads(out)


def test_a_small_country_plays_every_check_in(kbdfl):
    found = bench(kbdfl, "--population", 3000, "--virtual-days", 1)
    assert found["what"] == "no-train"
    assert found["population"] == 3000
    # Nine in ten have a window of about eight hours and come every two, until they took part.
    assert 1.5 * 3000 < found["events"] < 6 * 3000
    assert found["reports"] >= 100 * found["committed"] > 0
    assert 0 < found["phones_heard"] <= found["reports"]
    assert found["peak_rss_bytes"] > 1 << 20
    assert found["events_per_s"] == pytest.approx(found["events"] / found["wall_s"], rel=0.1)


def test_the_same_country_is_the_same_twice(kbdfl):
    one, two = (bench(kbdfl, "--population", 2000, "--virtual-days", 0.3) for _ in range(2))
    names = ("events", "rounds", "committed", "reports", "phones_heard")
    assert [one[name] for name in names] == [two[name] for name in names]


@pytest.mark.parametrize("engine", ["threads", "processes"])
def test_clients_that_do_nothing_are_counted(kbdfl, engine):
    options = ["--preset", "tiny", "--engine", engine, "--workers", 2, "--clients", 8, "--rounds", 3]
    found = bench(kbdfl, "--noop", *options)
    assert found["rounds"] == 2
    assert 0 < found["slowest"] <= found["clients_per_s"] <= found["fastest"]
    assert "share_of_kernel" not in found


def test_clients_that_train_stand_beside_the_bare_kernel(kbdfl):
    found = bench(kbdfl, "--train", "--preset", "tiny", "--workers", 1, "--clients", 4, "--rounds", 3)
    assert found["kernel_clients_per_s"] > 0
    assert 0 < found["share_of_kernel"] < 3


def test_an_engine_that_is_none_is_refused(kbdfl):
    code, out, err = kbdfl("bench", "fleet", "--noop", "--engine", "horses")
    assert (code, out) == (2, "")
    assert "engine must be one of" in err
