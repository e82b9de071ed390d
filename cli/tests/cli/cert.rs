//! The certificate: how it stands, and asking for another.

use feather_proto::{
    error::{Error, reason},
    pb::controller::v1 as pb,
};
use insta::assert_snapshot;
use time::macros::datetime;

use crate::controller::Controller;

fn stamp(at: time::OffsetDateTime) -> Option<prost_types::Timestamp> {
    Some(prost_types::Timestamp { seconds: at.unix_timestamp(), nanos: 0 })
}

fn server(name: &str, reachable: bool, fingerprint: &str, current: bool) -> pb::ServerCertificate {
    let not_after = if fingerprint.is_empty() { None } else { stamp(datetime!(2027-02-26 12:00:00 UTC)) };
    pb::ServerCertificate { server: name.into(), reachable, fingerprint: fingerprint.into(), not_after, current }
}

fn status() -> pb::GetCertStatusResponse {
    pb::GetCertStatusResponse {
        directory: "https://ca.example/dir".into(),
        names: vec!["users.example.com".into(), "*.users.example.com".into()],
        certificate: Some(pb::Certificate {
            issuer: "CN=Example CA".into(),
            serial: "0a:1b".into(),
            not_before: stamp(datetime!(2026-11-28 12:00:00 UTC)),
            not_after: stamp(datetime!(2027-02-26 12:00:00 UTC)),
            fingerprint: "ab".repeat(32),
        }),
        next_renewal: stamp(datetime!(2027-01-28 12:00:00 UTC)),
        last_try: stamp(datetime!(2026-11-28 12:00:10 UTC)),
        servers: vec![
            server("fra", true, "ab", true),
            server("lax", false, "cd", false),
            server("nyc", true, "", false),
        ],
        warnings: vec!["lax does not hold the newest certificate, and cannot be reached".into()],
        ..Default::default()
    }
}

#[tokio::test]
async fn the_certificate_is_shown_with_who_holds_it() {
    let controller = Controller::start().await;
    controller.answers("GetCertStatus", status());
    assert_snapshot!(controller.run("cert status").await, @r"
    --- stdout
    names        users.example.com, *.users.example.com
    authority    https://ca.example/dir
    issuer       CN=Example CA
    serial       0a:1b
    valid from   2026-11-28T12:00:00Z
    valid until  2027-02-26T12:00:00Z
    renewed      2027-01-28T12:00:00Z
    last try     2026-11-28T12:00:10Z

    SERVER  HOLDS    UNTIL                 ANSWERS
    fra     newest   2027-02-26T12:00:00Z  yes
    lax     another  2027-02-26T12:00:00Z  no
    nyc     none     -                     yes
    --- stderr
    lax does not hold the newest certificate, and cannot be reached
    --- exit 0
    ");
    controller.answers("GetCertStatus", pb::GetCertStatusResponse::default());
    assert_snapshot!(controller.run("cert status").await, @r"
    --- stdout
    this controller obtains no certificate (--acme-directory); servers with DOMAIN get their own
    --- exit 0
    ");
}

#[tokio::test]
async fn another_certificate_is_asked_for() {
    let controller = Controller::start().await;
    controller.answers("RenewCert", pb::RenewCertResponse {});
    assert_snapshot!(controller.run("cert renew").await, @r"
    --- stderr
    another certificate is being obtained; `featherctl cert status` shows how far that is
    --- exit 0
    ");
    let message = "this controller obtains no certificates; start it with --acme-directory and --dns";
    controller.refuses("RenewCert", Error::refused(reason::NO_CERTIFICATES, message));
    assert_snapshot!(controller.run("cert renew").await, @r#"
    --- stderr
    error: this controller obtains no certificates; start it with --acme-directory and --dns
    next: docs/operations.md says how, under "The tenants' certificate"
    --- exit 1
    "#);
}
