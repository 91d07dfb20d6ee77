"""Dozens of phones on a few threads against a real server."""

import threading
from collections import Counter

import pytest

from kbdfl.algorithms import Algorithm, ClientRule, FedBuff
from kbdfl.device_sim import agent
from kbdfl.device_sim.agent import ServerClient
from kbdfl.device_sim.fleet import Fleet
from kbdfl.device_sim.population import Population
from kbdfl.errors import DataError, KbdflError, ServerUnavailable
from kbdfl.kernels.train import Workspace
from kbdfl.privacy import Privacy


@pytest.fixture
def make_fleet(texts):
    def make(url, *, workers=2, dropout=0.0, source=texts):
        return Fleet(ServerClient(url), Population(source), workers=workers, seed=1, dropout=dropout)

    return make


def test_a_fleet_finishes_a_task_and_both_sides_count_the_same(served, make_fleet):
    with served(cohort=5, over_selection=1.0, rounds=6) as (service, url):
        fleet = make_fleet(url)
        seen = []
        assert fleet.enrol(on_phone=lambda: seen.append(1)) == fleet.size == len(fleet.phones) == len(seen)
        fleet.run()
        totals = service.status()["totals"]
        assert (totals["committed"], totals["abandoned"]) == (6, 0)
        assert totals["reports"] == fleet.outcomes["reported"] == 30
        assert totals["dropped"] == fleet.outcomes["late"] == fleet.outcomes["dropped"] == 0
        assert totals["uplink_bytes"] == fleet.uplink_bytes
        assert totals["downlink_bytes"] == fleet.downlink_bytes
        assert fleet.outcomes["finished"] >= 1
        assert service.status()["phones"]["enrolled"] == fleet.size


def test_a_fleet_learns_with_candidates_and_reports_some_words_only(served, make_fleet):
    few = ClientRule(candidates=8, report_words=10)
    with served(cohort=5, over_selection=1.0, rounds=3, client=few) as (service, url):
        fleet = make_fleet(url)
        fleet.enrol()
        fleet.run()
        totals = service.status()["totals"]
        assert (totals["committed"], totals["reports"]) == (3, 15)
        assert service.task.max_report_bytes < 4 * service.task.config.spec.size + 65_536


@pytest.mark.parametrize("dropout", [0.0, 0.2])
def test_a_fleet_finishes_an_asynchronous_task(served, make_fleet, dropout):
    mode = FedBuff(concurrency=6)
    deadline_s = 1.0 if dropout else 60.0
    with served(cohort=3, rounds=12, deadline_s=deadline_s, mode=mode) as (service, url):
        fleet = make_fleet(url, dropout=dropout)
        fleet.enrol()
        fleet.run()
        rows, _ = service.metrics(0)
        totals = service.status()["totals"]
        assert [(row["status"], row["version"], row["reports"]) for row in rows] == [
            ("committed", number + 1, 3) for number in range(12)
        ]
        assert all(0 <= row["staleness"] <= mode.max_staleness for row in rows)
        assert totals["reports"] == fleet.outcomes["reported"] == 36
        assert service.status()["phones"]["training"] == 0
        if not dropout:
            # No model was gone before it was fetched; some phones may have been at work at the end.
            assert totals["uplink_bytes"] <= fleet.uplink_bytes
            assert fleet.outcomes["late"] <= totals["dropped"] < mode.concurrency


def test_phones_that_drop_out_stay_out_and_over_selection_makes_up_for_them(served, make_fleet):
    with served(cohort=4, over_selection=2.0, min_reports=1, rounds=8, deadline_s=1.5) as (service, url):
        fleet = make_fleet(url, dropout=0.35)
        fleet.enrol()
        fleet.run()
        totals = service.status()["totals"]
        assert totals["committed"] == 8
        assert totals["reports"] == fleet.outcomes["reported"]
        assert totals["uplink_bytes"] <= fleet.uplink_bytes  # late reports travelled and do not count
        assert fleet.outcomes["dropped"] >= 3
        # selected and never counted: dropped, late, or still about to begin when their round ended
        assert totals["dropped"] >= fleet.outcomes["dropped"]


def test_every_dropped_phone_of_a_round_is_a_different_one(served, make_fleet, monkeypatch):
    dropped = []
    original = agent.Phone.cycle

    def cycle(self, *, workspace, drops, **more):
        rounds = []
        watched = lambda a: rounds.append(a.round) or drops(a)  # noqa: E731
        done = original(self, workspace=workspace, drops=watched, **more)
        if done.outcome == "dropped":
            dropped.append((self.device, rounds[-1]))
        return done

    monkeypatch.setattr(agent.Phone, "cycle", cycle)
    with served(cohort=4, over_selection=2.5, min_reports=1, rounds=5, deadline_s=1.0) as (_, url):
        fleet = make_fleet(url, dropout=0.5)
        fleet.enrol()
        fleet.run()
    assert len(dropped) > 3
    assert len(set(dropped)) == len(dropped)


def test_phones_take_turns(served, make_fleet):
    with served(cohort=8, over_selection=1.0, rounds=4) as (service, url):
        fleet = make_fleet(url)
        eligible = fleet.enrol()
        reported = set()
        report = service.report
        service.report = lambda device, number, frame: reported.add(device) or report(device, number, frame)
        fleet.run()
        assert len(reported) > eligible / 2


def test_phones_with_nothing_to_say_are_enrolled_and_do_not_check_in(served, make_fleet, texts, make_texts):
    users = Population(texts).users
    silent = make_texts({user: ["..."] if user in users[:9] else said for user, said in texts.texts.items()})
    with served(cohort=2, rounds=2) as (service, url):
        fleet = make_fleet(url, source=silent)
        assert fleet.enrol() == fleet.size - 9
        fleet.run()
        assert service.status()["totals"]["committed"] == 2
    mute = make_texts({user: ["!"] for user in texts.users()})
    with served(folder=service.folder.with_name("second")) as (_, url):
        fleet = make_fleet(url, source=mute)
        with pytest.raises(DataError, match="no phone can take part"):
            fleet.enrol()


def test_a_server_that_goes_away_ends_the_fleet_in_one_line(served, make_fleet, monkeypatch):
    monkeypatch.setattr(agent, "_RETRY", agent._RETRY.new(total=0))
    with served(cohort=4, rounds=100_000) as (_, url):
        fleet = make_fleet(url)
        fleet.enrol()
        failed = []

        def run():
            try:
                fleet.run()
            except KbdflError as error:
                failed.append(error)

        thread = threading.Thread(target=run)
        thread.start()
    thread.join(30)
    assert not thread.is_alive()
    assert isinstance(failed[0], ServerUnavailable)
    assert "\n" not in str(failed[0])


def test_stop_ends_a_running_fleet(served, make_fleet):
    with served(cohort=4, rounds=100_000) as (service, url):
        fleet = make_fleet(url)
        fleet.enrol()
        thread = threading.Thread(target=fleet.run)
        thread.start()
        fleet.stop()
        thread.join(30)
        assert not thread.is_alive()
        assert service.status()["phase"] == "open"


def test_enrolling_where_nobody_listens_is_one_line(make_fleet, monkeypatch):
    monkeypatch.setattr(agent, "_RETRY", agent._RETRY.new(total=0))
    with pytest.raises(ServerUnavailable) as error:
        make_fleet("http://127.0.0.1:9").enrol()
    assert "\n" not in str(error.value)


def test_phones_keep_their_promise_in_a_file_and_refuse_another_part_in_the_next_fleet(
    served, make_fleet, tmp_path
):
    """The second server knows nobody: the phones alone know that they have had their part."""
    algorithm = Algorithm(
        upload="float32",
        update_clip_norm=1.0,
        weights="uniform",
        privacy=Privacy("gaussian", noise_multiplier=1.0, participations=1),
    )
    with served(cohort=3, over_selection=1.0, rounds=2, algorithm=algorithm) as (service, url):
        fleet = make_fleet(url)
        fleet.memory = tmp_path / "phones"
        fleet.enrol()
        fleet.run()
        assert sorted(row.devices for row in service._store.books.rows()) == [3, 3]
    files = list(fleet.memory.iterdir())
    assert len(files) == 6
    with served(folder=tmp_path / "forgot", cohort=40, over_selection=1.0, algorithm=algorithm) as (_, url):
        again = make_fleet(url)
        again.memory = fleet.memory
        again.enrol()
        came = Counter(phone.cycle(workspace=Workspace()).outcome for phone in again.phones)
        assert came == {"declined": 6, "reported": again.size - 6}
    assert len(list(fleet.memory.iterdir())) == again.size
    files[0].write_bytes(b"{")
    with served(folder=tmp_path / "third", algorithm=algorithm) as (_, url):
        third = make_fleet(url)
        third.memory = fleet.memory
        with pytest.raises(DataError, match="must hold a phone's parts by task"):
            third.enrol()
