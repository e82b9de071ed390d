//! The admin container under constant load: swapped, swapped badly, swapped by an agent that dies in the middle of it.

use std::time::Duration;

use feather_tests::{
    real::{Login, Real},
    wait::until,
};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

const PASSWORD: &str = "password-of-the-admin-container";
const SETTINGS: [(&str, &str); 4] = [
    ("FEATHER_AGENT_ADMIN", "on"),
    ("FEATHER_AGENT_HEALTH_TIMEOUT_SECONDS", "4"),
    ("FEATHER_BIRTH_PASS", "ANTHROPIC_API_KEY FEATHER_PASSWORD"),
    ("FEATHER_PASSWORD", PASSWORD),
];

/// What a client saw.
#[derive(Debug, Default)]
struct Seen {
    answered: usize,
    failed: Vec<String>,
}

/// Somebody who asks all the time, on connections of the kind that the client makes.
struct Asker {
    stop: CancellationToken,
    task: JoinHandle<Seen>,
}

impl Asker {
    fn start(client: reqwest::Client, url: String) -> Self {
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        let task = tokio::spawn(async move {
            let mut seen = Seen::default();
            while !stopped.is_cancelled() {
                let request = client.get(&url).header("host", "nobody.users.inceptel.ai").bearer_auth(PASSWORD);
                let answer = async { request.send().await?.error_for_status()?.text().await };
                match answer.await {
                    Ok(_) => seen.answered += 1,
                    Err(error) => seen.failed.push(format!("{error:?}")),
                }
                tokio::time::sleep(Duration::from_millis(3)).await;
            }
            seen
        });
        Self { stop, task }
    }

    async fn stop(self) -> Seen {
        self.stop.cancel();
        self.task.await.unwrap()
    }
}

fn one_shot() -> reqwest::Client {
    reqwest::Client::builder().no_proxy().pool_max_idle_per_host(0).timeout(Duration::from_secs(10)).build().unwrap()
}

fn keep_alive() -> reqwest::Client {
    reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(10)).build().unwrap()
}

/// Somebody who asks for no tenant.
fn stranger() -> Login {
    Login { tenant: "nobody".into(), host: "nobody.users.inceptel.ai".into(), password: PASSWORD.into() }
}

/// All kinds of clients at once.
async fn askers(fleet: &Real, server: &str) -> [Asker; 4] {
    let ip = fleet.inside(server, "hostname -I").await.ok();
    let url = |path: &str| format!("http://{}{path}", ip.split_whitespace().next().unwrap());
    [
        Asker::start(one_shot(), url("/health")),
        Asker::start(one_shot(), url("/journal")),
        Asker::start(keep_alive(), url("/health")),
        Asker::start(keep_alive(), url("/sse?limit=3")),
    ]
}

async fn nobody_was_refused(askers: [Asker; 4]) {
    for asker in askers {
        let seen = asker.stop().await;
        assert!(seen.answered > 20 && seen.failed.is_empty(), "{seen:?}");
    }
}

async fn serving(fleet: &Real) -> String {
    until("an admin container serves", async || {
        let server = fleet.featherctl_json(&["server", "show", "nyc"]).await;
        let admin = &server["admin"];
        if admin["running"] == true && admin["candidate"].is_null() {
            Ok(admin["container"].as_str().unwrap().to_owned())
        } else {
            Err(server)
        }
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_admin_container_is_swapped_and_no_request_fails() {
    let fleet = Real::start(&["nyc"], &SETTINGS).await;
    fleet.remember_secret(PASSWORD);
    assert_eq!(serving(&fleet).await, "feather-work-blue");
    let stranger = stranger();
    let first = fleet.answers("nyc", &stranger).await.boot;
    let askers = askers(&fleet, "nyc").await;

    let swapped = fleet.featherctl(&["server", "swap", "nyc"]).await;
    assert_eq!(swapped.code, 0, "{swapped:?}");
    assert!(swapped.stderr.contains("feather-work-green is healthy on port 8081"), "{swapped:?}");
    assert_eq!(serving(&fleet).await, "feather-work-green");
    let second = fleet.answers("nyc", &stranger).await.boot;
    assert_ne!(first, second, "another process answers");

    fleet.use_image("nyc", "unhealthy").await;
    let failed = fleet.featherctl(&["server", "swap", "nyc", "--image", "feather-work:unhealthy"]).await;
    assert_eq!(failed.code, 1, "{failed:?}");
    assert!(
        failed.stderr.contains("did not answer its health check") && failed.stderr.contains("listening"),
        "{failed:?}"
    );
    assert_eq!(fleet.answers("nyc", &stranger).await.boot, second, "the old one serves");
    fleet.use_image("nyc", "latest").await;

    let operation = fleet.begin(&["server", "swap", "nyc"]).await;
    fleet.comes_to(&operation, "switch").await;
    fleet.kill_agent("nyc").await;
    assert!(fleet.ends(&operation).await, "a swap goes on when its agent dies");
    assert_eq!(serving(&fleet).await, "feather-work-blue");
    let names = fleet.inside("nyc", "podman ps --all --format '{{.Names}}'").await.ok();
    assert_eq!(names, "feather-work-blue\n");

    nobody_was_refused(askers).await;
    fleet.kill_birth("nyc").await;
    fleet.start_birth("nyc").await;
    fleet.answers("nyc", &stranger).await;
    fleet.finish().await;
}

const NAMES: &str = "podman ps --all --format '{{.Names}}'";

#[tokio::test(flavor = "multi_thread")]
async fn swap_sh_does_the_same_on_a_server_without_a_controller() {
    let mut fleet = Real::bare(&SETTINGS).await;
    fleet.remember_secret(PASSWORD);
    fleet.alone("lon").await;
    let stranger = stranger();
    let first = fleet.answers("lon", &stranger).await.boot;
    let askers = askers(&fleet, "lon").await;

    let line = fleet.inside("lon", "swap.sh").await.ok();
    assert!(
        line.starts_with("feather-work-green serves on port 8081 in place of feather-work-blue, image sha256:"),
        "{line}"
    );
    assert_eq!(fleet.inside("lon", NAMES).await.ok(), "feather-work-green\n");
    let second = fleet.answers("lon", &stranger).await.boot;
    assert_ne!(first, second, "another process answers");

    let (one, other) = tokio::join!(fleet.inside("lon", "swap.sh"), fleet.inside("lon", "swap.sh"));
    let (done, refused) = if one.code == 0 { (one, other) } else { (other, one) };
    assert!(done.code == 0 && refused.code == 1 && refused.stdout.is_empty(), "{done:?} {refused:?}");
    assert!(refused.stderr.contains("another swap of the admin container"), "{refused:?}");
    let third = fleet.answers("lon", &stranger).await.boot;

    fleet.use_image("lon", "unhealthy").await;
    let failed = fleet.inside("lon", "swap.sh feather-work:unhealthy").await;
    assert!(failed.code == 1 && failed.stdout.is_empty(), "{failed:?}");
    let told = ["did not answer its health check", "listening", "feather-work-blue serves as before"];
    assert!(told.iter().all(|words| failed.stderr.contains(words)), "{failed:?}");

    // Its agent dies while the new one is being proved.
    let killed = async {
        until("the new one runs", async || {
            let names = fleet.inside("lon", NAMES).await.ok();
            if names.contains("green") { Ok(()) } else { Err(names) }
        })
        .await;
        fleet.kill_agent("lon").await;
    };
    let (cut, ()) = tokio::join!(fleet.inside("lon", "swap.sh feather-work:unhealthy"), killed);
    assert!(cut.code == 3 && cut.stderr.starts_with("unreachable: "), "{cut:?}");
    until("nothing is left of it", async || {
        let names = fleet.inside("lon", NAMES).await.ok();
        if names == "feather-work-blue\n" { Ok(()) } else { Err(names) }
    })
    .await;
    assert_eq!(fleet.answers("lon", &stranger).await.boot, third, "the old one served all the time");
    nobody_was_refused(askers).await;
    fleet.finish().await;
}
