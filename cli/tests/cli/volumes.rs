//! Archives in and out: never half a file that looks whole.

use feather_proto::{
    error::{Error, reason},
    pb::{controller::v1 as pb, types::v1 as types_pb},
};
use insta::assert_snapshot;

use crate::controller::{Act, Controller};

fn chunk(text: &str) -> Act<pb::ExportVolumeResponse> {
    Act::Send(pb::ExportVolumeResponse { data: text.to_owned().into() })
}

fn summary() -> Option<types_pb::VolumeSummary> {
    Some(types_pb::VolumeSummary {
        files: 1,
        directories: 2,
        entries: 4,
        bytes: 2048,
        data_bytes: 2048,
        skipped_sockets: 1,
        root_digest: "5f3a".repeat(16),
    })
}

#[tokio::test]
async fn export_writes_the_archive_to_stdout() {
    let controller = Controller::start().await;
    controller.answers("ExportVolume", vec![chunk("first "), chunk("second")]);
    let ran = controller.run("volume export alice").await;
    assert_eq!((ran.stdout.as_str(), ran.code), ("first second", Some(0)), "{ran}");
}

#[tokio::test]
async fn an_export_file_appears_only_when_it_is_whole() {
    let controller = Controller::start().await;
    controller.answers("ExportVolume", vec![chunk("first "), Act::Break]);
    assert_snapshot!(controller.run("volume export alice --file HOME/alice.tar").await, @r"
    --- stderr
    unreachable: the connection to the controller at CONTROLLER broke (gone)
    next: nothing was left behind; check that feather-controller runs and that --controller (FEATHERCTL_CONTROLLER) is its address
    --- exit 3
    ");
    assert!(!controller.file("alice.tar").exists() && !controller.file("alice.tar.part").exists());

    controller.answers("ExportVolume", vec![chunk("first "), chunk("second")]);
    assert_snapshot!(controller.run("volume export alice --file HOME/alice.tar").await, @r"
    --- stderr
    exported alice: an archive of 12 B
    --- exit 0
    ");
    assert_eq!(std::fs::read_to_string(controller.file("alice.tar")).unwrap(), "first second");
    assert!(!controller.file("alice.tar.part").exists());

    assert_snapshot!(controller.run("volume export alice --file HOME/alice.tar").await, @r"
    --- stderr
    error: HOME/alice.tar exists
    next: choose another file, or replace it with --yes
    --- exit 2
    ");
    controller.answers("ExportVolume", vec![chunk("new")]);
    assert_eq!(controller.run("volume export alice --file HOME/alice.tar --yes").await.code, Some(0));
    assert_eq!(std::fs::read_to_string(controller.file("alice.tar")).unwrap(), "new");
}

#[tokio::test]
async fn an_export_to_stdout_that_breaks_fails() {
    let controller = Controller::start().await;
    controller.answers("ExportVolume", vec![chunk("first "), Act::Break]);
    assert_snapshot!(controller.run("volume export alice").await, @r"
    --- stdout
    first 
    --- stderr
    unreachable: the connection to the controller at CONTROLLER broke (gone)
    next: throw away what was written, it is not whole; then check that feather-controller runs and that --controller (FEATHERCTL_CONTROLLER) is its address
    --- exit 3
    ");

    let missing = Error::not_found(reason::VOLUME_NOT_FOUND, "alice has no volume");
    controller.refuses("ExportVolume", missing);
    assert_snapshot!(controller.run("volume export alice").await, @r"
    --- stderr
    error: alice has no volume
    next: `featherctl volume list` shows the volumes there are
    --- exit 1
    ");
}

#[tokio::test]
async fn import_asks_before_it_replaces() {
    let controller = Controller::start().await;
    assert_snapshot!(controller.run_with_input("volume import alice", b"archive").await, @r"
    --- stderr
    error: nobody can be asked to confirm this here, and --yes was not given
    next: add --yes if you mean it. This replaces all data of alice by that of the archive.
    --- exit 2
    ");
    assert_eq!(controller.calls(), "");
}

#[tokio::test]
async fn import_sends_all_and_says_so() {
    let controller = Controller::start().await;
    for _ in 0..2 {
        controller.answers("ImportVolume", pb::ImportVolumeResponse { summary: summary() });
    }
    let archive = vec![7; 700_000];
    assert_snapshot!(controller.run_with_input("volume import alice --yes", &archive).await, @r"
    --- stdout
    alice holds 2.0 KiB in 1 file, root digest 5f3a5f3a5f3a5f3a5f3a5f3a5f3a5f3a5f3a5f3a5f3a5f3a5f3a5f3a5f3a5f3a
    --- stderr
    `featherctl tenant start alice` starts it (`tenant add`, if it was removed)
    --- exit 0
    ");
    std::fs::write(controller.file("alice.tar"), &archive).unwrap();
    assert_snapshot!(controller.run("volume import alice HOME/alice.tar --yes --output json").await, @r#"
    --- stdout
    {
      "tenant": "alice",
      "summary": {
        "bytes": 2048,
        "files": 1,
        "directories": 2,
        "entries": 4,
        "skipped_sockets": 1,
        "root_digest": "5f3a5f3a5f3a5f3a5f3a5f3a5f3a5f3a5f3a5f3a5f3a5f3a5f3a5f3a5f3a5f3a"
      }
    }
    --- exit 0
    "#);
    assert_snapshot!(controller.calls(), @r"
    ImportVolume: alice, 700000 bytes, whole: true
    ImportVolume: alice, 700000 bytes, whole: true
    ");
}

#[tokio::test]
async fn an_archive_that_cannot_be_read_is_not_sent_as_whole() {
    let controller = Controller::start().await;
    assert_snapshot!(controller.run("volume import alice HOME/nothing.tar --yes").await, @r"
    --- stderr
    error: cannot read HOME/nothing.tar: No such file or directory (os error 2)
    next: check the name of the archive
    --- exit 1
    ");
    controller.refuses("ImportVolume", Error::invalid(reason::BAD_STREAM, "the archive was not sent whole"));
    // A folder can be opened and not be read.
    assert_snapshot!(controller.run("volume import alice HOME --yes").await, @r"
    --- stderr
    error: cannot read the archive to its end: Is a directory (os error 21)
    next: what alice holds stays as it was until a whole archive is there: import it again
    --- exit 1
    ");
    assert!(controller.calls().ends_with("whole: false"), "{}", controller.calls());
}

#[tokio::test]
async fn verify_prints_the_whole_digest() {
    let controller = Controller::start().await;
    for _ in 0..2 {
        controller.answers("VerifyVolume", pb::VerifyVolumeResponse { server: "fra".into(), summary: summary() });
    }
    assert_snapshot!(controller.run("volume verify alice").await, @r"
    --- stdout
    tenant       alice
    server       fra
    size         2.0 KiB in 1 file
    directories  2
    entries      4
    root digest  5f3a5f3a5f3a5f3a5f3a5f3a5f3a5f3a5f3a5f3a5f3a5f3a5f3a5f3a5f3a5f3a
    note         1 socket left out: a socket means nothing without its process
    --- exit 0
    ");
    assert_snapshot!(controller.run("volume verify alice --output json").await, @r#"
    --- stdout
    {
      "tenant": "alice",
      "server": "fra",
      "summary": {
        "bytes": 2048,
        "files": 1,
        "directories": 2,
        "entries": 4,
        "skipped_sockets": 1,
        "root_digest": "5f3a5f3a5f3a5f3a5f3a5f3a5f3a5f3a5f3a5f3a5f3a5f3a5f3a5f3a5f3a5f3a"
      }
    }
    --- exit 0
    "#);
}
