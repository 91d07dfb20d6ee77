"""The devices that may take part: enrolled, with or without a token, and revoked.

Where several processes share the records, what another one did holds here at once: keys, which never change, are kept
in memory, and revocations are looked up.

A token is 32 hex digits, good for one device. Only its sha256 is kept: it is drawn at random from 2^128, so a hash
without a salt gives nothing away.
"""

import hashlib
import re
import secrets

from kbdfl.errors import ConfigError, Forbidden, NotFound
from kbdfl.identity import device_id
from kbdfl.server.records import Records, Writer

TOKEN_FORM = re.compile("[0-9a-f]{32}")
MOST_TOKENS = 100_000  # made at once
OPEN, TOKEN = "open", "token"  # who may enrol: everybody, or who has a token


class Registry:
    """Who is enrolled, and with which key (32 bytes); thread-safe."""

    def __init__(self, records: Records, *, enrolment: str = OPEN) -> None:
        if enrolment not in (OPEN, TOKEN):
            raise ConfigError(f"enrolment must be {OPEN} or {TOKEN}, got {enrolment}")
        self._records, self.enrolment = records, enrolment
        self._keys: dict[str, bytes] = dict(records.rows("SELECT id, public_key FROM devices"))
        self._revoked = {device for (device,) in records.rows("SELECT device FROM revoked")}

    def enrol(self, public_key: bytes, now: float, *, token: str | None = None) -> str:
        """Remember a device's key and give its id; the same key, with the same token if any, gives the same id.

        `now` is in seconds since 1970. Raises Forbidden if a token is needed and this one is none, was used by
        another device, or the device was revoked.
        """
        device = device_id(public_key)
        if self.revoked(device):
            raise Forbidden("the device was revoked; it cannot enrol again")
        known = self.public_key(device) is not None
        if self.enrolment == TOKEN:
            with self._records.writing() as connection:
                _use(connection, token, device, now, known=known)
                _insert(connection, device, public_key, now)
        elif not known:
            with self._records.writing() as connection:
                _insert(connection, device, public_key, now)
        self._keys[device] = public_key
        return device

    def public_key(self, device: str) -> bytes | None:
        """The key that `device` enrolled with."""
        key = self._keys.get(device)
        if key is None and self._records.shared:
            key = self._records.one("SELECT public_key FROM devices WHERE id = ?", device)
            if key is not None:
                self._keys[device] = key
        return key

    def revoked(self, device: str) -> bool:
        """Whether its requests are refused."""
        if self._records.shared:
            return self._records.one("SELECT 1 FROM revoked WHERE device = ?", device) is not None
        return device in self._revoked

    def revoke(self, device: str, now: float) -> None:
        """Refuse all requests of `device` from now on. Raises NotFound if it never enrolled."""
        if self.public_key(device) is None:
            raise NotFound(f"no device {device[:60]} is enrolled")
        with self._records.writing() as connection:
            connection.execute(
                "INSERT INTO revoked (device, revoked_s) VALUES (?, ?) ON CONFLICT DO NOTHING", (device, now)
            )
        self._revoked = self._revoked | {device}

    def __len__(self) -> int:
        """How many devices have enrolled."""
        return self._records.one("SELECT count(*) FROM devices") if self._records.shared else len(self._keys)

    def counts(self) -> dict[str, int]:
        """Devices enrolled and revoked, tokens made and not used."""
        unused = self._records.one("SELECT count(*) FROM tokens WHERE device IS NULL")
        revoked = self._records.one("SELECT count(*) FROM revoked")
        return {"enrolled": len(self), "revoked": revoked, "unused_tokens": unused}


def make_tokens(records: Records, count: int, now: float) -> list[str]:
    """`count` new tokens, which are shown once and kept as hashes. Raises ConfigError for another count."""
    if not 1 <= count <= MOST_TOKENS:
        raise ConfigError(f"a number of tokens must lie in [1, {MOST_TOKENS}], got {count}")
    tokens = [secrets.token_hex(16) for _ in range(count)]
    with records.writing() as connection:
        connection.executemany(
            "INSERT INTO tokens (sha256, made_s) VALUES (?, ?)", [(_hash(token), now) for token in tokens]
        )
    return tokens


def _use(connection: Writer, token: str | None, device: str, now: float, *, known: bool) -> None:
    """Give `token` to `device` inside a transaction, unless it is its own, or a device already `known` wastes it."""
    if token is None or not TOKEN_FORM.fullmatch(token):
        raise Forbidden("an enrolment token of 32 hex digits is needed here")
    row = connection.execute("SELECT device FROM tokens WHERE sha256 = ?", (_hash(token),)).fetchone()
    if row is None:
        raise Forbidden("the enrolment token was not made here")
    if row[0] not in (None, device):
        raise Forbidden("the enrolment token was used by another device")
    if row[0] is None and not known:
        # Another process may use it at this moment.
        mine = connection.execute(
            "UPDATE tokens SET device = ?, used_s = ? WHERE sha256 = ? AND device IS NULL",
            (device, now, _hash(token)),
        )
        if mine.rowcount == 0:
            raise Forbidden("the enrolment token was used by another device")


def _insert(connection: Writer, device: str, public_key: bytes, now: float) -> None:
    connection.execute(
        "INSERT INTO devices (id, public_key, enrolled_s) VALUES (?, ?, ?) ON CONFLICT DO NOTHING",
        (device, public_key, now),
    )


def _hash(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()
