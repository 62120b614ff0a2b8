-- How the hosts of a stage behave by themselves: pages, maintenance, redirects, security fields. JSON of ours.
CREATE TABLE stage_site (
    customer TEXT NOT NULL,
    stage TEXT NOT NULL,
    settings TEXT NOT NULL,
    PRIMARY KEY (customer, stage),
    FOREIGN KEY (customer, stage) REFERENCES stage (customer, name)
) STRICT;
