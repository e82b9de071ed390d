//! Sources that are not still, disks that are full, mounts where none belong.

use std::{
    fs::{self, File},
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
    process::Command,
};

use super::{
    super::{Chunk, Error, Expect, Frame, Limits, clear, measure, scan, send, write_tar},
    frames_of, open, receive_into,
};

/// A small file system in memory, gone when the test ends.
struct Disk {
    path: PathBuf,
    _directory: tempfile::TempDir,
}

impl Disk {
    fn mount(options: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("disk");
        fs::create_dir(&path).unwrap();
        let disk = Self { path, _directory: directory };
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", options, "tmpfs"]).arg(&disk.path).status();
        assert!(mounted.unwrap().success());
        disk
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let unmounted = Command::new("umount").arg("--lazy").arg(&self.path).status();
        assert!(unmounted.is_ok_and(|status| status.success()));
    }
}

/// Sends a volume, and does something to it when the first content passes by.
fn disturbed(source: &Path, disturb: impl Fn()) -> Error {
    let mut done = false;
    let sent = send(open(source), &mut |frame| {
        if matches!(frame, Frame::Chunk(Chunk { end: None, .. })) && !done {
            done = true;
            disturb();
        }
        Ok(())
    });
    assert!(done);
    sent.unwrap_err()
}

fn large_and_small() -> tempfile::TempDir {
    let source = tempfile::tempdir().unwrap();
    fs::write(source.path().join("large"), vec![7; 5 << 20]).unwrap();
    fs::create_dir(source.path().join("later")).unwrap();
    fs::write(source.path().join("later/small"), b"x").unwrap();
    source
}

fn changed(error: Error) -> (String, &'static str) {
    match error {
        Error::Changed { path, what } => (path, what),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_file_written_to_while_it_is_read_is_an_error() {
    let source = large_and_small();
    let file = File::options().write(true).open(source.path().join("large")).unwrap();
    let error = disturbed(source.path(), || file.write_all_at(b"x", 0).unwrap());
    assert_eq!(changed(error), ("large".to_owned(), "changed"));
}

#[test]
fn a_file_that_shrinks_while_it_is_read_is_an_error() {
    let source = large_and_small();
    let file = File::options().write(true).open(source.path().join("large")).unwrap();
    let error = disturbed(source.path(), || file.set_len(100).unwrap());
    assert_eq!(changed(error), ("large".to_owned(), "became shorter"));
}

#[test]
fn a_file_that_grows_while_it_is_read_is_an_error() {
    let source = large_and_small();
    let file = File::options().write(true).open(source.path().join("large")).unwrap();
    let error = disturbed(source.path(), || file.set_len(6 << 20).unwrap());
    assert_eq!(changed(error), ("large".to_owned(), "changed"));
}

#[test]
fn a_name_that_vanishes_is_an_error() {
    let source = large_and_small();
    let error = disturbed(source.path(), || fs::remove_dir_all(source.path().join("later")).unwrap());
    assert_eq!(changed(error), ("later".to_owned(), "vanished"));
}

#[test]
fn a_name_that_appears_is_an_error() {
    let source = large_and_small();
    let error = disturbed(source.path(), || fs::write(source.path().join("new"), b"x").unwrap());
    assert_eq!(changed(error), (".".to_owned(), "changed"));
}

#[test]
fn a_live_volume_is_archived_as_it_was_seen() {
    struct Disturbing<'a>(Vec<u8>, &'a Path);
    impl std::io::Write for Disturbing<'_> {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.extend_from_slice(bytes);
            if self.0.len() > 1 << 20 && self.1.join("later").exists() {
                File::options().write(true).open(self.1.join("large"))?.set_len(1 << 20)?;
                fs::remove_dir_all(self.1.join("later"))?;
            }
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let (source, target) = (large_and_small(), tempfile::tempdir().unwrap());
    let mut archive = Disturbing(Vec::new(), source.path());
    let exported = write_tar(open(source.path()), Expect::Live, &mut archive).unwrap();
    assert_eq!((exported.entries, exported.changed, exported.bytes), (2, 1, 5 << 20));
    super::super::read_tar(open(target.path()), &mut &archive.0[..], &Limits::default(), &mut |_| {}).unwrap();
    let content = fs::read(target.path().join("large")).unwrap();
    assert_eq!(content.len(), 5 << 20);
    assert!(content[..1 << 20].iter().all(|byte| *byte == 7));
    assert!(content[4 << 20..].iter().all(|byte| *byte == 0));
    let still = write_tar(open(source.path()), Expect::Still, &mut Vec::new()).unwrap();
    assert_eq!(still.changed, 0);
}

#[test]
fn a_full_disk_is_told_with_what_is_missing() {
    let source = tempfile::tempdir().unwrap();
    fs::write(source.path().join("large"), vec![7; 4 << 20]).unwrap();
    let disk = Disk::mount("size=1m");
    let mut frames = frames_of(source.path());
    let Frame::Header(header) = &mut frames[0] else { panic!() };
    header.total_bytes = 4 << 20;
    match receive_into(&disk.path, Limits::default(), frames).unwrap_err() {
        Error::NoSpace { path, free_bytes, needed_bytes } => {
            assert_eq!((path.as_str(), needed_bytes), ("large", 4 << 20));
            assert!(free_bytes < 1 << 20);
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_disk_without_inodes_is_full() {
    let source = tempfile::tempdir().unwrap();
    for index in 0..50 {
        fs::create_dir(source.path().join(format!("{index}"))).unwrap();
    }
    let disk = Disk::mount("nr_inodes=20");
    let error = receive_into(&disk.path, Limits::default(), frames_of(source.path())).unwrap_err();
    assert!(matches!(error, Error::NoSpace { .. }), "{error:?}");
}

#[test]
fn a_full_disk_ends_an_import() {
    let source = tempfile::tempdir().unwrap();
    fs::write(source.path().join("large"), vec![7; 4 << 20]).unwrap();
    let mut archive = Vec::new();
    write_tar(open(source.path()), Expect::Still, &mut archive).unwrap();
    let disk = Disk::mount("size=1m");
    let result = super::super::read_tar(open(&disk.path), &mut &archive[..], &Limits::default(), &mut |_| {});
    assert!(matches!(result, Err(Error::NoSpace { .. })), "{result:?}");
}

#[test]
fn a_mount_inside_the_volume_is_refused_and_left_alone() {
    let disk = Disk::mount("size=1m");
    fs::write(disk.path.join("precious"), b"x").unwrap();
    let volume = disk.path.parent().unwrap();
    fs::write(volume.join("zz"), b"x").unwrap();
    let mounted = |error| matches!(error, Error::MountInside { path } if path == "disk");
    assert!(mounted(scan(open(volume)).unwrap_err()));
    assert!(mounted(measure(open(volume)).unwrap_err()));
    assert!(mounted(write_tar(open(volume), Expect::Live, &mut Vec::new()).unwrap_err()));
    assert!(mounted(clear(open(volume)).unwrap_err()));
    assert!(disk.path.join("precious").exists());
}

#[test]
fn clearing_does_not_follow_links() {
    let parent = tempfile::tempdir().unwrap();
    fs::create_dir_all(parent.path().join("volume/a")).unwrap();
    fs::write(parent.path().join("precious"), b"x").unwrap();
    std::os::unix::fs::symlink(parent.path(), parent.path().join("volume/a/link")).unwrap();
    std::os::unix::fs::symlink("..", parent.path().join("volume/b")).unwrap();
    clear(open(&parent.path().join("volume"))).unwrap();
    assert!(parent.path().join("precious").exists());
    assert_eq!(fs::read_dir(parent.path().join("volume")).unwrap().count(), 0);
}

#[test]
fn a_root_that_is_a_link_is_not_opened() {
    let parent = tempfile::tempdir().unwrap();
    std::os::unix::fs::symlink("/", parent.path().join("volume")).unwrap();
    assert!(super::super::open_root(&parent.path().join("volume")).is_err());
}

#[test]
fn a_time_that_the_disk_does_not_keep_is_an_error() {
    // No file system reaches that far; what they do instead is to keep the last time they can.
    let source = tempfile::tempdir().unwrap();
    fs::write(source.path().join("a"), b"x").unwrap();
    let mut frames = frames_of(source.path());
    let Frame::Batch(batch) = &mut frames[1] else { panic!() };
    let super::super::Step::Entry(entry) = &mut batch.steps[1] else { panic!() };
    let super::super::Node::Inode(inode) = &mut entry.node else { panic!() };
    inode.metadata.mtime.seconds = i64::MAX / 4;
    let target = tempfile::tempdir().unwrap();
    let error = receive_into(target.path(), Limits::default(), frames).unwrap_err();
    assert!(matches!(error, Error::NotKept { what: "modification time", .. }), "{error:?}");
}
