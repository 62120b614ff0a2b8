-- Public keys by which clients prove themselves (RFC 7523). `id` names the grant: a key that comes again is another one.
CREATE TABLE client_key (
    customer TEXT COLLATE "C" NOT NULL,
    client TEXT COLLATE "C" NOT NULL,
    kid TEXT COLLATE "C" NOT NULL,
    id TEXT COLLATE "C" NOT NULL,
    jwk TEXT COLLATE "C" NOT NULL,
    -- Seconds since 1970.
    since BIGINT NOT NULL,
    PRIMARY KEY (customer, client, kid),
    FOREIGN KEY (customer, client) REFERENCES client (customer, id) ON DELETE CASCADE
);
SELECT fence('client_key');
-- Words of clients that counted, until they are over. Each counts once, also after its client has gone and come back.
CREATE TABLE client_assertion (
    customer TEXT COLLATE "C" NOT NULL,
    client TEXT COLLATE "C" NOT NULL,
    hash BYTEA NOT NULL,
    until BIGINT NOT NULL,
    PRIMARY KEY (customer, client, hash)
);
CREATE INDEX client_assertion_until ON client_assertion (until);
SELECT fence('client_assertion');
