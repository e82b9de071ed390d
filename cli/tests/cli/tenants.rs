//! Changing tenants and servers: what is sent, what is asked, what ends up on stdout.

use feather_proto::{
    model::to_timestamp,
    pb::{controller::v1 as pb, types::v1 as types_pb},
};
use insta::assert_snapshot;
use time::{Duration, macros::datetime};

use crate::controller::{Act, Controller};

pub(crate) const ID: &str = "op-00000000-0000-0000-0000-000000000001";

pub(crate) fn operation(kind: pb::OperationKind, state: pb::OperationState) -> pb::Operation {
    pb::Operation {
        id: ID.into(),
        kind: kind.into(),
        state: state.into(),
        tenant: "alice".into(),
        source: "nyc".into(),
        created: Some(to_timestamp(datetime!(2026-03-01 12:00 UTC))),
        ..Default::default()
    }
}

pub(crate) fn entry(sequence: u32, milliseconds: i64, step: &str, event: &str, message: &str) -> pb::OperationLogEntry {
    pb::OperationLogEntry {
        sequence,
        at: Some(to_timestamp(datetime!(2026-03-01 12:00 UTC) + Duration::milliseconds(milliseconds))),
        step: step.into(),
        event: event.into(),
        message: message.into(),
    }
}

pub(crate) fn says(operation: pb::Operation) -> Act<pb::WatchOperationResponse> {
    Act::Send(pb::WatchOperationResponse { operation: Some(operation), ..Default::default() })
}

/// The controller takes the add, and watching shows this.
pub(crate) fn add_is_taken(controller: &Controller, acts: Vec<Act<pb::WatchOperationResponse>>) {
    let running = operation(pb::OperationKind::Add, pb::OperationState::Running);
    controller.answers(
        "AddTenant",
        pb::AddTenantResponse {
            operation: Some(running),
            url: "https://alice.users.inceptel.ai".into(),
            server: "nyc".into(),
            explanation: vec![],
        },
    );
    controller.answers("WatchOperation", acts);
}

pub(crate) fn added(password: &str) -> Vec<Act<pb::WatchOperationResponse>> {
    let done = operation(pb::OperationKind::Add, pb::OperationState::Succeeded);
    vec![Act::Send(pb::WatchOperationResponse {
        operation: Some(done),
        password: password.into(),
        ..Default::default()
    })]
}

#[tokio::test]
async fn add_prints_one_line_and_nothing_else_on_stdout() {
    let controller = Controller::start().await;
    add_is_taken(&controller, added("x7k9m2"));
    let ran = controller.run("tenant add alice --server nyc").await;
    assert_eq!(ran.stdout, "https://alice.users.inceptel.ai | password: x7k9m2\n");
    assert_snapshot!(ran, @r"
    --- stdout
    https://alice.users.inceptel.ai | password: x7k9m2
    --- stderr
    operation op-00000000-0000-0000-0000-000000000001
    --- exit 0
    ");
    assert_snapshot!(controller.calls(), @r#"
    AddTenant: AddTenantRequest { request_id: "id-0", tenant: "alice", server: "nyc", dry_run: false, on: [], pin: "", limits: None, spread: "" }
    WatchOperation: WatchOperationRequest { id: "op-00000000-0000-0000-0000-000000000001" }
    "#);
}

#[tokio::test]
async fn add_as_json() {
    let controller = Controller::start().await;
    add_is_taken(&controller, added("x7k9m2"));
    assert_snapshot!(controller.run("tenant add alice --output json").await, @r#"
    --- stdout
    {
      "operation": "op-00000000-0000-0000-0000-000000000001",
      "kind": "add",
      "state": "succeeded",
      "tenant": "alice",
      "server": "nyc",
      "source": "nyc",
      "target": null,
      "url": "https://alice.users.inceptel.ai",
      "password": "x7k9m2",
      "migration": null
    }
    --- stderr
    {"operation":"op-00000000-0000-0000-0000-000000000001"}
    --- exit 0
    "#);
}

#[tokio::test]
async fn a_password_that_is_lost_can_be_set_anew() {
    let controller = Controller::start().await;
    add_is_taken(&controller, added(""));
    assert_snapshot!(controller.run("tenant add alice").await, @r"
    --- stdout
    https://alice.users.inceptel.ai
    --- stderr
    operation op-00000000-0000-0000-0000-000000000001
    alice is added, but its password was handed out before or is lost: `featherctl tenant password alice` sets a new one and prints it
    --- exit 0
    ");
    controller.answers(
        "ResetPassword",
        pb::ResetPasswordResponse { password: "abc123".into(), url: "https://alice.users.inceptel.ai".into() },
    );
    assert_snapshot!(controller.run("tenant password alice").await, @r"
    --- stdout
    https://alice.users.inceptel.ai | password: abc123
    --- exit 0
    ");
}

#[tokio::test]
async fn no_wait_prints_the_id_and_watch_prints_the_rest() {
    let controller = Controller::start().await;
    add_is_taken(&controller, added("x7k9m2"));
    assert_snapshot!(controller.run("tenant add alice --no-wait").await, @r"
    --- stdout
    op-00000000-0000-0000-0000-000000000001
    --- stderr
    `featherctl operation watch op-00000000-0000-0000-0000-000000000001` follows it and prints the password
    --- exit 0
    ");
    let tenant = pb::Tenant { url: "https://alice.users.inceptel.ai".into(), ..Default::default() };
    controller.answers("GetTenant", pb::GetTenantResponse { tenant: Some(tenant) });
    assert_snapshot!(controller.run(&format!("operation watch {ID}")).await, @r"
    --- stdout
    https://alice.users.inceptel.ai | password: x7k9m2
    --- exit 0
    ");
}

#[tokio::test]
async fn a_dry_run_explains_and_begins_nothing() {
    let controller = Controller::start().await;
    controller.answers(
        "AddTenant",
        pb::AddTenantResponse {
            operation: None,
            url: "https://alice.users.inceptel.ai".into(),
            server: "nyc".into(),
            explanation: vec!["nyc: chosen, 9 free slots".into(), "fra: 8 free slots".into()],
        },
    );
    controller.answers(
        "MigrateTenant",
        pb::MigrateTenantResponse {
            operation: None,
            explanation: vec!["fra: 9 slots and 38.0 GiB of disk are left".into()],
            source: "nyc".into(),
            target: "fra".into(),
            volume_bytes: 1_258_291,
            prediction: Some(crate::moves::prediction()),
            target_after: Some(pb::RoomLeft { slots_free: 8, memory_free_bytes: 3 << 30, disk_free_bytes: 37 << 30 }),
            not_predicted: String::new(),
        },
    );
    controller.answers(
        "RemoveTenant",
        pb::RemoveTenantResponse { operation: None, explanation: vec!["nyc: container and route go".into()] },
    );
    controller.answers("RemoveServer", pb::RemoveServerResponse {});
    assert_snapshot!(controller.run("tenant add alice --dry-run").await, @r"
    --- stdout
    would add alice on nyc, at https://alice.users.inceptel.ai
      nyc: chosen, 9 free slots
      fra: 8 free slots
    --- exit 0
    ");
    assert_snapshot!(controller.run("tenant migrate alice --to fra --dry-run").await, @r"
    --- stdout
    would move alice nyc -> fra, 1.2 MiB of data
      fra: 9 slots and 38.0 GiB of disk are left
      predicted: 1.0 MiB to send, 2.900 s, outage 700 ms (by 3 moves nyc -> fra)
      fra has left then: 8 slots, 3.0 GiB of memory and 37.0 GiB of disk
    --- exit 0
    ");
    assert_snapshot!(controller.run("tenant remove alice --dry-run").await, @r"
    --- stdout
    would remove alice and keep its data
      nyc: container and route go
    --- exit 0
    ");
    assert_snapshot!(controller.run("server remove fra --dry-run").await, @r"
    --- stdout
    would remove fra
    --- exit 0
    ");
}

#[tokio::test]
async fn start_and_stop_say_how_the_tenant_is_now() {
    let controller = Controller::start().await;
    let ended = |kind| vec![says(operation(kind, pb::OperationState::Succeeded))];
    let begun = |kind| Some(operation(kind, pb::OperationState::Running));
    controller
        .answers("StopTenant", pb::StopTenantResponse { operation: begun(pb::OperationKind::Stop) })
        .answers("WatchOperation", ended(pb::OperationKind::Stop))
        .answers("StartTenant", pb::StartTenantResponse { operation: begun(pb::OperationKind::Start) })
        .answers("WatchOperation", ended(pb::OperationKind::Start))
        .answers("RestartTenant", pb::RestartTenantResponse { operation: begun(pb::OperationKind::Restart) })
        .answers("WatchOperation", ended(pb::OperationKind::Restart));
    assert_snapshot!(controller.run("tenant stop alice").await, @r"
    --- stderr
    operation op-00000000-0000-0000-0000-000000000001
    alice is stopped; `featherctl tenant start alice` starts it again
    --- exit 0
    ");
    assert_snapshot!(controller.run("tenant start alice").await, @r"
    --- stderr
    operation op-00000000-0000-0000-0000-000000000001
    alice is running
    --- exit 0
    ");
    assert_snapshot!(controller.run("tenant restart alice").await, @r"
    --- stderr
    operation op-00000000-0000-0000-0000-000000000001
    alice is running anew
    --- exit 0
    ");
}

#[tokio::test]
async fn removing_needs_yes_where_nobody_can_be_asked() {
    let controller = Controller::start().await;
    assert_snapshot!(controller.run("tenant remove alice").await, @r"
    --- stderr
    error: nobody can be asked to confirm this here, and --yes was not given
    next: add --yes if you mean it. This removes alice: it stops and its address answers no more. Its data is kept.
    --- exit 2
    ");
    assert_snapshot!(controller.run("server remove fra").await, @r"
    --- stderr
    error: nobody can be asked to confirm this here, and --yes was not given
    next: add --yes if you mean it. This takes fra out of the fleet: it gets no tenants and no new certificate any more.
    --- exit 2
    ");
    assert_eq!(controller.calls(), "");

    let running = Some(operation(pb::OperationKind::Remove, pb::OperationState::Running));
    controller
        .answers("RemoveTenant", pb::RemoveTenantResponse { operation: running, explanation: vec![] })
        .answers("WatchOperation", vec![says(operation(pb::OperationKind::Remove, pb::OperationState::Succeeded))])
        .answers("RemoveServer", pb::RemoveServerResponse {});
    assert_snapshot!(controller.run("tenant remove alice --yes").await, @r"
    --- stderr
    operation op-00000000-0000-0000-0000-000000000001
    alice is removed. Its data is kept: `featherctl tenant add alice` brings it back with all of it, `featherctl volume list` shows it.
    --- exit 0
    ");
    assert_snapshot!(controller.run("server remove fra --yes").await, @r"
    --- stderr
    fra is out of the fleet; `featherctl server invite fra` lets it join again
    --- exit 0
    ");
}

#[tokio::test]
async fn an_invitation_is_one_command_on_stdout_and_what_it_needs_beside() {
    let controller = Controller::start().await;
    // The last one is of a controller that tells no suffix, and before it one that would not be pasted into a shell.
    for domain_suffix in ["users.example.com", "users.example.com", "$(reboot)", ""] {
        let expires = Some(to_timestamp(datetime!(2026-03-01 15:00 UTC)));
        let (token, domain_suffix) = ("feather-join-abc".into(), domain_suffix.into());
        controller.answers("CreateJoinToken", pb::CreateJoinTokenResponse { token, expires, domain_suffix });
    }
    let ran = controller.run("server invite nyc").await;
    assert!(ran.stdout.starts_with(" FEATHER_AGENT_JOIN_TOKEN=feather-join-abc podman run "), "{}", ran.stdout);
    assert_snapshot!(ran, @r#"
    --- stdout
     FEATHER_AGENT_JOIN_TOKEN=feather-join-abc podman run --detach --name feather-birth --restart always --stop-timeout 20 \
      --privileged --network=host --cgroupns=private \
      --volume feather-storage:/var/lib/containers --volume feather-state:/var/lib/feather \
      --volume /opt/feather-work.tar:/opt/feather-work.tar:ro \
      -e FEATHER_AGENT_JOIN_TOKEN -e FEATHER_AGENT_ADVERTISE -e FEATHER_AGENT_DOMAIN_SUFFIX=users.example.com \
      -e DOMAIN -e ACME_EMAIL \
      -e ANTHROPIC_API_KEY -e OPENAI_API_KEY -e FEATHER_ANTHROPIC_API_KEY -e FEATHER_OPENAI_API_KEY \
      localhost/feather-birth:latest && systemctl enable podman-restart.service
    --- stderr
    On the machine that is to be nyc, as root, paste this command, once, within 3 hours, until 2026-03-01T15:00:00Z:


    It needs Podman, the image of birth containers (`make birth-image`, or `podman load` what that made) and the work image. API keys are taken from your environment there, and FEATHER_AGENT_ADVERTISE=HOST:PORT if the way from there to the controller is not the way back. Its last part has Podman start the birth again when the machine is rebooted. A birth that runs already (with FEATHER_AGENT_DOMAIN_SUFFIX=users.example.com) joins by:

        read -rs FEATHER_AGENT_JOIN_TOKEN && export FEATHER_AGENT_JOIN_TOKEN     # paste the token
        podman exec -e FEATHER_AGENT_JOIN_TOKEN feather-birth feather-agent join

    `featherctl server list` shows nyc as ready once it has joined.
    --- exit 0
    "#);
    let json = controller.run("server invite nyc --ttl 90s --output json --work-image /srv/work.tar").await;
    let json: serde_json::Value = serde_json::from_str(&json.stdout).unwrap();
    assert_eq!((&json["server"], &json["token"]), (&"nyc".into(), &"feather-join-abc".into()));
    assert!(json["command"].as_str().unwrap().contains("--volume /srv/work.tar:/opt/feather-work.tar:ro"), "{json}");
    assert_eq!(json["domain_suffix"], "users.example.com");
    let hostile = controller.run("server invite nyc").await;
    assert!(!hostile.to_string().contains("reboot)"), "{hostile}");
    let again = controller.run("server invite nyc --rejoin").await;
    assert!(!again.to_string().contains("SUFFIX"), "{again}");
    let order = ["agent.identity\n", "feather-agent join\n", "s6-svc -r /run/service/agent\n"];
    let places = order.map(|words| again.stderr.find(words).unwrap());
    assert!(places.is_sorted(), "its old identity goes first: {}", again.stderr);
    let bad = controller.run("server invite nyc --work-image a:b").await;
    assert!(bad.stderr.contains("it must be a whole path"), "{bad:?}");
    assert_snapshot!(controller.calls(), @r#"
    CreateJoinToken: CreateJoinTokenRequest { server: "nyc", ttl_seconds: 10800, rejoin: false }
    CreateJoinToken: CreateJoinTokenRequest { server: "nyc", ttl_seconds: 90, rejoin: false }
    CreateJoinToken: CreateJoinTokenRequest { server: "nyc", ttl_seconds: 10800, rejoin: false }
    CreateJoinToken: CreateJoinTokenRequest { server: "nyc", ttl_seconds: 10800, rejoin: true }
    "#);
}

#[tokio::test]
async fn logs_are_data() {
    let controller = Controller::start().await;
    let line = |text: &str, stderr| {
        Act::Send(pb::TailLogsResponse { line: Some(types_pb::LogLine { text: text.into(), stderr }) })
    };
    for _ in 0..2 {
        controller.answers("TailLogs", vec![line("listening on 8080", false), line("", false), line("careful", true)]);
    }
    assert_snapshot!(controller.run("tenant logs alice -n 3").await, @r"
    --- stdout
    listening on 8080

    careful
    --- exit 0
    ");
    assert_snapshot!(controller.run("tenant logs alice --output json").await, @r#"
    --- stdout
    {"stderr":false,"text":"listening on 8080"}
    {"stderr":false,"text":""}
    {"stderr":true,"text":"careful"}
    --- exit 0
    "#);
    assert_snapshot!(controller.calls(), @r#"
    TailLogs: TailLogsRequest { tenant: "alice", lines: 3, follow: false }
    TailLogs: TailLogsRequest { tenant: "alice", lines: 100, follow: false }
    "#);
}
