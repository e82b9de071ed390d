-- Secrets, sealed with a key that is in the controller's state folder and never here. Portable like the rest.

CREATE TABLE sealed (
    -- 'certificate/users.example.com', 'acme/https://...'.
    name TEXT PRIMARY KEY,
    -- Base64.
    content TEXT NOT NULL
);
