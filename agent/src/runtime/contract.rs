//! What every engine must do, as tests that run on the fake and on Podman.
//!
//! Each function asserts one promise of [`Runtime`](super::Runtime) and leaves nothing behind. They panic like any test; they
//! are public only because the tests of the real engine live in another package.
#![allow(clippy::unwrap_used, reason = "these are tests, exported")]

use std::{collections::BTreeMap, io, sync::Arc, time::Duration};

use bytes::Bytes;
use feather_proto::{limits::Limits, model::ContainerState};
use futures::{StreamExt, TryStreamExt, stream};

use super::{Container, ContainerSpec, Error, Home, Network, Reach, Runtime};

/// An engine to test, and what the tests may use of it.
#[derive(Clone)]
pub struct Subject {
    /// The engine.
    pub runtime: Arc<dyn Runtime>,
    /// Reference, with registry and tag, of an image in storage whose containers become healthy.
    pub image: String,
    /// Names of all containers and volumes of the tests begin with it; nothing else does.
    pub prefix: String,
    /// Two loopback ports that nothing listens on.
    pub ports: [u16; 2],
    /// How long a container may take to become healthy.
    pub patience: Duration,
}

impl Subject {
    fn name(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }

    fn spec(&self, name: &str) -> ContainerSpec {
        ContainerSpec {
            name: self.name(name),
            image: self.image.clone(),
            host_port: self.ports[0],
            reach: Reach::Published,
            volume: self.name(name),
            environment: BTreeMap::from([("FEATHER_PASSWORD".to_owned(), "x7k9m2".to_owned())]),
            dns: vec!["192.0.2.53".to_owned()],
            labels: BTreeMap::from([("feather.generation".to_owned(), "1".to_owned())]),
            limits: Limits::default(),
        }
    }

    async fn created(&self, name: &str) -> ContainerSpec {
        let spec = self.spec(name);
        self.runtime.ensure_volume(&spec.volume).await.unwrap();
        self.runtime.ensure_container(&spec).await.unwrap();
        spec
    }

    async fn seen(&self, name: &str) -> Container {
        self.runtime.container(name).await.unwrap().unwrap()
    }

    async fn becomes_healthy(&self, port: u16) -> bool {
        let poll = async {
            while !self.runtime.healthy(port, Duration::from_secs(1)).await {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(self.patience, poll).await.is_ok()
    }

    async fn clean(&self, specs: &[&ContainerSpec]) {
        for spec in specs {
            self.runtime.remove_container(&spec.name).await.unwrap();
        }
        for spec in specs {
            self.runtime.remove_volume(&spec.volume).await.unwrap();
        }
    }
}

/// Runs all of them, one after the other.
pub async fn all(subject: &Subject) {
    a_container_lives_through_its_states(subject).await;
    ensuring_what_is_so_changes_nothing(subject).await;
    another_specification_makes_another_container(subject).await;
    what_a_container_was_made_of_can_be_read_back(subject).await;
    absence_is_none_and_removing_it_succeeds(subject).await;
    a_missing_volume_or_image_is_refused(subject).await;
    a_taken_port_is_a_conflict(subject).await;
    a_container_in_the_births_network_listens_where_it_is_told(subject).await;
    stopping_and_removing_end_the_process(subject).await;
    limits_take_hold_without_a_restart(subject).await;
    volumes_keep_their_data(subject).await;
    a_volume_with_data_keeps_its_root(subject).await;
    output_is_kept_and_followed(subject).await;
    images_are_found_exported_and_loaded(subject).await;
    a_bad_archive_is_refused(subject).await;
    capacity_is_plausible(subject).await;
}

/// Created, running and healthy, exited, running again.
pub async fn a_container_lives_through_its_states(subject: &Subject) {
    let runtime = &subject.runtime;
    let spec = subject.created("life").await;
    let created = subject.seen(&spec.name).await;
    assert_eq!((created.state, created.host_port), (ContainerState::Created, Some(spec.host_port)));
    assert_eq!(created.image_digest, runtime.image(&subject.image).await.unwrap().unwrap().digest);
    assert_eq!(created.labels.get("feather.generation").map(String::as_str), Some("1"));
    assert!(!runtime.healthy(spec.host_port, Duration::from_secs(1)).await);
    for _ in 0..2 {
        runtime.start(&spec.name).await.unwrap();
        assert_eq!(subject.seen(&spec.name).await.state, ContainerState::Running);
        assert!(subject.becomes_healthy(spec.host_port).await);
        runtime.stop(&spec.name, Duration::from_secs(5)).await.unwrap();
        assert_eq!(subject.seen(&spec.name).await.state, ContainerState::Exited);
        assert!(!runtime.healthy(spec.host_port, Duration::from_secs(1)).await);
    }
    subject.clean(&[&spec]).await;
}

/// A running container is neither restarted nor made anew.
pub async fn ensuring_what_is_so_changes_nothing(subject: &Subject) {
    let runtime = &subject.runtime;
    let spec = subject.created("same").await;
    runtime.start(&spec.name).await.unwrap();
    assert!(subject.becomes_healthy(spec.host_port).await);
    runtime.ensure_container(&spec).await.unwrap();
    runtime.start(&spec.name).await.unwrap();
    assert!(!runtime.ensure_volume(&spec.volume).await.unwrap().1);
    assert_eq!(subject.seen(&spec.name).await.state, ContainerState::Running);
    assert!(runtime.healthy(spec.host_port, Duration::from_secs(5)).await);
    subject.clean(&[&spec]).await;
}

/// A changed password, port or label replaces the container, and the volume stays.
pub async fn another_specification_makes_another_container(subject: &Subject) {
    let runtime = &subject.runtime;
    let spec = subject.created("other").await;
    runtime.start(&spec.name).await.unwrap();
    let path = runtime.volume(&spec.volume).await.unwrap().unwrap();
    std::fs::write(path.join("kept"), "data").unwrap();
    let mut changed = spec.clone();
    changed.environment.insert("FEATHER_PASSWORD".to_owned(), "changed".to_owned());
    changed.host_port = subject.ports[1];
    runtime.ensure_container(&changed).await.unwrap();
    let seen = subject.seen(&spec.name).await;
    assert_eq!((seen.state, seen.host_port), (ContainerState::Created, Some(subject.ports[1])));
    assert_eq!(std::fs::read_to_string(path.join("kept")).unwrap(), "data");
    subject.clean(&[&changed]).await;
}

/// All that somebody needs who takes over a container; its id stays while it runs and ends.
pub async fn what_a_container_was_made_of_can_be_read_back(subject: &Subject) {
    let runtime = &subject.runtime;
    let spec = subject.created("read").await;
    let made = runtime.inspect(&spec.name).await.unwrap().unwrap();
    assert_eq!(made.container, subject.seen(&spec.name).await);
    let image = runtime.image(&subject.image).await.unwrap().unwrap();
    assert_eq!((&made.image, &made.container.image_digest), (&image.reference, &image.digest));
    assert_eq!(made.home, Some(Home::Volume(spec.volume.clone())));
    assert_eq!(made.other_mounts, Vec::<String>::new());
    assert_eq!(made.network, Network::Published { port: spec.host_port, loopback: true });
    assert_eq!(made.environment, spec.environment);
    assert!(!format!("{made:?}").contains("x7k9m2"));
    runtime.start(&spec.name).await.unwrap();
    runtime.stop(&spec.name, Duration::from_secs(5)).await.unwrap();
    let stopped = runtime.inspect(&spec.name).await.unwrap().unwrap();
    assert_eq!((stopped.container.id, stopped.network), (made.container.id.clone(), made.network));
    let changed = ContainerSpec { host_port: subject.ports[1], ..spec };
    runtime.ensure_container(&changed).await.unwrap();
    assert_ne!(subject.seen(&changed.name).await.id, made.container.id);
    subject.clean(&[&changed]).await;
    assert_eq!(runtime.inspect(&changed.name).await.unwrap(), None);
}

/// A container is made with its limits; a running one gets others and loses them without its process noticing, and has them after its
/// next start when it is made sure of again.
pub async fn limits_take_hold_without_a_restart(subject: &Subject) {
    let runtime = &subject.runtime;
    let first = Limits { memory_bytes: Some(256 << 20), cpu_millis: Some(1500), pids: Some(300), revision: 0 };
    let spec = ContainerSpec { limits: first, ..subject.spec("limits") };
    runtime.ensure_volume(&spec.volume).await.unwrap();
    runtime.ensure_container(&spec).await.unwrap();
    assert_eq!(runtime.resources(&spec.name).await.unwrap(), None, "what does not run uses nothing");
    runtime.ensure_limits(&spec.name, &first).await.unwrap();
    runtime.start(&spec.name).await.unwrap();
    assert!(subject.becomes_healthy(spec.host_port).await);
    let used = runtime.resources(&spec.name).await.unwrap().unwrap();
    assert!(used.as_limited(&first) && used.memory_bytes > 0 && used.pids > 0, "{used:?}");
    let id = subject.seen(&spec.name).await.id;
    // A process that was started again would be healthy only after a while.
    for limits in [
        Limits { memory_bytes: Some(128 << 20), ..first },
        Limits { cpu_millis: Some(500), pids: None, ..first },
        Limits::default(),
        Limits { memory_bytes: Some(192 << 20), ..Limits::default() },
    ] {
        for _ in 0..2 {
            runtime.ensure_limits(&spec.name, &limits).await.unwrap();
            let now = runtime.resources(&spec.name).await.unwrap().unwrap();
            assert!(now.as_limited(&limits), "{limits:?} {now:?}");
        }
        assert!(runtime.healthy(spec.host_port, Duration::from_secs(5)).await, "{limits:?}");
        assert_eq!(subject.seen(&spec.name).await.id, id);
    }
    runtime.stop(&spec.name, Duration::from_secs(5)).await.unwrap();
    assert_eq!(runtime.resources(&spec.name).await.unwrap(), None);
    let last = ContainerSpec { limits: Limits { memory_bytes: Some(192 << 20), ..Limits::default() }, ..spec };
    runtime.ensure_container(&last).await.unwrap();
    runtime.start(&last.name).await.unwrap();
    let again = runtime.resources(&last.name).await.unwrap().unwrap();
    assert!(again.as_limited(&last.limits), "{again:?}");
    subject.clean(&[&last]).await;
    assert_eq!(runtime.resources(&last.name).await.unwrap(), None);
}

/// Nothing there: looking says so, ending and removing succeed, starting says what is missing.
pub async fn absence_is_none_and_removing_it_succeeds(subject: &Subject) {
    let (runtime, name) = (&subject.runtime, subject.name("absent"));
    assert_eq!(runtime.container(&name).await.unwrap(), None);
    assert_eq!(runtime.volume(&name).await.unwrap(), None);
    assert_eq!(runtime.image("localhost/feather-absent:latest").await.unwrap(), None);
    runtime.stop(&name, Duration::from_secs(1)).await.unwrap();
    runtime.remove_container(&name).await.unwrap();
    runtime.remove_volume(&name).await.unwrap();
    assert!(matches!(runtime.start(&name).await, Err(Error::ContainerMissing(_))));
    assert!(matches!(runtime.logs(&name, 1, false).await.err(), Some(Error::ContainerMissing(_))));
    assert!(matches!(
        runtime.export_image("localhost/feather-absent:latest").await.err(),
        Some(Error::ImageMissing(_))
    ));
    assert!(runtime.containers(&subject.prefix).await.unwrap().is_empty());
    assert!(runtime.volumes(&subject.prefix).await.unwrap().is_empty());
}

/// No empty volume is made up for a container, and an old container outlives a missing image.
pub async fn a_missing_volume_or_image_is_refused(subject: &Subject) {
    let runtime = &subject.runtime;
    let spec = subject.spec("missing");
    assert!(matches!(runtime.ensure_container(&spec).await, Err(Error::Refused { .. })));
    assert_eq!(runtime.volume(&spec.volume).await.unwrap(), None);
    subject.created("missing").await;
    let elsewhere = ContainerSpec { image: "localhost/feather-absent:latest".to_owned(), ..spec.clone() };
    assert!(matches!(runtime.ensure_container(&elsewhere).await, Err(Error::ImageMissing(_))));
    assert!(runtime.container(&spec.name).await.unwrap().is_some());
    subject.clean(&[&spec]).await;
}

/// Two containers may be made for one port; only one of them runs.
pub async fn a_taken_port_is_a_conflict(subject: &Subject) {
    let runtime = &subject.runtime;
    let (first, second) = (subject.created("first").await, subject.created("second").await);
    runtime.start(&first.name).await.unwrap();
    assert!(matches!(runtime.start(&second.name).await, Err(Error::Conflict(_))));
    assert_ne!(subject.seen(&second.name).await.state, ContainerState::Running);
    runtime.stop(&first.name, Duration::from_secs(5)).await.unwrap();
    runtime.start(&second.name).await.unwrap();
    assert!(subject.becomes_healthy(second.host_port).await);
    let names: Vec<_> = runtime.containers(&subject.prefix).await.unwrap().into_iter().map(|one| one.name).collect();
    assert_eq!(names, [first.name.clone(), second.name.clone()]);
    subject.clean(&[&first, &second]).await;
}

/// On the loopback of the birth itself, with a directory for a home; a port that somebody else has is seen beforehand.
pub async fn a_container_in_the_births_network_listens_where_it_is_told(subject: &Subject) {
    let runtime = &subject.runtime;
    let (home, _) = runtime.ensure_volume(&subject.name("home")).await.unwrap();
    let host = |name: &str, port: u16| ContainerSpec {
        reach: Reach::Host,
        host_port: port,
        volume: home.to_str().unwrap().to_owned(),
        ..subject.spec(name)
    };
    let (first, second) = (host("host-a", subject.ports[0]), host("host-b", subject.ports[1]));
    for spec in [&first, &second] {
        runtime.ensure_container(spec).await.unwrap();
        runtime.ensure_container(spec).await.unwrap();
        let created = subject.seen(&spec.name).await;
        assert_eq!((created.state, created.host_port), (ContainerState::Created, Some(spec.host_port)));
        runtime.start(&spec.name).await.unwrap();
        assert!(subject.becomes_healthy(spec.host_port).await);
    }
    let taken = host("host-c", subject.ports[0]);
    runtime.ensure_container(&taken).await.unwrap();
    assert!(matches!(runtime.start(&taken.name).await, Err(Error::Conflict(_))));
    assert_ne!(subject.seen(&taken.name).await.state, ContainerState::Running);
    assert!(home.join("starts.log").exists(), "both live in the directory");
    runtime.stop(&first.name, Duration::from_secs(5)).await.unwrap();
    assert!(!runtime.healthy(first.host_port, Duration::from_secs(1)).await);
    assert!(runtime.healthy(second.host_port, Duration::from_secs(5)).await);
    for spec in [&first, &second, &taken] {
        runtime.remove_container(&spec.name).await.unwrap();
    }
    let nowhere = ContainerSpec { volume: "/nonexistent/home".to_owned(), ..host("host-d", subject.ports[0]) };
    assert!(matches!(runtime.ensure_container(&nowhere).await, Err(Error::Refused { .. })));
    runtime.remove_volume(&subject.name("home")).await.unwrap();
}

/// With no grace at all, and without a stop before the removal.
pub async fn stopping_and_removing_end_the_process(subject: &Subject) {
    let runtime = &subject.runtime;
    let spec = subject.created("end").await;
    runtime.start(&spec.name).await.unwrap();
    runtime.stop(&spec.name, Duration::ZERO).await.unwrap();
    assert_eq!(subject.seen(&spec.name).await.state, ContainerState::Exited);
    runtime.stop(&spec.name, Duration::ZERO).await.unwrap();
    runtime.start(&spec.name).await.unwrap();
    runtime.remove_container(&spec.name).await.unwrap();
    assert_eq!(runtime.container(&spec.name).await.unwrap(), None);
    assert!(!runtime.healthy(spec.host_port, Duration::from_secs(1)).await);
    runtime.remove_container(&spec.name).await.unwrap();
    subject.clean(&[&spec]).await;
}

/// Made once, found again, refused to go while a container uses them.
pub async fn volumes_keep_their_data(subject: &Subject) {
    let runtime = &subject.runtime;
    let spec = subject.spec("data");
    let (path, made) = runtime.ensure_volume(&spec.volume).await.unwrap();
    assert!(made && path.is_dir());
    std::fs::write(path.join("file"), "data").unwrap();
    assert_eq!(runtime.ensure_volume(&spec.volume).await.unwrap(), (path.clone(), false));
    assert_eq!(runtime.volume(&spec.volume).await.unwrap(), Some(path.clone()));
    assert_eq!(runtime.volumes(&subject.prefix).await.unwrap(), std::slice::from_ref(&spec.volume));
    runtime.ensure_container(&spec).await.unwrap();
    assert!(matches!(runtime.remove_volume(&spec.volume).await, Err(Error::Conflict(_))));
    runtime.remove_container(&spec.name).await.unwrap();
    assert_eq!(std::fs::read_to_string(path.join("file")).unwrap(), "data");
    runtime.remove_volume(&spec.volume).await.unwrap();
    assert!(!path.exists());
}

/// Owner, mode and time of the root of a volume with data are the tenant's, also at the first start on a server.
pub async fn a_volume_with_data_keeps_its_root(subject: &Subject) {
    use std::os::unix::fs::{MetadataExt, PermissionsExt};
    let runtime = &subject.runtime;
    let spec = subject.spec("root");
    let (path, _) = runtime.ensure_volume(&spec.volume).await.unwrap();
    std::fs::create_dir(path.join("directory")).unwrap();
    std::os::unix::fs::chown(&path, Some(4321), Some(4322)).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o2751)).unwrap();
    std::fs::File::open(&path)
        .unwrap()
        .set_modified(std::time::UNIX_EPOCH + Duration::from_secs(1_000_000_000))
        .unwrap();
    runtime.ensure_container(&spec).await.unwrap();
    runtime.start(&spec.name).await.unwrap();
    let root = std::fs::metadata(&path).unwrap();
    assert_eq!((root.uid(), root.gid(), root.mode() & 0o7777), (4321, 4322, 0o2751));
    subject.clean(&[&spec]).await;
}

/// The last lines stay readable after the end; following ends with the process.
pub async fn output_is_kept_and_followed(subject: &Subject) {
    let runtime = &subject.runtime;
    let spec = subject.created("output").await;
    runtime.start(&spec.name).await.unwrap();
    assert!(subject.becomes_healthy(spec.host_port).await);
    let followed = runtime.logs(&spec.name, 100, true).await.unwrap();
    runtime.stop(&spec.name, Duration::from_secs(5)).await.unwrap();
    let followed: Vec<_> = tokio::time::timeout(subject.patience, followed.try_collect()).await.unwrap().unwrap();
    let kept: Vec<_> = runtime.logs(&spec.name, 100, false).await.unwrap().try_collect().await.unwrap();
    assert!(!kept.is_empty());
    assert!(kept.iter().all(|line| !line.text.ends_with('\n')));
    assert!(followed.len() <= kept.len());
    let last: Vec<_> = runtime.logs(&spec.name, 1, false).await.unwrap().try_collect().await.unwrap();
    assert_eq!(last.as_slice(), &kept[kept.len() - 1..]);
    subject.clean(&[&spec]).await;
}

/// By reference and by digest; what was exported loads again as the same image.
pub async fn images_are_found_exported_and_loaded(subject: &Subject) {
    let runtime = &subject.runtime;
    let image = runtime.image(&subject.image).await.unwrap().unwrap();
    assert!(image.digest.starts_with("sha256:") && image.size_bytes > 0);
    assert_eq!(image.reference, subject.image);
    assert_eq!(runtime.image(&image.digest).await.unwrap().unwrap().digest, image.digest);
    let all = runtime.images().await.unwrap();
    assert!(all.contains(&image) && all.is_sorted());
    for reference in [&image.reference, &image.digest] {
        let mut archive = runtime.export_image(reference).await.unwrap();
        let mut pieces = Vec::new();
        while let Some(piece) = archive.next().await {
            let piece = piece.unwrap();
            assert!(!piece.is_empty() && piece.len() <= 1 << 20);
            pieces.push(Ok(piece));
        }
        let loaded = runtime.load_image(stream::iter(pieces).boxed()).await.unwrap();
        let loaded: Vec<_> = loaded.iter().map(|image| (&image.reference, &image.digest)).collect();
        assert_eq!(loaded, [(&image.reference, &image.digest)]);
    }
}

/// Not an image, and an image that breaks off.
pub async fn a_bad_archive_is_refused(subject: &Subject) {
    let runtime = &subject.runtime;
    let nonsense = stream::iter([Ok(Bytes::from_static(b"not an image"))]).boxed();
    assert!(matches!(runtime.load_image(nonsense).await, Err(Error::BadArchive(_))));
    let broken = stream::iter([Ok(Bytes::from_static(b"{")), Err(io::Error::other("the sender went away"))]).boxed();
    assert!(matches!(runtime.load_image(broken).await, Err(Error::BadArchive(_))));
}

/// Something is there, and not more is free than there is.
pub async fn capacity_is_plausible(subject: &Subject) {
    let capacity = subject.runtime.capacity().await.unwrap();
    assert!(capacity.memory_free_bytes > 0 && capacity.memory_free_bytes <= capacity.memory_total_bytes);
    assert!(capacity.disk_free_bytes > 0 && capacity.disk_free_bytes <= capacity.disk_total_bytes);
}
