use time::{Duration, OffsetDateTime};

use super::{REFUSED, document, live, login};
use crate::{
    store::Viewer,
    web::{
        entry::Asked,
        view::{Event, Mood, Move, Operation, Server, State, Tenant, Transfer, View, Warning},
    },
};

const NOW: OffsetDateTime = OffsetDateTime::UNIX_EPOCH;
const HOSTILE: &str = "\"><script>alert('x')</script><img src=x onerror=\"y\">";

fn viewer() -> Viewer {
    Viewer { name: "carol".into(), expires: NOW + Duration::hours(1) }
}

fn state(mood: Mood, word: &'static str) -> State {
    State { mood, word }
}

fn server(name: &str) -> Server {
    Server {
        name: name.into(),
        state: state(Mood::Good, "ready"),
        cordoned: false,
        ingress: false,
        labels: vec![],
        slots: (7, 10),
        memory: (1 << 30, 2 << 30),
        disk: (1 << 30, 20 << 30),
        seen: Some(NOW),
        problems: vec![],
    }
}

fn tenant(name: &str, server: &str) -> Tenant {
    Tenant {
        name: name.into(),
        state: state(Mood::Good, "running"),
        server: server.into(),
        url: format!("https://{name}.users.inceptel.ai"),
        created: Some(NOW - Duration::hours(3)),
        restarts: 0,
        problem: String::new(),
    }
}

fn view() -> View {
    View {
        now: NOW,
        version: "0.1.0".into(),
        servers: vec![server("nyc")],
        tenants: vec![tenant("alice", "nyc")],
        operations: vec![],
        moves: vec![],
        warnings: vec![],
        acknowledged: 0,
        events: vec![],
        dns: None,
        certificate: None,
    }
}

fn migrate(transfer: Option<Transfer>) -> Operation {
    Operation {
        id: "op-1".into(),
        kind: "migrate",
        subject: "alice".into(),
        source: "nyc".into(),
        target: "fra".into(),
        state: state(Mood::Busy, "running"),
        step: "pre-copy".into(),
        trouble: String::new(),
        begun: Some(NOW - Duration::seconds(12)),
        by: "operator/ada".into(),
        transfer,
    }
}

/// Every text that comes from elsewhere, hostile.
fn hostile() -> View {
    let text = || HOSTILE.to_owned();
    View {
        version: text(),
        servers: vec![Server { labels: vec![text()], problems: vec![text()], ..server(HOSTILE) }],
        tenants: vec![Tenant { url: text(), problem: text(), ..tenant(HOSTILE, HOSTILE) }],
        operations: vec![Operation {
            id: text(),
            subject: text(),
            source: text(),
            target: "b".into(),
            step: text(),
            trouble: text(),
            by: text(),
            ..migrate(Some(Transfer { phase: text(), bytes: 1, total: 2, rate: 3 }))
        }],
        moves: vec![Move { tenant: text(), source: text(), target: text(), at: NOW, outage_ms: 5, sent: 1 }],
        warnings: vec![Warning { id: text(), message: text(), since: None }],
        events: vec![Event { at: NOW, subject: text(), message: text() }],
        dns: Some((text(), false)),
        certificate: Some((text(), true)),
        ..view()
    }
}

#[test]
fn nothing_from_elsewhere_becomes_part_of_the_page() {
    let asked = Asked { sought: "<".into(), after: String::new(), all: true };
    let viewer = Viewer { name: HOSTILE.into(), ..viewer() };
    let plain = document(&view(), &viewer, &Asked::default());
    assert_eq!(plain.matches("<script").count(), 1, "the page's own");
    for page in [document(&hostile(), &viewer, &asked), live(&hostile(), &asked).into_string(), login(Some(HOSTILE))] {
        assert!(page.matches("alert(").count() >= 1, "it is shown");
        assert!(page.matches("<script").count() <= 1 && !page.contains("<img") && !page.contains("=\"y\""), "{page}");
    }
    let sought = Asked { sought: HOSTILE.into(), ..Asked::default() };
    assert!(!document(&view(), &viewer, &sought).contains("value=\"\">"), "nor what was typed");
}

#[test]
fn nothing_that_the_policy_forbids_is_on_the_page() {
    for page in [document(&hostile(), &viewer(), &Asked::default()), login(Some(REFUSED))] {
        for forbidden in [" style=", " onclick=", "javascript:", "http://", "<style"] {
            assert!(!page.contains(forbidden), "{forbidden}");
        }
        let outside = page.matches("src=\"").count() + page.matches("href=\"").count();
        let own = page.matches("src=\"/").count() + page.matches("href=\"/").count();
        assert_eq!(outside, own, "something of another place is loaded");
    }
}

#[test]
fn a_transfer_is_shown_with_what_is_known_of_it() {
    let shown = |transfer| {
        let view = View { operations: vec![migrate(transfer)], ..view() };
        live(&view, &Asked::default()).into_string()
    };
    let half = Transfer { phase: "sending, round 1".into(), bytes: 1 << 30, total: 2 << 30, rate: 64 << 20 };
    let page = shown(Some(half.clone()));
    assert!(
        page.contains("50 % · 1.0 GiB of 2.0 GiB · 64.0 MiB/s · 16s left") && page.contains("sending, round 1"),
        "{page}"
    );
    assert!(page.contains("nyc → fra") && page.contains("pre-copy") && page.contains("for 12s"), "{page}");
    let page = shown(Some(Transfer { total: 0, rate: 0, ..half }));
    assert!(page.contains("<span>1.0 GiB</span>") && !page.contains(" left"), "{page}");
    assert!(!shown(None).contains("class=\"progress\""));
}

#[test]
fn what_needs_attention_is_said_in_words() {
    let mut view = view();
    view.servers[0] = Server {
        state: state(Mood::Bad, "unreachable"),
        cordoned: true,
        ingress: true,
        seen: Some(NOW - Duration::minutes(5)),
        problems: vec!["its stream went silent".into()],
        ..server("nyc")
    };
    view.tenants[0] =
        Tenant { state: state(Mood::Bad, "broken"), problem: "no volume".into(), ..tenant("alice", "nyc") };
    view.warnings =
        vec![Warning { id: "w1".into(), message: "nyc is silent".into(), since: Some(NOW - Duration::hours(2)) }];
    view.acknowledged = 1;
    let page = live(&view, &Asked::default()).into_string();
    for said in [
        "unreachable",
        "cordoned",
        "ingress",
        "heard of 5m ago",
        "its stream went silent",
        "broken",
        "no volume",
        "1 warning",
        "nyc is silent",
        "for 2h",
        "1 more warning that somebody knows of",
        "0/1</b> servers ready",
    ] {
        assert!(page.contains(said), "{said} is not in {page}");
    }
}

#[test]
fn a_large_fleet_is_shown_in_parts_and_nobody_is_out_of_reach() {
    let mut view = view();
    view.servers = (0..200).map(|number| server(&format!("s{number:03}"))).collect();
    view.tenants = (0..450).map(|number| tenant(&format!("t{number:03}"), "s000")).collect();
    let page = live(&view, &Asked::default()).into_string();
    assert_eq!(page.matches("<article class=\"tile").count(), 60);
    assert!(page.contains("and 140 more") && page.contains("href=\"/?all=1\""));
    let all = live(&view, &Asked { all: true, ..Asked::default() }).into_string();
    assert_eq!(all.matches("<article class=\"tile").count(), 200);
    let (mut asked, mut seen) = (Asked::default(), 0);
    for _ in 0..3 {
        let page = live(&view, &asked).into_string();
        seen += page.matches("<td><b>").count();
        let next = page.split("href=\"").find(|link| link.starts_with("/?after=") && !link.contains("all=1\""));
        let next = next.and_then(|link| link.split('"').next()).unwrap_or_default();
        asked = Asked::read(next.trim_start_matches("/?"));
    }
    assert_eq!(seen, 450);
    let sought = live(&view, &Asked { sought: "T44".into(), ..Asked::default() }).into_string();
    assert_eq!(sought.matches("<td><b>").count(), 10);
}

#[test]
fn every_part_that_the_script_replaces_is_on_the_page() {
    let script = include_str!("../live.js");
    let (page, parts) =
        (document(&view(), &viewer(), &Asked::default()), live(&view(), &Asked::default()).into_string());
    let ids: Vec<_> = parts.split(" id=\"").skip(1).map(|rest| rest.split('"').next().unwrap()).collect();
    assert_eq!(ids, ["connection", "summary", "warnings", "map", "operations", "outages", "events", "tenants"]);
    for id in ids {
        assert_eq!(page.matches(&format!(" id=\"{id}\"")).count(), 1, "{id}");
    }
    assert!(script.contains("querySelectorAll(\"[id]\")"));
}
