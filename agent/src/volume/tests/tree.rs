//! Trees for tests: a generator, a builder on real disk, and a checker that shares no code with the engine.

use std::{
    collections::BTreeMap,
    ffi::OsStr,
    fs::{self, File},
    os::unix::{
        ffi::OsStrExt as _,
        fs::{FileExt as _, FileTypeExt as _, MetadataExt as _, PermissionsExt as _},
        net::UnixListener,
    },
    path::{Path, PathBuf},
};

use proptest::{collection::btree_map, prelude::*};
use rustix::fs::{
    AtFlags, CWD, FileType, Gid, Mode, Timespec, Timestamps, Uid, XattrFlags, chownat, lgetxattr, llistxattr,
    lsetxattr, makedev, mknodat, utimensat,
};

#[derive(Debug, Clone)]
pub(super) struct Looks {
    pub(super) mode: u32,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) mtime: (i64, u32),
    pub(super) user_xattrs: BTreeMap<String, Vec<u8>>,
    pub(super) trusted_xattr: Option<Vec<u8>>,
    pub(super) acl: Option<u32>,
    pub(super) capability: bool,
}

impl Default for Looks {
    fn default() -> Self {
        Self {
            mode: 0o644,
            uid: 0,
            gid: 0,
            mtime: (1_700_000_000, 123_456_789),
            user_xattrs: BTreeMap::new(),
            trusted_xattr: None,
            acl: None,
            capability: false,
        }
    }
}

#[derive(Debug, Clone)]
pub(super) enum Plant {
    Directory(Looks, BTreeMap<Vec<u8>, Plant>),
    /// Runs of (hole, data) with a seed for the data, and a hole at the end.
    File(Looks, Vec<(u32, u32, u8)>, u32),
    Symlink(Looks, Vec<u8>),
    /// One more name of the nth linkable thing planted before, if there is one.
    HardLink(usize),
    Fifo(Looks),
    Character(Looks),
    Block(Looks),
    Socket,
}

fn name() -> impl Strategy<Value = Vec<u8>> {
    let any = prop::collection::vec(any::<u8>().prop_filter("no separator", |byte| !matches!(byte, 0 | b'/')), 1..=12);
    let long = prop::collection::vec(b'a'..=b'z', 200..=255);
    prop_oneof![3 => "[a-zA-Z. =%\n-]{1,8}".prop_map(String::into_bytes), 3 => any, 1 => long]
        .prop_filter("no dots", |name| name != b"." && name != b"..")
}

fn looks() -> impl Strategy<Value = Looks> {
    let owner = || prop_oneof![Just(0), Just(1000), 0..u32::MAX];
    let seconds = prop_oneof![Just(-1_i64), -2_000_000_000_i64..0, 0_i64..15_000_000_000];
    let nanos = prop_oneof![Just(0), 0..1_000_000_000_u32];
    let value = || prop::collection::vec(any::<u8>(), 0..40);
    let xattrs = prop_oneof![2 => Just(BTreeMap::new()), 1 => btree_map("[a-z=%\u{e9}]{1,6}", value(), 0..3)];
    (0_u32..=0o7777, owner(), owner(), (seconds, nanos), xattrs, prop::option::weighted(0.2, value())).prop_flat_map(
        |(mode, uid, gid, mtime, user_xattrs, trusted_xattr)| {
            (prop::option::weighted(0.2, 0_u32..100_000), prop::bool::weighted(0.1)).prop_map(
                move |(acl, capability)| Looks {
                    mode,
                    uid,
                    gid,
                    mtime,
                    user_xattrs: user_xattrs.clone(),
                    trusted_xattr: trusted_xattr.clone(),
                    acl,
                    capability,
                },
            )
        },
    )
}

/// Small files mostly; some beyond a batch's limit, some with holes.
fn content() -> impl Strategy<Value = (Vec<(u32, u32, u8)>, u32)> {
    let dense = (0_u32..5000, any::<u8>()).prop_map(|(data, seed)| (vec![(0, data, seed)], 0));
    let large = (250_000_u32..2_500_000, any::<u8>()).prop_map(|(data, seed)| (vec![(0, data, seed)], 0));
    let run = (0_u32..300_000, 1_u32..9000, any::<u8>());
    let sparse = (prop::collection::vec(run, 0..4), 0_u32..3_000_000);
    prop_oneof![8 => dense, 1 => large, 2 => sparse]
}

fn plant() -> impl Strategy<Value = Plant> {
    let file = (looks(), content()).prop_map(|(looks, (runs, tail))| Plant::File(looks, runs, tail));
    let target = prop::collection::vec(1_u8..=255, 1..150);
    let leaf = prop_oneof![
        6 => file,
        2 => (looks(), target).prop_map(|(looks, target)| Plant::Symlink(looks, target)),
        2 => (0_usize..8).prop_map(Plant::HardLink),
        1 => looks().prop_map(Plant::Fifo),
        1 => looks().prop_map(Plant::Character),
        1 => looks().prop_map(Plant::Block),
        1 => Just(Plant::Socket),
    ];
    leaf.prop_recursive(5, 24, 6, |inner| {
        (looks(), btree_map(name(), inner, 0..6)).prop_map(|(looks, names)| Plant::Directory(looks, names))
    })
}

/// A whole volume.
pub(super) fn volume() -> impl Strategy<Value = Plant> {
    (looks(), btree_map(name(), plant(), 0..7)).prop_map(|(looks, names)| Plant::Directory(looks, names))
}

/// Makes the volume at an existing empty directory.
pub(super) fn build(plant: &Plant, at: &Path) {
    let Plant::Directory(looks, names) = plant else { panic!("a volume is a directory") };
    let mut linkable = Vec::new();
    build_names(names, at, &mut linkable);
    dress(at, looks, Dressing::Directory);
}

fn build_names(names: &BTreeMap<Vec<u8>, Plant>, at: &Path, linkable: &mut Vec<PathBuf>) {
    for (name, plant) in names {
        let path = at.join(OsStr::from_bytes(name));
        build_one(plant, &path, linkable);
    }
}

fn build_one(plant: &Plant, path: &Path, linkable: &mut Vec<PathBuf>) {
    let node = |file_type| {
        mknodat(CWD, path, file_type, Mode::RUSR, makedev(259, 70_000)).unwrap();
    };
    match plant {
        Plant::Directory(looks, names) => {
            fs::create_dir(path).unwrap();
            build_names(names, path, linkable);
            dress(path, looks, Dressing::Directory);
            return;
        }
        Plant::File(looks, runs, tail) => {
            build_file(path, runs, *tail);
            dress(path, looks, Dressing::File);
        }
        Plant::Symlink(looks, target) => {
            std::os::unix::fs::symlink(OsStr::from_bytes(target), path).unwrap();
            dress(path, looks, Dressing::Link);
        }
        Plant::HardLink(index) => {
            if let Some(first) = linkable.get(*index) {
                fs::hard_link(first, path).unwrap();
            }
            return;
        }
        Plant::Fifo(looks) => {
            node(FileType::Fifo);
            dress(path, looks, Dressing::Node);
        }
        Plant::Character(looks) => {
            node(FileType::CharacterDevice);
            dress(path, looks, Dressing::Node);
        }
        Plant::Block(looks) => {
            node(FileType::BlockDevice);
            dress(path, looks, Dressing::Node);
        }
        Plant::Socket => {
            // Socket paths are short: bind through the directory's descriptor.
            let directory = File::open(path.parent().unwrap()).unwrap();
            let short = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&directory));
            let _ = UnixListener::bind(Path::new(&short).join(path.file_name().unwrap()));
            return;
        }
    }
    linkable.push(path.to_owned());
}

fn build_file(path: &Path, runs: &[(u32, u32, u8)], tail: u32) {
    let file = File::create_new(path).unwrap();
    let mut position = 0;
    for (hole, length, seed) in runs {
        position += u64::from(*hole);
        let data: Vec<u8> = (0..*length).map(|index| (index / 7) as u8 ^ seed.wrapping_add(index as u8)).collect();
        file.write_all_at(&data, position).unwrap();
        position += u64::from(*length);
    }
    file.set_len(position + u64::from(tail)).unwrap();
}

#[derive(Clone, Copy, PartialEq)]
enum Dressing {
    Directory,
    File,
    Link,
    Node,
}

fn dress(path: &Path, looks: &Looks, dressing: Dressing) {
    let owner = (Some(Uid::from_raw(looks.uid)), Some(Gid::from_raw(looks.gid)));
    chownat(CWD, path, owner.0, owner.1, AtFlags::SYMLINK_NOFOLLOW).unwrap();
    if dressing != Dressing::Link {
        fs::set_permissions(path, fs::Permissions::from_mode(looks.mode)).unwrap();
    }
    let set = |name: &str, value: &[u8]| lsetxattr(path, name, value, XattrFlags::empty()).unwrap();
    if let Some(value) = &looks.trusted_xattr {
        set("trusted.feather", value);
    }
    if matches!(dressing, Dressing::Directory | Dressing::File) {
        for (name, value) in &looks.user_xattrs {
            set(&format!("user.{name}"), value);
        }
        if let Some(uid) = looks.acl {
            set("system.posix_acl_access", &acl(uid));
        }
    }
    if let (Dressing::Directory, Some(uid)) = (dressing, looks.acl) {
        set("system.posix_acl_default", &acl(uid + 1));
    }
    if dressing == Dressing::File && looks.capability {
        // Version 2, effective, CAP_NET_BIND_SERVICE.
        let words = [0x0200_0001_u32, 1 << 10, 0, 0, 0];
        set("security.capability", &words.map(u32::to_le_bytes).concat());
    }
    let (tv_sec, nanos) = looks.mtime;
    let times = Timestamps {
        last_access: Timespec { tv_sec: 1_600_000_000, tv_nsec: 0 },
        last_modification: Timespec { tv_sec, tv_nsec: i64::from(nanos) },
    };
    utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW).unwrap();
}

/// An ACL in the kernel's form: owner, one named user, group, mask, others.
fn acl(uid: u32) -> Vec<u8> {
    let entry = |tag: u16, permissions: u16, id: u32| {
        [&tag.to_le_bytes()[..], &permissions.to_le_bytes()[..], &id.to_le_bytes()[..]].concat()
    };
    let none = u32::MAX;
    [
        2_u32.to_le_bytes().to_vec(),
        entry(1, 7, none),
        entry(2, 5, uid),
        entry(4, 4, none),
        entry(16, 5, none),
        entry(32, 0, none),
    ]
    .concat()
}

/// Everything about one name that must survive.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Facts {
    pub(super) kind: char,
    pub(super) mode: u32,
    pub(super) owner: (u32, u32),
    pub(super) mtime: (i64, i64),
    pub(super) device: u64,
    pub(super) content: Vec<u8>,
    pub(super) xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    /// The first name, in path order, of the same inode.
    pub(super) same_as: PathBuf,
}

/// Facts of every name below `root` but sockets.
pub(super) fn facts(root: &Path) -> BTreeMap<PathBuf, Facts> {
    let mut found = BTreeMap::new();
    let mut inodes = BTreeMap::new();
    let mut waiting = vec![PathBuf::new()];
    while let Some(relative) = waiting.pop() {
        let path = if relative.as_os_str().is_empty() { root.to_owned() } else { root.join(&relative) };
        let status = fs::symlink_metadata(&path).unwrap();
        let file_type = status.file_type();
        if file_type.is_socket() {
            continue;
        }
        if file_type.is_dir() {
            let names = fs::read_dir(&path).unwrap();
            waiting.extend(names.map(|entry| relative.join(entry.unwrap().file_name())));
        }
        inodes.entry(status.ino()).or_insert_with(Vec::new).push(relative.clone());
        found.insert(relative, facts_of(&path, &status));
    }
    for names in inodes.values_mut() {
        names.sort();
        for name in &*names {
            found.get_mut(name).unwrap().same_as = names[0].clone();
        }
    }
    found
}

fn facts_of(path: &Path, status: &fs::Metadata) -> Facts {
    let file_type = status.file_type();
    let (kind, content) = match () {
        () if file_type.is_dir() => ('d', Vec::new()),
        () if file_type.is_file() => ('f', fs::read(path).unwrap()),
        () if file_type.is_symlink() => ('l', fs::read_link(path).unwrap().as_os_str().as_bytes().to_vec()),
        () if file_type.is_fifo() => ('p', Vec::new()),
        () if file_type.is_char_device() => ('c', Vec::new()),
        () => ('b', Vec::new()),
    };
    let device = if matches!(kind, 'c' | 'b') { status.rdev() } else { 0 };
    let mut names = vec![0; 65_536];
    let length = llistxattr(path, &mut names[..]).unwrap();
    let xattrs = names[..length].split(|byte| *byte == 0).filter(|name| !name.is_empty()).map(|name| {
        let mut value = vec![0; 65_536];
        let length = lgetxattr(path, name, &mut value[..]).unwrap();
        (name.to_vec(), value[..length].to_vec())
    });
    Facts {
        kind,
        mode: status.mode() & 0o7777,
        owner: (status.uid(), status.gid()),
        mtime: (status.mtime(), status.mtime_nsec()),
        device,
        content,
        xattrs: xattrs.collect(),
        same_as: PathBuf::new(),
    }
}

/// Fails with the first difference only: whole trees are unreadable.
pub(super) fn assert_same(one: &BTreeMap<PathBuf, Facts>, other: &BTreeMap<PathBuf, Facts>) {
    let names = |facts: &BTreeMap<PathBuf, Facts>| facts.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(one), names(other));
    for (path, facts) in one {
        let got = &other[path];
        assert!(facts.content == got.content, "content of {path:?} differs");
        let without_content = |facts: &Facts| Facts { content: Vec::new(), ..facts.clone() };
        assert_eq!(without_content(facts), without_content(got), "at {path:?}");
    }
}

/// Bytes on disk of one file.
pub(super) fn allocated(path: &Path) -> u64 {
    fs::symlink_metadata(path).unwrap().blocks() * 512
}
