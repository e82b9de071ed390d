-- A server may get another name; the name in its certificate stays until its machine joins anew. Portable like the rest.
-- The name in its certificate: the one that it joined by.
ALTER TABLE servers ADD COLUMN principal TEXT NOT NULL DEFAULT '';
UPDATE servers SET principal = name;
CREATE UNIQUE INDEX servers_principal ON servers (principal);
-- What was renamed, in the order in which it was: operations that have ended go on saying the name of their time.
CREATE TABLE renamings (
    -- 1, 2, 3...
    sequence BIGINT PRIMARY KEY,
    former TEXT NOT NULL,
    present TEXT NOT NULL,
    at_ms BIGINT NOT NULL
);
