-- End users: accounts of one stage, beside the members (`stage` is empty). An address may be in each of them.
PRAGMA defer_foreign_keys = ON;
CREATE TABLE member_before AS SELECT * FROM member;
DROP TABLE member;
CREATE TABLE member (
    customer TEXT NOT NULL REFERENCES customer (id),
    id TEXT NOT NULL,
    stage TEXT NOT NULL DEFAULT '',
    email TEXT NOT NULL,
    name TEXT NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('invited', 'active', 'inactive')),
    roles TEXT NOT NULL,
    password TEXT,
    -- Whether mail has proven the address.
    verified INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (customer, id),
    UNIQUE (customer, stage, email),
    -- Organization roles are for members.
    CHECK (stage = '' OR roles = '[]')
) STRICT;
INSERT INTO member (customer, id, email, name, state, roles, password)
    SELECT customer, id, email, name, state, roles, password FROM member_before;
DROP TABLE member_before;
-- Groups of end users, in one stage each. What they may do in apps is added to each user's own roles.
CREATE TABLE user_group (
    customer TEXT NOT NULL,
    stage TEXT NOT NULL,
    name TEXT NOT NULL,
    PRIMARY KEY (customer, stage, name),
    FOREIGN KEY (customer, stage) REFERENCES stage (customer, name)
) STRICT;
CREATE TABLE group_user (
    customer TEXT NOT NULL,
    stage TEXT NOT NULL,
    name TEXT NOT NULL,
    member TEXT NOT NULL,
    PRIMARY KEY (customer, stage, name, member),
    FOREIGN KEY (customer, stage, name) REFERENCES user_group (customer, stage, name) ON DELETE CASCADE,
    FOREIGN KEY (customer, member) REFERENCES member (customer, id) ON DELETE CASCADE
) STRICT;
CREATE INDEX group_user_member ON group_user (customer, member);
CREATE TABLE group_role (
    customer TEXT NOT NULL,
    stage TEXT NOT NULL,
    name TEXT NOT NULL,
    app TEXT NOT NULL,
    role TEXT NOT NULL,
    PRIMARY KEY (customer, stage, name, app, role),
    FOREIGN KEY (customer, stage, name) REFERENCES user_group (customer, stage, name) ON DELETE CASCADE,
    FOREIGN KEY (customer, app) REFERENCES app (customer, id)
) STRICT;
