"""A phone's side of a session: five messages in, five out, in this order and once each.

    join(terms) -> Advert        two fresh X25519 keys, signed with the device's identity
    share(roster) -> Shares      shares of the masking key and of the own mask's seed, sealed to each neighbour
    mask(inbox, levels) -> Masked
    confirm(survivors) -> Confirmation
    unmask(quorum) -> Unmasked   of each neighbour one share: of the seed if it survived, else of the key

Bonawitz et al. 2017, figure 4 (double masking, with the consistency check of the malicious setting), on the graph of
`kbdfl.secagg.graph`. Nothing is taken on the server's word: the plan is measured against the device's own `Floors`,
the graph follows from the roster, keys are signed by their owners, and nothing is unmasked until a quorum has signed
the very set of survivors that the device was told. Anything else ends in `Abort`: secrets are dropped, and every
later call is refused. (Python cannot overwrite them: they are gone for the program, not from memory that somebody
reads.)
"""

from collections.abc import Callable, MutableSet
from dataclasses import dataclass
from functools import wraps
from itertools import pairwise
from typing import Any

import numpy as np

from kbdfl.errors import ConfigError, KbdflError, WireError
from kbdfl.secagg import crypto, messages
from kbdfl.secagg.errors import Abort
from kbdfl.secagg.field import BYTES, draw_element, from_bytes, to_bytes
from kbdfl.secagg.graph import CORRUPT, SECURITY_BITS, Plan, Ring, check_plan
from kbdfl.secagg.messages import Advert, Roster, Terms, from_bitmap, in_pieces
from kbdfl.secagg.payload import pack, to_words
from kbdfl.secagg.shamir import split

AHEAD_S = 300  # how far a server's clock may run ahead of the device's


@dataclass(frozen=True, slots=True)
class Floors:
    """What a device insists on, whatever the server says.

    At least `devices` in a roster; a plan that is secure with all but 2^-security_bits if a share `corrupt` of them
    collude with the server; a session that is at most `age_s` old.
    """

    devices: int = 32
    corrupt: float = CORRUPT
    security_bits: float = SECURITY_BITS
    age_s: float = 3_600.0

    def __post_init__(self) -> None:
        if self.devices < 3:
            raise ConfigError(
                f"devices must be >= 3, for of two each knows the other's part, got {self.devices}"
            )
        if not 0 <= self.corrupt < 1:
            raise ConfigError(f"corrupt must be in [0, 1), got {self.corrupt}")
        for name in ("security_bits", "age_s"):
            if not getattr(self, name) > 0:
                raise ConfigError(f"{name} must be > 0, got {getattr(self, name)}")


class _Secrets:
    """What a device makes for one session, learns in it and forgets with it.

    By neighbours' places: `agreed` the secret of the two sealing keys, `held` the neighbour's shares of its masking key
    and of its own mask's seed.
    """

    def __init__(self) -> None:
        self.sealing = crypto.Agreement(crypto.new_secret())
        self.masking_key, self.seed = draw_element(), draw_element()
        self.masking = crypto.Agreement(to_bytes(self.masking_key))
        self.agreed: dict[int, bytes] = {}
        self.held: dict[int, tuple[bytes, bytes]] = {}


def _step(name: str, after: str) -> Callable[..., Any]:
    """One step of the session: only `after` the one before, never twice; whatever goes wrong ends it."""

    def wrap(method: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(method)
        def stepped(self: "Device", message: messages.Message, *rest: Any, now: float, **more: Any) -> Any:
            if self.stage != after:
                was = self.stage
                self._drop("aborted")
                raise Abort(f"{name} must come after {after}, the device is {was}")
            try:
                self._check_session(message, now)
                answer = method(self, message, *rest, **more)
            except KbdflError as error:
                self._drop("aborted")
                raise Abort(str(error)) from None
            except BaseException:
                self._drop("aborted")
                raise
            self.stage = name
            return answer

        return stepped

    return wrap


class Device:
    """One phone in one session.

    `identity` is its Ed25519 private key (32 bytes), `seen` what it ever joined (16 bytes a session, 32 for its task
    and round), to which this one is added; whoever keeps it must keep it for as long as `floors.age_s`, and over a
    restart. `now` is in seconds since 1970 everywhere.
    """

    def __init__(self, identity: bytes, *, seen: MutableSet[bytes], floors: Floors | None = None) -> None:
        self.stage: str = "new"
        self.floors: Floors = Floors() if floors is None else floors
        self._identity, self._seen = identity, seen
        self._kept: _Secrets | None = None

    @_step("joined", after="new")
    def join(
        self,
        terms: Terms,
        *,
        task: str,
        round: int,
        model_sha256: bytes,
        words: int,
        room: tuple[int, int] | None = None,
    ) -> Advert:
        """Take part under `terms`, which must be of the task, round and model that the device works on.

        `room` is what the device needs of them, where it says so: levels and noise_bound, exactly. Whether its noise
        fits is then no matter of chance; and since the noise follows from its bound, and a session has one set of
        terms, no other device in it was told to add a hundredth less.
        """
        expected = (task, round, model_sha256, words)
        if (terms.task, terms.round, terms.model_sha256, terms.words) != expected:
            raise WireError("the terms must be of the task, round, model and words that the device works on")
        given = terms.levels, terms.noise_bound
        if room is not None and given != room:
            raise WireError(f"the terms must leave room for levels and noise up to {room}, got {given}")
        work = crypto.digest("work", task.encode(), round.to_bytes(8, "little"))
        if terms.session in self._seen:
            raise WireError("the session was used before")
        if work in self._seen:
            # The sums of two sessions of one round differ by those who are in one of them only.
            raise WireError("the device has joined a session of this task and round before")
        if terms.devices < self.floors.devices:
            raise WireError(
                f"at least {self.floors.devices} devices must take part, the terms say {terms.devices}"
            )
        self._seen.add(terms.session)
        self._seen.add(work)
        self._terms, self._kept = terms, _Secrets()
        keys = (crypto.identity_of(self._identity), self._kept.sealing.public, self._kept.masking.public)
        signature = crypto.sign(self._identity, "advert", terms.context.label + b"".join(keys))
        self._advert = Advert(terms.session, *keys, signature)
        return self._advert

    @_step("shared", after="joined")
    def share(self, roster: Roster) -> messages.Shares:
        """Check who takes part, and share this device's two secrets among its neighbours."""
        terms, advert, secrets = self._terms, self._advert, self._secrets
        identities = roster.identities
        devices = len(identities)
        if any(first >= second for first, second in pairwise(identities)):
            raise WireError("a roster must name each identity once, in ascending order")
        entries = in_pieces(roster.entries, messages.ENTRY)
        if advert.entry not in entries:
            raise WireError("the roster must hold this device with the keys that it advertised")
        if not self.floors.devices <= devices <= terms.devices:
            raise WireError(
                f"a roster must hold {self.floors.devices} to {terms.devices} devices, got {devices}"
            )
        plan = Plan(devices, roster.degree, roster.threshold, roster.quorum)
        check_plan(plan, corrupt=self.floors.corrupt, security_bits=self.floors.security_bits)
        self._roster, self._plan = roster, plan
        self._roster_digest = messages.roster_digest(terms.session, roster.entries, plan)
        self._ring = Ring.drawn(plan, self._roster_digest)
        self._place = entries.index(advert.entry)
        self._neighbours = self._ring.neighbours(self._place)
        self._peers = self._read_neighbours(entries)
        points = [place + 1 for place in self._neighbours]
        pairs = zip(
            split(secrets.masking_key, points, plan.threshold),
            split(secrets.seed, points, plan.threshold),
            strict=True,
        )
        boxes = [
            crypto.seal(
                self._sealing_key(place, advert.identity, peer.identity),
                to_bytes(key_share) + to_bytes(seed_share),
                self._associated(advert.identity, peer.identity),
            )
            for (place, peer), (key_share, seed_share) in zip(self._peers.items(), pairs, strict=True)
        ]
        return messages.Shares(
            terms.session, commitment(to_bytes(secrets.seed), terms, advert.identity), b"".join(boxes)
        )

    @_step("masked", after="shared")
    def mask(self, inbox: messages.Inbox, levels: np.ndarray) -> messages.Masked:
        """Open the neighbours' boxes, and mask `levels`: integers (words,) of magnitude at most `terms.bound`.

        The masks are shared with the neighbours that are in the inbox. An update of another length, or beyond the
        bound, ends the session too.
        """
        terms, own, secrets = self._terms, self._advert.identity, self._secrets
        senders = from_bitmap(inbox.senders, self._plan.devices)
        boxes = in_pieces(inbox.boxes, messages.BOX)
        if not self._peers.keys() >= set(senders) or len(boxes) != len(senders):
            raise WireError("an inbox must hold one box of each sender, who must be a neighbour")
        if len(senders) < self._plan.threshold:
            raise WireError(
                f"at least {self._plan.threshold} neighbours must share secrets, got {len(senders)}"
            )
        for place, box in zip(senders, boxes, strict=True):
            peer = self._peers[place]
            key = self._sealing_key(place, peer.identity, own)
            shares = crypto.unseal(key, box, self._associated(peer.identity, own))
            secrets.held[place] = (shares[:BYTES], shares[BYTES:])
            for share in secrets.held[place]:
                from_bytes(share)  # refuses what is no element
        if len(levels) != terms.words:
            raise WireError(f"the terms are of {terms.words} words, the update has {len(levels)}")
        words = to_words(levels, bound=terms.bound, bits=terms.bits)
        crypto.apply_mask(words, own_mask(to_bytes(secrets.seed), terms, own), bits=terms.bits)
        for place in senders:
            peer = self._peers[place]
            seed = pairwise_mask(secrets.masking, own, peer, terms)
            crypto.apply_mask(words, seed, bits=terms.bits, subtract=self._place > place)
        return messages.Masked(terms.session, pack(words, terms.bits))

    @_step("confirmed", after="masked")
    def confirm(self, survivors: messages.Survivors) -> messages.Confirmation:
        """Sign the set of survivors, if it agrees with all that the device knows of it."""
        plan, sharers = self._plan, self._secrets.held.keys()
        alive = set(from_bitmap(survivors.alive, plan.devices))
        dropped = set(from_bitmap(survivors.dropped, plan.devices))
        if alive & dropped:
            raise WireError("a device is said to be alive and dropped")
        if self._place not in alive:
            raise WireError("this device, which gave its words, is said to have dropped out")
        if {place for place in self._neighbours if place in alive or place in dropped} != sharers:
            raise WireError("the neighbours that are alive or dropped must be those that shared secrets")
        if len(alive) < plan.quorum:
            raise WireError(f"at least {plan.quorum} devices must be alive, got {len(alive)}")
        if len(alive & sharers) < plan.threshold:
            raise WireError(f"at least {plan.threshold} neighbours must be alive")
        if not self._ring.connected(alive):
            raise WireError("the survivors must not fall apart into groups that are summed by themselves")
        self._alive, self._signed = alive, survivors.signed(self._terms, self._roster_digest)
        signature = crypto.sign(self._identity, "survivors", self._signed)
        return messages.Confirmation(self._terms.session, signature)

    @_step("done", after="confirmed")
    def unmask(self, quorum: messages.Quorum) -> messages.Unmasked:
        """Give the shares that undo the masks, once a quorum has signed the same survivors; then forget everything."""
        signers = from_bitmap(quorum.signers, self._plan.devices)
        signatures = in_pieces(quorum.signatures, crypto.SIGNATURE)
        if len(signatures) != len(signers) or not self._alive >= set(signers):
            raise WireError("a quorum must hold one signature of each signer, who must be alive")
        if len(signers) < self._plan.quorum:
            raise WireError(
                f"at least {self._plan.quorum} devices must sign the survivors, got {len(signers)}"
            )
        identities = self._roster.identities
        for place, signature in zip(signers, signatures, strict=True):
            if not crypto.signed_by(identities[place], signature, "survivors", self._signed):
                raise WireError(f"device {place} did not sign the survivors that this device was told of")
        held = self._secrets.held
        shares = [held[place][place in self._alive] for place in sorted(held)]
        self._drop("done")
        return messages.Unmasked(self._terms.session, b"".join(shares))

    def _check_session(self, message: messages.Message, now: float) -> None:
        terms = message if self.stage == "new" else self._terms
        if not isinstance(terms, Terms) or message.session != terms.session:
            raise WireError("the message must be of this session")
        if not -AHEAD_S <= now - terms.issued_s <= self.floors.age_s:
            raise WireError(f"a session must be at most {self.floors.age_s:g} s old")

    def _read_neighbours(self, entries: list[bytes]) -> dict[int, Advert]:
        """The adverts of the neighbours by place, each as its owner signed it."""
        terms, given = self._terms, in_pieces(self._roster.neighbours, messages.NEIGHBOUR)
        if len(given) != len(self._neighbours):
            raise WireError(f"there must be {len(self._neighbours)} neighbours' adverts, got {len(given)}")
        peers = {}
        for place, content in zip(self._neighbours, given, strict=True):
            keys = entries[place][: crypto.KEY], content[: crypto.KEY], content[crypto.KEY : 2 * crypto.KEY]
            advert = Advert(terms.session, *keys, content[2 * crypto.KEY :])
            signed = crypto.signed_by(
                advert.identity, advert.signature, "advert", terms.context.label + b"".join(keys)
            )
            if advert.entry != entries[place] or not signed:
                raise WireError(f"the keys of device {place} are not those that it signed for this session")
            peers[place] = advert
        fresh = {key for advert in (*peers.values(), self._advert) for key in advert.keys[1:]}
        if len(fresh) != 2 * len(peers) + 2:
            raise WireError("no key may stand twice among neighbours")
        return peers

    def _sealing_key(self, place: int, sender: bytes, receiver: bytes) -> bytes:
        secrets = self._secrets
        if place not in secrets.agreed:
            secrets.agreed[place] = secrets.sealing.with_peer(self._peers[place].sealing)
        return crypto.derive(secrets.agreed[place], crypto.SEALING, self._terms.context, sender, receiver)

    def _associated(self, sender: bytes, receiver: bytes) -> bytes:
        return self._terms.context.label + sender + receiver

    @property
    def _secrets(self) -> _Secrets:
        """What the steps after joining work with. Raises Abort once it is forgotten."""
        if self._kept is None:
            raise Abort("the device has forgotten its secrets")
        return self._kept

    def _drop(self, stage: str) -> None:
        self.stage, self._kept = stage, None


def own_mask(seed: bytes, terms: Terms, identity: bytes) -> bytes:
    """The seed of the mask that the device `identity` adds for itself."""
    return crypto.derive(seed, crypto.OWN, terms.context, identity)


def pairwise_mask(masking: crypto.Agreement, own: bytes, peer: Advert, terms: Terms) -> bytes:
    """The seed of the mask of two devices, the same for both: the lower identity adds it, the higher subtracts it."""
    pair = sorted((own, peer.identity))
    return crypto.derive(masking.with_peer(peer.masking), crypto.PAIRWISE, terms.context, *pair)


def commitment(seed: bytes, terms: Terms, identity: bytes) -> bytes:
    """What tells a server that it has rebuilt the right seed, and nothing else of it."""
    return crypto.digest("own seed", terms.context.label, identity, seed)
