-- How an organization looks on its pages. Without a row: by its name.
CREATE TABLE organization_look (
    customer TEXT COLLATE "C" NOT NULL PRIMARY KEY REFERENCES customer (id),
    title TEXT COLLATE "C",
    logo BYTEA,
    logo_kind TEXT COLLATE "C" CHECK (logo_kind IN ('png', 'jpeg', 'webp')),
    logo_width BIGINT,
    logo_height BIGINT,
    logo_digest TEXT COLLATE "C",
    CHECK ((logo IS NULL) = (logo_kind IS NULL) AND (logo IS NULL) = (logo_width IS NULL)
        AND (logo IS NULL) = (logo_height IS NULL) AND (logo IS NULL) = (logo_digest IS NULL))
);
SELECT fence('organization_look');
