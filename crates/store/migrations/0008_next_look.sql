-- An app of a fixed number is looked at rarely: what is kept is when it is looked at next.
ALTER TABLE scaling RENAME COLUMN looked_at TO look_at;
