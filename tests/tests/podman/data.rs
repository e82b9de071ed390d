//! Data that is hard to carry: it moves faithfully, and goes to and from Podman and GNU tar.

use std::{
    ffi::OsStr,
    fs,
    os::unix::{
        ffi::OsStrExt as _,
        fs::{FileExt as _, PermissionsExt as _, symlink},
    },
    path::Path,
    time::{Duration, SystemTime},
};

use feather_tests::real::{Holdings, Login, Real, tree::observe};

/// Written by every process of the web app.
const LIVING: &[&str] = &["", "journal.log", "starts.log", ".feather-session"];

#[tokio::test(flavor = "multi_thread")]
async fn odd_data_moves_faithfully_and_goes_to_and_from_podman_and_tar() {
    let fleet = Real::start(&["fra", "nyc"], &[]).await;
    let login = fleet.add("carol", &["--server", "nyc"]).await;
    fleet.visit("nyc", &login).append("before").await.unwrap();
    let home = fleet.volume("nyc", "carol").await;
    plant(&home);
    let planted = observe(&home, LIVING);
    let root = observe(&home, &[]).remove("").unwrap();

    let moved = fleet.featherctl_json(&["tenant", "migrate", "carol", "--to", "fra"]).await;
    let on_fra = fleet.volume("fra", "carol").await;
    assert_eq!(observe(&on_fra, LIVING), planted);
    let facts = |root: &str| root.split("mtime=").next().unwrap().to_owned();
    assert_eq!(facts(&observe(&on_fra, &[])[""]), facts(&root), "the root keeps its mode and owner");

    fleet.featherctl(&["tenant", "stop", "carol"]).await.ok();
    let digest = |document: &serde_json::Value| document["summary"]["root_digest"].as_str().unwrap().to_owned();
    let stopped = digest(&fleet.featherctl_json(&["volume", "verify", "carol"]).await);
    assert_ne!(stopped, moved["migration"]["root_digest"].as_str().unwrap(), "a process has run since then");
    let back = fleet.featherctl_json(&["tenant", "migrate", "carol", "--to", "nyc"]).await;
    assert_eq!(back["migration"]["root_digest"], stopped.as_str(), "nothing ran since it was verified");
    assert_eq!(digest(&fleet.featherctl_json(&["volume", "verify", "carol"]).await), stopped);

    goes_out(&fleet).await;
    comes_in(&fleet, &login, &stopped).await;
    fleet.finish().await;
}

/// Everything that careless copies lose.
fn plant(home: &Path) {
    let old = SystemTime::UNIX_EPOCH + Duration::new(86_400 * 365 * 12, 123_456_789);
    let deep = home.join("deep/er/still deeper");
    fs::create_dir_all(&deep).unwrap();
    let strange = OsStr::from_bytes(b"new\nline \xff\xfe tab\t* '\" -rf");
    fs::write(deep.join(strange), "odd name").unwrap();
    fs::write(home.join("a".repeat(255)), "long name").unwrap();
    fs::write(deep.join("one"), "linked").unwrap();
    fs::hard_link(deep.join("one"), home.join("two")).unwrap();
    symlink("/nowhere/at all", home.join("dangling")).unwrap();
    symlink("../../..", deep.join("up")).unwrap();
    let sparse = fs::File::create(home.join("sparse")).unwrap();
    sparse.set_len(16 << 20).unwrap();
    sparse.write_at(b"in the middle", 9 << 20).unwrap();
    let tool = home.join("tool");
    fs::write(&tool, "#!").unwrap();
    std::os::unix::fs::chown(&tool, Some(1234), Some(4321)).unwrap();
    fs::set_permissions(&tool, fs::Permissions::from_mode(0o6755)).unwrap();
    fs::create_dir(home.join("shared")).unwrap();
    fs::set_permissions(home.join("shared"), fs::Permissions::from_mode(0o1777)).unwrap();
    for (name, value) in [("user.note", b"a\0b".as_slice()), ("trusted.note", b"root's")] {
        rustix::fs::lsetxattr(&tool, name, value, rustix::fs::XattrFlags::empty()).unwrap();
    }
    fs::write(home.join("empty"), "").unwrap();
    for name in ["tool", "empty", "shared"] {
        fs::File::open(home.join(name)).unwrap().set_modified(old).unwrap();
    }
    fs::set_permissions(home, fs::Permissions::from_mode(0o750)).unwrap();
}

/// What is exported is read by GNU tar, and by Podman.
async fn goes_out(fleet: &Real) {
    let home = fleet.volume("nyc", "carol").await;
    let whole = observe(&home, &[""]);
    let (archive, out) = (fleet.directory().join("carol.tar"), fleet.directory().join("carol.unpacked"));
    let archive_name = archive.to_str().unwrap();
    fleet.featherctl(&["volume", "export", "carol", "--file", archive_name, "--yes"]).await.ok();
    fs::create_dir(&out).unwrap();
    let tar = ["--extract", "--same-permissions", "--same-owner", "--numeric-owner", "--xattrs", "--xattrs-include=*"];
    let tar = [tar.as_slice(), &["--file", archive_name, "--directory", out.to_str().unwrap()]].concat();
    fleet.run("tar", &tar).await.ok();
    assert_eq!(observe(&out, &[""]), whole, "GNU tar reads another tree");

    let import = "podman volume create check && podman volume import check -";
    fleet.inside_with("nyc", import, &archive).await.ok();
    let check = home.parent().unwrap().with_file_name("check").join("_data");
    // Podman leaves out what only root may set, and times of directories.
    let plain = |tree: std::collections::BTreeMap<String, String>| -> Vec<String> {
        tree.into_iter().map(|(path, said)| format!("{path}: {}", said.split(" mtime=").next().unwrap())).collect()
    };
    assert_eq!(plain(observe(&check, &[""])), plain(whole), "Podman reads another tree");
    fleet.inside("nyc", "podman volume rm check").await.ok();
}

/// What Podman exported comes in; half of it does not, and costs nothing.
async fn comes_in(fleet: &Real, login: &Login, digest: &str) {
    let archive = fleet.directory().join("podman.tar");
    let half = fleet.directory().join("half.tar");
    fleet.inside("nyc", "podman volume export feather-user-carol > /tmp/carol.tar").await.ok();
    let inside = format!("{}:/tmp/carol.tar", fleet.birth("nyc"));
    fleet.podman(&["cp", &inside, archive.to_str().unwrap()]).await.ok();
    let bytes = fs::read(&archive).unwrap();
    fs::write(&half, &bytes[..bytes.len() / 2]).unwrap();

    fleet.featherctl(&["tenant", "start", "carol"]).await.ok();
    let running = fleet.featherctl(&["volume", "import", "carol", archive.to_str().unwrap(), "--yes"]).await;
    assert_eq!(running.code, 1, "a running tenant's data is not replaced: {running:?}");
    fleet.featherctl(&["tenant", "stop", "carol"]).await.ok();

    let before = fleet.featherctl_json(&["volume", "verify", "carol"]).await;
    let truncated = fleet.featherctl(&["volume", "import", "carol", half.to_str().unwrap(), "--yes"]).await;
    assert!(truncated.code != 0 && truncated.stderr.contains("Nothing was imported"), "{truncated:?}");
    let staged = fleet.inside("nyc", "podman volume ls --quiet --filter name=feather-import").await.ok();
    assert_eq!(staged, "", "what came in is gone");
    let after = fleet.featherctl_json(&["volume", "verify", "carol"]).await;
    assert_eq!(after["summary"]["root_digest"], before["summary"]["root_digest"], "what was there is as it was");

    let imported = fleet.featherctl(&["volume", "import", "carol", archive.to_str().unwrap(), "--yes"]).await.ok();
    assert!(imported.starts_with("carol holds "), "{imported}");
    let whole = fleet.featherctl_json(&["volume", "verify", "carol"]).await;
    assert!(!digest.is_empty() && whole["summary"]["root_digest"].is_string());
    fleet.featherctl(&["tenant", "start", "carol"]).await.ok();
    assert_eq!(fleet.answers("nyc", login).await.text, "1 before\n");
    assert_eq!(fleet.holdings().await["nyc"], Holdings::of(&["carol"], &[]));
}
