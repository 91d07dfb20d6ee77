"""A round under secure aggregation as its server sees it: every phone's masked words, and the sum."""

import secrets
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from kbdfl.algorithms.base import chain
from kbdfl.codec.fixed import LEVELS, SPREAD, Fixed
from kbdfl.device_sim.attacks.capture import Capture
from kbdfl.errors import ConfigError
from kbdfl.secagg import Device, Server, Terms, crypto
from kbdfl.secagg.messages import SESSION
from kbdfl.secagg.payload import summable_levels, to_sum, unpack
from kbdfl.transform import Update, decode_chain
from kbdfl.wire import decode_report

NOW_S = 1_000  # of the session; what matters is that server and phones agree


@dataclass(frozen=True, slots=True, eq=False)
class MaskedRound:
    """What a server holds after a session of the phones in `captures`.

    words  uint32 (n, m), what each phone sent, modulo 2^bits
    total  int64 (m,), what came of it
    """

    captures: Sequence[Capture]
    words: np.ndarray
    bits: int
    total: np.ndarray

    @property
    def sum(self) -> np.ndarray:
        """The sum of the phones' updates, float32, at the round's coordinates."""
        return self._decoded(self.total)

    def frame(self, phone: int) -> np.ndarray:
        """One phone's masked words, decoded as if they were an update: float32, at the round's coordinates."""
        return self._decoded(to_sum(self.words[phone], bits=self.bits) / 2 ** (self.bits - 8))

    def _decoded(self, levels: np.ndarray) -> np.ndarray:
        asked = self.captures[0].assignment
        *steps, last = chain(asked.upload, asked.update_clip_norm)
        if not isinstance(last, Fixed):
            raise ConfigError(f"an upload that is summed must end in fixed, got {asked.upload}")
        limit = SPREAD * last.norm / np.sqrt(max(len(levels), 1) * last.share)
        values = (levels * (limit / LEVELS)).astype(np.float32)
        return decode_chain(steps, Update.of_delta(values), asked.coordinates.model.spec.size, asked.draws)


def masked_round(captures: Sequence[Capture]) -> MaskedRound:
    """Play a whole session of phones whose frames end in the codec `fixed`; nobody drops out.

    Raises ConfigError for fewer phones than devices insist on, WireError for frames that do not add up.
    """
    asked = captures[0].assignment
    levels = [
        summable_levels(decode_report(one.frame, max_bytes=asked.max_report_bytes).update) for one in captures
    ]
    terms = Terms(
        session=secrets.token_bytes(SESSION), task=asked.task, round=asked.round,
        model_sha256=bytes.fromhex(asked.model_sha256), issued_s=NOW_S,
        devices=len(captures), words=len(levels[0]), levels=LEVELS, noise_bound=0,
    )  # fmt: skip
    server, keys = Server(terms), [crypto.new_secret() for _ in captures]
    names = [crypto.identity_of(key) for key in keys]
    phones = [Device(key, seen=set()) for key in keys]
    for phone in phones:
        server.advertise(
            phone.join(
                terms, task=asked.task, round=asked.round, model_sha256=terms.model_sha256, words=terms.words,
                now=float(NOW_S),
            )
        )  # fmt: skip
    server.close()
    for phone, name in zip(phones, names, strict=True):
        server.share(name, phone.share(server.roster_for(name), now=float(NOW_S)))
    server.close()
    words = np.empty((len(captures), terms.words), np.uint32)
    for place, (phone, name) in enumerate(zip(phones, names, strict=True)):
        sent = phone.mask(server.inbox_for(name), levels[place], now=float(NOW_S))
        words[place] = unpack(sent.words, terms.words, terms.bits)
        server.add(name, sent)
    server.close()
    for phone, name in zip(phones, names, strict=True):
        server.confirm(name, phone.confirm(server.survivors(), now=float(NOW_S)))
    server.close()
    for phone, name in zip(phones, names, strict=True):
        server.unmask(name, phone.unmask(server.quorum(), now=float(NOW_S)))
    total = server.close()
    if total is None:
        raise ConfigError("the session must end in a sum")
    return MaskedRound(captures, words, terms.bits, total.levels)


def summable(captures: Sequence[Capture], *, upload: str, clip_norm: float) -> list[Capture]:
    """The frames as `upload`, a chain that ends in fixed, of updates clipped to `clip_norm`."""
    return [one.sent_as(upload, clip_norm=clip_norm) for one in captures]
