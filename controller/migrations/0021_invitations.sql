-- Who of the waitlist was invited, so that nobody gets two tenants. Forgotten with `featherctl waitlist remove`.

CREATE TABLE invitations (
    -- In lower case.
    address TEXT PRIMARY KEY,
    tenant TEXT NOT NULL,
    -- Of the operation that adds the tenant. It is noted before that begins: no such operation means that nothing came of it.
    request_id TEXT NOT NULL UNIQUE,
    invited_ms BIGINT NOT NULL
);
