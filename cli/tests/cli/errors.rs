//! What goes wrong before or instead of a change: every message says what to do next.

use feather_proto::{
    error::{Error, reason},
    pb::controller::v1 as pb,
    tls::{Principal, Role},
};
use insta::assert_snapshot;
use time::macros::datetime;

use crate::{
    controller::Controller,
    identity::{Fleet, admin},
    tenants::ID,
};

#[tokio::test]
async fn nobody_listens() {
    let controller = Controller::start().await;
    // Bound and closed again: nothing listens there.
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    for arguments in ["tenant list", "tenant add alice"] {
        let ran = controller.run(&format!("{arguments} --controller {free}")).await;
        let text = ran.to_string().replace(&free.to_string(), "CONTROLLER");
        insta::allow_duplicates! { assert_snapshot!(text, @""); }
    }
    let ran = controller.run(&format!("tenant list --output json --controller {free}")).await;
    assert_snapshot!(ran.to_string().replace(&free.to_string(), "CONTROLLER"), @"");
}

#[tokio::test]
async fn there_is_no_identity_file() {
    let controller = Controller::start().await;
    assert_snapshot!(controller.run("tenant list --identity HOME/nowhere").await, @"");
    std::fs::write(controller.file("notes.txt"), "hello").unwrap();
    assert_snapshot!(controller.run("tenant list --identity HOME/notes.txt").await, @"");
}

#[tokio::test]
async fn the_certificate_has_expired() {
    let controller = Controller::start().await;
    let (from, until) = (datetime!(2025-01-01 0:00 UTC), datetime!(2025-02-01 0:00 UTC));
    controller.use_identity(&controller.fleet.issue_for(&admin(), from, until));
    assert_snapshot!(controller.run("tenant list").await, @"");
}

#[tokio::test]
async fn the_identity_is_of_another_fleet() {
    let controller = Controller::start().await;
    let other = Fleet::new();
    controller.use_identity(&other.issue(&admin()));
    assert_snapshot!(controller.run("tenant list").await, @"");
    controller.use_identity(&other.impostor(&controller.fleet, &admin()));
    assert_snapshot!(controller.run("tenant list").await, @"");
}

#[tokio::test]
async fn the_address_is_not_the_controllers() {
    let fleet = Fleet::new();
    let agent = fleet.issue(&Principal { role: Role::Agent, name: "nyc".into() });
    let controller = Controller::start_as(fleet, agent).await;
    assert_snapshot!(controller.run("tenant list").await, @"");
}

#[tokio::test]
async fn refusals_of_the_controller_come_with_the_next_command() {
    let controller = Controller::start().await;
    let missing = || Error::not_found(reason::TENANT_NOT_FOUND, "there is no tenant bob").with("tenant", "bob");
    controller.refuses("GetTenant", missing()).refuses("GetTenant", missing());
    assert_snapshot!(controller.run("tenant show bob").await, @"");
    assert_snapshot!(controller.run("tenant show bob --output json").await, @"");

    let exists = Error::exists(reason::TENANT_EXISTS, "alice exists already").with("tenant", "alice");
    let busy =
        Error::refused(reason::OPERATION_RUNNING, "an operation is changing alice already").with("operation", ID);
    let full = Error::full(reason::NO_ROOM, "no server has room: nyc has no free port, fra has not enough memory");
    controller.refuses("AddTenant", exists).refuses("MigrateTenant", busy).refuses("AddTenant", full);
    assert_snapshot!(controller.run("tenant add alice").await, @"");
    assert_snapshot!(controller.run("tenant migrate alice --to fra").await, @"");
    assert_snapshot!(controller.run("tenant add carol").await, @"");

    let role = Error::denied(reason::ROLE, "viewer/eve may not do this; it needs the role operator or admin");
    controller.refuses("StopTenant", role);
    assert_snapshot!(controller.run("tenant stop alice").await, @"");
    controller
        .refuses("CancelOperation", Error::refused(reason::NOT_CANCELLABLE, "the move is past its point of no return"));
    assert_snapshot!(controller.run(&format!("operation cancel {ID}")).await, @"");
}

#[tokio::test]
async fn bugs_exit_with_70() {
    let controller = Controller::start().await;
    controller.refuses("ListTenants", Error::bug("a secret detail"));
    assert_snapshot!(controller.run("tenant list").await, @"");
    controller.answers("GetTenant", pb::GetTenantResponse { tenant: None });
    assert_snapshot!(controller.run("tenant show alice").await, @"");
}

#[tokio::test]
async fn an_older_controller_is_named_as_such() {
    let controller = Controller::start().await;
    assert_snapshot!(controller.run("volume list").await, @"");
}
