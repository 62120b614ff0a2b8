-- One-time sign-ins that the operator of the machine made for a customer's administrator.
CREATE TABLE break_glass (
    customer TEXT NOT NULL,
    hash BLOB NOT NULL,
    member TEXT NOT NULL,
    -- Seconds since 1970.
    until INTEGER NOT NULL,
    PRIMARY KEY (customer, hash),
    FOREIGN KEY (customer, member) REFERENCES member (customer, id)
) STRICT;
