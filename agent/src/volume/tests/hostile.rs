//! Every rule of the stream, broken once.

use std::fs;

use bytes::Bytes;

use super::{
    super::{
        Batch, Body, Chunk, DeviceNumber, Digest, Entry, Error, Extent, Frame, Header, Inode, Kind, Limits, Metadata,
        Node, Step, Timestamp, Xattr, digest::ContentHasher,
    },
    frames_of, receive_into,
};

fn header() -> Frame {
    Frame::Header(Header { version: 2, ..Header::default() })
}

fn inode(depth: u32, name: &[u8], kind: Kind) -> Entry {
    let metadata = Metadata { mode: 0o755, ..Metadata::default() };
    let name = Bytes::copy_from_slice(name);
    Entry { depth, name, node: Node::Inode(Inode { metadata, links: 1, kind }) }
}

fn root() -> Entry {
    inode(0, b"", Kind::Directory)
}

fn directory(depth: u32, name: &[u8]) -> Entry {
    inode(depth, name, Kind::Directory)
}

fn symlink(depth: u32, name: &[u8], target: &[u8]) -> Entry {
    inode(depth, name, Kind::Symlink { target: Bytes::copy_from_slice(target) })
}

fn digest_of(content: &[u8]) -> Digest {
    let mut hasher = ContentHasher::new();
    hasher.update(content);
    hasher.finish().digest
}

fn extent(offset: u64, data: &[u8]) -> Extent {
    Extent { offset, data: Bytes::copy_from_slice(data) }
}

fn file(depth: u32, name: &[u8], content: &[u8]) -> Entry {
    let body = Body::Inline { extents: vec![extent(0, content)], digest: digest_of(content) };
    inode(depth, name, Kind::Regular { size: content.len() as u64, body })
}

fn file_of(size: u64, extents: Vec<Extent>) -> Entry {
    inode(1, b"file", Kind::Regular { size, body: Body::Inline { extents, digest: Digest([0; 32]) } })
}

fn streamed(size: u64) -> Entry {
    inode(1, b"file", Kind::Regular { size, body: Body::Streamed })
}

fn linked(mut entry: Entry, count: u32) -> Entry {
    if let Node::Inode(inode) = &mut entry.node {
        inode.links = count;
    }
    entry
}

fn hard_link(depth: u32, name: &[u8], first: u64) -> Entry {
    Entry { depth, name: Bytes::copy_from_slice(name), node: Node::HardLink { first } }
}

fn with(change: impl FnOnce(&mut Metadata)) -> Entry {
    let mut entry = file(1, b"file", b"x");
    if let Node::Inode(inode) = &mut entry.node {
        change(&mut inode.metadata);
    }
    entry
}

fn xattrs(xattrs: Vec<(&str, usize)>) -> Entry {
    let xattr = |(name, length): (&str, usize)| Xattr { name: name.to_owned().into(), value: vec![0; length].into() };
    with(|metadata| metadata.xattrs = xattrs.into_iter().map(xattr).collect())
}

fn batch(entries: Vec<Entry>) -> Frame {
    Frame::Batch(Batch { steps: entries.into_iter().map(Step::Entry).collect() })
}

/// A stream of a header and one batch.
fn stream(entries: Vec<Entry>) -> Vec<Frame> {
    vec![header(), batch(entries)]
}

/// A stream whose last entry is a streamed file, and what follows it.
fn content(size: u64, after: Vec<Frame>) -> Vec<Frame> {
    [stream(vec![root(), streamed(size)]), after].concat()
}

fn chunk(extents: Vec<Extent>, end: Option<Digest>) -> Frame {
    Frame::Chunk(Chunk { extents, held: Vec::new(), end })
}

/// What a receiver says, next to a directory that nothing may be written into.
fn outcome(limits: Limits, frames: Vec<Frame>) -> Error {
    let parent = tempfile::tempdir().unwrap();
    fs::create_dir(parent.path().join("volume")).unwrap();
    fs::create_dir(parent.path().join("outside")).unwrap();
    let error = receive_into(&parent.path().join("volume"), limits, frames).unwrap_err();
    assert_eq!(fs::read_dir(parent.path()).unwrap().count(), 2, "something was written beside the volume");
    assert_eq!(fs::read_dir(parent.path().join("outside")).unwrap().count(), 0);
    error
}

fn problem(frames: Vec<Frame>) -> &'static str {
    match outcome(Limits::default(), frames) {
        Error::Refused { problem, .. } => problem,
        other => panic!("{other:?}"),
    }
}

macro_rules! refuses {
    ($($name:ident: $frames:expr => $problem:literal;)*) => {
        $(#[test]
        fn $name() {
            assert_eq!(problem($frames), $problem);
        })*
    };
}

refuses! {
    a_name_that_leads_up: stream(vec![root(), file(1, b"..", b"x")]) => "name leads out of its directory";
    a_name_that_is_a_dot: stream(vec![root(), directory(1, b".")]) => "name leads out of its directory";
    an_absolute_name: stream(vec![root(), file(1, b"/etc/passwd", b"x")]) => "name contains a slash";
    a_name_of_several_components: stream(vec![root(), file(1, b"a/../../b", b"x")]) => "name contains a slash";
    a_name_with_a_nul_byte: stream(vec![root(), file(1, b"a\0b", b"x")]) => "name contains a NUL byte";
    an_empty_name: stream(vec![root(), file(1, b"", b"x")]) => "name is empty";
    a_name_longer_than_a_component: stream(vec![root(), file(1, &[b'a'; 256], b"x")]) => "name is too long";

    a_stream_without_its_root: stream(vec![file(1, b"a", b"x")]) => "the first entry is not the root";
    a_root_that_is_a_file: stream(vec![file(0, b"", b"x")]) => "the root is not a directory";
    a_root_that_is_a_link: stream(vec![symlink(0, b"", b"outside")]) => "the root is not a directory";
    a_root_that_is_a_hard_link: stream(vec![hard_link(0, b"", 0)]) => "the root is not a directory";
    a_root_with_a_name: stream(vec![directory(0, b"a")]) => "the root has a name";
    a_second_root: stream(vec![root(), root()]) => "there is a second root";
    an_entry_below_a_file: stream(vec![root(), file(1, b"a", b"x"), file(2, b"b", b"x")])
        => "it lies in no directory of the stream";
    an_entry_below_a_link: stream(vec![root(), symlink(1, b"a", b"../outside"), file(2, b"b", b"x")])
        => "it lies in no directory of the stream";
    an_entry_below_nothing: stream(vec![root(), file(9, b"b", b"x")]) => "it lies in no directory of the stream";
    an_entry_below_a_directory_that_was_left:
        stream(vec![root(), directory(1, b"a"), directory(2, b"b"), file(1, b"c", b"x"), file(3, b"d", b"x")])
        => "it lies in no directory of the stream";
    names_out_of_order: stream(vec![root(), file(1, b"b", b"x"), file(1, b"a", b"x")]) => "names are out of order";
    a_name_twice: stream(vec![root(), file(1, b"a", b"x"), file(1, b"a", b"y")]) => "names are out of order";
    a_link_replaced_by_a_directory:
        stream(vec![root(), symlink(1, b"a", b"../outside"), directory(1, b"a"), file(2, b"b", b"x")])
        => "names are out of order";

    a_hard_link_to_a_later_entry: stream(vec![root(), hard_link(1, b"a", 2), linked(file(1, b"b", b"x"), 2)])
        => "a hard link names no earlier entry that may have one";
    a_hard_link_to_itself: stream(vec![root(), hard_link(1, b"a", 1)])
        => "a hard link names no earlier entry that may have one";
    a_hard_link_to_the_root: stream(vec![linked(root(), 2), hard_link(1, b"a", 0)])
        => "a hard link names no earlier entry that may have one";
    a_hard_link_to_a_directory: stream(vec![root(), linked(directory(1, b"a"), 2), hard_link(1, b"b", 1)])
        => "a hard link names no earlier entry that may have one";
    a_hard_link_to_a_hard_link:
        stream(vec![root(), linked(file(1, b"a", b"x"), 3), hard_link(1, b"b", 1), hard_link(1, b"c", 2)])
        => "a hard link names no earlier entry that may have one";
    a_hard_link_that_was_not_announced: stream(vec![root(), file(1, b"a", b"x"), hard_link(1, b"b", 1)])
        => "a hard link names no earlier entry that may have one";
    more_hard_links_than_announced:
        stream(vec![root(), linked(file(1, b"a", b"x"), 2), hard_link(1, b"b", 1), hard_link(1, b"c", 1)])
        => "a hard link names no earlier entry that may have one";

    a_link_without_a_target: stream(vec![root(), symlink(1, b"a", b"")]) => "symbolic link has no target";
    a_link_with_a_target_that_is_too_long: stream(vec![root(), symlink(1, b"a", &[b'a'; 4096])])
        => "symbolic link has a target that is too long";
    a_link_with_a_nul_byte: stream(vec![root(), symlink(1, b"a", b"a\0")])
        => "symbolic link has a target with a NUL byte";

    a_mode_beyond_permissions: stream(vec![root(), with(|metadata| metadata.mode = 0o10_000)])
        => "mode has bits that are no permissions";
    an_owner_that_means_no_change: stream(vec![root(), with(|metadata| metadata.uid = u32::MAX)])
        => "owner is not a valid number";
    a_second_with_too_many_nanoseconds:
        stream(vec![root(), with(|metadata| metadata.mtime = Timestamp { seconds: 0, nanos: 1_000_000_000 })])
        => "modification time has too many nanoseconds";
    an_attribute_of_the_machine: stream(vec![root(), xattrs(vec![("security.selinux", 1)])])
        => "extended attribute with a name that is not allowed";
    an_attribute_without_a_name: stream(vec![root(), xattrs(vec![("user.", 1)])])
        => "extended attribute with a name that is not allowed";
    an_attribute_that_is_too_long: stream(vec![root(), xattrs(vec![("user.a", 65_537)])])
        => "extended attribute with a value that is too long";
    attributes_out_of_order: stream(vec![root(), xattrs(vec![("user.b", 1), ("user.a", 1)])])
        => "extended attributes are out of order";
    an_attribute_twice: stream(vec![root(), xattrs(vec![("user.a", 1), ("user.a", 1)])])
        => "extended attributes are out of order";
    too_many_attributes: stream(vec![root(), xattrs(vec![("user.a", 1); 1025])]) => "too many extended attributes";
    too_many_bytes_of_attributes: stream(vec![root(), xattrs(vec![("user.a", 65_000); 17])])
        => "too many extended attributes";

    content_past_the_end: stream(vec![root(), file_of(2, vec![extent(0, b"xxx")])])
        => "extent ends past the end of its file";
    content_at_an_offset_that_overflows: stream(vec![root(), file_of(2, vec![extent(u64::MAX, b"xx")])])
        => "extent ends past the end of its file";
    content_that_overlaps: stream(vec![root(), file_of(9, vec![extent(0, b"xxx"), extent(2, b"x")])])
        => "extents overlap or are out of order";
    empty_content: stream(vec![root(), file_of(9, vec![extent(0, b"")])]) => "extent is empty";
    too_many_pieces_of_content:
        stream(vec![root(), file_of(9000, (0..4097).map(|index| extent(2 * index, b"x")).collect())])
        => "too many extents in one message";
    a_file_beyond_any_file_system: stream(vec![root(), streamed(u64::MAX)])
        => "file is larger than any file system allows";

    a_stream_without_its_header: vec![batch(vec![root()])] => "the stream does not begin with its header";
    a_second_header: vec![header(), header()] => "there is a second header";
    a_header_of_another_version: vec![Frame::Header(Header { version: 1, ..Header::default() })]
        => "its format version is unknown here; upgrade the older agent";
    an_empty_batch: stream(vec![]) => "a batch is empty or has too many entries";
    a_batch_of_too_many_entries: stream(vec![root(); 16_385]) => "a batch is empty or has too many entries";
    a_batch_that_is_too_large: stream(vec![file(1, b"a", &vec![0; 3 << 20])]) => "a batch is too large";
    content_without_a_file: vec![header(), batch(vec![root()]), chunk(vec![extent(0, b"x")], None)]
        => "there is content without a file";
    an_entry_behind_a_streamed_file: stream(vec![root(), streamed(9), file(1, b"later", b"x")])
        => "a streamed file is followed by another entry";
    a_batch_amid_content: content(9, vec![batch(vec![file(1, b"later", b"x")])])
        => "the content of a file is incomplete";
    a_chunk_that_is_too_large: content(9 << 20, vec![chunk(vec![extent(0, &vec![0; (1 << 20) + 1])], None)])
        => "a chunk is too large";
    an_empty_chunk: content(9, vec![chunk(vec![], None)]) => "a chunk is empty";
    chunks_out_of_order: content(9, vec![chunk(vec![extent(4, b"x")], None), chunk(vec![extent(0, b"x")], None)])
        => "extents overlap or are out of order";
    a_chunk_past_the_end: content(9, vec![chunk(vec![extent(9, b"x")], None)])
        => "extent ends past the end of its file";
}

#[test]
fn a_digest_that_does_not_match_is_refused() {
    let mut damaged = file(1, b"file", b"content");
    let Node::Inode(Inode { kind: Kind::Regular { body: Body::Inline { extents, .. }, .. }, .. }) = &mut damaged.node
    else {
        panic!()
    };
    extents[0].data = Bytes::from_static(b"contend");
    let error = outcome(Limits::default(), stream(vec![root(), damaged]));
    assert!(matches!(&error, Error::Corrupt { path } if path == "file"), "{error:?}");
}

#[test]
fn a_digest_that_does_not_match_a_streamed_file_is_refused() {
    let frames = content(9, vec![chunk(vec![extent(0, b"x")], Some(digest_of(b"x")))]);
    assert!(matches!(outcome(Limits::default(), frames), Error::Corrupt { .. }));
}

#[test]
fn a_stream_without_its_trailer_is_refused() {
    let frames = stream(vec![root(), file(1, b"a", b"x")]);
    assert!(matches!(outcome(Limits::default(), frames), Error::Truncated { entries: 2 }));
    assert!(matches!(outcome(Limits::default(), vec![]), Error::Truncated { entries: 0 }));
    let amid = content(9, vec![chunk(vec![extent(0, b"x")], None)]);
    assert!(matches!(outcome(Limits::default(), amid), Error::Truncated { .. }));
}

#[test]
fn every_stream_that_is_cut_short_is_refused() {
    let source = tempfile::tempdir().unwrap();
    fs::write(source.path().join("large"), vec![7; 2_500_000]).unwrap();
    fs::write(source.path().join("small"), b"x").unwrap();
    let frames = frames_of(source.path());
    for end in 0..frames.len() {
        let error = outcome(Limits::default(), frames[..end].to_vec());
        assert!(matches!(error, Error::Truncated { .. }), "{end}: {error:?}");
    }
}

#[test]
fn a_trailer_that_says_something_else_is_refused() {
    let source = tempfile::tempdir().unwrap();
    fs::write(source.path().join("a"), b"x").unwrap();
    let mut frames = frames_of(source.path());
    let Some(Frame::Trailer(trailer)) = frames.last_mut() else { panic!() };
    trailer.summary.bytes += 1;
    assert!(matches!(outcome(Limits::default(), frames), Error::Disagree { .. }));
}

#[test]
fn nothing_is_taken_after_the_trailer() {
    let source = tempfile::tempdir().unwrap();
    let mut frames = frames_of(source.path());
    frames.push(batch(vec![file(1, b"a", b"x")]));
    assert_eq!(problem(frames), "there is a frame after the trailer");
}

#[test]
fn nothing_is_taken_after_a_refusal() {
    let target = tempfile::tempdir().unwrap();
    let mut receiver = super::Receiver::new(super::open(target.path()), Limits::default()).unwrap();
    receiver.push(header()).unwrap();
    receiver.push(header()).unwrap_err();
    let again = receiver.push(batch(vec![root()])).unwrap_err();
    assert!(matches!(again, Error::Refused { problem: "an earlier frame was refused already", .. }));
    assert!(matches!(receiver.finish(), Err(Error::Truncated { .. })));
}

#[test]
fn a_trailer_without_entries_is_refused() {
    let source = tempfile::tempdir().unwrap();
    let mut frames = frames_of(source.path());
    frames.remove(1);
    assert_eq!(problem(frames), "the stream has no root");
}

#[test]
fn limits_are_kept() {
    let frames = || stream(vec![root(), linked(file(1, b"a", b"xyz"), 2), file(1, b"b", b"x")]);
    let limit = |limits| match outcome(limits, frames()) {
        Error::TooLarge { what, limit } => (what, limit),
        other => panic!("{other:?}"),
    };
    assert_eq!(limit(Limits { max_entries: 2, ..Limits::default() }), ("entries", 2));
    assert_eq!(limit(Limits { max_bytes: 3, ..Limits::default() }), ("bytes of data", 3));
    let (what, _) = limit(Limits { max_link_bytes: 10, ..Limits::default() });
    assert_eq!(what, "bytes of paths of hard-linked files");
}

#[test]
fn a_target_that_is_not_empty_is_refused() {
    let (source, target) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    std::os::unix::fs::symlink("/etc", target.path().join("a")).unwrap();
    let error = receive_into(target.path(), Limits::default(), frames_of(source.path())).unwrap_err();
    assert!(matches!(error, Error::NotEmpty));
}

#[test]
fn a_link_is_kept_as_it_is_and_never_followed() {
    let parent = tempfile::tempdir().unwrap();
    fs::create_dir(parent.path().join("volume")).unwrap();
    let target = parent.path().join("volume");
    let fifo = inode(1, b"z", Kind::CharacterDevice(DeviceNumber { major: 1, minor: 3 }));
    let entries = vec![root(), symlink(1, b"a", b"../outside"), file(1, b"b", b"x"), fifo];
    let error = receive_into(&target, Limits::default(), stream(entries)).unwrap_err();
    assert!(matches!(error, Error::Truncated { entries: 4 }));
    assert_eq!(fs::read_link(target.join("a")).unwrap().to_str(), Some("../outside"));
    assert!(!parent.path().join("outside").exists());
}

#[test]
fn messages_show_hostile_names_harmlessly() {
    let error = outcome(Limits::default(), stream(vec![root(), file(1, b"a/\x1b[2J\n\xff", b"x")]));
    let message = error.to_string();
    assert!(message.contains(r"a/\x1b[2J\n\xff"), "{message}");
    let long = outcome(Limits::default(), stream(vec![root(), file(1, &vec![b'a'; 100_000], b"x")]));
    assert!(long.to_string().len() < 500);
}

#[test]
fn frames_keep_what_is_in_files_and_attributes_out_of_logs() {
    let mut secret = file(1, b"key", b"hunter2");
    let Node::Inode(inode) = &mut secret.node else { panic!() };
    inode.metadata.xattrs.push(Xattr { name: "user.a".into(), value: "hunter2".into() });
    let shown = format!("{:?}", batch(vec![secret]));
    assert!(shown.contains("7 bytes") && !shown.contains("hunter2"), "{shown}");
}
