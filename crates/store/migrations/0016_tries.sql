-- Counters of tries: passwords, codes and known devices each have their own.
DROP TABLE login_counter;
CREATE TABLE try_counter (
    customer TEXT NOT NULL REFERENCES customer (id),
    kind TEXT NOT NULL,
    -- What is guessed at: an address (whether or not it is a member's), a member, a device.
    key TEXT NOT NULL,
    failures INTEGER NOT NULL,
    -- Seconds since 1970 until which nothing is tried, and of the last try.
    until INTEGER NOT NULL,
    touched INTEGER NOT NULL,
    PRIMARY KEY (customer, kind, key)
) STRICT;
CREATE INDEX try_counter_touched ON try_counter (touched);
-- Browsers in which a member has signed in before, by the hash of their cookie.
CREATE TABLE known_device (
    customer TEXT NOT NULL REFERENCES customer (id),
    hash BLOB NOT NULL,
    member TEXT NOT NULL,
    -- Seconds since 1970.
    until INTEGER NOT NULL,
    PRIMARY KEY (customer, hash),
    FOREIGN KEY (customer, member) REFERENCES member (customer, id)
) STRICT;
CREATE INDEX known_device_member ON known_device (customer, member, until);
