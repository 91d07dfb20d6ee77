"""What a lying server may try: the phone aborts, gives nothing, and has forgotten everything."""

from dataclasses import replace

import numpy as np
import pytest

from kbdfl.errors import ConfigError
from kbdfl.secagg import Abort, Floors, crypto, messages
from kbdfl.secagg.messages import BOX, ENTRY, NEIGHBOUR, from_bitmap, in_pieces, to_bitmap
from kbdfl.secagg.rehearsal import STEPS

N = 7  # degree 6, threshold 4, quorum 5 at Floors.corrupt = 0.2
VICTIM = 2


def with_map(message, name, *, add=(), remove=()):
    places = set(from_bitmap(getattr(message, name), N)) | set(add)
    return replace(message, **{name: to_bitmap(places - set(remove), N)})


def cut(text, size, place, new):
    pieces = in_pieces(text, size)
    pieces[place] = new
    return b"".join(pieces)


# A script: (the step that it strikes at, the phones that fell silent before mask, what it does to the honest message,
# the reason that the phone gives).
def alive_and_dropped(asked, room):
    return with_map(asked, "dropped", add=[0])


def self_dead(asked, room):
    return with_map(with_map(asked, "alive", remove=[VICTIM]), "dropped", add=[VICTIM])


def self_missing(asked, room):
    return with_map(asked, "alive", remove=[VICTIM])


def neighbour_hidden(asked, room):
    return with_map(asked, "alive", remove=[0])


def neighbour_that_never_shared(asked, room):
    return with_map(asked, "alive", add=[6])


def unknown_survivor(asked, room):
    return replace(asked, alive=bytes([asked.alive[0] | 1 << N]))


def longer_bitmap(asked, room):
    return replace(asked, alive=asked.alive + b"\0")


def all_others_dead(asked, room):
    others = set(range(N)) - {VICTIM}
    return with_map(with_map(asked, "alive", remove=others), "dropped", add=others)


def too_few_alive(asked, room):
    gone = [0, 1, 3]
    return with_map(with_map(asked, "alive", remove=gone), "dropped", add=gone)


def swapped_key(asked, room):
    """The server's own keys in a neighbour's place."""
    mine = crypto.Agreement(crypto.new_secret()).public + crypto.Agreement(crypto.new_secret()).public
    honest = in_pieces(asked.neighbours, NEIGHBOUR)[0]
    return replace(asked, neighbours=cut(asked.neighbours, NEIGHBOUR, 0, mine + honest[64:]))


def swapped_and_signed_key(asked, room):
    """Signed, but by the server; and the roster fits."""
    identity = room.identities[0]
    keys = (identity, *(crypto.Agreement(crypto.new_secret()).public for _ in range(2)))
    signature = crypto.sign(crypto.new_secret(), "advert", room.terms.context.label + b"".join(keys))
    forged = messages.Advert(asked.session, *keys, signature)
    return replace(
        asked,
        entries=cut(asked.entries, ENTRY, 0, forged.entry),
        neighbours=cut(asked.neighbours, NEIGHBOUR, 0, forged.sealing + forged.masking + signature),
    )


def two_neighbours_exchanged(asked, room):
    first, second = in_pieces(asked.neighbours, NEIGHBOUR)[:2]
    return replace(asked, neighbours=second + first + asked.neighbours[2 * NEIGHBOUR :])


def one_neighbour_missing(asked, room):
    return replace(asked, neighbours=asked.neighbours[NEIGHBOUR:])


def advert_of_a_former_session(asked, room):
    """The keys that a neighbour signed for another session: those would be known by now."""
    former = replace(room.terms, session=b"f" * 16)
    keys = (room.identities[0], *(crypto.Agreement(crypto.new_secret()).public for _ in range(2)))
    signature = crypto.sign(room.keys[0], "advert", former.context.label + b"".join(keys))
    forged = messages.Advert(asked.session, *keys, signature)
    return replace(
        asked,
        entries=cut(asked.entries, ENTRY, 0, forged.entry),
        neighbours=cut(asked.neighbours, NEIGHBOUR, 0, forged.sealing + forged.masking + signature),
    )


def same_key_twice(asked, room):
    """Two of the server's phones with the same keys."""
    keys = [crypto.Agreement(crypto.new_secret()).public for _ in range(2)]
    entries, neighbours = asked.entries, asked.neighbours
    for place in (0, 1):
        signed = (room.identities[place], *keys)
        text = room.terms.context.label + b"".join(signed)
        advert = messages.Advert(asked.session, *signed, crypto.sign(room.keys[place], "advert", text))
        entries = cut(entries, ENTRY, place, advert.entry)
        neighbours = cut(neighbours, NEIGHBOUR, place, b"".join(keys) + advert.signature)
    return replace(asked, entries=entries, neighbours=neighbours)


def own_key_swapped(asked, room):
    entry = in_pieces(asked.entries, ENTRY)[VICTIM]
    return replace(asked, entries=cut(asked.entries, ENTRY, VICTIM, entry[:-1] + bytes([entry[-1] ^ 1])))


def victim_left_out(asked, room):
    pieces = in_pieces(asked.entries, ENTRY)
    return replace(asked, entries=b"".join(pieces[:VICTIM] + pieces[VICTIM + 1 :]))


def one_identity_twice(asked, room):
    pieces = in_pieces(asked.entries, ENTRY)
    return replace(asked, entries=b"".join([pieces[0], *pieces]))


def not_in_order(asked, room):
    pieces = in_pieces(asked.entries, ENTRY)
    return replace(asked, entries=b"".join([pieces[1], pieces[0], *pieces[2:]]))


def more_than_invited(asked, room):
    return replace(asked, entries=asked.entries + b"\xff" * ENTRY)


def fewer_than_the_floor(asked, room):
    pieces = in_pieces(asked.entries, ENTRY)
    return replace(asked, entries=b"".join(pieces[VICTIM : VICTIM + 2]), degree=1, threshold=1, quorum=2)


def half_a_threshold(asked, room):
    return replace(asked, threshold=3)


def low_quorum(asked, room):
    return replace(asked, quorum=4)


def low_degree(asked, room):
    return replace(asked, degree=2, threshold=2)


def too_few_boxes(asked, room):
    return replace(asked, senders=to_bitmap([0, 1, 3], N), boxes=asked.boxes[: 3 * BOX])


def box_of_nobody(asked, room):
    return with_map(replace(asked, boxes=asked.boxes + asked.boxes[:BOX]), "senders", add=[VICTIM])


def unknown_sender(asked, room):
    return replace(asked, senders=bytes([asked.senders[0] | 1 << N]), boxes=asked.boxes + asked.boxes[:BOX])


def boxes_exchanged(asked, room):
    return replace(asked, boxes=asked.boxes[BOX : 2 * BOX] + asked.boxes[:BOX] + asked.boxes[2 * BOX :])


def own_box_returned(asked, room):
    own = in_pieces(room.sent["share"][VICTIM].boxes, BOX)[0]
    return replace(asked, boxes=own + asked.boxes[BOX:])


def box_missing(asked, room):
    return replace(asked, boxes=asked.boxes[BOX:])


def too_few_signatures(asked, room):
    places = from_bitmap(asked.signers, N)[:-1]
    return replace(asked, signers=to_bitmap(places, N), signatures=asked.signatures[:-64])


def signature_counted_twice(asked, room):
    first = asked.signatures[:64]
    return replace(asked, signatures=first + first + asked.signatures[128:])


def signer_who_is_dead(asked, room):
    honest = from_bitmap(asked.signers, N)
    return replace(asked, signers=to_bitmap([*honest[:-1], 6], N))


def unknown_signer(asked, room):
    return replace(asked, signers=bytes([asked.signers[0] | 1 << N]), signatures=asked.signatures + bytes(64))


def no_signatures(asked, room):
    return replace(asked, signers=bytes(1), signatures=b"")


def signatures_over_another_set(asked, room):
    """The server told all the others another story, and shows their signatures over it."""
    story = with_map(with_map(room.server.survivors(), "alive", remove=[5]), "dropped", add=[5])
    text = story.signed(room.terms, room.server._roster_digest)
    signers = [0, 1, 3, 4, 5]
    signatures = b"".join(crypto.sign(room.keys[place], "survivors", text) for place in signers)
    return replace(asked, signers=to_bitmap(signers, N), signatures=signatures)


def other_session(asked, room):
    return replace(asked, session=b"o" * 16)


SCRIPTS = {
    "a peer alive and dead": ("confirm", [], alive_and_dropped, "alive and dropped"),
    "the phone itself dead": ("confirm", [], self_dead, "this device"),
    "the phone itself missing": ("confirm", [], self_missing, "this device"),
    "a neighbour neither alive nor dead": ("confirm", [], neighbour_hidden, "must be those that shared"),
    "an unknown survivor": ("confirm", [], unknown_survivor, "nobody else"),
    "a longer bitmap": ("confirm", [], longer_bitmap, "nobody else"),
    "everybody else dead": ("confirm", [], all_others_dead, "at least 5 devices must be alive, got 1"),
    "fewer than the quorum alive": ("confirm", [], too_few_alive, "at least 5 devices must be alive"),
    "survivors of another session": ("confirm", [], other_session, "this session"),
    "a swapped key": ("share", [], swapped_key, "not those that it signed"),
    "a swapped key, signed by the server": ("share", [], swapped_and_signed_key, "not those that it signed"),
    "keys signed for a former session": ("share", [], advert_of_a_former_session, "not those that it signed"),
    "two neighbours exchanged": ("share", [], two_neighbours_exchanged, "not those that it signed"),
    "a neighbour left out": ("share", [], one_neighbour_missing, "must be 6 neighbours"),
    "two with the same keys": ("share", [], same_key_twice, "stand twice"),
    "the phone's own key swapped": ("share", [], own_key_swapped, "that it advertised"),
    "the phone left out": ("share", [], victim_left_out, "that it advertised"),
    "one identity twice": ("share", [], one_identity_twice, "each identity once"),
    "a roster out of order": ("share", [], not_in_order, "each identity once"),
    "more than were invited": ("share", [], more_than_invited, "3 to 7 devices, got 8"),
    "fewer than the floor": ("share", [], fewer_than_the_floor, "3 to 7 devices, got 2"),
    "a threshold of half the neighbours": ("share", [], half_a_threshold, "more than half"),
    "a quorum below the floor": ("share", [], low_quorum, "quorum must be at least 5, got 4"),
    "too few neighbours": ("share", [], low_degree, "degree must be"),
    "a roster of another session": ("share", [], other_session, "this session"),
    "fewer than t boxes": ("mask", [], too_few_boxes, "at least 4 neighbours"),
    "a box from the phone itself": ("mask", [], box_of_nobody, "must be a neighbour"),
    "an unknown sender": ("mask", [], unknown_sender, "nobody else"),
    "two boxes exchanged": ("mask", [], boxes_exchanged, "does not open"),
    "the phone's own box returned": ("mask", [], own_box_returned, "does not open"),
    "a box missing": ("mask", [], box_missing, "one box of each sender"),
    "an inbox of another session": ("mask", [], other_session, "this session"),
    "too few signatures": ("unmask", [], too_few_signatures, "at least 5 devices must sign"),
    "no signatures": ("unmask", [], no_signatures, "at least 5 devices must sign"),
    "a signature for two": ("unmask", [], signature_counted_twice, "did not sign"),
    "a dead signer": ("unmask", [6], signer_who_is_dead, "must be alive"),
    "an unknown signer": ("unmask", [], unknown_signer, "nobody else"),
    "other survivors told to others": ("unmask", [], signatures_over_another_set, "did not sign"),
    "a quorum of another session": ("unmask", [], other_session, "this session"),
}


def assert_forgot_everything(phone):
    assert phone.stage == "aborted"
    assert phone._kept is None


@pytest.mark.parametrize("name", SCRIPTS)
def test_the_phone_aborts_and_gives_nothing(room, name):
    step, silent, script, reason = SCRIPTS[name]
    played, taken = room(N), STEPS[: STEPS.index(step)]
    played.play(*taken[:2])
    played.play(*taken[2:], silent=silent)
    honest = played.asked(step, VICTIM)
    phone, given = played.twin(VICTIM), []
    with pytest.raises(Abort, match=reason) as caught:
        given.append(played.answer(step, VICTIM, script(honest, played), phone=phone))
    assert given == []
    assert "\n" not in str(caught.value)
    assert_forgot_everything(phone)
    # The honest message comes too late, and so does every other.
    for later in STEPS[1:]:
        with pytest.raises(Abort, match="the device is aborted"):
            played.answer(later, VICTIM, honest, phone=phone)
    # It was the script that the phone did not like: the honest message it answers.
    assert played.answer(step, VICTIM, honest).session == played.terms.session


def test_a_second_request_to_unmask_is_refused(room):
    played = room(N).before("unmask")
    asked = played.asked("unmask", VICTIM)
    played.answer("unmask", VICTIM, asked)
    phone = played.phones[VICTIM]
    assert phone._kept is None  # nothing for a second time
    for again in (asked, replace(asked, signers=asked.signers)):
        with pytest.raises(Abort, match="must come after confirmed"):
            played.answer("unmask", VICTIM, again)


@pytest.mark.parametrize("step", STEPS)
def test_a_message_that_comes_twice_ends_the_session(room, step):
    played = room(N).before(step)
    asked = played.asked(step, VICTIM)
    played.answer(step, VICTIM, asked)
    with pytest.raises(Abort, match="must come after"):
        played.answer(step, VICTIM, asked)
    assert_forgot_everything(played.phones[VICTIM])


@pytest.mark.parametrize("step", STEPS[1:])
def test_a_step_cannot_be_left_out(room, step):
    played = room(N).before(step)
    phone = played.twin(VICTIM)
    before = {"share": "new", "mask": "joined", "confirm": "shared", "unmask": "masked"}
    phone.stage = before[step]
    with pytest.raises(Abort, match="must come after"):
        played.answer(step, VICTIM, played.asked(step, VICTIM), phone=phone)
    assert_forgot_everything(phone)


def test_two_sets_of_survivors_are_not_both_signed(room):
    played = room(N).before("confirm")
    honest = played.asked("confirm", VICTIM)
    other = with_map(with_map(honest, "alive", remove=[0]), "dropped", add=[0])
    played.answer("confirm", VICTIM, other)
    with pytest.raises(Abort, match="must come after masked"):
        played.answer("confirm", VICTIM, honest)


def test_a_server_that_tells_two_stories_gets_no_shares_at_all(room):
    """Half are told that phone 0 lives, half that it is dead: neither half is a quorum, and nobody answers."""
    played = room(N).before("confirm")
    lives = played.server.survivors()
    dead = with_map(with_map(lives, "alive", remove=[0]), "dropped", add=[0])
    told = {place: lives if place in (0, 1, 2) else dead for place in range(N)}
    signed = {place: played.answer("confirm", place, told[place]) for place in range(N)}
    given = []
    for place in range(N):
        alike = [other for other in range(N) if told[other] is told[place]]  # true, and too few
        enough = [other for other in range(N) if other != 0 or told[place] is lives]  # and not all of it true
        for signers in (alike, enough):
            quorum = messages.Quorum(
                played.terms.session,
                to_bitmap(signers, N),
                b"".join(signed[other].signature for other in signers),
            )
            phone = played.twin(place)
            with pytest.raises(Abort, match=r"must sign|did not sign"):
                given.append(played.answer("unmask", place, quorum, phone=phone))
            assert_forgot_everything(phone)
    assert given == []


def test_a_session_is_joined_once(room):
    played = room(N)
    played.answer("advertise", VICTIM, played.terms)
    assert played.terms.session in played.seen[VICTIM]
    replayed = room(N)
    replayed.phones[VICTIM]._seen.add(played.terms.session)
    with pytest.raises(Abort, match="used before"):
        replayed.answer("advertise", VICTIM, played.terms)
    assert_forgot_everything(replayed.phones[VICTIM])


def test_a_round_is_summed_once(room):
    """Two sums over almost the same phones would differ by one phone's values."""
    first, second = room(N), room(N, session=b"t" * 16)
    first.answer("advertise", VICTIM, first.terms)
    second.phones[VICTIM]._seen.update(first.seen[VICTIM])
    with pytest.raises(Abort, match="this task and round before"):
        second.answer("advertise", VICTIM, second.terms)
    assert_forgot_everything(second.phones[VICTIM])


@pytest.mark.parametrize(
    "assigned",
    [{"task": "other"}, {"round": 6}, {"model_sha256": b"o" * 32}, {"words": 5}],
    ids=lambda assigned: next(iter(assigned)),
)
def test_terms_for_other_work_than_the_phones_are_refused(room, assigned):
    played = room(N)
    with pytest.raises(Abort, match="that the device works on"):
        played.answer("advertise", VICTIM, played.terms, **assigned)
    assert played.seen[VICTIM] == set()


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("after_s", [3_601, -301])
def test_an_old_session_is_left_at_every_step(room, now, step, after_s):
    played = room(N).before(step)
    with pytest.raises(Abort, match="at most 3600 s old"):
        played.answer(step, VICTIM, played.asked(step, VICTIM), now=now + after_s)
    assert_forgot_everything(played.phones[VICTIM])


@pytest.mark.parametrize("given", [(127, 0), (127, 999), (127, 1_001), (126, 1_001)])
def test_terms_with_another_room_than_the_phone_needs_are_refused_before_any_noise_is_drawn(room, given):
    played, needed = room(N, levels=given[0], noise_bound=given[1]), (127, 1_000)
    with pytest.raises(Abort, match="must leave room for levels and noise up to"):
        played.answer("advertise", VICTIM, played.terms, room=needed)
    assert_forgot_everything(played.phones[VICTIM])
    exact = room(N, noise_bound=1_000)
    assert exact.answer("advertise", VICTIM, exact.terms, room=needed).session == exact.terms.session


def test_terms_of_fewer_than_the_floor_are_refused_at_once(room):
    played = room(N, floors=Floors())
    with pytest.raises(Abort, match="at least 32 devices must take part, the terms say 7"):
        played.answer("advertise", VICTIM, played.terms)


@pytest.fixture(scope="module")
def opened(room):
    """A room before masking, and what the victim is honestly asked there."""
    played = room(N).before("mask")
    return played, played.asked("mask", VICTIM)


@pytest.mark.parametrize("place", range(BOX))
def test_a_byte_altered_anywhere_in_a_sealed_share_ends_the_session(opened, place):
    played, honest = opened
    phone, boxes = played.twin(VICTIM), bytearray(honest.boxes)
    boxes[BOX + place] ^= 0x40
    with pytest.raises(Abort, match="does not open"):
        played.answer("mask", VICTIM, replace(honest, boxes=bytes(boxes)), phone=phone)
    assert_forgot_everything(phone)


@pytest.fixture
def sparse(room, few_neighbours):
    """A room of 12 on a sparse graph, before masking."""
    played = room(12, **few_neighbours)
    played.play("advertise", "share")
    assert not played.server.plan.complete
    return played


def test_a_box_from_somebody_who_is_no_neighbour_is_refused(sparse):
    honest = sparse.asked("mask", 0)
    stranger = next(place for place in range(1, 12) if place not in sparse.server._neighbours[0])
    senders = from_bitmap(honest.senders, 12)
    swapped = to_bitmap([stranger, *senders[1:]], 12)
    with pytest.raises(Abort, match="must be a neighbour"):
        sparse.answer("mask", 0, replace(honest, senders=swapped))
    assert_forgot_everything(sparse.phones[0])


def test_neighbours_follow_from_the_roster_and_not_from_the_server(room, few_neighbours):
    played = room(12, **few_neighbours).before("share")
    honest = played.asked("share", 0)
    stranger = next(place for place in range(1, 12) if place not in played.server._neighbours[0])
    advert = played.sent["advertise"][stranger]
    chosen = cut(honest.neighbours, NEIGHBOUR, 0, advert.sealing + advert.masking + advert.signature)
    with pytest.raises(Abort, match="not those that it signed"):
        played.answer("share", 0, replace(honest, neighbours=chosen))


def test_survivors_who_fall_apart_are_not_signed(room, few_neighbours):
    """Two gaps around the ring would give the server two sums."""
    few = few_neighbours | {"rule": replace(few_neighbours["rule"], dropout=0)}
    played = room(30, **few).before("confirm")
    plan, order = played.server.plan, played.server._ring.order.tolist()
    half = plan.degree // 2
    gone = order[:half] + order[15 : 15 + half]
    assert 30 - len(gone) >= plan.quorum
    alive = [place for place in order if place not in gone]
    story = messages.Survivors(played.terms.session, to_bitmap(alive, 30), to_bitmap(gone, 30))
    reasons = []
    for place in alive:
        with pytest.raises(Abort) as caught:
            played.answer("confirm", place, story)
        reasons.append(str(caught.value))
    assert any("fall apart" in reason for reason in reasons)


def test_an_update_beyond_its_bound_ends_the_session_and_is_not_sent(room):
    for levels, reason in ((range(126, 130), "levels must be in"), (range(3), "4 words, the update has 3")):
        played = room(N).before("mask")
        with pytest.raises(Abort, match=reason):
            played.answer("mask", VICTIM, played.asked("mask", VICTIM), levels=np.array(levels))
        assert_forgot_everything(played.phones[VICTIM])


@pytest.mark.parametrize(
    "change", [{"devices": 2}, {"corrupt": 1.0}, {"corrupt": -0.1}, {"security_bits": 0}, {"age_s": 0}]
)
def test_floors_that_are_none_are_refused(change):
    with pytest.raises(ConfigError):
        Floors(**change)
