//! The bench's fleet, driven as a person drives it: by featherctl, by Podman, and by looking into volumes from the host.

use std::{
    collections::BTreeMap,
    net::Ipv4Addr,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, bail};
use serde_json::Value;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};
use tokio::time::Instant;

use crate::outage::Door;

/// Both ends of every move.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    Left,
    Right,
}

impl Side {
    pub(crate) fn server(self) -> &'static str {
        match self {
            Self::Left => "left",
            Self::Right => "right",
        }
    }

    pub(crate) fn other(self) -> Self {
        match self {
            Self::Left => Self::Right,
            Self::Right => Self::Left,
        }
    }
}

/// What a move took, by the log of its operation.
#[derive(Debug, Clone)]
pub(crate) struct Moved {
    /// Seconds by step.
    pub(crate) steps: BTreeMap<String, f64>,
    /// What the steps said.
    pub(crate) log: Vec<String>,
}

impl Moved {
    /// Seconds of all the steps named.
    pub(crate) fn seconds(&self, steps: &[&str]) -> f64 {
        steps.iter().filter_map(|step| self.steps.get(*step)).sum()
    }
}

/// Where everything is.
pub(crate) struct Machine {
    pub(crate) root: PathBuf,
    pub(crate) prefix: String,
    pub(crate) subnet: String,
    /// Datasets and copies; on the same disk as the births' volumes, deleted at the end.
    pub(crate) scratch: PathBuf,
}

impl Machine {
    /// Standard output of a program that must succeed.
    pub(crate) fn run(&self, program: impl AsRef<Path>, arguments: &[&str]) -> anyhow::Result<String> {
        self.ran(program, arguments).map(|(stdout, _)| stdout)
    }

    fn ran(&self, program: impl AsRef<Path>, arguments: &[&str]) -> anyhow::Result<(String, String)> {
        let program = program.as_ref();
        let output = Command::new(program)
            .args(arguments)
            .stdin(Stdio::null())
            .current_dir(&self.root)
            .output()
            .with_context(|| format!("starting {}", program.display()))?;
        let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        if !output.status.success() {
            bail!("{} {arguments:?} ended with {}: {stderr}", program.display(), output.status);
        }
        Ok((stdout.into_owned(), stderr.into_owned()))
    }

    fn podman(&self, arguments: &[&str]) -> anyhow::Result<String> {
        self.run(self.root.join("scripts/podman"), arguments)
    }

    pub(crate) fn featherctl(&self, arguments: &[&str]) -> anyhow::Result<String> {
        self.run("featherctl", arguments)
    }

    /// A script of bash in a birth; what it prints.
    pub(crate) fn inside(&self, side: Side, script: &str) -> anyhow::Result<String> {
        self.podman(&["exec", &format!("{}{}", self.prefix, side.server()), "bash", "-ec", script])
    }

    /// Milliseconds that a script in a birth took, by its own clock.
    pub(crate) fn milliseconds_inside(&self, side: Side, script: &str) -> anyhow::Result<f64> {
        let timed = format!(
            "begun=$EPOCHREALTIME\n{{\n{script}\n}} >/dev/null\nended=$EPOCHREALTIME\n\
             echo $(((${{ended/./}} - ${{begun/./}}) / 1000))"
        );
        let printed = self.inside(side, &timed)?;
        printed.trim().parse().with_context(|| format!("a number of milliseconds was expected: {printed}"))
    }

    /// Seconds that a program on this machine takes, and the file system after it.
    pub(crate) fn seconds_until_on_disk(&self, program: &str, arguments: &[&str]) -> anyhow::Result<f64> {
        let began = Instant::now();
        self.run(program, arguments)?;
        self.sync()?;
        Ok(began.elapsed().as_secs_f64())
    }

    /// Brings everything written so far to disk, so that nobody pays for another's writes.
    pub(crate) fn sync(&self) -> anyhow::Result<()> {
        self.run("sync", &["--file-system", &self.scratch.to_string_lossy()]).map(drop)
    }

    /// Where a tenant's data lies, as this machine sees it.
    pub(crate) fn volume(&self, side: Side, tenant: &str) -> anyhow::Result<PathBuf> {
        let storage = format!("{}{}-storage", self.prefix, side.server());
        let mountpoint = self.podman(&["volume", "inspect", "--format", "{{.Mountpoint}}", &storage])?;
        Ok(Path::new(mountpoint.trim()).join(format!("storage/volumes/feather-user-{tenant}/_data")))
    }

    /// A new tenant on the left side, and how to reach it there.
    pub(crate) fn add(&self, tenant: &str) -> anyhow::Result<Door> {
        let line = self.featherctl(&["tenant", "add", tenant, "--server", Side::Left.server()])?;
        let (url, password) = line.trim().split_once(" | password: ").context("tenant add prints a password")?;
        let host = url.trim_start_matches("https://").to_owned();
        Ok(Door { through: self.address(Side::Left)?, host, password: password.to_owned() })
    }

    /// Of a server's Caddy.
    pub(crate) fn address(&self, side: Side) -> anyhow::Result<Ipv4Addr> {
        let host = if side == Side::Left { "61" } else { "62" };
        let subnet = self.subnet.rsplit_once('.').map_or(&*self.subnet, |(start, _)| start);
        Ok(format!("{subnet}.{host}").parse()?)
    }

    /// Moves a tenant; both sides' root digests must be the same.
    pub(crate) fn migrate(&self, tenant: &str, to: Side) -> anyhow::Result<Moved> {
        let (_, progress) = self.ran("featherctl", &["tenant", "migrate", tenant, "--to", to.server()])?;
        let id = progress.lines().find_map(|line| line.strip_prefix("operation ")).context("no operation was named")?;
        let shown: Value = serde_json::from_str(&self.featherctl(&["operation", "show", id, "--output", "json"])?)?;
        if shown["state"] != "succeeded" || shown["migration"]["equal"] != true {
            bail!("the move of {tenant} did not end well: {shown}");
        }
        Moved::read(&shown)
    }

    /// Removes a tenant and both copies of its data.
    pub(crate) fn remove(&self, tenant: &str) -> anyhow::Result<()> {
        self.featherctl(&["tenant", "remove", tenant, "--yes"])?;
        for side in [Side::Left, Side::Right] {
            self.inside(side, &format!("podman volume rm --force feather-user-{tenant} >/dev/null"))?;
        }
        Ok(())
    }

    /// MiB that the agent takes now; from here on its peak counts.
    pub(crate) fn begin_peak(&self, side: Side) -> anyhow::Result<f64> {
        let script = "pid=$(pgrep -o -x feather-agent); echo 5 >/proc/$pid/clear_refs; \
                      awk '/^VmRSS/ {print $2 / 1024}' /proc/$pid/status";
        Ok(self.inside(side, script)?.trim().parse()?)
    }

    /// MiB that it took at most since then.
    pub(crate) fn peak(&self, side: Side) -> anyhow::Result<f64> {
        let script = "awk '/^VmHWM/ {print $2 / 1024}' /proc/$(pgrep -o -x feather-agent)/status";
        Ok(self.inside(side, script)?.trim().parse()?)
    }

    /// Bytes that can still be written to the disk that everything lies on.
    pub(crate) fn free_bytes(&self) -> anyhow::Result<u64> {
        let space = rustix::fs::statvfs(&self.scratch)?;
        Ok(space.f_bavail * space.f_frsize)
    }
}

impl Moved {
    fn read(operation: &Value) -> anyhow::Result<Self> {
        let log = operation["log"].as_array().context("an operation has a log")?;
        let (mut begun, mut steps, mut said) = (BTreeMap::new(), BTreeMap::new(), Vec::new());
        for line in log {
            let step = line["step"].as_str().unwrap_or_default().to_owned();
            let at = OffsetDateTime::parse(line["at"].as_str().unwrap_or_default(), &Rfc3339)?;
            match line["event"].as_str() {
                Some("begin") => drop(begun.insert(step, at)),
                Some("done") => {
                    let took = begun.get(&step).map_or(0.0, |begin| (at - *begin).as_seconds_f64());
                    said.push(format!("{step} {took:.3} s: {}", line["message"].as_str().unwrap_or_default()));
                    steps.insert(step, took);
                }
                _ => {}
            }
        }
        Ok(Self { steps, log: said })
    }
}
