-- Sources whose requests are refused: at the hosts of the customer's stages, or everywhere when the operator says so.
CREATE TABLE ban (
    customer TEXT COLLATE "C" NOT NULL REFERENCES customer (id),
    id TEXT COLLATE "C" NOT NULL,
    -- A network in its one spelling.
    net TEXT COLLATE "C" NOT NULL,
    reason TEXT COLLATE "C" NOT NULL,
    banned_by TEXT COLLATE "C" NOT NULL,
    since BIGINT NOT NULL,
    -- Never without.
    until BIGINT,
    PRIMARY KEY (customer, id),
    UNIQUE (customer, net)
);
SELECT fence('ban');
