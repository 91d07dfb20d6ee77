-- What a server must still know after it was killed. Parameters are files beside the database:
-- checkpoints/NNNNNN.safetensors is model version NNNNNN, and it is complete before a row names it.
-- Devices and what was done to the task stand in records.sql.

CREATE TABLE IF NOT EXISTS facts (
    name  TEXT PRIMARY KEY,
    value TEXT NOT NULL
) WITHOUT ROWID;

-- One row a closed round. `revision` grows with every insert and update, so that a reader who polls
-- also sees a recall that was measured minutes after the round had closed.
CREATE TABLE IF NOT EXISTS rounds (
    round    INTEGER PRIMARY KEY,
    version  INTEGER NOT NULL,
    status   TEXT NOT NULL CHECK (status IN ('committed', 'abandoned')),
    metrics  TEXT NOT NULL CHECK (json_valid(metrics)),
    revision INTEGER NOT NULL
);

CREATE UNIQUE INDEX IF NOT EXISTS rounds_by_revision ON rounds (revision);
CREATE INDEX IF NOT EXISTS rounds_by_version ON rounds (version);

-- What the two files of a kept version must be. Folders of earlier programs have no row for versions before.
CREATE TABLE IF NOT EXISTS versions (
    version       INTEGER PRIMARY KEY,
    params_sha256 BLOB NOT NULL,
    state_sha256  BLOB NOT NULL
);

-- The reports of the last rounds, so that a phone that did not hear the answer may ask again, and a round can be
-- reckoned once more.
CREATE TABLE IF NOT EXISTS counted (
    round  INTEGER NOT NULL REFERENCES rounds (round),
    device TEXT NOT NULL,
    sha256 BLOB NOT NULL,
    PRIMARY KEY (round, device, sha256)
) WITHOUT ROWID;

-- Which of the two files in-flight-0.bin and in-flight-1.bin holds the open round; no row: nothing of it yet.
CREATE TABLE IF NOT EXISTS in_flight (
    only    INTEGER PRIMARY KEY CHECK (only = 0),
    place   INTEGER NOT NULL CHECK (place IN (0, 1)),
    sha256  BLOB NOT NULL,
    saved_s REAL NOT NULL
);

-- Of a task with privacy: a row a release, kept before the model is, each with the sha256 of the one before it.
CREATE TABLE IF NOT EXISTS privacy_ledger (
    number INTEGER PRIMARY KEY,
    row    TEXT NOT NULL
);

-- In how many releases each device was counted, and the number of the last one; written with the row of that.
CREATE TABLE IF NOT EXISTS privacy_parts (
    device TEXT PRIMARY KEY,
    count  INTEGER NOT NULL,
    last   INTEGER NOT NULL REFERENCES privacy_ledger (number)
) WITHOUT ROWID;

-- Bytes that crossed the socket while a round was open; device '' is everybody who is not enrolled.
CREATE TABLE IF NOT EXISTS traffic (
    round      INTEGER NOT NULL REFERENCES rounds (round),
    device     TEXT NOT NULL,
    up_bytes   INTEGER NOT NULL,
    down_bytes INTEGER NOT NULL,
    PRIMARY KEY (round, device)
) WITHOUT ROWID;
