"""Topics without labels: planted ones are found, none is tiny, and seed and text decide alone."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kbdfl.device_sim.experiments.topics import SLACK, find_topics
from kbdfl.errors import DataError
from kbdfl.rng import stream

SIZE, COUNT, COMMON = 104, 4, 20  # tokens, specials among them; topics; words that all topics share


def planted(documents, *, words=30, seed=1):
    """Documents of 4 topics in turn: half of a document's words are everyone's, half its topic's own twenty."""
    random = stream(seed, "planted")
    own = [4 + COMMON + 20 * topic for topic in range(COUNT)]
    return [
        [
            int(random.integers(own[i % COUNT], own[i % COUNT] + 20))
            if random.random() < 0.5
            else int(4 + random.integers(COMMON))
            for _ in range(words)
        ]
        for i in range(documents)
    ]


def find(documents, seed=0, count=COUNT):
    return find_topics(documents, count, vocabulary_size=SIZE, seed=seed)


@pytest.mark.parametrize("seed", range(5))
def test_planted_topics_are_found(seed):
    _, found = find(planted(80), seed)
    first = found[:COUNT]
    assert len(set(first)) == COUNT
    np.testing.assert_array_equal(found, np.tile(first, 20))


def test_other_documents_go_to_the_topic_they_are_of():
    topics, found = find(planted(80))
    np.testing.assert_array_equal(topics.nearest(planted(40, seed=2)), np.tile(found[:COUNT], 10))


def test_text_and_seed_decide_alone():
    documents = planted(40)
    (one, found), (same, again), (other, _) = find(documents), find(documents), find(documents, seed=1)
    np.testing.assert_array_equal(one.centres, same.centres)
    np.testing.assert_array_equal(found, again)
    assert not np.array_equal(one.centres, other.centres)


def test_no_topic_takes_much_more_than_its_share_however_popular_it_is():
    documents = planted(40)[::COUNT] * 6 + planted(40)  # most of them of topic 0
    _, found = find(documents)
    shares = np.bincount(found, minlength=COUNT) / len(documents)
    assert shares.max() <= SLACK / COUNT
    assert shares.min() >= (1 - (COUNT - 1) * SLACK / COUNT) - 1 / len(documents)


def test_a_document_larger_than_any_share_still_has_a_topic():
    _, found = find([planted(1, words=5_000)[0], *planted(20)])
    assert 0 <= found[0] < COUNT
    assert set(found) == set(range(COUNT))


@given(st.lists(st.lists(st.integers(0, SIZE - 1), max_size=6), min_size=1, max_size=12), st.integers(1, 5))
@settings(max_examples=50, deadline=None)
def test_any_text_with_a_word_has_topics_and_centres_of_unit_length(documents, count):
    if not any(token >= 4 for document in documents for token in document):
        with pytest.raises(DataError, match="has no topics"):
            find(documents, count=count)
        return
    topics, found = find(documents, count=count)
    assert found.shape == (len(documents),)
    assert 0 <= found.min() <= found.max() < count
    lengths = np.linalg.norm(topics.centres, axis=1)
    assert np.all((np.abs(lengths - 1) < 1e-9) | (lengths == 0))
    assert topics.nearest([[], [2, 3]]).tolist() == [0, 0]
