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
-- What a name means today.
SELECT definitions.body FROM workflows JOIN definitions USING (workspace, name, version)
WHERE workspace = :workspace AND name = :name;

-- name: definition :one
-- A version by its hash: also one whose name was deleted, because executions refer to it.
SELECT body FROM definitions WHERE workspace = :workspace AND name = :name AND version = :version;

-- name: list_definitions :rows
-- The newest version of every name.
SELECT definitions.body FROM workflows JOIN definitions USING (workspace, name, version)
WHERE workspace = :workspace ORDER BY name;

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
