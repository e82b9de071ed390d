//! A stand-in for Dynadot to be run by hand: its API and the name servers of one zone, on this machine. Prints where they are, one
//! line each, and serves until it is stopped.

#![allow(clippy::print_stdout, reason = "a program for people and scripts")]

use std::{
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::Context as _;
use clap::Parser;
use feather_controller::dns::zone::{Zone, ZoneRecord};
use feather_tests::dynadot::{Config, FakeDynadot, KEY, Publication, SECRET, Switches};

/// A stand-in for Dynadot: its API (versions 2 and 3) and the authoritative name servers of one zone. What it holds is gone
/// when it ends. `/fake/state` at the API's address shows the zone, and whether anybody's records were touched.
#[derive(Parser)]
#[command(name = "fake-dynadot")]
struct Arguments {
    /// The registered domain that it knows, for instance example.com.
    #[arg(long)]
    zone: String,
    /// Address of the API.
    #[arg(long, default_value = "127.0.0.1:8053")]
    listen: SocketAddr,
    /// Address of a name server, UDP and TCP. May be given several times.
    #[arg(long, default_value = "127.0.0.1:5300")]
    dns_listen: Vec<SocketAddr>,
    /// Seconds from a change at the API until the name servers have it.
    #[arg(long, default_value_t = 0.0)]
    delay: f64,
    /// What is in the zone at first, as JSON: {"ttl":300,"records":[{"host":"","kind":"a","value":"192.0.2.1","extra":""}]}. All of it
    /// is a stranger's: no request may change it. Without it the zone has a web and a mail server.
    #[arg(long)]
    initial: Option<PathBuf>,
    /// File with the API's key. Without it the variable FAKE_DYNADOT_KEY, or a key that is the same everywhere.
    #[arg(long)]
    key_file: Option<PathBuf>,
    /// File with the API's secret. Without it the variable FAKE_DYNADOT_SECRET, or a secret that is the same everywhere.
    #[arg(long)]
    secret_file: Option<PathBuf>,
    /// Turns on a behaviour that nobody is sure of. May be given several times; a wrong name shows all.
    #[arg(long)]
    switch: Vec<String>,
    /// Requests in a minute, at most; 0 for no limit.
    #[arg(long, default_value_t = 60)]
    per_minute: usize,
    /// Seconds during which the key is not accepted yet.
    #[arg(long, default_value_t = 0.0)]
    warm_up: f64,
    /// Address that may call the API. May be given several times; without it all may.
    #[arg(long)]
    allow: Vec<IpAddr>,
    /// So many of a hundred requests go wrong, somehow.
    #[arg(long, default_value_t = 0)]
    fail_percent: u32,
    /// What goes wrong, and when.
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let mut switches = Switches::default();
    for name in &arguments.switch {
        switches.turn_on(name).map_err(anyhow::Error::msg)?;
    }
    let initial = match &arguments.initial {
        Some(path) => serde_json::from_str(&read(path)?).with_context(|| format!("{} is no zone", path.display()))?,
        None => plain_zone(),
    };
    let seconds = |text: &str, value: f64| {
        Duration::try_from_secs_f64(value).with_context(|| format!("--{text} {value} is no number of seconds"))
    };
    let delay = seconds("delay", arguments.delay)?;
    let publication = if delay.is_zero() { Publication::Immediate } else { Publication::After(delay) };
    let config = Config {
        switches,
        listen: arguments.listen,
        name_servers: arguments.dns_listen.iter().map(|listen| (*listen, publication)).collect(),
        key: (
            credential(arguments.key_file.as_deref(), "FAKE_DYNADOT_KEY", KEY)?,
            credential(arguments.secret_file.as_deref(), "FAKE_DYNADOT_SECRET", SECRET)?,
        ),
        warm_up: seconds("warm-up", arguments.warm_up)?,
        allowed: arguments.allow,
        per_minute: Some(arguments.per_minute).filter(|most| *most > 0),
        ..Config::new(&arguments.zone, initial)
    };
    let fake = FakeDynadot::start(config).await?;
    if arguments.fail_percent > 0 {
        fake.fail_by_plan(arguments.seed, arguments.fail_percent);
    }
    println!("api {}", fake.url());
    for address in fake.name_servers() {
        println!("dns {address}");
    }
    let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = tokio::signal::ctrl_c() => {}
    }
    Ok(())
}

fn read(path: &Path) -> anyhow::Result<String> {
    std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
}

fn credential(file: Option<&Path>, variable: &str, otherwise: &str) -> anyhow::Result<String> {
    match file {
        Some(path) => Ok(read(path)?.trim().to_owned()),
        None => Ok(std::env::var(variable).unwrap_or_else(|_| otherwise.to_owned())),
    }
}

/// What a small domain has.
fn plain_zone() -> Zone {
    let record = |host: &str, kind: &str, value: &str, extra: &str| ZoneRecord {
        host: host.into(),
        kind: kind.into(),
        value: value.into(),
        extra: extra.into(),
    };
    let records = vec![
        record("", "a", "192.0.2.80", ""),
        record("", "mx", "mail.example.net", "10"),
        record("", "txt", "v=spf1 include:mail.example.net ~all", ""),
        record("www", "cname", "example.net", ""),
    ];
    Zone { ttl: 300, records }
}
