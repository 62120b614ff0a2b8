-- Keys of issuers: what signs access tokens (Ed25519) and ID tokens (RSA). `stage` is empty for members' issuers.
-- Keys of before are moved here by the code, for they are sealed for another place.
CREATE TABLE issuer_key (
    customer TEXT NOT NULL REFERENCES customer (id),
    stage TEXT NOT NULL,
    kind TEXT NOT NULL CHECK (kind IN ('access', 'id')),
    kid TEXT NOT NULL,
    -- The public half, base64url: the point, or the modulus.
    public TEXT NOT NULL,
    private BLOB NOT NULL,
    -- `next` is published and signs nothing yet, `current` signs, what `previous` signed still counts.
    state TEXT NOT NULL CHECK (state IN ('next', 'current', 'previous')),
    -- Seconds since 1970 at which it came into this state.
    since INTEGER NOT NULL,
    PRIMARY KEY (customer, stage, kind, kid)
) STRICT;
CREATE UNIQUE INDEX issuer_key_one ON issuer_key (customer, stage, kind, state) WHERE state != 'previous';
