"""Federated rounds on a virtual clock: who reports in time, what the rows say, and that bytes are reproducible."""

from dataclasses import replace

import numpy as np
import pytest

from kbdfl.algorithms import Algorithm, ClientRule, FedAvg, FedYogi, Krum, Median, TrimmedMean
from kbdfl.device_sim import work
from kbdfl.device_sim.devices import MID
from kbdfl.device_sim.population import Population
from kbdfl.device_sim.runtime import OverBudget, has_known_word
from kbdfl.errors import ConfigError, DataError
from kbdfl.params import digest

ROW_KEYS = {
    "round", "status", "version", "reports", "dropped", "refused", "staleness", "tokens", "train_loss",
    "recall_top1", "recall_top3", "uplink_bytes", "downlink_bytes", "socket_up_bytes", "socket_down_bytes",
    "socket_devices", "wall_s", "virtual_s", "epsilon",
}  # fmt: skip


def test_every_round_has_a_whole_row(play):
    rows, simulation = play()
    assert [row["round"] for row in rows] == [0, 1, 2]
    assert all(row.keys() == ROW_KEYS for row in rows)
    size = simulation.coordinator.params.size
    for row in rows:
        assert row["status"] == "committed"
        assert row["reports"] == 4
        assert row["dropped"] == 2  # six were selected for four reports
        assert 4 * size * 6 < row["downlink_bytes"] < 4 * size * 6 + 6 * 500
        assert 0 < row["uplink_bytes"] < 4 * (size + size // 50 + 1000)
        assert row["train_loss"] > 0
        assert row["epsilon"] is None
    assert [row["version"] for row in rows] == [1, 2, 3]
    assert [row["virtual_s"] for row in rows] == sorted(row["virtual_s"] for row in rows)
    assert simulation.coordinator.phase == "finished"


def test_the_model_is_measured_every_so_often_and_at_the_end(play):
    rows, _ = play(evaluate_every=2, rule={"rounds": 5})
    assert [row["recall_top1"] is not None for row in rows] == [False, True, False, True, True]
    for row in rows:
        if row["recall_top1"] is not None:
            assert 0 <= row["recall_top1"] <= row["recall_top3"] <= 1


def test_loss_falls_over_rounds(play):
    averaging = Algorithm(ClientRule(learning_rate=3.0, epochs=4, batch_size=4), server=FedAvg())
    rows, _ = play(rule={"rounds": 30, "cohort": 8}, algorithm=averaging)
    losses = [row["train_loss"] for row in rows]
    assert np.mean(losses[-5:]) < np.mean(losses[:5]) - 0.2


def test_any_number_of_workers_ends_in_the_same_bytes_and_another_seed_does_not(play):
    ends = {}
    for workers, seed in [(1, 1), (2, 1), (3, 1), (1, 2)]:
        rows, simulation = play(workers=workers, seed=seed, dropout=0.2, rule={"min_reports": 1})
        for row in rows:
            row.pop("wall_s")
        ends[workers, seed] = (digest(simulation.coordinator.params), rows)
    assert ends[1, 1] == ends[2, 1] == ends[3, 1]
    assert ends[1, 2][0] != ends[1, 1][0]


@pytest.mark.parametrize(
    "rule", [{"candidates": 12}, {"report_words": 9}, {"candidates": 6, "report_words": 12}]
)
def test_sampled_rounds_end_in_the_same_bytes_for_any_number_of_workers(play, rule):
    algorithm = Algorithm(ClientRule(**rule))
    ends = {digest(play(workers=workers, algorithm=algorithm)[1].coordinator.params) for workers in (1, 2)}
    assert len(ends) == 1
    assert ends != {digest(play()[1].coordinator.params)}


def test_as_many_candidates_and_reported_words_as_there_are_words_is_the_exact_softmax(play):
    all_words = Algorithm(ClientRule(candidates=500, report_words=500))
    ends = {digest(play(algorithm=algorithm)[1].coordinator.params) for algorithm in (Algorithm(), all_words)}
    assert len(ends) == 1


def test_a_client_rate_that_decays_is_each_rounds_own(play):
    def params(**client):
        algorithm = Algorithm(client=ClientRule(learning_rate=1.0, **client), server=FedAvg())
        _, simulation = play(algorithm=algorithm, rule={"rounds": 2})
        return simulation.coordinator.params

    # The first round is the same, the second hardly moves.
    first = play(
        algorithm=Algorithm(client=ClientRule(learning_rate=1.0), server=FedAvg()), rule={"rounds": 1}
    )
    one, two = first[1].coordinator.params, params(final_learning_rate=1e-3, decay_rounds=1)
    assert 0 < np.linalg.norm(two - one) < 0.01 * np.linalg.norm(params() - one)


@pytest.mark.parametrize("option", [1, 2])
def test_scaffold_ends_in_the_same_bytes_for_any_number_of_workers(play, option):
    algorithm = Algorithm(ClientRule(scaffold=option, learning_rate=1.0), server=FedAvg())
    ends = set()
    for workers in (1, 3):
        rows, simulation = play(workers=workers, algorithm=algorithm, rule={"rounds": 6, "cohort": 12})
        ends.add((digest(simulation.coordinator.params), digest(simulation.coordinator.control)))
    assert len(ends) == 1
    _, plain = play(algorithm=Algorithm(ClientRule(learning_rate=1.0), server=FedAvg()), rule={"rounds": 6})
    assert plain.coordinator.control is None
    assert np.linalg.norm(simulation.coordinator.control) > 0
    # Phones that come again fetch c too, and every report carries the change of a c_i.
    assert rows[-1]["downlink_bytes"] > 1.3 * rows[0]["downlink_bytes"]


def test_a_phone_whose_scaffold_report_did_not_count_keeps_its_control_variate(play):
    algorithm = Algorithm(ClientRule(scaffold=2, learning_rate=1.0), server=FedAvg(), weights="uniform")
    _, simulation = play(algorithm=algorithm, rule={"rounds": 8, "cohort": 6}, dropout=0.3)
    coordinator = simulation.coordinator
    task = coordinator.task
    kept = [store.kept for store in simulation.controls.values() if store.kept is not None]
    assert 6 < len(kept) <= len(simulation.controls)
    mean = np.mean([control.values for control in kept], axis=0)
    np.testing.assert_allclose(coordinator.control, mean, rtol=1e-3, atol=1e-6)
    assert {control.spec for control in kept} == {task.config.spec.hash}


def test_phones_that_drop_out_are_counted_and_over_selection_makes_up_for_them(play):
    rows, _ = play(dropout=0.3, rule={"rounds": 12, "cohort": 4, "over_selection": 2.5})
    assert all(row["reports"] + row["dropped"] == 10 for row in rows)
    assert {row["status"] for row in rows} == {"committed"}
    without, _ = play(dropout=0.3, rule={"rounds": 12, "cohort": 4, "over_selection": 1.0, "min_reports": 1})
    assert all(row["reports"] + row["dropped"] == 4 for row in without)
    assert sum(row["dropped"] for row in without) > 3
    assert {row["status"] for row in without} == {"committed"}


def test_too_few_reports_abandon_a_round_at_its_deadline_and_leave_the_model(play):
    rows, simulation = play(dropout=0.9, rule={"rounds": 4, "over_selection": 1.0})
    assert [row["status"] for row in rows] == ["abandoned"] * 4
    assert simulation.coordinator.version == 0
    np.testing.assert_array_equal(simulation.coordinator.params, simulation._built.params)
    assert rows[-1]["virtual_s"] == pytest.approx(4 * 20.0)


@pytest.mark.parametrize("deadline_s", [0.1, 0.7, 1.1, 33.3, 119.9])
def test_a_round_ends_at_its_deadline_whatever_the_clock_reads(play, deadline_s):
    """(opened + deadline) - opened may fall one rounding step short of the deadline."""
    rows, _ = play(dropout=0.95, rule={"rounds": 60, "over_selection": 1.0, "deadline_s": deadline_s})
    assert len(rows) == 60
    assert rows[-1]["virtual_s"] <= 60 * deadline_s * (1 + 1e-9)


def test_a_report_that_would_come_late_does_not_count(play):
    slowest = max(row["virtual_s"] for row in play(rule={"rounds": 1})[0])
    rows, _ = play(rule={"rounds": 1, "deadline_s": slowest / 2, "min_reports": 1})
    assert rows[0]["reports"] < 4
    assert rows[0]["virtual_s"] == pytest.approx(slowest / 2)


def test_stragglers_report_partial_work_if_the_rule_says_so(play, texts):
    """Twenty passes take the heavier half of the phones longer than the deadline."""
    words = np.array(
        [sum(len(text.split()) for text in texts.texts[user]) for user in Population(texts).users]
    )
    deadline_s = 20 * float(np.median(words)) / MID.tokens_per_s
    rule = {
        "cohort": len(words),
        "over_selection": 1.0,
        "min_reports": 1,
        "deadline_s": deadline_s,
        "rounds": 1,
    }

    def first_row(**client):
        algorithm = Algorithm(
            ClientRule(epochs=20, learning_rate=0.1, batch_size=4, **client), server=FedAvg()
        )
        return play(algorithm=algorithm, rule=rule)[0][0]

    late, partial = first_row(), first_row(partial_work=True)
    assert 0 < late["reports"] < len(words) == partial["reports"]
    assert late["tokens"] < partial["tokens"] < 20 * words.sum()
    assert partial["virtual_s"] <= deadline_s


def test_an_over_selected_phone_takes_the_place_of_one_that_declines(play, monkeypatch):
    declined = []

    def train(*arguments, device, _train=work.train, **options):
        if len(declined) < 2:
            declined.append(device)
            raise OverBudget("too much for this phone")
        return _train(*arguments, device=device, **options)

    monkeypatch.setattr(work, "train", train)
    rows, _ = play(rule={"rounds": 1, "over_selection": 1.5})
    assert len(declined) == 2
    assert (rows[0]["status"], rows[0]["reports"], rows[0]["dropped"]) == ("committed", 4, 2)


def test_a_run_whose_phones_all_diverge_abandons_its_rounds(play):
    wild = Algorithm(ClientRule(learning_rate=1e30, clip_norm=0.0, batch_size=1))
    rows, simulation = play(algorithm=wild)
    assert [row["status"] for row in rows] == ["abandoned"] * 3
    assert np.isfinite(simulation.coordinator.params).all()


def test_a_cohort_larger_than_the_fleet_is_refused(play, texts):
    phones = len(Population(texts))
    with pytest.raises(ConfigError, match=f"at most the {phones} phones that take part, got {phones + 1}"):
        play(rule={"cohort": phones + 1})
    rows, _ = play(rule={"cohort": phones + 1, "min_reports": 1, "rounds": 1})
    assert rows[0]["reports"] == phones


def test_a_fleet_without_a_known_word_is_refused(play, make_texts, texts):
    source = make_texts(
        {user: ["!?"] if user in Population(texts).users else ["see"] for user in texts.users()}
    )
    with pytest.raises(DataError, match="none has a log with words that the model knows"):
        play(source=source, vocabulary="public")


def test_phones_without_a_known_word_do_not_check_in(play, texts, make_texts):
    silent = Population(texts).users[:20]
    source = make_texts({user: ["..."] if user in silent else said for user, said in texts.texts.items()})
    rows, _ = play(source=source, rule={"rounds": 6})
    assert all(row["reports"] == 4 for row in rows)


def test_a_known_word_is_no_special_token():
    assert has_known_word([[2, 1, 3], [2, 4, 3]])
    assert not any(has_known_word(sentences) for sentences in ([], [[2, 3]], [[2, 1, 3]]))


def test_workers_must_be_at_least_one(play):
    with pytest.raises(ConfigError, match="workers must be >= 1"):
        play(workers=0)


def test_updates_are_weighted_by_examples_up_to_the_clamp(play):
    config = Algorithm(ClientRule(learning_rate=1.0), server=FedAvg())
    alike = replace(config, max_weight=1)
    ends = [digest(play(algorithm=algorithm)[1].coordinator.params) for algorithm in (config, alike)]
    assert ends[0] != ends[1]


@pytest.mark.parametrize("aggregate", [Median(), TrimmedMean(1), Krum(0)], ids=repr)
def test_robust_rounds_end_in_the_same_bytes_whatever_the_workers(play, aggregate):
    algorithm = Algorithm(server=FedYogi(), aggregate=aggregate, update_clip_norm=1.0)
    runs = [play(workers=workers, algorithm=algorithm) for workers in (1, 3)]
    assert all(row["status"] == "committed" and row["refused"] == 0 for row in runs[0][0])
    assert len({digest(simulation.coordinator.params) for _, simulation in runs}) == 1
