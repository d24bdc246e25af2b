-- Labels of executions, to find them by. They never change, so a trigger keeps them: no writer can forget it.

CREATE TABLE labels (
    workspace  TEXT NOT NULL,
    key        TEXT NOT NULL,
    value      TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    execution  TEXT NOT NULL REFERENCES executions (id) ON DELETE CASCADE,
    PRIMARY KEY (workspace, key, value, created_at DESC, execution DESC)
) STRICT, WITHOUT ROWID;

CREATE INDEX labels_of_execution ON labels (execution);

INSERT INTO labels (workspace, key, value, created_at, execution)
SELECT executions.workspace, label.key, label.value, executions.created_at, executions.id
FROM executions, json_each(executions.body, '$.labels') AS label;

CREATE TRIGGER labels_come_with_their_execution AFTER INSERT ON executions
WHEN instr(NEW.body, '"labels"') > 0
BEGIN
    INSERT INTO labels (workspace, key, value, created_at, execution)
    SELECT NEW.workspace, label.key, label.value, NEW.created_at, NEW.id
    FROM json_each(NEW.body, '$.labels') AS label;
END;
