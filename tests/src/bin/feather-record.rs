//! Writes down what this release sends and answers, for later releases to be held to: `feather-record tests/recorded/v2`.

#![allow(clippy::print_stderr, reason = "a program for people and scripts")]

use std::{path::PathBuf, process::ExitCode};

use clap::Parser;
use feather_proto::version;
use feather_tests::recorded::{Schema, player::Player, save, script};

/// Plays the script against a fleet of this release and keeps every call.
#[derive(Parser)]
#[command(name = "feather-record")]
struct Arguments {
    /// The calls to make.
    #[arg(long, default_value = "tests/recorded/script.jsonl")]
    script: PathBuf,
    /// Go on behind a call that does not get the code it is to get, and write nothing.
    #[arg(long)]
    try_all: bool,
    /// New folder for the recordings.
    folder: PathBuf,
}

async fn run(arguments: &Arguments) -> anyhow::Result<bool> {
    let calls = script(&std::fs::read_to_string(&arguments.script)?)?;
    let mut player = Player::new(Schema::current(), Some(version::OURS))?;
    player.make_certificate()?;
    let mut recordings = Vec::new();
    for call in &calls {
        match player.record(call).await {
            Ok(recording) => recordings.push(recording),
            Err(error) if arguments.try_all => eprintln!("{error:#}"),
            Err(error) => return Err(error),
        }
    }
    let recorded = recordings.iter().map(|one| one.call.rpc.clone()).collect();
    let missing: Vec<_> = Schema::current().rpcs().difference(&recorded).cloned().collect();
    eprintln!("{} calls; not among them: {}", recordings.len(), missing.join(", "));
    if arguments.try_all {
        return Ok(recordings.len() == calls.len());
    }
    save(&arguments.folder, &recordings)?;
    Ok(true)
}

#[tokio::main]
async fn main() -> ExitCode {
    match run(&Arguments::parse()).await {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}
