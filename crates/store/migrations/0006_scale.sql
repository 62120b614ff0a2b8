-- What agents tell of their replicas besides how they are.
ALTER TABLE replica ADD COLUMN restarts INTEGER NOT NULL DEFAULT 0;
-- How it ended last, as JSON of ours.
ALTER TABLE replica ADD COLUMN last_end TEXT;
ALTER TABLE replica ADD COLUMN cpu_millis INTEGER;
ALTER TABLE replica ADD COLUMN memory_bytes INTEGER;
-- When that was told, seconds since 1970.
ALTER TABLE replica ADD COLUMN used_at INTEGER;
-- Scale of an app in one stage, instead of its manifest's; JSON of ours.
CREATE TABLE stage_scale (
    customer TEXT NOT NULL,
    stage TEXT NOT NULL,
    app TEXT NOT NULL,
    scale TEXT NOT NULL,
    PRIMARY KEY (customer, stage, app),
    FOREIGN KEY (customer, stage) REFERENCES stage (customer, name),
    FOREIGN KEY (customer, app) REFERENCES app (customer, id)
) STRICT;
-- What the scaler advised lately, and why there are as many replicas as there are.
CREATE TABLE scaling (
    customer TEXT NOT NULL,
    stage TEXT NOT NULL,
    app TEXT NOT NULL,
    looked_at INTEGER NOT NULL,
    -- Pairs of seconds since 1970 and replicas, as JSON of ours.
    advice TEXT NOT NULL,
    why TEXT NOT NULL,
    PRIMARY KEY (customer, stage, app),
    FOREIGN KEY (customer, stage) REFERENCES stage (customer, name),
    FOREIGN KEY (customer, app) REFERENCES app (customer, id)
) STRICT;
-- Most replicas that a customer may run in all its stages; without a row the configured number holds.
CREATE TABLE quota (
    customer TEXT PRIMARY KEY REFERENCES customer (id),
    replicas INTEGER NOT NULL
) STRICT;
