//! What a controller of a thousand servers costs: the simulator's numbers, as rows of the table.

use std::{env, process::Command};

use anyhow::{Context as _, ensure};
use serde::Deserialize;

use crate::{
    cases::Run,
    report::{Judged, Row},
};

const SERVERS: usize = 1_000;
const TENANTS: usize = 10_000;

/// What is judged of the simulator's report.
#[derive(Deserialize)]
struct Simulated {
    adds_per_s: f64,
    add_ms_p99: f64,
    hung_add_ms_p99: f64,
    list_ms: f64,
    reattach_s: f64,
    controller_rss_mib: f64,
}

/// Runs the simulator, which lies beside this program.
pub(crate) fn thousand(run: &mut Run<'_>) -> anyhow::Result<()> {
    let program = env::current_exe()?.with_file_name("feather-sim");
    let mut simulator = Command::new(&program);
    simulator.args(["--servers", &SERVERS.to_string(), "--tenants", &TENANTS.to_string(), "--json", "--dir"]);
    simulator.arg(&run.machine.scratch).stderr(std::process::Stdio::inherit());
    let ran = simulator.output().with_context(|| format!("{} does not start", program.display()))?;
    ensure!(ran.status.success(), "the simulator failed; what it said is above");
    let said = String::from_utf8_lossy(&ran.stdout);
    let last = said.lines().last().context("the simulator said nothing")?;
    rows(run, serde_json::from_str(last).context("the simulator's last line")?);
    Ok(())
}

fn rows(run: &mut Run<'_>, found: Simulated) {
    let mut value = |case: &str, ours, unit, aim| {
        run.rows.push(Row::new(case, ours, None, unit, (Judged::Value, aim)));
    };
    // A hundred in a second.
    value("1,000 servers: one add of many", 1_000.0 / found.adds_per_s, "ms", 10.0);
    value("1,000 servers: list of 10,000 tenants", found.list_ms, "ms", 200.0);
    value("1,000 servers: all back after a reboot", found.reattach_s, "s", 10.0);
    value("1,000 servers: controller's memory", found.controller_rss_mib, "MiB", 300.0);
    let others = Some(found.add_ms_p99);
    let case = "1,000 servers: add while 5 % hang, 99 of 100";
    run.rows.push(Row::new(case, found.hung_add_ms_p99, others, "ms", (Judged::Ratio, 1.0)));
}
