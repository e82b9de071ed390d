-- Which of several controllers leads: it has the turns until its time is over, by the clock of the database. Portable like the rest.

-- Rises with each new leader; whatever an earlier one still writes is refused.
ALTER TABLE turns ADD COLUMN epoch BIGINT NOT NULL DEFAULT 0;
-- Which process, and where it is reached.
ALTER TABLE turns ADD COLUMN holder TEXT NOT NULL DEFAULT '';
ALTER TABLE turns ADD COLUMN address TEXT NOT NULL DEFAULT '';
ALTER TABLE turns ADD COLUMN expires_ms BIGINT NOT NULL DEFAULT 0;
