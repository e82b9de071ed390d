//! What an agent is told once, at its start.
//!
//! Owns the settings and their defaults. Knows nothing of flags, files and the process's environment: `main.rs` reads those,
//! tests write the fields.

use std::{collections::BTreeMap, fmt, ops::RangeInclusive, path::PathBuf, time::Duration};

use crate::{edge::Edge, gate::GateLimits, waitlist::Door};

/// Names of the variables that every tenant gets from its birth container's environment, when they are set there.
pub const PASSED_VARIABLES: [&str; 4] =
    ["ANTHROPIC_API_KEY", "OPENAI_API_KEY", "FEATHER_ANTHROPIC_API_KEY", "FEATHER_OPENAI_API_KEY"];

/// What every admin container is made of.
#[derive(Clone)]
pub struct AdminSettings {
    /// Volume mounted at `/home/user`, or the absolute path of a directory to be mounted there.
    pub home: String,
    /// Its environment. Values are secrets.
    pub environment: BTreeMap<String, String>,
}

impl AdminSettings {
    /// Those of these variables that an admin container gets. What is meant for the agent is not.
    pub fn pick(variables: impl IntoIterator<Item = (String, String)>) -> BTreeMap<String, String> {
        let passed = |name: &str| {
            ["FEATHER_", "ANTHROPIC_", "OPENAI_"].iter().any(|prefix| name.starts_with(prefix))
                && !name.starts_with("FEATHER_AGENT_")
        };
        variables.into_iter().filter(|(name, value)| passed(name) && !value.is_empty()).collect()
    }
}

/// Settings of one agent. `Debug` shows the names of variables for tenants, never their values.
#[derive(Clone)]
pub struct Config {
    /// Where the ledger and the identity are kept.
    pub state_dir: PathBuf,
    /// Loopback ports for tenants, both ends included.
    pub ports: RangeInclusive<u16>,
    /// Image that tenants get unless told otherwise.
    pub work_image: String,
    /// Variables that every tenant gets beside its password. Values are secrets.
    pub tenant_environment: BTreeMap<String, String>,
    /// Name servers of tenants.
    pub tenant_dns: Vec<String>,
    /// How long a container may take to its first healthy answer.
    pub health_timeout: Duration,
    /// How long a container may take to end after SIGTERM.
    pub stop_grace: Duration,
    /// Before a tenant stops for a move, requests that are under way have this long to end.
    pub drain_limit: Duration,
    /// How long and how many requests wait while their tenant moves.
    pub gate: GateLimits,
    /// Characters of a new password.
    pub password_length: usize,
    /// Tenants are reached at `NAME.SUFFIX`.
    pub domain_suffix: String,
    /// How this server meets the public.
    pub edge: Edge,
    /// The container that answers whatever is for no tenant, if there shall be one.
    pub admin: Option<AdminSettings>,
    /// How often everything that should answer is asked whether it does.
    pub watchdog_interval: Duration,
    /// Failed checks in a row that make something count as dead.
    pub watchdog_checks: u32,
    /// Longest time between two passes of the reconciler.
    pub reconcile_interval: Duration,
    /// How often the controller is asked whether this server is still a member, while it watches this server by no call of its own.
    pub standing_interval: Duration,
    /// Where people sign up, if anywhere.
    pub waitlist: Option<Door>,
    /// Where the script of the time before kept its tenants.
    pub old_tenants_file: PathBuf,
}

impl Config {
    /// The defaults, with this state directory.
    pub fn new(state_dir: impl Into<PathBuf>) -> Self {
        Self {
            state_dir: state_dir.into(),
            ports: 9001..=9010,
            work_image: "localhost/feather-work:latest".into(),
            tenant_environment: BTreeMap::new(),
            tenant_dns: vec!["8.8.8.8".into(), "1.1.1.1".into()],
            health_timeout: Duration::from_secs(120),
            stop_grace: Duration::from_secs(10),
            drain_limit: Duration::from_secs(5),
            gate: GateLimits::default(),
            password_length: 10,
            domain_suffix: "users.inceptel.ai".into(),
            edge: Edge::http(),
            admin: None,
            watchdog_interval: Duration::from_secs(30),
            watchdog_checks: 3,
            reconcile_interval: Duration::from_secs(2),
            standing_interval: Duration::from_secs(15),
            waitlist: None,
            old_tenants_file: "/tmp/tenants.json".into(),
        }
    }

    /// Directory of the ledger.
    pub fn ledger_dir(&self) -> PathBuf {
        self.state_dir.join("tenants")
    }

    /// Directory of the record of the admin container.
    pub fn work_dir(&self) -> PathBuf {
        self.state_dir.join("work")
    }

    /// Directory of what happened here.
    pub fn history_dir(&self) -> PathBuf {
        self.state_dir.join("history")
    }

    /// What is noted of volumes.
    pub fn notes_dir(&self) -> PathBuf {
        self.state_dir.join("manifests")
    }

    /// Sockets of tenants whose requests are held.
    pub fn gate_dir(&self) -> PathBuf {
        self.state_dir.join("gates")
    }

    /// Who signed up.
    pub fn waitlist_file(&self) -> PathBuf {
        self.state_dir.join("waitlist.jsonl")
    }

    /// The certificate of the fleet in files for the proxy.
    pub fn link_dir(&self) -> PathBuf {
        self.state_dir.join("link")
    }

    /// The certificate of the tenants' names, for the proxy.
    pub fn certificate_dir(&self) -> PathBuf {
        self.state_dir.join("certificate")
    }

    /// The agent's certificate and key.
    pub fn identity_file(&self) -> PathBuf {
        self.state_dir.join("agent.identity")
    }

    /// The list of revoked certificates.
    pub fn revoked_file(&self) -> PathBuf {
        self.state_dir.join("revoked.json")
    }

    /// That this server is out of its fleet, for as long as it is.
    pub fn fenced_file(&self) -> PathBuf {
        self.state_dir.join("fenced.json")
    }

    /// The newest lead of a controller.
    pub fn leader_file(&self) -> PathBuf {
        self.state_dir.join("leader")
    }

    /// Where the controller is.
    pub fn controller_file(&self) -> PathBuf {
        self.state_dir.join("controller.json")
    }
}

impl fmt::Debug for Config {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Config")
            .field("state_dir", &self.state_dir)
            .field("ports", &self.ports)
            .field("work_image", &self.work_image)
            .field("tenant_environment", &self.tenant_environment.keys().collect::<Vec<_>>())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::AdminSettings;

    #[test]
    fn the_admin_container_gets_what_is_meant_for_feather_and_not_what_is_meant_for_the_agent() {
        let names =
            ["FEATHER_PASSWORD", "ANTHROPIC_API_KEY", "OPENAI_X", "FEATHER_AGENT_JOIN_TOKEN", "PATH", "XFEATHER_Y"];
        let picked = AdminSettings::pick(names.map(|name| (name.to_owned(), "value".to_owned())));
        assert_eq!(picked.keys().collect::<Vec<_>>(), ["ANTHROPIC_API_KEY", "FEATHER_PASSWORD", "OPENAI_X"]);
        assert!(AdminSettings::pick([("FEATHER_EMPTY".to_owned(), String::new())]).is_empty());
    }
}
