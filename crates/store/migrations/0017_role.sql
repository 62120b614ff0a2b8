-- Organization roles that a customer made: named sets of permissions. The built-in ones are in the code.
CREATE TABLE role (
    customer TEXT NOT NULL REFERENCES customer (id),
    name TEXT NOT NULL,
    -- JSON array of names of permissions.
    permissions TEXT NOT NULL,
    PRIMARY KEY (customer, name)
) STRICT;
