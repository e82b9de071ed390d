-- Whoever writes changes this row first and so has the turn until the end of its transaction: what it read in it stays true, also where
-- several write at once. Portable like the rest.

CREATE TABLE turns (
    name TEXT PRIMARY KEY,
    taken BIGINT NOT NULL
);

INSERT INTO turns (name, taken) VALUES ('write', 0);
