//! A certificate authority for one fleet: Pebble, which validates for real, and a name server that it believes.
//!
//! Owns both processes, their files, and the root that clients are to trust. Every name leads to one address, which can be changed.

use std::{
    net::{Ipv4Addr, SocketAddr, UdpSocket},
    path::{Path, PathBuf},
    process::Stdio,
};

use tokio::process::{Child, Command};

use feather_agent::router::caddy::contract::quiet_port;

/// Where births find the authority's own root.
const ROOT_IN_BIRTH: &str = "/etc/feather-acme-root.pem";

/// Pebble and its name server, killed when dropped.
pub struct Authority {
    directory: PathBuf,
    address: String,
    management: String,
    names: SocketAddr,
    pebble: Child,
    /// None when somebody else answers for names.
    _names: Option<Child>,
}

impl Authority {
    /// Starts both. `gateway` is this machine as births see it; every name leads to `leads_to`.
    pub async fn start(directory: &Path, gateway: Ipv4Addr, leads_to: Ipv4Addr) -> Self {
        let mut names = Command::new("pebble-challtestsrv");
        let (names_port, names_management) = (free_udp_port(), format!("127.0.0.1:{}", quiet_port()));
        names.args(["-dns01", &format!("127.0.0.1:{names_port}"), "-management", &names_management]);
        names.args(["-http01", "", "-https01", "", "-tlsalpn01", ""]);
        names.args(["-defaultIPv4", &leads_to.to_string(), "-defaultIPv6", ""]);
        let mut authority = Self::that_asks(directory, gateway, ([127, 0, 0, 1], names_port).into()).await;
        authority._names = Some(spawn(names, &authority.directory.join("names.log")));
        authority
    }

    /// Starts Pebble alone, as `gateway` sees this machine; it believes that name server.
    pub async fn that_asks(directory: &Path, gateway: Ipv4Addr, names: SocketAddr) -> Self {
        let directory = directory.join("authority");
        std::fs::create_dir_all(&directory).expect("a folder can be made");
        let own = rcgen::generate_simple_self_signed(vec![gateway.to_string(), "127.0.0.1".to_owned()]);
        let own = own.expect("a certificate can be made");
        write(&directory.join("own.pem"), &own.cert.pem());
        write(&directory.join("own.key"), &own.signing_key.serialize_pem());
        let [port, management] = [(); 2].map(|()| quiet_port());
        let config = serde_json::json!({ "pebble": {
            "listenAddress": format!("0.0.0.0:{port}"),
            "managementListenAddress": format!("127.0.0.1:{management}"),
            "certificate": directory.join("own.pem"),
            "privateKey": directory.join("own.key"),
            "httpPort": 80,
            "tlsPort": 443,
        } });
        write(&directory.join("pebble.json"), &config.to_string());

        let authority = Self {
            address: format!("https://{gateway}:{port}/dir"),
            management: format!("https://127.0.0.1:{management}"),
            pebble: pebble(&directory, names),
            _names: None,
            names,
            directory,
        };
        authority.fetch_root().await;
        authority
    }

    /// Ends Pebble and starts it anew at the same address: it forgets all accounts, and issues under another root.
    pub async fn forget_everything(&mut self) {
        self.pebble.kill().await.expect("Pebble ends");
        self.pebble = pebble(&self.directory, self.names);
        self.fetch_root().await;
    }

    /// URL of its directory.
    pub fn directory(&self) -> &str {
        &self.address
    }

    /// What its own HTTPS is checked against, in PEM.
    pub fn own_root(&self) -> String {
        std::fs::read_to_string(self.directory.join("own.pem")).expect("the authority has a certificate")
    }

    async fn fetch_root(&self) {
        let (own, root) = (self.directory.join("own.pem"), self.root());
        crate::wait::until("the authority answers", async || {
            let url = format!("{}/roots/0", self.management);
            let mut curl = Command::new("curl");
            curl.args(["--silent", "--show-error", "--fail", "--noproxy", "*", "--cacert"]).arg(&own);
            curl.arg("--output").arg(&root).arg(url);
            let ran = curl.output().await.expect("curl runs");
            if ran.status.success() { Ok(()) } else { Err(ran) }
        })
        .await;
    }

    /// PEM file of the root under which it issues; new at each start.
    pub fn root(&self) -> PathBuf {
        self.directory.join("root.pem")
    }

    /// What a birth's environment needs to get its certificates here.
    pub fn settings(&self) -> [(&str, &str); 3] {
        [("ACME_CA", &self.address), ("ACME_CA_ROOT", ROOT_IN_BIRTH), ("ACME_EMAIL", "ops@inceptel.ai")]
    }

    /// What Podman needs to be told for that.
    pub fn mount(&self) -> String {
        format!("{}:{ROOT_IN_BIRTH}:ro", self.directory.join("own.pem").display())
    }

    /// How many certificates were asked for.
    pub fn orders(&self) -> usize {
        self.log().lines().filter(|line| line.contains("Added order")).count()
    }

    /// All that it said.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.directory.join("pebble.log")).expect("Pebble logs")
    }
}

fn pebble(directory: &Path, names: SocketAddr) -> Child {
    let mut pebble = Command::new("pebble");
    pebble.arg("-config").arg(directory.join("pebble.json")).args(["-dnsserver", &names.to_string()]);
    // Every name is validated each time, at once, and no request is refused for the sake of it.
    pebble.envs([("PEBBLE_VA_NOSLEEP", "1"), ("PEBBLE_WFE_NONCEREJECT", "0"), ("PEBBLE_AUTHZREUSE", "0")]);
    spawn(pebble, &directory.join("pebble.log"))
}

fn write(path: &Path, text: &str) {
    std::fs::write(path, text).expect("a file can be written");
}

fn spawn(mut command: Command, log: &Path) -> Child {
    let file = std::fs::File::create(log).expect("a log can be made");
    let errors = file.try_clone().expect("a descriptor can be doubled");
    command.stdin(Stdio::null()).stdout(file).stderr(errors).kill_on_drop(true);
    command.spawn().expect("pebble is installed, see `make setup`")
}

fn free_udp_port() -> u16 {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("there is a free port");
    socket.local_addr().expect("a socket has an address").port()
}
