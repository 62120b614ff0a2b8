-- Settings and secrets of apps in stages. All values are sealed. Each change makes the next version; a value is that of the
-- versions from `since` up to, but without, `until`. Values that no replica has any more are given up, and their rows stay
-- as history.
CREATE TABLE setting (
    customer TEXT NOT NULL,
    stage TEXT NOT NULL,
    app TEXT NOT NULL,
    name TEXT NOT NULL,
    since INTEGER NOT NULL,
    -- NULL: it holds now.
    until INTEGER,
    secret INTEGER NOT NULL,
    value BLOB,
    -- Of the name and the value.
    bytes INTEGER NOT NULL,
    -- Tells values of this name apart, and nobody who lacks the key can make one.
    fingerprint TEXT NOT NULL,
    who TEXT NOT NULL,
    at INTEGER NOT NULL,
    PRIMARY KEY (customer, stage, app, name, since),
    FOREIGN KEY (customer, stage) REFERENCES stage (customer, name),
    FOREIGN KEY (customer, app) REFERENCES app (customer, id)
) STRICT;
CREATE TABLE settings_version (
    customer TEXT NOT NULL,
    stage TEXT NOT NULL,
    app TEXT NOT NULL,
    version INTEGER NOT NULL,
    PRIMARY KEY (customer, stage, app),
    FOREIGN KEY (customer, stage) REFERENCES stage (customer, name),
    FOREIGN KEY (customer, app) REFERENCES app (customer, id)
) STRICT;
-- With which version a replica runs, an app serves, and a revision served. 0: nothing was ever set.
ALTER TABLE replica ADD COLUMN settings INTEGER NOT NULL DEFAULT 0;
ALTER TABLE serving ADD COLUMN settings INTEGER NOT NULL DEFAULT 0;
ALTER TABLE served ADD COLUMN settings INTEGER NOT NULL DEFAULT 0;
