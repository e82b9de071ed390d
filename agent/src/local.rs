//! The server by itself: what a person types in the birth container, with or without a controller.
//!
//! Owns the local socket, who decides about a command that came over it, and the command line that is its other end. How a
//! tenant's life goes on is the same code as for a controller's calls.

pub(crate) mod alone;
pub mod client;
mod findings;
pub(crate) mod member;
mod status;
mod text;

use std::{
    fs, io,
    os::unix::fs::{FileTypeExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use tokio::net::{UnixListener, UnixStream};

/// Where the socket is unless told otherwise.
pub const SOCKET: &str = "/run/feather/agent.sock";

/// Why the socket cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Somebody serves there.
    #[error("another agent answers at {0}; stop it first, or use another --local-socket (FEATHER_AGENT_LOCAL_SOCKET)")]
    Taken(PathBuf),
    /// There is something else of that name.
    #[error("{0} exists and is no socket; move it away, or use another --local-socket (FEATHER_AGENT_LOCAL_SOCKET)")]
    NoSocket(PathBuf),
    /// The socket cannot be made.
    #[error(
        "cannot make the socket {path}; check its directory, or use another --local-socket (FEATHER_AGENT_LOCAL_SOCKET)"
    )]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// The socket, bound, readable and writable by its owner only.
#[derive(Debug)]
pub struct Socket(UnixListener);

impl Socket {
    /// Makes the socket in place of one that a dead agent left.
    ///
    /// # Errors
    /// [`Error::Taken`] when an agent answers there.
    pub async fn bind(path: &Path) -> Result<Self, Error> {
        let file = |source| Error::File { path: path.to_owned(), source };
        match fs::symlink_metadata(path) {
            Ok(found) if !found.file_type().is_socket() => return Err(Error::NoSocket(path.to_owned())),
            Ok(_) if UnixStream::connect(path).await.is_ok() => return Err(Error::Taken(path.to_owned())),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(file(error)),
        }
        if let Some(directory) = path.parent() {
            fs::create_dir_all(directory).map_err(file)?;
        }
        // Under another name first, so that nobody meets it before it is closed to others, and it takes the stale one's place in
        // one step.
        let new = path.with_extension("new");
        match fs::remove_file(&new) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(file(error)),
            _ => {}
        }
        let listener = UnixListener::bind(&new).map_err(file)?;
        fs::set_permissions(&new, fs::Permissions::from_mode(0o600)).map_err(file)?;
        fs::rename(&new, path).map_err(file)?;
        Ok(Self(listener))
    }

    pub(crate) fn into_listener(self) -> UnixListener {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use tokio::net::UnixStream;

    use super::{Error, Socket};

    #[tokio::test]
    async fn a_dead_agents_socket_is_replaced_and_a_living_ones_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("run/agent.sock");
        let first = Socket::bind(&path).await.unwrap();
        let taken = Socket::bind(&path).await.unwrap_err();
        assert!(matches!(taken, Error::Taken(_)));
        assert!(taken.to_string().contains("--local-socket"), "{taken}");
        drop(first);
        assert!(path.exists(), "a dead agent leaves its socket");
        let second = Socket::bind(&path).await.unwrap();
        UnixStream::connect(&path).await.unwrap();
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        drop(second);
    }

    #[tokio::test]
    async fn a_file_in_the_sockets_place_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("agent.sock");
        std::fs::write(&path, "somebody's notes").unwrap();
        assert!(matches!(Socket::bind(&path).await, Err(Error::NoSocket(_))));
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "somebody's notes");
    }
}
