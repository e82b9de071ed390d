//! What a birth holds of its tenants, asked of its Podman and its Caddy and not of our own programs.

use super::Real;

/// All of one server, in order.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Holdings {
    /// `NAME STATE` of every container.
    pub containers: Vec<String>,
    /// Every volume.
    pub volumes: Vec<String>,
    /// `@id` of each route of a tenant.
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

/// Caddy's configuration without a client: births have none.
const CONFIGURATION: &str = "exec 3<>/dev/tcp/127.0.0.1/2020 && \
     printf 'GET /config/ HTTP/1.0\\r\\nHost: 127.0.0.1:2020\\r\\n\\r\\n' >&3 && cat <&3";

pub(super) async fn look(fleet: &Real, server: &str) -> Holdings {
    let containers = fleet.inside(server, "podman ps --all --format '{{.Names}} {{.State}}'").await.ok();
    let volumes = fleet.inside(server, "podman volume ls --quiet").await.ok();
    let configuration = crate::wait::until("Caddy tells its configuration", async || {
        // The admin listener is replaced at each change.
        let ran = fleet.inside(server, CONFIGURATION).await;
        if ran.code == 0 && ran.stdout.contains("\r\n\r\n{") { Ok(ran.stdout) } else { Err(ran) }
    })
    .await;
    let ids = configuration.split("\"@id\":\"").skip(1).filter_map(|rest| rest.split('"').next());
    let sorted = |mut lines: Vec<String>| {
        lines.sort();
        lines
    };
    Holdings {
        containers: sorted(containers.lines().map(ToOwned::to_owned).collect()),
        volumes: sorted(volumes.lines().map(ToOwned::to_owned).collect()),
        routes: sorted(ids.filter(|id| id.starts_with("tenant-")).map(ToOwned::to_owned).collect()),
    }
}
