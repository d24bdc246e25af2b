-- Places in limited pools, derived from the rows of executions and steps in the transaction that writes those: a row for
-- every place that is held (`queued` is null) or waited for (`queued` is since when, which is the order of the queue).
-- `path` is empty for an execution as a whole.

CREATE TABLE claims (
    pool      TEXT NOT NULL,
    execution TEXT NOT NULL REFERENCES executions (id) ON DELETE CASCADE,
    path      TEXT NOT NULL,
    queued    INTEGER,
    PRIMARY KEY (pool, execution, path)
) STRICT, WITHOUT ROWID;

CREATE INDEX claims_in_order ON claims (pool, queued, execution, path);
CREATE INDEX claims_of_execution ON claims (execution);
