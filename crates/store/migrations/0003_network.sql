-- Network settings of stages: egress policy and grants between apps, as JSON of ours.
CREATE TABLE stage_network (
    customer TEXT NOT NULL,
    stage TEXT NOT NULL,
    settings TEXT NOT NULL,
    PRIMARY KEY (customer, stage),
    FOREIGN KEY (customer, stage) REFERENCES stage (customer, name)
) STRICT;
