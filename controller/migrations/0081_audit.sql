-- Every call that changed something or was to: who, what, with which end. Rows are only added, and each carries a hash over its own content
-- and the hash of the row before. Portable like the rest.

CREATE TABLE audit (
    -- 1, 2, 3...
    sequence BIGINT PRIMARY KEY,
    at_ms BIGINT NOT NULL,
    -- As 'role/name'; empty for a call without a certificate.
    caller TEXT NOT NULL,
    -- Where it came from; empty if that is not known.
    address TEXT NOT NULL,
    -- 'feather.controller.v1.TenantService/AddTenant'.
    rpc TEXT NOT NULL,
    -- JSON, without anything secret.
    arguments TEXT NOT NULL,
    -- 'OK', or the code of the error and its reason word.
    code TEXT NOT NULL,
    reason TEXT NOT NULL,
    -- Empty for a call that began none.
    operation TEXT NOT NULL,
    -- SHA-256, lower-case hexadecimal.
    hash TEXT NOT NULL
);
