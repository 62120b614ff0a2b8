-- Databases that apps have in stages, and the logins to them. A row of `postgres_database` stays when the app
-- asks for it no more: so does the database.
CREATE TABLE postgres_database (
    customer TEXT NOT NULL,
    stage TEXT NOT NULL,
    app TEXT NOT NULL,
    -- On the server; never used again.
    name TEXT NOT NULL UNIQUE,
    created INTEGER NOT NULL,
    PRIMARY KEY (customer, stage, app),
    FOREIGN KEY (customer, stage) REFERENCES stage (customer, name),
    FOREIGN KEY (customer, app) REFERENCES app (customer, id)
) STRICT;
-- A replica uses the newest login that is older than itself. Ids grow with time.
CREATE TABLE postgres_login (
    customer TEXT NOT NULL,
    stage TEXT NOT NULL,
    app TEXT NOT NULL,
    id TEXT NOT NULL,
    number INTEGER NOT NULL,
    password BLOB NOT NULL,
    -- Most connections: as wanted, and as the server has it (NULL: not made yet).
    connections INTEGER NOT NULL,
    applied INTEGER,
    -- Why it is not made yet, for people.
    problem TEXT,
    created INTEGER NOT NULL,
    PRIMARY KEY (customer, stage, app, id),
    UNIQUE (customer, stage, app, number),
    FOREIGN KEY (customer, stage, app) REFERENCES postgres_database (customer, stage, app)
) STRICT;
