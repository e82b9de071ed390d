//! The lists of `--output wide`: what the usual ones leave out because a line has only so much room. Pure.

use super::{Moment, or_empty, server::ServerView, tenant::TenantView};
use crate::output::table;

/// As much of a digest as tells two images apart.
fn short(digest: &str) -> String {
    let digits = digest.strip_prefix("sha256:").unwrap_or(digest);
    digits.chars().take(12).collect()
}

/// Where placement may put it: the pin before the labels, and whom it keeps away from.
fn bound_to(tenant: &TenantView) -> String {
    let labels = Some(tenant.on.told()).filter(|told| !told.is_empty());
    let spread = tenant.spread.as_ref().map(|group| format!("spread {group}"));
    tenant.pin.clone().into_iter().chain(labels).chain(spread).collect::<Vec<_>>().join(", ")
}

/// All tenants with everything that fits into a cell.
pub(crate) fn tenants(tenants: &[TenantView]) -> String {
    let row = |tenant: &TenantView| {
        [
            tenant.name.clone(),
            or_empty(tenant.server.as_ref()),
            tenant.port(),
            tenant.state.to_owned(),
            tenant.created.map(Moment::age).unwrap_or_default(),
            tenant.generation.to_string(),
            tenant.restarts.to_string(),
            tenant.limits.memory(),
            tenant.limits.cpus(),
            tenant.limits.pids(),
            tenant.image_digest.as_deref().map(short).unwrap_or_default(),
            bound_to(tenant),
            tenant.last_verified_backup.map(|taken| format!("{} ago", taken.age())).unwrap_or_default(),
            or_empty(tenant.url.as_ref()),
        ]
    };
    let head = [
        "USERNAME",
        "SERVER",
        "PORT",
        "STATE",
        "AGE",
        "GENERATION",
        "RESTARTS",
        "MEMORY",
        "CPUS",
        "PIDS",
        "IMAGE",
        "BOUND TO",
        "LAST VERIFIED BACKUP",
        "URL",
    ];
    table(head, &tenants.iter().map(row).collect::<Vec<_>>())
}

/// All servers with everything that fits into a cell.
pub(crate) fn servers(servers: &[ServerView]) -> String {
    let row = |server: &ServerView| {
        [
            server.name.clone(),
            server.standing(),
            server.slots(),
            server.tenants.to_string(),
            server.memory(),
            server.disk(),
            or_empty(server.address.as_ref()),
            or_empty(server.public_address.as_ref()),
            server.seen(),
            server.joined.map(Moment::age).unwrap_or_default(),
            or_empty(server.agent_version.as_ref()),
            or_empty(server.protocol.as_ref()),
            if server.ingress { "yes".to_owned() } else { String::new() },
            server.labels.told(),
        ]
    };
    let head = [
        "NAME", "STATE", "SLOTS", "TENANTS", "MEMORY", "DISK", "ADDRESS", "PUBLIC", "SEEN", "AGE", "AGENT", "PROTOCOL",
        "INGRESS", "LABELS",
    ];
    table(head, &servers.iter().map(row).collect::<Vec<_>>())
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_digest_is_as_long_as_it_must_be() {
        assert_eq!(super::short("sha256:0123456789abcdef"), "0123456789ab");
        assert_eq!(super::short("é"), "é");
    }
}
