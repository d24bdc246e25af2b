-- Everything of a SQLite store. Times are microseconds since 1970 UTC; bodies are JSON with fields at their default left out.
-- Two things are measured, not guessed: `history` and `steps` keep their rowid, because a group of transitions then
-- appends to a few shared pages instead of touching pages of every execution; and statuses are checked with CASE,
-- because SQLite builds a temporary table for an IN list on every row.

CREATE TABLE installation (
    only_row   INTEGER PRIMARY KEY CHECK (only_row = 1),
    id         TEXT NOT NULL,
    created_at INTEGER NOT NULL
) STRICT;

-- Processes that own executions. A higher epoch than the one a process knows fences everything it writes.
CREATE TABLE servers (
    id          TEXT PRIMARY KEY,
    epoch       INTEGER NOT NULL CHECK (epoch >= 1),
    pid         INTEGER NOT NULL,
    host        TEXT NOT NULL,
    acquired_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- `seq` is the number of history entries. The input stands in a table of its own, because it can be large, never
-- changes, and this row is rewritten by every transition.
CREATE TABLE executions (
    id          TEXT PRIMARY KEY,
    workspace   TEXT NOT NULL,
    workflow    TEXT NOT NULL,
    version     TEXT NOT NULL,
    status      TEXT NOT NULL,
    owner       TEXT NOT NULL,
    seq         INTEGER NOT NULL CHECK (seq >= 1),
    created_at  INTEGER NOT NULL,
    started_at  INTEGER,
    finished_at INTEGER,
    body        TEXT NOT NULL,
    CHECK (
        CASE status
            WHEN 'pending' THEN finished_at IS NULL
            WHEN 'running' THEN finished_at IS NULL
            WHEN 'suspended' THEN finished_at IS NULL
            WHEN 'succeeded' THEN finished_at IS NOT NULL
            WHEN 'failed' THEN finished_at IS NOT NULL
            WHEN 'cancelled' THEN finished_at IS NOT NULL
            ELSE FALSE
        END
    )
) STRICT, WITHOUT ROWID;

CREATE INDEX executions_newest ON executions (workspace, created_at DESC, id DESC);
CREATE INDEX executions_of_workflow ON executions (workspace, workflow, created_at DESC, id DESC);
CREATE INDEX executions_of_status ON executions (workspace, status, created_at DESC, id DESC);
CREATE INDEX executions_unfinished ON executions (workspace, created_at DESC, id DESC) WHERE finished_at IS NULL;
CREATE INDEX executions_owned ON executions (owner, id) WHERE finished_at IS NULL;

CREATE TRIGGER executions_stay_until_finished BEFORE DELETE ON executions
WHEN OLD.finished_at IS NULL
BEGIN
    SELECT RAISE(ABORT, 'only a finished execution can be deleted');
END;

CREATE TABLE inputs (
    execution TEXT PRIMARY KEY REFERENCES executions (id) ON DELETE CASCADE,
    body      TEXT NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE history (
    execution TEXT NOT NULL REFERENCES executions (id) ON DELETE CASCADE,
    seq       INTEGER NOT NULL CHECK (seq >= 1),
    at        INTEGER NOT NULL,
    kind      TEXT NOT NULL,
    body      TEXT NOT NULL,
    PRIMARY KEY (execution, seq)
) STRICT;

CREATE TRIGGER history_never_changes BEFORE UPDATE ON history
BEGIN
    SELECT RAISE(ABORT, 'history is append-only');
END;

-- The cascade runs after the execution's row has gone: whoever deletes entries of an existing execution is refused.
CREATE TRIGGER history_goes_with_its_execution BEFORE DELETE ON history
WHEN EXISTS (SELECT 1 FROM executions WHERE id = OLD.execution)
BEGIN
    SELECT RAISE(ABORT, 'history is append-only');
END;

CREATE TABLE steps (
    execution   TEXT NOT NULL REFERENCES executions (id) ON DELETE CASCADE,
    path        TEXT NOT NULL,
    status      TEXT NOT NULL,
    attempt     INTEGER NOT NULL CHECK (attempt >= 0),
    token       INTEGER NOT NULL CHECK (token >= 0),
    runtime     TEXT,
    due_at      INTEGER,
    finished_at INTEGER,
    body        TEXT NOT NULL,
    PRIMARY KEY (execution, path),
    CHECK (
        CASE status
            WHEN 'waiting' THEN finished_at IS NULL
            WHEN 'pending' THEN finished_at IS NULL
            WHEN 'running' THEN finished_at IS NULL
            WHEN 'suspended' THEN finished_at IS NULL
            WHEN 'succeeded' THEN finished_at IS NOT NULL
            WHEN 'failed' THEN finished_at IS NOT NULL
            WHEN 'skipped' THEN finished_at IS NOT NULL
            WHEN 'cancelled' THEN finished_at IS NOT NULL
            ELSE FALSE
        END
    )
) STRICT;

CREATE TABLE scopes (
    execution TEXT NOT NULL REFERENCES executions (id) ON DELETE CASCADE,
    scope     TEXT NOT NULL,
    status    TEXT NOT NULL,
    body      TEXT NOT NULL,
    PRIMARY KEY (execution, scope)
) STRICT, WITHOUT ROWID;

-- `consumed` is the `seq` of the execution after the transition that answered the command.
CREATE TABLE commands (
    id         INTEGER PRIMARY KEY AUTOINCREMENT,
    execution  TEXT NOT NULL REFERENCES executions (id) ON DELETE CASCADE,
    kind       TEXT NOT NULL,
    body       TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    consumed   INTEGER
) STRICT;

CREATE INDEX commands_of_execution ON commands (execution);
CREATE INDEX commands_waiting ON commands (id) WHERE consumed IS NULL;

CREATE TABLE cache (
    key        TEXT PRIMARY KEY,
    result     TEXT NOT NULL,
    expires_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE start_keys (
    workspace   TEXT NOT NULL,
    workflow    TEXT NOT NULL,
    key         TEXT NOT NULL,
    fingerprint TEXT NOT NULL,
    execution   TEXT NOT NULL REFERENCES executions (id) ON DELETE CASCADE,
    expires_at  INTEGER NOT NULL,
    PRIMARY KEY (workspace, workflow, key)
) STRICT, WITHOUT ROWID;

CREATE INDEX start_keys_of_execution ON start_keys (execution);

-- `position` rises with every deployment: the highest of a name was deployed last.
CREATE TABLE definitions (
    workspace  TEXT NOT NULL,
    name       TEXT NOT NULL,
    version    TEXT NOT NULL,
    position   INTEGER NOT NULL,
    created_at INTEGER NOT NULL,
    body       TEXT NOT NULL,
    PRIMARY KEY (workspace, name, version)
) STRICT;

CREATE INDEX definitions_newest ON definitions (workspace, name, position DESC);

-- The names that are listed, each with its newest version. Deleting a name takes its row away, never a definition.
CREATE TABLE workflows (
    workspace TEXT NOT NULL,
    name      TEXT NOT NULL,
    version   TEXT NOT NULL,
    PRIMARY KEY (workspace, name),
    FOREIGN KEY (workspace, name, version) REFERENCES definitions (workspace, name, version)
) STRICT, WITHOUT ROWID;
