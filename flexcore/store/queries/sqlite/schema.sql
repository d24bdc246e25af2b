-- SQLite only: what Postgres answers from its own catalogue or settings.

-- name: create_schema_versions :count
-- The record of what was applied has to be there before the first migration.
CREATE TABLE IF NOT EXISTS schema_versions (
    version    INTEGER PRIMARY KEY,
    name       TEXT NOT NULL,
    applied_at INTEGER NOT NULL
) STRICT;

-- name: schema_version :one
-- How far this store has come.
SELECT coalesce(max(version), 0) FROM schema_versions;

-- name: record_migration :count
-- Written in the same transaction as the migration itself.
INSERT INTO schema_versions (version, name, applied_at) VALUES (:version, :name, :now);

-- name: insert_installation :count
-- A store is named once, when it is made.
INSERT INTO installation (only_row, id, created_at) VALUES (1, :id, :now) ON CONFLICT DO NOTHING;

-- name: installation_id :one
-- Part of every external name, so that two stores can share a cluster.
SELECT id FROM installation;

-- name: data_version :one
-- Changes when another connection has committed; commits of the asking connection do not count.
PRAGMA data_version;

-- name: reader_data_version :one
-- The same for a connection that never writes: every commit counts.
PRAGMA data_version;

-- name: foreign_key_faults :rows
-- Rows whose parent is missing.
PRAGMA foreign_key_check;

-- name: page_faults :rows
-- SQLite's own look at the file.
PRAGMA integrity_check;
