//! What the kernel lets a container use, and what it uses: the files of its control groups, of both versions.
//!
//! Pure but for the reading that it is given. Knows nothing of Podman, except how it calls a container's group.

use std::path::Path;

use feather_proto::limits::Limits;
use serde_json::{Value, json};

use crate::runtime::Resources;

/// Length of the time over which processor time is counted, in microseconds: what every engine takes.
const PERIOD_US: u64 = 100_000;

/// Above this the first version means no limit: it has no other word for it.
const UNLIMITED_BYTES: u64 = 1 << 60;

/// Reads the groups of a process; `None` when it has ended or its files cannot be read.
pub(super) fn read(pid: u32, read: impl Fn(&str) -> Option<String>) -> Option<Resources> {
    let groups = read(&format!("/proc/{pid}/cgroup"))?;
    match group(&groups, "memory") {
        Some(_) => first_version(&groups, &read),
        None => second_version(&groups, &read),
    }
}

fn first_version(groups: &str, read: &impl Fn(&str) -> Option<String>) -> Option<Resources> {
    let file = |controller: &str, name: &str| {
        read(&format!("/sys/fs/cgroup/{controller}{}/{controller}.{name}", group(groups, controller)?))
    };
    let statistics = file("memory", "stat")?;
    let cache = field(&statistics, "total_inactive_file") + field(&statistics, "total_active_file");
    let quota = |name: &str| file("cpu", name)?.trim().parse::<i64>().ok();
    let (quota, period) = (quota("cfs_quota_us")?, quota("cfs_period_us")?);
    Some(Resources {
        memory_bytes: number(&file("memory", "usage_in_bytes")?)?.saturating_sub(cache),
        memory_max_bytes: number(&file("memory", "limit_in_bytes")?).filter(|bytes| *bytes < UNLIMITED_BYTES),
        cpu_max_millis: millis(u64::try_from(quota).ok(), u64::try_from(period).ok()?),
        pids: narrow(number(&file("pids", "current")?)?),
        pids_max: number(&file("pids", "max")?).map(narrow),
    })
}

fn second_version(groups: &str, read: &impl Fn(&str) -> Option<String>) -> Option<Resources> {
    let path = group(groups, "")?;
    let file = |name: &str| read(&format!("/sys/fs/cgroup{path}/{name}"));
    let statistics = file("memory.stat")?;
    let cache = field(&statistics, "inactive_file") + field(&statistics, "active_file");
    let (cpu, pids) = (file("cpu.max")?, file("pids.max")?);
    let mut cpu = cpu.split_whitespace().map(|word| word.parse().ok());
    Some(Resources {
        memory_bytes: number(&file("memory.current")?)?.saturating_sub(cache),
        memory_max_bytes: number(&file("memory.max")?),
        cpu_max_millis: millis(cpu.next()?, cpu.next()??),
        pids: narrow(number(&file("pids.current")?)?),
        pids_max: number(&pids).map(narrow),
    })
}

/// The group under a controller of the first version, or (no name) of the second. Only as far as the container itself: some runtimes
/// put its processes into a group of their own below it, without limits.
fn group(groups: &str, controller: &str) -> Option<String> {
    let mine = groups.lines().find_map(|line| {
        let mut parts = line.splitn(3, ':').skip(1);
        let (controllers, path) = (parts.next()?, parts.next()?);
        controllers.split(',').any(|one| one == controller).then(|| path.to_owned())
    })?;
    let mut path = String::new();
    for part in mine.split('/').filter(|part| !part.is_empty()) {
        path = format!("{path}/{part}");
        if part.starts_with("libpod-") && !part.starts_with("libpod-conmon-") {
            break;
        }
    }
    Some(path)
}

/// A number; none for the word `max`.
fn number(text: &str) -> Option<u64> {
    text.trim().parse().ok()
}

fn narrow(count: u64) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

fn field(text: &str, name: &str) -> u64 {
    let found = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    found.and_then(number).unwrap_or_default()
}

fn millis(quota: Option<u64>, period: u64) -> Option<u32> {
    quota.map(|quota| narrow(quota.saturating_mul(1000) / period.max(1)))
}

/// What the engine is told: all of them, because it keeps what it is not told.
pub(super) fn update(limits: &Limits, counts_swap: bool) -> Value {
    let memory = limits.memory_bytes.map_or(json!(-1), Value::from);
    let quota = limits.cpu_millis.map_or(json!(-1), |millis| json!(u64::from(millis) * PERIOD_US / 1000));
    let mut told = json!({
        "memory": { "limit": memory },
        "cpu": { "quota": quota, "period": PERIOD_US },
        "pids": { "limit": limits.pids_or_default() },
    });
    if counts_swap {
        // Memory and swap together: no swap.
        told["memory"]["swap"] = told["memory"]["limit"].clone();
    }
    told
}

/// A kernel that does not count swap refuses a limit of it.
pub(super) fn counts_swap(exists: impl Fn(&str) -> bool) -> bool {
    // The second version has no such file at its root; there every kernel that anybody runs counts swap.
    exists("/sys/fs/cgroup/memory/memory.memsw.limit_in_bytes") || !exists("/sys/fs/cgroup/memory")
}

pub(super) fn exists(path: &str) -> bool {
    Path::new(path).exists()
}

#[cfg(test)]
mod tests {
    use feather_proto::limits::Limits;
    use serde_json::json;

    use super::{counts_swap, read, update};
    use crate::runtime::Resources;

    fn found(files: &[(&str, &str)]) -> Option<Resources> {
        let look = |path: &str| files.iter().find(|(name, _)| *name == path).map(|(_, content)| (*content).to_owned());
        read(7, look)
    }

    const FIRST: [(&str, &str); 8] = [
        (
            "/proc/7/cgroup",
            "9:memory:/libpod_parent/libpod-ab\n5:cpu,cpuacct:/libpod_parent/libpod-ab\n2:pids:/libpod_parent/libpod-ab\n0::/x\n",
        ),
        ("/sys/fs/cgroup/memory/libpod_parent/libpod-ab/memory.usage_in_bytes", "5000\n"),
        (
            "/sys/fs/cgroup/memory/libpod_parent/libpod-ab/memory.stat",
            "cache 9\ntotal_inactive_file 1000\ntotal_active_file 500\n",
        ),
        ("/sys/fs/cgroup/memory/libpod_parent/libpod-ab/memory.limit_in_bytes", "268435456\n"),
        ("/sys/fs/cgroup/cpu/libpod_parent/libpod-ab/cpu.cfs_quota_us", "150000\n"),
        ("/sys/fs/cgroup/cpu/libpod_parent/libpod-ab/cpu.cfs_period_us", "100000\n"),
        ("/sys/fs/cgroup/pids/libpod_parent/libpod-ab/pids.current", "12\n"),
        ("/sys/fs/cgroup/pids/libpod_parent/libpod-ab/pids.max", "500\n"),
    ];

    const LIMITED: Resources = Resources {
        memory_bytes: 3500,
        pids: 12,
        memory_max_bytes: Some(268_435_456),
        cpu_max_millis: Some(1500),
        pids_max: Some(500),
    };

    #[test]
    fn both_versions_say_the_same() {
        assert_eq!(found(&FIRST), Some(LIMITED));
        let second = [
            ("/proc/7/cgroup", "0::/machine.slice/libpod-ab.scope/container\n"),
            ("/sys/fs/cgroup/machine.slice/libpod-ab.scope/memory.current", "5000\n"),
            (
                "/sys/fs/cgroup/machine.slice/libpod-ab.scope/memory.stat",
                "anon 1\ninactive_file 1000\nactive_file 500\n",
            ),
            ("/sys/fs/cgroup/machine.slice/libpod-ab.scope/memory.max", "268435456\n"),
            ("/sys/fs/cgroup/machine.slice/libpod-ab.scope/cpu.max", "150000 100000\n"),
            ("/sys/fs/cgroup/machine.slice/libpod-ab.scope/pids.current", "12\n"),
            ("/sys/fs/cgroup/machine.slice/libpod-ab.scope/pids.max", "500\n"),
        ];
        assert_eq!(found(&second), Some(LIMITED));
        let none = second.map(|(name, content)| match name.rsplit('/').next() {
            Some("memory.max" | "pids.max") => (name, "max\n"),
            Some("cpu.max") => (name, "max 100000\n"),
            _ => (name, content),
        });
        let free = Resources { memory_max_bytes: None, cpu_max_millis: None, pids_max: None, ..LIMITED };
        assert_eq!(found(&none), Some(free));
    }

    #[test]
    fn the_first_version_says_unlimited_by_large_and_negative_numbers() {
        let none = FIRST.map(|(name, content)| match name.rsplit('/').next() {
            Some("memory.limit_in_bytes") => (name, "9223372036854771712\n"),
            Some("cpu.cfs_quota_us") => (name, "-1\n"),
            Some("pids.max") => (name, "max\n"),
            _ => (name, content),
        });
        let free = Resources { memory_max_bytes: None, cpu_max_millis: None, pids_max: None, ..LIMITED };
        assert_eq!(found(&none), Some(free));
        assert_eq!(found(&FIRST[1..]), None, "its process has ended");
        assert_eq!(found(&FIRST[..7]), None, "what cannot be read is not made up");
    }

    #[test]
    fn the_engine_is_told_all_of_them() {
        let limits = Limits { memory_bytes: Some(1 << 30), cpu_millis: Some(250), pids: None, revision: 1 };
        let told = update(&limits, true);
        assert_eq!(told["memory"], json!({ "limit": 1 << 30, "swap": 1 << 30 }));
        assert_eq!(told["cpu"], json!({ "quota": 25_000, "period": 100_000 }));
        assert_eq!(told["pids"], json!({ "limit": 2048 }));
        let lifted = update(&Limits::default(), false);
        assert_eq!((&lifted["memory"], &lifted["cpu"]["quota"]), (&json!({ "limit": -1 }), &json!(-1)));
        assert!(counts_swap(|path| !path.starts_with("/sys/fs/cgroup/memory")));
        assert!(!counts_swap(|path| path == "/sys/fs/cgroup/memory"));
    }

    #[test]
    fn what_the_kernel_rounds_is_the_same() {
        let limits = Limits { memory_bytes: Some(268_435_457), cpu_millis: Some(1500), pids: Some(500), revision: 1 };
        assert!(LIMITED.as_limited(&limits));
        for other in [
            Limits { memory_bytes: Some(268_435_455), ..limits },
            Limits { memory_bytes: None, ..limits },
            Limits { cpu_millis: None, ..limits },
            Limits { pids: None, ..limits },
        ] {
            assert!(!LIMITED.as_limited(&other), "{other:?}");
        }
    }
}
