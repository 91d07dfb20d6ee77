"""A room of phones and a server, in which a test can stop at any step, and put its own messages in a phone's way."""

import copy

import numpy as np
import pytest

from kbdfl.secagg import Device, Floors, Rule, Server, crypto, graph, messages
from kbdfl.secagg.rehearsal import STEPS

NOW = 1_700_000_000.0
MODEL = bytes(range(32))
ASSIGNED = {"task": "demo", "round": 7, "model_sha256": MODEL}


class Room:
    """n phones in the order of their identities, so that a phone's place in the roster is its number here."""

    def __init__(self, n, *, words=4, floors=None, rule=None, session=b"s" * 16, **terms):
        issued = {"issued_s": int(NOW), "devices": n, "words": words, "levels": 127, "noise_bound": 0}
        self.terms = messages.Terms(**{"session": session} | ASSIGNED | issued | terms)
        self.keys = sorted((crypto.new_secret() for _ in range(n)), key=crypto.identity_of)
        self.identities = [crypto.identity_of(key) for key in self.keys]
        self.floors = floors or Floors(devices=3)
        self.seen = [set() for _ in range(n)]
        self.phones = [
            Device(key, seen=seen, floors=self.floors) for key, seen in zip(self.keys, self.seen, strict=True)
        ]
        self.server = Server(self.terms, rule or Rule(devices=3))
        self.levels = np.arange(n * words).reshape(n, words) % 255 - 127
        self.sent = {step: {} for step in STEPS}

    def asked(self, step, place):
        """What an honest server asks of a phone."""
        server, identity = self.server, self.identities[place]
        return {
            "advertise": lambda: self.terms,
            "share": lambda: server.roster_for(identity),
            "mask": lambda: server.inbox_for(identity),
            "confirm": server.survivors,
            "unmask": server.quorum,
        }[step]()

    def answer(self, step, place, asked, *, phone=None, now=NOW, **more):
        """What the phone says to it."""
        phone = self.phones[place] if phone is None else phone
        if step == "advertise":
            return phone.join(asked, **ASSIGNED | {"words": self.terms.words} | more, now=now)
        if step == "mask":
            return phone.mask(asked, more.get("levels", self.levels[place]), now=now)
        return {"share": phone.share, "confirm": phone.confirm, "unmask": phone.unmask}[step](asked, now=now)

    def take(self, step, place, answer):
        """The server takes an answer."""
        server, identity = self.server, self.identities[place]
        if step == "advertise":
            return server.advertise(answer)
        take = {"share": server.share, "mask": server.add, "confirm": server.confirm, "unmask": server.unmask}
        return take[step](identity, answer)

    def play(self, *steps, silent=()):
        """Every phone but the silent ones takes the steps; the server closes each."""
        total = None
        for step in steps:
            for place in set(range(len(self.phones))) - set(silent):
                if step == "advertise" or place in self.sent[STEPS[STEPS.index(step) - 1]]:
                    answer = self.answer(step, place, self.asked(step, place))
                    self.sent[step][place] = answer
                    self.take(step, place, answer)
            total = self.server.close()
        return total

    def before(self, step, silent=()):
        """All steps before `step`; then the room itself."""
        self.play(*STEPS[: STEPS.index(step)], silent=silent)
        return self

    def twin(self, place):
        """A phone in the state that the one at `place` is in, whose fate leaves that one as it is."""
        phone = copy.copy(self.phones[place])
        phone._kept, phone._seen = copy.copy(phone._kept), set(phone._seen)
        phone._kept.held, phone._kept.agreed = dict(phone._kept.held), dict(phone._kept.agreed)
        return phone


@pytest.fixture(scope="session")
def room():
    return Room


@pytest.fixture
def now():
    return NOW


@pytest.fixture
def few_neighbours(monkeypatch):
    """The sparse graph from 5 phones on, with bits of security that so few can give."""
    monkeypatch.setattr(graph, "COMPLETE", 4)
    graph.plan_for.cache_clear()
    yield {
        "floors": Floors(devices=3, corrupt=0, security_bits=1e-9),
        "rule": Rule(devices=3, corrupt=0, security_bits=1e-9, liveness_bits=1),
    }
    graph.plan_for.cache_clear()
