//! What a birth holds of its tenants, asked of its Podman and its Caddy and not of our own programs.

use super::{CADDY, Real};

/// All of one server, in order.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Holdings {
    /// `NAME STATE` of every container.
    pub containers: Vec<String>,
    /// Every volume.
    pub volumes: Vec<String>,
    /// `tenant-NAME` of each tenant that has a route, as a file or by hand.
    pub routes: Vec<String>,
}

impl Holdings {
    /// What a server holds that runs these tenants, has only the volumes of those, and routes of all of them.
    pub fn of(running: &[&str], volumes_only: &[&str]) -> Self {
        let mut all = [running, volumes_only].concat();
        all.sort_unstable();
        Self {
            containers: running.iter().map(|tenant| format!("feather-user-{tenant} running")).collect(),
            volumes: all.iter().map(|tenant| format!("feather-user-{tenant}")).collect(),
            routes: all.iter().map(|tenant| format!("tenant-{tenant}")).collect(),
        }
    }

    /// Only routes, which forward to where these tenants live.
    pub fn routes(tenants: &[&str]) -> Self {
        Self { routes: Self::of(&[], tenants).routes, ..Self::default() }
    }

    /// Only volumes, kept for when these tenants come back.
    pub fn volumes(tenants: &[&str]) -> Self {
        Self { volumes: Self::of(&[], tenants).volumes, ..Self::default() }
    }
}

/// One call for everything, because each costs a moment.
const QUESTION: &str = "podman ps --all --format '{{.Names}} {{.State}}' && echo == && podman volume ls --quiet && echo == && \
     { ls /var/lib/feather/agent/routes/tenants || true; } && echo == && caddy GET /config/";

pub(super) async fn look(fleet: &Real, server: &str) -> Holdings {
    let question = format!("{CADDY}{QUESTION}");
    let answer = crate::wait::until("Podman and Caddy tell what they have", async || {
        // A birth may just have started.
        let ran = fleet.inside(server, &question).await;
        if ran.code == 0 && ran.stdout.contains("\r\n\r\n{") { Ok(ran.stdout) } else { Err(ran) }
    })
    .await;
    let parts: Vec<_> = answer.splitn(4, "==\n").collect();
    let [containers, volumes, files, configuration] = parts[..] else { panic!("not four answers: {answer}") };
    let ids: Vec<_> = configuration.split("\"@id\":\"").skip(1).filter_map(|rest| rest.split('"').next()).collect();
    // Files are routes only for a Caddy that looks at them.
    let files = if ids.contains(&"feather_tenants") { files } else { "" };
    let hosts = files.lines().map(|host| format!("tenant-{}", host.split('.').next().unwrap_or_default()));
    let mut routes: Vec<_> =
        hosts.chain(ids.iter().filter(|id| id.starts_with("tenant-")).map(ToString::to_string)).collect();
    routes.sort();
    let sorted = |lines: &mut dyn Iterator<Item = &str>| {
        let mut lines: Vec<_> = lines.map(ToOwned::to_owned).collect();
        lines.sort();
        lines
    };
    Holdings { containers: sorted(&mut containers.lines()), volumes: sorted(&mut volumes.lines()), routes }
}
