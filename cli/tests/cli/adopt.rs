//! Taking over a server of the old script.

use feather_proto::pb::{controller::v1 as pb, types::v1 as types};
use insta::assert_snapshot;

use crate::controller::Controller;

fn finding(name: &str, action: types::AdoptionAction) -> types::AdoptionFinding {
    types::AdoptionFinding {
        name: name.into(),
        listed: true,
        container: true,
        running: true,
        host_network: false,
        volume: true,
        routed: true,
        port: 9001,
        action: action.into(),
        why: String::new(),
        notes: vec![],
    }
}

fn found(action: types::AdoptionAction) -> pb::AdoptServerResponse {
    use types::AdoptionAction::{Keep, Misfit};
    let bob = types::AdoptionFinding {
        host_network: true,
        port: 9500,
        notes: vec!["port 9500 is not one of 9001-9010; it keeps it".into()],
        ..finding("bob", action)
    };
    let carol = types::AdoptionFinding {
        listed: false,
        running: false,
        volume: false,
        why: "nothing is mounted at /home/user".into(),
        port: 0,
        ..finding("carol", Misfit)
    };
    let dave = types::AdoptionFinding {
        listed: false,
        container: false,
        running: false,
        routed: false,
        port: 0,
        ..finding("dave", Keep)
    };
    pb::AdoptServerResponse {
        findings: vec![finding("alice", action), bob, carol, dave],
        problems: vec!["entry 3 of the old file has no name".into()],
    }
}

#[tokio::test]
async fn a_dry_run_shows_what_was_found_and_what_does_not_fit() {
    let controller = Controller::start().await;
    controller.answers("AdoptServer", found(types::AdoptionAction::Adopt));
    assert_snapshot!(controller.run("server adopt nyc --dry-run").await, @r"
    --- stdout
    NAME   FOUND                        PORT  CONTAINER              ACTION
    alice  file container volume route  9001  running                adopt
    bob    file container volume route  9500  running, host network  adopt
    carol  container route              -     stopped                misfit
    dave   volume                       -     -                      keep

    bob: port 9500 is not one of 9001-9010; it keeps it
    carol: nothing is mounted at /home/user
    dave: only a volume; it stays, and `featherctl tenant add dave` finds it
    entry 3 of the old file has no name
    --- stderr
    `featherctl server adopt nyc` would adopt 2 in place; 1 left as found, see above
    --- exit 0
    ");
    assert_snapshot!(controller.calls(), @r#"AdoptServer: AdoptServerRequest { server: "nyc", dry_run: true, tenants: [] }"#);
}

#[tokio::test]
async fn an_adoption_says_what_became_of_each() {
    let controller = Controller::start().await;
    controller.answers("AdoptServer", found(types::AdoptionAction::Adopted));
    let ran = controller.run("server adopt nyc --yes").await;
    assert_eq!(ran.stderr, "2 adopted on nyc, nothing was restarted; 1 left as found, see above\n");
    assert!(ran.stdout.contains("alice  file container volume route  9001  running                adopted"));
    controller.answers("AdoptServer", pb::AdoptServerResponse::default());
    assert_snapshot!(controller.run("server adopt nyc").await, @r"
    --- stderr
    nothing was adopted on nyc
    --- exit 0
    ");
    let one = pb::AdoptServerResponse {
        findings: found(types::AdoptionAction::Adopted).findings[..1].to_vec(),
        problems: vec![],
    };
    controller.answers("AdoptServer", one);
    assert_snapshot!(controller.run("server adopt nyc --output json").await, @r#"
    --- stdout
    {
      "server": "nyc",
      "dry_run": false,
      "findings": [
        {
          "name": "alice",
          "action": "adopted",
          "port": 9001,
          "container": "running",
          "host_network": false,
          "listed": true,
          "volume": true,
          "routed": true,
          "why": null,
          "notes": []
        }
      ],
      "problems": []
    }
    --- exit 0
    "#);
}
