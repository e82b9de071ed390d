//! What the engine's answers mean in our words.

use feather_proto::model::ContainerState;

use super::{label::SPEC_LABEL, libpod::Listed};
use crate::runtime::{Container, Error};

/// Name of the label that names a container's volume.
pub(super) const VOLUME_LABEL: &str = "feather.volume";

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
    Ok(Container {
        state,
        image_digest: digest(&listed.image_id),
        host_port: listed.ports.into_iter().flatten().map(|port| port.host_port).find(|port| *port != 0),
        labels: listed.labels.unwrap_or_default(),
        name: name.trim_start_matches('/').to_owned(),
    })
}

/// Without the labels that are this file's own business.
pub(super) fn without_own_labels(mut container: Container) -> Container {
    container.labels.remove(SPEC_LABEL);
    container.labels.remove(VOLUME_LABEL);
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

    use super::container;
    use crate::runtime::podman::libpod::Listed;

    fn listed(state: &str) -> Listed {
        serde_json::from_value(serde_json::json!({
            "Names": ["feather-user-alice"], "State": state, "ImageID": "ab", "Ports": [{"host_port": 9001}], "Pid": 7
        }))
        .unwrap()
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
