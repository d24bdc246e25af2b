-- name: ended_executions :rows
-- What may go, oldest end first, with the parent if that is still there; the newest of each workflow can be kept.
SELECT executions.id, executions.seq, executions.finished_at,
    (SELECT parent.id FROM executions AS parent WHERE parent.id = json_extract(executions.body, '$.parent'))
FROM executions
WHERE finished_at IS NOT NULL AND finished_at < :before AND (finished_at, executions.id) > (:after, :after_id)
    AND (
        SELECT count(*) FROM (
            SELECT 1 FROM executions AS newer
            WHERE newer.workspace = executions.workspace AND newer.workflow = executions.workflow
                AND (newer.created_at, newer.id) > (executions.created_at, executions.id)
            LIMIT :keep
        )
    ) >= :keep
ORDER BY finished_at, executions.id LIMIT :limit;

-- name: execution_bytes :one
-- How much of the database an execution takes, near enough.
SELECT length(CAST(body AS BLOB))
    + coalesce((SELECT sum(length(CAST(body AS BLOB))) FROM history WHERE execution = :execution), 0)
    + coalesce((SELECT sum(length(CAST(body AS BLOB))) FROM steps WHERE execution = :execution), 0)
    + coalesce((SELECT sum(length(CAST(body AS BLOB))) FROM scopes WHERE execution = :execution), 0)
    + coalesce((SELECT length(CAST(body AS BLOB)) FROM inputs WHERE execution = :execution), 0)
FROM executions WHERE id = :execution;

-- name: collect_execution :count
-- Everything about it goes by cascade; the condition is asked again, because it was looked up earlier.
DELETE FROM executions WHERE id = :execution AND finished_at IS NOT NULL AND finished_at < :before;

-- name: finished_among :rows
-- Of some executions those that are there, and when they ended.
SELECT id, finished_at FROM executions WHERE id IN (SELECT value FROM json_each(:ids));

-- name: expired_cache :one
-- How many cached results may go, and how large they are.
SELECT count(*), coalesce(sum(length(CAST(result AS BLOB))), 0) FROM cache WHERE expires_at < :before;

-- name: collect_cache :count
-- Nobody may use them any more; a few at a time.
DELETE FROM cache WHERE key IN (SELECT key FROM cache WHERE expires_at < :before LIMIT :limit);

-- name: expired_keys :one
-- How many idempotency keys may go.
SELECT count(*), coalesce(sum(length(CAST(key AS BLOB))), 0) FROM start_keys WHERE expires_at < :before;

-- name: collect_keys :count
-- A key that has expired says nothing any more.
DELETE FROM start_keys WHERE expires_at < :before;

-- name: answered_commands :one
-- How many commands may go: answered, or their execution has ended without.
SELECT count(*), coalesce(sum(length(CAST(commands.body AS BLOB))), 0)
FROM commands JOIN executions ON executions.id = commands.execution
WHERE commands.created_at < :before AND (commands.consumed IS NOT NULL OR executions.finished_at IS NOT NULL);

-- name: collect_commands :count
-- The history has what came of them.
DELETE FROM commands WHERE id IN (
    SELECT commands.id FROM commands JOIN executions ON executions.id = commands.execution
    WHERE commands.created_at < :before AND (commands.consumed IS NOT NULL OR executions.finished_at IS NOT NULL)
    LIMIT :limit
);

-- name: old_audit :one
-- How many lines of the audit trail may go.
SELECT count(*), coalesce(sum(length(CAST(details AS BLOB))), 0) FROM audit WHERE at < :before;

-- name: collect_audit :count
-- The oldest lines, a few at a time.
DELETE FROM audit WHERE id IN (SELECT id FROM audit WHERE at < :before ORDER BY at LIMIT :limit);

-- name: oldest_attempt_in_flight :one
-- When the turn of the step came whose attempt has been out for longest, among executions that have not ended.
SELECT min(json_extract(steps.body, '$.created_at'))
FROM executions CROSS JOIN steps ON steps.execution = executions.id
WHERE executions.finished_at IS NULL AND steps.finished_at IS NULL AND json_extract(steps.body, '$.in_flight');

-- name: last_history_row :one
-- Up to where references have to be looked for.
SELECT coalesce(max(rowid), 0) FROM history;

-- name: history_references :rows
-- Entries that name content, a stretch of the table at a time: the state has no reference that its history has not.
SELECT execution, body FROM history
WHERE rowid > :after AND rowid <= :until AND instr(body, 'sha256-') > 0;

-- name: cache_references :rows
-- Cached results out of line, but for those that go now.
SELECT result FROM cache WHERE expires_at >= :before AND instr(result, 'sha256-') > 0;

-- name: command_references :rows
-- What somebody has asked for and not got yet may name content, too.
SELECT body FROM commands WHERE consumed IS NULL AND instr(body, 'sha256-') > 0;

-- name: definition_bodies :rows
-- Every version with its files, and whether new executions may still take it.
SELECT definitions.workspace, definitions.name, definitions.version, definitions.body,
    EXISTS (
        SELECT 1 FROM workflows
        WHERE workflows.workspace = definitions.workspace AND workflows.name = definitions.name
            AND definitions.version IN (workflows.version, workflows.pinned)
    )
FROM definitions WHERE definitions.rowid > :after AND definitions.rowid <= :until;

-- name: last_definition_row :one
-- Up to where versions have to be looked for.
SELECT coalesce(max(rowid), 0) FROM definitions;

-- name: execution_bodies :rows
-- Headers name the version that runs and those of its sub-workflows.
SELECT id, body FROM executions WHERE id > :after ORDER BY id LIMIT :limit;

-- name: collect_version :count
-- The conditions that can change meanwhile are asked again.
DELETE FROM definitions
WHERE workspace = :workspace AND name = :name AND version = :version
    AND NOT EXISTS (
        SELECT 1 FROM workflows
        WHERE workflows.workspace = definitions.workspace AND workflows.name = definitions.name
            AND definitions.version IN (workflows.version, workflows.pinned)
    )
    AND NOT EXISTS (
        SELECT 1 FROM executions
        WHERE executions.workspace = definitions.workspace AND executions.workflow = definitions.name
            AND executions.version = definitions.version
    );
