-- Passkeys of members and end users.
CREATE TABLE passkey (
    customer TEXT NOT NULL,
    -- SHA-256 of the id of the credential.
    credential BLOB NOT NULL,
    member TEXT NOT NULL,
    -- What its owner calls it.
    name TEXT NOT NULL,
    -- Public key and state, sealed for this customer, member and credential: no secret, but nobody without the key makes
    -- a passkey of one's own somebody else's.
    data BLOB NOT NULL,
    -- The last word of its counter; 0 when it does not count.
    counter INTEGER NOT NULL,
    -- Seconds since 1970.
    made INTEGER NOT NULL,
    used INTEGER,
    PRIMARY KEY (customer, credential),
    FOREIGN KEY (customer, member) REFERENCES member (customer, id)
) STRICT;
CREATE INDEX passkey_member ON passkey (customer, member, made);
-- Questions to authenticators that wait for an answer, by the hash of what the page brings back.
CREATE TABLE passkey_challenge (
    customer TEXT NOT NULL REFERENCES customer (id),
    hash BLOB NOT NULL,
    -- Hash of the cookie of the browser.
    browser BLOB NOT NULL,
    -- What it is for and how the answer is checked, sealed.
    state BLOB NOT NULL,
    -- Seconds since 1970.
    until INTEGER NOT NULL,
    PRIMARY KEY (customer, hash)
) STRICT;
CREATE INDEX passkey_challenge_until ON passkey_challenge (until);
