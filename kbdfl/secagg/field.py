"""The field that secrets are shared in: the integers modulo 2^256 - 189, the largest prime that 32 bytes hold.

A secret is a number drawn evenly below it, which is 256 random bits but for a share of 2^-248; so one element is
32 bytes on the wire, and no seed is ever cut to fit. 2^521 - 1 would take 66.
"""

import secrets

from kbdfl.errors import WireError

PRIME = 2**256 - 189
BYTES = 32


def draw_element() -> int:
    """An element from the operating system's randomness, all alike likely."""
    return secrets.randbelow(PRIME)


def to_bytes(element: int) -> bytes:
    """32 bytes, little-endian."""
    return element.to_bytes(BYTES, "little")


def from_bytes(data: bytes | memoryview) -> int:
    """The element of 32 bytes. Raises WireError for another length, or a number that is not below the prime."""
    element = int.from_bytes(data, "little")
    if len(data) != BYTES or element >= PRIME:
        raise WireError(f"a field element must be {BYTES} bytes and below the prime, got {len(data)}")
    return element
