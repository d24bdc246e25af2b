-- name: insert_server :count
-- A new owner starts at epoch 1 under a name that was never used before.
INSERT INTO servers (id, epoch, pid, host, acquired_at) VALUES (:id, 1, :pid, :host, :now);

-- name: owners_of_unfinished :rows
-- Who would have to be alive for work to go on.
SELECT DISTINCT owner FROM executions WHERE finished_at IS NULL ORDER BY owner;

-- name: idle_servers :rows
-- Owners without work: when such a one is dead, nobody needs its row.
SELECT id FROM servers
WHERE NOT EXISTS (SELECT 1 FROM executions WHERE owner = servers.id AND finished_at IS NULL) ORDER BY id;

-- name: fence_server :count
-- From here on nothing that a dead owner still had in flight can be written.
UPDATE servers SET epoch = epoch + 1 WHERE id = :id;

-- name: move_executions :rows
-- Hand over the unfinished work of a dead owner, or one piece of it.
UPDATE executions SET owner = :heir
WHERE owner = :dead AND finished_at IS NULL AND (:only IS NULL OR id = :only)
RETURNING id;

-- name: remove_idle_server :count
-- A row goes when nothing unfinished is left under its name.
DELETE FROM servers
WHERE id = :id AND NOT EXISTS (SELECT 1 FROM executions WHERE owner = servers.id AND finished_at IS NULL);
