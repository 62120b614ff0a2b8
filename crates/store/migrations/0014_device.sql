-- Programs without a browser that wait for a member's word (RFC 8628).
CREATE TABLE device (
    customer TEXT NOT NULL REFERENCES customer (id),
    hash BLOB NOT NULL,
    -- What the member types, in capitals and without its dash.
    user_code TEXT NOT NULL,
    client TEXT NOT NULL,
    -- Stage of the issuer; empty for members.
    stage TEXT NOT NULL,
    scope TEXT NOT NULL,
    -- Seconds since 1970.
    until INTEGER NOT NULL,
    -- Seconds that the program must wait between two questions, and when it asked last.
    every INTEGER NOT NULL,
    asked INTEGER NOT NULL DEFAULT 0,
    state TEXT NOT NULL DEFAULT 'waiting' CHECK (state IN ('waiting', 'allowed', 'denied')),
    -- Who said so, and when that member had signed in.
    member TEXT,
    since INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (customer, hash),
    UNIQUE (customer, user_code),
    FOREIGN KEY (customer, member) REFERENCES member (customer, id)
) STRICT;
CREATE INDEX device_until ON device (customer, until);
