-- Which tenants have changed since somebody last read all of them. Portable like the rest.

-- Higher than in every row that was written before: writers take turns.
ALTER TABLE tenants ADD COLUMN changed BIGINT NOT NULL DEFAULT 0;
CREATE INDEX tenants_changed ON tenants (changed);

-- What is too small to count row by row: how often all of it was written.
CREATE TABLE revisions (
    name TEXT PRIMARY KEY NOT NULL,
    number BIGINT NOT NULL
);
INSERT INTO revisions (name, number) VALUES ('servers', 1);
