-- A browser session gets another secret when the rights of its user have changed: `renew` is 1 until it has it. The former
-- one serves for a moment, for requests that were under way.
ALTER TABLE session ADD COLUMN renew INTEGER NOT NULL DEFAULT 0;
ALTER TABLE session ADD COLUMN former BLOB;
ALTER TABLE session ADD COLUMN former_until INTEGER NOT NULL DEFAULT 0;
CREATE INDEX session_former ON session (customer, former) WHERE former IS NOT NULL;
