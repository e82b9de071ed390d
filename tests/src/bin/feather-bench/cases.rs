//! The cases: how each is measured, and against what.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, bail};

use crate::{
    SEED, dataset, fleet,
    machine::{Machine, Moved, Side},
    outage::{self, Seen},
    report::{self, Judged, Row, median},
};

/// What the numbers are.
pub(crate) const FOOTNOTE: &str = "\
Medians; the first round of each case warms the machine and is not counted. Page caches are warm. Ours is a move of a stopped
tenant by featherctl between two births: the seconds of its steps transfer and verify, as the operation's log has them. That
is reading, hashing, mutual TLS, writing, syncfs, and a look at everything on both disks. Baselines of files on the host end
with syncfs, too. An outage is the longest that any client waited for an answer, asking every 10 ms through the old server,
while the tenant wrote 10 lines a second. Memory is the agent's peak resident set above what it had before the move.";

/// Steps of a move in which data is moved and proved.
const DATA_STEPS: [&str; 2] = ["transfer", "verify"];
/// Live moves measured for each outage, beside the first.
const OUTAGES: usize = 3;
/// What the dataset with ten times the bytes needs: two copies, and air.
const BYTES_CASE_DISK: u64 = 26 << 30;

type Case = fn(&mut Run<'_>) -> anyhow::Result<()>;

const CASES: [(&str, Case); 7] = [
    ("tenant-add", tenant_add),
    ("s", small),
    ("l", large),
    ("outage", outage_small),
    ("outage-files", outage_files),
    ("outage-bytes", outage_bytes),
    ("fleet", fleet::thousand),
];

/// One run of the bench.
pub(crate) struct Run<'a> {
    pub(crate) machine: &'a Machine,
    rounds: usize,
    pub(crate) rows: Vec<Row>,
    /// The outage of a live move of S, for those that are compared with it.
    outage_of_s: Option<f64>,
    /// Tenants so far: each has a name of its own.
    tenants: usize,
}

/// Measures the chosen cases, or all.
pub(crate) fn all(machine: &Machine, rounds: usize, chosen: &[&str], report: &Path) -> anyhow::Result<Vec<Row>> {
    if let Some(unknown) = chosen.iter().find(|case| !CASES.iter().any(|(name, _)| name == *case)) {
        let known: Vec<_> = CASES.iter().map(|(name, _)| *name).collect();
        bail!("BENCH_CASES names `{unknown}`; there are: {}", known.join(", "));
    }
    let mut run = Run { machine, rounds, rows: Vec::new(), outage_of_s: None, tenants: 0 };
    for (name, case) in CASES {
        if chosen.is_empty() || chosen.contains(&name) {
            eprintln!("== {name}");
            case(&mut run).with_context(|| format!("case {name}"))?;
            report::write(report, &run.rows)?;
        }
    }
    Ok(run.rows)
}

impl Run<'_> {
    fn row(&mut self, case: &str, ours: f64, baseline: Option<f64>, unit: &'static str, aim: (Judged, f64)) {
        let row = Row::new(case, ours, baseline, unit, aim);
        self.rows.push(row);
    }

    fn name(&mut self) -> String {
        self.tenants += 1;
        format!("bench-{}", self.tenants)
    }

    /// A directory in the scratch space, with what `make` puts there.
    fn made(&self, name: &str, make: impl FnOnce(&Path) -> anyhow::Result<()>) -> anyhow::Result<PathBuf> {
        let path = self.machine.scratch.join(name);
        fs::create_dir_all(&path)?;
        make(&path)?;
        self.machine.sync()?;
        Ok(path)
    }
}

/// A control plane's cost: `tenant add` against `podman run` of the same image and a poll of its health.
fn tenant_add(run: &mut Run<'_>) -> anyhow::Result<()> {
    let (mut ours, mut baseline) = (Vec::new(), Vec::new());
    for round in 0..=run.rounds {
        let begin = format!("name=bare-{round}\n{HEALTHY}\n{BARE_RUN}\n{UNTIL_HEALTHY}");
        let bare = run.machine.milliseconds_inside(Side::Left, &begin)?;
        run.machine.inside(Side::Left, &format!("podman rm --force --time 0 --volumes bare-{round} >/dev/null"))?;
        let name = run.name();
        let began = tokio::time::Instant::now();
        run.machine.add(&name)?;
        let added = began.elapsed().as_secs_f64() * 1000.0;
        run.machine.remove(&name)?;
        if round > 0 {
            ours.push(added);
            baseline.push(bare);
        }
    }
    run.row("tenant add / podman run", median(&ours), Some(median(&baseline)), "ms", (Judged::Ratio, 1.15));
    Ok(())
}

/// In bash: whether the bare container answers.
const HEALTHY: &str = "healthy() { exec 3<>/dev/tcp/127.0.0.1/9900 && \
    printf 'GET /health HTTP/1.0\\r\\n\\r\\n' >&3 && grep -q ' 200 ' <&3; }";
const BARE_RUN: &str = "podman run --detach --name \"$name\" --publish 127.0.0.1:9900:8080 --volume \"$name:/home/user\" \
    --dns 8.8.8.8 --dns 1.1.1.1 --env FEATHER_PASSWORD=bench localhost/feather-work:latest";
const UNTIL_HEALTHY: &str = "until (healthy) 2>/dev/null; do ((++asked < 1500)) || exit 1; sleep 0.02; done";

/// What one round of a dataset took, in seconds.
#[derive(Default)]
struct Fresh {
    ours: Vec<f64>,
    copied: Vec<f64>,
    exported: Vec<f64>,
}

/// How much an agent grew, in MiB.
#[derive(Default, Clone, Copy)]
struct Peaks {
    source: f64,
    target: f64,
}

impl Run<'_> {
    /// A stopped tenant with a copy of `data` in its volume, on the left; and what copying took.
    fn filled(&mut self, data: &Path) -> anyhow::Result<(String, f64)> {
        let name = self.name();
        self.machine.add(&name)?;
        self.machine.featherctl(&["tenant", "stop", &name])?;
        let home = self.machine.volume(Side::Left, &name)?.join("home");
        self.machine.sync()?;
        let (from, to) = (format!("{}/.", data.display()), home.display().to_string());
        fs::create_dir(&home)?;
        let took = self.machine.seconds_until_on_disk("cp", &["--archive", &from, &to])?;
        Ok((name, took))
    }

    /// A move with both agents' memory watched.
    fn watched(&self, tenant: &str, to: Side, peaks: &mut Peaks) -> anyhow::Result<Moved> {
        let before = [to.other(), to].map(|side| self.machine.begin_peak(side));
        let moved = self.machine.migrate(tenant, to)?;
        let [source, target] = before;
        peaks.source = peaks.source.max(self.machine.peak(to.other())? - source?);
        peaks.target = peaks.target.max(self.machine.peak(to)? - target?);
        Ok(moved)
    }

    /// A volume that the target has never seen, moved; then the same by what people use today.
    fn fresh(&mut self, data: &Path, fresh: &mut Fresh, peaks: &mut Peaks, warm: bool) -> anyhow::Result<String> {
        let (name, copied) = self.filled(data)?;
        let moved = self.watched(&name, Side::Right, peaks)?;
        if warm {
            self.witness(&name)?;
        }
        let exported = self.machine.milliseconds_inside(
            Side::Left,
            &format!(
                "cd /var/lib/containers\npodman volume export feather-user-{name} >out.tar\ncp out.tar in.tar\n\
                 podman volume create imported\npodman volume import imported in.tar\nsync --file-system ."
            ),
        )?;
        self.machine.inside(
            Side::Left,
            "podman volume rm --force imported >/dev/null; cd /var/lib/containers; rm out.tar in.tar; sync -f .",
        )?;
        eprintln!(
            "   ours {:.2} s ({}), cp -a {copied:.2} s, export/import {:.2} s",
            moved.seconds(&DATA_STEPS),
            moved.log.join("; "),
            exported / 1000.0
        );
        if !warm {
            fresh.ours.push(moved.seconds(&DATA_STEPS));
            fresh.copied.push(copied);
            fresh.exported.push(exported / 1000.0);
        }
        Ok(name)
    }

    /// Somebody else's opinion on whether both copies are the same: content, names, owners, modes, times, attributes.
    fn witness(&self, tenant: &str) -> anyhow::Result<()> {
        let one = format!("{}/", self.machine.volume(Side::Left, tenant)?.display());
        let other = format!("{}/", self.machine.volume(Side::Right, tenant)?.display());
        let how = ["--dry-run", "--checksum", "--itemize-changes", "--delete", "-aHAX"];
        let differs = self.machine.run("rsync", &[&how[..], &[&one, &other]].concat())?;
        if !differs.is_empty() {
            bail!("rsync finds differences between both copies of {tenant}:\n{differs}");
        }
        Ok(())
    }

    fn fresh_rows(&mut self, label: &str, fresh: &Fresh, aims: (f64, Option<f64>)) {
        let ours = median(&fresh.ours);
        let exported = Some(median(&fresh.exported));
        self.row(&format!("{label} fresh / export, cp, import"), ours, exported, "s", (Judged::Ratio, aims.0));
        if let Some(aim) = aims.1 {
            let copied = Some(median(&fresh.copied));
            self.row(&format!("{label} fresh / cp -a, same disk"), ours, copied, "s", (Judged::Ratio, aim));
        }
    }

    fn memory_rows(&mut self, label: &str, peaks: Peaks) {
        self.row(&format!("peak memory of the source, {label}"), peaks.source, None, "MiB", (Judged::Value, 64.0));
        self.row(&format!("peak memory of the target, {label}"), peaks.target, None, "MiB", (Judged::Value, 64.0));
    }
}

/// S fresh, and D: S with one file in a hundred changed, onto the copy that the other side has kept.
fn small(run: &mut Run<'_>) -> anyhow::Result<()> {
    let data = run.made("s", |path| dataset::small_files(path, dataset::S, SEED))?;
    let (mut fresh, mut peaks) = (Fresh::default(), Peaks::default());
    let (mut delta, mut rsync) = (Vec::new(), Vec::new());
    for round in 0..=run.rounds {
        let name = run.fresh(&data, &mut fresh, &mut peaks, round == 0)?;
        let changed = run.machine.volume(Side::Right, &name)?.join("home");
        dataset::change(&changed, SEED + round as u64)?;
        run.machine.sync()?;
        let moved = run.watched(&name, Side::Left, &mut peaks)?;
        if round == 0 {
            run.witness(&name)?;
        }
        // The data that the next round begins with: it, too, is as old as this round.
        let (from, to) = (format!("{}/", changed.display()), format!("{}/", data.display()));
        let copied = run.machine.seconds_until_on_disk("rsync", &["-aHAX", "--delete", &from, &to])?;
        eprintln!("   D: ours {:.2} s ({}), rsync {copied:.2} s", moved.seconds(&DATA_STEPS), moved.log.join("; "));
        if round > 0 {
            delta.push(moved.seconds(&DATA_STEPS));
            rsync.push(copied);
        }
        run.machine.remove(&name)?;
    }
    run.fresh_rows("S", &fresh, (0.25, Some(1.0)));
    let rsync = Some(median(&rsync));
    run.row("D on an older copy / rsync -aHAX, local", median(&delta), rsync, "s", (Judged::Ratio, 0.5));
    run.memory_rows("S and D", peaks);
    fs::remove_dir_all(&data)?;
    Ok(())
}

/// L fresh.
fn large(run: &mut Run<'_>) -> anyhow::Result<()> {
    let data = run.made("l", |path| dataset::large_files(path, SEED))?;
    let (mut fresh, mut peaks) = (Fresh::default(), Peaks::default());
    for round in 0..=run.rounds {
        let name = run.fresh(&data, &mut fresh, &mut peaks, round == 0)?;
        run.machine.remove(&name)?;
    }
    run.fresh_rows("L", &fresh, (0.35, None));
    run.memory_rows("L", peaks);
    fs::remove_dir_all(&data)?;
    Ok(())
}

/// Outages of a tenant that is moved to and fro.
struct Outages {
    milliseconds: Vec<f64>,
    peaks: Peaks,
}

impl Run<'_> {
    /// Moves a tenant with this data while it runs and writes, and somebody asks it all the time.
    fn outages(&mut self, make: impl FnOnce(&Path) -> anyhow::Result<()>) -> anyhow::Result<Outages> {
        let name = self.name();
        let mut door = self.machine.add(&name)?;
        let home = self.machine.volume(Side::Left, &name)?.join("home");
        fs::create_dir(&home)?;
        make(&home)?;
        self.machine.sync()?;
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let mut found = Outages { milliseconds: Vec::new(), peaks: Peaks::default() };
        let mut to = Side::Right;
        for round in 0..=OUTAGES {
            door.through = self.machine.address(to.other())?;
            let mut peaks = found.peaks;
            let moving = async { tokio::task::block_in_place(|| self.watched(&name, to, &mut peaks)) };
            let (moved, seen) = runtime.block_on(outage::during(door.clone(), moving))?;
            found.peaks = peaks;
            let Seen { longest, answered, written, failed } = seen;
            let milliseconds = longest.as_secs_f64() * 1000.0;
            eprintln!(
                "   outage {milliseconds:.0} ms, {answered} answers, {written} lines, {failed} failed ({})",
                moved?.log.join("; ")
            );
            if failed > 0 || answered == 0 || written == 0 {
                bail!(
                    "of the requests during a move {answered} were answered, {written} lines written, {failed} failed"
                );
            }
            if round > 0 {
                found.milliseconds.push(milliseconds);
            }
            to = to.other();
        }
        self.machine.remove(&name)?;
        Ok(found)
    }

    fn outage_of_s(&mut self) -> anyhow::Result<f64> {
        if let Some(known) = self.outage_of_s {
            return Ok(known);
        }
        let found = self.outages(|path| dataset::small_files(path, dataset::S, SEED))?;
        let outage = median(&found.milliseconds);
        self.outage_of_s = Some(outage);
        Ok(outage)
    }
}

/// A live move of S against nothing but stopping and starting a container.
fn outage_small(run: &mut Run<'_>) -> anyhow::Result<()> {
    let outage = run.outage_of_s()?;
    run.machine.inside(Side::Left, &format!("name=bare\n{HEALTHY}\n{BARE_RUN} >/dev/null\n{UNTIL_HEALTHY}"))?;
    let mut restarts = Vec::new();
    for round in 0..=run.rounds {
        let again = format!("{HEALTHY}\npodman stop bare\npodman start bare\n{UNTIL_HEALTHY}");
        let took = run.machine.milliseconds_inside(Side::Left, &again)?;
        if round > 0 {
            restarts.push(took);
        }
    }
    run.machine.inside(Side::Left, "podman rm --force --time 0 --volumes bare >/dev/null")?;
    let restart = Some(median(&restarts));
    run.row("outage of S, live / container stop + start", outage, restart, "ms", (Judged::Difference, 1500.0));
    Ok(())
}

fn outage_files(run: &mut Run<'_>) -> anyhow::Result<()> {
    let small = run.outage_of_s()?;
    let found = run.outages(|path| dataset::small_files(path, dataset::S_FILES, SEED))?;
    // 4 us for each file more.
    let aim = f64::from(dataset::S_FILES.files - dataset::S.files) * 0.004;
    run.row(
        "outage, ten times the files / S",
        median(&found.milliseconds),
        Some(small),
        "ms",
        (Judged::Difference, aim),
    );
    run.memory_rows("600,000 files", found.peaks);
    Ok(())
}

fn outage_bytes(run: &mut Run<'_>) -> anyhow::Result<()> {
    let free = run.machine.free_bytes()?;
    if free < BYTES_CASE_DISK {
        eprintln!("   left out: it needs {} GiB of disk, and {} are free", BYTES_CASE_DISK >> 30, free >> 30);
        return Ok(());
    }
    let small = run.outage_of_s()?;
    let found = run.outages(|path| dataset::small_files(path, dataset::S_BYTES, SEED))?;
    run.row("outage, ten times the bytes / S", median(&found.milliseconds), Some(small), "ms", (Judged::Ratio, 1.1));
    run.memory_rows("10 GiB", found.peaks);
    Ok(())
}
