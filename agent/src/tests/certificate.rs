//! The tenants' certificate of a whole agent: from the controller's call to the file, over a crash, and in no log.

use feather_proto::{
    error::{Error, reason},
    pb::agent::v1::{self as pb, certificate_service_client::CertificateServiceClient},
    tls::Role,
};

use super::harness::{World, captured_log};

fn request(name: &str) -> pb::SetCertificateRequest {
    let made = rcgen::generate_simple_self_signed([name.to_owned()]).unwrap();
    pb::SetCertificateRequest { chain_pem: made.cert.pem(), key_pem: made.signing_key.serialize_pem() }
}

#[tokio::test]
async fn a_certificate_is_taken_reported_and_there_after_a_crash() {
    let world = World::new();
    let mut nyc = world.started("nyc").await;
    assert_eq!(nyc.snapshot().await.certificate, None);
    let mut client = CertificateServiceClient::new(nyc.as_role(&world, Role::Controller, "controller"));
    let good = request("*.users.inceptel.ai");
    let held = client.set_certificate(good.clone()).await.unwrap().into_inner().held;
    assert!(held.is_some());
    assert_eq!(nyc.snapshot().await.certificate, held);

    let other = Error::from(client.set_certificate(request("*.example.com")).await.err().unwrap());
    assert_eq!(other.reason, reason::INVALID_FIELD, "{other}");
    let mut viewer = CertificateServiceClient::new(nyc.as_role(&world, Role::Viewer, "vera"));
    let denied = Error::from(viewer.set_certificate(good.clone()).await.err().unwrap());
    assert_eq!(denied.reason, reason::ROLE, "{denied}");

    nyc.crash().await;
    nyc.start().await;
    assert_eq!(nyc.snapshot().await.certificate, held);
    let key: String = good.key_pem.lines().nth(1).unwrap().into();
    assert!(!captured_log().contains(&key), "a key is in the log");
}
