-- name: insert_audit :count
-- One line of the trail, in the transaction of what it tells where there is one.
INSERT INTO audit (at, workspace, actor, action, subject, details, outcome)
VALUES (:at, :workspace, :actor, :action, :subject, :details, :outcome);

-- name: list_audit :rows
-- Newest first; what concerns the whole store has no workspace; a start is found by its workflow too.
SELECT id, at, workspace, actor, action, subject, details, outcome FROM audit
WHERE (:before IS NULL OR id < :before) AND workspace IN (:workspace, '') AND at >= :since
    AND (:actor IS NULL OR actor = :actor)
    AND (:subject IS NULL OR subject = :subject OR json_extract(details, '$.workflow') = :subject)
ORDER BY id DESC LIMIT :limit;
