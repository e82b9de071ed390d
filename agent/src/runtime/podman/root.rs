//! The root directory of a volume: who owns it, with which mode and times.
//!
//! Podman gives the root of a volume the owner, mode and time of the image's directory when it mounts it for the first time.
//! That is right for a fresh volume and wrong for one that came from another server.

use std::{fs, io, os::unix::fs::MetadataExt, path::Path};

use rustix::fs::{AtFlags, CWD, Gid, Mode, Timespec, Timestamps, Uid};

/// What Podman makes a new volume with.
const FRESH_MODE: u32 = 0o755;

/// Was nothing ever put into the volume, not even its root's own owner or mode?
pub(super) fn is_fresh(directory: &Path) -> bool {
    let untouched = fs::symlink_metadata(directory)
        .is_ok_and(|root| root.uid() == 0 && root.gid() == 0 && root.mode() & 0o7777 == FRESH_MODE);
    untouched && fs::read_dir(directory).is_ok_and(|mut entries| entries.next().is_none())
}

pub(super) struct RootMetadata(fs::Metadata);

impl RootMetadata {
    pub(super) fn read(directory: &Path) -> io::Result<Self> {
        fs::symlink_metadata(directory).map(Self)
    }

    /// Does nothing when nothing changed. Nothing runs on the volume meanwhile.
    pub(super) fn restore(&self, directory: &Path) -> io::Result<()> {
        let (before, now) = (&self.0, fs::symlink_metadata(directory)?);
        let seen = |root: &fs::Metadata| (root.uid(), root.gid(), root.mode(), root.mtime(), root.mtime_nsec());
        if seen(before) == seen(&now) {
            return Ok(());
        }
        let (owner, group) = (Uid::from_raw(before.uid()), Gid::from_raw(before.gid()));
        rustix::fs::chownat(CWD, directory, Some(owner), Some(group), AtFlags::SYMLINK_NOFOLLOW)?;
        // After the owner, whose change takes setuid bits away.
        rustix::fs::chmod(directory, Mode::from_raw_mode(before.mode() & 0o7777))?;
        let time = |seconds, nanoseconds| Timespec { tv_sec: seconds, tv_nsec: nanoseconds };
        let times = Timestamps {
            last_access: time(before.atime(), before.atime_nsec()),
            last_modification: time(before.mtime(), before.mtime_nsec()),
        };
        rustix::fs::utimensat(CWD, directory, &times, AtFlags::SYMLINK_NOFOLLOW)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::{
        fs::{self, Permissions},
        os::unix::fs::{MetadataExt, PermissionsExt},
    };

    use super::{RootMetadata, is_fresh};

    #[test]
    fn a_root_is_put_back_as_it_was() {
        let directory = tempfile::tempdir().unwrap();
        fs::set_permissions(directory.path(), Permissions::from_mode(0o2750)).unwrap();
        let before = fs::metadata(directory.path()).unwrap();
        let kept = RootMetadata::read(directory.path()).unwrap();
        fs::write(directory.path().join("file"), "").unwrap();
        fs::set_permissions(directory.path(), Permissions::from_mode(0o755)).unwrap();
        kept.restore(directory.path()).unwrap();
        let after = fs::metadata(directory.path()).unwrap();
        assert_eq!(after.mode(), before.mode());
        assert_eq!((after.mtime(), after.mtime_nsec()), (before.mtime(), before.mtime_nsec()));
    }

    #[test]
    fn a_volume_with_content_or_a_mode_of_its_own_is_not_fresh() {
        let directory = tempfile::tempdir().unwrap();
        fs::set_permissions(directory.path(), Permissions::from_mode(0o700)).unwrap();
        assert!(!is_fresh(directory.path()));
        fs::set_permissions(directory.path(), Permissions::from_mode(0o755)).unwrap();
        fs::write(directory.path().join("file"), "").unwrap();
        assert!(!is_fresh(directory.path()));
        assert!(!is_fresh(&directory.path().join("absent")));
    }
}
