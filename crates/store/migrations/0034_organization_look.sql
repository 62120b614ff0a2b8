-- How an organization looks on its pages. Without a row: by its name.
CREATE TABLE organization_look (
    customer TEXT NOT NULL PRIMARY KEY REFERENCES customer (id),
    title TEXT,
    logo BLOB,
    logo_kind TEXT CHECK (logo_kind IN ('png', 'jpeg', 'webp')),
    logo_width INTEGER,
    logo_height INTEGER,
    logo_digest TEXT,
    CHECK ((logo IS NULL) = (logo_kind IS NULL) AND (logo IS NULL) = (logo_width IS NULL)
        AND (logo IS NULL) = (logo_height IS NULL) AND (logo IS NULL) = (logo_digest IS NULL))
) STRICT;
