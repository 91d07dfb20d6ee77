"""Who sends a device's request: its key, its signature and its nonce.

What it lets through is the request of an enrolled device that nobody revoked, for the first time or once more. One that
is not `fresh` came before, or was signed before this process began to remember; nothing new may follow from it:

- a check-in gets what the device has already, and selects nobody;
- a model is sent again, which changes nothing;
- a report is known by its bytes, durably, and counted once.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

from kbdfl.errors import Forbidden, Unauthorised
from kbdfl.identity import DEVICE, NONCE, TIME, verify_request
from kbdfl.server.nonces import Nonces, Use
from kbdfl.server.registry import Registry


@dataclass(frozen=True, slots=True)
class Caller:
    """A device whose request is genuine; `use` says whether it came before."""

    device: str
    use: Use

    @property
    def first(self) -> bool:
        return self.use.first

    @property
    def fresh(self) -> bool:
        return self.use.fresh


def admit(
    registry: Registry,
    nonces: Nonces,
    *,
    method: str,
    path: str,
    body: bytes,
    headers: Mapping[str, str],
    now: float,
) -> Caller:
    """The device that signed this request.

    `now` is in seconds since 1970. Raises Unauthorised if no enrolled device signed it, Forbidden if the device was
    revoked, Conflict if the nonce came with another request, ServerUnavailable if no more nonces can be remembered.
    """
    device = headers.get(DEVICE)
    if device is None:
        raise Unauthorised(f"the request is not signed: {DEVICE} is missing")
    key = registry.public_key(device)
    if key is None:
        raise Unauthorised("the device is not enrolled here")
    verify_request(key, method=method, path=path, body=body, headers=headers, now=now)
    if registry.revoked(device):
        raise Forbidden("the device was revoked; its requests are refused")
    stamp = headers[TIME]
    request = hashlib.sha256()
    for part in (method.upper().encode(), path.encode(), stamp.encode(), hashlib.sha256(body).digest()):
        request.update(len(part).to_bytes(4) + part)
    use = nonces.meet(device, headers[NONCE], signed_s=int(stamp), request=request.digest(), now=now)
    return Caller(device, use)
