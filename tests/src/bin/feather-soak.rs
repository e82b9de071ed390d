//! `make soak MOVES=... SEED=... [STORE=postgres]`: moves under load with faults on real Podman and Caddy, as many as one likes. One line for each
//! on standard error, and one line of JSON at the end on standard output. Fails when a promise was broken.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program for people and scripts")]

use std::process::ExitCode;

use feather_tests::real::{damage::Damage, soak};

#[tokio::main]
async fn main() -> ExitCode {
    let number = |name: &str, otherwise: u64| match std::env::var(name) {
        Ok(text) if !text.is_empty() => text.parse().map_err(|_| format!("{name} is a number, not {text:?}")),
        _ => Ok(otherwise),
    };
    let (moves, seed) = match (number("MOVES", 30), number("SEED", 1)) {
        (Ok(moves), Ok(seed)) => (moves, seed),
        (Err(what), _) | (_, Err(what)) => {
            eprintln!("{what}: make soak MOVES=100 SEED=7");
            return ExitCode::from(2);
        }
    };
    let two_controllers = match std::env::var("STORE").as_deref() {
        Ok("postgres") => true,
        Ok("" | "sqlite") | Err(_) => false,
        Ok(other) => {
            eprintln!("STORE is sqlite, for one controller, or postgres, for two of which one leads; not {other:?}");
            return ExitCode::from(2);
        }
    };
    eprintln!("{moves} moves, seed {seed}; ctrl-c takes the fleet down");
    let moves = usize::try_from(moves).unwrap_or(usize::MAX);
    let course = soak::Course { moves, seed, faults: &Damage::ALL, two_controllers };
    let run = soak::run(course, |line| eprintln!("{line}"));
    let report = tokio::select! {
        report = run => report,
        // The fleet goes with the future that is dropped here.
        _ = tokio::signal::ctrl_c() => return ExitCode::from(130),
    };
    for detail in &report.details {
        eprintln!("{detail}");
    }
    println!("{}", serde_json::to_string(&report).unwrap_or_default());
    if report.is_clean() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
