-- Numbers under which the apps of a stage are found by those that may call them. A number stays with its
-- app as long as there are others left: callers remember addresses for a while.
CREATE TABLE callee (
    customer TEXT NOT NULL,
    stage TEXT NOT NULL,
    app TEXT NOT NULL,
    number INTEGER NOT NULL,
    -- When it was granted last, seconds since 1970.
    granted INTEGER NOT NULL,
    PRIMARY KEY (customer, stage, app),
    UNIQUE (customer, stage, number),
    FOREIGN KEY (customer, stage) REFERENCES stage (customer, name)
) STRICT;
