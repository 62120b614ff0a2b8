-- Clients that an administrator registers; those of before are services.
ALTER TABLE client ADD COLUMN kind TEXT NOT NULL DEFAULT 'service'
    CHECK (kind IN ('public', 'confidential', 'service', 'device'));
ALTER TABLE client ADD COLUMN redirect_uris TEXT NOT NULL DEFAULT '[]';
ALTER TABLE client ADD COLUMN post_logout_redirect_uris TEXT NOT NULL DEFAULT '[]';
ALTER TABLE client ADD COLUMN suspended INTEGER NOT NULL DEFAULT 0;
-- Two may overlap while the client changes from one to the other.
CREATE TABLE client_secret (
    customer TEXT NOT NULL,
    client TEXT NOT NULL,
    id TEXT NOT NULL,
    hash BLOB NOT NULL,
    -- Seconds since 1970; without an end when NULL.
    until INTEGER,
    PRIMARY KEY (customer, client, id),
    FOREIGN KEY (customer, client) REFERENCES client (customer, id) ON DELETE CASCADE
) STRICT;
INSERT INTO client_secret (customer, client, id, hash) SELECT customer, id, 'first', hash FROM client;
ALTER TABLE client DROP COLUMN hash;
-- Keys that sign ID tokens: RSA, which every relying party can check. `stage` is empty for members.
CREATE TABLE id_key (
    customer TEXT NOT NULL REFERENCES customer (id),
    stage TEXT NOT NULL,
    kid TEXT NOT NULL,
    n TEXT NOT NULL,
    private BLOB NOT NULL,
    PRIMARY KEY (customer, stage, kid)
) STRICT;
-- What a session is for: client, issuer (`stage` is empty for members), scopes; and when its member
-- signed in, in seconds since 1970.
ALTER TABLE session ADD COLUMN client TEXT NOT NULL DEFAULT '';
ALTER TABLE session ADD COLUMN stage TEXT NOT NULL DEFAULT '';
ALTER TABLE session ADD COLUMN scope TEXT NOT NULL DEFAULT '';
ALTER TABLE session ADD COLUMN since INTEGER NOT NULL DEFAULT 0;
UPDATE session SET client = 'bastide-cli' WHERE kind = 'program';
ALTER TABLE code ADD COLUMN stage TEXT NOT NULL DEFAULT '';
ALTER TABLE code ADD COLUMN scope TEXT NOT NULL DEFAULT '';
ALTER TABLE code ADD COLUMN nonce TEXT;
ALTER TABLE code ADD COLUMN since INTEGER NOT NULL DEFAULT 0;
-- When a refresh token was spent and for which successor: an answer that was lost may be asked for again.
ALTER TABLE refresh ADD COLUMN used_at INTEGER NOT NULL DEFAULT 0;
ALTER TABLE refresh ADD COLUMN successor BLOB;
