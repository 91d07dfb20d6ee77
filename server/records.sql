-- What outlives rounds: devices, enrolment tokens, the task's state as its keepers want it, the audit log.

CREATE TABLE IF NOT EXISTS devices (
    id         TEXT PRIMARY KEY,
    public_key BLOB NOT NULL,
    enrolled_s REAL NOT NULL
) WITHOUT ROWID;

CREATE TABLE IF NOT EXISTS revoked (
    device    TEXT PRIMARY KEY REFERENCES devices (id),
    revoked_s REAL NOT NULL
) WITHOUT ROWID;

-- Of a token only its hash is kept. `device` is who enrolled with it, once.
CREATE TABLE IF NOT EXISTS tokens (
    sha256 BLOB PRIMARY KEY,
    made_s REAL NOT NULL,
    device TEXT,
    used_s REAL
) WITHOUT ROWID;

CREATE INDEX IF NOT EXISTS tokens_unused ON tokens (made_s) WHERE device IS NULL;

-- open, paused or stopped; no row is open.
CREATE TABLE IF NOT EXISTS task_state (
    only  INTEGER PRIMARY KEY CHECK (only = 0),
    state TEXT NOT NULL CHECK (state IN ('open', 'paused', 'stopped'))
);

-- The same of tasks that have names.
CREATE TABLE IF NOT EXISTS task_states (
    task  TEXT PRIMARY KEY,
    state TEXT NOT NULL CHECK (state IN ('open', 'paused', 'stopped'))
) WITHOUT ROWID;

-- Each row's sha256 covers the one before. The head says how many rows there must be, and the last one's sha256.
CREATE TABLE IF NOT EXISTS audit_log (
    number INTEGER PRIMARY KEY,
    entry  TEXT NOT NULL,
    sha256 TEXT NOT NULL
);

CREATE TABLE IF NOT EXISTS audit_head (
    only   INTEGER PRIMARY KEY CHECK (only = 0),
    number INTEGER NOT NULL,
    sha256 TEXT NOT NULL
);
