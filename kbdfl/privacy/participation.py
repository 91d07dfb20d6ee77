"""Who was counted in which releases: what bounds the parts of one device, when nothing is amplified by sampling.

Releases are counted, not rounds: of an abandoned round nothing is released, and noise that releases share does not
know of it.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from kbdfl.privacy.terms import Privacy


@dataclass(frozen=True, slots=True)
class Parts:
    """Of one device: in how many releases it was counted, and the number of the last one."""

    count: int
    last: int


class Participations:
    """The parts of all devices; `kept` are those of earlier runs of the program."""

    def __init__(self, kept: Mapping[str, Parts] | None = None) -> None:
        self._parts = dict(kept or {})

    def __len__(self) -> int:
        return len(self._parts)

    def of(self, device: str) -> Parts | None:
        """None of a device that never was counted."""
        return self._parts.get(device)

    def may(self, device: str, release: int, privacy: Privacy) -> bool:
        """Whether the device may be counted in the release of this number, of which nobody is counted yet."""
        parts = self._parts.get(device)
        return parts is None or allowed(
            parts, release, participations=privacy.participations, separation=privacy.separation
        )

    def counted(self, devices: Iterable[str], release: int) -> None:
        """The devices are part of this release."""
        for device in devices:
            before = self._parts.get(device)
            self._parts[device] = Parts(1 if before is None else before.count + 1, release)


def allowed(parts: Parts, release: int, *, participations: int, separation: int) -> bool:
    """Whether one more part, in this release, keeps both bounds; a phone asks this of itself too. 0 = no bound.

    In one and the same release nobody has two parts, whatever the bounds.
    """
    if participations and parts.count >= participations:
        return False
    return release - parts.last >= max(separation, 1)
