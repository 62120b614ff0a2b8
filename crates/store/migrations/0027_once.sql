-- Idempotency keys: which writes were done under which key, and what was answered (sealed).
CREATE TABLE once (
    customer TEXT NOT NULL REFERENCES customer (id),
    caller TEXT NOT NULL,
    key TEXT NOT NULL,
    run TEXT NOT NULL,
    request TEXT NOT NULL,
    answer BLOB,
    at INTEGER NOT NULL,
    PRIMARY KEY (customer, caller, key)
) STRICT;
CREATE INDEX once_at ON once (customer, at);
-- Requests of a customer in a minute, by class and replica, so that replicas count together.
CREATE TABLE pace (
    customer TEXT NOT NULL REFERENCES customer (id),
    minute INTEGER NOT NULL,
    class TEXT NOT NULL,
    replica TEXT NOT NULL,
    requests INTEGER NOT NULL,
    PRIMARY KEY (customer, minute, class, replica)
) STRICT;
CREATE INDEX pace_minute ON pace (minute);
