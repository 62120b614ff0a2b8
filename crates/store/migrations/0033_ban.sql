-- Sources whose requests are refused: at the hosts of the customer's stages, or everywhere when the operator says so.
CREATE TABLE ban (
    customer TEXT NOT NULL REFERENCES customer (id),
    id TEXT NOT NULL,
    -- A network in its one spelling.
    net TEXT NOT NULL,
    reason TEXT NOT NULL,
    banned_by TEXT NOT NULL,
    since INTEGER NOT NULL,
    -- Never without.
    until INTEGER,
    PRIMARY KEY (customer, id),
    UNIQUE (customer, net)
) STRICT;
