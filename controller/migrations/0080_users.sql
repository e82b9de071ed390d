-- People, how they get a certificate, and whose certificates are refused. No private key is here. Portable like the rest.

CREATE TABLE users (
    -- As in certificates: 'feather://operator/ada'. One person may have had certificates of several roles.
    principal TEXT PRIMARY KEY,
    name TEXT NOT NULL,
    -- 'admin', 'operator' or 'viewer'.
    role TEXT NOT NULL,
    added_ms BIGINT NOT NULL,
    -- As 'role/name'; NULL for a certificate that was made by hand.
    added_by TEXT,
    -- Life of its certificates in seconds.
    life_s BIGINT NOT NULL,
    -- SHA-256 of the public key that logged in last; NULL before, and for a certificate that was made by hand.
    key_fingerprint TEXT,
    -- End of the newest certificate; NULL before there is one.
    valid_until_ms BIGINT,
    seen_ms BIGINT,
    revoked_ms BIGINT,
    revoked_by TEXT
);

CREATE INDEX users_name ON users (name);

CREATE TABLE user_tokens (
    -- The secret itself is never stored.
    secret_sha256 TEXT PRIMARY KEY,
    principal TEXT NOT NULL,
    expires_ms BIGINT NOT NULL,
    -- SHA-256 of the public key that used it; NULL before.
    used_by TEXT
);

CREATE TABLE revocations (
    -- Of a person or a server: 'feather://agent/nyc'.
    principal TEXT PRIMARY KEY,
    -- Certificates that are valid from this second (since 1970) or an earlier one are refused.
    valid_from_last BIGINT NOT NULL
);
