//! Archives that nobody should trust.

use std::{fs, io::Read};

use super::{
    super::{Error, Expect, Limits, pax::Records, read_tar, tar_header::Fields, write_tar},
    open,
};

fn header(letter: u8, name: &[u8]) -> Fields {
    Fields { name: name.to_vec(), mode: 0o755, letter, ..Fields::default() }
}

fn member(fields: &Fields, content: &[u8]) -> Vec<u8> {
    let fields = Fields { size: content.len() as u64, ..fields.clone() };
    let mut bytes = [&fields.encode()[..], content].concat();
    bytes.resize(bytes.len().next_multiple_of(512), 0);
    bytes
}

fn file(name: &[u8]) -> Vec<u8> {
    member(&header(b'0', name), b"content")
}

fn directory(name: &[u8]) -> Vec<u8> {
    member(&header(b'5', name), b"")
}

fn link(letter: u8, name: &[u8], target: &[u8]) -> Vec<u8> {
    member(&Fields { link_name: target.to_vec(), ..header(letter, name) }, b"")
}

fn records(records: &[(&str, &[u8])]) -> Vec<u8> {
    let mut extended = Records::default();
    records.iter().for_each(|(key, value)| extended.put(key.as_bytes(), value));
    member(&header(b'x', b"pax"), extended.as_bytes())
}

fn end() -> Vec<u8> {
    vec![0; 1024]
}

/// What the reader says, next to directories that nothing may be written into.
fn outcome(input: &mut dyn Read) -> Error {
    let parent = tempfile::tempdir().unwrap();
    for name in ["volume", "outside"] {
        fs::create_dir(parent.path().join(name)).unwrap();
    }
    let volume = open(&parent.path().join("volume"));
    let error = read_tar(volume, input, &Limits::default(), &mut |_| {}).unwrap_err();
    assert_eq!(fs::read_dir(parent.path()).unwrap().count(), 2, "something was written beside the volume");
    assert_eq!(fs::read_dir(parent.path().join("outside")).unwrap().count(), 0);
    error
}

fn problem(members: &[Vec<u8>]) -> &'static str {
    match outcome(&mut &members.concat()[..]) {
        Error::Archive { problem, .. } => problem,
        other => panic!("{other:?}"),
    }
}

macro_rules! refuses {
    ($($name:ident: [$($member:expr),*] => $problem:literal;)*) => {
        $(#[test]
        fn $name() {
            assert_eq!(problem(&[$($member),*]), $problem);
        })*
    };
}

refuses! {
    an_absolute_path: [file(b"/etc/cron.d/x"), end()] => "its path is absolute";
    a_path_that_leads_up: [file(b"../outside/x"), end()] => "name leads out of its directory";
    a_path_that_leads_up_later: [file(b"a/b/../../../outside/x"), end()] => "name leads out of its directory";
    a_directory_that_leads_up: [directory(b"a/.."), end()] => "name leads out of its directory";
    a_path_in_an_extended_header_that_leads_up: [records(&[("path", b"../outside/x")]), file(b"x"), end()]
        => "name leads out of its directory";
    a_path_in_an_extended_header_with_a_nul_byte: [records(&[("path", b"a\0b")]), file(b"x"), end()]
        => "its path contains a NUL byte";
    a_long_name_that_leads_up: [member(&header(b'L', b"l"), b"../outside/x\0"), file(b"x"), end()]
        => "name leads out of its directory";
    a_name_of_a_sparse_file_that_leads_up:
        [records(&[("GNU.sparse.major", b"0"), ("GNU.sparse.name", b"../outside/x")]), file(b"x"), end()]
        => "name leads out of its directory";
    a_component_that_is_too_long: [records(&[("path", &[b'a'; 256])]), file(b"x"), end()] => "name is too long";
    an_empty_path: [file(b""), end()] => "its path is empty";
    a_root_that_is_a_file: [file(b"./"), end()] => "the root is not a directory";

    a_file_through_a_link: [link(b'2', b"a", b"../outside"), file(b"a/x"), end()]
        => "its path leads through something that is not a directory";
    a_file_through_an_absolute_link: [link(b'2', b"a", b"/"), file(b"a/tmp/x"), end()]
        => "its path leads through something that is not a directory";
    a_file_through_a_link_further_down:
        [directory(b"d"), link(b'2', b"d/a", b"../../outside"), file(b"d/a/x"), end()]
        => "its path leads through something that is not a directory";
    a_directory_in_place_of_a_link: [link(b'2', b"a", b"../outside"), directory(b"a/"), file(b"a/x"), end()]
        => "its path leads through something that is not a directory";
    a_file_over_a_link: [link(b'2', b"a", b"../outside/x"), file(b"a"), end()] => "it is in the archive twice";
    a_file_through_a_file: [file(b"a"), file(b"a/x"), end()]
        => "its path leads through something that is not a directory";
    a_file_over_a_directory: [directory(b"a"), file(b"a"), end()] => "it is in the archive twice";
    a_file_twice: [file(b"a"), file(b"./a"), end()] => "it is in the archive twice";

    a_hard_link_to_an_absolute_path: [link(b'1', b"a", b"/etc/passwd"), end()] => "its path is absolute";
    a_hard_link_that_leads_up: [link(b'1', b"a", b"../outside/x"), end()] => "name leads out of its directory";
    a_hard_link_through_a_link: [link(b'2', b"l", b"/etc"), link(b'1', b"a", b"l/passwd"), end()]
        => "its path leads through something that is not a directory";
    a_hard_link_to_a_later_member: [link(b'1', b"a", b"b"), file(b"b"), end()]
        => "a hard link names nothing that came before it";
    a_hard_link_to_a_directory: [directory(b"d"), link(b'1', b"a", b"d"), end()] => "a hard link names a directory";
    a_hard_link_to_the_root: [link(b'1', b"a", b"./"), end()] => "a hard link to the root";
    a_hard_link_without_a_target: [link(b'1', b"a", b""), end()] => "its path is empty";
    a_link_without_a_target: [link(b'2', b"a", b""), end()] => "symbolic link has no target";

    a_type_that_is_not_known: [member(&header(b'M', b"a"), b""), end()]
        => "its type is not known (a part of a split or incremental archive?)";
    a_link_with_content: [member(&header(b'2', b"a"), b"x"), end()] => "it has content, but is no regular file";
    a_size_beyond_any_file_system:
        [records(&[("size", b"18446744073709551615")]), file(b"a"), end()]
        => "it is larger than any file system allows";
    a_number_in_an_extended_header_that_is_none: [records(&[("size", b"-1")]), file(b"a"), end()]
        => "a number in its extended header cannot be read";
    an_owner_that_means_no_change: [records(&[("uid", b"4294967295")]), file(b"a"), end()]
        => "owner is not a valid number";
    an_owner_beyond_the_kernel: [records(&[("uid", b"4294967296")]), file(b"a"), end()]
        => "its owner is not a valid number";
    a_time_that_is_none: [records(&[("mtime", b"1.2.3")]), file(b"a"), end()]
        => "its modification time cannot be read";
    a_leading_map_of_holes_that_is_cut:
        [records(&[("GNU.sparse.major", b"1"), ("GNU.sparse.minor", b"0"), ("GNU.sparse.realsize", b"9")]),
         member(&header(b'0', b"a"), b"7\n"), end()]
        => "its map of holes is longer than itself";
    an_attribute_that_is_too_long: [records(&[("SCHILY.xattr.user.a", &[0; 65_537])]), file(b"a"), end()]
        => "extended attribute with a value that is too long";
    an_acl_as_text: [records(&[("SCHILY.acl.access", b"user::rwx")]), file(b"a"), end()]
        => "it carries ACLs as text, with names of users; write it with --xattrs instead of --acls";

    a_map_of_holes_past_the_end:
        [records(&[("GNU.sparse.map", b"0,7"), ("GNU.sparse.size", b"5")]), file(b"a"), end()]
        => "its map of holes is out of order or leads past its end";
    a_map_of_holes_that_overflows:
        [records(&[("GNU.sparse.map", b"18446744073709551615,7"), ("GNU.sparse.size", b"99")]), file(b"a"), end()]
        => "its map of holes overflows";
    a_map_of_holes_that_overlaps:
        [records(&[("GNU.sparse.map", b"0,4,2,3"), ("GNU.sparse.size", b"99")]), file(b"a"), end()]
        => "its map of holes is out of order or leads past its end";
    a_map_of_holes_that_does_not_fit_the_content:
        [records(&[("GNU.sparse.map", b"0,3"), ("GNU.sparse.size", b"99")]), file(b"a"), end()]
        => "its map of holes does not match its size";
    a_map_of_holes_that_is_incomplete:
        [records(&[("GNU.sparse.map", b"0,7,9"), ("GNU.sparse.size", b"99")]), file(b"a"), end()]
        => "its map of holes is incomplete";
    a_map_of_holes_of_another_version: [records(&[("GNU.sparse.major", b"2")]), file(b"a"), end()]
        => "it has holes in a form that is not known";
    a_leading_map_of_holes_that_is_too_long:
        [records(&[("GNU.sparse.major", b"1"), ("GNU.sparse.minor", b"0"), ("GNU.sparse.realsize", b"9")]),
         member(&header(b'0', b"a"), &[&b"99999999999\n"[..], &[0; 500]].concat()), end()]
        => "its map of holes is too long";
    a_leading_map_of_holes_that_never_ends:
        [records(&[("GNU.sparse.major", b"1"), ("GNU.sparse.minor", b"0"), ("GNU.sparse.realsize", b"9")]),
         member(&header(b'0', b"a"), &[&b"7\n"[..], &[0; 510]].concat()), end()]
        => "its map of holes cannot be read";

    a_single_block_of_zeros: [file(b"a"), vec![0; 512], file(b"b"), end()]
        => "there is a single block of zeros among its members";
    something_behind_the_end: [file(b"a"), end(), file(b"b")] => "something follows its end marker";
    an_extended_header_without_a_member: [records(&[("path", b"a")]), end()]
        => "an extended header is followed by no member";
    a_path_for_all_members: [member(&header(b'g', b"g"), b"10 path=a\n"), file(b"a"), end()]
        => "a header for all members says what only a single one may";
    a_record_longer_than_its_header: [member(&header(b'x', b"x"), b"99 path=a\n"), file(b"a"), end()]
        => "a record of its extended header is malformed";
    a_record_without_a_key: [member(&header(b'x', b"x"), b"6 =ab\n"), file(b"a"), end()]
        => "a record of its extended header is malformed";
    a_compressed_archive: [[&[0x1f, 0x8b][..], &[7; 510]].concat(), end()] => "it is compressed; decompress it first";
    something_that_is_no_archive: [vec![b'x'; 512], end()]
        => "this is no tar header, or a damaged one (its checksum is wrong)";
}

#[test]
fn a_header_that_claims_to_be_huge_is_refused_before_it_is_read() {
    for (letter, size) in [(b'x', 5 << 20), (b'g', 5 << 20), (b'L', 2 << 20), (b'K', 0o77_777_777_777)] {
        let huge = Fields { size, ..header(letter, b"huge") }.encode();
        // Nothing follows: whoever believed the size would wait for it.
        assert_eq!(problem(&[huge.to_vec()]), "an extended header is too large");
    }
}

#[test]
fn a_bit_flipped_in_a_header_is_refused() {
    let good = [directory(b"a"), file(b"a/b"), end()].concat();
    for position in [0, 100, 108, 124, 136, 148, 156, 257, 400] {
        let mut bad = good.clone();
        bad[512 + position] ^= 2;
        assert!(matches!(outcome(&mut &bad[..]), Error::Archive { .. }), "at {position}");
    }
}

#[test]
fn an_archive_cut_anywhere_is_refused() {
    let source = tempfile::tempdir().unwrap();
    fs::write(source.path().join("a"), vec![1; 700]).unwrap();
    fs::create_dir(source.path().join(vec!["n"; 120].concat())).unwrap();
    fs::hard_link(source.path().join("a"), source.path().join("b")).unwrap();
    let mut whole = Vec::new();
    write_tar(open(source.path()), Expect::Still, &mut whole).unwrap();
    for end in (0..whole.len()).step_by(97).chain([512, 1024, whole.len() - 512, whole.len() - 1]) {
        let error = outcome(&mut &whole[..end]);
        assert!(matches!(error, Error::ArchiveTruncated { offset } if offset == end as u64), "{end}: {error:?}");
    }
}

#[test]
fn an_empty_export_that_reports_success_is_refused() {
    assert!(matches!(outcome(&mut &[][..]), Error::ArchiveTruncated { offset: 0 }));
    assert!(matches!(outcome(&mut &file(b"a")[..]), Error::ArchiveTruncated { .. }));
}

#[test]
fn padding_without_end_is_refused() {
    let mut endless = std::io::repeat(0);
    assert!(matches!(outcome(&mut endless), Error::Archive { problem: "something follows its end marker", .. }));
}

#[test]
fn a_reader_that_fails_is_told_with_its_cause() {
    struct Broken;
    impl Read for Broken {
        fn read(&mut self, _: &mut [u8]) -> std::io::Result<usize> {
            Err(std::io::ErrorKind::ConnectionReset.into())
        }
    }
    let error = outcome(&mut Broken);
    assert!(matches!(error, Error::ArchiveIo { action: "read", .. }));
}

#[test]
fn limits_are_kept() {
    let archive = [file(b"a"), file(b"b"), end()].concat();
    let limit = |limits| {
        let target = tempfile::tempdir().unwrap();
        match read_tar(open(target.path()), &mut &archive[..], &limits, &mut |_| {}) {
            Err(Error::TooLarge { what, limit }) => (what, limit),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(limit(Limits { max_entries: 1, ..Limits::default() }), ("entries", 1));
    assert_eq!(limit(Limits { max_bytes: 10, ..Limits::default() }), ("bytes of data", 10));
}

#[test]
fn a_target_that_is_not_empty_is_refused() {
    let target = tempfile::tempdir().unwrap();
    fs::write(target.path().join("a"), b"x").unwrap();
    let result = read_tar(open(target.path()), &mut &end()[..], &Limits::default(), &mut |_| {});
    assert!(matches!(result, Err(Error::NotEmpty)));
}
