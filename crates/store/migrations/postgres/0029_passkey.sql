-- Passkeys of members and end users.
CREATE TABLE passkey (
    customer TEXT COLLATE "C" NOT NULL,
    -- SHA-256 of the id of the credential.
    credential BYTEA NOT NULL,
    member TEXT COLLATE "C" NOT NULL,
    -- What its owner calls it.
    name TEXT COLLATE "C" NOT NULL,
    -- Public key and state, sealed for this customer, member and credential: no secret, but nobody without the key makes
    -- a passkey of one's own somebody else's.
    data BYTEA NOT NULL,
    -- The last word of its counter; 0 when it does not count.
    counter BIGINT NOT NULL,
    -- Seconds since 1970.
    made BIGINT NOT NULL,
    used BIGINT,
    PRIMARY KEY (customer, credential),
    FOREIGN KEY (customer, member) REFERENCES member (customer, id)
);
CREATE INDEX passkey_member ON passkey (customer, member, made);
SELECT fence('passkey');
-- Questions to authenticators that wait for an answer, by the hash of what the page brings back.
CREATE TABLE passkey_challenge (
    customer TEXT COLLATE "C" NOT NULL REFERENCES customer (id),
    hash BYTEA NOT NULL,
    -- Hash of the cookie of the browser.
    browser BYTEA NOT NULL,
    -- What it is for and how the answer is checked, sealed.
    state BYTEA NOT NULL,
    -- Seconds since 1970.
    until BIGINT NOT NULL,
    PRIMARY KEY (customer, hash)
);
CREATE INDEX passkey_challenge_until ON passkey_challenge (until);
SELECT fence('passkey_challenge');
