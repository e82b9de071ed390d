-- What operators say of servers, and what tenants were added with. Portable like the rest.

ALTER TABLE servers ADD COLUMN cordoned BIGINT NOT NULL DEFAULT 0;
-- JSON: names and values.
ALTER TABLE servers ADD COLUMN labels TEXT NOT NULL DEFAULT '{}';
-- Counts changes of the two.
ALTER TABLE servers ADD COLUMN version BIGINT NOT NULL DEFAULT 1;

-- JSON: labels that its server must have, and the only server it may be on.
ALTER TABLE tenants ADD COLUMN bounds TEXT NOT NULL DEFAULT '{}';
