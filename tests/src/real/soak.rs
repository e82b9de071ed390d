//! Many moves of one tenant round a fleet of three, under load, with something broken in most of them: what came of it.
//!
//! Which fault, when and for how long follows from the seed; what it meets then is up to the machine. Nothing is asserted here:
//! the [`Report`] counts, and whoever ran it judges.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use rand::{RngExt as _, SeedableRng as _, rngs::StdRng, seq::SliceRandom as _};
use serde::Serialize;
use tokio::time::Instant;
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

use super::{
    Login, Real, TWO_CONTROLLERS,
    damage::Damage,
    load::{Failure, Load, Seen},
};

const SERVERS: [&str; 3] = ["ams", "fra", "nyc"];
const TENANT: &str = "alice";
/// An operation that has not ended by then, once nothing is broken any more, is stuck.
const END_MAX: Duration = Duration::from_secs(90);
/// How long the tenant may take to answer through a server again after everything is well.
const ANSWER_MAX: Duration = Duration::from_secs(60);
/// So much of what the births said before and after a request failed is kept, and for so many of those that failed.
const AROUND: Duration = Duration::from_secs(2);
const EXPLAINED_MAX: usize = 3;
/// Of every three moves one has to do without a fault.
const PLAIN: usize = 3;

/// What happened.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Report {
    /// Seed of all choices.
    pub seed: u64,
    /// Moves that were begun.
    pub moves: usize,
    /// Faults during them.
    pub faults: usize,
    /// Moves that were undone, as they should when nothing else was possible.
    pub undone: usize,
    /// Requests of all users, openings of streams included.
    pub requests: u64,
    /// Requests that failed while the server that they were sent to and the one where the tenant lived were up.
    pub refused: u64,
    /// Requests that failed while one of these two was without power.
    pub down: u64,
    /// Answers of the tenant's own process that are errors: its disk was full.
    pub by_tenant: u64,
    /// Acknowledged writes that are not there, or not as they were written.
    pub lost: u64,
    /// Times that two copies ran at once, or wrote to two journals.
    pub doubles: u64,
    /// Moves that did not end.
    pub stuck: usize,
    /// Hold to release, median of the moves that succeeded.
    pub outage_ms_p50: u64,
    /// The same, for 99 of 100.
    pub outage_ms_p99: u64,
    /// What each failure that counts was. Not part of the JSON.
    #[serde(skip)]
    pub details: Vec<String>,
}

impl Report {
    /// No promise was broken.
    pub fn is_clean(&self) -> bool {
        self.refused == 0 && self.lost == 0 && self.doubles == 0 && self.stuck == 0
    }
}

/// A time without power.
struct Outage {
    servers: BTreeSet<String>,
    began: Instant,
    ended: Instant,
}

struct Soak<'a> {
    fleet: &'a Real,
    login: Login,
    random: StdRng,
    outages: Vec<Outage>,
    outages_ms: Vec<u64>,
    killed: usize,
    /// When each move began, and what it was.
    begun: Vec<(Instant, String)>,
    /// How long a move without a fault has taken.
    usual: Duration,
    report: Report,
}

/// What a soak is made of.
#[derive(Debug, Clone, Copy)]
pub struct Course {
    /// How many moves.
    pub moves: usize,
    /// Seed of all choices.
    pub seed: u64,
    /// What happens during two of three moves.
    pub faults: &'static [Damage],
    /// Two controllers on one PostgreSQL; else one with the embedded store.
    pub two_controllers: bool,
}

/// Carries out the moves, in a new fleet that it takes down again. A line for each move goes to `tell`.
pub async fn run(course: Course, tell: impl Fn(String)) -> Report {
    let Course { moves, seed, faults, two_controllers } = course;
    // Disks of their own, so that one can be full.
    let mut settings = vec![("FEATHER_BIRTH_DISK_MIB", "1300")];
    settings.extend(two_controllers.then_some(TWO_CONTROLLERS));
    let fleet = Real::start(&SERVERS, &settings).await;
    let login = fleet.add(TENANT, &["--server", "nyc"]).await;
    // Names in DNS may be old, so her users come through every server that she has ever lived on.
    fleet.migrate(TENANT, "fra").await;
    fleet.migrate(TENANT, "ams").await;
    let copies = Copies::watch(&login.password);
    let load = Load::start(&fleet, &SERVERS, &login);
    let mut soak = Soak {
        fleet: &fleet,
        login,
        random: StdRng::seed_from_u64(seed),
        outages: vec![],
        outages_ms: vec![],
        killed: 0,
        begun: vec![],
        usual: Duration::from_secs(2),
        report: Report { seed, ..Report::default() },
    };
    for (number, damage) in plan(moves, faults, &mut soak.random).into_iter().enumerate() {
        let line = soak.one_move(damage, &load.seen).await;
        tell(format!("move {:>3}/{moves}: {line}", number + 1));
        if soak.report.stuck > 0 {
            break;
        }
    }
    let seen = load.stop().await;
    soak.judge(&seen, copies.most().await).await;
    let report = soak.report;
    fleet.finish().await;
    report
}

/// First those without a fault, then every fault as often as every other, in an order of its own each time.
fn plan(moves: usize, faults: &[Damage], random: &mut StdRng) -> Vec<Option<Damage>> {
    let plain = moves.div_ceil(PLAIN);
    let mut planned = vec![None; plain];
    while planned.len() < moves {
        let mut round = faults.to_vec();
        round.shuffle(random);
        planned.extend(round.into_iter().map(Some).take(moves - planned.len()));
    }
    planned
}

impl Soak<'_> {
    async fn one_move(&mut self, damage: Option<Damage>, seen: &Seen) -> String {
        let source = self.fleet.server_of(TENANT).await;
        let others: Vec<_> = SERVERS.into_iter().filter(|server| *server != source).collect();
        let target = others[self.random.random_range(0..others.len())];
        let (when, share, byte) = (
            self.random.random_range(0.0..1.2),
            self.random.random_range(0.0..1.0),
            self.random.random_range(0..40_000),
        );
        let served = seen.served();
        let began = Instant::now();
        let operation = self.begin(target).await;
        self.report.moves += 1;
        self.begun.push((began, format!("move {} {source} -> {target}, {damage:?}", self.report.moves)));
        if let Some(damage) = damage {
            self.report.faults += 1;
            // The moment is what the seed decides; nothing is waited for.
            tokio::time::sleep(self.usual.mul_f64(when)).await;
            self.break_and_heal(damage, &source, target, share, byte).await;
        }
        let Some(ended) = self.ended(&operation).await else {
            self.report.stuck += 1;
            self.report.details.push(format!("{operation} {source} -> {target} with {damage:?} has not ended"));
            return format!("{source} -> {target} {damage:?}: stuck");
        };
        let took = began.elapsed();
        self.everybody_is_served(seen, served).await;
        let state = ended["state"].as_str().unwrap_or("?").to_owned();
        let mut line = format!("{source} -> {target}");
        if let Some(damage) = damage {
            line += &format!(", {damage:?} after {} ms", self.usual.mul_f64(when).as_millis());
        } else {
            self.usual = took;
        }
        if state == "succeeded" {
            let outage_ms = ended["migration"]["outage_ms"].as_u64().unwrap_or_default();
            self.outages_ms.push(outage_ms);
            format!("{line}: moved in {} ms, outage {outage_ms} ms", took.as_millis())
        } else {
            self.report.undone += 1;
            format!("{line}: {state} in {} ms", took.as_millis())
        }
    }

    /// A target may still be refused for what was wrong with it a moment ago, such as a full disk: nothing has begun then.
    async fn begin(&self, target: &str) -> String {
        crate::wait::within(ANSWER_MAX, &format!("a move to {target} is begun"), async || {
            let ran = self.fleet.featherctl(&["tenant", "migrate", TENANT, "--to", target, "--no-wait"]).await;
            if ran.code == 0 { Ok(ran.stdout.trim().to_owned()) } else { Err(ran) }
        })
        .await
    }

    async fn break_and_heal(&mut self, damage: Damage, source: &str, target: &str, share: f64, byte: u64) {
        let began = Instant::now();
        let wound = self.fleet.inflict(damage, source, target, byte).await;
        tokio::time::sleep(damage.lasts(share)).await;
        self.fleet.heal(&wound).await;
        if let Some(server) = &wound.down {
            self.killed += 1;
            // Up is who answers: its Caddy, and through it the tenant, wherever that lives then.
            self.fleet.bring_up().await;
            self.answers(server).await;
            // Where the tenant lived it was down for everybody.
            let lives = self.fleet.server_of(TENANT).await;
            let all = server == source || *server == lives;
            let servers =
                if all { SERVERS.into_iter().map(ToOwned::to_owned).collect() } else { [server.clone()].into() };
            self.outages.push(Outage { servers, began, ended: Instant::now() });
        }
    }

    async fn ended(&self, operation: &str) -> Option<serde_json::Value> {
        let deadline = Instant::now() + END_MAX;
        loop {
            let ran = self.fleet.featherctl(&["operation", "show", operation, "--output", "json"]).await;
            // The controller may be on its way back.
            if let Ok(shown) = serde_json::from_str::<serde_json::Value>(&ran.stdout)
                && !shown["ended"].is_null()
            {
                return Some(shown);
            }
            if Instant::now() > deadline {
                return None;
            }
            tokio::time::sleep(Duration::from_millis(30)).await;
        }
    }

    async fn answers(&self, server: &str) {
        let visitor = self.fleet.visit(server, &self.login);
        crate::wait::within(ANSWER_MAX, &format!("{TENANT} answers through {server}"), async || {
            match visitor.get("/").await {
                Ok(answer) if answer.status == 200 => Ok(()),
                other => Err(other),
            }
        })
        .await;
    }

    async fn everybody_is_served(&self, seen: &Seen, before: u64) {
        for server in SERVERS {
            self.answers(server).await;
        }
        crate::wait::within(ANSWER_MAX, "the users go on", async || {
            if seen.served() > before + 20 { Ok(()) } else { Err(seen.served()) }
        })
        .await;
    }

    async fn judge(&mut self, seen: &Seen, most_copies: u64) {
        self.report.requests = seen.requests();
        let mut unexplained = vec![];
        for failure in seen.failures() {
            let down = self.outages.iter().any(|outage| concerns(outage, &failure));
            match (down, failure.by_tenant) {
                (true, _) => self.report.down += 1,
                (false, true) => self.report.by_tenant += 1,
                (false, false) => {
                    self.report.refused += 1;
                    let took = failure.ended.duration_since(failure.began);
                    unexplained.push(failure.ended);
                    let Failure { who, through, what, .. } = failure;
                    let during = self.begun.iter().rev().find(|(began, _)| *began <= failure.ended);
                    let during = during.map_or_else(String::new, |(began, what)| {
                        format!("{what}, {} ms after it began: ", failure.ended.duration_since(*began).as_millis())
                    });
                    self.report.details.push(format!("{during}{who} through {through}, after {took:?}: {what}"));
                }
            }
        }
        for at in unexplained.into_iter().take(EXPLAINED_MAX) {
            self.what_births_said(at).await;
        }
        let home = self.fleet.server_of(TENANT).await;
        let visitor = self.fleet.visit(&home, &self.login);
        let journal = visitor.get("/journal").await.expect("the tenant answers").text;
        let (lost, gaps) = compare(&journal, &seen.lines());
        self.report.lost += lost;
        let starts = visitor.get("/files/starts.log").await.expect("the tenant answers").text;
        let unended = without_end(&starts);
        self.report.doubles += gaps + most_copies.saturating_sub(1) + unended.saturating_sub(self.killed as u64);
        if unended > self.killed as u64 || gaps > 0 {
            self.report.details.push(format!("{gaps} gaps; {unended} processes without an end:\n{starts}"));
        }
        for (file, content) in seen.uploads() {
            let found = self.fleet.visit(&home, &self.login).get_bytes(&file).await.expect("the tenant answers");
            if found != content {
                self.report.lost += 1;
                self.report.details.push(format!("{file} is not what was acknowledged last"));
            }
        }
        self.outages_ms.sort_unstable();
        let rank = |share: usize| self.outages_ms.get((self.outages_ms.len() * share).div_ceil(100).saturating_sub(1));
        self.report.outage_ms_p50 = rank(50).copied().unwrap_or_default();
        self.report.outage_ms_p99 = rank(99).copied().unwrap_or_default();
    }
}

impl Soak<'_> {
    /// Around a moment, for whoever has to find out why a request failed then.
    async fn what_births_said(&mut self, at: Instant) {
        let ago = |moment: Instant| format!("{}s", moment.elapsed().as_secs());
        let (since, until) = (ago(at - AROUND), ago(at + AROUND));
        for server in SERVERS {
            let birth = self.fleet.birth(server);
            let arguments = ["logs", "--timestamps", "--since", &since, "--until", &until, &birth];
            let said = self.fleet.podman(&arguments).await;
            self.report.details.push(format!("what {server} said:\n{}{}", said.stdout, said.stderr));
        }
    }
}

fn concerns(outage: &Outage, failure: &Failure) -> bool {
    outage.servers.contains(&failure.through) && failure.began <= outage.ended && outage.began <= failure.ended
}

/// Acknowledged lines that are missing, twice or out of order, and jumps in the numbers.
fn compare(journal: &str, acknowledged: &BTreeMap<String, Vec<String>>) -> (u64, u64) {
    let mut places: HashMap<&str, Vec<usize>> = HashMap::new();
    let mut gaps = 0;
    for (index, line) in journal.lines().enumerate() {
        let (number, text) = line.split_once(' ').unwrap_or((line, ""));
        gaps += u64::from(number != (index + 1).to_string());
        places.entry(text).or_default().push(index);
    }
    let mut lost = 0;
    for lines in acknowledged.values() {
        let mut last = None;
        for line in lines {
            match places.get(line.as_str()).map(Vec::as_slice) {
                Some([place]) if last.is_none_or(|last| last < *place) => last = Some(*place),
                _ => lost += 1,
            }
        }
    }
    (lost, gaps)
}

/// Processes that were followed by another one without having said that they end.
fn without_end(starts: &str) -> u64 {
    let (mut open, mut unended) = (None, 0);
    for line in starts.lines() {
        let mut words = line.split(' ');
        match (words.next(), words.next()) {
            (Some("start"), boot) => {
                unended += u64::from(open.is_some());
                open = boot;
            }
            (_, boot) if boot == open => open = None,
            // The end of one that is not the last to have begun: two ran.
            _ => unended += 1,
        }
    }
    unended
}

/// Looks all the time at how many processes of the tenant run on this machine, in whichever birth.
struct Copies {
    most: Arc<AtomicU64>,
    stop: CancellationToken,
    task: AbortOnDropHandle<()>,
}

impl Copies {
    fn watch(password: &str) -> Self {
        let (most, stop) = (Arc::new(AtomicU64::new(0)), CancellationToken::new());
        let setting = format!("FEATHER_PASSWORD={password}");
        let (seen, over) = (most.clone(), stop.clone());
        let task = tokio::spawn(async move {
            let setting = Arc::new(setting);
            while !over.is_cancelled() {
                let wanted = setting.clone();
                let count = tokio::task::spawn_blocking(move || count(&wanted)).await.expect("looking does not panic");
                seen.fetch_max(count, Ordering::Relaxed);
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        });
        Self { most, stop, task: AbortOnDropHandle::new(task) }
    }

    async fn most(self) -> u64 {
        self.stop.cancel();
        self.task.await.expect("a watch does not panic");
        let most = self.most.load(Ordering::Relaxed);
        assert!(most > 0, "the watch never saw a copy");
        most
    }
}

fn count(setting: &str) -> u64 {
    let processes = std::fs::read_dir("/proc").expect("Linux tells its processes").flatten();
    let is_copy = |process: &std::fs::DirEntry| {
        // Most entries are no processes, and some end while we look.
        let name = std::fs::read(process.path().join("comm")).unwrap_or_default();
        let environment = std::fs::read(process.path().join("environ")).unwrap_or_default();
        name.starts_with(b"feather-work")
            && environment.split(|byte| *byte == 0).any(|entry| entry == setting.as_bytes())
    };
    processes.filter(is_copy).count() as u64
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use rand::{SeedableRng as _, rngs::StdRng};

    use super::{Damage, compare, plan, without_end};

    #[test]
    fn every_fault_has_its_turn() {
        let planned = plan(30, &Damage::ALL, &mut StdRng::seed_from_u64(1));
        assert_eq!(planned.len(), 30);
        assert!(planned[..10].iter().all(Option::is_none));
        for damage in Damage::ALL {
            assert!(planned.iter().filter(|planned| **planned == Some(damage)).count() >= 2, "{damage:?}");
        }
    }

    #[test]
    fn lost_lines_and_second_journals_are_seen() {
        let lines =
            |lines: &[&str]| BTreeMap::from([("w".to_owned(), lines.iter().map(ToString::to_string).collect())]);
        assert_eq!(compare("1 a\n2 x\n3 b\n", &lines(&["a", "b"])), (0, 0));
        assert_eq!(compare("1 a\n2 b\n", &lines(&["a", "b", "c"])), (1, 0));
        assert_eq!(compare("1 b\n2 a\n", &lines(&["a", "b"])), (1, 0));
        assert_eq!(compare("1 a\n2 a\n", &lines(&["a"])), (1, 0));
        assert_eq!(compare("1 a\n3 b\n", &lines(&["a", "b"])), (0, 1));
    }

    #[test]
    fn processes_that_overlap_are_seen() {
        assert_eq!(without_end("start a 1\nstop a 2\nstart b 3\n"), 0);
        assert_eq!(without_end("start a 1\nstart b 3\nstop b 4\n"), 1);
        assert_eq!(without_end("start a 1\nstart b 2\nstop a 3\nstop b 4\n"), 2);
    }
}
