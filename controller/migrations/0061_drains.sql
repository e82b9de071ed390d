-- Operations that are part of another one, and who was sent away from home. Portable like the rest.

-- The operation that this one is a part of.
ALTER TABLE operations ADD COLUMN parent TEXT;
CREATE INDEX operations_by_parent ON operations (parent);

-- Tenants that a drain moved from their server and that have not been there again since.
CREATE TABLE sent_away (
    tenant TEXT NOT NULL,
    -- Where from.
    home TEXT NOT NULL,
    -- The drain.
    operation TEXT NOT NULL,
    away_ms BIGINT NOT NULL,
    PRIMARY KEY (tenant, home)
);
