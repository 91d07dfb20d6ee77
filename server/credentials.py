"""Who is an administrator of a served folder: hashes of a token and of a password, in a file of the folder.

Without one there is no administration at all. The file may be changed while the server runs.
"""

import hashlib
import hmac
import json
import os
import secrets
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from werkzeug.security import check_password_hash, generate_password_hash

from kbdfl.errors import ConfigError, DataError
from kbdfl.params import sync_folder

FILE = "admin.json"
LEAST_CHARACTERS = 12  # of a password
MOST_CHARACTERS = 1_000


@dataclass(frozen=True, slots=True)
class Hashes:
    """What is kept: the sha256 of a random token, in hex, and a password's salted hash (scrypt)."""

    token_sha256: str | None = None
    password: str | None = None


class Credentials:
    """Those of a folder. A token that is `given` besides, by a file of the operator's, is good too."""

    def __init__(self, folder: Path, *, given: str | None = None) -> None:
        self.path = Path(folder) / FILE
        self._given = None if given is None else _sha256(given)

    @property
    def configured(self) -> bool:
        """Whether there is anything that lets an administrator in."""
        return self._given is not None or self._read() != Hashes()

    @property
    def mark(self) -> str:
        """Another one after every change, by which a session knows that it is over."""
        return _sha256(json.dumps([self._given, asdict(self._read())]))

    def token_fits(self, token: str) -> bool:
        """Whether it is the token."""
        known = [self._given, self._read().token_sha256]
        return any(hmac.compare_digest(_sha256(token), sha256) for sha256 in known if sha256)

    def password_fits(self, password: str) -> bool:
        """Whether it is the password, or the token; takes some 50 ms by intention."""
        kept = self._read().password
        fits = kept is not None and check_password_hash(kept, password[:MOST_CHARACTERS])
        return fits or self.token_fits(password)

    def new_token(self) -> str:
        """A new token in place of the one before; it is shown once."""
        token = secrets.token_urlsafe(32)
        self._write(replace(self._read(), token_sha256=_sha256(token)))
        return token

    def set_password(self, password: str) -> None:
        """Raises ConfigError for one that is too short or too long."""
        if not LEAST_CHARACTERS <= len(password) <= MOST_CHARACTERS:
            raise ConfigError(
                f"a password must have {LEAST_CHARACTERS} to {MOST_CHARACTERS} characters, got {len(password)}"
            )
        self._write(replace(self._read(), password=generate_password_hash(password, method="scrypt")))

    def _read(self) -> Hashes:
        try:
            return Hashes(**json.loads(self.path.read_bytes()))
        except FileNotFoundError:
            return Hashes()
        except (ValueError, TypeError, RecursionError):
            raise DataError(
                f"{FILE} is damaged; `kbdfl admin token` makes a new one once it is gone"
            ) from None

    def _write(self, hashes: Hashes) -> None:
        """Replace the file by one that only its owner may read."""
        fresh = self.path.with_name(self.path.name + ".next")
        with open(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
            json.dump(asdict(hashes), file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(fresh, self.path)
        sync_folder(self.path.parent)


def token_of(path: Path) -> str:
    """The token in an operator's file. Raises ConfigError if it holds none that is long enough."""
    token = path.read_text("utf-8", "replace").strip()
    if not LEAST_CHARACTERS <= len(token) <= MOST_CHARACTERS or not token.isprintable():
        raise ConfigError(f"{path} must hold one token of {LEAST_CHARACTERS} characters or more")
    return token


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
