-- The schema as it is after the migrations of the same number and before in the folder above. What is changed there from
-- then on is changed here by a migration of the same number.
--
-- Truth is a number here, too, and texts are compared byte by byte, so that one SQL text means the same in both.

-- The second fence. A connection sees and writes the rows of the customer whom it names in `bastide.customer`; of all with
-- `*`; none when it says nothing. The owner of the tables is bound as well.
CREATE FUNCTION fence(fenced TEXT, owner TEXT DEFAULT 'customer') RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY', fenced);
    EXECUTE format(
        'CREATE POLICY one_customer ON %I USING (%I = current_setting(''bastide.customer'', true) OR current_setting(''bastide.customer'', true) = ''*'')',
        fenced, owner);
END $$;

-- Customers, apps and what should run. The customer is the first column of every key.
CREATE TABLE meta (
    key TEXT COLLATE "C" PRIMARY KEY,
    value BIGINT NOT NULL
);
CREATE TABLE customer (
    id TEXT COLLATE "C" PRIMARY KEY,
    name TEXT COLLATE "C" NOT NULL UNIQUE,
    created BIGINT NOT NULL,
    token_epoch BIGINT NOT NULL DEFAULT 0
);
CREATE TABLE stage (
    customer TEXT COLLATE "C" NOT NULL REFERENCES customer (id),
    name TEXT COLLATE "C" NOT NULL,
    position BIGINT NOT NULL,
    account TEXT COLLATE "C" NOT NULL UNIQUE,
    seed BYTEA NOT NULL,
    generation BIGINT NOT NULL DEFAULT 0,
    PRIMARY KEY (customer, name)
);
CREATE TABLE app (
    customer TEXT COLLATE "C" NOT NULL REFERENCES customer (id),
    id TEXT COLLATE "C" NOT NULL,
    name TEXT COLLATE "C" NOT NULL,
    PRIMARY KEY (customer, id),
    UNIQUE (customer, name)
);
CREATE TABLE revision (
    customer TEXT COLLATE "C" NOT NULL,
    app TEXT COLLATE "C" NOT NULL,
    number BIGINT NOT NULL,
    digest TEXT COLLATE "C" NOT NULL,
    image TEXT COLLATE "C" NOT NULL,
    manifest TEXT COLLATE "C" NOT NULL,
    blobs TEXT COLLATE "C" NOT NULL,
    created BIGINT NOT NULL,
    message TEXT COLLATE "C" NOT NULL DEFAULT '',
    published_by TEXT COLLATE "C" NOT NULL DEFAULT '',
    version TEXT COLLATE "C",
    mark BYTEA,
    PRIMARY KEY (customer, app, number),
    FOREIGN KEY (customer, app) REFERENCES app (customer, id)
);
CREATE UNIQUE INDEX revision_version ON revision (customer, app, version) WHERE version IS NOT NULL;
CREATE TABLE serving (
    customer TEXT COLLATE "C" NOT NULL,
    stage TEXT COLLATE "C" NOT NULL,
    app TEXT COLLATE "C" NOT NULL,
    revision BIGINT NOT NULL,
    PRIMARY KEY (customer, stage, app),
    FOREIGN KEY (customer, stage) REFERENCES stage (customer, name),
    FOREIGN KEY (customer, app, revision) REFERENCES revision (customer, app, number)
);
CREATE TABLE replica (
    customer TEXT COLLATE "C" NOT NULL,
    stage TEXT COLLATE "C" NOT NULL,
    id TEXT COLLATE "C" NOT NULL,
    app TEXT COLLATE "C" NOT NULL,
    revision BIGINT NOT NULL,
    zone TEXT COLLATE "C" NOT NULL,
    drain_at BIGINT,
    state TEXT COLLATE "C" NOT NULL DEFAULT 'starting',
    reason TEXT COLLATE "C",
    seen BIGINT NOT NULL DEFAULT 0,
    restarts BIGINT NOT NULL DEFAULT 0,
    last_end TEXT COLLATE "C",
    cpu_millis BIGINT,
    memory_bytes BIGINT,
    used_at BIGINT,
    PRIMARY KEY (customer, stage, id),
    FOREIGN KEY (customer, stage) REFERENCES stage (customer, name),
    FOREIGN KEY (customer, app, revision) REFERENCES revision (customer, app, number)
);
CREATE TABLE operation (
    customer TEXT COLLATE "C" NOT NULL REFERENCES customer (id),
    id TEXT COLLATE "C" NOT NULL,
    kind TEXT COLLATE "C" NOT NULL,
    app TEXT COLLATE "C" NOT NULL,
    stage TEXT COLLATE "C" NOT NULL,
    revision BIGINT NOT NULL,
    status TEXT COLLATE "C" NOT NULL,
    problem TEXT COLLATE "C",
    created BIGINT NOT NULL,
    deadline BIGINT NOT NULL,
    PRIMARY KEY (customer, id)
);
CREATE UNIQUE INDEX operation_running ON operation (customer, app, stage) WHERE status = 'running';
CREATE TABLE step (
    customer TEXT COLLATE "C" NOT NULL,
    operation TEXT COLLATE "C" NOT NULL,
    position BIGINT NOT NULL,
    name TEXT COLLATE "C" NOT NULL,
    status TEXT COLLATE "C" NOT NULL,
    message TEXT COLLATE "C",
    PRIMARY KEY (customer, operation, position),
    FOREIGN KEY (customer, operation) REFERENCES operation (customer, id)
);
CREATE TABLE lease (
    name TEXT COLLATE "C" PRIMARY KEY,
    holder TEXT COLLATE "C" NOT NULL,
    until BIGINT NOT NULL
);
CREATE TABLE client (
    customer TEXT COLLATE "C" NOT NULL REFERENCES customer (id),
    id TEXT COLLATE "C" NOT NULL,
    name TEXT COLLATE "C" NOT NULL,
    roles TEXT COLLATE "C" NOT NULL,
    kind TEXT COLLATE "C" NOT NULL DEFAULT 'service' CHECK (kind IN ('public', 'confidential', 'service', 'device')),
    redirect_uris TEXT COLLATE "C" NOT NULL DEFAULT '[]',
    post_logout_redirect_uris TEXT COLLATE "C" NOT NULL DEFAULT '[]',
    suspended BIGINT NOT NULL DEFAULT 0,
    backchannel_logout_uri TEXT COLLATE "C",
    PRIMARY KEY (customer, id)
);
-- Network settings of stages: egress policy and grants between apps, as JSON of ours.
CREATE TABLE stage_network (
    customer TEXT COLLATE "C" NOT NULL,
    stage TEXT COLLATE "C" NOT NULL,
    settings TEXT COLLATE "C" NOT NULL,
    PRIMARY KEY (customer, stage),
    FOREIGN KEY (customer, stage) REFERENCES stage (customer, name)
);
-- Numbers under which the apps of a stage are found by those that may call them. A number stays with its
-- app as long as there are others left: callers remember addresses for a while.
CREATE TABLE callee (
    customer TEXT COLLATE "C" NOT NULL,
    stage TEXT COLLATE "C" NOT NULL,
    app TEXT COLLATE "C" NOT NULL,
    number BIGINT NOT NULL,
    -- When it was granted last, seconds since 1970.
    granted BIGINT NOT NULL,
    PRIMARY KEY (customer, stage, app),
    UNIQUE (customer, stage, number),
    FOREIGN KEY (customer, stage) REFERENCES stage (customer, name)
);
-- Databases that apps have in stages, and the logins to them. A row of `postgres_database` stays when the app
-- asks for it no more: so does the database.
CREATE TABLE postgres_database (
    customer TEXT COLLATE "C" NOT NULL,
    stage TEXT COLLATE "C" NOT NULL,
    app TEXT COLLATE "C" NOT NULL,
    -- On the server; never used again.
    name TEXT COLLATE "C" NOT NULL UNIQUE,
    created BIGINT NOT NULL,
    PRIMARY KEY (customer, stage, app),
    FOREIGN KEY (customer, stage) REFERENCES stage (customer, name),
    FOREIGN KEY (customer, app) REFERENCES app (customer, id)
);
-- A replica uses the newest login that is older than itself. Ids grow with time.
CREATE TABLE postgres_login (
    customer TEXT COLLATE "C" NOT NULL,
    stage TEXT COLLATE "C" NOT NULL,
    app TEXT COLLATE "C" NOT NULL,
    id TEXT COLLATE "C" NOT NULL,
    number BIGINT NOT NULL,
    password BYTEA NOT NULL,
    -- Most connections: as wanted, and as the server has it (NULL: not made yet).
    connections BIGINT NOT NULL,
    applied BIGINT,
    -- Why it is not made yet, for people.
    problem TEXT COLLATE "C",
    created BIGINT NOT NULL,
    PRIMARY KEY (customer, stage, app, id),
    UNIQUE (customer, stage, app, number),
    FOREIGN KEY (customer, stage, app) REFERENCES postgres_database (customer, stage, app)
);
-- Scale of an app in one stage, instead of its manifest's; JSON of ours.
CREATE TABLE stage_scale (
    customer TEXT COLLATE "C" NOT NULL,
    stage TEXT COLLATE "C" NOT NULL,
    app TEXT COLLATE "C" NOT NULL,
    scale TEXT COLLATE "C" NOT NULL,
    PRIMARY KEY (customer, stage, app),
    FOREIGN KEY (customer, stage) REFERENCES stage (customer, name),
    FOREIGN KEY (customer, app) REFERENCES app (customer, id)
);
-- What the scaler advised lately, and why there are as many replicas as there are.
CREATE TABLE scaling (
    customer TEXT COLLATE "C" NOT NULL,
    stage TEXT COLLATE "C" NOT NULL,
    app TEXT COLLATE "C" NOT NULL,
    look_at BIGINT NOT NULL,
    -- Pairs of seconds since 1970 and replicas, as JSON of ours.
    advice TEXT COLLATE "C" NOT NULL,
    why TEXT COLLATE "C" NOT NULL,
    PRIMARY KEY (customer, stage, app),
    FOREIGN KEY (customer, stage) REFERENCES stage (customer, name),
    FOREIGN KEY (customer, app) REFERENCES app (customer, id)
);
-- Most replicas that a customer may run in all its stages; without a row the configured number holds.
CREATE TABLE quota (
    customer TEXT COLLATE "C" PRIMARY KEY REFERENCES customer (id),
    replicas BIGINT NOT NULL
);
-- Purges of stored responses, as JSON of ours; without an app they are for all apps of a stage. Numbers grow with
-- time, so that they grow on after a restored backup, too.
CREATE TABLE purge (
    customer TEXT COLLATE "C" NOT NULL,
    stage TEXT COLLATE "C" NOT NULL,
    number BIGINT NOT NULL,
    app TEXT COLLATE "C",
    purge TEXT COLLATE "C" NOT NULL,
    PRIMARY KEY (customer, stage, number),
    FOREIGN KEY (customer, stage) REFERENCES stage (customer, name),
    FOREIGN KEY (customer, app) REFERENCES app (customer, id)
);
-- Up to which number purges are not kept any more.
CREATE TABLE purged (
    customer TEXT COLLATE "C" NOT NULL,
    stage TEXT COLLATE "C" NOT NULL,
    before BIGINT NOT NULL,
    PRIMARY KEY (customer, stage),
    FOREIGN KEY (customer, stage) REFERENCES stage (customer, name)
);
-- What the security office says about the WAF for the whole installation, as JSON of ours.
CREATE TABLE waf_office (
    level TEXT COLLATE "C" PRIMARY KEY CHECK (level IN ('office', 'platform')),
    layer TEXT COLLATE "C" NOT NULL
);
-- What is said for a stage, or for one app in it (an empty app means the stage), by the office or the customer.
CREATE TABLE waf_layer (
    customer TEXT COLLATE "C" NOT NULL,
    stage TEXT COLLATE "C" NOT NULL,
    app TEXT COLLATE "C" NOT NULL,
    said_by TEXT COLLATE "C" NOT NULL CHECK (said_by IN ('office', 'customer')),
    layer TEXT COLLATE "C" NOT NULL,
    PRIMARY KEY (customer, stage, app, said_by),
    FOREIGN KEY (customer, stage) REFERENCES stage (customer, name)
);
-- Custom domains. Any number of customers may claim one; it belongs to the one that proved it.
CREATE TABLE domain (
    customer TEXT COLLATE "C" NOT NULL,
    name TEXT COLLATE "C" NOT NULL,
    stage TEXT COLLATE "C" NOT NULL,
    -- What the TXT record must say; made for this customer and stage.
    token TEXT COLLATE "C" NOT NULL,
    -- The app that it serves at `/`; all apps of the stage without.
    app TEXT COLLATE "C",
    is_default BIGINT NOT NULL DEFAULT 0,
    created BIGINT NOT NULL,
    validated BIGINT,
    -- Since when the record has been missing, while it is this customer's.
    missing_since BIGINT,
    -- When the ownership ended because the record stayed away.
    lost BIGINT,
    -- Whether its addresses are those of the stage's built-in host.
    leads_here BIGINT NOT NULL DEFAULT 0,
    checked BIGINT,
    check_at BIGINT NOT NULL,
    problem TEXT COLLATE "C",
    PRIMARY KEY (customer, name),
    FOREIGN KEY (customer, stage) REFERENCES stage (customer, name)
);
CREATE UNIQUE INDEX domain_owner ON domain (name) WHERE validated IS NOT NULL;
CREATE UNIQUE INDEX domain_default ON domain (customer, stage) WHERE is_default = 1;
CREATE INDEX domain_check ON domain (check_at);
-- The certificate that a domain serves with. The key is sealed by the key-encryption key.
CREATE TABLE domain_certificate (
    customer TEXT COLLATE "C" NOT NULL,
    domain TEXT COLLATE "C" NOT NULL,
    id TEXT COLLATE "C" NOT NULL,
    source TEXT COLLATE "C" NOT NULL,
    chain TEXT COLLATE "C" NOT NULL,
    key BYTEA NOT NULL,
    not_after BIGINT NOT NULL,
    taken BIGINT NOT NULL,
    PRIMARY KEY (customer, domain),
    FOREIGN KEY (customer, domain) REFERENCES domain (customer, name) ON DELETE CASCADE
);
-- The same key sealed for each edge. Kept, so that every replica makes the same Snapshot.
CREATE TABLE domain_key (
    customer TEXT COLLATE "C" NOT NULL,
    domain TEXT COLLATE "C" NOT NULL,
    edge TEXT COLLATE "C" NOT NULL,
    certificate TEXT COLLATE "C" NOT NULL,
    sealed BYTEA NOT NULL,
    PRIMARY KEY (customer, domain, edge),
    FOREIGN KEY (customer, domain) REFERENCES domain_certificate (customer, domain) ON DELETE CASCADE
);
-- Orders at the ACME authority: where one stands, when it is gone on with, and how often it failed.
CREATE TABLE domain_order (
    customer TEXT COLLATE "C" NOT NULL,
    domain TEXT COLLATE "C" NOT NULL,
    next_at BIGINT NOT NULL,
    attempts BIGINT NOT NULL DEFAULT 0,
    problem TEXT COLLATE "C",
    -- Answer to a challenge, while one is open: token and key authorization.
    token TEXT COLLATE "C",
    key_authorization TEXT COLLATE "C",
    PRIMARY KEY (customer, domain),
    FOREIGN KEY (customer, domain) REFERENCES domain (customer, name) ON DELETE CASCADE
);
CREATE TABLE acme_account (
    directory TEXT COLLATE "C" PRIMARY KEY,
    credentials BYTEA NOT NULL
);
-- Names that were given up: only who had them may take them again, until the time has passed.
CREATE TABLE label_lock (
    kind TEXT COLLATE "C" NOT NULL,
    label TEXT COLLATE "C" NOT NULL,
    customer TEXT COLLATE "C" NOT NULL,
    until BIGINT NOT NULL,
    PRIMARY KEY (kind, label)
);
-- How the hosts of a stage behave by themselves: pages, maintenance, redirects, security fields. JSON of ours.
CREATE TABLE stage_site (
    customer TEXT COLLATE "C" NOT NULL,
    stage TEXT COLLATE "C" NOT NULL,
    settings TEXT COLLATE "C" NOT NULL,
    PRIMARY KEY (customer, stage),
    FOREIGN KEY (customer, stage) REFERENCES stage (customer, name)
);
-- Two may overlap while the client changes from one to the other.
CREATE TABLE client_secret (
    customer TEXT COLLATE "C" NOT NULL,
    client TEXT COLLATE "C" NOT NULL,
    id TEXT COLLATE "C" NOT NULL,
    hash BYTEA NOT NULL,
    -- Seconds since 1970; without an end when NULL.
    until BIGINT,
    reminded BIGINT NOT NULL DEFAULT 0,
    PRIMARY KEY (customer, client, id),
    FOREIGN KEY (customer, client) REFERENCES client (customer, id) ON DELETE CASCADE
);
-- What gateways are told: sessions that began, and what was revoked. Numbered in the order of the transactions that
-- wrote it; rows go away when no token can be of them any more. A token carries the number that was the last one when
-- it was made.
CREATE TABLE session_feed (
    -- Given by `number_feed`.
    number BIGINT PRIMARY KEY,
    customer TEXT COLLATE "C" NOT NULL,
    what TEXT COLLATE "C" NOT NULL CHECK (what IN ('began', 'session', 'subject', 'client', 'customer')),
    id TEXT COLLATE "C" NOT NULL,
    -- Seconds since 1970.
    until BIGINT NOT NULL,
    resource TEXT COLLATE "C"
);
CREATE INDEX session_feed_until ON session_feed (until);
CREATE INDEX session_feed_of ON session_feed (customer, what, id);
-- How long browser sessions last, in seconds: at most, and without being used. `stage` is empty for the Platform's own.
CREATE TABLE session_limits (
    customer TEXT COLLATE "C" NOT NULL REFERENCES customer (id),
    stage TEXT COLLATE "C" NOT NULL,
    max BIGINT NOT NULL,
    idle BIGINT NOT NULL,
    PRIMARY KEY (customer, stage)
);
CREATE TABLE try_counter (
    customer TEXT COLLATE "C" NOT NULL REFERENCES customer (id),
    kind TEXT COLLATE "C" NOT NULL,
    -- What is guessed at: an address (whether or not it is a member's), a member, a device.
    key TEXT COLLATE "C" NOT NULL,
    failures BIGINT NOT NULL,
    -- Seconds since 1970 until which nothing is tried, and of the last try.
    until BIGINT NOT NULL,
    touched BIGINT NOT NULL,
    PRIMARY KEY (customer, kind, key)
);
CREATE INDEX try_counter_touched ON try_counter (touched);
-- Organization roles that a customer made: named sets of permissions. The built-in ones are in the code.
CREATE TABLE role (
    customer TEXT COLLATE "C" NOT NULL REFERENCES customer (id),
    name TEXT COLLATE "C" NOT NULL,
    -- JSON array of names of permissions.
    permissions TEXT COLLATE "C" NOT NULL,
    PRIMARY KEY (customer, name)
);
-- What a customer demands of sign-ins, as JSON.
CREATE TABLE sign_in_policy (
    customer TEXT COLLATE "C" PRIMARY KEY REFERENCES customer (id),
    policy TEXT COLLATE "C" NOT NULL
);
-- Keys of issuers: what signs access tokens (Ed25519) and ID tokens (RSA). `stage` is empty for members' issuers.
CREATE TABLE issuer_key (
    customer TEXT COLLATE "C" NOT NULL REFERENCES customer (id),
    stage TEXT COLLATE "C" NOT NULL,
    kind TEXT COLLATE "C" NOT NULL CHECK (kind IN ('access', 'id')),
    kid TEXT COLLATE "C" NOT NULL,
    -- The public half, base64url: the point, or the modulus.
    public TEXT COLLATE "C" NOT NULL,
    private BYTEA NOT NULL,
    -- `next` is published and signs nothing yet, `current` signs, what `previous` signed still counts.
    state TEXT COLLATE "C" NOT NULL CHECK (state IN ('next', 'current', 'previous')),
    -- Seconds since 1970 at which it came into this state.
    since BIGINT NOT NULL,
    PRIMARY KEY (customer, stage, kind, kid)
);
CREATE UNIQUE INDEX issuer_key_one ON issuer_key (customer, stage, kind, state) WHERE state != 'previous';
CREATE TABLE member (
    customer TEXT COLLATE "C" NOT NULL REFERENCES customer (id),
    id TEXT COLLATE "C" NOT NULL,
    stage TEXT COLLATE "C" NOT NULL DEFAULT '',
    email TEXT COLLATE "C" NOT NULL,
    name TEXT COLLATE "C" NOT NULL,
    state TEXT COLLATE "C" NOT NULL CHECK (state IN ('invited', 'active', 'inactive')),
    roles TEXT COLLATE "C" NOT NULL,
    password TEXT COLLATE "C",
    -- Whether mail has proven the address.
    verified BIGINT NOT NULL DEFAULT 0,
    PRIMARY KEY (customer, id),
    UNIQUE (customer, stage, email),
    -- Organization roles are for members.
    CHECK (stage = '' OR roles = '[]')
);
CREATE TABLE invitation (
    customer TEXT COLLATE "C" NOT NULL,
    hash BYTEA NOT NULL,
    member TEXT COLLATE "C" NOT NULL,
    until BIGINT NOT NULL,
    used BIGINT NOT NULL DEFAULT 0,
    mailed BIGINT NOT NULL DEFAULT 0,
    PRIMARY KEY (customer, hash),
    FOREIGN KEY (customer, member) REFERENCES member (customer, id)
);
-- `provider`: the sign-in at the Identity Service; `browser`: held by a gateway's cookie; `program`:
-- held by refresh tokens. A browser session ends with the sign-in that it came from (`parent`).
CREATE TABLE session (
    customer TEXT COLLATE "C" NOT NULL,
    id TEXT COLLATE "C" NOT NULL,
    kind TEXT COLLATE "C" NOT NULL CHECK (kind IN ('provider', 'browser', 'program')),
    hash BYTEA NOT NULL,
    parent TEXT COLLATE "C",
    member TEXT COLLATE "C" NOT NULL,
    until BIGINT NOT NULL,
    client TEXT COLLATE "C" NOT NULL DEFAULT '',
    stage TEXT COLLATE "C" NOT NULL DEFAULT '',
    scope TEXT COLLATE "C" NOT NULL DEFAULT '',
    since BIGINT NOT NULL DEFAULT 0,
    seen BIGINT NOT NULL DEFAULT 0,
    acr TEXT COLLATE "C" NOT NULL DEFAULT 'password',
    auth_time BIGINT NOT NULL DEFAULT 0,
    PRIMARY KEY (customer, id),
    UNIQUE (customer, hash),
    FOREIGN KEY (customer, member) REFERENCES member (customer, id),
    FOREIGN KEY (customer, parent) REFERENCES session (customer, id) ON DELETE CASCADE
);
CREATE INDEX session_parent ON session (customer, parent);
CREATE INDEX session_until ON session (customer, until);
CREATE TABLE code (
    customer TEXT COLLATE "C" NOT NULL,
    hash BYTEA NOT NULL,
    client TEXT COLLATE "C" NOT NULL,
    redirect_uri TEXT COLLATE "C" NOT NULL,
    challenge TEXT COLLATE "C" NOT NULL,
    resource TEXT COLLATE "C",
    member TEXT COLLATE "C" NOT NULL,
    -- Sign-in that it came from.
    parent TEXT COLLATE "C" NOT NULL,
    until BIGINT NOT NULL,
    taken BIGINT NOT NULL DEFAULT 0,
    -- Session that came of it: it ends when the code comes a second time (RFC 6749 §4.1.2).
    session TEXT COLLATE "C",
    stage TEXT COLLATE "C" NOT NULL DEFAULT '',
    scope TEXT COLLATE "C" NOT NULL DEFAULT '',
    nonce TEXT COLLATE "C",
    since BIGINT NOT NULL DEFAULT 0,
    acr TEXT COLLATE "C" NOT NULL DEFAULT 'password',
    PRIMARY KEY (customer, hash),
    FOREIGN KEY (customer, parent) REFERENCES session (customer, id) ON DELETE CASCADE
);
CREATE INDEX code_parent ON code (customer, parent);
CREATE TABLE refresh (
    customer TEXT COLLATE "C" NOT NULL,
    hash BYTEA NOT NULL,
    session TEXT COLLATE "C" NOT NULL,
    used BIGINT NOT NULL DEFAULT 0,
    used_at BIGINT NOT NULL DEFAULT 0,
    successor BYTEA,
    PRIMARY KEY (customer, hash),
    FOREIGN KEY (customer, session) REFERENCES session (customer, id) ON DELETE CASCADE
);
CREATE INDEX refresh_session ON refresh (customer, session);
CREATE TABLE app_role (
    customer TEXT COLLATE "C" NOT NULL,
    stage TEXT COLLATE "C" NOT NULL,
    app TEXT COLLATE "C" NOT NULL,
    role TEXT COLLATE "C" NOT NULL,
    member TEXT COLLATE "C" NOT NULL,
    PRIMARY KEY (customer, stage, app, role, member),
    FOREIGN KEY (customer, stage) REFERENCES stage (customer, name),
    FOREIGN KEY (customer, app) REFERENCES app (customer, id),
    FOREIGN KEY (customer, member) REFERENCES member (customer, id)
);
-- Programs without a browser that wait for a member's word (RFC 8628).
CREATE TABLE device (
    customer TEXT COLLATE "C" NOT NULL REFERENCES customer (id),
    hash BYTEA NOT NULL,
    -- What the member types, in capitals and without its dash.
    user_code TEXT COLLATE "C" NOT NULL,
    client TEXT COLLATE "C" NOT NULL,
    -- Stage of the issuer; empty for members.
    stage TEXT COLLATE "C" NOT NULL,
    scope TEXT COLLATE "C" NOT NULL,
    -- Seconds since 1970.
    until BIGINT NOT NULL,
    -- Seconds that the program must wait between two questions, and when it asked last.
    every BIGINT NOT NULL,
    asked BIGINT NOT NULL DEFAULT 0,
    state TEXT COLLATE "C" NOT NULL DEFAULT 'waiting' CHECK (state IN ('waiting', 'allowed', 'denied')),
    -- Who said so, and when that member had signed in.
    member TEXT COLLATE "C",
    since BIGINT NOT NULL DEFAULT 0,
    acr TEXT COLLATE "C" NOT NULL DEFAULT 'password',
    PRIMARY KEY (customer, hash),
    UNIQUE (customer, user_code),
    FOREIGN KEY (customer, member) REFERENCES member (customer, id)
);
CREATE INDEX device_until ON device (customer, until);
-- Browsers in which a member has signed in before, by the hash of their cookie.
CREATE TABLE known_device (
    customer TEXT COLLATE "C" NOT NULL REFERENCES customer (id),
    hash BYTEA NOT NULL,
    member TEXT COLLATE "C" NOT NULL,
    -- Seconds since 1970.
    until BIGINT NOT NULL,
    PRIMARY KEY (customer, hash),
    FOREIGN KEY (customer, member) REFERENCES member (customer, id)
);
CREATE INDEX known_device_member ON known_device (customer, member, until);
-- Authenticator apps of members. The secret is sealed; `last_step` is the step of the last code that was taken, so that
-- each counts once.
CREATE TABLE second_factor (
    customer TEXT COLLATE "C" NOT NULL,
    member TEXT COLLATE "C" NOT NULL,
    secret BYTEA NOT NULL,
    last_step BIGINT NOT NULL,
    PRIMARY KEY (customer, member),
    FOREIGN KEY (customer, member) REFERENCES member (customer, id)
);
-- SHA-256 of 80 random bits each; a row goes away when its code is used.
CREATE TABLE recovery_code (
    customer TEXT COLLATE "C" NOT NULL,
    member TEXT COLLATE "C" NOT NULL,
    hash BYTEA NOT NULL,
    PRIMARY KEY (customer, member, hash),
    FOREIGN KEY (customer, member) REFERENCES second_factor (customer, member) ON DELETE CASCADE
);
-- Browsers whose user has shown the password and owes the code.
CREATE TABLE half_sign_in (
    customer TEXT COLLATE "C" NOT NULL,
    hash BYTEA NOT NULL,
    member TEXT COLLATE "C" NOT NULL,
    -- Seconds since 1970.
    until BIGINT NOT NULL,
    PRIMARY KEY (customer, hash),
    FOREIGN KEY (customer, member) REFERENCES member (customer, id)
);
CREATE INDEX half_sign_in_until ON half_sign_in (until);
-- One-time sign-ins that the operator of the machine made for a customer's administrator.
CREATE TABLE break_glass (
    customer TEXT COLLATE "C" NOT NULL,
    hash BYTEA NOT NULL,
    member TEXT COLLATE "C" NOT NULL,
    -- Seconds since 1970.
    until BIGINT NOT NULL,
    PRIMARY KEY (customer, hash),
    FOREIGN KEY (customer, member) REFERENCES member (customer, id)
);
-- Groups of end users, in one stage each. What they may do in apps is added to each user's own roles.
CREATE TABLE user_group (
    customer TEXT COLLATE "C" NOT NULL,
    stage TEXT COLLATE "C" NOT NULL,
    name TEXT COLLATE "C" NOT NULL,
    PRIMARY KEY (customer, stage, name),
    FOREIGN KEY (customer, stage) REFERENCES stage (customer, name)
);
CREATE TABLE group_user (
    customer TEXT COLLATE "C" NOT NULL,
    stage TEXT COLLATE "C" NOT NULL,
    name TEXT COLLATE "C" NOT NULL,
    member TEXT COLLATE "C" NOT NULL,
    PRIMARY KEY (customer, stage, name, member),
    FOREIGN KEY (customer, stage, name) REFERENCES user_group (customer, stage, name) ON DELETE CASCADE,
    FOREIGN KEY (customer, member) REFERENCES member (customer, id) ON DELETE CASCADE
);
CREATE INDEX group_user_member ON group_user (customer, member);
CREATE TABLE group_role (
    customer TEXT COLLATE "C" NOT NULL,
    stage TEXT COLLATE "C" NOT NULL,
    name TEXT COLLATE "C" NOT NULL,
    app TEXT COLLATE "C" NOT NULL,
    role TEXT COLLATE "C" NOT NULL,
    PRIMARY KEY (customer, stage, name, app, role),
    FOREIGN KEY (customer, stage, name) REFERENCES user_group (customer, stage, name) ON DELETE CASCADE,
    FOREIGN KEY (customer, app) REFERENCES app (customer, id)
);
-- One chain for each customer.
CREATE TABLE audit_entry (
    customer TEXT COLLATE "C" NOT NULL,
    sequence BIGINT NOT NULL,
    at BIGINT NOT NULL,
    who TEXT COLLATE "C" NOT NULL,
    what TEXT COLLATE "C" NOT NULL,
    detail TEXT COLLATE "C" NOT NULL,
    address TEXT COLLATE "C" NOT NULL,
    request TEXT COLLATE "C" NOT NULL,
    outcome TEXT COLLATE "C" NOT NULL,
    old TEXT COLLATE "C",
    new TEXT COLLATE "C",
    previous BYTEA NOT NULL,
    hash BYTEA NOT NULL,
    PRIMARY KEY (customer, sequence)
);
CREATE INDEX audit_entry_what ON audit_entry (customer, what, at);
-- Where each chain begins and ends, marked with the Platform's key: entries cut off at the end are missed, too.
CREATE TABLE audit_ends (
    customer TEXT COLLATE "C" PRIMARY KEY,
    -- The last entry that was given up by age, and its hash.
    before BIGINT NOT NULL,
    before_hash BYTEA NOT NULL,
    last BIGINT NOT NULL,
    last_hash BYTEA NOT NULL,
    mark BYTEA NOT NULL
);
-- Mail that waits to be sent. Whom to and what is sealed: it may hold links that let somebody in.
CREATE TABLE mail (
    customer TEXT COLLATE "C" NOT NULL REFERENCES customer (id),
    id TEXT COLLATE "C" NOT NULL,
    sealed BYTEA NOT NULL,
    tries BIGINT NOT NULL DEFAULT 0,
    -- Seconds since 1970 of the next try, and after which there is none.
    next BIGINT NOT NULL,
    until BIGINT NOT NULL,
    PRIMARY KEY (customer, id)
);
CREATE INDEX mail_next ON mail (next);
-- Links by which somebody chooses a new password, or makes an account of their own.
CREATE TABLE link (
    customer TEXT COLLATE "C" NOT NULL REFERENCES customer (id),
    hash BYTEA NOT NULL,
    kind TEXT COLLATE "C" NOT NULL CHECK (kind IN ('reset', 'registration')),
    -- Whose password it is; a registration names nobody yet.
    member TEXT COLLATE "C",
    -- Of the account; empty for members.
    stage TEXT COLLATE "C" NOT NULL,
    email TEXT COLLATE "C" NOT NULL,
    -- Whether it went by mail, which proves the address.
    mailed BIGINT NOT NULL,
    -- Seconds since 1970.
    until BIGINT NOT NULL,
    PRIMARY KEY (customer, hash),
    FOREIGN KEY (customer, member) REFERENCES member (customer, id) ON DELETE CASCADE
);
CREATE INDEX link_until ON link (until);
CREATE INDEX link_member ON link (customer, member);
-- Stages at which everybody may make an account.
CREATE TABLE registration (
    customer TEXT COLLATE "C" NOT NULL,
    stage TEXT COLLATE "C" NOT NULL,
    PRIMARY KEY (customer, stage),
    FOREIGN KEY (customer, stage) REFERENCES stage (customer, name)
);
-- What clients still have to hear.
CREATE TABLE logout_notice (
    customer TEXT COLLATE "C" NOT NULL,
    client TEXT COLLATE "C" NOT NULL,
    session TEXT COLLATE "C" NOT NULL,
    -- Of the issuer; empty for members.
    stage TEXT COLLATE "C" NOT NULL,
    member TEXT COLLATE "C" NOT NULL,
    tries BIGINT NOT NULL DEFAULT 0,
    -- Seconds since 1970 of the next try, and after which there is none.
    next BIGINT NOT NULL,
    until BIGINT NOT NULL,
    PRIMARY KEY (customer, client, session),
    FOREIGN KEY (customer, client) REFERENCES client (customer, id) ON DELETE CASCADE
);
CREATE INDEX logout_notice_next ON logout_notice (next);
-- Providers of identity outside: an organization's, or a stage's. Secret and private key are sealed.
CREATE TABLE idp (
    customer TEXT COLLATE "C" NOT NULL REFERENCES customer (id),
    -- Whose users it knows; empty for members.
    stage TEXT COLLATE "C" NOT NULL,
    id TEXT COLLATE "C" NOT NULL,
    -- What was decided about it, as JSON.
    config TEXT COLLATE "C" NOT NULL,
    secret BYTEA,
    private BYTEA,
    PRIMARY KEY (customer, stage, id)
);
-- Who somebody of a provider is here.
CREATE TABLE idp_link (
    customer TEXT COLLATE "C" NOT NULL,
    stage TEXT COLLATE "C" NOT NULL,
    idp TEXT COLLATE "C" NOT NULL,
    subject TEXT COLLATE "C" NOT NULL,
    member TEXT COLLATE "C" NOT NULL,
    PRIMARY KEY (customer, stage, idp, subject),
    FOREIGN KEY (customer, stage, idp) REFERENCES idp (customer, stage, id) ON DELETE CASCADE,
    FOREIGN KEY (customer, member) REFERENCES member (customer, id) ON DELETE CASCADE
);
CREATE INDEX idp_link_member ON idp_link (customer, member);
-- Browsers on their way to a provider and back, by the hash of the state that they bring back.
CREATE TABLE idp_login (
    customer TEXT COLLATE "C" NOT NULL REFERENCES customer (id),
    hash BYTEA NOT NULL,
    stage TEXT COLLATE "C" NOT NULL,
    idp TEXT COLLATE "C" NOT NULL,
    -- Stage of the issuer that was asked; empty for members.
    issuer TEXT COLLATE "C" NOT NULL,
    -- Hash of the cookie of the browser.
    browser BYTEA NOT NULL,
    verifier TEXT COLLATE "C" NOT NULL,
    nonce TEXT COLLATE "C" NOT NULL,
    -- The request that goes on afterwards.
    request TEXT COLLATE "C" NOT NULL,
    -- Seconds since 1970.
    until BIGINT NOT NULL,
    PRIMARY KEY (customer, hash),
    FOREIGN KEY (customer, stage, idp) REFERENCES idp (customer, stage, id) ON DELETE CASCADE
);
CREATE INDEX idp_login_until ON idp_login (until);
-- Sign-ins that came from a provider, so that it can end them.
CREATE TABLE idp_session (
    customer TEXT COLLATE "C" NOT NULL,
    session TEXT COLLATE "C" NOT NULL,
    stage TEXT COLLATE "C" NOT NULL,
    idp TEXT COLLATE "C" NOT NULL,
    subject TEXT COLLATE "C" NOT NULL,
    -- The provider's session, if it names one.
    sid TEXT COLLATE "C",
    PRIMARY KEY (customer, session),
    FOREIGN KEY (customer, session) REFERENCES session (customer, id) ON DELETE CASCADE
);
CREATE INDEX idp_session_subject ON idp_session (customer, stage, idp, subject);
-- Logout tokens that counted, by hash: each counts once.
CREATE TABLE idp_logout (
    customer TEXT COLLATE "C" NOT NULL,
    hash BYTEA NOT NULL,
    until BIGINT NOT NULL,
    PRIMARY KEY (customer, hash)
);
-- Idempotency keys: which writes were done under which key, and what was answered (sealed).
CREATE TABLE once (
    customer TEXT COLLATE "C" NOT NULL REFERENCES customer (id),
    caller TEXT COLLATE "C" NOT NULL,
    key TEXT COLLATE "C" NOT NULL,
    run TEXT COLLATE "C" NOT NULL,
    request TEXT COLLATE "C" NOT NULL,
    answer BYTEA,
    at BIGINT NOT NULL,
    PRIMARY KEY (customer, caller, key)
);
CREATE INDEX once_at ON once (customer, at);
-- Requests of a customer in a minute, by class and replica, so that replicas count together.
CREATE TABLE pace (
    customer TEXT COLLATE "C" NOT NULL REFERENCES customer (id),
    minute BIGINT NOT NULL,
    class TEXT COLLATE "C" NOT NULL,
    replica TEXT COLLATE "C" NOT NULL,
    requests BIGINT NOT NULL,
    PRIMARY KEY (customer, minute, class, replica)
);
CREATE INDEX pace_minute ON pace (minute);
-- Which revisions served in a stage, one after the other.
CREATE TABLE served (
    customer TEXT COLLATE "C" NOT NULL,
    stage TEXT COLLATE "C" NOT NULL,
    app TEXT COLLATE "C" NOT NULL,
    -- Counts up for each app and stage.
    turn BIGINT NOT NULL,
    -- NULL: the app was taken out of the stage.
    revision BIGINT,
    at BIGINT NOT NULL,
    PRIMARY KEY (customer, stage, app, turn)
);

SELECT fence(table_name::TEXT) FROM information_schema.columns
    WHERE table_schema = current_schema() AND column_name = 'customer';
SELECT fence('customer', 'id');

-- The number that was given last, by name of the table: as SQLite keeps it. No sequence, for a number counts when it is
-- committed.
CREATE TABLE feed_sequence (
    name TEXT COLLATE "C" PRIMARY KEY,
    seq BIGINT NOT NULL
);
CREATE FUNCTION number_feed() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO feed_sequence (name, seq) VALUES ('session_feed', 1)
        ON CONFLICT (name) DO UPDATE SET seq = feed_sequence.seq + 1 RETURNING seq INTO NEW.number;
    RETURN NEW;
END $$;
CREATE TRIGGER session_feed_number BEFORE INSERT ON session_feed FOR EACH ROW EXECUTE FUNCTION number_feed();

CREATE FUNCTION keep_audit() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'the audit trail is append-only';
END $$;
CREATE TRIGGER audit_entry_stays BEFORE UPDATE ON audit_entry FOR EACH ROW EXECUTE FUNCTION keep_audit();
CREATE TRIGGER audit_entry_is_there BEFORE TRUNCATE ON audit_entry FOR EACH STATEMENT EXECUTE FUNCTION keep_audit();
-- Only what was given up by age, which `audit_ends` says first, may go.
CREATE FUNCTION keep_young_audit() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF OLD.sequence > COALESCE((SELECT before FROM audit_ends WHERE customer = OLD.customer), 0) THEN
        RAISE EXCEPTION 'the audit trail is append-only';
    END IF;
    RETURN OLD;
END $$;
CREATE TRIGGER audit_entry_is_kept BEFORE DELETE ON audit_entry FOR EACH ROW EXECUTE FUNCTION keep_young_audit();

-- Whatever ends a session before its time, in whichever way: its client hears of it.
CREATE FUNCTION tell_client() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    now_s BIGINT := EXTRACT(EPOCH FROM clock_timestamp());
BEGIN
    IF OLD.until > now_s AND EXISTS (
        SELECT 1 FROM client WHERE customer = OLD.customer AND id = OLD.client AND backchannel_logout_uri IS NOT NULL)
    THEN
        INSERT INTO logout_notice (customer, client, session, stage, member, next, until)
        VALUES (OLD.customer, OLD.client, OLD.id, OLD.stage, OLD.member, now_s, now_s + 600);
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER session_ended AFTER DELETE ON session FOR EACH ROW
    WHEN (OLD.kind = 'program') EXECUTE FUNCTION tell_client();
