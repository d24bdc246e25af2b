-- name: insert_observation :many
-- In the transaction that ends the attempt: what is learned is never more, and never less, than what happened.
INSERT INTO observations (body) VALUES (?1);

-- name: observations_after :rows
-- What was learned since a row, newest first, so that a limit leaves out the oldest.
SELECT id, body FROM observations WHERE id > :after ORDER BY id DESC LIMIT :limit;
