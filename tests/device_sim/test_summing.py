"""A simulation of a secure task: its sums are those of the masked protocol, and it repeats itself to the byte."""

from dataclasses import replace

import numpy as np
import pytest

from kbdfl.algorithms import Algorithm, ClientRule
from kbdfl.algorithms.secure import SecureAggregation
from kbdfl.device_sim.faults import Storm
from kbdfl.device_sim.secure import payload_of
from kbdfl.device_sim.summing import Summing
from kbdfl.errors import ConfigError
from kbdfl.params import digest
from kbdfl.secagg import Floors, Rule
from kbdfl.secagg.rehearsal import rehearse
from kbdfl.secure import terms_of
from kbdfl.wire import decode_report

SECURE = Algorithm(
    client=ClientRule(batch_size=4, learning_rate=1.0),
    upload="rotate-shared+shared:0.25+fixed:15",
    update_clip_norm=1.0,
    weights="uniform",
    secure=SecureAggregation(on=True, devices=8, phase_deadline_s=2.0),
)
RULE = {"cohort": 10, "over_selection": 1.2, "min_reports": 8, "deadline_s": 20.0}


@pytest.fixture
def sessions(monkeypatch):
    """Of every session: the words of each phone, an assignment, and the total."""
    seen, close = [], Summing.close

    def watched(self, coordinator, now):
        words = {
            device: payload_of(job.assignment).of(decode_report(done.frame, max_bytes=10**6))
            for device, (job, done) in self._jobs.items()
        }
        assignment = next(iter(self._jobs.values()))[0].assignment if self._jobs else None
        seen.append((words, assignment, self.total))
        return close(self, coordinator, now)

    monkeypatch.setattr(Summing, "close", watched)
    return seen


def test_the_sum_of_a_simulation_is_that_of_masked_words(play, sessions):
    rows, simulation = play(algorithm=SECURE, rule=RULE, dropout=0.1)
    assert len(sessions) == len(rows) == 3
    for row, (words, assignment, total) in zip(rows, sessions, strict=True):
        assert row["reports"] == len(words) >= 8
        terms = terms_of(simulation.coordinator.task, assignment, session=b"s" * 16, now=1_800_000_000.0)
        given = list(words.values())
        floors, rule = Floors(devices=8), Rule(devices=8)
        run = rehearse(
            terms, lambda place, given=given: given[place], devices=len(given), floors=floors, rule=rule
        )
        np.testing.assert_array_equal(run.total.levels, total)
        assert row["uplink_bytes"] == sum(run.up_bytes(place) for place in range(len(given)))


def test_rounds_have_all_who_trained_in_time_and_end_as_a_session_does(play):
    rows, simulation = play(algorithm=SECURE, rule=RULE | {"rounds": 2})
    assert [(row["status"], row["reports"], row["dropped"]) for row in rows] == [("committed", 12, 0)] * 2
    rows, simulation = play(algorithm=SECURE, rule=RULE | {"rounds": 6}, dropout=0.4, seed=3)
    assert {row["status"] for row in rows} == {"committed", "abandoned"}
    # Fewer than eight are not summed up, and nobody is counted then.
    assert all(
        row["reports"] == 0 if row["status"] == "abandoned" else 8 <= row["reports"] <= 12 for row in rows
    )
    assert simulation.coordinator.version == sum(row["status"] == "committed" for row in rows)


def test_any_number_of_workers_ends_in_the_same_bytes(play):
    ends = {
        digest(play(algorithm=SECURE, rule=RULE, workers=workers)[1].coordinator.params) for workers in (1, 3)
    }
    assert len(ends) == 1


def test_it_learns_about_what_plain_sums_do(play):
    rule = RULE | {"rounds": 12}
    losses = [
        np.mean([row["train_loss"] for row in play(algorithm=algorithm, rule=rule)[0][-3:]])
        for algorithm in (SECURE, replace(SECURE, secure=SecureAggregation()))
    ]
    assert losses[0] == pytest.approx(losses[1], rel=0.05)


def test_a_storm_is_refused(run_config):
    config = replace(run_config(rule=RULE), algorithm=SECURE)
    with pytest.raises(ConfigError, match="faults must be none with secure"):
        Storm(config, None, None)
