-- What is known of backups of volumes, and whose are made by themselves. Portable like the rest.

CREATE TABLE backups (
    -- A folder's path, or 's3://bucket/prefix'.
    repository TEXT NOT NULL,
    id TEXT NOT NULL,
    tenant TEXT NOT NULL,
    server TEXT NOT NULL,
    taken_ms BIGINT NOT NULL,
    -- 1 when the tenant ran meanwhile.
    live BIGINT NOT NULL,
    bytes BIGINT NOT NULL,
    new_bytes BIGINT NOT NULL,
    -- NULL: until somebody deletes it.
    keep_until_ms BIGINT,
    -- NULL: never read back in order.
    verified_ms BIGINT,
    damage TEXT NOT NULL,
    PRIMARY KEY (repository, id)
);

CREATE INDEX backups_tenant ON backups (tenant);

CREATE TABLE backup_schedules (
    tenant TEXT PRIMARY KEY,
    repository TEXT NOT NULL,
    every_s BIGINT NOT NULL,
    keep_s BIGINT,
    since_ms BIGINT NOT NULL,
    tried_ms BIGINT,
    failures BIGINT NOT NULL,
    problem TEXT NOT NULL
);
