-- What gateways are told: sessions that began, and what was revoked. Numbered in the order of the transactions that
-- wrote it; rows go away when no token can be of them any more. A token carries the number that was the last one when
-- it was made.
CREATE TABLE session_feed (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    customer TEXT NOT NULL,
    what TEXT NOT NULL CHECK (what IN ('began', 'session', 'subject', 'client', 'customer')),
    id TEXT NOT NULL,
    -- Seconds since 1970.
    until INTEGER NOT NULL,
    resource TEXT
) STRICT;
CREATE INDEX session_feed_until ON session_feed (until);
CREATE INDEX session_feed_of ON session_feed (customer, what, id);
-- When a token was last asked for, in seconds since 1970.
ALTER TABLE session ADD COLUMN seen INTEGER NOT NULL DEFAULT 0;
UPDATE session SET seen = unixepoch();
-- How long browser sessions last, in seconds: at most, and without being used. `stage` is empty for the Platform's own.
CREATE TABLE session_limits (
    customer TEXT NOT NULL REFERENCES customer (id),
    stage TEXT NOT NULL,
    max INTEGER NOT NULL,
    idle INTEGER NOT NULL,
    PRIMARY KEY (customer, stage)
) STRICT;
-- Tokens of an earlier epoch are refused, also by who has not heard the feed.
ALTER TABLE customer ADD COLUMN token_epoch INTEGER NOT NULL DEFAULT 0;
