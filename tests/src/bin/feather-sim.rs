//! A fleet of as many servers and tenants as one likes, on one machine: `feather-sim --servers 1000 --tenants 10000 --json`.
//!
//! The controller and the agents are the real ones, with their gRPC, certificates, ledgers and store; only containers and the
//! reverse proxy are fakes. The controller runs in a process of its own, so that its memory can be told from that of a thousand
//! agents; all agents share this one.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program for people and scripts")]

use std::{path::PathBuf, process::ExitCode};

use clap::Parser;
use feather_tests::sim::{self, Scale};

/// Runs a simulated fleet and tells how fast it is.
#[derive(Parser)]
#[command(name = "feather-sim")]
struct Arguments {
    /// Servers of the fleet; each has ten places.
    #[arg(long, default_value_t = 100)]
    servers: usize,
    /// Tenants to add.
    #[arg(long, default_value_t = 500)]
    tenants: usize,
    /// Of a hundred servers so many hang at the end: their agents take connections and say nothing.
    #[arg(long, default_value_t = 5, value_name = "PERCENT")]
    hung: usize,
    /// Folder for the store and the ledgers, which go at the end [default: a new one where temporary files are].
    #[arg(long)]
    dir: Option<PathBuf>,
    /// End with one line of JSON on standard output, and nothing else there.
    #[arg(long)]
    json: bool,
    /// This process is the controller of the simulation in that folder.
    #[arg(long, hide = true)]
    controller: Option<PathBuf>,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if let Some(folder) = arguments.controller {
        return sim::controller::main(&folder);
    }
    let Arguments { servers, tenants, hung, dir, json, .. } = arguments;
    if servers == 0 || tenants > servers * sim::PLACES || hung > 100 {
        eprintln!(
            "each server has {} places: --tenants is at most that often --servers; --hung is at most 100",
            sim::PLACES
        );
        return ExitCode::from(2);
    }
    let scale = Scale { servers, tenants, hung };
    match sim::run(&scale, dir.as_deref(), |line| eprintln!("{line}")) {
        Ok(report) if json => println!("{}", serde_json::to_string(&report).unwrap_or_default()),
        Ok(report) => print!("{report}"),
        Err(error) => {
            eprintln!("{error:#}");
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}
