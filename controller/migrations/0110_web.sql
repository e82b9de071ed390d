-- Who may look at the web page. Secrets are never here, only their hashes. Portable like the rest.

CREATE TABLE web_tokens (
    -- The first half of the hash, to find it by.
    id TEXT PRIMARY KEY,
    secret_sha256 TEXT NOT NULL,
    -- Whose: the name of a person, without a role. Whoever has it looks, whatever that person may do elsewhere.
    name TEXT NOT NULL,
    -- As 'role/name'.
    made_by TEXT NOT NULL,
    made_ms BIGINT NOT NULL,
    expires_ms BIGINT NOT NULL
);

CREATE INDEX web_tokens_name ON web_tokens (name);

CREATE TABLE web_sessions (
    id TEXT PRIMARY KEY,
    secret_sha256 TEXT NOT NULL,
    -- The token that it was begun with; it ends with that.
    token TEXT NOT NULL,
    began_ms BIGINT NOT NULL
);

CREATE INDEX web_sessions_token ON web_sessions (token);
