-- What is said about a revision, the name that it has in the last stage, and the Platform's mark over what it is.
ALTER TABLE revision ADD COLUMN message TEXT NOT NULL DEFAULT '';
ALTER TABLE revision ADD COLUMN published_by TEXT NOT NULL DEFAULT '';
ALTER TABLE revision ADD COLUMN version TEXT;
ALTER TABLE revision ADD COLUMN mark BLOB;
CREATE UNIQUE INDEX revision_version ON revision (customer, app, version) WHERE version IS NOT NULL;
-- Which revisions served in a stage, one after the other.
CREATE TABLE served (
    customer TEXT NOT NULL,
    stage TEXT NOT NULL,
    app TEXT NOT NULL,
    -- Counts up for each app and stage.
    turn INTEGER NOT NULL,
    -- NULL: the app was taken out of the stage.
    revision INTEGER,
    at INTEGER NOT NULL,
    PRIMARY KEY (customer, stage, app, turn)
) STRICT;
INSERT INTO served (customer, stage, app, turn, revision, at)
    SELECT customer, stage, app, 1, revision, CAST(strftime('%s', 'now') AS INTEGER) FROM serving;
