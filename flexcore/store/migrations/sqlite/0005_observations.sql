-- How attempts went, for placement to learn from: appended with the transition that ends an attempt, and never values of
-- users. Rows outlive their executions on purpose. The table keeps its newest 50,000 rows and the room for the next ones.

CREATE TABLE observations (
    id   INTEGER PRIMARY KEY,
    body TEXT NOT NULL
) STRICT;

CREATE TRIGGER observations_never_change BEFORE UPDATE ON observations
BEGIN
    SELECT RAISE(ABORT, 'an observation never changes');
END;

-- Not the collector's business: a store that nobody collects in must not grow without end by what it learns.
CREATE TRIGGER observations_are_bounded AFTER INSERT ON observations
WHEN NEW.id % 1000 = 0
BEGIN
    DELETE FROM observations WHERE id <= NEW.id - 50000;
END;
