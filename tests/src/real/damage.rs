//! What may happen to a fleet while a tenant moves, and how it is made good again.

use std::{net::SocketAddr, time::Duration};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

use super::Real;

/// The agents' port.
const AGENT_PORT: u16 = 7443;

/// One fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Damage {
    /// A power failure where the tenant comes from.
    SourceKilled,
    /// A power failure where it goes to.
    TargetKilled,
    /// `kill -9` of the controller.
    ControllerKilled,
    /// The two servers do not hear each other.
    SourceFromTarget,
    /// The controller and the source do not.
    ControllerFromSource,
    /// The controller and the target do not.
    ControllerFromTarget,
    /// No byte is left on the target's disk.
    TargetFull,
    /// The source sends 1 MB a second.
    SourceSlow,
    /// Of what the source sends to the target's agent one byte is another one, on each connection.
    Corrupted,
}

impl Damage {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::SourceKilled,
        Self::TargetKilled,
        Self::ControllerKilled,
        Self::SourceFromTarget,
        Self::ControllerFromSource,
        Self::ControllerFromTarget,
        Self::TargetFull,
        Self::SourceSlow,
        Self::Corrupted,
    ];
}

/// What stands until it is healed.
pub(super) struct Wound {
    damage: Damage,
    source: String,
    target: String,
    /// The server that is without power.
    pub(super) down: Option<String>,
    proxy: Option<AbortOnDropHandle<()>>,
}

impl Real {
    /// Makes it happen now.
    pub(super) async fn inflict(&self, damage: Damage, source: &str, target: &str, byte: u64) -> Wound {
        let mut wound = Wound { damage, source: source.to_owned(), target: target.to_owned(), down: None, proxy: None };
        match damage {
            Damage::SourceKilled => wound.down = Some(source.to_owned()),
            Damage::TargetKilled => wound.down = Some(target.to_owned()),
            Damage::ControllerKilled => self.kill_controller().await,
            Damage::SourceFromTarget => {
                let peer = self.address(target);
                let rules = [format!("in ip saddr {peer} drop"), format!("out ip daddr {peer} drop")];
                self.filter(source, &rules).await;
            }
            Damage::ControllerFromSource => self.hide_controller(source).await,
            Damage::ControllerFromTarget => self.hide_controller(target).await,
            Damage::TargetFull => {
                let file = self.filler(target);
                // What is free is taken in one go where that works, and byte by byte where it does not.
                let fill = format!(
                    "fallocate --length $(df --output=avail -B1 {file} | tail -1) {file}; head -c 1G /dev/zero >>{file}"
                );
                self.inside(target, &format!("touch {file}; {fill}")).await;
            }
            Damage::SourceSlow => self.slow_down(source, true).await,
            Damage::Corrupted => wound.proxy = Some(self.corrupt(source, target, byte).await),
        }
        if let Some(server) = &wound.down {
            self.kill_birth(server).await;
        }
        wound
    }

    /// Takes it away; what was killed starts again.
    pub(super) async fn heal(&self, wound: &Wound) {
        match wound.damage {
            Damage::SourceKilled => self.start_birth(&wound.source).await,
            Damage::TargetKilled => self.start_birth(&wound.target).await,
            Damage::ControllerKilled => self.bring_up().await,
            Damage::SourceFromTarget | Damage::ControllerFromSource => self.unfilter(&wound.source).await,
            Damage::ControllerFromTarget | Damage::Corrupted => self.unfilter(&wound.target).await,
            Damage::TargetFull => {
                let file = self.filler(&wound.target);
                self.inside(&wound.target, &format!("rm -f {file}")).await.ok();
            }
            Damage::SourceSlow => self.slow_down(&wound.source, false).await,
        }
    }

    fn filler(&self, _server: &str) -> &'static str {
        "/var/lib/containers/filler"
    }

    async fn hide_controller(&self, server: &str) {
        let gateway = self.ip(1);
        let ports: Vec<_> = self.controllers.iter().map(|(_, port)| port.to_string()).collect();
        let ports = ports.join(", ");
        let rules = [
            format!("in ip saddr {gateway} tcp dport {AGENT_PORT} drop"),
            format!("out ip daddr {gateway} tcp sport {AGENT_PORT} drop"),
            format!("out ip daddr {gateway} tcp dport {{ {ports} }} drop"),
            format!("in ip saddr {gateway} tcp sport {{ {ports} }} drop"),
        ];
        self.filter(server, &rules).await;
    }

    /// Rules of a table of our own, which a power failure takes away as well.
    async fn filter(&self, server: &str, rules: &[String]) {
        let mut script = "nft add table ip soak".to_owned();
        for (chain, hook) in [("in", "input"), ("out", "output")] {
            script += &format!(" && nft 'add chain ip soak {chain} {{ type filter hook {hook} priority -300; }}'");
        }
        for rule in rules {
            script += &format!(" && nft add rule ip soak {rule}");
        }
        self.inside(server, &script).await.ok();
    }

    async fn unfilter(&self, server: &str) {
        self.inside(server, "nft delete table ip soak").await.ok();
    }

    /// From now on the target's agent reaches the source's through a proxy that changes a byte.
    async fn corrupt(&self, source: &str, target: &str, byte: u64) -> AbortOnDropHandle<()> {
        let (gateway, source) = (self.ip(1), self.address(source));
        let listener = TcpListener::bind((gateway, 0)).await.expect("the bridge has an address");
        let port = listener.local_addr().expect("it listens").port();
        let upstream = SocketAddr::from((source, AGENT_PORT));
        let proxy = AbortOnDropHandle::new(tokio::spawn(serve(listener, upstream, byte)));
        let script = format!(
            "nft add table ip soak && nft 'add chain ip soak out {{ type nat hook output priority -150; }}' && \
             nft add rule ip soak out ip daddr {source} tcp dport {AGENT_PORT} dnat to {gateway}:{port}"
        );
        self.inside(target, &script).await.ok();
        proxy
    }
}

async fn serve(listener: TcpListener, upstream: SocketAddr, byte: u64) {
    let mut pipes = tokio::task::JoinSet::new();
    while let Ok((client, _)) = listener.accept().await {
        pipes.spawn(pipe(client, upstream, byte));
        while pipes.try_join_next().is_some() {}
    }
}

/// Both ways, until one ends.
async fn pipe(client: TcpStream, upstream: SocketAddr, byte: u64) {
    let Ok(server) = TcpStream::connect(upstream).await else { return };
    let ((mut from_client, mut to_client), (mut from_server, mut to_server)) =
        (client.into_split(), server.into_split());
    let over = CancellationToken::new();
    let there = tokio::spawn(over.clone().run_until_cancelled_owned(async move {
        let _ = tokio::io::copy(&mut from_client, &mut to_server).await;
    }));
    let (mut passed, mut buffer) = (0_u64, vec![0; 16 << 10]);
    while let Ok(length @ 1..) = from_server.read(&mut buffer).await {
        if let Some(place) = byte.checked_sub(passed).and_then(|place| usize::try_from(place).ok())
            && place < length
        {
            buffer[place] ^= 0x40;
        }
        passed += length as u64;
        if to_client.write_all(&buffer[..length]).await.is_err() {
            break;
        }
    }
    over.cancel();
    let _ = there.await;
}

impl Damage {
    /// How long it may last.
    pub(super) fn lasts(self, share: f64) -> Duration {
        Duration::from_secs_f64(0.2 + 2.8 * share)
    }
}
