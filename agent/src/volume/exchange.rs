//! Two volumes that change places, in one step.

use std::path::Path;

use rustix::{
    fs::{self, CWD, RenameFlags},
    io::Errno,
};

use super::{Error, inode::open_root};

/// Each directory is where the other was; after a crash both or none has moved. On return it survives a power cut.
///
/// # Errors
/// [`Error::Io`]: both are where they were, or (when it is the last sync that failed) both have moved.
pub fn exchange(one: &Path, other: &Path) -> Result<(), Error> {
    let failed = |errno: Errno| Error::io("exchange the directory of", b"", errno);
    fs::renameat_with(CWD, one, CWD, other, RenameFlags::EXCHANGE).map_err(failed)?;
    for directory in [one, other] {
        let parent = directory.parent().ok_or_else(|| failed(Errno::INVAL))?;
        fs::fsync(open_root(parent)?).map_err(failed)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::exchange;

    #[test]
    fn two_directories_change_places_or_stay() {
        let place = tempfile::tempdir().unwrap();
        let (one, other) = (place.path().join("one/_data"), place.path().join("other/_data"));
        for directory in [&one, &other] {
            std::fs::create_dir_all(directory).unwrap();
        }
        std::fs::write(one.join("note"), "from one").unwrap();
        exchange(&one, &other).unwrap();
        assert!(!one.join("note").exists());
        assert_eq!(std::fs::read_to_string(other.join("note")).unwrap(), "from one");
        assert!(exchange(&other, &place.path().join("absent/_data")).is_err());
        assert_eq!(std::fs::read_to_string(other.join("note")).unwrap(), "from one");
    }
}
