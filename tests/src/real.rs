//! A fleet of real births: Podman, Caddy, one controller process, and featherctl as people type it.
//!
//! Owns the life of such a fleet, from its own names and addresses to the proof that nothing of it is left and that no secret
//! of it was seen anywhere. How a birth is run is the business of `scripts/`; this only calls them.

mod authority;
mod caddy;
mod command;
pub mod damage;
mod holdings;
mod http;
mod load;
mod secrets;
pub mod soak;
mod streams;
pub mod tree;

use std::{
    collections::BTreeMap,
    net::Ipv4Addr,
    path::{Path, PathBuf},
    sync::{
        LazyLock, Mutex,
        atomic::{AtomicU32, Ordering},
    },
};

use feather_agent::router::caddy::contract::quiet_port;
use tokio::sync::MutexGuard;

pub use authority::Authority;
pub use caddy::CADDY;
pub use command::Ran;
pub use damage::Damage;
pub use holdings::Holdings;
pub use http::{Answer, Login, Visitor, Writer, journal_is_whole, one_at_a_time};
pub use streams::Streams;

use command::Commands;
use secrets::Watch;

/// What births get as a key of their tenants; it must be seen nowhere.
const API_KEY: &str = "secret-key-of-the-births-7f3a";
/// Where Podman inside of a birth keeps the data of a volume.
const VOLUMES: &str = "storage/volumes";

/// One fleet at a time: several would only wait for each other's processors.
static TURN: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());
static NUMBER: AtomicU32 = AtomicU32::new(1);
static ROOT: LazyLock<PathBuf> = LazyLock::new(|| {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    package.parent().expect("the package lies in the project").to_owned()
});

/// A running fleet. End it by [`Real::finish`]; a panic tears it down too.
pub struct Real {
    commands: Commands,
    prefix: String,
    directory: PathBuf,
    subnet: String,
    /// Names and ports of the controllers.
    controllers: Vec<(&'static str, u16)>,
    servers: BTreeMap<String, Ipv4Addr>,
    secrets: Mutex<Vec<String>>,
    logs: Mutex<String>,
    watch: Option<Watch>,
    http: reqwest::Client,
    finished: bool,
    _turn: MutexGuard<'static, ()>,
}

/// Two controllers on a PostgreSQL of the fleet's own, as a setting.
pub const TWO_CONTROLLERS: (&str, &str) = ("FEATHER_FLEET_STORE", "postgres");
/// Distance of the second one's port from the first one's, as the scripts have it.
const SECOND_PORT: u16 = 3500;

impl Real {
    /// A controller and servers that have joined it. `settings` go into the environment of births and controller.
    pub async fn start(servers: &[&str], settings: &[(&str, &str)]) -> Self {
        let mut fleet = Self::bare(settings).await;
        fleet.servers = servers.iter().zip(61..).map(|(name, host)| ((*name).to_owned(), fleet.ip(host))).collect();
        fleet.bring_up().await;
        fleet
    }

    /// Names and addresses, nothing that runs yet.
    pub async fn bare(settings: &[(&str, &str)]) -> Self {
        let turn = TURN.lock().await;
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("test-{}-{number}", std::process::id());
        let binaries = binaries();
        let directory = ancestor_of_test(3).join(&name);
        let third = free_third_byte();
        let subnet = format!("10.78.{third}.0/24");
        let mut commands = Commands::new(&ROOT);
        commands.set("FEATHER_BIRTH_PREFIX", format!("feather-{name}-"));
        commands.set("FEATHER_SUBNET", &subnet);
        commands.set("FEATHER_FLEET_DIR", &directory);
        commands.set("FEATHER_BINARIES", &binaries);
        if let Some(image) = std::env::var_os("FEATHER_BIRTH_IMAGE") {
            commands.set("FEATHER_BIRTH_IMAGE", image);
        }
        let port = quiet_port();
        commands.set("FEATHER_CONTROLLER_PORT", port.to_string());
        let shared = settings.contains(&TWO_CONTROLLERS);
        let second = port + SECOND_PORT;
        let both = || format!("127.0.0.1:{port},127.0.0.1:{second}");
        commands.set("FEATHERCTL_CONTROLLER", if shared { both() } else { format!("127.0.0.1:{port}") });
        commands.set("FEATHERCTL_IDENTITY", directory.join("controller/admin.identity"));
        commands.set("FEATHER_BIRTH_PASS", "ANTHROPIC_API_KEY");
        // One container more for each birth, which only its own tests need.
        commands.set("FEATHER_AGENT_ADMIN", "off");
        commands.set("ANTHROPIC_API_KEY", API_KEY);
        for (name, value) in settings {
            commands.set(name, value);
        }
        std::fs::create_dir_all(&directory).expect("the fleet's directory can be made");
        let usable = commands.script("podman", &["info"], None).await;
        assert_eq!(usable.code, 0, "Podman is not usable here (these tests need root, see `make setup`): {usable:?}");
        Self {
            commands,
            prefix: format!("feather-{name}-"),
            directory,
            subnet,
            controllers: [("controller", port), ("second", second)].into_iter().take(1 + usize::from(shared)).collect(),
            servers: BTreeMap::new(),
            secrets: Mutex::new(vec![API_KEY.to_owned()]),
            logs: Mutex::new(String::new()),
            watch: Some(Watch::start()),
            http: http::client(),
            finished: false,
            _turn: turn,
        }
    }

    fn ip(&self, host: u8) -> Ipv4Addr {
        let address = self.subnet.replace(".0/24", &format!(".{host}"));
        address.parse().expect("an address in a subnet is one")
    }

    /// Starts whatever of the fleet does not run, and waits until every server is ready.
    pub async fn bring_up(&self) {
        let servers: Vec<_> = self.servers.iter().map(|(name, ip)| format!("{name}={ip}")).collect();
        let mut arguments = vec!["up"];
        arguments.extend(servers.iter().map(String::as_str));
        self.commands.script("fleet", &arguments, None).await.ok();
    }

    /// One more server, by hand: a token, and a birth with settings of its own.
    pub async fn join(&mut self, server: &str, settings: &[(&str, &str)]) {
        self.join_with(server, settings, &[]).await;
    }

    /// The same, with arguments for Podman.
    pub async fn join_with(&mut self, server: &str, settings: &[(&str, &str)], arguments: &[&str]) {
        let token = self.invite(server).await;
        let ip = self.ip(61 + u8::try_from(self.servers.len()).expect("fleets are small"));
        self.servers.insert(server.to_owned(), ip);
        let mut commands = self.commands.clone();
        commands.set("FEATHER_AGENT_JOIN_TOKEN", token);
        for (name, value) in settings {
            commands.set(name, value);
        }
        let ip = ip.to_string();
        commands.script("birth", &[&["up", server, &ip], arguments].concat(), None).await.ok();
        self.becomes(server, "ready").await;
    }

    /// A server that belongs to no fleet, with an agent that is ready to add tenants.
    pub async fn alone(&mut self, server: &str) {
        let ip = self.ip(61 + u8::try_from(self.servers.len()).expect("fleets are small"));
        self.servers.insert(server.to_owned(), ip);
        self.commands.script("birth", &["up", server, &ip.to_string()], None).await.ok();
        crate::wait::until("its agent has the work image", async || {
            let ran = self.inside(server, "tenant.sh status").await;
            if ran.code == 0 && ran.stdout.contains("(sha256:") { Ok(()) } else { Err(ran) }
        })
        .await;
    }

    /// Such a server joins the fleet, as it runs.
    pub async fn joins_later(&self, server: &str) {
        let mut commands = self.commands.clone();
        commands.set("FEATHER_AGENT_JOIN_TOKEN", self.invite(server).await);
        let birth = self.birth(server);
        let arguments = ["exec", "--env", "FEATHER_AGENT_JOIN_TOKEN", &birth, "feather-agent", "join"];
        commands.script("podman", &arguments, None).await.ok();
    }

    /// A birth by itself whose agent may have no work image; waited for until it has tried to get one.
    pub async fn unready(&mut self, server: &str, settings: &[(&str, &str)]) {
        let ip = self.ip(61 + u8::try_from(self.servers.len()).expect("fleets are small"));
        self.servers.insert(server.to_owned(), ip);
        let mut commands = self.commands.clone();
        for (name, value) in settings {
            commands.set(name, value);
        }
        commands.script("birth", &["up", server, &ip.to_string()], None).await.ok();
        crate::wait::until("the birth is ready, and its agent answers", async || {
            let logs = self.podman(&["logs", &self.birth(server)]).await;
            let ran = self.inside(server, "tenant.sh status").await;
            if logs.stdout.contains("birth: ready") && ran.code == 0 { Ok(()) } else { Err((logs, ran)) }
        })
        .await;
    }

    /// A birth that will not start; what it says.
    pub async fn refused_birth(&mut self, server: &str) -> String {
        let ip = self.ip(61 + u8::try_from(self.servers.len()).expect("fleets are small"));
        self.servers.insert(server.to_owned(), ip);
        self.commands.script("birth", &["up", server, &ip.to_string()], None).await.ok();
        let birth = self.birth(server);
        crate::wait::until("it has ended", async || {
            let format = ["inspect", "--format", "{{.State.Status}} {{.State.ExitCode}}", &birth];
            let state = self.podman(&format).await.ok();
            if state.trim() == "exited 1" { Ok(()) } else { Err(state) }
        })
        .await;
        self.podman(&["logs", &birth]).await.ok()
    }

    /// Address of a birth that runs or is to be the next to join.
    pub fn address(&self, server: &str) -> Ipv4Addr {
        let next = || self.ip(61 + u8::try_from(self.servers.len()).expect("fleets are small"));
        self.servers.get(server).copied().unwrap_or_else(next)
    }

    /// A certificate authority for this fleet, to which every name leads to the server.
    pub async fn authority(&self, leads_to: &str) -> Authority {
        Authority::start(&self.directory, self.ip(1), self.address(leads_to)).await
    }

    /// A birth that no controller knows, without an agent: only Podman and Caddy.
    pub async fn lone_birth(&mut self, server: &str, arguments: &[&str]) {
        let ip = self.ip(61);
        self.servers.insert(server.to_owned(), ip);
        let ip = ip.to_string();
        let arguments = [&["up", server, &ip, "--env", "FEATHER_BIRTH_AGENT=off"], arguments].concat();
        self.commands.script("birth", &arguments, None).await.ok();
        crate::wait::until("the birth is ready", async || {
            let logs = self.podman(&["logs", &self.birth(server)]).await;
            if logs.stdout.contains("birth: ready") { Ok(()) } else { Err(logs) }
        })
        .await;
    }

    /// A token for a new server.
    pub async fn invite(&self, server: &str) -> String {
        let invitation = self.featherctl_json(&["server", "invite", server]).await;
        let token = invitation["token"].as_str().expect("an invitation has a token").to_owned();
        self.remember_secret(&token);
        token
    }

    /// Waits until the controller sees the server so.
    pub async fn becomes(&self, server: &str, state: &str) {
        crate::wait::until(&format!("{server} is {state}"), async || {
            let servers = self.featherctl_json(&["server", "list"]).await;
            let is_so = |found: &serde_json::Value| found["name"] == server && found["state"] == state;
            if servers.as_array().expect("a list").iter().any(is_so) { Ok(()) } else { Err(servers) }
        })
        .await;
    }

    /// As a person types it.
    pub async fn featherctl(&self, arguments: &[&str]) -> Ran {
        self.featherctl_with(&[], arguments).await
    }

    /// The same with other settings in its environment.
    pub async fn featherctl_with(&self, settings: &[(&str, &str)], arguments: &[&str]) -> Ran {
        self.binary("featherctl", settings, arguments).await
    }

    /// One of the built programs, on this machine.
    pub async fn binary(&self, name: &str, settings: &[(&str, &str)], arguments: &[&str]) -> Ran {
        let mut commands = self.commands.clone();
        for (name, value) in settings {
            commands.set(name, value);
        }
        let ran = commands.run(&binaries().join(name), arguments, None).await;
        self.remember_log(&ran.stderr);
        ran
    }

    /// The document that a command prints; it must succeed.
    pub async fn featherctl_json(&self, arguments: &[&str]) -> serde_json::Value {
        let arguments = [arguments, &["--output", "json"]].concat();
        let text = self.featherctl(&arguments).await.ok();
        serde_json::from_str(&text).expect("featherctl prints JSON")
    }

    /// `tenant add`, and what a person does with its one line.
    pub async fn add(&self, tenant: &str, more: &[&str]) -> Login {
        let arguments = [&["tenant", "add", tenant], more].concat();
        let line = self.featherctl(&arguments).await.ok();
        let login = Login::parse(tenant, &line);
        self.remember_secret(&login.password);
        login
    }

    /// `tenant migrate`, to its end.
    pub async fn migrate(&self, tenant: &str, to: &str) -> Ran {
        let ran = self.featherctl(&["tenant", "migrate", tenant, "--to", to]).await;
        assert_eq!(ran.code, 0, "{ran:?}");
        ran
    }

    /// Where the tenant lives.
    pub async fn server_of(&self, tenant: &str) -> String {
        let shown = self.featherctl_json(&["tenant", "show", tenant]).await;
        shown["server"].as_str().expect("it lives somewhere").to_owned()
    }

    /// A browser at the tenant's address that reaches it through this server's Caddy.
    pub fn visit(&self, server: &str, login: &Login) -> Visitor {
        Visitor::new(self.http.clone(), self.servers[server], login.clone())
    }

    /// Waits until the tenant answers through this server.
    pub async fn answers(&self, server: &str, login: &Login) -> Answer {
        let visitor = self.visit(server, login);
        crate::wait::until(&format!("{} answers through {server}", login.tenant), async || {
            match visitor.get("/journal").await {
                Ok(answer) if answer.status == 200 => Ok(answer),
                other => Err(other),
            }
        })
        .await
    }

    /// Name of the birth's container.
    pub fn birth(&self, server: &str) -> String {
        format!("{}{server}", self.prefix)
    }

    /// Podman on this machine.
    pub async fn podman(&self, arguments: &[&str]) -> Ran {
        self.commands.script("podman", arguments, None).await
    }

    /// Where the hardware address of the births' bridge comes from, as the kernel's `addr_assign_type` says it.
    pub async fn bridge_address_kind(&self) -> String {
        let network = format!("{}network", self.prefix);
        let bridge = self.podman(&["network", "inspect", "--format", "{{.NetworkInterface}}", &network]).await.ok();
        let file = format!("/sys/class/net/{}/addr_assign_type", bridge.trim());
        std::fs::read_to_string(file).expect("the bridge is there").trim().to_owned()
    }

    /// A line of shell in a birth.
    pub async fn inside(&self, server: &str, script: &str) -> Ran {
        self.podman(&["exec", &self.birth(server), "bash", "-c", script]).await
    }

    /// The same, with something to read.
    pub async fn inside_with(&self, server: &str, script: &str, input: &Path) -> Ran {
        let name = self.birth(server);
        self.commands.script("podman", &["exec", "--interactive", &name, "bash", "-c", script], Some(input)).await
    }

    /// A folder for the test's own files.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Any program on this machine.
    pub async fn run(&self, program: &str, arguments: &[&str]) -> Ran {
        self.commands.run(Path::new(program), arguments, None).await
    }

    /// The tenant's volume on a server, as a directory of this machine.
    pub async fn volume(&self, server: &str, tenant: &str) -> PathBuf {
        let storage = format!("{}-storage", self.birth(server));
        let place = self.podman(&["volume", "inspect", "--format", "{{.Mountpoint}}", &storage]).await.ok();
        Path::new(place.trim()).join(VOLUMES).join(format!("feather-user-{tenant}/_data"))
    }

    /// A power failure.
    pub async fn kill_birth(&self, server: &str) {
        self.podman(&["kill", "--signal", "KILL", &self.birth(server)]).await.ok();
    }

    /// Power is back. Nothing of the memory and of the network of the time before is left: Podman would keep both if it were
    /// asked before it has seen the end.
    pub async fn start_birth(&self, server: &str) {
        let birth = self.birth(server);
        crate::wait::until("the birth has ended", async || {
            let ran = self.podman(&["container", "cleanup", &birth]).await;
            if ran.code == 0 { Ok(()) } else { Err(ran) }
        })
        .await;
        self.podman(&["start", &birth]).await.ok();
    }

    /// `kill -9` of the agent; the birth's supervisor starts it again.
    pub async fn kill_agent(&self, server: &str) {
        self.inside(server, "s6-svc -k /run/service/agent").await.ok();
    }

    /// `kill -9` of the controller, of two the one that leads; [`Real::bring_up`] starts it again.
    pub async fn kill_controller(&self) {
        let leader = self.leader().await;
        let pid = std::fs::read_to_string(self.directory.join(format!("{leader}.pid"))).expect("it has a number");
        self.run("kill", &["-KILL", pid.trim()]).await.ok();
    }

    /// Name of the controller that leads.
    async fn leader(&self) -> &'static str {
        let [(only, _)] = self.controllers[..] else {
            return crate::wait::until("one of the controllers leads", async || {
                let mut said = vec![];
                for (name, port) in &self.controllers {
                    let arguments = ["--controller", &format!("127.0.0.1:{port}"), "status", "--output", "json"];
                    let ran = self.featherctl(&arguments).await;
                    let status = serde_json::from_str::<serde_json::Value>(&ran.stdout);
                    if status.is_ok_and(|status| status["leader"].is_null()) {
                        return Ok(*name);
                    }
                    said.push(ran);
                }
                Err(said)
            })
            .await;
        };
        only
    }

    /// Lets a birth send no more than one MB a second, or as much as it likes again. A restarted one is free again by itself.
    pub async fn slow_down(&self, server: &str, slow: bool) {
        let change =
            if slow { "add dev eth0 root tbf rate 8mbit burst 64kb latency 400ms" } else { "del dev eth0 root" };
        let ran = self.inside(server, &format!("tc qdisc {change}")).await;
        assert!(ran.code == 0 || !slow, "{ran:?}");
    }

    /// From now on the image that tenants run is this variant of it, on this server; `latest` is the good one again.
    pub async fn use_image(&self, server: &str, variant: &str) {
        const LATEST: &str = "localhost/feather-work:latest";
        if variant == "latest" {
            self.inside(server, &format!("podman tag localhost/feather-work:good {LATEST}")).await.ok();
            return;
        }
        let archive = ancestor_of_test(3).join(format!("work-image/feather-work-{variant}.tar"));
        let script = format!(
            "podman load --quiet && podman tag {LATEST} localhost/feather-work:good && \
             podman tag localhost/feather-work:{variant} {LATEST}"
        );
        self.inside_with(server, &script, &archive).await.ok();
    }

    /// Begins a change and does not wait for it.
    pub async fn begin(&self, arguments: &[&str]) -> String {
        self.featherctl(&[arguments, &["--no-wait"]].concat()).await.ok().trim().to_owned()
    }

    /// Waits until the operation is at this step.
    pub async fn comes_to(&self, operation: &str, step: &str) {
        crate::wait::until(&format!("{operation} comes to {step}"), async || {
            let shown = self.featherctl_json(&["operation", "show", operation]).await;
            assert!(shown["ended"].is_null(), "it ended before {step}: {shown:#}");
            if shown["step"] == step { Ok(()) } else { Err(shown["step"].clone()) }
        })
        .await;
    }

    /// Waits until the operation has ended; it may be stuck for a while. Tells whether it succeeded.
    pub async fn ends(&self, operation: &str) -> bool {
        let bound = std::time::Duration::from_secs(100);
        crate::wait::within(bound, &format!("{operation} ends"), async || {
            let shown = self.featherctl_json(&["operation", "show", operation]).await;
            if shown["ended"].is_null() { Err(shown) } else { Ok(shown["state"] == "succeeded") }
        })
        .await
    }

    /// What every server holds of tenants.
    pub async fn holdings(&self) -> BTreeMap<String, Holdings> {
        let mut found = BTreeMap::new();
        for server in self.servers.keys() {
            found.insert(server.clone(), holdings::look(self, server).await);
        }
        found
    }

    /// Waits until the servers hold exactly this; reconcilers need a moment.
    pub async fn comes_to_hold(&self, wanted: &[(&str, Holdings)]) {
        let wanted: BTreeMap<_, _> = wanted.iter().map(|(server, held)| ((*server).to_owned(), held.clone())).collect();
        crate::wait::until("every server holds what it should", async || {
            let held = self.holdings().await;
            if held == wanted { Ok(()) } else { Err((held, &wanted)) }
        })
        .await;
    }

    /// Never to be seen outside of the place that told it.
    pub fn remember_secret(&self, secret: &str) {
        self.secrets.lock().expect("not poisoned").push(secret.to_owned());
    }

    fn remember_log(&self, text: &str) {
        self.logs.lock().expect("not poisoned").push_str(text);
    }

    /// Keeps the log of a birth for the search for secrets; to be called before the birth is removed.
    pub async fn keep_log(&self, server: &str) -> String {
        let logs = self.podman(&["logs", &self.birth(server)]).await;
        let text = format!("{}{}", logs.stdout, logs.stderr);
        self.remember_log(&text);
        text
    }

    /// Takes everything down, and proves that no secret was seen and that nothing is left.
    pub async fn finish(mut self) {
        for server in self.servers.keys() {
            self.keep_log(server).await;
            let environment =
                self.podman(&["inspect", "--format", "{{json .Config.Env}}", &self.birth(server)]).await.ok();
            let environment: Vec<String> = serde_json::from_str(&environment).expect("Podman prints JSON");
            environment
                .iter()
                .filter_map(|setting| setting.strip_prefix("FEATHER_AGENT_JOIN_TOKEN="))
                .for_each(|token| self.remember_secret(token));
        }
        let arguments = self.watch.take().expect("finished once").stop().await;
        let secrets = self.secrets.lock().expect("not poisoned").clone();
        let logs = self.logs.lock().expect("not poisoned").clone();
        secrets::nowhere(&secrets, &logs, &arguments, &self.directory);
        self.finished = true;
        tear_down(&self.commands, &self.servers);
        for list in [["ps", "--all"].as_slice(), &["volume", "ls"], &["network", "ls"]] {
            let left = self.podman(list).await.ok();
            assert!(!left.contains(&self.prefix), "this is left of the fleet: {left}");
        }
        assert!(!self.directory.exists(), "the fleet's directory is gone");
    }
}

impl Drop for Real {
    fn drop(&mut self) {
        if self.finished {
            return;
        }
        secrets::show_logs(&self.commands, &self.prefix, self.servers.keys(), &self.directory);
        tear_down(&self.commands, &self.servers);
    }
}

fn tear_down(commands: &Commands, servers: &BTreeMap<String, Ipv4Addr>) {
    let arguments: Vec<_> = ["down"].into_iter().chain(servers.keys().map(String::as_str)).collect();
    commands.script_blocking("fleet", &arguments);
}

/// Where `make build` puts the programs: beside the tests.
fn binaries() -> PathBuf {
    if let Some(named) = std::env::var_os("FEATHER_BINARIES") {
        return named.into();
    }
    let binaries = ancestor_of_test(2);
    for name in ["feather-agent", "feather-controller", "featherctl"] {
        assert!(binaries.join(name).exists(), "there is no {name} in {}: run `make build`", binaries.display());
    }
    binaries
}

/// Tests lie in target/PROFILE/deps, programs beside that.
fn ancestor_of_test(levels: usize) -> PathBuf {
    let own = std::env::current_exe().expect("a test has a path");
    let is_program = own.parent().is_some_and(|folder| !folder.ends_with("deps"));
    let levels = levels - usize::from(is_program);
    own.ancestors().nth(levels).expect("tests lie in target/PROFILE/deps").to_owned()
}

/// A third byte of 10.78.x.0/24 that no interface of this machine has an address in.
fn free_third_byte() -> u32 {
    let taken = std::fs::read_to_string("/proc/net/fib_trie").expect("Linux tells its routes");
    let first = std::process::id() % 250;
    (0..250)
        .map(|step| (first + step) % 250 + 1)
        .find(|third| !taken.contains(&format!("10.78.{third}.")))
        .expect("one of 250 subnets is free")
}
