"""Whole sessions: the sum is exact whoever drops out and when, and nothing but the sum can be read."""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from kbdfl.errors import ConfigError, Conflict, WireError
from kbdfl.secagg import Floors, Rule, Shortfall, crypto, messages
from kbdfl.secagg.field import PRIME
from kbdfl.secagg.graph import plan_for
from kbdfl.secagg.payload import to_sum, unpack
from kbdfl.secagg.rehearsal import STEPS, rehearse

LAX = {"floors": Floors(devices=3), "rule": Rule(devices=3)}
SIZES = [
    3,
    4,
    4,
    5,
    5,
    5,
    6,
    6,
    6,
    6,
    7,
    7,
    8,
    9,
    12,
]  # small ones mostly: what a session costs grows with n squared


def rehearsed(n, levels, silent, *, floors, rule, words=3, **terms):
    given_terms = {"session": b"s" * 16, "task": "t", "round": 1, "model_sha256": bytes(32), "issued_s": 100}
    sizes = {"devices": n, "words": words, "levels": 127, "noise_bound": 0}
    stated = messages.Terms(**given_terms | sizes | terms)
    return rehearse(stated, lambda i: levels[i], devices=n, silent=silent, floors=floors, rule=rule)


def in_the_sum(n, silent):
    """Whose words arrived."""
    early = {place for step in ("advertise", "share", "mask") for place in silent.get(step, ())}
    return [place for place in range(n) if place not in early]


def check(n, levels, silent, **rules):
    run = rehearsed(n, levels, silent, **rules)
    assert run.survivors == in_the_sum(n, silent)
    assert_array_equal(run.total.levels, np.sum(levels[run.survivors], axis=0))


@st.composite
def cases(draw, sizes=SIZES, spare=0):
    """(n, levels (n, 3), silent): as many drop out, each before a step of its own, as a session can bear."""
    n = draw(st.sampled_from(sizes))
    plan = plan_for(n)
    most = n - max(plan.quorum, plan.threshold + 1) - spare
    gone = draw(st.permutations(range(n)))[: draw(st.integers(0, max(most, 0)))]
    silent = {}
    for place in gone:
        silent.setdefault(draw(st.sampled_from(STEPS[1:])), []).append(place)
    seed = draw(st.integers(0, 2**32))
    return n, np.random.Generator(np.random.PCG64(seed)).integers(-127, 128, (n, 3)), silent


@pytest.mark.parametrize("part", range(10))
@settings(max_examples=100, suppress_health_check=list(HealthCheck))
@given(case=cases())
def test_the_sum_is_exact_whoever_drops_out(part, case):
    """1,000 cases in ten parts, so that a slow machine does not take the whole for stuck."""
    check(*case, **LAX)


@settings(max_examples=8, suppress_health_check=list(HealthCheck))
@given(case=cases(sizes=[13, 18, 24, 30]))
def test_the_sum_of_more_phones_is_exact_too(case):
    check(*case, **LAX)


@settings(max_examples=30, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_on_a_sparse_graph_the_sum_is_exact_or_there_is_none(few_neighbours, data):
    n = data.draw(st.sampled_from([8, 10, 12, 14]))
    plan = plan_for(n, corrupt=0, security_bits=1e-9, liveness_bits=1)
    assert not plan.complete
    gone = data.draw(st.permutations(range(n)))[: data.draw(st.integers(0, 3))]
    silent = {}
    for place in gone:
        silent.setdefault(data.draw(st.sampled_from(STEPS)), []).append(place)
    levels = np.arange(n * 3).reshape(n, 3) - n
    try:
        check(n, levels, silent, **few_neighbours)
    except Shortfall:
        assert gone
    if len(gone) == 1 and "advertise" not in silent:
        check(n, levels, silent, **few_neighbours)  # one can always be spared


def test_a_quarter_of_a_sparse_cohort_drops_out():
    n = 129
    levels = np.random.Generator(np.random.PCG64(1)).integers(-127, 128, (n, 3))
    silent = {step: list(range(at, 32, 4)) for at, step in enumerate(STEPS[1:])}
    assert not plan_for(n).complete
    check(n, levels, silent, floors=Floors(), rule=Rule())


@pytest.mark.parametrize("n", [3, 4, 9, 17])
@pytest.mark.parametrize("level", [127, -127])
def test_all_extremes_add_up(n, level):
    run = rehearsed(n, np.full((n, 3), level), {}, **LAX)
    assert_array_equal(run.total.levels, np.full(3, n * level))


def test_noise_within_its_bound_adds_up():
    levels = np.array([[127 + 50, -127 - 50, 3]] * 4)
    run = rehearsed(4, levels, {}, noise_bound=50, **LAX)
    assert_array_equal(run.total.levels, levels.sum(axis=0))


@pytest.mark.parametrize("step", STEPS)
def test_too_few_phones_are_a_shortfall_at_every_step(step):
    with pytest.raises(Shortfall, match=r"at least|needed"):
        rehearsed(8, np.zeros((8, 3), np.int64), {step: range(6)}, **LAX)


def test_a_phone_that_never_shares_its_secrets_costs_nothing(room):
    played = room(6)
    played.play("advertise")
    played.play("share", silent=[2])
    played.play("mask", "confirm", silent=[2])
    total = played.play("unmask", silent=[2])
    assert_array_equal(total.levels, np.delete(played.levels, 2, axis=0).sum(axis=0))
    assert played.identities[2] not in total.survivors


def test_the_default_floors_ask_for_32_phones(room):
    played = room(6, rule=Rule())
    with pytest.raises(Shortfall, match="at least 32"):
        played.play("advertise")


@pytest.mark.parametrize("change", [{"devices": 2}, {"dropout": 0.5}, {"corrupt": 0.4}, {"dropout": -0.1}])
def test_a_rule_that_no_session_can_keep_is_refused(change):
    with pytest.raises(ConfigError):
        Rule(**change)


def uniform(words, bits):
    """Whether chi-square over 16 equal bins is within 8 standard deviations: nothing but a fault fails it."""
    counts = np.bincount(words >> np.uint32(bits - 4), minlength=16)
    expected = len(words) / 16
    return abs(((counts - expected) ** 2 / expected).sum() - 15) < 8 * np.sqrt(2 * 15)


def test_masked_words_look_like_noise_and_masks_cancel_for_all_survivors_alone(room):
    played = room(5, words=20_000)
    played.levels[:] = 1
    played.before("confirm")
    terms, server = played.terms, played.server
    masked = [unpack(played.sent["mask"][place].words, 20_000, terms.bits) for place in range(5)]
    ones = np.uint32(2**terms.bits - 1)
    assert not uniform(np.ones(20_000, np.uint32), terms.bits)  # the measure can tell
    for words in masked:
        assert uniform(words, terms.bits)
    assert uniform((masked[0] - masked[1]) & ones, terms.bits)
    assert_array_equal(server._words, np.sum(masked, axis=0, dtype=np.uint32) & ones)
    # Without their own masks, which the test knows, all five words cancel to the sum and four do not.
    for place, words in enumerate(masked):
        seed = played.phones[place]._secrets.seed.to_bytes(32, "little")
        own = crypto.derive(seed, crypto.OWN, terms.context, played.identities[place])
        crypto.apply_mask(words, own, bits=terms.bits, subtract=True)
    assert_array_equal(to_sum(sum(masked) & ones, bits=terms.bits), np.full(20_000, 5))
    assert uniform(sum(masked[:4]) & ones, terms.bits)
    assert all(uniform(words, terms.bits) for words in masked)


def test_the_same_values_are_masked_anew_in_every_session(room):
    payloads = {room(3).before("confirm").sent["mask"][0].words for _ in range(5)}
    assert len(payloads) == 5


def test_a_message_sent_again_changes_nothing_and_another_is_refused(room):
    played = room(4)
    for step in STEPS:
        answers = {}
        for place in range(4):
            answers[place] = played.answer(step, place, played.asked(step, place))
            played.take(step, place, answers[place])
            played.take(step, place, answers[place])
            played.sent[step][place] = answers[place]
        if step != "advertise":
            other = type(answers[0]).decode(_changed(answers[0]).encode())
            with pytest.raises(Conflict, match="another such message"):
                played.take(step, 0, other)
        total = played.server.close()
        played.take(step, 1, answers[1])  # late, but the same
    assert_array_equal(total.levels, played.levels.sum(axis=0))
    with pytest.raises(Conflict, match="over"):
        played.server.close()


def _changed(message):
    fields = {
        name: getattr(message, name) for name in type(message).__dataclass_fields__ if hasattr(message, name)
    }
    fields = {name: value for name, value in fields.items() if isinstance(value, bytes)}
    last = list(fields)[-1]
    fields[last] = fields[last][:-1] + bytes([fields[last][-1] ^ 1])
    return type(message)(**fields)


def test_a_server_takes_messages_in_their_phase_from_those_in_it_alone(room):
    played = room(4)
    played.play("advertise")
    shares = played.answer("share", 0, played.asked("share", 0))
    with pytest.raises(Conflict, match="takes no part"):
        played.server.share(b"x" * 32, shares)
    with pytest.raises(Conflict, match="belongs to masking"):
        played.server.add(played.identities[0], messages.Masked(played.terms.session, b"x"))
    with pytest.raises(WireError, match="this session"):
        played.server.share(played.identities[0], messages.Shares(b"o" * 16, shares.commitment, shares.boxes))
    with pytest.raises(WireError, match="3 boxes, got 2"):
        played.server.share(
            played.identities[0],
            messages.Shares(shares.session, shares.commitment, shares.boxes[: -messages.BOX]),
        )


def test_a_server_refuses_adverts_that_would_make_others_abort(room):
    played, stranger = room(4), room(4)
    first = played.answer("advertise", 0, played.terms)
    played.server.advertise(first)
    with pytest.raises(WireError, match="signed"):
        played.server.advertise(
            messages.Advert(
                first.session, played.identities[1], first.sealing, first.masking, first.signature
            )
        )

    def signed(sealing, masking):
        keys = (played.identities[1], sealing, masking)
        text = played.terms.context.label + b"".join(keys)
        return messages.Advert(first.session, *keys, crypto.sign(played.keys[1], "advert", text))

    with pytest.raises(WireError, match="nobody else"):
        played.server.advertise(signed(first.sealing, b"k" * 32))
    with pytest.raises(WireError, match="small order"):
        played.server.advertise(signed(bytes(32), b"k" * 32))
    for place in range(1, 4):
        played.server.advertise(played.answer("advertise", place, played.terms))
    late = stranger.answer("advertise", 0, played.terms)
    with pytest.raises(Conflict, match="at most 4"):
        played.server.advertise(late)


def test_one_wrong_share_is_passed_by_and_more_are_noticed(room):
    def ended(liars):
        played = room(6).before("unmask")
        for place in range(6):
            answer = played.answer("unmask", place, played.asked("unmask", place))
            if place in liars:
                wrong = ((int.from_bytes(answer.shares[:32], "little") + 1) % PRIME).to_bytes(32, "little")
                answer = messages.Unmasked(answer.session, wrong + answer.shares[32:])
            played.take("unmask", place, answer)
        return played, played.server.close

    for liar in (1, 3, 5):
        played, close = ended([liar])
        assert_array_equal(close().levels, played.levels.sum(axis=0))
    _, close = ended([1, 2, 3, 4, 5])
    with pytest.raises(Shortfall, match="do not fit together"):
        close()


def test_a_server_refuses_a_confirmation_of_other_survivors(room):
    played = room(4).before("confirm")
    answer = played.answer("confirm", 0, played.asked("confirm", 0))
    with pytest.raises(WireError, match="told of"):
        played.server.confirm(played.identities[1], answer)


def test_bytes_and_seconds_are_counted(room):
    run = rehearsed(5, np.zeros((5, 3), np.int64), {"mask": [4]}, **LAX)
    assert run.up.keys() == run.down.keys() == run.server_s.keys() == set(STEPS)
    assert set(run.up["mask"]) == {0, 1, 2, 3}
    assert run.up_bytes(4) < run.up_bytes(0)
    assert run.up_bytes(0) == sum(run.up[step][0] for step in STEPS)
    assert min(run.device_s.values()) > 0
