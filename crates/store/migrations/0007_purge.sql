-- Purges of stored responses, as JSON of ours; without an app they are for all apps of a stage. Numbers grow with
-- time, so that they grow on after a restored backup, too.
CREATE TABLE purge (
    customer TEXT NOT NULL,
    stage TEXT NOT NULL,
    number INTEGER NOT NULL,
    app TEXT,
    purge TEXT NOT NULL,
    PRIMARY KEY (customer, stage, number),
    FOREIGN KEY (customer, stage) REFERENCES stage (customer, name),
    FOREIGN KEY (customer, app) REFERENCES app (customer, id)
) STRICT;
-- Up to which number purges are not kept any more.
CREATE TABLE purged (
    customer TEXT NOT NULL,
    stage TEXT NOT NULL,
    before INTEGER NOT NULL,
    PRIMARY KEY (customer, stage),
    FOREIGN KEY (customer, stage) REFERENCES stage (customer, name)
) STRICT;
