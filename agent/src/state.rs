//! The state directory as a whole: one agent at a time, and the key that only this server knows.
//!
//! Owns neither the ledger nor the identity that lie in it.

use std::{
    fs::{self, File, TryLockError},
    io,
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
};

use rand::{TryRng as _, rngs::SysRng};

use crate::ledger::storage::write_atomically;

/// Why the directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file in it cannot be read or written.
    #[error("cannot use {path}; check the state directory (--state-dir) and its disk")]
    File {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Another agent has it.
    #[error("another agent runs on the state directory {0}; stop it first, or use another --state-dir")]
    Taken(PathBuf),
}

/// The directory, taken for this process.
#[derive(Debug)]
pub struct StateDir {
    path: PathBuf,
    /// Locked for as long as it is open.
    _lock: File,
}

/// Makes the directory when it is missing.
///
/// # Errors
/// [`Error::File`].
pub fn create(path: &Path) -> Result<(), Error> {
    let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(path);
    made.map_err(|source| Error::File { path: path.to_owned(), source })
}

impl StateDir {
    /// Takes the directory, making it when it is missing.
    ///
    /// # Errors
    /// [`Error::Taken`] when another agent has it: two of them would start every tenant twice.
    pub fn take(path: &Path) -> Result<Self, Error> {
        create(path)?;
        let lock_path = path.join("lock");
        let file = |source| Error::File { path: lock_path.clone(), source };
        let lock = File::options().create(true).truncate(false).write(true).open(&lock_path).map_err(file)?;
        match lock.try_lock() {
            Ok(()) => Ok(Self { path: path.to_owned(), _lock: lock }),
            Err(TryLockError::WouldBlock) => Err(Error::Taken(path.to_owned())),
            Err(TryLockError::Error(source)) => Err(file(source)),
        }
    }

    /// The key that container labels are hashed with, made when first asked for.
    ///
    /// # Errors
    /// [`Error::File`].
    pub fn label_key(&self) -> Result<[u8; 32], Error> {
        let path = self.path.join("label.key");
        let file = |source| Error::File { path: path.clone(), source };
        match fs::read(&path) {
            Ok(bytes) => {
                if let Ok(key) = bytes.try_into() {
                    return Ok(key);
                }
                // A damaged key costs one restart of each container, no more.
                tracing::warn!(path = %path.display(), "the label key is damaged; making a new one");
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(file(error)),
        }
        let mut key = [0; 32];
        SysRng.try_fill_bytes(&mut key).map_err(|error| file(io::Error::other(error)))?;
        write_atomically(&path, &key).map_err(file)?;
        Ok(key)
    }
}

#[cfg(test)]
mod tests {
    use super::{Error, StateDir};

    #[test]
    fn one_agent_at_a_time_has_a_state_directory() {
        let dir = tempfile::tempdir().unwrap();
        let first = StateDir::take(dir.path()).unwrap();
        assert!(matches!(StateDir::take(dir.path()), Err(Error::Taken(_))));
        let key = first.label_key().unwrap();
        drop(first);
        assert_eq!(StateDir::take(dir.path()).unwrap().label_key().unwrap(), key);
    }
}
