"""Words are read from plain frames, less well from compressed ones, and not from masked or noised ones."""

from dataclasses import replace

import numpy as np
import pytest

from kbdfl.audit.mechanism import Released
from kbdfl.device_sim.attacks.capture import capture, logs_of
from kbdfl.device_sim.attacks.masked import masked_round, summable
from kbdfl.device_sim.attacks.membership import membership
from kbdfl.device_sim.attacks.reading import (
    compressed,
    counts_alone,
    make_scene,
    masked,
    noised,
    plain,
    typed_words,
)
from kbdfl.device_sim.population import Population
from kbdfl.errors import ConfigError, DataError
from kbdfl.run import build_task
from kbdfl.wire import decode_report


@pytest.fixture(scope="module")
def built(texts, run_config):
    return build_task(run_config(), training_texts=Population(texts).texts())


@pytest.fixture(scope="module")
def logs(texts, built):
    return {
        user: built.vocabulary.encode_many(message.text for message in texts.messages(user)[:3])
        for user in texts.users()
    }


@pytest.fixture(scope="module")
def scene(built, logs):
    return make_scene(
        built.task, built.params, built.vocabulary, logs, sentence="see you at home gezellig", round=3
    )


def test_a_captured_frame_is_one_that_the_server_reads(built, logs):
    one = capture(built.task, built.params, dict(list(logs.items())[:1]), round=3)[0]
    report = decode_report(one.frame, max_bytes=one.assignment.max_report_bytes)
    assert (report.upload, report.round) == ("float32", 3)
    words = {token for ids in logs[one.device] for token in ids if token >= 4}
    assert one.typed == words
    assert one.beside["tokens"] == report.tokens > 0


def test_the_same_training_travels_in_any_upload(scene):
    one = scene.captures[1]
    for upload in ("int8", "compact"):
        sent = one.sent_as(upload)
        assert len(sent.frame) < len(one.frame)
        assert np.corrcoef(sent.delta, one.delta)[0, 1] > 0.9


def test_plain_frames_give_the_words_away(scene):
    found = plain(scene)
    assert found["f1"] > 0.8
    assert found["auc"] > 0.9
    assert found["example"] == {"right": typed_words(scene), "wrong": [], "wrong_words": 0}
    assert typed_words(scene) == ["see", "you", "at", "home"]


def test_compression_is_no_protection(scene):
    found = compressed(scene)
    assert found.keys() == {"int8", "compact", "tiny-uplink"}
    assert found["int8"]["f1"] > 0.6


def test_the_runs_own_upload_is_attacked_too(scene):
    own = replace(scene, task=replace(scene.task, algorithm=replace(scene.task.algorithm, upload="int4")))
    assert next(iter(compressed(own))) == "int4"


def test_masked_frames_say_nothing_and_their_sum_is_right(scene):
    found = masked(scene, clip_norm=2.0, sessions=2)
    assert 0.4 < found["auc"] < 0.6
    assert len(found["aucs"]) == 2
    assert found["phones"] == len(scene.captures) == 41
    assert found["f1"] < 0.5 * plain(scene)["f1"]


def test_two_sessions_of_the_same_phones_look_nothing_alike(scene):
    sent = summable(scene.captures, upload=scene.summed, clip_norm=2.0)
    first, second = masked_round(sent), masked_round(sent)
    assert np.array_equal(first.total, second.total)
    np.testing.assert_allclose(first.sum, np.sum([one.delta for one in sent], 0), atol=1e-4)
    assert (first.words == second.words).mean() < 0.01


def test_a_masked_round_of_few_phones_is_refused(scene):
    with pytest.raises(ConfigError, match="at least 32 phones"):
        masked(replace(scene, captures=scene.captures[:31]), clip_norm=2.0, sessions=1)


def test_noise_hides_the_words_of_a_sum(scene):
    strong = noised(scene, Released(2.0, 8.0, len(scene.captures)))
    weak = noised(scene, Released(100.0, 1e-4, len(scene.captures)))
    assert weak["f1"] > 0.5
    assert strong["f1"] < weak["f1"] / 2


def test_counts_say_who_types_much(built, logs):
    """Frames aside: one who typed more has more likely typed any word."""
    logs = {user: ids * (1 + 20 * (place % 2)) for place, (user, ids) in enumerate(logs.items())}
    scene = make_scene(built.task, built.params, built.vocabulary, logs, sentence="see you", round=1)
    assert 0.3 < counts_alone(scene) <= 1.0


def test_a_sentence_of_unknown_words_is_refused(built, logs):
    with pytest.raises(ConfigError, match="must know a word"):
        make_scene(built.task, built.params, built.vocabulary, logs, sentence="gezellig", round=1)


def test_too_few_users_are_refused(texts, built):
    with pytest.raises(DataError, match=r"the held-out users of the source .*, got 1000"):
        logs_of(texts, built.vocabulary, phones=1_000, seed=1)
    assert len(logs_of(texts, built.vocabulary, phones=3, seed=1)) == 3


def test_membership_shows_in_plain_sums_and_not_in_noised_ones(scene):
    updates = [one.delta for one in scene.captures]
    found = membership(updates, Released(0.5, 20.0, 4), cohort=4, trials=120, seed=1)
    assert found.plain_auc > 0.8
    assert abs(found.protected_auc - 0.5) < 0.2
    with pytest.raises(ConfigError, match="at least 43 updates"):
        membership(updates, Released(0.5, 20.0, 41), cohort=41, trials=2, seed=1)
