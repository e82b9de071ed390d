//! Looks for secrets where none may be: command lines, logs, the controller's store.

use std::{collections::BTreeSet, path::Path, time::Duration};

use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::command::Commands;

const INTERVAL: Duration = Duration::from_millis(50);

/// Reads the command lines of all processes of this machine, those in births too, again and again.
pub(super) struct Watch {
    stop: CancellationToken,
    task: JoinHandle<BTreeSet<String>>,
}

impl Watch {
    pub(super) fn start() -> Self {
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        let task = tokio::spawn(async move {
            let mut seen = BTreeSet::new();
            let mut pace = tokio::time::interval(INTERVAL);
            pace.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
            while !stopped.is_cancelled() {
                pace.tick().await;
                seen = tokio::task::spawn_blocking(move || look(seen)).await.expect("looking does not panic");
            }
            seen
        });
        Self { stop, task }
    }

    pub(super) async fn stop(self) -> BTreeSet<String> {
        self.stop.cancel();
        self.task.await.expect("a watch does not panic")
    }
}

fn look(mut seen: BTreeSet<String>) -> BTreeSet<String> {
    let processes = std::fs::read_dir("/proc").expect("Linux tells its processes");
    for process in processes.flatten() {
        // Most entries are no processes, and some end while we look.
        let Ok(line) = std::fs::read(process.path().join("cmdline")) else { continue };
        if !line.is_empty() {
            seen.insert(String::from_utf8_lossy(&line).replace('\0', " "));
        }
    }
    seen
}

/// Panics where a secret is found, without telling it.
pub(super) fn nowhere(secrets: &[String], logs: &str, arguments: &BTreeSet<String>, directory: &Path) {
    assert!(arguments.iter().any(|line| line.contains("feather-birth")), "the watch saw no birth: {arguments:?}");
    assert!(!logs.is_empty(), "there are no logs to look at");
    let hidden = |line: &str| secrets.iter().fold(line.to_owned(), |line, secret| line.replace(secret, "(SECRET)"));
    for secret in secrets {
        assert!(secret.len() >= 6, "a secret of {} characters is found everywhere", secret.len());
        for line in arguments.iter().map(String::as_str).chain(logs.lines()) {
            assert!(!line.contains(secret.as_str()), "a secret is told here: {}", hidden(line));
        }
    }
    for entry in std::fs::read_dir(directory).expect("it is there").flatten() {
        search(secrets, &entry.path());
    }
}

fn search(secrets: &[String], path: &Path) {
    // What people exported is theirs; disks hold what tenants write.
    if path.extension().is_some_and(|extension| ["tar", "unpacked", "disk"].iter().any(|ours| extension == *ours)) {
        return;
    }
    if path.is_dir() {
        for entry in std::fs::read_dir(path).expect("it is there").flatten() {
            search(secrets, &entry.path());
        }
        return;
    }
    let bytes = std::fs::read(path).expect("a file of the fleet is readable");
    for secret in secrets {
        let found = bytes.windows(secret.len()).any(|window| window == secret.as_bytes());
        assert!(!found, "a secret stands in {}", path.display());
    }
}

/// For whoever reads why a test failed.
#[allow(clippy::print_stderr, reason = "the harness of tests speaks to the people who run them")]
pub(super) fn show_logs<'a>(
    commands: &Commands,
    prefix: &str,
    servers: impl Iterator<Item = &'a String>,
    directory: &Path,
) {
    const LINES: usize = 60;
    let log = std::fs::read_to_string(directory.join("controller.log")).unwrap_or_default();
    let lines: Vec<_> = log.lines().collect();
    eprintln!("== the controller's last lines\n{}", lines[lines.len().saturating_sub(LINES)..].join("\n"));
    for server in servers {
        let ran = commands.script_blocking("podman", &["logs", "--tail", "60", &format!("{prefix}{server}")]);
        eprintln!("== the last lines of {server}\n{}{}", ran.stdout, ran.stderr);
    }
}
