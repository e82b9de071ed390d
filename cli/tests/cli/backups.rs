//! Copies of the controller's store: whole, or not there.

use std::os::unix::fs::PermissionsExt as _;

use feather_proto::{pb::controller::v1 as pb, tls::sha256_hex};

use crate::controller::{Act, Controller};

fn pieces(digest: &str) -> Vec<Act<pb::BackupStoreResponse>> {
    let data = |text: &'static str| Act::Send(pb::BackupStoreResponse { data: text.into(), digest: String::new() });
    let last = pb::BackupStoreResponse { data: "".into(), digest: digest.to_owned() };
    vec![data("one"), data("two"), Act::Send(last)]
}

#[tokio::test]
async fn a_backup_is_a_file_for_its_owner_only_and_whole() {
    let controller = Controller::start().await;
    let file = controller.file("store.db");
    controller.answers("BackupStore", pieces(&sha256_hex(b"onetwo")));
    let ran = controller.run("controller backup store.db").await;
    assert_eq!(ran.code, Some(0), "{ran}");
    assert!(ran.stderr.contains("backed up 6 B") && ran.stderr.contains("store.key"), "{ran}");
    assert_eq!(std::fs::read(&file).unwrap(), b"onetwo");
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(controller.run("controller backup store.db").await.code, Some(2), "it is not overwritten");
    controller.answers("BackupStore", pieces(&sha256_hex(b"onetwo")));
    let piped = controller.run("controller backup -").await;
    assert_eq!((piped.code, piped.stdout.as_str()), (Some(0), "onetwo"));
}

#[tokio::test]
async fn what_does_not_arrive_whole_leaves_nothing() {
    let controller = Controller::start().await;
    let cut: Vec<Act<pb::BackupStoreResponse>> = pieces("").into_iter().take(2).collect();
    let mut broken: Vec<Act<pb::BackupStoreResponse>> = pieces("").into_iter().take(1).collect();
    broken.push(Act::Break);
    for acts in [cut, broken, pieces(&sha256_hex(b"something else"))] {
        controller.answers("BackupStore", acts);
        let ran = controller.run("controller backup store.db").await;
        assert_eq!(ran.code, Some(3), "{ran}");
        assert!(!controller.file("store.db").exists() && !controller.file("store.db.part").exists(), "{ran}");
    }
}
