-- Portable between SQLite and PostgreSQL: TEXT, BIGINT, no dialect tricks. Times are milliseconds since 1970.

CREATE TABLE settings (
    name TEXT PRIMARY KEY,
    value TEXT NOT NULL
);

CREATE TABLE servers (
    name TEXT PRIMARY KEY,
    address TEXT NOT NULL,
    public_address TEXT NOT NULL,
    -- SHA-256 of the agent's public key; a certificate is renewed for this key's holder only.
    key_fingerprint TEXT NOT NULL,
    joined_ms BIGINT NOT NULL
);

CREATE TABLE join_tokens (
    -- The secret itself is not kept.
    secret_sha256 TEXT PRIMARY KEY,
    server TEXT NOT NULL,
    expires_ms BIGINT NOT NULL,
    -- 1: whoever uses it takes the place of the member of that name.
    rejoin BIGINT NOT NULL,
    -- SHA-256 of the public key that used it; the same key may repeat its call.
    used_by TEXT
);

CREATE TABLE tenants (
    name TEXT PRIMARY KEY,
    -- adding, active, removed
    state TEXT NOT NULL,
    -- Where its data is; none only before the first add has ended.
    server TEXT,
    previous_server TEXT,
    -- Generation of the placement in force, and the highest ever issued.
    generation BIGINT NOT NULL,
    generation_issued BIGINT NOT NULL,
    -- 1: should run, 0: stopped by its operator.
    running BIGINT NOT NULL,
    created_ms BIGINT NOT NULL,
    version BIGINT NOT NULL
);

CREATE TABLE operations (
    id TEXT PRIMARY KEY,
    request_id TEXT NOT NULL UNIQUE,
    -- What was asked, so that a request id used twice for different things is noticed.
    request TEXT NOT NULL,
    kind TEXT NOT NULL,
    tenant TEXT NOT NULL,
    source TEXT,
    target TEXT,
    state TEXT NOT NULL,
    -- JSON: what was decided (fixed), and what the steps found out (grows).
    plan TEXT NOT NULL,
    facts TEXT NOT NULL,
    requested_by TEXT NOT NULL,
    error TEXT,
    hint TEXT,
    created_ms BIGINT NOT NULL,
    ended_ms BIGINT
);

CREATE INDEX operations_by_tenant ON operations (tenant, created_ms);

CREATE TABLE operation_log (
    operation TEXT NOT NULL,
    sequence BIGINT NOT NULL,
    at_ms BIGINT NOT NULL,
    step TEXT NOT NULL,
    event TEXT NOT NULL,
    message TEXT NOT NULL,
    PRIMARY KEY (operation, sequence)
);

-- One running operation for each tenant: the primary key is the lock.
CREATE TABLE operation_holds (
    tenant TEXT PRIMARY KEY,
    operation TEXT NOT NULL
);
