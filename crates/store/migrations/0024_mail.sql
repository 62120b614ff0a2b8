-- Mail that waits to be sent. Whom to and what is sealed: it may hold links that let somebody in.
CREATE TABLE mail (
    customer TEXT NOT NULL REFERENCES customer (id),
    id TEXT NOT NULL,
    sealed BLOB NOT NULL,
    tries INTEGER NOT NULL DEFAULT 0,
    -- Seconds since 1970 of the next try, and after which there is none.
    next INTEGER NOT NULL,
    until INTEGER NOT NULL,
    PRIMARY KEY (customer, id)
) STRICT;
CREATE INDEX mail_next ON mail (next);
-- Links by which somebody chooses a new password, or makes an account of their own.
CREATE TABLE link (
    customer TEXT NOT NULL REFERENCES customer (id),
    hash BLOB NOT NULL,
    kind TEXT NOT NULL CHECK (kind IN ('reset', 'registration')),
    -- Whose password it is; a registration names nobody yet.
    member TEXT,
    -- Of the account; empty for members.
    stage TEXT NOT NULL,
    email TEXT NOT NULL,
    -- Whether it went by mail, which proves the address.
    mailed INTEGER NOT NULL,
    -- Seconds since 1970.
    until INTEGER NOT NULL,
    PRIMARY KEY (customer, hash),
    FOREIGN KEY (customer, member) REFERENCES member (customer, id) ON DELETE CASCADE
) STRICT;
CREATE INDEX link_until ON link (until);
CREATE INDEX link_member ON link (customer, member);
ALTER TABLE invitation ADD COLUMN mailed INTEGER NOT NULL DEFAULT 0;
-- Stages at which everybody may make an account.
CREATE TABLE registration (
    customer TEXT NOT NULL,
    stage TEXT NOT NULL,
    PRIMARY KEY (customer, stage),
    FOREIGN KEY (customer, stage) REFERENCES stage (customer, name)
) STRICT;
-- Whether administrators were told that a secret ends soon.
ALTER TABLE client_secret ADD COLUMN reminded INTEGER NOT NULL DEFAULT 0;
