-- How well the sign-in behind something is secured, and when it was, in seconds since 1970.
ALTER TABLE session ADD COLUMN acr TEXT NOT NULL DEFAULT 'password';
ALTER TABLE session ADD COLUMN auth_time INTEGER NOT NULL DEFAULT 0;
UPDATE session SET auth_time = since;
ALTER TABLE code ADD COLUMN acr TEXT NOT NULL DEFAULT 'password';
ALTER TABLE device ADD COLUMN acr TEXT NOT NULL DEFAULT 'password';
