-- What happened, for people and for programs that follow. Portable like the rest.

CREATE TABLE events (
    -- The cursor. Given out under the lock of the counter's row until the transaction ends, so that none becomes visible behind a
    -- higher one.
    id BIGINT PRIMARY KEY,
    at_ms BIGINT NOT NULL,
    kind TEXT NOT NULL,
    -- 'alice', 'server/nyc', 'dns', 'certificate'.
    subject TEXT NOT NULL,
    -- The server that told of it; none for what the controller did.
    server TEXT,
    message TEXT NOT NULL,
    operation TEXT,
    who TEXT
);

CREATE INDEX events_by_time ON events (at_ms);

CREATE TABLE event_counter (
    name TEXT PRIMARY KEY,
    last BIGINT NOT NULL
);

INSERT INTO event_counter (name, last) VALUES ('events', 0);

-- What was taken in of each server's own events, so that none is taken in twice.
CREATE TABLE event_sources (
    server TEXT PRIMARY KEY,
    -- 1: it answered when it was last looked at.
    reachable BIGINT NOT NULL,
    -- JSON: [[sequence, milliseconds since 1970], ...] of those it told of last.
    taken TEXT NOT NULL
);
