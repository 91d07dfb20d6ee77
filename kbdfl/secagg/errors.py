"""How a secure aggregation ends early: a device gives nothing more, or too few devices are left."""

from kbdfl.errors import KbdflError


class Abort(KbdflError):
    """What came is not what an honest server sends; the device has dropped its secrets and answers nothing more."""

    status = 409


class Shortfall(KbdflError):
    """Too few devices are left to learn a sum; the round is lost, and nobody's values are known."""

    status = 409
