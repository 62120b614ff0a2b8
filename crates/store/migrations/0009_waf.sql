-- What the security office says about the WAF for the whole installation, as JSON of ours.
CREATE TABLE waf_office (
    level TEXT PRIMARY KEY CHECK (level IN ('office', 'platform')),
    layer TEXT NOT NULL
) STRICT;
-- What is said for a stage, or for one app in it (an empty app means the stage), by the office or the customer.
CREATE TABLE waf_layer (
    customer TEXT NOT NULL,
    stage TEXT NOT NULL,
    app TEXT NOT NULL,
    said_by TEXT NOT NULL CHECK (said_by IN ('office', 'customer')),
    layer TEXT NOT NULL,
    PRIMARY KEY (customer, stage, app, said_by),
    FOREIGN KEY (customer, stage) REFERENCES stage (customer, name)
) STRICT;
