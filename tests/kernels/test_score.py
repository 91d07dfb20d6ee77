"""Scoring against the numpy twin: losses, ranks, ties, what is never suggested, and what is refused."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kbdfl.kernels import reference
from kbdfl.kernels.score import score
from kbdfl.model import CifgConfig, preset


def twin_scores(config, params, packed, *, first_word):
    views = config.spec.views(params.astype(np.float64))
    losses, ranks = [], []
    row = step = 0
    for steps in packed["steps"]:
        active = packed["active"][step : step + steps]
        there = slice(row, row + active.sum())
        found = reference.score(
            views, packed["inputs"][there], packed["targets"][there], active, first_word=first_word
        )
        losses.append(found[0])
        ranks.append(found[1])
        row, step = row + active.sum(), step + steps
    return np.concatenate(losses), np.concatenate(ranks)


@given(
    batches=st.lists(st.lists(st.integers(1, 9), min_size=1, max_size=6), min_size=1, max_size=4),
    first_word=st.integers(0, 11),
    seed=st.integers(0, 1000),
)
@settings(max_examples=60, deadline=None)
def test_losses_and_ranks_are_the_twins(
    tiny, draw_params, draw_sentences, rows, dims, batches, first_word, seed
):
    params = draw_params(tiny, seed)
    packed = rows([draw_sentences(tiny, lengths, seed + i) for i, lengths in enumerate(batches)])
    losses, ranks = score(params, **dims(tiny), **packed, first_word=first_word)
    expected_losses, expected_ranks = twin_scores(tiny, params, packed, first_word=first_word)
    np.testing.assert_allclose(losses, expected_losses, rtol=1e-4, atol=1e-5)
    # two logits closer than float32 can tell may change places
    assert (ranks != expected_ranks).mean() <= 0.02
    assert ((ranks == -1) == (packed["targets"] < 0)).all()
    assert not losses[packed["targets"] < 0].any()


def test_more_rows_than_a_tile_of_the_small_preset(draw_params, draw_sentences, rows, dims):
    config = preset("small")
    params = draw_params(config, scale=0.05)
    packed = rows([draw_sentences(config, (30, 20, 17, 9, 1)), draw_sentences(config, (3, 2), 2)])
    losses, ranks = score(params, **dims(config), **packed, first_word=4)
    expected_losses, expected_ranks = twin_scores(config, params, packed, first_word=4)
    np.testing.assert_allclose(losses, expected_losses, rtol=1e-4)
    assert np.abs(ranks - expected_ranks).max() <= 1


def flat_model(config, bias):
    """All weights zero: the logits of every row are the bias, exactly."""
    params = np.zeros(config.spec.size, np.float32)
    config.spec.views(params)["bias"][:] = bias
    return params


def one_row(target):
    return {
        name: np.array([value], np.int32)
        for name, value in {"inputs": 2, "targets": target, "active": 1, "steps": 1}.items()
    }


def test_ties_go_to_the_smaller_id_and_words_below_the_first_do_not_count(dims):
    config = CifgConfig(vocab=9, embed=2, hidden=3)
    params = flat_model(config, [9, 9, 9, 9, 1, 2, 2, 2, 0])
    ranks = {t: int(score(params, **dims(config), **one_row(t), first_word=4)[1][0]) for t in range(9)}
    assert ranks == {0: 0, 1: 0, 2: 0, 3: 0, 4: 3, 5: 0, 6: 1, 7: 2, 8: 4}
    every = {t: int(score(params, **dims(config), **one_row(t), first_word=0)[1][0]) for t in range(9)}
    assert every == {0: 0, 1: 1, 2: 2, 3: 3, 4: 7, 5: 4, 6: 5, 7: 6, 8: 8}
    views = config.spec.views(params)
    for first in range(10):
        for target in range(9):
            got = score(params, **dims(config), **one_row(target), first_word=first)
            twin = reference.score(views, *list(one_row(target).values())[:3], first_word=first)
            assert got[1] == twin[1]
            assert got[0] == pytest.approx(twin[0], rel=1e-5)


def test_ranks_of_all_words_are_a_permutation(dims, draw_params):
    config = CifgConfig(vocab=40, embed=4, hidden=6)
    params = draw_params(config)
    ranks = [int(score(params, **dims(config), **one_row(t), first_word=4)[1][0]) for t in range(4, 40)]
    assert sorted(ranks) == list(range(36))


@pytest.mark.parametrize("where", ["everywhere", "the target", "another word"])
def test_a_model_that_diverged_predicts_nothing(dims, where):
    config = CifgConfig(vocab=9, embed=2, hidden=3)
    bias = np.arange(9, dtype=np.float32)
    bias[{"everywhere": slice(None), "the target": 8, "another word": 5}[where]] = np.nan
    losses, ranks = score(flat_model(config, bias), **dims(config), **one_row(8), first_word=4)
    twin = reference.score(
        config.spec.views(flat_model(config, bias)), *list(one_row(8).values())[:3], first_word=4
    )
    assert np.isnan(losses[0])
    assert ranks[0] == twin[1][0] == {"everywhere": 4, "the target": 4, "another word": 1}[where]


def test_no_rows_have_no_scores(tiny, draw_params, dims, rows):
    losses, ranks = score(draw_params(tiny), **dims(tiny), **rows([]), first_word=4)
    assert losses.shape == ranks.shape == (0,)


BAD = {
    "first word below 0": ({"first_word": -1}, r"first_word must lie in \[0, 11\], got -1"),
    "first word beyond the last": ({"first_word": 12}, r"first_word must lie in \[0, 11\], got 12"),
    "an input too large": ({"inputs": np.array([11], np.int32)}, r"inputs must lie in \[0, 11\), got 11"),
    "a target too large": ({"targets": np.array([11], np.int32)}, r"targets must lie in \[-1, 11\), got 11"),
    "rows missing": ({"active": np.array([2], np.int32)}, "number of rows"),
    "steps missing": ({"steps": np.array([2], np.int32)}, "sum to the length of active"),
    "another model": ({"vocab": 12}, "params must hold"),
    "no hidden cells": ({"hidden": 0}, "must be >= 1"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_would_lead_outside_an_array_is_refused(tiny, draw_params, dims, name):
    changes, message = BAD[name]
    with pytest.raises(ValueError, match=message):
        score(draw_params(tiny), **(dims(tiny) | one_row(5) | {"first_word": 4} | changes))


def test_read_only_arrays_and_two_threads_score_alike(draw_params, draw_sentences, rows, dims):
    config = preset("tiny")
    params, packed = (
        draw_params(config),
        rows([draw_sentences(config, (9, 7, 7, 2), seed) for seed in range(20)]),
    )
    for array in (params, *packed.values()):
        array.setflags(write=False)

    def work(_):
        return score(params, **dims(config), **packed, first_word=4)

    losses, ranks = work(0)
    with ThreadPoolExecutor(2) as pool:
        for again_losses, again_ranks in pool.map(work, range(6)):
            np.testing.assert_array_equal(again_losses, losses)
            np.testing.assert_array_equal(again_ranks, ranks)
