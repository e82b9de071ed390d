use std::sync::Arc;

use futures::StreamExt;

use super::{Behaviour, Fake, Process, Processes, Recorder, Verb};
use crate::runtime::{ContainerSpec, Error, Reach, Runtime, contract};

const IMAGE: &str = "localhost/feather-work:latest";

fn spec(name: &str, port: u16) -> ContainerSpec {
    ContainerSpec {
        name: name.to_owned(),
        image: IMAGE.to_owned(),
        host_port: port,
        reach: Reach::Published,
        volume: name.to_owned(),
        environment: [("FEATHER_PASSWORD".to_owned(), "x7k9m2".to_owned())].into(),
        dns: Vec::new(),
        labels: [("feather.generation".to_owned(), "3".to_owned())].into(),
        limits: Default::default(),
    }
}

async fn started(fake: &Fake, name: &str, port: u16) {
    fake.add_image(IMAGE, "one", Behaviour::Healthy);
    fake.ensure_volume(name).await.unwrap();
    fake.ensure_container(&spec(name, port)).await.unwrap();
    fake.start(name).await.unwrap();
}

#[tokio::test]
async fn the_fake_keeps_the_contract() {
    let directory = tempfile::tempdir().unwrap();
    let fake = Fake::new(directory.path());
    fake.add_image(IMAGE, "one", Behaviour::HealthyAfterPolls(2));
    let subject = contract::Subject {
        runtime: Arc::new(fake),
        image: IMAGE.to_owned(),
        prefix: "feather-user-".to_owned(),
        ports: [9001, 9002],
        patience: std::time::Duration::from_secs(10),
    };
    contract::all(&subject).await;
}

#[tokio::test]
async fn a_refused_call_does_nothing_and_a_lost_reply_does_everything() {
    let directory = tempfile::tempdir().unwrap();
    let fake = Fake::new(directory.path());
    started(&fake, "a", 1).await;
    fake.fail_next(Verb::Stop, 1);
    assert!(matches!(fake.stop("a", std::time::Duration::ZERO).await, Err(Error::Refused { .. })));
    assert!(fake.listening(1));
    fake.lose_reply_next(Verb::Stop);
    assert!(matches!(fake.stop("a", std::time::Duration::ZERO).await, Err(Error::Unreachable(_))));
    assert!(!fake.listening(1));
    fake.stop("a", std::time::Duration::ZERO).await.unwrap();
    assert_eq!(fake.calls(Verb::Stop), 3);
}

#[tokio::test]
async fn an_unreachable_engine_says_nothing_and_its_containers_run_on() {
    let directory = tempfile::tempdir().unwrap();
    let fake = Fake::new(directory.path());
    started(&fake, "a", 1).await;
    fake.unreachable(true);
    assert!(matches!(fake.container("a").await, Err(Error::Unreachable(_))));
    assert!(fake.healthy(1, std::time::Duration::from_secs(1)).await);
    fake.unreachable(false);
    assert!(fake.container("a").await.unwrap().is_some());
}

#[tokio::test]
async fn a_reboot_ends_processes_and_keeps_everything_else() {
    let directory = tempfile::tempdir().unwrap();
    let recorder = Arc::new(Recorder::default());
    let fake = Fake::new(directory.path()).observed_by("nyc", Arc::<Recorder>::clone(&recorder));
    started(&fake, "a", 1).await;
    assert_eq!(recorder.running("a"), ["nyc"]);
    fake.reboot();
    assert!(recorder.running("a").is_empty());
    assert_eq!(fake.volumes("").await.unwrap(), ["a"]);
    fake.start("a").await.unwrap();
    assert_eq!(recorder.starts("a").len(), 2);
    let log = std::fs::read_to_string(fake.volume_path("a").join(super::processes::STARTS_FILE)).unwrap();
    assert_eq!(log.lines().count(), 2);
    assert!(recorder.violations().is_empty());
}

#[test]
fn the_recorder_notices_two_running_copies() {
    let directory = tempfile::tempdir().unwrap();
    let recorder = Recorder::default();
    let process = |server: &str| Process {
        server: server.to_owned(),
        container: "a".to_owned(),
        volume: directory.path().to_owned(),
        port: 1,
        labels: [].into(),
    };
    recorder.started(&process("nyc"));
    recorder.ended(&process("nyc"));
    recorder.started(&process("fra"));
    assert!(recorder.violations().is_empty());
    recorder.started(&process("nyc"));
    assert_eq!(recorder.violations().len(), 1);
}

#[tokio::test]
async fn behaviours_show_in_health_and_state() {
    let directory = tempfile::tempdir().unwrap();
    let fake = Fake::new(directory.path());
    let limit = std::time::Duration::from_secs(1);
    fake.ensure_volume("a").await.unwrap();
    for (behaviour, answers) in [
        (Behaviour::Healthy, [true, true, true]),
        (Behaviour::HealthyAfterPolls(2), [false, false, true]),
        (Behaviour::NeverHealthy, [false; 3]),
        (Behaviour::Exits, [false; 3]),
    ] {
        fake.add_image(IMAGE, "one", behaviour);
        fake.remove_container("a").await.unwrap();
        fake.ensure_container(&spec("a", 1)).await.unwrap();
        fake.start("a").await.unwrap();
        for answer in answers {
            assert_eq!(fake.healthy(1, limit).await, answer, "{behaviour:?}");
        }
    }
}

#[tokio::test]
async fn whoever_follows_output_sees_new_lines_and_the_end() {
    let directory = tempfile::tempdir().unwrap();
    let fake = Fake::new(directory.path());
    started(&fake, "a", 1).await;
    let mut lines = fake.logs("a", 10, true).await.unwrap();
    assert_eq!(lines.next().await.unwrap().unwrap().text, "listening on 8080");
    fake.write_log("a", "hello", true);
    assert_eq!(lines.next().await.unwrap().unwrap().text, "hello");
    fake.crash("a");
    assert!(lines.next().await.is_none());
}
