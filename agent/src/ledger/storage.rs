//! Where records are kept: files that are either the old or the new one after a crash, never half of one.
//!
//! Owns atomic replacement. Knows nothing of what the bytes mean. A seam, so that tests can make it fail and "crash".

use std::{
    fs,
    io::{self, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use super::Error;

/// Content of one file, or why it cannot be read.
pub type Content = Result<Vec<u8>, io::Error>;

/// Keeps named pieces of bytes. Calls block.
pub trait Storage: Send + Sync {
    /// Every file with its content, in order.
    fn read_all(&self) -> Result<Vec<(String, Content)>, Error>;
    /// Replaces one file; on return it survives a power cut.
    fn write(&self, file: &str, bytes: &[u8]) -> io::Result<()>;
}

/// A directory of files that only their owner reads.
#[derive(Debug)]
pub struct Directory {
    path: PathBuf,
}

impl Directory {
    /// Opens the directory, making it when it is missing.
    pub fn new(path: impl Into<PathBuf>) -> Result<Self, Error> {
        let path = path.into();
        let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(&path);
        made.map_err(|source| Error::Open { path: path.clone(), source })?;
        Ok(Self { path })
    }

    fn files(&self) -> io::Result<Vec<(String, PathBuf)>> {
        let mut files = Vec::new();
        for entry in fs::read_dir(&self.path)? {
            let path = entry?.path();
            let name = path.file_name().and_then(|name| name.to_str()).map(str::to_owned);
            // What a crash left half-written ends in `.new` and was never acknowledged.
            if let Some(name) = name.filter(|name| name.ends_with(".json")) {
                files.push((name, path));
            }
        }
        files.sort();
        Ok(files)
    }
}

impl Storage for Directory {
    fn read_all(&self) -> Result<Vec<(String, Content)>, Error> {
        let files = self.files().map_err(|source| Error::Open { path: self.path.clone(), source })?;
        Ok(files.into_iter().map(|(name, path)| (name, fs::read(path))).collect())
    }

    fn write(&self, file: &str, bytes: &[u8]) -> io::Result<()> {
        write_atomically(&self.path.join(file), bytes)
    }
}

/// Replaces a file so that a crash leaves the old or the new one; on return the new one survives a power cut.
pub(crate) fn write_atomically(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut new = path.as_os_str().to_owned();
    new.push(".new");
    let new = PathBuf::from(new);
    let mut handle = fs::OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(&new)?;
    handle.write_all(bytes)?;
    handle.sync_all()?;
    fs::rename(&new, path)?;
    path.parent().map_or(Ok(()), |folder| fs::File::open(folder)?.sync_all())
}
