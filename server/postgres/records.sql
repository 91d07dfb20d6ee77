-- What outlives rounds, as in ../records.sql; and the nonces of signed requests, which all processes must know.

CREATE TABLE format ("only" integer PRIMARY KEY CHECK ("only" = 0), number text NOT NULL);

CREATE TABLE devices (
    id         text PRIMARY KEY,
    public_key bytea NOT NULL,
    enrolled_s double precision NOT NULL
);

CREATE TABLE revoked (
    device    text PRIMARY KEY REFERENCES devices (id),
    revoked_s double precision NOT NULL
);

CREATE TABLE tokens (
    sha256 bytea PRIMARY KEY,
    made_s double precision NOT NULL,
    device text,
    used_s double precision
);

CREATE INDEX tokens_unused ON tokens (made_s) WHERE device IS NULL;

CREATE TABLE task_state (
    "only"  integer PRIMARY KEY CHECK ("only" = 0),
    state text NOT NULL CHECK (state IN ('open', 'paused', 'stopped'))
);

CREATE TABLE task_states (
    task  text PRIMARY KEY,
    state text NOT NULL CHECK (state IN ('open', 'paused', 'stopped'))
);

CREATE TABLE audit_log (
    number bigint PRIMARY KEY,
    entry  text NOT NULL,
    sha256 text NOT NULL
);

CREATE TABLE audit_head (
    "only"   integer PRIMARY KEY CHECK ("only" = 0),
    number bigint NOT NULL,
    sha256 text NOT NULL
);

INSERT INTO audit_head ("only", number, sha256) VALUES (0, 0, repeat('0', 64));

-- Not logged: after a crash of PostgreSQL both are empty, and the memory begins anew.
CREATE UNLOGGED TABLE nonces (
    key      bytea PRIMARY KEY,
    request  bytea NOT NULL,
    signed_s bigint NOT NULL,
    marked   boolean NOT NULL
);

CREATE INDEX nonces_by_time ON nonces (signed_s);

CREATE UNLOGGED TABLE nonces_began (
    "only"    integer PRIMARY KEY CHECK ("only" = 0),
    began_s bigint NOT NULL
);
