-- One chain for each customer. `audit` of before stays for replicas of before; what they write is moved at the next start.
CREATE TABLE audit_entry (
    customer TEXT NOT NULL,
    sequence INTEGER NOT NULL,
    at INTEGER NOT NULL,
    who TEXT NOT NULL,
    what TEXT NOT NULL,
    detail TEXT NOT NULL,
    address TEXT NOT NULL,
    request TEXT NOT NULL,
    outcome TEXT NOT NULL,
    old TEXT,
    new TEXT,
    previous BLOB NOT NULL,
    hash BLOB NOT NULL,
    PRIMARY KEY (customer, sequence)
) STRICT;
-- Where each chain begins and ends, marked with the Platform's key: entries cut off at the end are missed, too.
CREATE TABLE audit_ends (
    customer TEXT PRIMARY KEY,
    -- The last entry that was given up by age, and its hash.
    before INTEGER NOT NULL,
    before_hash BLOB NOT NULL,
    last INTEGER NOT NULL,
    last_hash BLOB NOT NULL,
    mark BLOB NOT NULL
) STRICT;
CREATE INDEX audit_entry_what ON audit_entry (customer, what, at);
CREATE TRIGGER audit_entry_stays BEFORE UPDATE ON audit_entry
BEGIN
    SELECT RAISE(ABORT, 'the audit trail is append-only');
END;
-- Only what was given up by age, which `audit_ends` says first, may go.
CREATE TRIGGER audit_entry_is_kept BEFORE DELETE ON audit_entry
WHEN OLD.sequence > COALESCE((SELECT before FROM audit_ends WHERE customer = OLD.customer), 0)
BEGIN
    SELECT RAISE(ABORT, 'the audit trail is append-only');
END;
