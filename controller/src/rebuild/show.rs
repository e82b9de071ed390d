//! What a rebuild shows: a table for people, JSON for programs. Pure.

use std::fmt::Write as _;

use feather_proto::limits::Limits;
use serde_json::{Value, json};

use super::{Member, Plan};
use crate::store::{TenantRow, TenantState};

/// What no agent knows, and what to type for it.
const FORGOTTEN: [(&str, &str); 12] = [
    (
        "who logged in",
        "certificates go on working, and people are listed again once they call; join and login tokens that were not used are void: \
                       `featherctl server invite`, `featherctl user add`",
    ),
    ("admins", "should none have a certificate: feather-controller identity --role admin --name NAME --out FILE"),
    (
        "the audit log, events, operations and their logs",
        "begin anew; heads of the audit log that were kept belong to the lost one",
    ),
    (
        "names that servers were given by `featherctl server rename`",
        "--agent takes the name in a server's certificate (`identity` in `featherctl server show`), under another one it does not answer; \
         `featherctl server rename` gives the later name again",
    ),
    ("labels and cordons of servers", "`featherctl server label`, `featherctl server cordon`"),
    (
        "what tenants are bound to",
        "pins, labels and groups: `featherctl tenant place`; limits of removed ones: `featherctl tenant set` once they are back",
    ),
    ("who was sent away by a drain", "`featherctl tenant migrate NAME --to SERVER` brings one home"),
    (
        "which records of the zone are the fleet's",
        "`featherctl dns records`, then `featherctl dns adopt --take-over NAME...` with all that are",
    ),
    ("the certificate of the tenants' names", "servers keep the one that they have; it is obtained anew"),
    (
        "backups and their schedules",
        "`featherctl volume backups --from PLACE` lists them, `featherctl volume schedule` makes schedules",
    ),
    (
        "who of the waitlist was invited",
        "`featherctl waitlist list` shows everybody as waiting: look at `featherctl tenant list` before you invite",
    ),
    ("tokens for the web page, notes on warnings", "`featherctl user web`, `featherctl warning list`"),
];

fn state(row: &TenantRow) -> &'static str {
    match (row.state, row.running) {
        (TenantState::Active, true) => "running",
        (TenantState::Active, false) => "stopped",
        (TenantState::Removed, _) => "removed, data kept",
        (TenantState::Adding, _) => "adding",
    }
}

fn limits(limits: &Limits) -> String {
    let parts = [
        limits.memory_bytes.map(|bytes| format!("{} MiB", bytes >> 20)),
        limits.cpu_millis.map(|millis| format!("{}.{:03} cores", millis / 1000, millis % 1000)),
        limits.pids.map(|pids| format!("{pids} processes")),
    ];
    parts.into_iter().flatten().collect::<Vec<_>>().join(", ")
}

/// Columns as wide as their widest cell.
fn table(text: &mut String, rows: &[Vec<String>]) {
    let columns = rows.iter().map(Vec::len).max().unwrap_or_default();
    let width = |column| rows.iter().filter_map(|row| row.get(column)).map(|cell: &String| cell.chars().count()).max();
    let widths: Vec<usize> = (0..columns).map(|column| width(column).unwrap_or_default()).collect();
    for row in rows {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
        let line = cells.collect::<Vec<_>>().join("  ");
        text.push_str(line.trim_end());
        text.push('\n');
    }
}

fn servers(members: &[Member]) -> Vec<Vec<String>> {
    let head = ["", "SERVER", "AGENT", "PUBLIC ADDRESS", "ANSWERS"].map(ToOwned::to_owned).to_vec();
    let row = |member: &Member| {
        let (row, answers) = (&member.row, if member.heard { "yes" } else { "no" });
        vec!["+".into(), row.name.to_string(), row.address.clone(), row.public_address.clone(), answers.into()]
    };
    std::iter::once(head).chain(members.iter().map(row)).collect()
}

fn tenants(rows: &[TenantRow]) -> Vec<Vec<String>> {
    let head = ["", "TENANT", "STATE", "SERVER", "BEFORE", "GENERATION", "LIMITS"].map(ToOwned::to_owned).to_vec();
    let name = |server: Option<&feather_proto::ids::ServerName>| server.map(ToString::to_string).unwrap_or_default();
    let row = |row: &TenantRow| {
        vec![
            "+".into(),
            row.name.to_string(),
            state(row).into(),
            name(row.server.as_ref()),
            name(row.previous_server.as_ref()),
            row.generation.to_string(),
            limits(&row.limits),
        ]
    };
    std::iter::once(head).chain(rows.iter().map(row)).collect()
}

/// For people. `written`: it is in the store now.
pub fn text(plan: &Plan, written: bool) -> String {
    let mut text = String::new();
    table(&mut text, &servers(&plan.members));
    text.push('\n');
    table(&mut text, &tenants(&plan.tenants));
    text.push('\n');
    if let Some(ingress) = &plan.ingress {
        _ = writeln!(text, "+ ingress: {ingress}");
    }
    for server in &plan.former {
        _ = writeln!(text, "+ ingress before: {server}");
    }
    for line in plan.refused.lines() {
        _ = writeln!(text, "+ revoked: {}", line.principal);
    }
    for finding in &plan.findings {
        _ = writeln!(text, "{} {}: {}", if finding.stops { "!" } else { "-" }, finding.about, finding.message);
    }
    text.push_str("\nNot known any more:\n");
    for (what, next) in FORGOTTEN {
        _ = writeln!(text, "  {what}: {next}");
    }
    text.push('\n');
    text.push_str(match (written, plan.stops().next().is_some()) {
        (true, _) => "Written. Start the controller: feather-controller serve, with the options that it had.\n",
        (false, true) => "Nothing was written, and nothing can be before what is marked with `!` is settled.\n",
        (false, false) => "Nothing was written. The same command with --apply writes what is marked with `+`.\n",
    });
    text
}

/// For programs.
pub fn json(plan: &Plan, written: bool) -> Value {
    let server = |member: &Member| {
        let row = &member.row;
        json!({ "name": row.name, "address": row.address, "public_address": row.public_address, "answers": member.heard })
    };
    let tenant = |row: &TenantRow| {
        json!({
            "name": row.name, "state": state(row), "server": row.server, "previous_server": row.previous_server,
            "generation": row.generation, "limits": row.limits,
        })
    };
    let forgotten = FORGOTTEN.iter().map(|(what, next)| json!({ "what": what, "next": next }));
    let findings =
        plan.findings.iter().map(|one| json!({ "stops": one.stops, "about": one.about, "message": one.message }));
    json!({
        "written": written,
        "servers": plan.members.iter().map(server).collect::<Vec<_>>(),
        "tenants": plan.tenants.iter().map(tenant).collect::<Vec<_>>(),
        "given_back": plan.halves.iter().map(|half| json!({ "tenant": half.tenant, "server": half.server })).collect::<Vec<_>>(),
        "ingress": plan.ingress,
        "former_ingresses": plan.former,
        "revoked": plan.refused.lines().iter().map(|line| line.principal.to_string()).collect::<Vec<_>>(),
        "findings": findings.collect::<Vec<_>>(),
        "not_known_any_more": forgotten.collect::<Vec<_>>(),
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use feather_proto::model::ServerSnapshot;
    use time::OffsetDateTime;

    use super::{json, text};
    use crate::{
        agents::Heeded,
        rebuild::{Answer, Plan, Said, decide::decide},
    };

    fn plan(fra: Answer) -> Plan {
        let named = ["nyc=nyc:7443", "fra=fra:7443,203.0.113.6"].map(|text| text.parse().unwrap());
        let said = Said::new(named.to_vec(), [], [], None).unwrap();
        let nyc = ServerSnapshot::empty("nyc".parse().unwrap());
        let nyc = Answer::Heard(Box::new(nyc), Some(Heeded::default()));
        let answers = BTreeMap::from([("nyc".parse().unwrap(), nyc), ("fra".parse().unwrap(), fra)]);
        decide(&said, &answers, OffsetDateTime::UNIX_EPOCH)
    }

    #[test]
    fn what_is_shown_says_whether_it_can_be_written_and_what_is_lost() {
        let stopped = plan(Answer::Silent("no route to host".into()));
        let shown = text(&stopped, false);
        for told in [
            "+  fra     fra:7443  203.0.113.6     no\n",
            "! fra: it does not answer (no route to host)",
            "nothing can be before",
            "the audit log",
            "  names that servers were given by `featherctl server rename`: ",
        ] {
            assert!(shown.contains(told), "{told}: {shown}");
        }
        let fra = Answer::Heard(Box::new(ServerSnapshot::empty("fra".parse().unwrap())), Some(Heeded::default()));
        let fine = plan(fra);
        assert!(text(&fine, false).ends_with("The same command with --apply writes what is marked with `+`.\n"));
        assert!(text(&fine, true).contains("Start the controller"));
        let led = Plan { former: ["nyc".parse().unwrap()].into(), ..fine.clone() };
        assert!(text(&led, false).contains("+ ingress before: nyc\n"));
        assert_eq!(json(&led, false)["former_ingresses"][0], "nyc");
        let (shown, stops) = (json(&fine, true), json(&stopped, false));
        assert_eq!((&shown["written"], &shown["servers"][0]["name"]), (&true.into(), &"fra".into()));
        assert_eq!((&stops["findings"][0]["stops"], &stops["servers"][0]["answers"]), (&true.into(), &false.into()));
        assert!(shown["not_known_any_more"].as_array().is_some_and(|all| all.len() > 5));
    }
}
