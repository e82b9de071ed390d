//! No secret in any log.

use super::harness::{
    TICKET, World, activate, add, captured_log, grant, hand_off, pull, pulled, reserve, reset, seal, trial,
};
use crate::{
    local::client::{Name, Tenant},
    runtime::fake::Behaviour,
};

#[tokio::test]
async fn no_password_key_or_ticket_is_ever_logged_or_told_in_an_error() {
    let world = World::new();
    let (nyc, fra) = (world.started("nyc").await, world.started("fra").await);
    let mut secrets = vec![TICKET.to_owned(), "key-of-the-birth".to_owned()];
    secrets.push(nyc.add(1).await.unwrap().password);
    secrets.push(nyc.tenants().reset_password(reset(1)).await.unwrap().into_inner().password);
    fra.tenants().reserve_tenant(reserve(2, &fra)).await.unwrap();
    nyc.tenants().stop_tenant(seal(1)).await.unwrap();
    nyc.volumes().grant_transfer(grant(2, "fra")).await.unwrap();
    pulled(&fra, pull(2, &nyc)).await.unwrap();
    fra.tenants().start_tenant(trial(2)).await.unwrap();
    fra.tenants().activate_tenant(activate(2)).await.unwrap();
    nyc.tenants().hand_off_tenant(hand_off(2, "fra:80")).await.unwrap();

    // A container that prints what it was given.
    nyc.engine.add_image("localhost/feather-work:bad", "bad", Behaviour::NeverHealthy);
    let mut client = nyc.tenants();
    let request = feather_proto::pb::agent::v1::AddTenantRequest {
        tenant: "bob".into(),
        image: "localhost/feather-work:bad".into(),
        ..add(1)
    };
    let adding = tokio::spawn(async move { client.add_tenant(request).await.err().unwrap() });
    let spec = loop {
        if let Some(spec) = nyc.engine.spec("feather-user-bob") {
            break spec;
        }
        tokio::task::yield_now().await;
    };
    let bobs = spec.environment["FEATHER_PASSWORD"].clone();
    let chatter = format!("{bobs} and {}", spec.environment["OPENAI_API_KEY"]);
    nyc.engine.write_log("feather-user-bob", &chatter, true);
    let status = adding.await.unwrap();
    assert!(status.message().contains("*** and ***"), "{}", status.message());
    secrets.push(bobs);

    let mut lax = world.server("lax");
    lax.start_alone().await;
    let mut line = Vec::new();
    let add = Tenant::Add(Name::new("carol").unwrap());
    crate::local::client::run(&lax.socket(), add, &mut line).await.unwrap();
    let line = String::from_utf8(line).unwrap();
    secrets.push(line.trim_end().rsplit(' ').next().unwrap().to_owned());

    let log = captured_log();
    assert!(log.contains("add_tenant") && log.contains("local call"), "nothing was captured");
    for secret in secrets {
        assert!(!log.contains(&secret), "a secret is in the log");
        assert!(!status.message().contains(&secret));
    }
}
