//! The tenant's home directory: which paths are inside it, and how a file in it becomes durable. It knows nothing of
//! what the files mean.

use std::{
    fs::{self, File},
    io::{self, Error, ErrorKind},
    path::{Component, Path, PathBuf},
};

/// The directory that Feather mounts the tenant's volume on.
#[derive(Clone)]
pub(crate) struct Home {
    root: PathBuf,
}

impl Home {
    pub(crate) fn open(root: &Path) -> io::Result<Self> {
        fs::create_dir_all(root)?;
        Ok(Self { root: fs::canonicalize(root)? })
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    /// The place of a file that someone asked for by name. Refuses every name that would lead out of the home, also by
    /// way of a symbolic link.
    pub(crate) fn resolve(&self, requested: &str) -> io::Result<PathBuf> {
        let requested = Path::new(requested);
        let outside = || Error::new(ErrorKind::InvalidInput, "the path must stay inside the home directory");
        if requested.file_name().is_none() || !requested.components().all(|part| matches!(part, Component::Normal(_))) {
            return Err(outside());
        }
        // Walk down by hand: each part that exists must be a plain directory, or the file itself.
        let mut path = self.root.clone();
        for part in requested.components() {
            path.push(part);
            match fs::symlink_metadata(&path) {
                Ok(metadata) if metadata.file_type().is_symlink() => return Err(outside()),
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        Ok(path)
    }

    /// Makes a new name in the home survive a crash; the file itself must be synced by its writer.
    pub(crate) fn sync(&self) -> io::Result<()> {
        File::open(&self.root)?.sync_all()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_inside_are_found_and_paths_outside_refused() {
        let directory = tempfile::tempdir().unwrap();
        let home = Home::open(directory.path()).unwrap();
        std::os::unix::fs::symlink("/", directory.path().join("out")).unwrap();
        let root = fs::canonicalize(directory.path()).unwrap();

        assert_eq!(home.resolve("a/b.txt").unwrap(), root.join("a/b.txt"));
        for escape in ["", "/etc/passwd", "../x", "a/../../x", "out", "out/etc/passwd", ".."] {
            assert_eq!(home.resolve(escape).unwrap_err().kind(), ErrorKind::InvalidInput, "{escape:?}");
        }
    }
}
