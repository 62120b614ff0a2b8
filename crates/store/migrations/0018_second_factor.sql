-- Authenticator apps of members. The secret is sealed; `last_step` is the step of the last code that was taken, so that
-- each counts once.
CREATE TABLE second_factor (
    customer TEXT NOT NULL,
    member TEXT NOT NULL,
    secret BLOB NOT NULL,
    last_step INTEGER NOT NULL,
    PRIMARY KEY (customer, member),
    FOREIGN KEY (customer, member) REFERENCES member (customer, id)
) STRICT;
-- SHA-256 of 80 random bits each; a row goes away when its code is used.
CREATE TABLE recovery_code (
    customer TEXT NOT NULL,
    member TEXT NOT NULL,
    hash BLOB NOT NULL,
    PRIMARY KEY (customer, member, hash),
    FOREIGN KEY (customer, member) REFERENCES second_factor (customer, member) ON DELETE CASCADE
) STRICT;
-- Browsers whose user has shown the password and owes the code.
CREATE TABLE half_sign_in (
    customer TEXT NOT NULL,
    hash BLOB NOT NULL,
    member TEXT NOT NULL,
    -- Seconds since 1970.
    until INTEGER NOT NULL,
    PRIMARY KEY (customer, hash),
    FOREIGN KEY (customer, member) REFERENCES member (customer, id)
) STRICT;
CREATE INDEX half_sign_in_until ON half_sign_in (until);
-- What a customer demands of sign-ins, as JSON.
CREATE TABLE sign_in_policy (
    customer TEXT PRIMARY KEY REFERENCES customer (id),
    policy TEXT NOT NULL
) STRICT;
