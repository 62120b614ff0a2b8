-- Providers of identity outside: an organization's, or a stage's. Secret and private key are sealed.
CREATE TABLE idp (
    customer TEXT NOT NULL REFERENCES customer (id),
    -- Whose users it knows; empty for members.
    stage TEXT NOT NULL,
    id TEXT NOT NULL,
    -- What was decided about it, as JSON.
    config TEXT NOT NULL,
    secret BLOB,
    private BLOB,
    PRIMARY KEY (customer, stage, id)
) STRICT;
-- Who somebody of a provider is here.
CREATE TABLE idp_link (
    customer TEXT NOT NULL,
    stage TEXT NOT NULL,
    idp TEXT NOT NULL,
    subject TEXT NOT NULL,
    member TEXT NOT NULL,
    PRIMARY KEY (customer, stage, idp, subject),
    FOREIGN KEY (customer, stage, idp) REFERENCES idp (customer, stage, id) ON DELETE CASCADE,
    FOREIGN KEY (customer, member) REFERENCES member (customer, id) ON DELETE CASCADE
) STRICT;
CREATE INDEX idp_link_member ON idp_link (customer, member);
-- Browsers on their way to a provider and back, by the hash of the state that they bring back.
CREATE TABLE idp_login (
    customer TEXT NOT NULL REFERENCES customer (id),
    hash BLOB NOT NULL,
    stage TEXT NOT NULL,
    idp TEXT NOT NULL,
    -- Stage of the issuer that was asked; empty for members.
    issuer TEXT NOT NULL,
    -- Hash of the cookie of the browser.
    browser BLOB NOT NULL,
    verifier TEXT NOT NULL,
    nonce TEXT NOT NULL,
    -- The request that goes on afterwards.
    request TEXT NOT NULL,
    -- Seconds since 1970.
    until INTEGER NOT NULL,
    PRIMARY KEY (customer, hash),
    FOREIGN KEY (customer, stage, idp) REFERENCES idp (customer, stage, id) ON DELETE CASCADE
) STRICT;
CREATE INDEX idp_login_until ON idp_login (until);
-- Sign-ins that came from a provider, so that it can end them.
CREATE TABLE idp_session (
    customer TEXT NOT NULL,
    session TEXT NOT NULL,
    stage TEXT NOT NULL,
    idp TEXT NOT NULL,
    subject TEXT NOT NULL,
    -- The provider's session, if it names one.
    sid TEXT,
    PRIMARY KEY (customer, session),
    FOREIGN KEY (customer, session) REFERENCES session (customer, id) ON DELETE CASCADE
) STRICT;
CREATE INDEX idp_session_subject ON idp_session (customer, stage, idp, subject);
-- Logout tokens that counted, by hash: each counts once.
CREATE TABLE idp_logout (
    customer TEXT NOT NULL,
    hash BLOB NOT NULL,
    until INTEGER NOT NULL,
    PRIMARY KEY (customer, hash)
) STRICT;
