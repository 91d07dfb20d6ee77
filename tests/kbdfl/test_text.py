import json
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models

from kbdfl.errors import DataError
from kbdfl.text import (
    BOS,
    EOS,
    IGNORED,
    PAD,
    SPECIALS,
    UNK,
    Vocabulary,
    pack,
    public_vocabulary,
    public_words,
    training_batches,
    training_vocabulary,
)

WORDS = ["the", "you", "don't", "see", "ok", "2", "naïve", "über"]


@pytest.fixture(scope="module")
def vocabulary():
    return Vocabulary.of_words(WORDS, "the words of a test")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("See you!", ["see", "you"]),
        ("DON\u2019T \u2018see\u2019", ["don't", "see"]),  # curly apostrophes
        ("don\u02bct don\uff07t", ["don't", "don't"]),
        ("\uff34\uff28\uff25 \u2460 \ufb01n", ["the", "1", "fin"]),  # NFKC: full width, circled, ligature
        ("U\u0308ber nai\u0308ve", ["über", "naïve"]),  # composed from letter and mark
        ("e-mail,ok...ok_ok", ["e", "mail", "ok", "ok", "ok"]),
        ("'quoted' rock'n'roll dogs'", ["quoted", "rock'n'roll", "dogs"]),
        ("you''see", ["you", "see"]),
        (
            "mail me at <email> or <URL>, <#> times",
            ["mail", "me", "at", "<email>", "or", "<url>", "<#>", "times"],
        ),
        ("<pad> <unk> <bos> <eos>", ["pad", "unk", "bos", "eos"]),  # specials cannot be typed
        ("4pm 2024", ["4pm", "2024"]),
        ("\U0001f600 \u2764\ufe0f !?", []),  # emoji, also with a variation selector
        ("\u0301a\u0301 o'\u0301k", ["á", "o", "k"]),
        ("", []),
        (" \t\n", []),
    ],
)
def test_the_policy_splits_as_stated(vocabulary, text, words):
    assert vocabulary.split(text) == words


def test_encoding_frames_the_words_and_marks_the_unknown(vocabulary):
    ids = {word: i for i, word in enumerate(WORDS, start=4)}
    assert vocabulary.encode("See, YOU never") == [BOS, ids["see"], ids["you"], UNK, EOS]
    assert vocabulary.encode("") == [BOS, EOS]
    assert vocabulary.encode("<email> <pad>") == [BOS, UNK, UNK, EOS]
    assert vocabulary.id("see") == ids["see"]
    assert vocabulary.id("never") == UNK
    assert (len(vocabulary), vocabulary.tokens) == (12, (*SPECIALS, *WORDS))
    assert (PAD, UNK, BOS, EOS) == (0, 1, 2, 3)


TEXTS = st.text(st.characters(codec="utf-8"), max_size=40) | st.lists(
    st.sampled_from([*WORDS, "<email>", "DON\u2019T", "never", "!", "<pad>"]), max_size=8
).map(" ".join)


@given(TEXTS)
def test_encoding_is_splitting_and_looking_up(vocabulary, text):
    words = vocabulary.split(text)
    assert vocabulary.encode(text) == [BOS, *(vocabulary.id(word) for word in words), EOS]
    assert all(word and word == word.lower() and " " not in word for word in words)


@given(st.lists(TEXTS, max_size=5))
def test_encoding_many_is_encoding_each(vocabulary, texts):
    assert vocabulary.encode_many(iter(texts)) == [vocabulary.encode(text) for text in texts]


def test_the_saved_file_is_a_plain_tokenizer_with_equal_ids(vocabulary, tmp_path):
    path = tmp_path / "tokenizer.json"
    vocabulary.save(path)
    plain = Tokenizer.from_file(str(path))
    for text in ("See you, DON\u2019T <email>", "", "\uff34\uff28\uff25 naïve <bos>", "x" * 300):
        assert plain.encode(text).ids == vocabulary.encode(text)
    assert plain.decode(vocabulary.encode("See YOU"), skip_special_tokens=False) == "<bos> see you <eos>"


def test_a_vocabulary_reads_back_as_it_was_saved(vocabulary, tmp_path):
    path = tmp_path / "tokenizer.json"
    vocabulary.save(path)
    back = Vocabulary.load(path, source="a bundle")
    assert (back.tokens, back.sha256, back.source) == (vocabulary.tokens, vocabulary.sha256, "a bundle")
    assert back.to_bytes() == vocabulary.to_bytes() == path.read_bytes()
    assert Vocabulary.of_words(WORDS, "elsewhere").to_bytes() == vocabulary.to_bytes()


def test_the_hash_is_of_the_words_in_their_order(vocabulary):
    for words in (WORDS[::-1], WORDS[1:], [*WORDS, "x"]):
        assert Vocabulary.of_words(words, "").sha256 != vocabulary.sha256
    assert Vocabulary.of_words(WORDS, "other source").sha256 == vocabulary.sha256


@pytest.mark.parametrize("words", [["a", "a"], ["a", "<bos>"], ["<pad>"]])
def test_words_must_be_distinct_and_not_special(words):
    with pytest.raises(DataError, match="distinct and none of them a special"):
        Vocabulary.of_words(words, "")


def plain_tokenizer(tokens):
    return Tokenizer(models.WordLevel({token: i for i, token in enumerate(tokens)}, unk_token="<unk>"))


def without(vocabulary, part):
    return json.dumps(json.loads(vocabulary.to_bytes()) | {part: None}).encode()


def test_a_file_that_is_no_vocabulary_of_ours_is_refused_in_one_line(vocabulary, tmp_path):
    path = tmp_path / "tokenizer.json"
    with pytest.raises(DataError, match="no vocabulary at"):
        Vocabulary.load(path)
    contents = [
        (b"", "not a tokenizer.json"),
        (b"{}", "not a tokenizer.json"),
        (b"\xff\xfe", "not a tokenizer.json"),
        (vocabulary.to_bytes()[:-9], "not a tokenizer.json"),
        (plain_tokenizer(["<unk>", "a"]).to_str().encode(), "must begin with <pad> <unk> <bos> <eos>"),
        (plain_tokenizer([*SPECIALS, "a"]).to_str().encode(), "splits words by other rules"),
        *((without(vocabulary, part), "by other rules") for part in ("normalizer", "pre_tokenizer")),
        (without(vocabulary, "post_processor"), "by other rules"),
        (vocabulary.to_bytes().replace(b'"Lowercase"', b'"NFKC"'), "by other rules"),
    ]
    for content, message in contents:
        path.write_bytes(content)
        with pytest.raises(DataError, match=message) as error:
            Vocabulary.load(path)
        assert str(path) in str(error.value)
        assert "\n" not in str(error.value)


def test_the_public_vocabulary_is_frequent_words_after_the_specials():
    vocabulary, frequencies = public_vocabulary(500)
    assert len(vocabulary) == 500
    assert vocabulary.tokens[:4] == SPECIALS
    assert {"the", "you", "i", "don't"} <= set(vocabulary.tokens)
    assert (frequencies.shape, frequencies.dtype) == ((496,), np.float64)
    assert (frequencies > 0).all()
    assert (np.diff(frequencies) <= 0).all()
    assert "wordfreq" in vocabulary.source
    assert public_vocabulary(500)[0].sha256 == vocabulary.sha256


def test_every_public_word_is_one_that_can_be_typed():
    words, _ = public_words(2000)
    splitter = Vocabulary.of_words([], "")
    assert len(set(words)) == 2000
    assert all(splitter.split(word) == [word] for word in words)


def test_a_public_list_that_is_too_short_is_refused(monkeypatch):
    monkeypatch.setattr("wordfreq.top_n_list", lambda language, count: ["the", "a-b", "e.g."])
    with pytest.raises(DataError, match="fewer than 2 usable words"):
        public_words(2)


def test_the_training_vocabulary_counts_the_users_words_and_says_so():
    texts = ["b a B", "<email> a c", "A c <email> <email> <email>"]
    vocabulary, counts = training_vocabulary(iter(texts), 6)
    assert vocabulary.tokens[4:] == ("a", "b")  # most frequent first, ties by the alphabet; masks never
    assert counts.tolist() == [3, 2]
    assert "training users" in vocabulary.source
    larger, counts = training_vocabulary(texts, 500)
    assert larger.tokens[4:] == ("a", "b", "c")
    assert counts.tolist() == [3, 2, 2]


def test_logs_without_words_make_no_vocabulary():
    with pytest.raises(DataError, match="hold no words"):
        training_vocabulary(["!!", "<email>", ""], 500)


TOKENS = st.integers(UNK, 12).filter(lambda token: token not in (BOS, EOS))
SENTENCES = st.lists(TOKENS, max_size=6).map(lambda words: [BOS, *words, EOS])
BATCHES = st.lists(st.lists(SENTENCES, max_size=5), max_size=4)


def pairs_of(sentence):
    """(context, target) of every word, unknown targets ignored, contexts as the inputs before it."""
    return [
        (tuple(sentence[:i]), sentence[i] if sentence[i] >= 4 else IGNORED)
        for i in range(1, len(sentence) - 1)
    ]


def unpack(packed):
    """The same pairs, batch by batch, read back from the packed rows by following each sentence's place."""
    batches, row, at = [], 0, 0
    for steps in packed.steps:
        contexts, pairs = {}, []
        for alive in packed.active[at : at + steps]:
            for place in range(alive):
                contexts[place] = (*contexts.get(place, ()), int(packed.inputs[row]))
                pairs.append((contexts[place], int(packed.targets[row])))
                row += 1
        batches.append(pairs)
        at += steps
    assert (row, at) == (len(packed.inputs), len(packed.active))
    return batches


@given(BATCHES)
def test_packing_keeps_every_pair_of_context_and_target_exactly_once(batches):
    packed = pack(batches)
    wanted = [Counter(pair for sentence in batch for pair in pairs_of(sentence)) for batch in batches]
    assert [Counter(pairs) for pairs in unpack(packed)] == [pairs for pairs in wanted if pairs]
    assert packed.tokens == sum(n for batch in wanted for (_, target), n in batch.items() if target >= 0)
    for array in (packed.inputs, packed.targets, packed.active, packed.steps):
        assert array.dtype == np.int32
        assert array.ndim == 1
        assert array.flags.c_contiguous


@given(BATCHES)
def test_the_living_never_become_more_within_a_batch(batches):
    packed = pack(batches)
    assert (packed.active >= 1).all()
    assert packed.steps.sum() == len(packed.active)
    for start, steps in zip(np.cumsum(packed.steps) - packed.steps, packed.steps, strict=True):
        assert (np.diff(packed.active[start : start + steps]) <= 0).all()


def test_the_closing_eos_is_neither_an_input_nor_a_target():
    packed = pack([[[BOS, 7, UNK, 9, EOS], [BOS, 8, EOS], [BOS, EOS]]])
    assert packed.inputs.tolist() == [BOS, BOS, 7, UNK]
    assert packed.targets.tolist() == [7, 8, IGNORED, 9]
    assert (packed.active.tolist(), packed.steps.tolist(), packed.tokens) == ([2, 1, 1], [3], 3)


def test_sentences_are_laid_out_longest_first_ties_in_order():
    packed = pack([[[BOS, 4, EOS], [BOS, 5, 6, 7, EOS], [BOS, 8, EOS], [BOS, 9, 10, EOS]]])
    assert packed.targets.tolist() == [5, 9, 4, 8, 6, 10, 7]


def test_nothing_packs_to_nothing():
    for batches in ([], [[]], [[[BOS, EOS], []]]):
        packed = pack(batches)
        assert (packed.tokens, len(packed.inputs), len(packed.active), len(packed.steps)) == (0, 0, 0, 0)


@settings(max_examples=50)
@given(
    sentences=st.lists(st.lists(TOKENS, min_size=1, max_size=6), min_size=1, max_size=12),
    batch_size=st.integers(1, 5),
    epochs=st.integers(1, 3),
    seed=st.integers(0, 9),
)
def test_training_covers_each_sentence_once_an_epoch(sentences, batch_size, epochs, seed):
    sentences = [[BOS, *words, EOS] for words in sentences]
    packed = training_batches(
        sentences, batch_size=batch_size, epochs=epochs, max_words=9, random=np.random.default_rng(seed)
    )
    per_epoch = -(-len(sentences) // batch_size)
    batches = unpack(packed)
    assert len(batches) == epochs * per_epoch
    wanted = Counter(pair for sentence in sentences for pair in pairs_of(sentence))
    for epoch in range(epochs):
        of_epoch = batches[epoch * per_epoch : (epoch + 1) * per_epoch]
        assert Counter(pair for batch in of_epoch for pair in batch) == wanted
    for start in np.cumsum(packed.steps) - packed.steps:
        assert packed.active[start] <= batch_size


def test_training_cuts_long_sentences_and_skips_empty_ones():
    sentences = [[BOS, 4, 5, 6, 7, EOS], [BOS, EOS], []]
    packed = training_batches(sentences, batch_size=4, epochs=1, max_words=2, random=np.random.default_rng(0))
    assert (packed.inputs.tolist(), packed.targets.tolist()) == ([BOS, 4], [4, 5])


def test_training_shuffles_anew_every_epoch_and_follows_the_generator():
    sentences = [[BOS, word, EOS] for word in range(4, 40)]

    def targets(seed):
        random = np.random.default_rng(seed)
        return training_batches(
            sentences, batch_size=4, epochs=2, max_words=9, random=random
        ).targets.tolist()

    assert targets(1) == targets(1) != targets(2)
    assert targets(1)[:36] != targets(1)[36:]
    assert sorted(targets(1)[:36]) == sorted(targets(1)[36:]) == list(range(4, 40))


@given(
    sentences=st.lists(st.lists(TOKENS, min_size=1, max_size=6), min_size=1, max_size=12),
    batch_size=st.integers(1, 5),
    steps=st.integers(1, 20),
)
def test_steps_are_the_first_batches_of_the_epochs(sentences, batch_size, steps):
    sentences = [[BOS, *words, EOS] for words in sentences]
    few, every = (
        training_batches(
            sentences,
            batch_size=batch_size,
            epochs=3,
            max_words=9,
            random=np.random.default_rng(1),
            steps=bound,
        )
        for bound in (steps, 0)
    )
    for name, array in every.first(steps).arrays.items():
        np.testing.assert_array_equal(few.arrays[name], array)
    assert len(few.steps) == min(steps, len(every.steps))
    learned = [every.first(k + 1).tokens - every.first(k).tokens for k in range(len(every.steps))]
    assert every.learned.tolist() == learned
