-- Where a client hears that a session of one of its users has ended (OpenID Connect Back-Channel Logout).
ALTER TABLE client ADD COLUMN backchannel_logout_uri TEXT;
-- What clients still have to hear.
CREATE TABLE logout_notice (
    customer TEXT NOT NULL,
    client TEXT NOT NULL,
    session TEXT NOT NULL,
    -- Of the issuer; empty for members.
    stage TEXT NOT NULL,
    member TEXT NOT NULL,
    tries INTEGER NOT NULL DEFAULT 0,
    -- Seconds since 1970 of the next try, and after which there is none.
    next INTEGER NOT NULL,
    until INTEGER NOT NULL,
    PRIMARY KEY (customer, client, session),
    FOREIGN KEY (customer, client) REFERENCES client (customer, id) ON DELETE CASCADE
) STRICT;
CREATE INDEX logout_notice_next ON logout_notice (next);
-- Whatever ends a session before its time, in whichever way: its client hears of it.
CREATE TRIGGER session_ended AFTER DELETE ON session
WHEN OLD.kind = 'program' AND OLD.until > unixepoch() AND EXISTS (
    SELECT 1 FROM client WHERE customer = OLD.customer AND id = OLD.client AND backchannel_logout_uri IS NOT NULL)
BEGIN
    INSERT INTO logout_notice (customer, client, session, stage, member, next, until)
    VALUES (OLD.customer, OLD.client, OLD.id, OLD.stage, OLD.member, unixepoch(), unixepoch() + 600);
END;
