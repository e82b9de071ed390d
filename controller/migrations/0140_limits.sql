-- What tenants may use of their servers. Portable like the rest.

-- JSON: memory, processor time, processes, and a number that counts changes; '{}' as long as nobody has said anything.
ALTER TABLE tenants ADD COLUMN limits TEXT NOT NULL DEFAULT '{}';
