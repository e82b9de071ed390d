//! What the engine's answers mean in our words.

use feather_proto::model::ContainerState;

use super::{
    CONTAINER_PORT, HOME,
    label::SPEC_LABEL,
    libpod::{Listed, Made, MadeHostConfig, Mounted},
};
use crate::runtime::{Container, Error, Home, Inspected, Network};

/// Name of the label that names a container's volume.
pub(super) const VOLUME_LABEL: &str = "feather.volume";

/// Name of the label that names the port of a container in the network of the birth.
pub(super) const PORT_LABEL: &str = "feather.port";

/// The port at which a container in the network of the birth listens by itself.
pub(super) fn own_port(container: &Container) -> Option<u16> {
    container.labels.get(PORT_LABEL)?.parse().ok()
}

/// A listed container; an error for a state that this version of Podman should not have, because guessing could mean two
/// running copies.
pub(super) fn container(listed: Listed) -> Result<Container, Error> {
    let name = listed.names.into_iter().next().unwrap_or_default();
    let state = match listed.state.as_str() {
        "created" | "configured" | "initialized" => ContainerState::Created,
        // Its process exists, even when it does not get on.
        "running" | "paused" | "stopping" | "restarting" => ContainerState::Running,
        "exited" | "stopped" | "removing" | "dead" => ContainerState::Exited,
        other => {
            return Err(Error::Refused {
                attempt: format!("say how {name} is"),
                message: format!("its state {other:?} is not known to this agent"),
            });
        }
    };
    let published = listed.ports.into_iter().flatten().map(|port| port.host_port).find(|port| *port != 0);
    let container = Container {
        state,
        id: listed.id,
        image_digest: digest(&listed.image_id),
        host_port: published,
        labels: listed.labels.unwrap_or_default(),
        name: name.trim_start_matches('/').to_owned(),
    };
    Ok(Container { host_port: published.or_else(|| own_port(&container)), ..container })
}

/// What the engine itself puts into every environment.
const ENGINE_VARIABLES: [&str; 5] = ["PATH", "HOME", "HOSTNAME", "TERM", "container"];

/// A container with what it was made of. `image_environment` is what its image puts into it.
pub(super) fn inspected(container: Container, made: Made, image_environment: &[String]) -> Inspected {
    let variables = made.config.env.unwrap_or_default();
    let own = variables.iter().filter(|variable| !image_environment.contains(variable));
    let environment = own
        .filter_map(|variable| variable.split_once('='))
        .filter(|(name, _)| !ENGINE_VARIABLES.contains(name))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    let is_home = |mounted: &&Mounted| mounted.destination.trim_end_matches('/') == HOME;
    let home = made.mounts.iter().find(is_home).map(|mounted| match mounted.kind.as_str() {
        "volume" => Home::Volume(mounted.name.clone()),
        _ => Home::Directory(mounted.source.clone()),
    });
    let others = made.mounts.iter().filter(|mounted| !is_home(mounted));
    Inspected {
        container: without_own_labels(container),
        image: made.image_name,
        created: made.created,
        home,
        other_mounts: others.map(|mounted| mounted.destination.clone()).collect(),
        network: network(&made.host_config),
        environment,
    }
}

fn network(made: &MadeHostConfig) -> Network {
    if made.network_mode == "host" {
        return Network::Host;
    }
    let bindings = made.port_bindings.iter().flatten().filter(|(inside, _)| inside.as_str() == CONTAINER_PORT);
    let mut published = bindings.filter_map(|(_, bindings)| bindings.as_ref()).flatten().filter_map(|binding| {
        let loopback = binding.host_ip.starts_with("127.") || binding.host_ip == "localhost";
        Some(Network::Published { port: binding.host_port.parse().ok().filter(|port| *port > 0)?, loopback })
    });
    published.next().unwrap_or(Network::Closed)
}

/// Without the labels that are this file's own business.
pub(super) fn without_own_labels(mut container: Container) -> Container {
    container.labels.remove(SPEC_LABEL);
    container.labels.remove(VOLUME_LABEL);
    container.labels.remove(PORT_LABEL);
    container
}

/// What to call an image that was asked for in some way: its tag, when that was it, or the first that it has.
pub(super) fn reference(tags: Vec<String>, asked: &str) -> String {
    if tags.iter().any(|tag| tag == asked) {
        return asked.to_owned();
    }
    tags.into_iter().next().unwrap_or_else(|| asked.to_owned())
}

/// An image id with its algorithm, which one of the two APIs leaves out.
pub(super) fn digest(id: &str) -> String {
    if id.starts_with("sha256:") { id.to_owned() } else { format!("sha256:{id}") }
}

pub(super) fn size(bytes: Option<i64>) -> u64 {
    bytes.and_then(|bytes| u64::try_from(bytes).ok()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use feather_proto::model::ContainerState;

    use super::{container, inspected};
    use crate::runtime::{Home, Network, podman::libpod::Listed};

    fn listed(state: &str) -> Listed {
        serde_json::from_value(serde_json::json!({
            "Names": ["feather-user-alice"], "State": state, "ImageID": "ab", "Ports": [{"host_port": 9001}], "Pid": 7
        }))
        .unwrap()
    }

    #[test]
    fn what_a_container_was_made_of_is_read_without_what_image_and_engine_put_there() {
        let made = |host_config: serde_json::Value| {
            serde_json::from_value(serde_json::json!({
                "Created": "2026-01-02T03:04:05.678901234Z", "ImageName": "localhost/feather-work:latest",
                "Mounts": [
                    { "Type": "volume", "Name": "feather-user-alice", "Source": "/s/_data", "Destination": "/home/user" },
                    { "Type": "bind", "Source": "/srv/music", "Destination": "/music" },
                ],
                "Config": { "Env": ["PATH=/bin", "IMAGE=own", "FEATHER_PASSWORD=x7=k9", "TERM=xterm"] },
                "HostConfig": host_config,
            }))
            .unwrap()
        };
        let ports =
            |ip: &str| serde_json::json!({ "8080/tcp": [{ "HostIp": ip, "HostPort": "9001" }], "22/tcp": null });
        let seen = |host_config| {
            inspected(container(listed("running")).unwrap(), made(host_config), &["IMAGE=own".to_owned()])
        };
        let alice = seen(serde_json::json!({ "NetworkMode": "bridge", "PortBindings": ports("127.0.0.1") }));
        assert_eq!(alice.home, Some(Home::Volume("feather-user-alice".into())));
        assert_eq!(alice.other_mounts, ["/music"]);
        assert_eq!(alice.network, Network::Published { port: 9001, loopback: true });
        assert_eq!(alice.environment, [("FEATHER_PASSWORD".to_owned(), "x7=k9".to_owned())].into());
        assert!(!format!("{alice:?}").contains("x7=k9"));
        let open = seen(serde_json::json!({ "NetworkMode": "bridge", "PortBindings": ports("") }));
        assert_eq!(open.network, Network::Published { port: 9001, loopback: false });
        assert_eq!(seen(serde_json::json!({ "NetworkMode": "host" })).network, Network::Host);
        assert_eq!(seen(serde_json::json!({})).network, Network::Closed);
    }

    #[test]
    fn every_state_of_podman_is_known_and_others_are_not_guessed() {
        for (state, expected) in [
            ("configured", ContainerState::Created),
            ("running", ContainerState::Running),
            ("stopping", ContainerState::Running),
            ("stopped", ContainerState::Exited),
            ("exited", ContainerState::Exited),
        ] {
            assert_eq!(container(listed(state)).unwrap().state, expected, "{state}");
        }
        assert!(container(listed("levitating")).is_err());
        let one = container(listed("running")).unwrap();
        assert_eq!((one.host_port, one.image_digest.as_str()), (Some(9001), "sha256:ab"));
    }
}
