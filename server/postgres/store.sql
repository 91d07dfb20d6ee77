-- A task's rounds, as in ../schema.sql; its models; and the open round, which several processes serve together.

CREATE TABLE format ("only" integer PRIMARY KEY CHECK ("only" = 0), number text NOT NULL);

CREATE TABLE facts (
    name  text PRIMARY KEY,
    value text NOT NULL
);

-- The newest revision of `rounds`: whoever writes there locks it first, so that revisions are seen in their order.
CREATE TABLE newest_revision (
    "only"     integer PRIMARY KEY CHECK ("only" = 0),
    revision bigint NOT NULL
);

INSERT INTO newest_revision ("only", revision) VALUES (0, 0);

CREATE TABLE rounds (
    round    bigint PRIMARY KEY,
    version  bigint NOT NULL,
    status   text NOT NULL CHECK (status IN ('committed', 'abandoned')),
    metrics  text NOT NULL CHECK (metrics::json IS NOT NULL),
    revision bigint NOT NULL
);

CREATE UNIQUE INDEX rounds_by_revision ON rounds (revision);
CREATE INDEX rounds_by_version ON rounds (version);

-- A version's checkpoint (safetensors) and its server rule's state, with the sha256 of each.
CREATE TABLE versions (
    version       bigint PRIMARY KEY,
    checkpoint    bytea NOT NULL,
    state         bytea NOT NULL,
    params_sha256 bytea NOT NULL,
    state_sha256  bytea NOT NULL
);

ALTER TABLE versions ALTER checkpoint SET STORAGE EXTERNAL, ALTER state SET STORAGE EXTERNAL;

CREATE TABLE counted (
    round  bigint NOT NULL REFERENCES rounds (round),
    device text NOT NULL,
    sha256 bytea NOT NULL,
    PRIMARY KEY (round, device, sha256)
);

-- What all processes know of the open round. `revision` says whether a process has seen the last of it.
CREATE TABLE turn (
    "only"     integer PRIMARY KEY CHECK ("only" = 0),
    revision bigint NOT NULL,
    round    bigint NOT NULL,
    version  bigint NOT NULL,
    state    bytea
);

-- What each has summed of it; a row of a process that is no more still counts.
CREATE TABLE sums (
    round   bigint NOT NULL,
    version bigint NOT NULL,
    process text NOT NULL,
    content bytea NOT NULL,
    PRIMARY KEY (round, version, process)
);

ALTER TABLE turn ALTER state SET STORAGE EXTERNAL;
ALTER TABLE sums ALTER content SET STORAGE EXTERNAL;

-- Both are written many times a second, and the old contents are to make room.
ALTER TABLE turn SET (
    fillfactor = 10, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 200,
    toast.autovacuum_vacuum_scale_factor = 0, toast.autovacuum_vacuum_threshold = 2000
);
ALTER TABLE sums SET (
    autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 100,
    toast.autovacuum_vacuum_scale_factor = 0, toast.autovacuum_vacuum_threshold = 20000
);

CREATE TABLE traffic (
    round      bigint NOT NULL REFERENCES rounds (round),
    device     text NOT NULL,
    up_bytes   bigint NOT NULL,
    down_bytes bigint NOT NULL,
    PRIMARY KEY (round, device)
);
