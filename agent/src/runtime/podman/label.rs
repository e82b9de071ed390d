//! The label that tells whether a container was created from a specification.
//!
//! Labels can be read by anyone on the server, and a specification holds a short password: a plain or salted hash would let
//! the password be guessed offline. The hash is therefore keyed, and only root reads the key.

use crate::runtime::{ContainerSpec, Reach};

/// Name of the label.
pub(super) const SPEC_LABEL: &str = "feather.spec";

/// The label's value. Each part is preceded by its length, so that no two specifications run together.
pub(super) fn spec_hash(spec: &ContainerSpec, key: &[u8; 32]) -> String {
    let ContainerSpec { name, image, host_port, reach, volume, environment, dns, labels, limits } = spec;
    let mut hasher = blake3::Hasher::new_keyed(key);
    let mut part = |text: &str| {
        hasher.update(&u64::try_from(text.len()).unwrap_or(u64::MAX).to_le_bytes());
        hasher.update(text.as_bytes());
    };
    for text in [name, image, &host_port.to_string(), volume] {
        part(text);
    }
    for map in [environment, labels] {
        part(&map.len().to_string());
        for (name, value) in map {
            part(name);
            part(value);
        }
    }
    for server in dns {
        part(server);
    }
    // Behind the list of name servers, and only where it is not as it was before there was a choice: containers that run are
    // known by their old label.
    if *reach == Reach::Host {
        part("the network of the birth container");
    }
    // As above: a container without limits has the label that it had before there were any.
    for (name, value) in [
        ("memory", limits.memory_bytes),
        ("cpu", limits.cpu_millis.map(u64::from)),
        ("pids", limits.pids.map(u64::from)),
    ] {
        if let Some(value) = value {
            part(&format!("limit of {name}: {value}"));
        }
    }
    hasher.finalize().to_hex().to_string()
}

#[cfg(test)]
mod tests {
    use feather_proto::limits::Limits;

    use super::spec_hash;
    use crate::runtime::{ContainerSpec, Reach};

    fn spec() -> ContainerSpec {
        ContainerSpec {
            name: "a".into(),
            image: "b".into(),
            host_port: 1,
            reach: Reach::Published,
            volume: "c".into(),
            environment: [("K".to_owned(), "v".to_owned())].into(),
            dns: vec!["192.0.2.1".into()],
            labels: [("l".to_owned(), "m".to_owned())].into(),
            limits: Limits::default(),
        }
    }

    #[test]
    fn every_field_counts_and_so_does_the_key() {
        let base = spec();
        let text = |text: &str| text.to_owned();
        let others = [
            ContainerSpec { name: text("x"), ..base.clone() },
            ContainerSpec { image: text("x"), ..base.clone() },
            ContainerSpec { host_port: 2, ..base.clone() },
            ContainerSpec { reach: Reach::Host, ..base.clone() },
            ContainerSpec { volume: text("x"), ..base.clone() },
            ContainerSpec { environment: [(text("K"), text("w"))].into(), ..base.clone() },
            ContainerSpec { environment: [].into(), ..base.clone() },
            ContainerSpec { dns: vec![], ..base.clone() },
            ContainerSpec { labels: [(text("l"), text("n"))].into(), ..base.clone() },
            ContainerSpec { limits: Limits { memory_bytes: Some(1), ..Limits::default() }, ..base.clone() },
            ContainerSpec { limits: Limits { cpu_millis: Some(1), ..Limits::default() }, ..base.clone() },
            ContainerSpec { limits: Limits { pids: Some(1), ..Limits::default() }, ..base.clone() },
            ContainerSpec { labels: base.environment.clone(), environment: base.labels.clone(), ..base.clone() },
        ];
        let hash = spec_hash(&base, &[1; 32]);
        assert_eq!(hash, spec_hash(&spec(), &[1; 32]));
        assert_ne!(hash, spec_hash(&base, &[2; 32]));
        for other in &others {
            assert_ne!(hash, spec_hash(other, &[1; 32]), "{other:?}");
        }
        let counted = ContainerSpec { limits: Limits { revision: 7, ..Limits::default() }, ..base };
        assert_eq!(hash, spec_hash(&counted, &[1; 32]), "what allows the same makes no other container");
    }
}
