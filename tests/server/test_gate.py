"""Ten thousand replays and ten thousand flipped bits of signed requests; what a restart and a revocation mean."""

import pytest

from kbdfl.errors import Conflict, Forbidden, KbdflError, Unauthorised
from kbdfl.identity import DEVICE, NONCE, SIGNATURE, TIME, device_id, generate_key, public_key, sign_request
from kbdfl.rng import stream
from kbdfl.server.gate import admit
from kbdfl.server.nonces import LocalNonces
from kbdfl.server.records import SqliteRecords
from kbdfl.server.registry import Registry

NOW = 1_800_000_000.0
TIMES = 10_000
REQUESTS = {
    "check-in": ("POST", "/v1/check-in", b"{}"),
    "model": ("GET", "/v1/models/3", b""),
    "report": ("POST", "/v1/rounds/3/report", bytes(range(200))),
}


@pytest.fixture
def registry(tmp_path):
    records = SqliteRecords(tmp_path)
    yield Registry(records)
    records.close()


@pytest.fixture
def key(registry):
    key = generate_key()
    registry.enrol(public_key(key), NOW)
    return key


@pytest.fixture
def nonces():
    return LocalNonces(began_s=NOW - 3_600)


def signed(key, name="report", **options):
    method, path, body = REQUESTS[name]
    headers = sign_request(key, method=method, path=path, body=body, timestamp=NOW, **options)
    return {"method": method, "path": path, "body": body, "headers": headers}


@pytest.mark.parametrize("name", REQUESTS)
def test_of_ten_thousand_replays_none_is_new(registry, nonces, key, name):
    request = signed(key, name)
    assert admit(registry, nonces, **request, now=NOW).fresh
    for time in range(TIMES):
        caller = admit(registry, nonces, **request, now=NOW + time % 300)
        assert not caller.fresh
        assert not caller.first
    assert len(nonces) == 1


@pytest.mark.parametrize("name", REQUESTS)
def test_of_ten_thousand_flipped_bits_none_is_let_through(registry, nonces, key, name):
    request = signed(key, name)
    random = stream(1, "flips", name)
    parts = ["method", "path", "body", DEVICE, TIME, NONCE, SIGNATURE]
    parts.remove("body") if not request["body"] else None
    for _ in range(TIMES):
        part = parts[random.integers(len(parts))]
        holder = {**request, "headers": dict(request["headers"])}
        target = holder if part in holder else holder["headers"]
        value = target[part]
        raw = bytearray(value if isinstance(value, bytes) else value.encode("latin-1"))
        place = int(random.integers(8 * len(raw)))
        raw[place // 8] ^= 1 << place % 8
        target[part] = bytes(raw) if isinstance(value, bytes) else raw.decode("latin-1")
        if part == "method" and target[part].upper() == value:
            continue  # post is POST
        with pytest.raises(Unauthorised):
            admit(registry, nonces, **holder, now=NOW)
    assert len(nonces) == 0
    assert admit(registry, nonces, **request, now=NOW).fresh


def test_a_nonce_cannot_be_used_for_another_request(registry, nonces, key):
    nonce = "ab" * 16
    admit(registry, nonces, **signed(key, "report", nonce=nonce), now=NOW)
    for name in ("check-in", "model"):
        with pytest.raises(Conflict, match="draw a new one"):
            admit(registry, nonces, **signed(key, name, nonce=nonce), now=NOW)


def test_what_a_former_process_may_have_seen_is_let_through_but_not_fresh(registry, key):
    nonces = LocalNonces(began_s=NOW + 5)
    caller = admit(registry, nonces, **signed(key), now=NOW + 6)
    assert (caller.first, caller.fresh) == (True, False)


def test_a_revoked_device_is_refused_and_one_that_only_claims_to_be_it_learns_nothing(registry, nonces, key):
    registry.revoke(device_id(public_key(key)), NOW)
    with pytest.raises(Forbidden, match="was revoked"):
        admit(registry, nonces, **signed(key), now=NOW)
    request = signed(key)
    request["headers"][SIGNATURE] = "0" * 128
    with pytest.raises(Unauthorised, match="does not fit"):
        admit(registry, nonces, **request, now=NOW)


def test_refusals_are_one_line(registry, nonces, key):
    for headers in ({}, {DEVICE: "nobody"}, {DEVICE: device_id(public_key(key))}):
        with pytest.raises(KbdflError) as error:
            admit(registry, nonces, method="GET", path="/", body=b"", headers=headers, now=NOW)
        assert "\n" not in str(error.value)
