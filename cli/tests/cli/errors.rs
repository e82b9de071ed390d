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
        insta::allow_duplicates! { assert_snapshot!(text, @r"
        --- stderr
        unreachable: no controller answers at CONTROLLER (Connection refused (os error 111))
        next: check that feather-controller runs and that --controller (FEATHERCTL_CONTROLLER) is its address
        --- exit 3
        "); }
    }
    let ran = controller.run(&format!("tenant list --output json --controller {free}")).await;
    assert_snapshot!(ran.to_string().replace(&free.to_string(), "CONTROLLER"), @r#"
    --- stderr
    {"error":{"code":"unavailable","reason":"CONTROLLER_UNREACHABLE","message":"no controller answers at CONTROLLER (Connection refused (os error 111))","hint":"check that feather-controller runs and that --controller (FEATHERCTL_CONTROLLER) is its address","exit_code":3,"metadata":{"controller":"CONTROLLER"}}}
    --- exit 3
    "#);
}

#[tokio::test]
async fn there_is_no_identity_file() {
    let controller = Controller::start().await;
    assert_snapshot!(controller.run("tenant list --identity HOME/nowhere").await, @r"
    --- stderr
    error: there is no identity file at HOME/nowhere
    next: `feather-controller init` makes one on the controller's machine and prints its path; copy it here, or point --identity (FEATHERCTL_IDENTITY) at it
    --- exit 2
    ");
    std::fs::write(controller.file("notes.txt"), "hello").unwrap();
    assert_snapshot!(controller.run("tenant list --identity HOME/notes.txt").await, @r"
    --- stderr
    error: HOME/notes.txt is not an identity file of Feather; use the one that `feather-controller init` or `feather-agent join` wrote
    next: point --identity (FEATHERCTL_IDENTITY) at the identity file that `feather-controller init` wrote for this fleet, on the controller's machine
    --- exit 2
    ");
}

#[tokio::test]
async fn the_certificate_has_expired() {
    let controller = Controller::start().await;
    let (from, until) = (datetime!(2025-01-01 0:00 UTC), datetime!(2025-02-01 0:00 UTC));
    controller.use_identity(&controller.fleet.issue_for(&admin(), from, until));
    assert_snapshot!(controller.run("tenant list").await, @r"
    --- stderr
    error: the certificate in HOME/.config/feather/admin.identity expired at 2025-02-01T00:00:00Z
    next: get a new identity file from whoever runs the controller, and point --identity (FEATHERCTL_IDENTITY) at it
    --- exit 1
    ");
}

#[tokio::test]
async fn the_identity_is_of_another_fleet() {
    let controller = Controller::start().await;
    let other = Fleet::new();
    controller.use_identity(&other.issue(&admin()));
    assert_snapshot!(controller.run("tenant list").await, @r"
    --- stderr
    error: the controller at CONTROLLER belongs to another fleet than your identity file
    next: point --identity (FEATHERCTL_IDENTITY) at the identity file that `feather-controller init` wrote for this fleet, on the controller's machine
    --- exit 1
    ");
    controller.use_identity(&other.impostor(&controller.fleet, &admin()));
    assert_snapshot!(controller.run("tenant list").await, @r"
    --- stderr
    error: the controller at CONTROLLER does not accept your identity (received fatal alert: DecryptError)
    next: point --identity (FEATHERCTL_IDENTITY) at the identity file that `feather-controller init` wrote for this fleet, on the controller's machine; check that the clocks of both machines are right
    --- exit 1
    ");
}

#[tokio::test]
async fn the_address_is_not_the_controllers() {
    let fleet = Fleet::new();
    let agent = fleet.issue(&Principal { role: Role::Agent, name: "nyc".into() });
    let controller = Controller::start_as(fleet, agent).await;
    assert_snapshot!(controller.run("tenant list").await, @r"
    --- stderr
    error: what answers at CONTROLLER is a member of your fleet, but not its controller
    next: point --controller (FEATHERCTL_CONTROLLER) at the controller, usually on port 7400
    --- exit 1
    ");
}

#[tokio::test]
async fn refusals_of_the_controller_come_with_the_next_command() {
    let controller = Controller::start().await;
    let missing = || Error::not_found(reason::TENANT_NOT_FOUND, "there is no tenant bob").with("tenant", "bob");
    controller.refuses("GetTenant", missing()).refuses("GetTenant", missing());
    assert_snapshot!(controller.run("tenant show bob").await, @r"
    --- stderr
    error: there is no tenant bob
    next: `featherctl tenant list --all` shows the tenants there are
    --- exit 1
    ");
    assert_snapshot!(controller.run("tenant show bob --output json").await, @r#"
    --- stderr
    {"error":{"code":"not-found","reason":"TENANT_NOT_FOUND","message":"there is no tenant bob","hint":"`featherctl tenant list --all` shows the tenants there are","exit_code":1,"metadata":{"tenant":"bob"}}}
    --- exit 1
    "#);

    let exists = Error::exists(reason::TENANT_EXISTS, "alice exists already").with("tenant", "alice");
    let busy =
        Error::refused(reason::OPERATION_RUNNING, "an operation is changing alice already").with("operation", ID);
    let full = Error::full(reason::NO_ROOM, "no server has room: nyc has no free port, fra has not enough memory");
    controller.refuses("AddTenant", exists).refuses("MigrateTenant", busy).refuses("AddTenant", full);
    assert_snapshot!(controller.run("tenant add alice").await, @r"
    --- stderr
    error: alice exists already
    next: `featherctl tenant show alice` shows where it lives
    --- exit 1
    ");
    assert_snapshot!(controller.run("tenant migrate alice --to fra").await, @r"
    --- stderr
    error: an operation is changing alice already
    next: `featherctl operation watch op-00000000-0000-0000-0000-000000000001` follows it, `featherctl operation cancel op-00000000-0000-0000-0000-000000000001` undoes it
    --- exit 1
    ");
    assert_snapshot!(controller.run("tenant add carol").await, @r"
    --- stderr
    error: no server has room: nyc has no free port, fra has not enough memory
    next: `featherctl server list` shows what is free; `featherctl server invite NAME` adds a server
    --- exit 1
    ");

    let role = Error::denied(reason::ROLE, "viewer/eve may not do this; it needs the role operator or admin");
    controller.refuses("StopTenant", role);
    assert_snapshot!(controller.run("tenant stop alice").await, @r"
    --- stderr
    error: viewer/eve may not do this; it needs the role operator or admin
    next: use an identity with that role: --identity FILE (FEATHERCTL_IDENTITY)
    --- exit 1
    ");
    controller
        .refuses("CancelOperation", Error::refused(reason::NOT_CANCELLABLE, "the move is past its point of no return"));
    assert_snapshot!(controller.run(&format!("operation cancel {ID}")).await, @r"
    --- stderr
    error: the move is past its point of no return
    next: `featherctl operation show op-00000000-0000-0000-0000-000000000001` shows how far it is
    --- exit 1
    ");
}

#[tokio::test]
async fn a_next_step_is_not_said_twice() {
    let controller = Controller::start().await;
    let message = "there is no tenant bob; `featherctl tenant list --all` shows them, also removed ones";
    controller.refuses("GetTenant", Error::not_found(reason::TENANT_NOT_FOUND, message));
    assert_snapshot!(controller.run("tenant show bob").await, @r"
    --- stderr
    error: there is no tenant bob; `featherctl tenant list --all` shows them, also removed ones
    --- exit 1
    ");
}

#[tokio::test]
async fn a_former_name_of_a_server_is_answered_with_the_one_of_today() {
    let controller = Controller::start().await;
    let renamed = Error::not_found(reason::SERVER_NOT_FOUND, "there is no server nyc: it is called ewr now");
    controller.refuses("GetServer", renamed.with("server", "nyc").with("called", "ewr"));
    assert_snapshot!(controller.run("server show nyc").await, @r"
    --- stderr
    error: there is no server nyc: it is called ewr now
    next: repeat the command with ewr
    --- exit 1
    ");
}

#[tokio::test]
async fn bugs_exit_with_70() {
    let controller = Controller::start().await;
    controller.refuses("ListTenants", Error::bug("a secret detail"));
    assert_snapshot!(controller.run("tenant list").await, @r"
    --- stderr
    bug: internal error; the log of the answering process has the details
    next: this is a bug in Feather: report it with the command, the output of `featherctl version` and the controller's log
    --- exit 70
    ");
    controller.answers("GetTenant", pb::GetTenantResponse { tenant: None });
    assert_snapshot!(controller.run("tenant show alice").await, @r"
    --- stderr
    bug: the controller's answer lacks the tenant
    next: this is a bug in Feather: report it with the command, the output of `featherctl version` and the controller's log
    --- exit 70
    ");
}

#[tokio::test]
async fn an_older_controller_is_named_as_such() {
    let controller = Controller::start().await;
    assert_snapshot!(controller.run("volume list").await, @r#"
    --- stderr
    error: the controller speaks protocol 1-2 and cannot do VolumeService/ListVolumes, so nothing was done; upgrade the controller (docs/versions.md says what each version brought)
    next: docs/operations.md says under "Upgrades" what is upgraded first
    --- exit 1
    "#);
}
