//! HTTPS: certificates on demand from an authority that validates for real, and forwarding between servers that speak it.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use feather_tests::real::{Authority, Login, Ran, Real};

/// One request as a person makes it, who trusts the authority and nobody else.
pub(crate) async fn curl(
    fleet: &Real,
    authority: &Authority,
    server: &str,
    host: &str,
    path: &str,
    more: &[&str],
) -> Ran {
    let resolve = format!("{host}:443:{}", fleet.address(server));
    let root = authority.root().display().to_string();
    let url = format!("https://{host}{path}");
    let trust =
        ["--silent", "--show-error", "--noproxy", "*", "--max-time", "20", "--cacert", &root, "--resolve", &resolve];
    fleet.run("curl", &[&trust, more, &[&url]].concat()).await
}

async fn append(fleet: &Real, authority: &Authority, server: &str, login: &Login, line: &str) -> Ran {
    let file = login.header_file();
    let authorization = format!("@{}", file.path().display());
    curl(fleet, authority, server, &login.host, "/append", &["--fail", "--header", &authorization, "--data", line])
        .await
}

async fn fleet_with_a_domain() -> (Real, Authority) {
    let mut fleet = Real::start(&[], &[]).await;
    let authority = fleet.authority("nyc").await;
    let settings = [&authority.settings()[..], &[("DOMAIN", "inceptel.ai")]].concat();
    for server in ["nyc", "fra"] {
        fleet.join_with(server, &settings, &["--volume", &authority.mount()]).await;
    }
    (fleet, authority)
}

#[tokio::test(flavor = "multi_thread")]
async fn with_a_domain_known_names_are_served_by_https_and_others_get_no_certificate() {
    let (fleet, authority) = fleet_with_a_domain().await;
    let alice = fleet.add("alice", &["--server", "nyc"]).await;
    let version = ["--write-out", "%{http_version}", "--output", "/dev/null"];
    let served = curl(&fleet, &authority, "nyc", &alice.host, "/health", &version).await;
    assert_eq!(served.ok(), "2", "by HTTP/2");
    assert_eq!(authority.orders(), 1, "{}", authority.log());

    // Port 80 leads to port 443.
    let (ip, host) = (fleet.address("nyc"), format!("Host: {}", alice.host));
    let plain = format!("http://{ip}/a%20b?c=d");
    let head = fleet.run("curl", &["--silent", "--noproxy", "*", "--head", "--header", &host, &plain]).await.ok();
    assert!(head.starts_with("HTTP/1.1 308"), "{head}");
    assert!(head.contains(&format!("Location: https://{}/a%20b?c=d\r\n", alice.host)), "{head}");

    // Whoever points a name at this server gets no certificate for it, and the authority is not even asked.
    for stranger in ["nobody.users.inceptel.ai", "www.example.com"] {
        let refused = curl(&fleet, &authority, "nyc", stranger, "/health", &[]).await;
        assert_eq!(refused.code, 35, "{stranger}: {refused:?}");
    }
    assert_eq!(authority.orders(), 1, "{}", authority.log());
    curl(&fleet, &authority, "nyc", "inceptel.ai", "/", &[]).await.ok();
    assert_eq!(authority.orders(), 2, "the admin's own name");

    // A reboot costs no new certificate.
    fleet.kill_birth("nyc").await;
    fleet.start_birth("nyc").await;
    feather_tests::wait::until("alice answers after the reboot", async || {
        let ran = curl(&fleet, &authority, "nyc", &alice.host, "/health", &["--fail"]).await;
        if ran.code == 0 { Ok(()) } else { Err(ran) }
    })
    .await;
    assert_eq!(authority.orders(), 2, "{}", authority.log());
    fleet.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenant_moves_under_load_between_servers_that_speak_https_and_needs_no_other_certificate() {
    let (fleet, authority) = fleet_with_a_domain().await;
    let alice = fleet.add("alice", &["--server", "nyc"]).await;
    append(&fleet, &authority, "nyc", &alice, "first").await.ok();
    assert_eq!(authority.orders(), 1, "{}", authority.log());

    let stop = Arc::new(AtomicBool::new(false));
    let moves = async {
        for target in ["fra", "nyc", "fra"] {
            fleet.migrate("alice", target).await;
        }
        stop.store(true, Ordering::Relaxed);
    };
    let writer = async {
        let mut written = 1_u32;
        while !stop.load(Ordering::Relaxed) {
            let ran = append(&fleet, &authority, "nyc", &alice, &format!("line-{written}")).await;
            assert_eq!(ran.code, 0, "{written}: {ran:?}");
            written += 1;
            assert_eq!(ran.stdout.trim(), format!("{{\"line\":{written}}}"), "no line is lost, none is there twice");
        }
        written
    };
    let ((), written) = tokio::join!(moves, writer);
    assert!(written > 10, "{written}");
    assert_eq!(authority.orders(), 1, "a move needs no authority: {}", authority.log());

    // Strangers do not get in by the name under which servers know each other, and see no more by it than by any other.
    let forwarded = fleet.inside("nyc", "ls /var/lib/feather/agent/routes/tenants/alice.users.inceptel.ai").await.ok();
    assert_eq!(forwarded.trim(), format!("tls:fra@{}:443", fleet.address("fra")));

    // When its name leads to fra, fra gets a certificate of its own. Here it still leads to nyc, which forwards the challenge.
    append(&fleet, &authority, "fra", &alice, "last").await.ok();
    assert_eq!(authority.orders(), 2, "{}", authority.log());
    fleet.finish().await;
}
