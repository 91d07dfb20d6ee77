"""Errors a user can cause. Their text is one line: what must hold, and what came.

The command line prints it and ends with exit code 2; the server answers with `status` and the same text.
"""


class KbdflError(Exception):
    """Base of every error that is somebody's input and not a fault of the program."""

    status = 400
    retry_after_s: float | None = None  # when to ask again, if that may help


class ConfigError(KbdflError):
    """An option or a configuration file asks for something impossible."""


class DataError(KbdflError):
    """A log, a vocabulary or a corpus is missing, malformed or empty."""


class ModelError(KbdflError):
    """A model, checkpoint or bundle is not the one that was promised."""


class WireError(KbdflError):
    """A frame is truncated, altered, too large, or of another version."""


class TooLarge(KbdflError):
    """A body or frame is over its stated limit."""

    status = 413


class Unauthorised(KbdflError):
    """A request is not signed by an enrolled device."""

    status = 401


class Forbidden(KbdflError):
    """Who asks is known, or has shown a token, and may not."""

    status = 403


class NotFound(KbdflError):
    """There is no such thing."""

    status = 404


class Conflict(KbdflError):
    """A report for another round, or a second one of the same device."""

    status = 409


class TooMany(KbdflError):
    """Too many requests in a while; `retry_after_s` is when the next one may come."""

    status = 429

    def __init__(self, message: str, *, retry_after_s: float) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class ServerUnavailable(KbdflError):
    """The server cannot be reached, cannot keep what it is sent, or does not answer as one of ours."""

    status = 503
    retry_after_s = 1.0


class EngineError(KbdflError):
    """The workers that compute client updates are lost, again and again."""

    status = 503
