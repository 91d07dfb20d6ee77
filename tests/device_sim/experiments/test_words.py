"""`words`: what is withheld, what a search is worth, and that the model which grew is asked with its own words."""

import numpy as np
import pytest

from kbdfl.device_sim.experiments import words
from kbdfl.device_sim.experiments.study import Run, Study, Tried
from kbdfl.device_sim.experiments.words import (
    ALL,
    WITHOUT,
    Found,
    Searching,
    columns,
    figures,
    judged,
    knowing,
    search,
    settings,
    without,
)
from kbdfl.discovery import SearchPlan
from kbdfl.errors import DataError
from kbdfl.text import Vocabulary

KNOWN = Vocabulary.of_words(["the", "mill"], "a test")
TEXTS = {f"user{number}": ["the weir", "sluice mill" if number % 2 else "mill"] for number in range(60)}


def test_a_tenth_of_the_frequent_words_is_withheld_and_no_other():
    listed = tuple(f"w{number}" for number in range(3_000))
    kept = without(listed, seed=1)
    gone = [word for word in listed if word not in set(kept)]
    assert len(gone) == 200
    assert set(gone) <= set(listed[:2_000])
    assert kept == [word for word in listed if word not in set(gone)]
    assert without(listed, seed=1) == kept != without(listed, seed=2)


def test_data_for_fewer_words_asks_the_same_questions(data):
    some = knowing(data, data.vocabulary.tokens[4:300])
    assert len(some.vocabulary) == 300
    assert len(some.frequencies) == 296
    assert len(some.held_out.words.targets) == len(data.held_out.words.targets)
    assert max(some.held_out.words.inputs) < 300
    assert some.population is data.population


def test_a_search_finds_what_many_phones_type():
    plan = SearchPlan(votes=3, longest=7, prefixes=20, least_votes=12, noise_multiplier=0.3, phones=54)
    found = search(TEXTS, KNOWN, plan)
    assert found.keys() == {"weir", "sluice"}


def test_a_search_is_judged_by_who_typed_what(monkeypatch):
    monkeypatch.setattr(words, "MANY", 25)
    found = {"weir": 60, "sluice": 30, "mill": 3, "nobody": 9}
    facts = judged(found, TEXTS, KNOWN, {"weir", "never"})
    assert facts == {
        "found": 4, "of_the_withheld": 1, "wanted": 1, "precision": 0.5, "recall": 1.0, "users": 60,
    }  # fmt: skip
    assert judged({}, TEXTS, KNOWN, {"weir"})["precision"] == 0.0


def test_a_search_that_cannot_be_judged_is_refused():
    with pytest.raises(DataError, match="no word that was withheld is typed by 100"):
        judged({}, TEXTS, KNOWN, {"weir"})


def test_a_model_that_grew_is_asked_with_its_own_words(data, monkeypatch):
    monkeypatch.setattr(words, "MANY", 5)
    monkeypatch.setattr(words, "FREQUENT", 100)
    trained = Searching(0.1, 1, 1).train(data, seed=1, workers=1)
    assert isinstance(trained, Found)
    assert len(trained.vocabulary) == trained.config.vocab == 490 + trained.facts["found"]
    assert trained.facts["precision"] > 0.9
    assert trained.facts["recall"] > 0.5
    found = trained.details(data.held_out)
    assert 0 < found["just_grown_top1"] < 1
    assert found["epsilon_ten_times_the_phones"] < found["epsilon"]
    assert np.isfinite(trained.recall(data.held_out)["recall_top1"])


def test_the_rows_are_all_words_without_and_found():
    rows = settings(rounds=10, quick=False)
    assert [row.method for row in rows] == [ALL, WITHOUT, "found with noise 1", "found with noise 2"]
    assert len(settings(rounds=10, quick=True)) == 3


def test_figures_and_columns_are_of_the_searches():
    details = {"found": 40.0, "precision": 1.0, "recall": 0.9, "epsilon": 16.6, "just_grown_top1": 0.12}
    runs = [
        Run(method, "-", 0, top1, 0.2, 100, 1.0, [], more)
        for method, top1, more in (
            (ALL, 0.16, {}),
            (WITHOUT, 0.12, {}),
            ("found with noise 1", 0.15, details),
        )
    ]
    study = Study([Tried(run.method, "-", 0.1, 0.2, [], run.details) for run in runs], runs)
    found = figures(study)
    assert found["searches"] == {"found with noise 1": details}
    assert found["recall_gained"][ALL] == pytest.approx(0.04)
    assert columns(study)["precision"] == {"found with noise 1": "100.0%"}
