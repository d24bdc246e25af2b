-- name: execution_guard :one
-- Why a transition was refused: what its precondition found.
SELECT seq, owner, status FROM executions WHERE id = :execution;

-- name: step_guard :one
-- Why a transition was refused: the step as it stands.
SELECT status, token FROM steps WHERE execution = :execution AND path = :path;

-- name: start_key_holder :one
-- Which execution a key already stands for.
SELECT execution, fingerprint FROM start_keys
WHERE workspace = :workspace AND workflow = :workflow AND key = :key AND expires_at > :now;

-- name: has_entry :one
-- Whether a transaction whose end is unknown did happen: its last entry and its owner are proof.
SELECT 1 FROM history JOIN executions ON executions.id = history.execution
WHERE history.execution = :execution AND history.seq = :seq AND history.body = :body AND executions.owner = :owner;

-- name: owned_executions :rows
-- What an owner has to carry on, oldest first.
SELECT id FROM executions WHERE owner = :owner AND finished_at IS NULL ORDER BY id;

-- name: whole_history :rows
-- Everything the state of one execution is folded from.
SELECT seq, at, kind, body FROM history WHERE execution = :execution ORDER BY seq;

-- name: waiting_commands :rows
-- What others want of this owner's executions; an execution that has ended wants nothing any more. CROSS JOIN makes
-- SQLite begin with the few commands, not with the many executions.
SELECT commands.id, commands.execution, commands.kind, commands.body, commands.created_at
FROM commands CROSS JOIN executions
WHERE executions.id = commands.execution AND commands.consumed IS NULL AND executions.owner = :owner AND executions.finished_at IS NULL
ORDER BY commands.id;

-- name: cached_result :one
-- A success that may be used again.
SELECT result FROM cache WHERE key = :key AND expires_at > :now;

-- name: send_command :one
-- Only an execution that is still open can be asked for something.
INSERT INTO commands (execution, kind, body, created_at)
SELECT id, :kind, :body, :now FROM executions WHERE id = :execution AND finished_at IS NULL
RETURNING id;

-- name: command_target :one
-- Why a command was refused: the execution is unknown, or has ended.
SELECT status FROM executions WHERE id = :execution;

-- name: places_held :one
-- How many places of a pool others hold; an execution counts its own.
SELECT count(*) FROM claims WHERE pool = :pool AND queued IS NULL AND execution <> :execution;

-- name: queue_of_pool :rows
-- Who waits for a place, longest first, and whose it is: what belongs to the dead is passed over.
SELECT claims.execution, claims.path, executions.owner
FROM claims CROSS JOIN executions
WHERE claims.pool = :pool AND claims.queued IS NOT NULL AND executions.id = claims.execution
ORDER BY claims.queued, claims.execution, claims.path;
