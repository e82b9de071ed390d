-- Which TTLs a zone was seen with, as long as somebody may go by an answer with one of them. Portable like the rest.
CREATE TABLE dns_ttls (
    zone TEXT PRIMARY KEY,
    -- JSON: the last one, and those before it with the time of the look that showed another one.
    ttls TEXT NOT NULL
);
