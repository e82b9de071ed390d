//! `make bench`: measures moves between two real agents against what people use today, in one run on one machine.
//!
//! Owns the cases and their aims. Started by `scripts/bench`, which brings up the fleet; also makes the datasets for people
//! who want to try something by hand: `feather-bench generate s|l DIRECTORY`.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program for people")]

mod cases;
mod dataset;
mod fleet;
mod machine;
mod outage;
mod report;

use std::{env, fs, path::PathBuf, process::ExitCode};

use anyhow::{Context as _, bail};

use machine::Machine;

/// Every run makes the same data.
const SEED: u64 = 2026;

fn main() -> ExitCode {
    let arguments: Vec<_> = env::args().skip(1).collect();
    let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
    let done = match &arguments[..] {
        [] => bench(),
        ["generate", shape, directory] => generate(shape, directory),
        _ => Err(anyhow::anyhow!("say nothing, or: generate s|s-bytes|s-files|l DIRECTORY")),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn generate(shape: &str, directory: &str) -> anyhow::Result<()> {
    let directory = PathBuf::from(directory);
    fs::create_dir_all(&directory)?;
    match shape {
        "s" => dataset::small_files(&directory, dataset::S, SEED),
        "s-bytes" => dataset::small_files(&directory, dataset::S_BYTES, SEED),
        "s-files" => dataset::small_files(&directory, dataset::S_FILES, SEED),
        "l" => dataset::large_files(&directory, SEED),
        _ => bail!("there is no dataset {shape}"),
    }
}

fn bench() -> anyhow::Result<()> {
    let setting = |name: &str| env::var(name).with_context(|| format!("{name} is not set; run scripts/bench"));
    let scratch = PathBuf::from(setting("BENCH_SCRATCH")?);
    let rounds = setting("BENCH_ROUNDS")?;
    let rounds = rounds.parse().ok().filter(|rounds| *rounds >= 1);
    let rounds = rounds.context("BENCH_ROUNDS is the number of rounds that count: at least 1")?;
    let machine = Machine {
        root: PathBuf::from(setting("BENCH_ROOT")?),
        prefix: setting("FEATHER_BIRTH_PREFIX")?,
        subnet: setting("FEATHER_SUBNET")?,
        scratch: scratch.clone(),
    };
    let chosen = env::var("BENCH_CASES").unwrap_or_default();
    let chosen: Vec<_> = chosen.split(',').map(str::trim).filter(|case| !case.is_empty()).collect();
    fs::create_dir_all(&scratch)?;
    let rows = cases::all(&machine, rounds, &chosen, &PathBuf::from(setting("BENCH_REPORT")?));
    // Gigabytes; also after a failure.
    fs::remove_dir_all(&scratch)?;
    report::print(&rows?);
    println!("{}", cases::FOOTNOTE);
    Ok(())
}
