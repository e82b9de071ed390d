//! Images onto servers, and what real Podman would have made of archives that are not in order.

use std::path::{Path, PathBuf};

use feather_tests::real::{Holdings, Ran, Real};

/// The work image with another configuration, as an archive of its own.
pub(super) async fn variant(fleet: &Real, name: &str, change: &str) -> PathBuf {
    let original = fleet.directory().parent().unwrap().join("work-image/feather-work.tar");
    let (folder, archive) = (fleet.directory().join(name), fleet.directory().join(format!("{name}.tar")));
    let script = format!(
        "set -e; mkdir {folder}; cd {folder}; tar xf {original}; old=$(ls | grep -E '^[0-9a-f]{{64}}[.]json$')
         sed '{change}' $old >changed; new=$(sha256sum changed | cut -d' ' -f1).json; mv changed $new
         sed -i \"s/$old/$new/\" manifest.json; tar cf {archive} --format=ustar *.tar $new manifest.json",
        folder = folder.display(),
        original = original.display(),
        archive = archive.display(),
    );
    fleet.run("bash", &["-c", &script]).await.ok();
    archive
}

async fn load(fleet: &Real, server: &str, archive: &Path) -> Ran {
    fleet.featherctl(&["image", "load", server, archive.to_str().unwrap()]).await
}

/// Digest of what new tenants get.
async fn work_image(fleet: &Real, server: &str) -> String {
    let list = fleet.featherctl_json(&["image", "list", "--server", server]).await;
    let work = list["images"].as_array().unwrap().iter().find(|image| image["work"] == true).unwrap();
    work["digest"].as_str().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_is_loaded_and_copied_whole_or_not_at_all() {
    let mut fleet = Real::start(&["nyc"], &[]).await;
    fleet.join("fra", &[("FEATHER_BIRTH_DISK_MIB", "420")]).await;
    let alice = fleet.add("alice", &["--server", "nyc"]).await;
    let old = work_image(&fleet, "nyc").await;

    let new = variant(&fleet, "new", r#"s/"os":"linux"/"os":"linux","author":"new"/"#).await;
    let foreign = variant(&fleet, "foreign", r#"s/"architecture":"[^"]*"/"architecture":"s390x"/"#).await;
    let cut = fleet.directory().join("cut.tar");
    let damaged = fleet.directory().join("damaged.tar");
    let bytes = std::fs::read(&new).unwrap();
    std::fs::write(&cut, &bytes[..bytes.len() / 2]).unwrap();
    // In the middle of a layer, which Podman has already and would not look at.
    let mut flipped = bytes.clone();
    flipped[1_000_000] ^= 1;
    std::fs::write(&damaged, flipped).unwrap();
    for (archive, words) in [(&foreign, "s390x"), (&cut, "cut off"), (&damaged, "is damaged")] {
        let refused = load(&fleet, "nyc", archive).await;
        assert!(refused.code != 0 && refused.stdout.is_empty() && refused.stderr.contains(words), "{refused:?}");
        assert_eq!(work_image(&fleet, "nyc").await, old, "{words}");
    }

    let line = load(&fleet, "nyc", &new).await.ok();
    let digest = line.split_whitespace().nth(1).unwrap().to_owned();
    assert!(line.starts_with("localhost/feather-work:latest sha256:") && digest != old, "{line}");
    assert_eq!(work_image(&fleet, "nyc").await, digest);
    let copied = fleet.featherctl(&["image", "sync", "--from", "nyc", "--to", "fra"]).await;
    assert!(copied.clone().ok().contains(&digest), "{copied:?}");
    assert_eq!(work_image(&fleet, "fra").await, digest);
    let again = fleet.featherctl_json(&["image", "sync", "--from", "nyc", "--to", "fra"]).await;
    assert_eq!(again["present"], true);

    // Alice keeps hers, which has lost its name on both servers, and moves with it.
    assert_eq!(fleet.featherctl_json(&["tenant", "show", "alice"]).await["image_digest"], old.as_str());
    fleet.migrate("alice", "fra").await;
    fleet.answers("fra", &alice).await;
    assert_eq!(fleet.featherctl_json(&["tenant", "show", "alice"]).await["image_digest"], old.as_str());
    fleet.add("bob", &["--server", "fra"]).await;
    assert_eq!(fleet.featherctl_json(&["tenant", "show", "bob"]).await["image_digest"], digest.as_str());

    a_full_disk_takes_nothing(&fleet, &digest).await;
    let held = fleet.holdings().await;
    assert_eq!(held["fra"], Holdings::of(&["alice", "bob"], &[]), "nothing that ran was touched");
    fleet.finish().await;
}

async fn a_full_disk_takes_nothing(fleet: &Real, before: &str) {
    let newer = variant(fleet, "newer", r#"s/"os":"linux"/"os":"linux","author":"newer"/"#).await;
    // A layer that Podman has not got yet: with the same one it needs no room.
    let script = format!(
        "set -e; cd {folder}; rm {archive}; old=$(ls | grep -E '^[0-9a-f]{{64}}[.]tar$' | sed 's/.tar//')
         mkdir root; head -c 20M /dev/urandom >root/ballast; tar cf layer --format=ustar -C root ballast
         new=$(sha256sum layer | cut -d' ' -f1); rm $old.tar; mv layer $new.tar
         config=$(ls | grep -E '^[0-9a-f]{{64}}[.]json$' | while read one; do grep -l newer $one || true; done)
         sed \"s/$old/$new/\" $config >changed; name=$(sha256sum changed | cut -d' ' -f1).json; mv changed $name
         sed -i \"s/$config/$name/; s/$old/$new/\" manifest.json; tar cf {archive} --format=ustar $new.tar $name manifest.json",
        folder = fleet.directory().join("newer").display(),
        archive = newer.display(),
    );
    fleet.run("bash", &["-c", &script]).await.ok();
    let fill = "head -c 1000M /dev/zero >/var/lib/containers/others || true; truncate --size -4M /var/lib/containers/others; sync";
    fleet.inside("fra", fill).await;
    // Its size is known, so it is not even sent; then it is not known.
    let known = load(fleet, "fra", &newer).await;
    let piped = format!("cat {} | \"$FEATHER_BINARIES\"/featherctl image load fra -", newer.display());
    let piped = fleet.run("bash", &["-c", &piped]).await;
    for (refused, words) in [(known, "make room"), (piped, "the disk of this server is full")] {
        assert!(refused.code == 1 && refused.stdout.is_empty() && refused.stderr.contains(words), "{refused:?}");
    }
    fleet.inside("fra", "rm /var/lib/containers/others").await.ok();
    assert_eq!(work_image(fleet, "fra").await, before);
    let line = load(fleet, "fra", &newer).await.ok();
    assert!(
        work_image(fleet, "fra").await != before && line.contains("sha256:"),
        "with room again it is loaded: {line}"
    );
}
