import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kbdfl.errors import DataError
from kbdfl.kernels import reference
from kbdfl.metrics import evaluation_set, recall
from kbdfl.model import CifgConfig, init_params
from kbdfl.text import BOS, EOS, UNK, PackedBatches

CONFIG = CifgConfig(vocab=12, embed=3, hidden=5)
WORDS = st.integers(UNK, 11).filter(lambda token: token not in (BOS, EOS))
SENTENCES = st.lists(st.lists(WORDS, max_size=6).map(lambda words: [BOS, *words, EOS]), max_size=9)


def brute_force(params, sentences):
    """Sentence by sentence, word by word, sorting all suggestions: what recall is defined to be."""
    views, hits, words = CONFIG.spec.views(params), {1: 0, 3: 0}, 0
    for sentence in sentences:
        inputs = np.array(sentence[:-2] or [BOS], np.int32)
        logits = reference.logits(views, inputs, np.ones(len(inputs), np.int32))
        for row, target in zip(logits, sentence[1:-1], strict=False):
            suggestions = 4 + np.argsort(-row[4:], kind="stable")[:3]
            words += 1
            for k in hits:
                hits[k] += target in suggestions[:k]
    return {f"recall_top{k}": count / words for k, count in hits.items()}


@settings(max_examples=60, deadline=None)
@given(SENTENCES, st.integers(0, 50))
def test_recall_is_the_share_of_all_words_among_the_first_suggestions(sentences, seed):
    if not any(len(sentence) > 2 for sentence in sentences):
        return
    params = init_params(CONFIG, seed=seed, word_frequencies=np.arange(8, 0, -1.0))
    params[:36] *= 20  # embeddings large enough that contexts matter
    assert recall(params, CONFIG, evaluation_set(sentences)) == pytest.approx(brute_force(params, sentences))


def test_a_word_outside_the_vocabulary_is_a_miss():
    bias_only = np.zeros(CONFIG.spec.size, np.float32)
    CONFIG.spec.views(bias_only)["bias"][4:] = np.arange(8, 0, -1)  # always suggests 4, 5, 6
    sentences = [[BOS, 4, 5, UNK, EOS], [BOS, 6, 9, UNK, 4, EOS]]
    assert recall(bias_only, CONFIG, evaluation_set(sentences)) == {
        "recall_top1": 2 / 7,
        "recall_top3": 4 / 7,
    }


def test_a_special_is_never_suggested_however_likely():
    bias_only = np.zeros(CONFIG.spec.size, np.float32)
    CONFIG.spec.views(bias_only)["bias"][:5] = 10, 10, 10, 10, 5
    assert recall(bias_only, CONFIG, evaluation_set([[BOS, 4, EOS]]))["recall_top1"] == 1


def test_an_evaluation_set_holds_every_word_once_whatever_the_order():
    sentences = [[BOS, *range(4, 4 + length % 7), EOS] for length in range(200)]
    batches = evaluation_set(sentences)
    assert isinstance(batches, PackedBatches)
    assert len(batches.targets) == sum(len(sentence) - 2 for sentence in sentences)
    assert len(batches.steps) == 3  # of those that hold a word; sorted, so that the batches are full
    shuffled = [sentences[i] for i in np.random.default_rng(0).permutation(200)]
    np.testing.assert_array_equal(evaluation_set(shuffled).active, batches.active)


@pytest.mark.parametrize("sentences", [[], [[BOS, EOS]], [[BOS, EOS], [BOS, EOS]]])
def test_an_evaluation_needs_words(sentences):
    with pytest.raises(DataError, match="the evaluation log holds no words"):
        evaluation_set(sentences)
