-- Conditions that need a person, as they were last seen. What is a condition is computed from everything else; here is since when it
-- holds, and who has taken note of it. Portable like the rest.

CREATE TABLE warnings (
    -- What a person types: 'unreachable/nyc', 'dns-name/alice.users.example.com'.
    id TEXT PRIMARY KEY,
    kind TEXT NOT NULL,
    -- 'alice', 'server/nyc', 'dns', 'certificate'.
    subject TEXT NOT NULL,
    -- What has to be seen before the condition can be called cured.
    scope TEXT NOT NULL,
    message TEXT NOT NULL,
    since_ms BIGINT NOT NULL,
    -- Since when it is shown; none while it is hoped that it cures itself.
    raised_ms BIGINT,
    acked_by TEXT,
    acked_ms BIGINT,
    note TEXT
);
