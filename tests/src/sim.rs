//! A simulated fleet: how long things take, and what the controller needs, at a size that nobody has at home.
//!
//! Owns the order of the measurements. Nothing is asserted about speed; whoever reads the report judges.

#![allow(clippy::disallowed_methods, reason = "certificates of a simulation must hold at the time of it")]

use std::{fmt, path::Path, sync::Arc, time::Duration};

use anyhow::Context as _;
use feather_controller::ca::Ca;
use feather_proto::pb::controller::v1 as pb;
use serde::Serialize;
use tokio::time::Instant;

use self::{agents::Agents, controller::Controller, people::People};

mod agents;
pub mod controller;
mod people;

/// Tenants that fit on one server.
pub const PLACES: usize = 10;
/// Adds under way at once.
const ADDS_AT_ONCE: usize = 64;
/// Lists whose median is told.
const LISTS: usize = 9;
/// Tenants that are added while agents hang.
const ADDS_WHILE_HUNG: usize = 100;
/// A phase that takes longer than this has failed.
const PHASE_MAX: Duration = Duration::from_secs(900);

/// How large.
#[derive(Debug, Clone, Copy)]
pub struct Scale {
    /// Servers.
    pub servers: usize,
    /// Tenants.
    pub tenants: usize,
    /// Of a hundred servers.
    pub hung: usize,
}

/// What was found. Seconds unless the name says otherwise.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Report {
    /// Members of the fleet.
    pub servers: usize,
    /// Tenants that run.
    pub tenants: usize,
    /// From the first invitation until the last server was ready.
    pub join_s: f64,
    /// Tenants placed and started for each second, from the first call to the end of the last operation.
    pub adds_per_s: f64,
    /// How long one add took while others ran: the median, and 99 of 100.
    pub add_ms_p50: u64,
    /// See above.
    pub add_ms_p99: u64,
    /// The plan of one add, with nothing else going on; the median.
    pub plan_ms: f64,
    /// The list of all tenants, as a caller gets it; the median.
    pub list_ms: f64,
    /// Servers whose agents hang during the next ones.
    pub hung: usize,
    /// From then until the controller calls all of them unreachable.
    pub hung_noticed_s: f64,
    /// One add on the others meanwhile, one after the other: the median, and 99 of 100.
    pub hung_add_ms_p50: u64,
    /// See above.
    pub hung_add_ms_p99: u64,
    /// From the end of all agents at once until the controller calls all servers unreachable.
    pub lost_noticed_s: f64,
    /// From the start of all agents, their containers gone, until every server is ready and every tenant runs.
    pub reattach_s: f64,
    /// Resident memory of the controller at the end.
    pub controller_rss_mib: f64,
    /// The most that it ever was.
    pub controller_peak_mib: f64,
}

impl fmt::Display for Report {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let fields = serde_json::to_value(self).unwrap_or_default();
        for (name, value) in fields.as_object().into_iter().flatten() {
            writeln!(formatter, "{name:<22} {value:>12}")?;
        }
        Ok(())
    }
}

/// Runs the whole simulation and tells how far it is.
///
/// # Errors
/// Something did not work, which is no matter of speed.
pub fn run(scale: &Scale, dir: Option<&Path>, tell: impl Fn(String)) -> anyhow::Result<Report> {
    raise_descriptors()?;
    let folder = match dir {
        Some(dir) => tempfile::tempdir_in(dir),
        None => tempfile::tempdir(),
    };
    let folder = folder.context("there is no folder for the simulation")?;
    let runtime = tokio::runtime::Runtime::new()?;
    let done = runtime.block_on(simulate(scale, folder.path(), &tell));
    // Agents end with it.
    runtime.shutdown_background();
    done
}

/// Every agent has a listener, a connection and some files open.
fn raise_descriptors() -> anyhow::Result<()> {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }).context("cannot open enough files")
}

async fn simulate(scale: &Scale, folder: &Path, tell: &impl Fn(String)) -> anyhow::Result<Report> {
    let mut report = Report { servers: scale.servers, tenants: scale.tenants, ..Report::default() };
    let state = folder.join("controller");
    std::fs::create_dir(&state)?;
    Ca::create(&state, time::OffsetDateTime::now_utc())?;
    let ca = Ca::load(&state)?;
    let controller = Controller::start(&state).await?;
    let people = Arc::new(People::new(&ca, &controller.address)?);

    let began = Instant::now();
    let mut agents = Agents::join(scale.servers, folder, &controller.address, &ca, &people).await?;
    people.all_ready(scale.servers, PHASE_MAX).await?;
    report.join_s = began.elapsed().as_secs_f64();
    tell(format!("{} servers are ready after {:.1} s", scale.servers, report.join_s));

    adds(scale, &people, &mut report).await?;
    tell(format!("{} tenants run, {:.0} added a second", scale.tenants, report.adds_per_s));
    let lists = repeat(LISTS, async || people.list().await.map(drop)).await?;
    report.list_ms = milliseconds(median(&lists));
    let plans = repeat(LISTS, async || people.plan("one-more").await).await;
    // With all places taken a plan is a refusal, which takes as long.
    report.plan_ms = plans.map(|plans| milliseconds(median(&plans))).unwrap_or_default();
    tell(format!("a list of all of them takes {:.0} ms, a plan {:.0} ms", report.list_ms, report.plan_ms));

    hang(scale, &mut agents, &people, &mut report).await?;
    tell(format!("{} agents hang: an add takes {} ms, 99 of 100", report.hung, report.hung_add_ms_p99));
    reboot(scale, &mut agents, &people, &mut report).await?;
    tell(format!("after a reboot of everything all is well again in {:.1} s", report.reattach_s));
    (report.controller_rss_mib, report.controller_peak_mib) = controller.memory_mib()?;
    controller.stop().await?;
    Ok(report)
}

async fn adds(scale: &Scale, people: &Arc<People>, report: &mut Report) -> anyhow::Result<()> {
    use futures::StreamExt as _;
    let began = Instant::now();
    let names = (0..scale.tenants).map(tenant);
    let adding = futures::stream::iter(names).map(|name| {
        let people = people.clone();
        async move { people.add(&name).await }
    });
    let results: Vec<anyhow::Result<Duration>> = adding.buffer_unordered(ADDS_AT_ONCE).collect().await;
    let mut took = results.into_iter().collect::<anyhow::Result<Vec<_>>>()?;
    report.adds_per_s = scale.tenants as f64 / began.elapsed().as_secs_f64();
    took.sort_unstable();
    (report.add_ms_p50, report.add_ms_p99) = (whole_ms(rank(&took, 50)), whole_ms(rank(&took, 99)));
    Ok(())
}

async fn hang(scale: &Scale, agents: &mut Agents, people: &Arc<People>, report: &mut Report) -> anyhow::Result<()> {
    report.hung = scale.servers * scale.hung / 100;
    // Room for those that are added meanwhile.
    let several = ADDS_WHILE_HUNG.min(scale.tenants / 2);
    let leave = scale.tenants - several..scale.tenants;
    for name in leave.clone().map(tenant) {
        people.remove(&name).await?;
    }
    let hung = agents.hang(report.hung).await?;
    let began = Instant::now();
    let mut took = Vec::new();
    for name in leave.map(tenant) {
        match people.add_apart_from(&name, &hung).await? {
            Some(one) => took.push(one),
            // Its data is on a server that hangs: it waits for that.
            None => continue,
        }
    }
    took.sort_unstable();
    (report.hung_add_ms_p50, report.hung_add_ms_p99) = (whole_ms(rank(&took, 50)), whole_ms(rank(&took, 99)));
    if report.hung > 0 {
        people.unreachable(report.hung, PHASE_MAX).await?;
        report.hung_noticed_s = began.elapsed().as_secs_f64();
    }
    agents.wake().await?;
    people.all_ready(scale.servers, PHASE_MAX).await
}

async fn reboot(scale: &Scale, agents: &mut Agents, people: &People, report: &mut Report) -> anyhow::Result<()> {
    let running = people.running().await?;
    agents.power_off().await;
    let began = Instant::now();
    people.unreachable(scale.servers, PHASE_MAX).await?;
    report.lost_noticed_s = began.elapsed().as_secs_f64();
    let began = Instant::now();
    agents.power_on().await?;
    people.all_ready(scale.servers, PHASE_MAX).await?;
    people.all_running(running, PHASE_MAX).await?;
    report.reattach_s = began.elapsed().as_secs_f64();
    report.tenants = running;
    Ok(())
}

fn tenant(number: usize) -> String {
    format!("t{number}")
}

async fn repeat(times: usize, call: impl AsyncFn() -> anyhow::Result<()>) -> anyhow::Result<Vec<Duration>> {
    let mut took = Vec::with_capacity(times);
    for _ in 0..times {
        let began = Instant::now();
        call().await?;
        took.push(began.elapsed());
    }
    took.sort_unstable();
    Ok(took)
}

fn median(sorted: &[Duration]) -> Duration {
    rank(sorted, 50)
}

fn rank(sorted: &[Duration], percent: usize) -> Duration {
    sorted.get((sorted.len() * percent).div_ceil(100).saturating_sub(1)).copied().unwrap_or_default()
}

fn milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}

fn whole_ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Servers in that state.
fn count(servers: &[pb::Server], state: pb::ServerState) -> usize {
    servers.iter().filter(|server| server.state() == state).count()
}
