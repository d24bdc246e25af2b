-- name: broken_histories :rows
-- Gapless: as many entries as the highest number, beginning at 1, and as many as the execution's row says.
SELECT executions.id, executions.seq, count(history.seq), coalesce(min(history.seq), 0), coalesce(max(history.seq), 0)
FROM executions LEFT JOIN history ON history.execution = executions.id
GROUP BY executions.id
HAVING executions.seq <> count(history.seq) OR count(history.seq) <> coalesce(max(history.seq), 0)
    OR coalesce(min(history.seq), 0) <> 1
ORDER BY executions.id;

-- name: orphaned_histories :rows
-- Entries without an execution can only come from outside.
SELECT DISTINCT execution FROM history
WHERE NOT EXISTS (SELECT 1 FROM executions WHERE id = history.execution) ORDER BY execution;
