//! Memory and disk of the machine, as far as this container may use them.
//!
//! Owns the reading of cgroup and proc files; knows nothing of Podman.

use std::path::Path;

/// Total and free bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Room {
    pub(super) total_bytes: u64,
    pub(super) free_bytes: u64,
}

/// Where a version of cgroups says what.
struct Cgroup {
    limit: &'static str,
    usage: &'static str,
    statistics: &'static str,
    /// Page cache that can be given back. Memory of tmpfs cannot, which is why `cache` is not used.
    cache: [&'static str; 2],
}

const CGROUPS: [Cgroup; 2] = [
    Cgroup {
        limit: "/sys/fs/cgroup/memory.max",
        usage: "/sys/fs/cgroup/memory.current",
        statistics: "/sys/fs/cgroup/memory.stat",
        cache: ["inactive_file", "active_file"],
    },
    Cgroup {
        limit: "/sys/fs/cgroup/memory/memory.limit_in_bytes",
        usage: "/sys/fs/cgroup/memory/memory.usage_in_bytes",
        statistics: "/sys/fs/cgroup/memory/memory.stat",
        cache: ["total_inactive_file", "total_active_file"],
    },
];

/// The smaller of what the machine has and what the birth container was given.
pub(super) fn memory(read: impl Fn(&str) -> Option<String>) -> Option<Room> {
    let proc = read("/proc/meminfo")?;
    let machine =
        Room { total_bytes: field(&proc, "MemTotal:")? * 1024, free_bytes: field(&proc, "MemAvailable:")? * 1024 };
    let Some(given) = CGROUPS.iter().find_map(|cgroup| limited(cgroup, &read)) else { return Some(machine) };
    Some(Room {
        total_bytes: machine.total_bytes.min(given.total_bytes),
        free_bytes: machine.free_bytes.min(given.free_bytes),
    })
}

/// Cores that this process may use.
pub(super) fn cores() -> u32 {
    std::thread::available_parallelism().map_or(1, |count| u32::try_from(count.get()).unwrap_or(u32::MAX))
}

fn limited(cgroup: &Cgroup, read: &impl Fn(&str) -> Option<String>) -> Option<Room> {
    // `max`, like an absent file, means no limit.
    let total_bytes: u64 = read(cgroup.limit)?.trim().parse().ok()?;
    let usage: u64 = read(cgroup.usage)?.trim().parse().ok()?;
    let statistics = read(cgroup.statistics)?;
    let cache: u64 = cgroup.cache.iter().filter_map(|name| field(&statistics, name)).sum();
    Some(Room { total_bytes, free_bytes: total_bytes.saturating_sub(usage.saturating_sub(cache)) })
}

fn field(text: &str, name: &str) -> Option<u64> {
    text.lines().find_map(|line| {
        let mut words = line.split_whitespace();
        (words.next() == Some(name)).then(|| words.next()?.parse().ok()).flatten()
    })
}

/// The file system of a directory, or of its nearest ancestor that exists already.
pub(super) fn disk(directory: &Path) -> std::io::Result<Room> {
    let existing = directory.ancestors().find(|path| path.exists()).unwrap_or(Path::new("/"));
    let status = rustix::fs::statvfs(existing)?;
    Ok(Room {
        total_bytes: status.f_blocks.saturating_mul(status.f_frsize),
        // `f_bavail`, not `f_bfree`: root in a container may lack the capability to use the reserve, and filling it would stop
        // the server anyway.
        free_bytes: status.f_bavail.saturating_mul(status.f_frsize),
    })
}

#[cfg(test)]
mod tests {
    use super::{Room, memory};

    const PROC: (&str, &str) = ("/proc/meminfo", "MemTotal:  1000 kB\nMemFree: 1 kB\nMemAvailable:  600 kB\n");

    fn measured(files: &[(&str, &str)]) -> Option<Room> {
        memory(|path| files.iter().find(|(name, _)| *name == path).map(|(_, text)| (*text).to_owned()))
    }

    #[test]
    fn the_smaller_of_machine_and_limit_counts() {
        let machine = Room { total_bytes: 1_024_000, free_bytes: 614_400 };
        assert_eq!(measured(&[]), None);
        assert_eq!(measured(&[PROC]), Some(machine));
        let second = [
            ("/sys/fs/cgroup/memory.current", "400000\n"),
            ("/sys/fs/cgroup/memory.stat", "anon 5\ninactive_file 100000\nactive_file 50000\n"),
        ];
        assert_eq!(measured(&[&[PROC, ("/sys/fs/cgroup/memory.max", "max\n")], &second[..]].concat()), Some(machine));
        let limited = Room { total_bytes: 500_000, free_bytes: 250_000 };
        assert_eq!(
            measured(&[&[PROC, ("/sys/fs/cgroup/memory.max", "500000\n")], &second[..]].concat()),
            Some(limited)
        );
    }

    #[test]
    fn the_older_cgroups_say_unlimited_with_a_huge_number() {
        let machine = Room { total_bytes: 1_024_000, free_bytes: 614_400 };
        let files = |limit| {
            [
                PROC,
                ("/sys/fs/cgroup/memory/memory.limit_in_bytes", limit),
                ("/sys/fs/cgroup/memory/memory.usage_in_bytes", "300000\n"),
                ("/sys/fs/cgroup/memory/memory.stat", "cache 9\ntotal_inactive_file 100000\ntotal_active_file 0\n"),
            ]
        };
        assert_eq!(measured(&files("9223372036854771712\n")), Some(machine));
        assert_eq!(measured(&files("400000\n")), Some(Room { total_bytes: 400_000, free_bytes: 200_000 }));
    }
}
