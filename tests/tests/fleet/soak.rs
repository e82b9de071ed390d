//! Random histories: people change many tenants at once while servers, the controller and the network fail under them. When all
//! is well again, everything must have come to an end, and every promise must hold.
//!
//! The history follows from its seed as far as the scheduler lets it. More of it: `FEATHER_SOAK_SEED` (one seed instead of the
//! fixed ones), `FEATHER_SOAK_STEPS`.

use std::{cell::Cell, collections::BTreeSet, fmt, time::Duration};

use feather_agent::{router::fake as router, runtime::fake as runtime};
use feather_controller::{
    operations::{Kind, State},
    store::{OperationRow, Store},
};
use feather_proto::pb::controller::v1 as pb;
use feather_tests::{
    Fleet,
    faults::Fault,
    fleet::{request_id, tenant},
    wait::{until, within},
};
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng, seq::IndexedRandom as _};

const SERVERS: [&str; 3] = ["nyc", "fra", "ams"];
const TENANTS: [&str; 4] = ["alice", "bob", "carol", "dave"];
const SEEDS: [u64; 3] = [1, 2, 3];
const STEPS: usize = 60;
/// Calls that meet nobody end by themselves; this only bounds what a defect could cost.
const CALL_MAX: Duration = Duration::from_secs(10);
/// How long everything may take to come to an end once all is well.
const SETTLE_MAX: Duration = Duration::from_secs(60);
/// Calls of the engine that may fail without anybody being wrong about what runs.
const ENGINE_FAULTS: [runtime::Verb; 9] = [
    runtime::Verb::Container,
    runtime::Verb::Containers,
    runtime::Verb::EnsureContainer,
    runtime::Verb::Start,
    runtime::Verb::Stop,
    runtime::Verb::RemoveContainer,
    runtime::Verb::Volume,
    runtime::Verb::EnsureVolume,
    runtime::Verb::RemoveVolume,
];

/// A history under way. Says what happened when a check fails.
struct Soak {
    fleet: Fleet,
    seed: u64,
    random: StdRng,
    history: Vec<String>,
    down: BTreeSet<&'static str>,
    cuts: BTreeSet<(String, String)>,
    controller_down: bool,
    begun: tokio::task::JoinSet<()>,
}

impl Drop for Soak {
    #[allow(clippy::print_stderr, reason = "a failure that cannot be repeated helps nobody")]
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("FEATHER_SOAK_SEED={} with this history:\n  {}", self.seed, self.history.join("\n  "));
        }
    }
}

impl Soak {
    async fn start(seed: u64) -> Self {
        Self {
            fleet: Fleet::start(&SERVERS).await,
            seed,
            random: StdRng::seed_from_u64(seed),
            history: vec![],
            down: BTreeSet::new(),
            cuts: BTreeSet::new(),
            controller_down: false,
            begun: tokio::task::JoinSet::new(),
        }
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        *from.choose(&mut self.random).unwrap()
    }

    fn note(&mut self, what: impl fmt::Display) {
        self.history.push(what.to_string());
    }

    /// Somebody asks for something and does not wait for the answer.
    fn ask(&mut self, what: String, asking: impl Future<Output = Result<(), tonic::Status>> + Send + 'static) {
        self.note(what);
        self.begun.spawn(async move {
            // Refused, begun, or lost: all of it is somebody's ordinary day.
            drop(tokio::time::timeout(CALL_MAX, asking).await);
        });
    }

    fn change(&mut self) {
        let name = self.pick(&TENANTS);
        let (mut tenants, request_id, tenant) = (self.fleet.tenants(), request_id(), name.to_owned());
        match self.random.random_range(0..12) {
            0..=3 => {
                let server = self.pick(&["", "nyc", "fra", "ams"]).to_owned();
                let what = format!("add {name} {server}");
                let request = pb::AddTenantRequest { request_id, tenant, server, ..Default::default() };
                self.ask(what, async move { tenants.add_tenant(request).await.map(drop) });
            }
            4 => {
                let request = pb::RemoveTenantRequest { request_id, tenant, dry_run: false };
                self.ask(format!("remove {name}"), async move { tenants.remove_tenant(request).await.map(drop) });
            }
            5..=8 => {
                let server = self.pick(&["", "nyc", "fra", "ams"]).to_owned();
                let what = format!("migrate {name} {server}");
                let request = pb::MigrateTenantRequest { request_id, tenant, server, ..Default::default() };
                self.ask(what, async move { tenants.migrate_tenant(request).await.map(drop) });
            }
            9 => {
                let request = pb::StopTenantRequest { request_id, tenant };
                self.ask(format!("stop {name}"), async move { tenants.stop_tenant(request).await.map(drop) });
            }
            10 => {
                let request = pb::StartTenantRequest { request_id, tenant };
                self.ask(format!("start {name}"), async move { tenants.start_tenant(request).await.map(drop) });
            }
            _ => {
                let request = pb::ResetPasswordRequest { request_id, tenant };
                self.ask(format!("password {name}"), async move { tenants.reset_password(request).await.map(drop) });
            }
        }
    }

    async fn cancel(&mut self) {
        let running: Vec<_> = self.operations().await.into_iter().filter(|one| one.ended.is_none()).collect();
        let Some(one) = running.choose(&mut self.random) else { return };
        let (mut operations, id) = (self.fleet.operations(), one.id.clone());
        let what = format!("cancel {:?} {}", one.kind(), one.tenant);
        self.ask(what, async move { operations.cancel_operation(pb::CancelOperationRequest { id }).await.map(drop) });
    }

    /// Operations, or none while nobody answers.
    async fn operations(&self) -> Vec<pb::Operation> {
        let request = pb::ListOperationsRequest { limit: 1000, ..Default::default() };
        let mut client = self.fleet.operations();
        let listed = tokio::time::timeout(CALL_MAX, client.list_operations(request)).await;
        listed.ok().and_then(Result::ok).map(|reply| reply.into_inner().operations).unwrap_or_default()
    }

    fn break_something(&mut self) {
        let server = self.pick(&SERVERS);
        match self.random.random_range(0..12) {
            0..=3 => {
                let number = self.fleet.faults.made().len() + self.random.random_range(0..6);
                let fault = self.pick(&Fault::ALL);
                self.note(format!("{fault:?} at call {number}"));
                self.fleet.faults.at(number, fault);
            }
            4 | 5 => {
                let verb = self.pick(&ENGINE_FAULTS);
                let lose = self.random.random_bool(0.5);
                self.note(format!("{server}: {verb:?} fails once (reply lost: {lose})"));
                let engine = &self.fleet.servers[server].runtime;
                if lose { engine.lose_reply_next(verb) } else { engine.fail_next(verb, 1) }
            }
            6 => {
                let verb = self.pick(&[router::Verb::Ensure, router::Verb::Probe]);
                self.note(format!("{server}: {verb:?} fails once"));
                self.fleet.servers[server].router.fail_next(verb, 1);
            }
            7 | 8 if self.down.is_empty() => {
                self.note(format!("{server}: agent killed"));
                self.fleet.kill_agent(server);
                self.down.insert(server);
            }
            9 if self.down.is_empty() => {
                self.note(format!("{server}: power off"));
                self.fleet.power_off(server);
                self.down.insert(server);
            }
            10 if !self.controller_down => {
                let writes = self.random.random_range(1..8);
                self.note(format!("controller crashes after {writes} writes"));
                self.fleet.crash_after_writes(writes);
                self.controller_down = true;
            }
            _ => {
                let from = self.pick(&["controller", "nyc", "fra", "ams"]);
                self.note(format!("{from} does not reach {server}"));
                let address = format!("{server}:7443");
                self.fleet.network.cut(from, &address);
                self.cuts.insert((from.to_owned(), address));
            }
        }
    }

    async fn mend_something(&mut self) {
        if let Some(server) = self.down.pop_first() {
            self.note(format!("{server}: agent starts"));
            self.fleet.start_agent(server);
        } else if self.controller_down {
            self.note("controller starts");
            self.restart_controller().await;
        } else if let Some((from, address)) = self.cuts.pop_first() {
            self.note(format!("{from} reaches {address}"));
            self.fleet.network.heal(&from, &address);
        }
    }

    async fn restart_controller(&mut self) {
        self.fleet.kill_controller();
        self.fleet.start_controller().await;
        self.controller_down = false;
    }

    /// Lets things happen: a few calls, or a few looks when nothing moves.
    async fn pace(&mut self) {
        let (looks, wanted) = (Cell::new(0), self.fleet.faults.made().len() + self.random.random_range(0..8));
        until("time passes", async || {
            looks.set(looks.get() + 1);
            let enough = looks.get() > 20 || self.fleet.faults.made().len() >= wanted;
            if enough { Ok(()) } else { Err(looks.get()) }
        })
        .await;
    }

    /// Where the store says that a tenant lives.
    async fn lives_at(&self, name: &str) -> Option<String> {
        let mut client = self.fleet.tenants();
        let asked = client.get_tenant(pb::GetTenantRequest { tenant: name.to_owned() });
        let shown = tokio::time::timeout(CALL_MAX, asked).await.ok()?.ok()?.into_inner().tenant?;
        Some(shown.server).filter(|server| !server.is_empty())
    }

    /// No request reaches a copy that the store does not say is the tenant.
    async fn nobody_reaches_a_trial(&mut self) {
        let (name, server) = (self.pick(&TENANTS), self.pick(&SERVERS));
        let Some(before) = self.lives_at(name).await else { return };
        let served_by = self.fleet.request(server, name).served_by;
        let after = self.lives_at(name).await;
        if let Some(served_by) = served_by
            && after.as_ref() == Some(&before)
        {
            assert_eq!(served_by, before, "a request for {name} through {server} reached the wrong copy");
        }
    }

    async fn step(&mut self) {
        match self.random.random_range(0..20) {
            0..=9 => self.change(),
            10 => self.cancel().await,
            11..=15 => self.break_something(),
            _ => self.mend_something().await,
        }
        self.pace().await;
        self.nobody_reaches_a_trial().await;
        assert_eq!(self.fleet.recorder.violations(), Vec::<String>::new());
    }

    async fn mend_everything(&mut self) {
        self.note("all is well");
        self.fleet.faults.clear();
        for server in self.fleet.servers.values() {
            for verb in ENGINE_FAULTS {
                server.runtime.fail_next(verb, 0);
            }
        }
        for (from, address) in std::mem::take(&mut self.cuts) {
            self.fleet.network.heal(&from, &address);
        }
        for server in std::mem::take(&mut self.down) {
            self.fleet.start_agent(server);
        }
        if self.controller_down {
            self.restart_controller().await;
        }
        self.fleet.all_ready().await;
        while self.begun.join_next().await.is_some() {}
        within(SETTLE_MAX, "every operation ends", async || {
            let running: Vec<_> = self.operations().await.into_iter().filter(|one| one.ended.is_none()).collect();
            if running.is_empty() { Ok(()) } else { Err(running) }
        })
        .await;
    }

    /// Everything that must hold now, whatever happened.
    async fn check(&mut self) {
        let operations = self.stored_operations().await;
        let mut living = vec![];
        for name in TENANTS {
            let shown = self.fleet.tenants().get_tenant(pb::GetTenantRequest { tenant: name.into() }).await;
            let Ok(shown) = shown else {
                self.holds_nothing(name, &[]).await;
                continue;
            };
            let shown = shown.into_inner().tenant.unwrap();
            if shown.state() == pb::TenantState::Removed {
                assert_eq!(self.fleet.recorder.running(&container(name)), Vec::<String>::new(), "{name} is removed");
                self.holds_nothing(name, &[]).await;
            } else {
                self.lives(name, &shown.server).await;
                self.holds_nothing(name, &[&shown.server]).await;
                living.push(shown.server.clone());
            }
            self.data(name, &shown.server, &operations).await;
        }
        self.no_port_is_lost(&living).await;
        assert_eq!(self.fleet.recorder.violations(), Vec::<String>::new());
    }

    /// What the operations' rows say; a controller that is stopped in good order leaves a store that opens.
    async fn stored_operations(&mut self) -> Vec<OperationRow> {
        self.fleet.stop_controller().await;
        let store = Store::open(&self.fleet.store_url()).await.unwrap();
        let operations = store.operations(None, 10_000).await.unwrap();
        store.close().await;
        self.fleet.start_controller().await;
        self.fleet.all_ready().await;
        operations
    }

    async fn lives(&self, name: &str, server: &str) {
        let stopped = within(SETTLE_MAX, &format!("{name} is as wanted"), async || {
            let shown = self.fleet.show(name).await;
            match shown.state() {
                pb::TenantState::Running => Ok(false),
                pb::TenantState::Stopped => Ok(true),
                _ => Err(shown),
            }
        })
        .await;
        let running = self.fleet.recorder.running(&container(name));
        assert_eq!(running, if stopped { vec![] } else { vec![server.to_owned()] }, "{name}");
        let ingress = self.ingress().await;
        until(&format!("every server leads to {name} on {server}"), async || {
            let wrong: Vec<_> = SERVERS
                .iter()
                .map(|through| (*through, self.fleet.request(through, name)))
                .filter(|(through, answer)| {
                    let unknown_there = *through != server && *through != ingress && answer.status == 404;
                    let right = match stopped {
                        true => answer.status == 503,
                        false => answer.served_by.as_deref() == Some(server),
                    };
                    !right && !unknown_there
                })
                .collect();
            if wrong.is_empty() { Ok(()) } else { Err(wrong) }
        })
        .await;
    }

    async fn ingress(&self) -> String {
        let reply = self.fleet.server_service().list_servers(pb::ListServersRequest {}).await.unwrap().into_inner();
        reply.servers.into_iter().find(|one| one.ingress).map(|one| one.name).unwrap()
    }

    /// No container of the tenant is left anywhere else.
    async fn holds_nothing(&self, name: &str, but: &[&str]) {
        until(&format!("no container of {name} is left but on {but:?}"), async || {
            let left: Vec<_> = SERVERS
                .iter()
                .filter(|server| !but.contains(server))
                .filter(|server| self.fleet.servers[**server].runtime.spec(&container(name)).is_some())
                .collect();
            if left.is_empty() { Ok(()) } else { Err(left) }
        })
        .await;
    }

    /// The data is on its holder, with every line that a living copy ever wrote; elsewhere there are only undo copies.
    async fn data(&self, name: &str, holder: &str, operations: &[OperationRow]) {
        let holders = until(&format!("one volume of {name}"), async || {
            let reply = self.fleet.volumes().list_volumes(pb::ListVolumesRequest {}).await;
            let mut volumes = reply.map_err(|status| status.to_string())?.into_inner().volumes;
            volumes.retain(|volume| volume.tenant == name && volume.role() != pb::VolumeRole::UndoCopy);
            let whole = volumes.iter().all(|volume| volume.role() != pb::VolumeRole::Incomplete);
            let holders: Vec<_> = volumes.iter().map(|volume| volume.server.clone()).collect();
            let expected = usize::from(!holder.is_empty());
            if whole && holders.len() == expected { Ok(holders) } else { Err(format!("{volumes:?}")) }
        })
        .await;
        if holder.is_empty() {
            return;
        }
        assert_eq!(holders, [holder], "the volume of {name}");
        let discarded = discarded_generations(name, operations);
        let starts = self.fleet.recorder.starts(&container(name));
        let expected: Vec<_> = starts
            .iter()
            .filter(|start| !discarded.contains(&start.labels["feather.generation"]))
            .map(|start| format!("started on {} with {:?}", start.server, start.labels))
            .collect();
        assert_eq!(self.fleet.starts(holder, name), expected, "what {name} wrote, without {discarded:?}");
    }

    async fn no_port_is_lost(&self, living: &[String]) {
        until("every port is free that no tenant has", async || {
            let reply = self.fleet.server_service().list_servers(pb::ListServersRequest {}).await;
            let servers = reply.map_err(|status| status.to_string())?.into_inner().servers;
            let wrong: Vec<_> = servers
                .iter()
                .map(|one| (&one.name, one.slots_total - one.slots_free))
                .filter(|(name, taken)| living.iter().filter(|at| at == name).count() != *taken as usize)
                .collect();
            if wrong.is_empty() { Ok(()) } else { Err(format!("{wrong:?} taken, living at {living:?}")) }
        })
        .await;
    }
}

fn container(name: &str) -> String {
    tenant(name).container()
}

/// Placements that came to nothing: what their copies wrote went with them.
fn discarded_generations(name: &str, operations: &[OperationRow]) -> BTreeSet<String> {
    let discarded = operations.iter().filter(|one| {
        let came_to_nothing =
            one.subject.tenant().is_some_and(|tenant| tenant.as_str() == name) && one.state != State::Succeeded;
        let alone = match one.kind {
            Kind::Migrate => true,
            Kind::Add => one.plan["data_expected"] == false,
            Kind::Remove
            | Kind::Start
            | Kind::Stop
            | Kind::Restart
            | Kind::Swap
            | Kind::Drain
            | Kind::Return
            | Kind::Lost
            | Kind::Recover => false,
        };
        came_to_nothing && alone
    });
    discarded.map(|one| one.plan["generation"].to_string()).collect()
}

fn setting<T: std::str::FromStr>(name: &str) -> Option<T> {
    std::env::var(name).ok().and_then(|text| text.parse().ok())
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_happens_to_a_fleet_it_comes_to_rest_with_every_promise_kept() {
    let steps = setting("FEATHER_SOAK_STEPS").unwrap_or(STEPS);
    let seeds = setting("FEATHER_SOAK_SEED").map_or(SEEDS.to_vec(), |seed| vec![seed]);
    for seed in seeds {
        let mut soak = Soak::start(seed).await;
        for _ in 0..steps {
            soak.step().await;
        }
        soak.mend_everything().await;
        soak.check().await;
    }
}
