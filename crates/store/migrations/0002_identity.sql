-- Who exists, how they prove it, and what they hold. The customer is the first column of every key.
-- Times are seconds since 1970. Secrets are kept as SHA-256, passwords as Argon2id, private keys sealed.
-- `stage` '' means the issuer of the customer's members.
CREATE TABLE signing_key (
    customer TEXT NOT NULL REFERENCES customer (id),
    stage TEXT NOT NULL,
    kid TEXT NOT NULL,
    x TEXT NOT NULL,
    private BLOB NOT NULL,
    PRIMARY KEY (customer, stage, kid)
) STRICT;
CREATE TABLE member (
    customer TEXT NOT NULL REFERENCES customer (id),
    id TEXT NOT NULL,
    email TEXT NOT NULL,
    name TEXT NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('invited', 'active', 'inactive')),
    roles TEXT NOT NULL,
    password TEXT,
    PRIMARY KEY (customer, id),
    UNIQUE (customer, email)
) STRICT;
CREATE TABLE invitation (
    customer TEXT NOT NULL,
    hash BLOB NOT NULL,
    member TEXT NOT NULL,
    until INTEGER NOT NULL,
    used INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (customer, hash),
    FOREIGN KEY (customer, member) REFERENCES member (customer, id)
) STRICT;
CREATE TABLE client (
    customer TEXT NOT NULL REFERENCES customer (id),
    id TEXT NOT NULL,
    name TEXT NOT NULL,
    hash BLOB NOT NULL,
    roles TEXT NOT NULL,
    PRIMARY KEY (customer, id)
) STRICT;
-- Counted for every address that was typed, whether or not it is a member's.
CREATE TABLE login_counter (
    customer TEXT NOT NULL REFERENCES customer (id),
    email TEXT NOT NULL,
    failures INTEGER NOT NULL,
    until INTEGER NOT NULL,
    touched INTEGER NOT NULL,
    PRIMARY KEY (customer, email)
) STRICT;
CREATE INDEX login_counter_touched ON login_counter (touched);
-- `provider`: the sign-in at the Identity Service; `browser`: held by a gateway's cookie; `program`:
-- held by refresh tokens. A browser session ends with the sign-in that it came from (`parent`).
CREATE TABLE session (
    customer TEXT NOT NULL,
    id TEXT NOT NULL,
    kind TEXT NOT NULL CHECK (kind IN ('provider', 'browser', 'program')),
    hash BLOB NOT NULL,
    parent TEXT,
    member TEXT NOT NULL,
    until INTEGER NOT NULL,
    PRIMARY KEY (customer, id),
    UNIQUE (customer, hash),
    FOREIGN KEY (customer, member) REFERENCES member (customer, id),
    FOREIGN KEY (customer, parent) REFERENCES session (customer, id) ON DELETE CASCADE
) STRICT;
CREATE INDEX session_parent ON session (customer, parent);
CREATE INDEX session_until ON session (customer, until);
CREATE TABLE code (
    customer TEXT NOT NULL,
    hash BLOB NOT NULL,
    client TEXT NOT NULL,
    redirect_uri TEXT NOT NULL,
    challenge TEXT NOT NULL,
    resource TEXT,
    member TEXT NOT NULL,
    -- Sign-in that it came from.
    parent TEXT NOT NULL,
    until INTEGER NOT NULL,
    taken INTEGER NOT NULL DEFAULT 0,
    -- Session that came of it: it ends when the code comes a second time (RFC 6749 §4.1.2).
    session TEXT,
    PRIMARY KEY (customer, hash),
    FOREIGN KEY (customer, parent) REFERENCES session (customer, id) ON DELETE CASCADE
) STRICT;
CREATE INDEX code_parent ON code (customer, parent);
CREATE TABLE refresh (
    customer TEXT NOT NULL,
    hash BLOB NOT NULL,
    session TEXT NOT NULL,
    used INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (customer, hash),
    FOREIGN KEY (customer, session) REFERENCES session (customer, id) ON DELETE CASCADE
) STRICT;
CREATE INDEX refresh_session ON refresh (customer, session);
CREATE TABLE app_role (
    customer TEXT NOT NULL,
    stage TEXT NOT NULL,
    app TEXT NOT NULL,
    role TEXT NOT NULL,
    member TEXT NOT NULL,
    PRIMARY KEY (customer, stage, app, role, member),
    FOREIGN KEY (customer, stage) REFERENCES stage (customer, name),
    FOREIGN KEY (customer, app) REFERENCES app (customer, id),
    FOREIGN KEY (customer, member) REFERENCES member (customer, id)
) STRICT;
