//! Podman. To be written.
