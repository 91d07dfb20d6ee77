"""A whole session in one process: every device and the server, each message through its bytes, drop-outs where asked.

For tests and measurements; over HTTP the same two classes are driven by a server and by device agents.
"""

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np

from kbdfl.secagg import crypto, messages
from kbdfl.secagg.device import Device, Floors
from kbdfl.secagg.server import Rule, Server, Sum

STEPS = ("advertise", "share", "mask", "confirm", "unmask")  # what a device sends


@dataclass(slots=True, eq=False)
class Rehearsal:
    """What a session took, by step and by device (its place in the list of phones).

    `up` and `down` are bytes; in seconds of the processor, `device_s` is all steps, `server_s` the server by step:
    reading what comes, closing the phase, and writing what is asked next.
    """

    total: Sum
    survivors: list[int]
    server: Server
    up: dict[str, dict[int, int]] = field(default_factory=dict)
    down: dict[str, dict[int, int]] = field(default_factory=dict)
    device_s: dict[int, float] = field(default_factory=dict)
    server_s: dict[str, float] = field(default_factory=dict)

    def up_bytes(self, device: int) -> int:
        """All that `device` sent."""
        return sum(sent.get(device, 0) for sent in self.up.values())


def rehearse(
    terms: messages.Terms,
    levels: Callable[[int], np.ndarray],
    *,
    devices: int,
    silent: Mapping[str, Iterable[int]] | None = None,
    floors: Floors | None = None,
    rule: Rule | None = None,
    progress: Callable[[list[int], str], Iterable[int]] = lambda places, step: places,
) -> Rehearsal:
    """Run a session of `devices` phones, of which phone i would give `levels(i)`.

    `silent` says who stops before which step; `progress` is wrapped around the phones of a step. Raises Shortfall where
    too few are left.
    """
    now, server = float(terms.issued_s), Server(terms, rule)
    keys = [crypto.new_secret() for _ in range(devices)]
    identities = [crypto.identity_of(key) for key in keys]
    phones = {place: Device(key, seen=set(), floors=floors) for place, key in enumerate(keys)}
    run = Rehearsal(Sum(np.zeros(0, np.int64), ()), [], server)

    def exchange(step: str, place: int) -> None:
        given = levels(place) if step == "mask" else None
        started = time.process_time()
        asked = _asked(server, step, identities[place]).encode()
        handed_over = time.process_time()
        answer = _answer(phones[place], step, asked, terms, given, now).encode()
        answered = time.process_time()
        _take(server, step, identities[place], answer)
        server_s = time.process_time() - answered + handed_over - started
        run.server_s[step] = run.server_s.get(step, 0.0) + server_s
        run.device_s[place] = run.device_s.get(place, 0.0) + answered - handed_over
        run.down.setdefault(step, {})[place] = len(asked)
        run.up.setdefault(step, {})[place] = len(answer)

    for step in STEPS:
        for place in (silent or {}).get(step, ()):
            phones.pop(place, None)
        for place in progress(sorted(phones), step):
            exchange(step, place)
        started = time.process_time()
        run.total = server.close() or run.total
        run.server_s[step] = run.server_s.get(step, 0.0) + time.process_time() - started
    summed = set(run.total.survivors)
    run.survivors = [place for place, identity in enumerate(identities) if identity in summed]
    return run


def _asked(server: Server, step: str, identity: bytes) -> messages.Message:
    """What the server sends a device before `step`."""
    if step == "advertise":
        return server.terms
    if step == "share":
        return server.roster_for(identity)
    if step == "mask":
        return server.inbox_for(identity)
    return server.survivors() if step == "confirm" else server.quorum()


def _answer(
    phone: Device,
    step: str,
    asked: bytes,
    terms: messages.Terms,
    levels: np.ndarray | None,
    now: float,
) -> messages.Message:
    if step == "advertise":
        return phone.join(
            messages.Terms.decode(asked), task=terms.task, round=terms.round,
            model_sha256=terms.model_sha256, words=terms.words, now=now,
        )  # fmt: skip
    if step == "share":
        return phone.share(messages.Roster.decode(asked), now=now)
    if step == "mask":
        return phone.mask(messages.Inbox.decode(asked), levels, now=now)
    if step == "confirm":
        return phone.confirm(messages.Survivors.decode(asked), now=now)
    return phone.unmask(messages.Quorum.decode(asked), now=now)


def _take(server: Server, step: str, identity: bytes, answer: bytes) -> None:
    if step == "advertise":
        server.advertise(messages.Advert.decode(answer))
    elif step == "share":
        server.share(identity, messages.Shares.decode(answer))
    elif step == "mask":
        server.add(identity, messages.Masked.decode(answer))
    elif step == "confirm":
        server.confirm(identity, messages.Confirmation.decode(answer))
    else:
        server.unmask(identity, messages.Unmasked.decode(answer))
