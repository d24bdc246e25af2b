-- SQLite only: numbered parameters, because these run with executemany over plain tuples on the hot path; Postgres has
-- the same statements over arrays.

-- name: holds_epoch :one
-- The fence: a process whose row has moved on may write nothing.
SELECT 1 FROM servers WHERE id = ?1 AND epoch = ?2;

-- name: insert_execution :many
-- A start; an execution that is there already leaves the count short.
INSERT INTO executions (id, workspace, workflow, version, status, owner, seq, created_at, started_at, finished_at, body)
VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)
ON CONFLICT DO NOTHING;

-- name: insert_input :many
-- Kept apart, so that a large input is written once and not with every transition.
INSERT INTO inputs (execution, body) VALUES (?1, ?2);

-- name: advance_execution :many
-- The precondition of every later transition: nothing happened since, it is ours, it has not ended.
UPDATE executions
SET seq = ?4, status = ?5, started_at = ?6, finished_at = ?7, body = ?8
WHERE id = ?1 AND seq = ?2 AND owner = ?3 AND finished_at IS NULL;

-- name: take_start_key :many
-- One start per key; a key that has expired may be used again.
INSERT INTO start_keys (workspace, workflow, key, fingerprint, execution, expires_at)
VALUES (?1, ?2, ?3, ?4, ?5, ?6)
ON CONFLICT (workspace, workflow, key) DO UPDATE
SET fingerprint = excluded.fingerprint, execution = excluded.execution, expires_at = excluded.expires_at
WHERE start_keys.expires_at <= ?7;

-- name: append_history :many
-- The facts; (execution, seq) is unique, so no fact is written twice.
INSERT INTO history (execution, seq, at, kind, body) VALUES (?1, ?2, ?3, ?4, ?5);

-- name: put_step :many
-- A step that has ended never changes, and an older attempt never overwrites a newer one.
INSERT INTO steps (execution, path, status, attempt, token, runtime, due_at, finished_at, body)
VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)
ON CONFLICT (execution, path) DO UPDATE
SET status = excluded.status, attempt = excluded.attempt, token = excluded.token, runtime = excluded.runtime,
    due_at = excluded.due_at, finished_at = excluded.finished_at, body = excluded.body
WHERE steps.finished_at IS NULL AND steps.token <= excluded.token;

-- name: put_scope :many
-- Scopes complete the state; their order is the history's business.
INSERT INTO scopes (execution, scope, status, body) VALUES (?1, ?2, ?3, ?4)
ON CONFLICT (execution, scope) DO UPDATE SET status = excluded.status, body = excluded.body;

-- name: consume_command :many
-- A command is answered once, in the same transaction as its answer.
UPDATE commands SET consumed = ?3 WHERE id = ?1 AND execution = ?2 AND consumed IS NULL;

-- name: put_cache :many
-- The newest success wins.
INSERT INTO cache (key, result, expires_at) VALUES (?1, ?2, ?3)
ON CONFLICT (key) DO UPDATE SET result = excluded.result, expires_at = excluded.expires_at;

-- name: free_place :many
-- A place, or a rank in a queue, ends with the attempt or execution it belonged to.
DELETE FROM claims WHERE pool = ?1 AND execution = ?2 AND path = ?3;

-- name: queue_for_place :many
-- Who waits is kept for the order of the queue, across processes.
INSERT INTO claims (pool, execution, path, queued) VALUES (?1, ?2, ?3, ?4)
ON CONFLICT (pool, execution, path) DO UPDATE SET queued = excluded.queued;

-- name: take_place :many
-- The limit itself: a place is taken only while fewer are than there are, counted in this very transaction.
INSERT INTO claims (pool, execution, path, queued)
SELECT ?1, ?2, ?3, NULL WHERE (SELECT count(*) FROM claims WHERE pool = ?1 AND queued IS NULL) < ?4
ON CONFLICT (pool, execution, path) DO UPDATE SET queued = NULL;
