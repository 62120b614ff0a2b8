-- Public keys by which clients prove themselves (RFC 7523). `id` names the grant: a key that comes again is another one.
CREATE TABLE client_key (
    customer TEXT NOT NULL,
    client TEXT NOT NULL,
    kid TEXT NOT NULL,
    id TEXT NOT NULL,
    jwk TEXT NOT NULL,
    -- Seconds since 1970.
    since INTEGER NOT NULL,
    PRIMARY KEY (customer, client, kid),
    FOREIGN KEY (customer, client) REFERENCES client (customer, id) ON DELETE CASCADE
) STRICT;
-- Words of clients that counted, until they are over. Each counts once, also after its client has gone and come back.
CREATE TABLE client_assertion (
    customer TEXT NOT NULL,
    client TEXT NOT NULL,
    hash BLOB NOT NULL,
    until INTEGER NOT NULL,
    PRIMARY KEY (customer, client, hash)
) STRICT;
CREATE INDEX client_assertion_until ON client_assertion (until);
