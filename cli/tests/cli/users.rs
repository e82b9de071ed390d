//! People: letting them in, showing them, taking their certificates back; logging in, and staying so.

#![allow(clippy::disallowed_methods, reason = "certificates of a test must hold at the time of the test")]

use std::os::unix::fs::PermissionsExt as _;

use feather_proto::{
    error::{Error, reason},
    login_token::LoginToken,
    pb::controller::v1 as pb,
    tls::Identity,
};
use insta::assert_snapshot;
use time::{Duration, OffsetDateTime, macros::datetime};

use crate::{
    controller::Controller,
    identity::{ada, admin},
};

fn stamp(at: OffsetDateTime) -> Option<prost_types::Timestamp> {
    Some(prost_types::Timestamp { seconds: at.unix_timestamp(), nanos: 0 })
}

#[tokio::test]
async fn people_are_let_in_shown_and_put_out() {
    let controller = Controller::start().await;
    let expires = stamp(datetime!(2026-11-28 15:00:00 UTC));
    controller.answers("AddUser", pb::AddUserResponse { token: "feather-login-x".into(), expires });
    assert_snapshot!(controller.run("user add ada --role operator --expires 90d").await, @r"
    --- stdout
    feather-login-x
    --- stderr
    Hand this token to ada, once, within 3 hours, until 2026-11-28T15:00:00Z; it is pasted where `featherctl login` asks for it:
    --- exit 0
    ");
    let ada = pb::User {
        name: "ada".into(),
        role: "operator".into(),
        added_by: "admin/root".into(),
        valid_until: stamp(datetime!(2027-02-26 12:00:00 UTC)),
        last_seen: stamp(datetime!(2026-11-28 12:00:00 UTC)),
        web_until: stamp(datetime!(2026-11-28 15:00:00 UTC)),
        ..Default::default()
    };
    let eve = pb::User {
        name: "eve".into(),
        role: "viewer".into(),
        revoked: stamp(datetime!(2026-11-28 12:00:00 UTC)),
        revoked_by: "admin/root".into(),
        ..Default::default()
    };
    controller.answers("ListUsers", pb::ListUsersResponse { users: vec![ada, eve] });
    assert_snapshot!(controller.run("user list").await, @r"
    --- stdout
    NAME  ROLE      VALID UNTIL           LAST SEEN             WEB UNTIL             REVOKED
    ada   operator  2027-02-26T12:00:00Z  2026-11-28T12:00:00Z  2026-11-28T15:00:00Z  -
    eve   viewer    not logged in yet     never                 -                     2026-11-28T12:00:00Z by admin/root
    --- exit 0
    ");
    assert_eq!(controller.run("user revoke ada").await.code, Some(2), "nobody can be asked");
    controller.answers("RevokeUser", pb::RevokeUserResponse {});
    assert_snapshot!(controller.run("user revoke ada --yes").await, @r"
    --- stderr
    ada is out; `featherctl user add ada` lets ada in again
    --- exit 0
    ");
    let last = Error::refused(reason::LAST_ADMIN, "root is the last admin");
    controller.refuses("RevokeUser", last);
    assert_eq!(controller.run("user revoke root --yes").await.code, Some(1));
    assert_snapshot!(controller.calls(), @r#"
    AddUser: AddUserRequest { name: "ada", role: "operator", life_seconds: 7776000, ttl_seconds: 10800, again: false }
    ListUsers: ListUsersRequest
    RevokeUser: RevokeUserRequest { name: "ada", unseen: false }
    RevokeUser: RevokeUserRequest { name: "root", unseen: false }
    "#);
}

#[tokio::test]
async fn a_token_for_the_web_page_is_printed_alone() {
    let controller = Controller::start().await;
    let expires = stamp(datetime!(2026-11-28 15:00:00 UTC));
    let answer = |name: &str, page: &str| pb::CreateWebTokenResponse {
        token: "feather-web-x".into(),
        expires,
        name: name.into(),
        page: page.into(),
    };
    controller.answers("CreateWebToken", answer("admin", "127.0.0.1:7480"));
    assert_snapshot!(controller.run("user web").await, @r"
    --- stdout
    feather-web-x
    --- stderr
    Paste it at http://127.0.0.1:7480/ on the controller's machine; admin may look, until 2026-11-28T15:00:00Z:
    --- exit 0
    ");
    controller.answers("CreateWebToken", answer("wall", ""));
    let ran = controller.run("user web wall --ttl 90d").await;
    assert!(ran.code == Some(0) && ran.stderr.contains("feather-controller serve --http"), "{ran}");
    assert_snapshot!(controller.calls(), @r#"
    CreateWebToken: CreateWebTokenRequest { name: "", ttl_seconds: 43200 }
    CreateWebToken: CreateWebTokenRequest { name: "wall", ttl_seconds: 7776000 }
    "#);
}

#[tokio::test]
async fn whoever_logs_in_makes_the_key_here_and_shows_the_token_to_nobody() {
    let controller = Controller::start().await;
    let token = LoginToken {
        controller: controller.address().to_owned(),
        ca_fingerprint: controller.fleet.fingerprint(),
        name: "ada".into(),
        secret: "hush".into(),
    };
    let file = controller.file("ada.identity");
    let command = format!("login --identity {}", file.display());
    let answer = || pb::LoginResponse { name: "ada".into(), role: "operator".into(), ..Default::default() };
    // The first reply is lost.
    controller.breaks("Login").answers("Login", answer());
    let ran = controller.run_with_input(&command, token.to_string().as_bytes()).await;
    assert_snapshot!(ran, @r"
    --- stdout
    operator/ada: HOME/ada.identity
    --- stderr
    The controller: export FEATHERCTL_CONTROLLER=CONTROLLER
    --- exit 0
    ");
    let identity = Identity::load(&file).unwrap();
    assert_eq!(identity.principal().unwrap(), ada());
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);

    let again = controller.run_with_input(&command, token.to_string().as_bytes()).await;
    assert!(again.code == Some(2) && again.stderr.contains("--replace"), "{again}");
    let garbage = controller.run_with_input(&format!("{command} --replace"), b"hush").await;
    assert!(garbage.code != Some(0) && !garbage.stderr.contains("hush"), "{garbage}");
    let other = LoginToken { ca_fingerprint: "ab".repeat(32), ..token };
    let elsewhere = controller.run_with_input(&format!("{command} --replace"), other.to_string().as_bytes()).await;
    assert!(elsewhere.code == Some(1) && elsewhere.stderr.contains("another fingerprint"), "{elsewhere}");
    assert_eq!(Identity::load(&file).unwrap().certificate_pem, identity.certificate_pem, "nothing was replaced");
    assert_eq!(controller.calls(), "Login: \"hush\"\nLogin: \"hush\"");
}

#[tokio::test]
async fn a_login_that_failed_on_the_way_goes_on_with_the_same_key() {
    let controller = Controller::start().await;
    let token = LoginToken {
        controller: controller.address().to_owned(),
        ca_fingerprint: controller.fleet.fingerprint(),
        name: "ada".into(),
        secret: "hush".into(),
    };
    let (file, key) = (controller.file("new/ada.identity"), controller.file("new/ada.identity.login-key"));
    let command = format!("login --identity {}", file.display());
    let answer = || pb::LoginResponse { name: "ada".into(), role: "operator".into(), ..Default::default() };
    controller.breaks("Login").breaks("Login");
    let ran = controller.run_with_input(&command, token.to_string().as_bytes()).await;
    assert!(ran.code != Some(0) && !ran.stderr.contains("PRIVATE"), "{ran}");
    assert_eq!(std::fs::metadata(&key).unwrap().permissions().mode() & 0o777, 0o600);
    let kept: serde_json::Value = serde_json::from_slice(&std::fs::read(&key).unwrap()).unwrap();
    controller.answers("Login", answer());
    let ran = controller.run_with_input(&command, token.to_string().as_bytes()).await;
    assert_eq!(ran.code, Some(0), "{ran}");
    let identity = Identity::load(&file).unwrap();
    assert_eq!(kept["key_pem"], identity.key_pem.as_str(), "the key that the controller may have heard of");
    assert!(!key.exists());
    // Where nothing can be written the controller hears of no key.
    std::fs::write(controller.file("file"), "").unwrap();
    let command = format!("login --identity {}", controller.file("file/ada.identity").display());
    let ran = controller.run_with_input(&command, token.to_string().as_bytes()).await;
    assert!(ran.code != Some(0) && ran.stderr.contains("--identity"), "{ran}");
    assert_eq!(controller.calls(), "Login: \"hush\"\nLogin: \"hush\"\nLogin: \"hush\"");
}

#[tokio::test]
async fn a_certificate_is_renewed_behind_a_command_when_it_is_due() {
    let controller = Controller::start().await;
    let now = OffsetDateTime::now_utc();
    let due = controller.fleet.issue_for(&admin(), now - Duration::hours(9), now + Duration::hours(1));
    let file = controller.file(".config/feather/admin.identity");
    let list = || pb::ListServersResponse::default();
    for renewable in [false, true] {
        due.save(&file).unwrap();
        controller.answers("ListServers", list());
        if renewable {
            controller.answers("RenewLogin", pb::RenewLoginResponse::default());
        }
        let ran = controller.run("server list").await;
        assert_eq!(ran.code, Some(0), "whatever becomes of the certificate: {ran}");
        let now_there = Identity::load(&file).unwrap();
        let renewed = now_there.certificate_pem != due.certificate_pem && now_there.key_pem != due.key_pem;
        assert_eq!(renewed, renewable, "{ran}");
        let said = if renewable { "your certificate was renewed" } else { "was not renewed" };
        assert!(ran.stderr.contains(said), "{ran}");
    }
    controller.answers("RenewLogin", pb::RenewLoginResponse::default());
    let before = Identity::load(&file).unwrap();
    let ran = controller.run("user renew").await;
    assert!(ran.code == Some(0) && ran.stdout.contains("is valid until"), "{ran}");
    assert_ne!(Identity::load(&file).unwrap().key_pem, before.key_pem);
}
