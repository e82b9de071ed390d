-- How far certificates that were handed out reach, so that a revocation refuses all of them whatever the clock says by then. Portable like
-- the rest.

CREATE TABLE issued (
    -- Of a person or a server: 'feather://agent/nyc'.
    principal TEXT PRIMARY KEY,
    -- The latest second (since 1970) from which a certificate of that name is valid.
    valid_from_newest BIGINT NOT NULL
);
