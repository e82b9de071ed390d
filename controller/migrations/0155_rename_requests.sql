-- Which request renamed a server: its copies change nothing, whatever it is called since. None for what was asked for without one.
-- Portable like the rest.
ALTER TABLE renamings ADD COLUMN request_id TEXT;
CREATE UNIQUE INDEX renamings_request ON renamings (request_id);
