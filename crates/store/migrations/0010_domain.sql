-- Custom domains. Any number of customers may claim one; it belongs to the one that proved it.
CREATE TABLE domain (
    customer TEXT NOT NULL,
    name TEXT NOT NULL,
    stage TEXT NOT NULL,
    -- What the TXT record must say; made for this customer and stage.
    token TEXT NOT NULL,
    -- The app that it serves at `/`; all apps of the stage without.
    app TEXT,
    is_default INTEGER NOT NULL DEFAULT 0,
    created INTEGER NOT NULL,
    validated INTEGER,
    -- Since when the record has been missing, while it is this customer's.
    missing_since INTEGER,
    -- When the ownership ended because the record stayed away.
    lost INTEGER,
    -- Whether its addresses are those of the stage's built-in host.
    leads_here INTEGER NOT NULL DEFAULT 0,
    checked INTEGER,
    check_at INTEGER NOT NULL,
    problem TEXT,
    PRIMARY KEY (customer, name),
    FOREIGN KEY (customer, stage) REFERENCES stage (customer, name)
) STRICT;
CREATE UNIQUE INDEX domain_owner ON domain (name) WHERE validated IS NOT NULL;
CREATE UNIQUE INDEX domain_default ON domain (customer, stage) WHERE is_default = 1;
CREATE INDEX domain_check ON domain (check_at);
-- The certificate that a domain serves with. The key is sealed by the key-encryption key.
CREATE TABLE domain_certificate (
    customer TEXT NOT NULL,
    domain TEXT NOT NULL,
    id TEXT NOT NULL,
    source TEXT NOT NULL,
    chain TEXT NOT NULL,
    key BLOB NOT NULL,
    not_after INTEGER NOT NULL,
    taken INTEGER NOT NULL,
    PRIMARY KEY (customer, domain),
    FOREIGN KEY (customer, domain) REFERENCES domain (customer, name) ON DELETE CASCADE
) STRICT;
-- The same key sealed for each edge. Kept, so that every replica makes the same Snapshot.
CREATE TABLE domain_key (
    customer TEXT NOT NULL,
    domain TEXT NOT NULL,
    edge TEXT NOT NULL,
    certificate TEXT NOT NULL,
    sealed BLOB NOT NULL,
    PRIMARY KEY (customer, domain, edge),
    FOREIGN KEY (customer, domain) REFERENCES domain_certificate (customer, domain) ON DELETE CASCADE
) STRICT;
-- Orders at the ACME authority: where one stands, when it is gone on with, and how often it failed.
CREATE TABLE domain_order (
    customer TEXT NOT NULL,
    domain TEXT NOT NULL,
    next_at INTEGER NOT NULL,
    attempts INTEGER NOT NULL DEFAULT 0,
    problem TEXT,
    -- Answer to a challenge, while one is open: token and key authorization.
    token TEXT,
    key_authorization TEXT,
    PRIMARY KEY (customer, domain),
    FOREIGN KEY (customer, domain) REFERENCES domain (customer, name) ON DELETE CASCADE
) STRICT;
CREATE TABLE acme_account (directory TEXT PRIMARY KEY, credentials BLOB NOT NULL) STRICT;
-- Names that were given up: only who had them may take them again, until the time has passed.
CREATE TABLE label_lock (
    kind TEXT NOT NULL,
    label TEXT NOT NULL,
    customer TEXT NOT NULL,
    until INTEGER NOT NULL,
    PRIMARY KEY (kind, label)
) STRICT;
