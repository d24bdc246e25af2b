-- What is needed to look after a store by hand: pins, the audit trail, and a quick way to what is old enough to go.

-- While a name is pinned, new executions take this version whatever is deployed.
ALTER TABLE workflows ADD COLUMN pinned TEXT;

CREATE INDEX executions_finished ON executions (finished_at, id) WHERE finished_at IS NOT NULL;

-- Who changed what. `details` is JSON and never holds inputs, secrets or results; `outcome` is `done` or an error's code.
CREATE TABLE audit (
    id        INTEGER PRIMARY KEY AUTOINCREMENT,
    at        INTEGER NOT NULL,
    workspace TEXT NOT NULL,
    actor     TEXT NOT NULL,
    action    TEXT NOT NULL,
    subject   TEXT NOT NULL,
    details   TEXT NOT NULL,
    outcome   TEXT NOT NULL
) STRICT;

CREATE INDEX audit_by_time ON audit (at);

CREATE TRIGGER audit_never_changes BEFORE UPDATE ON audit
BEGIN
    SELECT RAISE(ABORT, 'the audit trail is append-only');
END;
