-- What is ours in a zone, and how one controller at a time may change it. Portable like the rest.

CREATE TABLE dns_ledgers (
    -- Provider and zone: 'dynadot/example.com'.
    zone TEXT PRIMARY KEY,
    -- JSON: owner, generation, marker, records, the change under way.
    ledger TEXT NOT NULL,
    version BIGINT NOT NULL
);

-- Who may change the zone now. The epoch rises with each new holder; whatever a former one still writes is refused.
CREATE TABLE dns_leases (
    zone TEXT PRIMARY KEY,
    holder TEXT NOT NULL,
    epoch BIGINT NOT NULL,
    expires_ms BIGINT NOT NULL
);

-- The zone as it was read before each change. Rows are only added, and the oldest dropped.
CREATE TABLE dns_snapshots (
    zone TEXT NOT NULL,
    id BIGINT NOT NULL,
    taken_ms BIGINT NOT NULL,
    reason TEXT NOT NULL,
    -- JSON: all records, and which of them were ours.
    content TEXT NOT NULL,
    PRIMARY KEY (zone, id)
);

-- Records that somebody wants for a while, beside those that follow from the fleet.
CREATE TABLE dns_wishes (
    host TEXT NOT NULL,
    kind TEXT NOT NULL,
    value TEXT NOT NULL,
    until_ms BIGINT NOT NULL,
    PRIMARY KEY (host, kind, value)
);
