//! A directory tree as plain facts, read with nothing of our own transfer engine: an independent witness.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::{
        ffi::OsStrExt as _,
        fs::{FileTypeExt as _, MetadataExt as _},
    },
    path::Path,
};

/// What is said of each path that is not in `without`: everything that must survive a move.
pub fn observe(root: &Path, without: &[&str]) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    let mut links = BTreeMap::new();
    walk(root, root, without, &mut links, &mut found);
    found
}

fn walk(
    root: &Path,
    path: &Path,
    without: &[&str],
    links: &mut BTreeMap<u64, String>,
    found: &mut BTreeMap<String, String>,
) {
    let relative = path.strip_prefix(root).expect("below the root").as_os_str().as_bytes().escape_ascii().to_string();
    if without.contains(&relative.as_str()) {
        return;
    }
    let metadata = fs::symlink_metadata(path).expect("it was listed");
    let first = links.entry(metadata.ino()).or_insert_with(|| relative.clone()).clone();
    let kind = metadata.file_type();
    let content = if kind.is_symlink() {
        format!("-> {}", fs::read_link(path).expect("a link").as_os_str().as_bytes().escape_ascii())
    } else if kind.is_file() {
        let bytes = fs::read(path).expect("a file");
        let digest = bytes
            .iter()
            .fold(0xcbf2_9ce4_8422_2325_u64, |state, byte| (state ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3));
        // Blocks of a dense file differ between file systems; whether there is a hole does not.
        format!("{} bytes {digest:x} holes={}", bytes.len(), metadata.blocks() * 512 < metadata.size() / 2)
    } else if kind.is_dir() {
        "directory".to_owned()
    } else if kind.is_fifo() {
        "fifo".to_owned()
    } else {
        format!("device {}", metadata.rdev())
    };
    let said = format!(
        "{content} mode={:o} owner={}:{} mtime={}.{:09} same-as={first} {}",
        metadata.mode(),
        metadata.uid(),
        metadata.gid(),
        metadata.mtime(),
        metadata.mtime_nsec(),
        attributes(path),
    );
    found.insert(relative, said);
    if kind.is_dir() {
        let mut entries: Vec<_> =
            fs::read_dir(path).expect("a directory").map(|entry| entry.expect("an entry").path()).collect();
        entries.sort();
        entries.iter().for_each(|entry| walk(root, entry, without, links, found));
    }
}

fn attributes(path: &Path) -> String {
    let mut names = vec![0; 4096];
    let Ok(length) = rustix::fs::llistxattr(path, &mut names) else { return String::new() };
    let mut said: Vec<_> = names[..length]
        .split(|byte| *byte == 0)
        .filter(|name| !name.is_empty())
        .map(|name| {
            let mut value = vec![0; 4096];
            let length = rustix::fs::lgetxattr(path, name, &mut value).expect("it was listed");
            format!("{}={}", name.escape_ascii(), value[..length].escape_ascii())
        })
        .collect();
    said.sort();
    said.join(" ")
}
