//! What goes in comes out.

use std::{
    fs::{self, File},
    os::unix::fs::FileExt as _,
};

use proptest::prelude::*;

use super::{
    super::{
        Batch, Body, Chunk, Digest, Entry, Extent, Frame, Header, Inode, Kind, Limits, Metadata, Node, Receiver, Step,
        Timestamp, clear,
        digest::{Content, ContentHasher},
        inode, measure, scan, send,
    },
    frames_of, open, receive_into,
    tree::{Looks, Plant, allocated, assert_same, build, facts, volume},
};

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn any_volume_arrives_the_same(plant in volume()) {
        let (source, target) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        build(&plant, source.path());
        let before = facts(source.path());
        let frames = frames_of(source.path());
        let received = receive_into(target.path(), Limits::default(), frames.clone()).unwrap();
        assert_same(&before, &facts(target.path()));
        let Some(Frame::Trailer(sent)) = frames.last() else { panic!() };
        prop_assert_eq!(&sent.summary, &received);
        let again = scan(open(target.path())).unwrap();
        prop_assert!(received.same_content(&again));
        prop_assert_eq!(again.skipped_sockets, 0);
        assert_same(&before, &facts(source.path()));
    }

    #[test]
    fn clearing_leaves_an_empty_directory(plant in volume()) {
        let source = tempfile::tempdir().unwrap();
        build(&plant, source.path());
        clear(open(source.path())).unwrap();
        prop_assert_eq!(fs::read_dir(source.path()).unwrap().count(), 0);
    }

    #[test]
    fn any_damage_to_any_frame_is_refused(plant in volume(), place in any::<prop::sample::Index>(), damage in 0_u8..8, bit in any::<prop::sample::Index>()) {
        let (source, target) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        build(&plant, source.path());
        let frames = frames_of(source.path());
        let damaged = damage_frames(&frames, place.index(frames.len()), damage, bit);
        prop_assume!(damaged != frames);
        prop_assert!(receive_into(target.path(), Limits::default(), damaged).is_err());
    }
}

/// Changes one thing that a receiver must notice.
fn damage_frames(frames: &[Frame], at: usize, damage: u8, bit: prop::sample::Index) -> Vec<Frame> {
    let mut frames = frames.to_vec();
    match damage {
        0 => drop(frames.remove(at)),
        1 => frames.insert(at, frames[at].clone()),
        2 => {
            let other = bit.index(frames.len());
            frames.swap(at, other);
        }
        3 => frames.truncate(at),
        _ => match &mut frames[at] {
            Frame::Header(header) => header.version += 1,
            Frame::Trailer(trailer) => trailer.summary.root_digest.0[bit.index(32)] ^= 1,
            Frame::Chunk(Chunk { extents, end, .. }) => match (extents.first_mut(), end) {
                (Some(extent), _) => damage_extent(extent, bit),
                (None, Some(digest)) => digest.0[0] ^= 1,
                (None, None) => {}
            },
            Frame::Batch(Batch { steps }) => {
                let index = bit.index(steps.len());
                damage_step(steps, index, damage, bit);
            }
        },
    }
    frames
}

fn damage_extent(extent: &mut Extent, bit: prop::sample::Index) {
    let mut data = extent.data.to_vec();
    let index = bit.index(data.len());
    data[index] ^= 1 << (index % 8);
    extent.data = data.into();
}

fn damage_step(steps: &mut Vec<Step>, index: usize, damage: u8, bit: prop::sample::Index) {
    if damage == 4 {
        steps.remove(index);
        return;
    }
    let Step::Entry(Entry { depth, node, .. }) = &mut steps[index] else { panic!("there is no base") };
    match node {
        _ if damage == 5 => *depth += 1,
        Node::HardLink { first } => *first += 1,
        Node::Inode(Inode { metadata, kind, .. }) => match kind {
            Kind::Regular { body: Body::Inline { extents, .. }, .. } if !extents.is_empty() && damage == 6 => {
                damage_extent(&mut extents[0], bit);
            }
            Kind::Symlink { target } if damage == 6 => *target = [&target[..], b"x"].concat().into(),
            Kind::Symlink { .. } => metadata.uid ^= 1,
            _ => metadata.mode ^= 0o1,
        },
    }
}

#[test]
fn a_tree_deeper_than_any_path_arrives_and_is_cleared() {
    const DEPTH: usize = 600;
    let (source, target) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let name = [b'd'; 200];
    let mut directory = open(source.path());
    for _ in 0..DEPTH {
        rustix::fs::mkdirat(&directory, &name[..], rustix::fs::Mode::RWXU).unwrap();
        directory = inode::open_directory(std::os::fd::AsFd::as_fd(&directory), &name).unwrap();
    }
    File::from(inode::create_file(std::os::fd::AsFd::as_fd(&directory), b"bottom").unwrap())
        .write_all_at(b"here", 0)
        .unwrap();
    let frames = frames_of(source.path());
    let received = receive_into(target.path(), Limits::default(), frames).unwrap();
    assert_eq!((received.directories, received.files), (DEPTH as u64 + 1, 1));
    assert!(received.same_content(&scan(open(target.path())).unwrap()));
    for path in [source.path(), target.path()] {
        clear(open(path)).unwrap();
        assert_eq!(fs::read_dir(path).unwrap().count(), 0);
    }
}

#[test]
fn holes_stay_holes_and_do_not_count_for_the_digest() {
    let (sparse, dense, target) =
        (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let looks = Looks::default();
    let runs = vec![(64 << 20, 4096, 7), (1 << 20, 10, 9)];
    let plant = |runs, tail| {
        let file = Plant::File(looks.clone(), runs, tail);
        Plant::Directory(looks.clone(), [(b"data".to_vec(), file)].into())
    };
    build(&plant(runs, 3 << 20), sparse.path());
    build(&plant(vec![], 0), dense.path());
    // The same bytes, every one of them written.
    let content = fs::read(sparse.path().join("data")).unwrap();
    fs::write(dense.path().join("data"), &content).unwrap();
    let copied = fs::metadata(sparse.path().join("data")).unwrap().modified().unwrap();
    File::options().write(true).open(dense.path().join("data")).unwrap().set_modified(copied).unwrap();

    let received = receive_into(target.path(), Limits::default(), frames_of(sparse.path())).unwrap();
    assert!(allocated(&target.path().join("data")) < 1 << 20);
    assert_eq!(received.bytes, content.len() as u64);
    assert!(received.data_bytes < 64 * 1024);
    let whole = scan(open(dense.path())).unwrap();
    assert_eq!(whole.data_bytes, content.len() as u64);
    assert!(received.same_content(&whole));
}

#[test]
fn a_file_of_one_huge_hole_is_quick() {
    let (source, target) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    File::create(source.path().join("disk.img")).unwrap().set_len(1 << 40).unwrap();
    let received = receive_into(target.path(), Limits::default(), frames_of(source.path())).unwrap();
    assert_eq!((received.bytes, received.data_bytes), (1 << 40, 0));
    assert_eq!(fs::metadata(target.path().join("disk.img")).unwrap().len(), 1 << 40);
}

#[test]
fn many_small_entries_travel_in_bounded_batches() {
    let (source, target) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    for index in 0..3000 {
        fs::write(source.path().join(format!("{index}")), vec![b'x'; index]).unwrap();
    }
    let frames = frames_of(source.path());
    assert!(frames.len() > 8, "{} frames", frames.len());
    receive_into(target.path(), Limits::default(), frames).unwrap();
    assert_same(&facts(source.path()), &facts(target.path()));
}

#[test]
fn a_default_acl_of_a_directory_is_not_handed_down_to_what_is_received() {
    let (source, target) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let with_acl = Looks { mode: 0o2750, acl: Some(7), ..Looks::default() };
    let file = Plant::File(Looks { gid: 5, ..Looks::default() }, vec![(0, 5, 1)], 0);
    let names: std::collections::BTreeMap<_, _> = [(b"file".to_vec(), file)].into();
    let inner = Plant::Directory(with_acl.clone(), names.clone());
    build(&Plant::Directory(with_acl.clone(), [(b"inner".to_vec(), inner)].into()), source.path());
    // The target's root has one from an earlier life.
    build(&Plant::Directory(with_acl, [].into()), target.path());
    receive_into(target.path(), Limits::default(), frames_of(source.path())).unwrap();
    assert_same(&facts(source.path()), &facts(target.path()));
}

#[test]
fn progress_counts_up_to_the_summary() {
    let (source, target) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    fs::write(source.path().join("large"), vec![1; 3 << 20]).unwrap();
    fs::write(source.path().join("small"), b"1").unwrap();
    let mut receiver = Receiver::new(open(target.path()), Limits::default()).unwrap();
    let mut seen = Vec::new();
    let sent = send(open(source.path()), &mut |frame| {
        receiver.push(frame)?;
        seen.push(receiver.progress());
        Ok(())
    });
    let summary = sent.unwrap();
    assert!(seen.is_sorted_by_key(|progress| (progress.bytes, progress.entries)));
    assert!(seen.iter().any(|progress| progress.bytes == 2 << 20));
    let last = seen.last().unwrap();
    assert_eq!((last.files, last.entries, last.bytes), (summary.files, summary.entries, summary.bytes));
}

#[test]
fn measuring_agrees_with_reading() {
    let source = tempfile::tempdir().unwrap();
    fs::create_dir(source.path().join("a")).unwrap();
    fs::write(source.path().join("a/b"), vec![1; 10_000]).unwrap();
    fs::hard_link(source.path().join("a/b"), source.path().join("a/c")).unwrap();
    let usage = measure(open(source.path())).unwrap();
    assert_eq!((usage.entries, usage.bytes), (4, 10_000));
    assert!(usage.disk_bytes >= 10_000);
}

/// Pins the format: a change here is a new version, and every digest on record becomes worthless.
#[test]
fn the_digest_of_a_known_volume_never_changes() {
    let looks = Looks {
        mode: 0o4755,
        uid: 1000,
        gid: 1001,
        mtime: (-5, 7),
        user_xattrs: [("k".to_owned(), b"v".to_vec())].into(),
        ..Looks::default()
    };
    let names: std::collections::BTreeMap<Vec<u8>, Plant> = [
        (b"a".to_vec(), Plant::File(looks.clone(), vec![(0, 3000, 1)], 0)),
        (b"b".to_vec(), Plant::File(Looks::default(), vec![(2 << 20, 100, 1)], 4096)),
        (b"c".to_vec(), Plant::Symlink(Looks::default(), b"../elsewhere".to_vec())),
        (b"d".to_vec(), Plant::Directory(looks.clone(), [(b"\xff".to_vec(), Plant::HardLink(0))].into())),
        (b"e".to_vec(), Plant::Fifo(Looks::default())),
        (b"f".to_vec(), Plant::Character(Looks::default())),
        (b"g".to_vec(), Plant::Socket),
    ]
    .into();
    let source = tempfile::tempdir().unwrap();
    build(&Plant::Directory(looks, names), source.path());
    let summary = scan(open(source.path())).unwrap();
    assert_eq!((summary.files, summary.directories, summary.entries, summary.skipped_sockets), (2, 2, 8, 1));
    assert_eq!(summary.bytes, 3000 + (2 << 20) + 100 + 4096);
    assert_eq!(summary.root_digest.to_string(), "2bef3e512be67992142d8e7182b72e1b0bcf685920164c6503f3c5deee66b4c4");
}

#[test]
fn the_digest_of_content_does_not_depend_on_how_it_is_fed() {
    let content: Vec<u8> = (0..3_000_000_u32).map(|index| if index < 2_000_000 { 0 } else { index as u8 }).collect();
    let mut hasher = ContentHasher::new();
    hasher.update(&content);
    let at_once = hasher.finish().digest;
    for step in [1000, 65_536, 1_048_576, 1_500_000] {
        content.chunks(step).for_each(|piece| hasher.update(piece));
        assert_eq!(hasher.finish().digest, at_once);
    }
    hasher.zeros(2_000_000);
    hasher.update(&content[2_000_000..]);
    assert_eq!(hasher.finish().digest, at_once);
    assert_ne!(hasher.finish().digest, at_once);
}

#[test]
fn every_part_of_an_entry_counts_for_the_digest() {
    let metadata = Metadata { mode: 0o600, mtime: Timestamp { seconds: 1, nanos: 2 }, ..Metadata::default() };
    let file = |depth, name: &'static [u8], metadata: &Metadata, size| Entry {
        depth,
        name: name.into(),
        node: Node::Inode(Inode {
            metadata: metadata.clone(),
            links: 1,
            kind: Kind::Regular { size, body: Body::Streamed },
        }),
    };
    let digest = |entry: &Entry, content| {
        let mut tree = super::super::digest::TreeHasher::new();
        tree.add(entry, Some(&Content { digest: content, ..Content::default() }));
        tree.finish(0).root_digest
    };
    let other = |change: fn(&mut Metadata)| {
        let mut metadata = metadata.clone();
        change(&mut metadata);
        digest(&file(1, b"n", &metadata, 9), Digest([0; 32]))
    };
    let xattr = super::super::Xattr { name: "user.a".into(), value: "b".into() };
    let mut digests = vec![
        digest(&file(1, b"n", &metadata, 9), Digest([0; 32])),
        digest(&file(2, b"n", &metadata, 9), Digest([0; 32])),
        digest(&file(1, b"m", &metadata, 9), Digest([0; 32])),
        digest(&file(1, b"n", &metadata, 8), Digest([0; 32])),
        digest(&file(1, b"n", &metadata, 9), Digest([1; 32])),
        other(|metadata| metadata.mode = 0o4600),
        other(|metadata| metadata.uid = 1),
        other(|metadata| metadata.gid = 1),
        other(|metadata| metadata.mtime.seconds = -1),
        other(|metadata| metadata.mtime.nanos = 0),
    ];
    let with_xattr = Metadata { xattrs: vec![xattr], ..metadata.clone() };
    digests.push(digest(&file(1, b"n", &with_xattr, 9), Digest([0; 32])));
    let count = digests.len();
    digests.sort_unstable();
    digests.dedup();
    assert_eq!(digests.len(), count);
}

#[test]
fn the_header_comes_first_and_the_root_follows() {
    let source = tempfile::tempdir().unwrap();
    let frames = frames_of(source.path());
    assert_eq!(frames[0], Frame::Header(Header { version: 2, ..Header::default() }));
    let Frame::Batch(Batch { steps }) = &frames[1] else { panic!("{:?}", frames[1]) };
    let [Step::Entry(root)] = &steps[..] else { panic!("{steps:?}") };
    assert_eq!((root.depth, root.name.len()), (0, 0));
}
