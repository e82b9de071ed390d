//! What commands print: columns and words. Pure.

use feather_proto::{
    model::{ContainerState, Residence, TenantReport},
    pb::{agent::v1 as pb, types::v1 as types},
};

const GAP: &str = "  ";

/// `USERNAME PORT URL CONTAINER`, one line for each tenant.
pub(super) fn tenants(tenants: &[(TenantReport, pb::LocalTenant)]) -> String {
    let rows = tenants.iter().map(|(report, tenant)| {
        let port = report.port.map_or_else(|| "-".to_owned(), |port| port.to_string());
        [report.tenant.to_string(), port, tenant.url.clone(), state(report, tenant.being_added).to_owned()]
    });
    let header = ["USERNAME", "PORT", "URL", "CONTAINER"].map(ToOwned::to_owned);
    columns(&std::iter::once(header).chain(rows).collect::<Vec<_>>())
}

/// The server at one glance: facts, then its tenants, then what is wrong.
pub(super) fn status(status: &pb::GetStatusResponse, inhabitants: &[(TenantReport, pb::LocalTenant)]) -> String {
    let fleet = match (status.server.as_str(), status.controller.as_str()) {
        _ if status.fenced => "out of it; this server runs no tenant".to_owned(),
        ("", _) if status.joining => "joining".to_owned(),
        ("", _) => "none; this server decides by itself".to_owned(),
        (server, "") => format!("member {server}; where its controller is, is not known any more"),
        (server, controller) => format!("member {server}, controller {controller}"),
    };
    let image = match status.work_image_digest.as_str() {
        "" => format!("{} (not found)", status.work_image),
        digest => format!("{} ({})", status.work_image, short(digest)),
    };
    let running = inhabitants.iter().filter(|(report, tenant)| state(report, tenant.being_added) == "running").count();
    let slots = format!("{} of {} taken", status.slots_used, status.slots_total);
    let mut facts = vec![
        ("fleet", fleet),
        ("version", status.version.clone()),
        ("work image", image),
        ("slots", slots),
        ("tenants", format!("{}, {running} running", inhabitants.len())),
    ];
    facts.extend(status.admin.as_ref().map(|found| ("admin", admin(found))));
    let facts: Vec<_> = facts.into_iter().map(|(name, value)| [name.to_owned(), value]).collect();
    let mut text = columns(&facts);
    if !inhabitants.is_empty() {
        text.push('\n');
        text.push_str(&tenants(inhabitants));
    }
    let about_tenants =
        inhabitants.iter().filter_map(|(report, _)| Some(format!("{}: {}", report.tenant, report.problem.as_ref()?)));
    let about_admin = status.admin.iter().filter(|admin| !admin.problem.is_empty()).map(|admin| admin.problem.clone());
    let problems: Vec<_> = status.problems.iter().cloned().chain(about_admin).chain(about_tenants).collect();
    if problems.is_empty() {
        text.push_str("\nno problems\n");
    } else {
        text.push_str("\nproblems\n");
        for problem in problems {
            text.push_str(&format!("{GAP}{problem}\n"));
        }
    }
    text
}

/// The admin container in one line.
fn admin(admin: &types::AdminContainer) -> String {
    if admin.container.is_empty() {
        return "none yet".to_owned();
    }
    let state = match (admin.crash_loop, admin.running) {
        (true, _) => "crash-loop",
        (_, true) => "running",
        _ => "not running",
    };
    let coming = match admin.candidate.as_str() {
        "" => String::new(),
        candidate => format!("; {candidate} is being proved"),
    };
    format!(
        "{} on port {}, {state}, {} ({}){coming}",
        admin.container,
        admin.port,
        admin.image,
        short(&admin.image_digest)
    )
}

/// What serves now.
pub(super) fn swapped(swapped: &pb::SwapLocalAdminResponse) -> String {
    let instead = match swapped.replaced.as_str() {
        "" => String::new(),
        old => format!(" in place of {old}"),
    };
    let (container, port, digest) = (&swapped.container, swapped.port, &swapped.image_digest);
    format!("{container} serves on port {port}{instead}, image {digest}\n")
}

/// Enough of a digest for people.
fn short(digest: &str) -> &str {
    digest.get(..19).unwrap_or(digest)
}

/// One word for where a tenant stands.
fn state(report: &TenantReport, being_added: bool) -> &'static str {
    match (report.residence, report.container) {
        (_, ContainerState::Unknown) => "unknown",
        (Residence::Sealed, _) => "moving",
        (Residence::Stopped, ContainerState::Running) => "stopping",
        (Residence::Stopped, _) => "stopped",
        (Residence::Running, _) if being_added => "starting",
        (Residence::Running, ContainerState::Running) => "running",
        (Residence::Running, _) if report.problem.is_some() => "broken",
        (Residence::Running, _) => "starting",
        (Residence::Absent | Residence::Departed, _) => "gone",
    }
}

pub(super) fn columns<const N: usize>(rows: &[[String; N]]) -> String {
    let width = |text: &String| text.chars().count();
    let mut widths = [0; N];
    for row in rows {
        for (widest, cell) in widths.iter_mut().zip(row) {
            *widest = (*widest).max(width(cell));
        }
    }
    let mut text = String::new();
    for row in rows {
        let mut line = String::new();
        for (cell, widest) in row.iter().zip(&widths) {
            line.push_str(cell);
            line.push_str(&" ".repeat(widest.saturating_sub(width(cell))));
            line.push_str(GAP);
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use feather_proto::{
        ids::Generation,
        model::{ContainerState, Residence, TenantReport},
        pb::agent::v1 as pb,
    };

    use super::{state, status, tenants};

    fn report(residence: Residence, container: ContainerState) -> TenantReport {
        TenantReport {
            container,
            port: Some(9001),
            ..TenantReport::bare("alice".parse().unwrap(), Generation(1), residence)
        }
    }

    fn tenant() -> pb::LocalTenant {
        pb::LocalTenant { tenant: None, url: "https://alice.users.example.com".into(), being_added: false }
    }

    #[test]
    fn a_list_has_the_columns_that_it_always_had() {
        assert_eq!(tenants(&[]), "USERNAME  PORT  URL  CONTAINER\n");
        let running = report(Residence::Running, ContainerState::Running);
        assert_eq!(
            tenants(&[(running, tenant())]),
            "USERNAME  PORT  URL                              CONTAINER\n\
             alice     9001  https://alice.users.example.com  running\n"
        );
    }

    #[test]
    fn one_word_says_where_a_tenant_stands() {
        use ContainerState::{Exited, Missing, Running, Unknown};
        let table = [
            (Residence::Running, Running, "running"),
            (Residence::Running, Missing, "starting"),
            (Residence::Running, Unknown, "unknown"),
            (Residence::Stopped, Exited, "stopped"),
            (Residence::Stopped, Running, "stopping"),
            (Residence::Sealed, Exited, "moving"),
        ];
        for (residence, container, word) in table {
            assert_eq!(state(&report(residence, container), false), word);
        }
        assert_eq!(state(&report(Residence::Running, Running), true), "starting");
        let broken = TenantReport { problem: Some("no data".into()), ..report(Residence::Running, Missing) };
        assert_eq!(state(&broken, false), "broken");
    }

    #[test]
    fn a_status_says_who_decides_and_what_is_wrong() {
        let alone = pb::GetStatusResponse {
            version: "0.1.0".into(),
            slots_total: 10,
            slots_used: 1,
            work_image: "localhost/feather-work:latest".into(),
            work_image_digest: "sha256:0123456789abcdef".into(),
            ..pb::GetStatusResponse::default()
        };
        let broken = TenantReport {
            problem: Some("data expected but missing".into()),
            ..report(Residence::Running, ContainerState::Missing)
        };
        assert_eq!(
            status(&alone, &[(broken, tenant())]),
            "fleet       none; this server decides by itself\n\
             version     0.1.0\n\
             work image  localhost/feather-work:latest (sha256:0123456789ab)\n\
             slots       1 of 10 taken\n\
             tenants     1, 0 running\n\
             \n\
             USERNAME  PORT  URL                              CONTAINER\n\
             alice     9001  https://alice.users.example.com  broken\n\
             \n\
             problems\n  alice: data expected but missing\n"
        );
        let text = status(&pb::GetStatusResponse { fenced: true, ..alone.clone() }, &[]);
        assert!(text.starts_with("fleet       out of it; this server runs no tenant\n"), "{text}");
        let member = pb::GetStatusResponse {
            server: "nyc".into(),
            controller: "192.0.2.1:7400".into(),
            work_image_digest: String::new(),
            ..alone
        };
        let text = status(&member, &[]);
        assert!(text.starts_with("fleet       member nyc, controller 192.0.2.1:7400\n"), "{text}");
        assert!(text.contains("localhost/feather-work:latest (not found)\n"), "{text}");
        assert!(text.ends_with("\nno problems\n"), "{text}");
    }
}
