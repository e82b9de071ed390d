//! The open directories between the root and the place being worked on.
//!
//! Owns going down by one component and up again with few descriptors, however deep the tree is. Knows nothing of entries.

use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

use bytes::Bytes;

use super::{
    Error,
    inode::{self, Identity},
};

/// Descriptors kept open; directories above are opened again on the way up.
const OPEN_MAX: usize = 32;

struct Level<T> {
    name: Bytes,
    identity: Identity,
    /// `None` when it was closed to save descriptors.
    directory: Option<OwnedFd>,
    state: T,
}

/// A way down from the root, with a state of the caller's for each directory on it.
pub(super) struct Descent<T> {
    levels: Vec<Level<T>>,
    /// Levels below this index are closed.
    closed: usize,
}

impl<T> Descent<T> {
    pub(super) fn new() -> Self {
        Self { levels: Vec::new(), closed: 0 }
    }

    /// Number of directories on the way, the root included.
    pub(super) fn len(&self) -> usize {
        self.levels.len()
    }

    /// Goes down into an open directory.
    pub(super) fn push(&mut self, name: Bytes, identity: Identity, directory: OwnedFd, state: T) {
        self.levels.push(Level { name, identity, directory: Some(directory), state });
        if self.levels.len() - self.closed > OPEN_MAX {
            self.levels[self.closed].directory = None;
            self.closed += 1;
        }
    }

    /// The lowest directory and its state; `None` before the root and after it was left.
    pub(super) fn current(&self) -> Option<(BorrowedFd<'_>, &T)> {
        let level = self.levels.last()?;
        Some((level.directory.as_ref()?.as_fd(), &level.state))
    }

    /// The same, to change its state.
    pub(super) fn current_mut(&mut self) -> Option<(BorrowedFd<'_>, &mut T)> {
        let level = self.levels.last_mut()?;
        Some((level.directory.as_ref()?.as_fd(), &mut level.state))
    }

    /// Goes up by one; returns the name, descriptor and state of what was left.
    pub(super) fn pop(&mut self) -> Result<Option<(Bytes, OwnedFd, T)>, Error> {
        let Some(Level { name, directory: Some(directory), state, .. }) = self.levels.pop() else { return Ok(None) };
        if let Some(parent) = self.levels.last_mut().filter(|parent| parent.directory.is_none()) {
            // The parent may have been moved meanwhile: it is the same one, or nothing is done in it.
            let reopened = inode::open_directory(directory.as_fd(), b"..")
                .and_then(|fd| inode::status(fd.as_fd()).map(|status| (fd, status)));
            let (fd, status) = match reopened {
                Ok(reopened) => reopened,
                Err(errno) => return Err(Error::io("open the directory above", &self.path_of(&name), errno)),
            };
            if status.identity != parent.identity {
                return Err(Error::changed(&self.path_of(&name), "was moved"));
            }
            parent.directory = Some(fd);
            self.closed -= 1;
        }
        Ok(Some((name, directory, state)))
    }

    /// Names from below the root to the lowest directory.
    pub(super) fn names(&self) -> impl Iterator<Item = &[u8]> {
        self.levels.iter().skip(1).map(|level| &level.name[..])
    }

    /// The path of the lowest directory, for display and for archives.
    pub(super) fn path(&self) -> Vec<u8> {
        self.names().collect::<Vec<_>>().join(&b'/')
    }

    /// The path of a name in the lowest directory.
    pub(super) fn path_of(&self, name: &[u8]) -> Vec<u8> {
        self.names().chain([name]).filter(|name| !name.is_empty()).collect::<Vec<_>>().join(&b'/')
    }
}
