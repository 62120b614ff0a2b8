-- Settings and secrets of apps in stages. All values are sealed. Each change makes the next version; a value is that of the
-- versions from `since` up to, but without, `until`. Values that no replica has any more are given up, and their rows stay
-- as history.
CREATE TABLE setting (
    customer TEXT COLLATE "C" NOT NULL,
    stage TEXT COLLATE "C" NOT NULL,
    app TEXT COLLATE "C" NOT NULL,
    name TEXT COLLATE "C" NOT NULL,
    since BIGINT NOT NULL,
    -- NULL: it holds now.
    until BIGINT,
    secret BIGINT NOT NULL,
    value BYTEA,
    -- Of the name and the value.
    bytes BIGINT NOT NULL,
    -- Tells values of this name apart, and nobody who lacks the key can make one.
    fingerprint TEXT COLLATE "C" NOT NULL,
    who TEXT COLLATE "C" NOT NULL,
    at BIGINT NOT NULL,
    PRIMARY KEY (customer, stage, app, name, since),
    FOREIGN KEY (customer, stage) REFERENCES stage (customer, name),
    FOREIGN KEY (customer, app) REFERENCES app (customer, id)
);
CREATE TABLE settings_version (
    customer TEXT COLLATE "C" NOT NULL,
    stage TEXT COLLATE "C" NOT NULL,
    app TEXT COLLATE "C" NOT NULL,
    version BIGINT NOT NULL,
    PRIMARY KEY (customer, stage, app),
    FOREIGN KEY (customer, stage) REFERENCES stage (customer, name),
    FOREIGN KEY (customer, app) REFERENCES app (customer, id)
);
-- With which version a replica runs, an app serves, and a revision served. 0: nothing was ever set.
ALTER TABLE replica ADD COLUMN settings BIGINT NOT NULL DEFAULT 0;
ALTER TABLE serving ADD COLUMN settings BIGINT NOT NULL DEFAULT 0;
ALTER TABLE served ADD COLUMN settings BIGINT NOT NULL DEFAULT 0;

SELECT fence('setting');
SELECT fence('settings_version');
