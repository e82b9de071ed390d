//! Archives against GNU tar, both ways.

use std::{
    fs::{self, File},
    os::unix::fs::FileExt as _,
    path::Path,
    process::{Command, Stdio},
};

use bytes::Bytes;
use proptest::prelude::*;

use super::{
    super::{
        Expect, Limits, Summary, Timestamp,
        pax::{Extensions, Records},
        read_tar, scan, tar_header, write_tar,
    },
    open,
    tree::{Facts, Looks, Plant, allocated, assert_same, build, facts, volume},
};

fn archive_of(path: &Path) -> Vec<u8> {
    let mut archive = Vec::new();
    write_tar(open(path), Expect::Still, &mut archive).unwrap();
    archive
}

fn import(archive: &[u8], path: &Path) -> Summary {
    let mut archive = archive;
    read_tar(open(path), &mut archive, &Limits::default(), &mut |_| {}).unwrap()
}

fn gnu_create(path: &Path, options: &[&str]) -> Vec<u8> {
    let tar = Command::new("tar")
        .args(["--create", "--numeric-owner"])
        .args(options)
        // Other formats have no place for them.
        .args(if options.contains(&"--format=posix") { &["--xattrs", "--xattrs-include=*"][..] } else { &[] })
        .arg("--directory")
        .arg(path)
        .arg(".")
        .stderr(Stdio::null())
        .output()
        .unwrap();
    assert!(tar.status.success());
    tar.stdout
}

fn gnu_extract(archive: &[u8], path: &Path) {
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), archive).unwrap();
    let tar = Command::new("tar")
        .args(["--extract", "--same-permissions", "--same-owner", "--numeric-owner", "--delay-directory-restore"])
        .args(["--xattrs", "--xattrs-include=*", "--file"])
        .arg(file.path())
        .arg("--directory")
        .arg(path)
        .output()
        .unwrap();
    assert!(tar.status.success(), "{}", String::from_utf8_lossy(&tar.stderr));
}

/// What GNU tar does not carry is not asked for: ACLs unless it was built with them, and of nodes, attributes and hard links.
fn without_acls(
    facts: std::collections::BTreeMap<std::path::PathBuf, Facts>,
) -> std::collections::BTreeMap<std::path::PathBuf, Facts> {
    let strip = |mut facts: Facts| {
        if !matches!(facts.kind, 'd' | 'f') {
            facts.xattrs.clear();
        }
        if matches!(facts.kind, 'c' | 'b' | 'p') {
            facts.same_as.clear();
        }
        facts.xattrs.retain(|name, _| !name.starts_with(b"system."));
        facts
    };
    facts.into_iter().map(|(path, facts)| (path, strip(facts))).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn any_volume_survives_our_own_archive(plant in volume()) {
        let (source, target) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        build(&plant, source.path());
        let imported = import(&archive_of(source.path()), target.path());
        assert_same(&facts(source.path()), &facts(target.path()));
        prop_assert!(imported.same_content(&scan(open(source.path())).unwrap()));
    }

    #[test]
    fn gnu_tar_reads_our_archive_of_any_volume(plant in volume()) {
        let (source, target) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        build(&plant, source.path());
        gnu_extract(&archive_of(source.path()), target.path());
        assert_same(&without_acls(facts(source.path())), &without_acls(facts(target.path())));
    }

    #[test]
    fn we_read_the_archive_of_gnu_tar_of_any_volume(plant in volume(), sparse in any::<bool>()) {
        let (source, target) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        build(&plant, source.path());
        let options: &[&str] = if sparse { &["--format=posix", "--sparse"] } else { &["--format=posix"] };
        import(&gnu_create(source.path(), options), target.path());
        assert_same(&without_acls(facts(source.path())), &without_acls(facts(target.path())));
    }

    #[test]
    fn any_time_survives_its_record(seconds in any::<i32>(), nanos in 0..1_000_000_000_u32) {
        let time = Timestamp { seconds: seconds.into(), nanos };
        let mut records = Records::default();
        records.put_time("mtime", time);
        let mut extensions = Extensions::default();
        extensions.read(&Bytes::copy_from_slice(records.as_bytes())).unwrap();
        prop_assert_eq!(extensions.mtime, Some(time));
    }

    #[test]
    fn any_records_survive_their_header(values in prop::collection::vec(prop::collection::vec(1_u8.., 0..2000), 0..5)) {
        for value in values {
            let mut records = Records::default();
            records.put(b"path", &value);
            records.put(b"linkpath", b"\n=1 ");
            let mut extensions = Extensions::default();
            extensions.read(&Bytes::copy_from_slice(records.as_bytes())).unwrap();
            prop_assert_eq!(extensions.path.as_deref(), Some(&value[..]));
            prop_assert_eq!(extensions.link_path.as_deref(), Some(&b"\n=1 "[..]));
        }
    }

    #[test]
    fn no_bytes_make_the_reader_panic(bytes in prop::collection::vec(any::<u8>(), 0..512)) {
        let _ = Extensions::default().read(&Bytes::from(bytes.clone()));
        let _ = tar_header::number(&bytes[..bytes.len().min(12)]);
        let mut block = [0; 512];
        block[..bytes.len()].copy_from_slice(&bytes);
        let _ = tar_header::Fields::decode(&block);
    }
}

/// A sparse file with more pieces than an old header holds, and one with long names around it.
fn awkward() -> tempfile::TempDir {
    let source = tempfile::tempdir().unwrap();
    let looks = Looks { mtime: (1_700_000_000, 0), ..Looks::default() };
    let runs = (0..60).map(|index| (65_536, 4096, index)).collect();
    let long = vec![b'n'; 200];
    let names = [
        (b"sparse".to_vec(), Plant::File(looks.clone(), runs, 1 << 20)),
        (b"all-hole".to_vec(), Plant::File(looks.clone(), vec![], 1 << 20)),
        (b"empty".to_vec(), Plant::File(looks.clone(), vec![], 0)),
        (b"link".to_vec(), Plant::Symlink(looks.clone(), vec![b't'; 300])),
        (long.clone(), Plant::Directory(looks.clone(), [(long, Plant::HardLink(0))].into())),
    ];
    build(&Plant::Directory(looks, names.into()), source.path());
    source
}

#[test]
fn every_form_that_gnu_tar_writes_is_read() {
    let source = awkward();
    for options in [
        &["--format=gnu"][..],
        &["--format=gnu", "--sparse"],
        &["--format=oldgnu", "--sparse"],
        &["--format=posix"],
        &["--format=posix", "--sparse", "--sparse-version=0.0"],
        &["--format=posix", "--sparse", "--sparse-version=0.1"],
        &["--format=posix", "--sparse", "--sparse-version=1.0"],
        &["--format=posix", "--pax-option=delete=mtime"],
    ] {
        let target = tempfile::tempdir().unwrap();
        import(&gnu_create(source.path(), options), target.path());
        assert_same(&facts(source.path()), &facts(target.path()));
        if options.contains(&"--sparse") {
            assert!(allocated(&target.path().join("sparse")) <= allocated(&source.path().join("sparse")));
        }
    }
}

#[test]
fn the_oldest_form_is_read() {
    let (source, target) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let looks = Looks { mtime: (1_700_000_000, 0), ..Looks::default() };
    let names = [
        (b"a".to_vec(), Plant::Directory(looks.clone(), [(b"b".to_vec(), Plant::HardLink(0))].into())),
        (b"c".to_vec(), Plant::File(looks.clone(), vec![(0, 5000, 1)], 0)),
    ];
    build(&Plant::Directory(looks, names.into()), source.path());
    for format in ["--format=v7", "--format=ustar"] {
        let tar = Command::new("tar").args(["-c", format, "-C"]).arg(source.path()).arg(".").output().unwrap();
        import(&tar.stdout, target.path());
        assert_same(&facts(source.path()), &facts(target.path()));
        super::super::clear(open(target.path())).unwrap();
    }
}

#[test]
fn our_holes_are_read_as_holes_by_gnu_tar() {
    let (source, target) = (awkward(), tempfile::tempdir().unwrap());
    let archive = archive_of(source.path());
    assert!(archive.len() < 1 << 20);
    gnu_extract(&archive, target.path());
    assert_same(&facts(source.path()), &facts(target.path()));
}

#[test]
fn zeros_in_an_archive_without_holes_become_holes() {
    let (source, target) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let file = File::create(source.path().join("data")).unwrap();
    file.set_len(20 << 20).unwrap();
    file.write_all_at(b"x", 10 << 20).unwrap();
    import(&gnu_create(source.path(), &["--format=posix"]), target.path());
    assert_same(&facts(source.path()), &facts(target.path()));
    assert!(allocated(&target.path().join("data")) < 1 << 20);
}

#[test]
fn members_in_any_order_and_without_their_directories_are_read() {
    let (source, target) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    fs::create_dir_all(source.path().join("a/b")).unwrap();
    fs::create_dir(source.path().join("c")).unwrap();
    for name in ["a/1", "a/b/2", "c/3"] {
        fs::write(source.path().join(name), name).unwrap();
    }
    let looks = Looks { mode: 0o2750, acl: Some(3), ..Looks::default() };
    build(&Plant::Directory(looks, [].into()), &source.path().join("a/b"));
    // The directory with a default ACL comes before its file, and is left and entered again.
    let tar = Command::new("tar")
        .args(["-c", "--format=posix", "--no-recursion", "--xattrs", "--xattrs-include=*", "--numeric-owner", "-C"])
        .arg(source.path())
        .args(["c/3", "a/b", "a/1", "c", "a/b/2", "a", "."])
        .output()
        .unwrap();
    import(&tar.stdout, target.path());
    assert_same(&without_acls(facts(source.path())), &without_acls(facts(target.path())));
}

#[test]
fn a_directory_entered_again_keeps_what_it_had() {
    let (source, target) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let looks = Looks { mode: 0o2750, gid: 77, acl: Some(3), ..Looks::default() };
    let plain = Plant::File(Looks::default(), vec![(0, 9, 9)], 0);
    let inner = Plant::Directory(looks.clone(), [(b"x".to_vec(), plain.clone())].into());
    build(&Plant::Directory(looks, [(b"a".to_vec(), inner), (b"b".to_vec(), plain)].into()), source.path());
    // Our own archive, with the member inside `a` moved to the end.
    let archive = archive_of(source.path());
    let members = split(&archive);
    let inner = members.iter().position(|(name, _)| name == "./a/x").unwrap();
    let mut order: Vec<_> = (0..members.len()).filter(|index| *index != inner).collect();
    order.push(inner);
    let mut shuffled: Vec<u8> = order.iter().flat_map(|index| members[*index].1.clone()).collect();
    shuffled.extend([0; 1024]);
    import(&shuffled, target.path());
    assert_same(&facts(source.path()), &facts(target.path()));
}

/// The members of an archive with short names, each with its extended header and content.
fn split(archive: &[u8]) -> Vec<(String, Vec<u8>)> {
    let mut members = Vec::new();
    let (mut start, mut position) = (0, 0);
    while archive[position] != 0 {
        let header = tar_header::Fields::decode(archive[position..position + 512].try_into().unwrap()).unwrap();
        position += 512 + usize::try_from(header.size).unwrap().next_multiple_of(512);
        if header.letter != b'x' {
            members.push((String::from_utf8(header.name).unwrap(), archive[start..position].to_vec()));
            start = position;
        }
    }
    members
}

#[test]
fn numbers_too_large_for_octal_digits_survive() {
    let (source, target) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let looks = Looks { uid: 3_000_000_000, gid: u32::MAX - 1, mtime: (14_000_000_000, 1), ..Looks::default() };
    build(&Plant::Directory(looks.clone(), [(b"a".to_vec(), Plant::File(looks, vec![], 0))].into()), source.path());
    File::create(source.path().join("b")).unwrap().set_len(9 << 30).unwrap();
    let summary = import(&archive_of(source.path()), target.path());
    assert!(summary.same_content(&scan(open(source.path())).unwrap()));
    let gnu = tempfile::tempdir().unwrap();
    gnu_extract(&archive_of(source.path()), gnu.path());
    assert!(summary.same_content(&scan(open(gnu.path())).unwrap()));
    // GNU's own binary numbers.
    let back = tempfile::tempdir().unwrap();
    let summary = import(&gnu_create(source.path(), &["--format=gnu", "--sparse"]), back.path());
    assert_eq!(summary.bytes, 9 << 30);
}

#[test]
fn times_before_1970_are_read_from_binary_numbers() {
    assert_eq!(
        tar_header::number(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xfb]),
        Some(u64::MAX - 4)
    );
    assert_eq!(tar_header::number(&[0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0]), Some(256));
    assert_eq!(tar_header::number(&[0x80, 0, 1, 0, 0, 0, 0, 0, 0, 0, 1, 0]), None);
    assert_eq!(tar_header::number(&[0x80, 0, 0, 0, 0, 0, 1, 0]), Some(256));
    assert_eq!(tar_header::number(b"   644 \0"), Some(0o644));
    assert_eq!(tar_header::number(b"00000648"), None);
}

#[test]
fn an_archive_keeps_the_root_of_the_volume() {
    let (source, target) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    build(&Plant::Directory(Looks { mode: 0o1770, uid: 5, gid: 6, ..Looks::default() }, [].into()), source.path());
    gnu_extract(&archive_of(source.path()), target.path());
    assert_same(&facts(source.path()), &facts(target.path()));
}

#[test]
fn an_archive_without_the_root_leaves_the_root_as_it_was() {
    let (source, target) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    fs::write(source.path().join("a"), b"x").unwrap();
    build(
        &Plant::Directory(Looks { mode: 0o1770, uid: 5, gid: 6, acl: Some(8), ..Looks::default() }, [].into()),
        target.path(),
    );
    let before = facts(target.path())[Path::new("")].clone();
    let tar = Command::new("tar").args(["-c", "-C"]).arg(source.path()).arg("a").output().unwrap();
    import(&tar.stdout, target.path());
    assert_eq!(facts(target.path())[Path::new("")], before);
}
