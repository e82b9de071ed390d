//! Who reads and changes Caddy's configuration, in which there is a password: root in the birth, and nobody else, also where the birth
//! is on its host's network.

use feather_tests::{
    real::{CADDY, Ran, Real},
    wait::until,
};

use super::birth::Host;

/// Whoever has a login and no more than that.
const SOMEBODY: [&str; 6] = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "bash", "-c"];

/// Asks at every TCP port on which anybody listens; some hang up before they have heard it all.
const ASK_EVERY_PORT: &str = r#"
trap "" PIPE
for port in $(ss --no-header --listening --tcp --numeric | awk '{ sub(".*:", "", $4); print $4 }' | sort -u); do
  echo "asked at $port"
  exec 3<>"/dev/tcp/127.0.0.1/$port"
  printf 'GET /config/ HTTP/1.0\r\nHost: 127.0.0.1:%s\r\n\r\n' "$port" >&3 2>/dev/null
  timeout 2 cat <&3
done
"#;

async fn somebody_inside(fleet: &Real, script: &str) -> Ran {
    let birth = fleet.birth("lon");
    fleet.podman(&[&["exec", &birth], &SOMEBODY[..], &[script]].concat()).await
}

async fn asked_by_root(fleet: &Real) -> String {
    until("root is answered", async || {
        let ran = fleet.inside("lon", &format!("{CADDY}caddy GET /config/")).await;
        if ran.code == 0 && ran.stdout.contains("feather_tenants") { Ok(ran.stdout) } else { Err(ran) }
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_but_root_in_the_birth_reads_or_changes_caddys_configuration() {
    let host = Host::new("readers");
    let mut fleet = Real::bare(&[("FEATHER_BIRTH_NETNS", &host.namespace()), ("DOMAIN", "inceptel.ai")]).await;
    fleet.alone("lon").await;
    let secret = fleet.inside("lon", "cat /var/lib/feather/agent/certificate.secret").await.ok();
    let secret = secret.trim();
    assert!(secret.len() > 20 && asked_by_root(&fleet).await.contains(secret), "there is something to be kept");

    // In the birth: neither by the socket, nor by what Caddy was started with, nor by any port.
    for request in ["GET /config/", "DELETE /config/apps"] {
        let refused = somebody_inside(&fleet, &format!("{CADDY}caddy {request}")).await;
        assert!(refused.code != 0 && refused.stderr.contains("Permission denied"), "{refused:?}");
    }
    let start = "cat /run/feather/caddy/start.json";
    assert!(fleet.inside("lon", start).await.ok().contains(secret));
    let refused = somebody_inside(&fleet, start).await;
    assert!(refused.code != 0 && refused.stderr.contains("Permission denied"), "{refused:?}");
    nothing_by_any_port(&somebody_inside(&fleet, ASK_EVERY_PORT).await, secret);

    // On the host: the same, and the way that root has.
    let namespace = host.namespace();
    let entered = format!("--net={namespace}");
    let asked = fleet.run("nsenter", &[&[entered.as_str()], &SOMEBODY[..], &[ASK_EVERY_PORT]].concat()).await;
    nothing_by_any_port(&asked, secret);
    let process = fleet.podman(&["inspect", "--format", "{{.State.Pid}}", &fleet.birth("lon")]).await.ok();
    let socket = format!("/proc/{}/root/run/feather/caddy/admin.sock", process.trim());
    let by_socket = format!("curl --silent --show-error --unix-socket {socket} http://caddy/config/");
    assert!(fleet.run("bash", &["-c", &by_socket]).await.ok().contains(secret));
    let refused = fleet.run(SOMEBODY[0], &[&SOMEBODY[1..], &[&by_socket]].concat()).await;
    assert!(refused.code != 0 && refused.stdout.is_empty(), "{refused:?}");

    // The socket of a Caddy that was killed is in nobody's way.
    let process = fleet.inside("lon", "pgrep -x caddy").await.ok();
    fleet.inside("lon", "s6-svc -k /run/service/caddy").await.ok();
    until("another Caddy runs", async || {
        let ran = fleet.inside("lon", "pgrep -x caddy").await;
        if ran.code == 0 && ran.stdout != process { Ok(()) } else { Err(ran) }
    })
    .await;
    assert!(asked_by_root(&fleet).await.contains(secret));

    by_a_port_when_told_so(&mut fleet).await;
    fleet.finish().await;
    drop(host);
}

fn nothing_by_any_port(asked: &Ran, secret: &str) {
    assert!(asked.stdout.contains("asked at 80\n") && asked.stdout.contains("asked at 443\n"), "{asked:?}");
    assert!(!asked.stdout.contains(secret) && !asked.stdout.contains("feather_tenants"), "{asked:?}");
}

/// Whoever has programs that need the port gets it, and the agent goes there too.
async fn by_a_port_when_told_so(fleet: &mut Real) {
    let settings = [("FEATHER_BIRTH_NETNS", ""), ("FEATHER_AGENT_CADDY_ADMIN", "http://127.0.0.1:2021")];
    fleet.unready("par", &settings).await;
    until("the port gives the configuration", async || {
        let ran = fleet.inside("par", ASK_EVERY_PORT).await;
        if ran.stdout.contains("asked at 2021\nHTTP/1.0 200 OK") { Ok(()) } else { Err(ran) }
    })
    .await;
    assert_eq!(fleet.inside("par", "test -e /run/feather/caddy/admin.sock").await.code, 1);
    until("the agent has nothing to complain about", async || {
        let ran = fleet.inside("par", "tenant.sh status").await;
        if ran.code == 0 && !ran.stdout.contains("Caddy") { Ok(()) } else { Err(ran) }
    })
    .await;
}
