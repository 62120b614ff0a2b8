-- Customers, apps and what should run. The customer is the first column of every key.
CREATE TABLE meta (key TEXT PRIMARY KEY, value INTEGER NOT NULL) STRICT;
CREATE TABLE customer (
    id TEXT PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    created INTEGER NOT NULL
) STRICT;
CREATE TABLE stage (
    customer TEXT NOT NULL REFERENCES customer (id),
    name TEXT NOT NULL,
    position INTEGER NOT NULL,
    account TEXT NOT NULL UNIQUE,
    seed BLOB NOT NULL,
    generation INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (customer, name)
) STRICT;
CREATE TABLE app (
    customer TEXT NOT NULL REFERENCES customer (id),
    id TEXT NOT NULL,
    name TEXT NOT NULL,
    PRIMARY KEY (customer, id),
    UNIQUE (customer, name)
) STRICT;
CREATE TABLE revision (
    customer TEXT NOT NULL,
    app TEXT NOT NULL,
    number INTEGER NOT NULL,
    digest TEXT NOT NULL,
    image TEXT NOT NULL,
    manifest TEXT NOT NULL,
    blobs TEXT NOT NULL,
    created INTEGER NOT NULL,
    PRIMARY KEY (customer, app, number),
    FOREIGN KEY (customer, app) REFERENCES app (customer, id)
) STRICT;
CREATE TABLE serving (
    customer TEXT NOT NULL,
    stage TEXT NOT NULL,
    app TEXT NOT NULL,
    revision INTEGER NOT NULL,
    PRIMARY KEY (customer, stage, app),
    FOREIGN KEY (customer, stage) REFERENCES stage (customer, name),
    FOREIGN KEY (customer, app, revision) REFERENCES revision (customer, app, number)
) STRICT;
CREATE TABLE replica (
    customer TEXT NOT NULL,
    stage TEXT NOT NULL,
    id TEXT NOT NULL,
    app TEXT NOT NULL,
    revision INTEGER NOT NULL,
    zone TEXT NOT NULL,
    drain_at INTEGER,
    state TEXT NOT NULL DEFAULT 'starting',
    reason TEXT,
    seen INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (customer, stage, id),
    FOREIGN KEY (customer, stage) REFERENCES stage (customer, name),
    FOREIGN KEY (customer, app, revision) REFERENCES revision (customer, app, number)
) STRICT;
CREATE TABLE operation (
    customer TEXT NOT NULL REFERENCES customer (id),
    id TEXT NOT NULL,
    kind TEXT NOT NULL,
    app TEXT NOT NULL,
    stage TEXT NOT NULL,
    revision INTEGER NOT NULL,
    status TEXT NOT NULL,
    problem TEXT,
    created INTEGER NOT NULL,
    deadline INTEGER NOT NULL,
    PRIMARY KEY (customer, id)
) STRICT;
-- One running operation per app and stage.
CREATE UNIQUE INDEX operation_running ON operation (customer, app, stage) WHERE status = 'running';
CREATE TABLE step (
    customer TEXT NOT NULL,
    operation TEXT NOT NULL,
    position INTEGER NOT NULL,
    name TEXT NOT NULL,
    status TEXT NOT NULL,
    message TEXT,
    PRIMARY KEY (customer, operation, position),
    FOREIGN KEY (customer, operation) REFERENCES operation (customer, id)
) STRICT;
CREATE TABLE lease (name TEXT PRIMARY KEY, holder TEXT NOT NULL, until INTEGER NOT NULL) STRICT;
-- Append-only; each row holds the hash of the one before it.
CREATE TABLE audit (
    sequence INTEGER PRIMARY KEY AUTOINCREMENT,
    customer TEXT NOT NULL,
    at INTEGER NOT NULL,
    who TEXT NOT NULL,
    what TEXT NOT NULL,
    detail TEXT NOT NULL,
    previous BLOB NOT NULL,
    hash BLOB NOT NULL
) STRICT;
