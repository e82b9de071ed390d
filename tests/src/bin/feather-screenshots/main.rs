//! `make screenshots`: the web page of a fleet in this process, in a real browser. Logs in as a person does, sees what is said, waits for
//! what changes by itself, and keeps pictures. Fails when the page does not do what it should, or the browser complains of it.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program for people")]
#![allow(clippy::disallowed_methods, reason = "the fleet is shown at the time of the picture")]

use std::{path::PathBuf, process::ExitCode, sync::Arc};

use anyhow::{Context as _, ensure};
use feather_controller::dns::memory::Memory;
use feather_proto::pb::controller::v1::{self as pb, user_service_client::UserServiceClient};
use feather_tests::{
    Fleet,
    fleet::{request_id, settings},
    wait::until,
};

use browser::Browser;

mod browser;

const SERVERS: [&str; 5] = ["nyc", "fra", "sgp", "lon", "syd"];
const TENANTS: [(&str, &str); 14] = [
    ("alice", "nyc"),
    ("bob", "nyc"),
    ("carol", "nyc"),
    ("dave", "nyc"),
    ("erin", "nyc"),
    ("frank", "fra"),
    ("grace", "fra"),
    ("heidi", "fra"),
    ("ivan", "lon"),
    ("judy", "lon"),
    ("mallory", "sgp"),
    ("niaj", "sgp"),
    ("olivia", "sgp"),
    ("peggy", "syd"),
];

#[tokio::main]
async fn main() -> ExitCode {
    let folder = PathBuf::from(std::env::args_os().nth(1).unwrap_or_else(|| "docs".into()));
    match show(&folder).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn show(folder: &std::path::Path) -> anyhow::Result<()> {
    let mut fleet = Box::pin(populated()).await;
    let base = format!("http://{}", fleet.http_address());
    let made = UserServiceClient::new(fleet.admin()).create_web_token(pb::CreateWebTokenRequest::default()).await?;
    let browser = Browser::start().await?;
    browser.window(1240, 980).await?;
    browser.go(&format!("{base}/")).await?;
    ensure!(browser.text("body").await?.contains("Token"), "a stranger is not asked for a token");
    browser.type_into("#token", "feather-web-nonsense").await?;
    browser.click("button").await?;
    ensure!(browser.text(".problem").await?.contains("unknown"), "a bad token is not refused in words");
    browser.type_into("#token", &made.into_inner().token).await?;
    browser.click("button").await?;
    let shown = browser.text("body").await?;
    for said in SERVERS.iter().chain(TENANTS.iter().map(|(name, _)| name)).chain(&["cordoned", "ingress", "moves"]) {
        ensure!(shown.contains(said), "{said} is not on the page:\n{shown}");
    }
    changes_come_by_themselves(&mut fleet, &browser).await?;
    browser.picture(&folder.join("page-light.png"), false).await?;
    browser.picture(&folder.join("page-dark.png"), true).await?;
    without_a_script(&browser).await?;
    revocation_ends_it(&fleet, &browser).await?;
    let complaints = browser.complaints().await?;
    ensure!(complaints.is_empty(), "the browser complains: {complaints:#?}");
    println!("the page is as it should be; pictures are in {}", folder.display());
    Ok(())
}

/// Some servers, tenants, moves, and what else there is to see.
async fn populated() -> Fleet {
    let addresses: Vec<_> = (1..).map(|host| format!("203.0.113.{host}")).take(SERVERS.len()).collect();
    let servers: Vec<_> = SERVERS.into_iter().zip(addresses.iter().map(String::as_str)).collect();
    let fleet = Fleet::start_in((Arc::new(Memory::new("inceptel.ai")), None), &servers, settings()).await;
    for (name, server) in TENANTS {
        fleet.add(name, server).await;
    }
    for (name, to) in [
        ("alice", "fra"),
        ("bob", "lon"),
        ("alice", "nyc"),
        ("grace", "sgp"),
        ("ivan", "nyc"),
        ("grace", "fra"),
        ("bob", "nyc"),
    ] {
        fleet.migrate(name, to).await;
    }
    let mut servers = fleet.server_service();
    let cordon = pb::CordonServerRequest { server: "syd".into(), cordoned: true, dry_run: false };
    servers.cordon_server(cordon).await.expect("syd is cordoned");
    let stop = pb::StopTenantRequest { request_id: request_id(), tenant: "dave".into() };
    let begun = fleet.tenants().stop_tenant(stop).await.expect("dave stops").into_inner();
    fleet.outcome(&begun.operation.expect("an operation").id).await;
    fleet
}

/// What happens while somebody looks is seen without a reload.
async fn changes_come_by_themselves(fleet: &mut Fleet, browser: &Browser) -> anyhow::Result<()> {
    browser.run("window.stayed = true; return true").await?;
    fleet.add("quentin", "lon").await;
    fleet.kill_agent("sgp");
    slowly(fleet).await?;
    until("the page shows who came, who fell silent and who moves", async || {
        let shown = browser.text("body").await.map_err(|error| error.to_string())?;
        let missing: Vec<_> = ["quentin", "unreachable", "migrate erin", "KiB/s", " left"]
            .into_iter()
            .filter(|said| !shown.contains(said))
            .collect();
        if missing.is_empty() { Ok(()) } else { Err(format!("{missing:?}")) }
    })
    .await;
    let stayed = browser.run("return window.stayed === true").await?;
    ensure!(stayed == true, "the page was loaded anew instead of brought up to date");
    Ok(())
}

/// A move that takes long enough to be looked at.
async fn slowly(fleet: &Fleet) -> anyhow::Result<()> {
    let mut state = 7_u32;
    let photos: Vec<u8> = std::iter::repeat_with(|| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        state.to_be_bytes()[0]
    })
    .take(12 << 20)
    .collect();
    std::fs::write(fleet.volume("nyc", "erin").join("photos"), photos)?;
    let request = pb::MigrateTenantRequest {
        request_id: request_id(),
        tenant: "erin".into(),
        server: "fra".into(),
        bytes_per_second_max: 256 << 10,
        ..Default::default()
    };
    fleet.tenants().migrate_tenant(request).await.context("erin moves")?;
    Ok(())
}

/// The same content comes in the page itself.
async fn without_a_script(browser: &Browser) -> anyhow::Result<()> {
    let plain = browser
        .run_to_the_end("const done = arguments[0]; fetch('/').then((answer) => answer.text()).then(done)")
        .await?;
    let plain = plain.as_str().unwrap_or_default();
    ensure!(plain.contains("quentin") && plain.contains("unreachable"), "the page is empty without its script");
    Ok(())
}

async fn revocation_ends_it(fleet: &Fleet, browser: &Browser) -> anyhow::Result<()> {
    let mut users = UserServiceClient::new(fleet.admin());
    let another = fleet.identity(feather_proto::tls::Role::Admin, "ada");
    let mut ada = UserServiceClient::new(fleet.channel(another));
    ada.list_users(pb::ListUsersRequest {}).await?;
    users.revoke_user(pb::RevokeUserRequest { name: "admin".into(), unseen: false }).await?;
    until("whoever is revoked is put out", async || {
        let shown = browser.text("body").await.map_err(|error| error.to_string())?;
        if shown.contains("Token") { Ok(()) } else { Err(shown.chars().take(80).collect::<String>()) }
    })
    .await;
    Ok(())
}
