//! What happens to one tenant is nothing that another one's users notice.

use std::path::Path;

use feather_tests::real::{Login, Real, Streams, Writer, journal_is_whole};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

#[tokio::test(flavor = "multi_thread")]
async fn one_tenant_comes_goes_and_moves_and_no_stream_of_another_is_cut_nor_a_newcomer_reset() {
    let fleet = Real::start(&["fra", "nyc"], &[]).await;
    let bob = fleet.add("bob", &["--server", "nyc"]).await;
    let streams = Streams::open(fleet.address("nyc"), &bob);
    // A connection for each line.
    let newcomers = Writer::start("newcomers", fleet.visit("nyc", &bob));
    for _ in 0..2 {
        fleet.add("alice", &["--server", "nyc"]).await;
        streams.go_on().await;
        for target in ["fra", "nyc"] {
            fleet.migrate("alice", target).await;
            streams.go_on().await;
        }
        fleet.featherctl(&["tenant", "remove", "alice", "--yes"]).await.ok();
        streams.go_on().await;
    }
    streams.close().await;
    let written = newcomers.stop().await;
    assert_eq!(written.refused, Vec::<String>::new());
    journal_is_whole(&fleet.answers("nyc", &bob).await.text, &written.acknowledged);
    fleet.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_arrives_while_it_is_sent_and_one_that_waits_to_be_asked_for_passes_the_gate() {
    let fleet = Real::start(&["fra", "nyc"], &[]).await;
    let login = fleet.add("alice", &["--server", "nyc"]).await;
    upload_in_two_halves(&fleet, &login).await;

    let host = format!("Host: {}", login.host);
    let file = login.header_file();
    let authorization = format!("@{}", file.path().display());
    let url = format!("http://{}/append", fleet.address("nyc"));
    let operation = fleet.begin(&["tenant", "migrate", "alice", "--to", "fra"]).await;
    let mut lines = Vec::new();
    loop {
        let line = format!("line-{}", lines.len());
        let mut arguments = vec!["--silent", "--show-error", "--fail", "--noproxy", "*", "--max-time", "60"];
        arguments.extend(["--header", "Expect: 100-continue", "--expect100-timeout", "60", "--data", &line]);
        arguments.extend(["--header", &host, "--header", &authorization, &url]);
        fleet.run("curl", &arguments).await.ok();
        lines.push(line);
        if !fleet.featherctl_json(&["operation", "show", &operation]).await["ended"].is_null() {
            break;
        }
    }
    assert!(fleet.ends(&operation).await);
    journal_is_whole(&fleet.answers("fra", &login).await.text, &lines);
    let log = fleet.keep_log("nyc").await;
    let released = log.lines().find(|line| line.contains("released the requests that waited"));
    assert!(released.is_some_and(|line| !line.contains("connections=0")), "none had to wait: {released:?}");
    fleet.finish().await;
}

/// The second half is sent only when the first one has been written by the tenant.
async fn upload_in_two_halves(fleet: &Real, login: &Login) {
    const HALF: usize = 4 << 20;
    let file = fleet.volume("nyc", "alice").await.join("upload");
    let head = format!(
        "PUT /files/upload HTTP/1.1\r\nHost: {}\r\nAuthorization: Bearer {}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        login.host,
        login.password,
        2 * HALF
    );
    let mut stream = TcpStream::connect((fleet.address("nyc"), 80)).await.unwrap();
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.write_all(&vec![b'a'; HALF]).await.unwrap();
    let size = |file: &Path| file.metadata().map_or(0, |metadata| metadata.len());
    feather_tests::wait::until("the first half is on disk", async || {
        // What is in the buffers on the way is less than this.
        if size(&file) >= HALF as u64 / 2 { Ok(()) } else { Err(size(&file)) }
    })
    .await;
    stream.write_all(&vec![b'b'; HALF]).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 201"), "{answer}");
    assert_eq!(size(&file), 2 * HALF as u64);
}
