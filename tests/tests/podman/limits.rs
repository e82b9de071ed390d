//! What tenants may use, as the kernel has it.

use feather_tests::real::Real;

/// Memory, processor time and processes that the kernel lets the tenant's container use, and when its process began.
async fn kernel(fleet: &Real, server: &str) -> Kernel {
    let script = r#"
        set -e
        export PODMAN_IGNORE_CGROUPSV1_WARNING=1
        pid=$(podman container inspect --format '{{.State.Pid}}' feather-user-alice)
        [ "$pid" -gt 0 ]
        group() { awk -F: -v name="$1" '{ n = split($2, all, ","); for (i = 1; i <= n; i++) if (all[i] == name) { print $3; exit } }' "/proc/$pid/cgroup"; }
        if [ -d /sys/fs/cgroup/memory ]; then
            cat "/sys/fs/cgroup/memory$(group memory)/memory.limit_in_bytes" "/sys/fs/cgroup/cpu$(group cpu)/cpu.cfs_quota_us" \
                "/sys/fs/cgroup/pids$(group pids)/pids.max"
        else
            cd "/sys/fs/cgroup$(awk -F: '$1 == 0 { print $3 }' "/proc/$pid/cgroup")" && cat memory.max && cut -d' ' -f1 cpu.max && cat pids.max
        fi
        cut -d' ' -f22 "/proc/$pid/stat"
    "#;
    // Behind a reboot it runs only after a while.
    let told = async || {
        let ran = fleet.inside(server, script).await;
        let lines: Vec<_> = ran.stdout.lines().map(ToOwned::to_owned).collect();
        <[String; 4]>::try_from(lines).map_err(|_| ran)
    };
    let [memory, cpu, pids, began] = feather_tests::wait::until("the kernel tells of alice", told).await;
    Kernel { limits: [memory, cpu, pids], began }
}

struct Kernel {
    limits: [String; 3],
    began: String,
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_reach_the_kernel_without_a_restart_and_outlive_moves_and_reboots() {
    let fleet = Real::start(&["fra", "nyc"], &[]).await;
    fleet.add("alice", &["--server", "nyc"]).await;
    let before = kernel(&fleet, "nyc").await;
    let set = ["tenant", "set", "alice", "--memory", "256m", "--cpus", "1.5", "--pids", "300"];
    fleet.featherctl(&set).await.ok();
    let limits = ["268435456", "150000", "300"].map(ToOwned::to_owned);
    let limited = kernel(&fleet, "nyc").await;
    assert_eq!(limited.limits, limits);
    assert_eq!(limited.began, before.began, "its process runs on");
    let shown = fleet.featherctl_json(&["tenant", "show", "alice"]).await;
    assert_eq!(
        (&shown["limits"]["memory_bytes"], &shown["limits_applied"]),
        (&268_435_456.into(), &true.into()),
        "{shown}"
    );

    let below = fleet.featherctl(&["tenant", "set", "alice", "--memory", "16t"]).await;
    assert!(below.code == 1 && below.stderr.contains("of memory in all"), "{below:?}");
    assert_eq!(kernel(&fleet, "nyc").await.limits, limits, "a refused change changes nothing");

    fleet.migrate("alice", "fra").await.ok();
    assert_eq!(kernel(&fleet, "fra").await.limits, limits);
    fleet.featherctl(&["tenant", "set", "alice", "--cpus", "none"]).await.ok();
    let limits = ["268435456", "-1", "300"].map(ToOwned::to_owned);
    let free = |found: [String; 3]| found.map(|value| if value == "max" { "-1".to_owned() } else { value });
    assert_eq!(free(kernel(&fleet, "fra").await.limits), limits);
    fleet.kill_birth("fra").await;
    fleet.start_birth("fra").await;
    fleet.becomes("fra", "ready").await;
    assert_eq!(free(kernel(&fleet, "fra").await.limits), limits);
    fleet.finish().await;
}
