//! Holds the Podman and the Caddy of this machine to the contracts of the agent's seams. Meant to be run inside of a birth
//! that nobody else uses; panics at the first broken promise.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test, in the form of a program")]

use std::{path::Path, sync::Arc, time::Duration};

use feather_agent::{
    router::{
        self,
        caddy::contract::{AdminBy, Process},
    },
    runtime::{
        contract::{self, Subject},
        podman::{Podman, PodmanOptions},
    },
};

const SOCKET: &str = "/run/podman/podman.sock";

#[tokio::main]
async fn main() {
    let podman = Podman::connect(Path::new(SOCKET), PodmanOptions::new([7; 32])).unwrap();
    let subject = Subject {
        runtime: Arc::new(podman),
        image: "localhost/feather-work:latest".to_owned(),
        prefix: "contract-".to_owned(),
        ports: [9001, 9002],
        patience: Duration::from_secs(20),
    };
    contract::all(&subject).await;

    // By a socket as in a birth, and by a port as where somebody else set Caddy up.
    for by in [AdminBy::Socket, AdminBy::Port] {
        let directory = tempfile::tempdir().unwrap();
        let caddy = Process::start(Path::new("/usr/bin/caddy"), directory.path(), by).await;
        router::contract::all(&caddy).await;
        router::caddy::contract::all(&caddy, true).await;
    }
    println!("contracts are kept");
}
