"""A server's side of a session: it collects, closes a phase, and says what each device is sent next.

    invite       terms               -> Advert of each that takes part
    sharing      roster_for(device)  -> Shares
    masking      inbox_for(device)   -> Masked
    confirming   survivors()         -> Confirmation
    unmasking    quorum()            -> Unmasked
    close()      the sum

Devices may fall silent at any time: `close` of each phase goes on with those that answered, or raises Shortfall. A
device that advertises and then never shares its secrets has no masks in the sum, and costs nothing. The same message
twice is a phone that did not hear the answer, and changes nothing; another one in its place is refused. Whoever
calls has made sure of the sender (`identity`, its Ed25519 key). Masked words are added up as they come, so none is
kept.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import sha256

import numpy as np

from kbdfl.errors import ConfigError, Conflict, WireError
from kbdfl.kernels.masking import mask_add
from kbdfl.secagg import crypto, messages
from kbdfl.secagg.device import commitment, own_mask, pairwise_mask
from kbdfl.secagg.errors import Shortfall
from kbdfl.secagg.field import BYTES, from_bytes, to_bytes
from kbdfl.secagg.graph import CORRUPT, DROPOUT, LIVENESS_BITS, SECURITY_BITS, Plan, Ring, plan_for
from kbdfl.secagg.messages import Advert, Roster, Terms, in_pieces, to_bitmap
from kbdfl.secagg.payload import to_sum, unpack
from kbdfl.secagg.shamir import combine

PHASES = ("invite", "sharing", "masking", "confirming", "unmasking", "closed")


@dataclass(frozen=True, slots=True)
class Rule:
    """What a server plans for: the fewest devices, and what `kbdfl.secagg.graph.plan_for` takes."""

    devices: int = 32
    dropout: float = DROPOUT
    corrupt: float = CORRUPT
    security_bits: float = SECURITY_BITS
    liveness_bits: float = LIVENESS_BITS

    def __post_init__(self) -> None:
        if self.devices < 3:
            raise ConfigError(f"devices must be >= 3, got {self.devices}")
        if min(self.dropout, self.corrupt) < 0 or not 2 * self.dropout + self.corrupt < 1:
            raise ConfigError(f"2 dropout + corrupt must be below 1, got 2 * {self.dropout} + {self.corrupt}")


@dataclass(frozen=True, slots=True, eq=False)
class Sum:
    """What a session ends in: the sum of the survivors' integers, int64 (m,), and the survivors' identities."""

    levels: np.ndarray
    survivors: tuple[bytes, ...]


class Server:
    """The server in one session under `terms`, which every device is sent first; `plan` stands once all are there."""

    plan: Plan

    def __init__(self, terms: Terms, rule: Rule | None = None) -> None:
        self.terms: Terms = terms
        self.rule: Rule = Rule() if rule is None else rule
        self.phase: str = "invite"
        self._adverts: dict[bytes, Advert] = {}
        self._keys: set[bytes] = set()
        self._places: dict[bytes, int] = {}
        self._answers: dict[int, dict[bytes, bytes]] = {}  # kind -> who -> sha256 of what came
        self._boxes: dict[int, list[bytes]] = {}
        self._commitments: dict[int, bytes] = {}
        self._words = np.zeros(terms.words, np.uint32)
        self._masked: set[int] = set()
        self._signatures: dict[int, bytes] = {}
        self._unmasked: dict[int, list[int]] = {}

    # What comes.

    def advertise(self, advert: Advert) -> None:
        """A device takes part. WireError unless it signed its keys for these terms, Conflict if all are there."""
        if self._again("invite", advert.identity, advert):
            return
        signed = self.terms.context.label + b"".join(advert.keys)
        if not crypto.signed_by(advert.identity, advert.signature, "advert", signed):
            raise WireError("an advert must be signed by the device for these terms")
        if len(self._adverts) == self.terms.devices:
            raise Conflict(f"at most {self.terms.devices} devices take part")
        keys = {advert.sealing, advert.masking}
        if len(keys) < 2 or keys & self._keys:  # the device's neighbours would abort
            raise WireError("an advert must hold two keys that nobody else has")
        for key in keys:
            crypto.Agreement(crypto.new_secret()).with_peer(key)
        self._keys |= keys
        self._adverts[advert.identity] = advert
        self._remember(advert.identity, advert)

    def share(self, identity: bytes, shares: messages.Shares) -> None:
        """A device's sealed shares for its neighbours."""
        if self._again("sharing", identity, shares):
            return
        place = self._place_of(identity)
        boxes = in_pieces(shares.boxes, messages.BOX)
        if len(boxes) != self.plan.degree:
            raise WireError(f"there must be {self.plan.degree} boxes, got {len(boxes)}")
        self._boxes[place], self._commitments[place] = boxes, shares.commitment
        self._remember(identity, shares)

    def add(self, identity: bytes, masked: messages.Masked) -> None:
        """A device's masked words, which are added at once."""
        if self._again("masking", identity, masked):
            return
        place = self._place_of(identity, among=self._boxes)
        mask_add(self._words, unpack(masked.words, self.terms.words, self.terms.bits), bits=self.terms.bits)
        self._masked.add(place)
        self._remember(identity, masked)

    def confirm(self, identity: bytes, confirmation: messages.Confirmation) -> None:
        """A survivor's signature over the survivors."""
        if self._again("confirming", identity, confirmation):
            return
        place = self._place_of(identity, among=self._masked)
        if not crypto.signed_by(identity, confirmation.signature, "survivors", self._signed):
            raise WireError("a confirmation must sign the survivors that the device was told of")
        self._signatures[place] = confirmation.signature
        self._remember(identity, confirmation)

    def unmask(self, identity: bytes, unmasked: messages.Unmasked) -> None:
        """A survivor's shares of its neighbours' secrets."""
        if self._again("unmasking", identity, unmasked):
            return
        place = self._place_of(identity, among=self._signatures)
        shares = [from_bytes(piece) for piece in in_pieces(unmasked.shares, BYTES)]
        if len(shares) != len(self._sharers[place]):
            raise WireError(f"there must be {len(self._sharers[place])} shares, got {len(shares)}")
        self._unmasked[place] = shares
        self._remember(identity, unmasked)

    # What goes out.

    def roster_for(self, identity: bytes) -> Roster:
        """Who takes part, as the device with this `identity` is told."""
        neighbours = self._neighbours[self._place_of(identity)]
        adverts = [self._by_place[place] for place in neighbours]
        given = b"".join(advert.sealing + advert.masking + advert.signature for advert in adverts)
        plan = self.plan
        return Roster(self.terms.session, self._entries, plan.degree, plan.threshold, plan.quorum, given)

    def inbox_for(self, identity: bytes) -> messages.Inbox:
        """The boxes for the device with this `identity`."""
        place = self._place_of(identity, among=self._boxes)
        senders = self._sharers[place]
        boxes = [self._boxes[sender][self._rank[sender][place]] for sender in senders]
        return messages.Inbox(self.terms.session, to_bitmap(senders, self.plan.devices), b"".join(boxes))

    def survivors(self) -> messages.Survivors:
        """Whose words are in the sum, and who dropped out before; the same for all."""
        return self._survivors

    def quorum(self) -> messages.Quorum:
        """Enough signatures over the survivors; the same for all."""
        signers = sorted(self._signatures)[: self.plan.quorum]
        signatures = b"".join(self._signatures[place] for place in signers)
        return messages.Quorum(self.terms.session, to_bitmap(signers, self.plan.devices), signatures)

    # Phases end.

    def close(self) -> Sum | None:
        """End the phase with those who answered; the last one gives the sum. Raises Shortfall if they are too few."""
        if self.phase == "closed":
            raise Conflict("the session is over")
        ended, self.phase = self.phase, "closed"  # unless all goes well
        result = getattr(self, f"_close_{ended}")()
        if result is None:
            self.phase = PHASES[PHASES.index(ended) + 1]
        return result

    def _close_invite(self) -> None:
        count, rule = len(self._adverts), self.rule
        if count < rule.devices:
            raise Shortfall(f"at least {rule.devices} devices must take part, got {count}")
        self.plan = plan_for(
            count, dropout=rule.dropout, corrupt=rule.corrupt,
            security_bits=rule.security_bits, liveness_bits=rule.liveness_bits,
        )  # fmt: skip
        self._by_place = [self._adverts[identity] for identity in sorted(self._adverts)]
        self._places = {advert.identity: place for place, advert in enumerate(self._by_place)}
        self._entries = b"".join(advert.entry for advert in self._by_place)
        self._roster_digest = messages.roster_digest(self.terms.session, self._entries, self.plan)
        self._ring = Ring.drawn(self.plan, self._roster_digest)
        self._neighbours = [self._ring.neighbours(place) for place in range(count)]
        self._rank = [{other: rank for rank, other in enumerate(row)} for row in self._neighbours]

    def _close_sharing(self) -> None:
        self._check_reach(self._boxes, "gave shares")
        self._sharers = {
            place: [other for other in self._neighbours[place] if other in self._boxes]
            for place in self._boxes
        }

    def _close_masking(self) -> None:
        devices = self.plan.devices
        self._check_reach(self._masked, "gave words")
        self._survivors = messages.Survivors(
            self.terms.session,
            to_bitmap(self._masked, devices),
            to_bitmap(self._boxes.keys() - self._masked, devices),
        )
        self._signed = self._survivors.signed(self.terms, self._roster_digest)

    def _close_confirming(self) -> None:
        if len(self._signatures) < self.plan.quorum:
            raise Shortfall(
                f"at least {self.plan.quorum} devices must sign the survivors, got {len(self._signatures)}"
            )

    def _close_unmasking(self) -> Sum:
        alive, terms = self._masked, self.terms
        # Every secret is rebuilt before a mask is touched.
        secrets = {place: self._rebuilt(place) for place in sorted(self._boxes)}
        for place, secret in secrets.items():
            advert = self._by_place[place]
            if place in alive:
                seed = own_mask(secret, terms, advert.identity)
                crypto.apply_mask(self._words, seed, bits=terms.bits, subtract=True)
                continue
            masking = crypto.Agreement(secret)
            for other in self._neighbours[place]:
                if other in alive:
                    seed = pairwise_mask(masking, advert.identity, self._by_place[other], terms)
                    crypto.apply_mask(self._words, seed, bits=terms.bits, subtract=other < place)
        identities = tuple(self._by_place[place].identity for place in sorted(alive))
        return Sum(to_sum(self._words, bits=terms.bits), identities)

    def _rebuilt(self, owner: int) -> bytes:
        """The seed of a survivor's own mask, or the masking key of one who dropped out, 32 bytes.

        Any threshold of shares gives it. If one was wrong, which what is known of the secret shows, others are
        tried: runs of shares around the neighbours, so that a single wrong one is always passed by where one more
        than needed came.
        """
        threshold, alive = self.plan.threshold, owner in self._masked
        shares = [
            (holder + 1, self._unmasked[holder][self._sharers[holder].index(owner)])
            for holder in self._neighbours[owner]
            if holder in self._unmasked
        ]
        if len(shares) < threshold:
            raise Shortfall(f"at least {threshold} shares of each secret must come, got {len(shares)}")
        for start in range(len(shares) if len(shares) > threshold else 1):
            run = (shares[start:] + shares[:start])[:threshold]
            points, values = zip(*run, strict=True)
            secret = to_bytes(combine(points, values))
            if self._is_right(owner, secret, alive=alive):
                return secret
        raise Shortfall("the shares of a secret do not fit together: several devices gave wrong ones")

    def _is_right(self, owner: int, secret: bytes, *, alive: bool) -> bool:
        advert = self._by_place[owner]
        if alive:
            return commitment(secret, self.terms, advert.identity) == self._commitments[owner]
        return crypto.Agreement(secret).public == advert.masking

    # What is remembered.

    def _check_reach(self, left: Iterable[int], what: str) -> None:
        """Raise Shortfall unless all secrets that are out could be rebuilt and confirmed by those `left`."""
        left = set(left)
        if len(left) < self.plan.quorum:
            raise Shortfall(f"at least {self.plan.quorum} devices are needed, {len(left)} {what}")
        fewest = min(sum(other in left for other in self._neighbours[place]) for place in self._boxes)
        if fewest < self.plan.threshold:
            raise Shortfall(
                f"of each device {self.plan.threshold} neighbours are needed, of one {fewest} {what}"
            )
        if not self._ring.connected(left):
            raise Shortfall(f"those who {what} fall apart into groups")

    def _place_of(self, identity: bytes, among: Iterable[int] | None = None) -> int:
        place = self._places.get(identity)
        if place is None or (among is not None and place not in among):
            raise Conflict("the device takes no part in this phase")
        return place

    def _again(self, phase: str, identity: bytes, message: messages.Message) -> bool:
        """Whether just this came before; raises Conflict for another message in its place, or out of its phase."""
        if message.session != self.terms.session:
            raise WireError("the message must be of this session")
        known = self._answers.get(message.kind, {}).get(identity)
        if known is not None:
            if known == sha256(message.encode()).digest():
                return True
            raise Conflict("the device has sent another such message before")
        if self.phase != phase:
            raise Conflict(f"the session is {self.phase}, such a message belongs to {phase}")
        return False

    def _remember(self, identity: bytes, message: messages.Message) -> None:
        self._answers.setdefault(message.kind, {})[identity] = sha256(message.encode()).digest()
