-- name: put_definition :count
-- A version's content never changes; deploying it again makes it the newest, and its author's folder the latest one.
INSERT INTO definitions (workspace, name, version, position, created_at, body)
VALUES (
    :workspace, :name, :version,
    (SELECT coalesce(max(position), 0) + 1 FROM definitions WHERE workspace = :workspace AND name = :name),
    :created_at, :body
)
ON CONFLICT (workspace, name, version) DO UPDATE
SET position = excluded.position, body = excluded.body;

-- name: put_head :count
-- The newest version of a name is the one deployed last.
INSERT INTO workflows (workspace, name, version) VALUES (:workspace, :name, :version)
ON CONFLICT (workspace, name) DO UPDATE SET version = excluded.version;

-- name: newest_definition :one
-- What a name means today: the version it is pinned to, else the current one.
SELECT definitions.body
FROM workflows JOIN definitions ON definitions.workspace = workflows.workspace AND definitions.name = workflows.name
    AND definitions.version = coalesce(workflows.pinned, workflows.version)
WHERE workflows.workspace = :workspace AND workflows.name = :name;

-- name: definitions_like :rows
-- A version by how its hash begins; two are enough to know that it is not the only one.
SELECT body FROM definitions
WHERE workspace = :workspace AND name = :name AND substr(version, 1, length(:prefix)) = :prefix
ORDER BY position DESC LIMIT 5;

-- name: standing :one
-- Which version of a name is current, and to which it is pinned.
SELECT version, pinned FROM workflows WHERE workspace = :workspace AND name = :name;

-- name: pin_head :count
-- New executions take this version from now on; none: the current one again.
UPDATE workflows SET pinned = :version
WHERE workspace = :workspace AND name = :name
    AND (
        :version IS NULL
        OR EXISTS (SELECT 1 FROM definitions WHERE workspace = :workspace AND name = :name AND version = :version)
    );

-- name: move_head :count
-- An older version becomes the current one again; when it was deployed stays as it was.
UPDATE workflows SET version = :version
WHERE workspace = :workspace AND name = :name AND version = :from
    AND EXISTS (SELECT 1 FROM definitions WHERE workspace = :workspace AND name = :name AND version = :version);

-- name: definition :one
-- A version by its hash: also one whose name was deleted, because executions refer to it.
SELECT body FROM definitions WHERE workspace = :workspace AND name = :name AND version = :version;

-- name: list_definitions :rows
-- What every name means today.
SELECT definitions.body
FROM workflows JOIN definitions ON definitions.workspace = workflows.workspace AND definitions.name = workflows.name
    AND definitions.version = coalesce(workflows.pinned, workflows.version)
WHERE workflows.workspace = :workspace ORDER BY workflows.name;

-- name: list_versions :rows
-- All versions of a listed name, the one deployed last first.
SELECT definitions.body FROM definitions JOIN workflows USING (workspace, name)
WHERE workspace = :workspace AND name = :name ORDER BY position DESC;

-- name: list_names :rows
-- What is there, for the hint of an error.
SELECT name FROM workflows WHERE workspace = :workspace ORDER BY name LIMIT 20;

-- name: delete_head :count
-- The name leaves the list; its versions stay for the executions that used them.
DELETE FROM workflows WHERE workspace = :workspace AND name = :name;
