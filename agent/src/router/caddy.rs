//! Caddy. To be written.
