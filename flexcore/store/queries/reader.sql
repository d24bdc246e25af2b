-- name: execution_row :one
-- The header of an execution, who owns it, and how long its history is.
SELECT executions.body, inputs.body, executions.owner, executions.seq
FROM executions LEFT JOIN inputs ON inputs.execution = executions.id
WHERE executions.id = :execution;

-- name: step_rows :rows
-- Every step so far, in the order of their paths.
SELECT body FROM steps WHERE execution = :execution ORDER BY path;

-- name: scope_rows :rows
-- Every scope so far.
SELECT body FROM scopes WHERE execution = :execution ORDER BY scope;

-- name: history_page :rows
-- One page of history; the entry number is the cursor.
SELECT seq, at, kind, body FROM history WHERE execution = :execution AND seq > :after ORDER BY seq LIMIT :limit;

-- name: execution_exists :one
-- Tells an empty page from an unknown execution.
SELECT 1 FROM executions WHERE id = :execution;

-- name: list_executions :rows
-- Newest first over everything; the cursor is the last row's (created_at, id).
SELECT executions.body, inputs.body, created_at
FROM executions LEFT JOIN inputs ON inputs.execution = executions.id
WHERE workspace = :workspace AND (created_at, id) < (:before, :before_id) AND created_at >= :since
ORDER BY created_at DESC, id DESC LIMIT :limit;

-- name: list_executions_of_workflow :rows
-- The same within one workflow, on an index of its own.
SELECT executions.body, inputs.body, created_at
FROM executions LEFT JOIN inputs ON inputs.execution = executions.id
WHERE workspace = :workspace AND workflow = :workflow
    AND (created_at, id) < (:before, :before_id) AND created_at >= :since
    AND (:status IS NULL OR status = :status) AND (NOT :unfinished OR finished_at IS NULL)
ORDER BY created_at DESC, id DESC LIMIT :limit;

-- name: list_executions_of_status :rows
-- The same within one status: the few failed ones among a million are found at once.
SELECT executions.body, inputs.body, created_at
FROM executions LEFT JOIN inputs ON inputs.execution = executions.id
WHERE workspace = :workspace AND status = :status
    AND (created_at, id) < (:before, :before_id) AND created_at >= :since
    AND (NOT :unfinished OR finished_at IS NULL)
ORDER BY created_at DESC, id DESC LIMIT :limit;

-- name: list_unfinished_executions :rows
-- The same for what has not ended, on a partial index that stays as small as the work in hand.
SELECT executions.body, inputs.body, created_at
FROM executions LEFT JOIN inputs ON inputs.execution = executions.id
WHERE workspace = :workspace AND finished_at IS NULL
    AND (created_at, id) < (:before, :before_id) AND created_at >= :since
ORDER BY created_at DESC, id DESC LIMIT :limit;

-- name: search_executions :rows
-- The conditions that have no index of their own, over everything from the newest on.
SELECT executions.body, inputs.body, created_at
FROM executions LEFT JOIN inputs ON inputs.execution = executions.id
WHERE workspace = :workspace
    AND (created_at, id) < (:before, :before_id) AND created_at >= :since AND created_at < :until
    AND (:workflow IS NULL OR workflow = :workflow)
    AND (:status IS NULL OR status = :status) AND (NOT :unfinished OR finished_at IS NULL)
    AND (
        :search IS NULL OR instr(id, :search) OR instr(lower(workflow), :search)
        OR instr(lower(json_extract(executions.body, '$.failure.message')), :search)
    )
    AND (
        :failed_step IS NULL
        OR EXISTS (SELECT 1 FROM steps WHERE execution = id AND path = :failed_step AND steps.status = 'failed')
    )
ORDER BY created_at DESC, id DESC LIMIT :limit;

-- name: search_executions_of_label :rows
-- The same among those that carry a label, found on the labels' own index; the other labels only filter.
SELECT executions.body, inputs.body, executions.created_at
FROM labels
CROSS JOIN executions ON executions.id = labels.execution
LEFT JOIN inputs ON inputs.execution = executions.id
WHERE labels.workspace = :workspace AND labels.key = :label_key AND labels.value = :label_value
    AND (labels.created_at, labels.execution) < (:before, :before_id)
    AND labels.created_at >= :since AND labels.created_at < :until
    AND (:workflow IS NULL OR workflow = :workflow)
    AND (:status IS NULL OR status = :status) AND (NOT :unfinished OR finished_at IS NULL)
    AND (
        :search IS NULL OR instr(id, :search) OR instr(lower(workflow), :search)
        OR instr(lower(json_extract(executions.body, '$.failure.message')), :search)
    )
    AND (
        :failed_step IS NULL
        OR EXISTS (SELECT 1 FROM steps WHERE execution = id AND path = :failed_step AND steps.status = 'failed')
    )
    AND NOT EXISTS (
        SELECT 1 FROM json_each(:labels) AS wanted
        WHERE NOT EXISTS (
            SELECT 1 FROM labels AS other
            WHERE other.execution = executions.id AND other.key = wanted.key AND other.value = wanted.value
        )
    )
ORDER BY labels.created_at DESC, labels.execution DESC LIMIT :limit;

-- name: list_ids :rows
-- Everything there is, in every workspace; the cursor is the last id.
SELECT id FROM executions WHERE id > :after ORDER BY id LIMIT :limit;

-- name: started_with :one
-- What an idempotency key stands for.
SELECT execution, fingerprint FROM start_keys
WHERE workspace = :workspace AND workflow = :workflow AND key = :key AND expires_at > :now;

-- name: delete_execution :count
-- Everything about it goes by cascade; only what has ended may go.
DELETE FROM executions WHERE id = :execution AND finished_at IS NOT NULL;

-- name: count_by_status :rows
-- For the store's own description.
SELECT status, count(*) FROM executions GROUP BY status ORDER BY status;

-- name: deletable_execution :one
-- Tells an unknown execution from one that has not ended.
SELECT status FROM executions WHERE id = :execution;

-- name: holders_of_pool :rows
-- Whom to name when somebody asks why a step waits.
SELECT DISTINCT execution FROM claims WHERE pool = :pool AND queued IS NULL ORDER BY execution LIMIT 4;

-- name: count_of_pool :one
-- How many places of a pool are taken now.
SELECT count(*) FROM claims WHERE pool = :pool AND queued IS NULL;

-- name: claims_of_execution :rows
-- What `verify` compares with the rows that these are derived from.
SELECT pool, path, queued FROM claims WHERE execution = :execution ORDER BY pool, path;
