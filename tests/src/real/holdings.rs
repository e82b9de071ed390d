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

/// One call for all three, because each costs a moment. Caddy is asked without a client: births have none.
const QUESTION: &str = "podman ps --all --format '{{.Names}} {{.State}}' && echo == && podman volume ls --quiet && echo == && \
     exec 3<>/dev/tcp/127.0.0.1/2020 && \
     printf 'GET /config/ HTTP/1.0\\r\\nHost: 127.0.0.1:2020\\r\\n\\r\\n' >&3 && cat <&3";

pub(super) async fn look(fleet: &Real, server: &str) -> Holdings {
    let answer = crate::wait::until("Podman and Caddy tell what they have", async || {
        // A birth may just have started, and Caddy replaces its admin listener at each change.
        let ran = fleet.inside(server, QUESTION).await;
        if ran.code == 0 && ran.stdout.contains("\r\n\r\n{") { Ok(ran.stdout) } else { Err(ran) }
    })
    .await;
    let parts: Vec<_> = answer.splitn(3, "==\n").collect();
    let [containers, volumes, configuration] = parts[..] else { panic!("not three answers: {answer}") };
    let ids = configuration.split("\"@id\":\"").skip(1).filter_map(|rest| rest.split('"').next());
    let sorted = |lines: &mut dyn Iterator<Item = &str>| {
        let mut lines: Vec<_> = lines.map(ToOwned::to_owned).collect();
        lines.sort();
        lines
    };
    Holdings {
        containers: sorted(&mut containers.lines()),
        volumes: sorted(&mut volumes.lines()),
        routes: sorted(&mut ids.filter(|id| id.starts_with("tenant-"))),
    }
}
