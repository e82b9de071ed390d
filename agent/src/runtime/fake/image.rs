//! Images of the fake engine: a name, some content, and how a container made of it behaves.
//!
//! Owns the archive with which one fake engine hands an image to another: of the same form as Podman's, without layers.

use feather_proto::model::Image;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::{
    image::{architecture, archive::Inspector},
    runtime::Error,
    volume::{BLOCK, TarFields},
};

/// How the process in a container of an image behaves after its start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Behaviour {
    /// Healthy at once.
    Healthy,
    /// Runs, and is never healthy.
    NeverHealthy,
    /// Healthy after it was asked so many times.
    HealthyAfterPolls(u32),
    /// Ends as soon as it is started.
    Exits,
}

impl Behaviour {
    pub(super) fn healthy_after(self, polls: u32) -> bool {
        match self {
            Behaviour::Healthy => true,
            Behaviour::NeverHealthy | Behaviour::Exits => false,
            Behaviour::HealthyAfterPolls(needed) => polls >= needed,
        }
    }
}

/// An image. Everything but its name makes its digest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Archive {
    pub(super) reference: String,
    config: Config,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Config {
    architecture: String,
    behaviour: Behaviour,
    content: String,
}

/// The archive of an image for some kind of machine, as `podman save` would write it.
pub fn archive(reference: &str, content: &str, behaviour: Behaviour, architecture: &str) -> Vec<u8> {
    let config = Config { architecture: architecture.to_owned(), behaviour, content: content.to_owned() };
    Archive { reference: canonical(reference), config }.encode()
}

impl Archive {
    pub(super) fn new(reference: &str, content: &str, behaviour: Behaviour) -> Self {
        let architecture = architecture().to_owned();
        Self {
            reference: canonical(reference),
            config: Config { architecture, behaviour, content: content.to_owned() },
        }
    }

    pub(super) fn behaviour(&self) -> Behaviour {
        self.config.behaviour
    }

    /// Cannot fail: no map has keys other than text, and no serialiser of ours refuses.
    fn config(&self) -> Vec<u8> {
        serde_json::to_vec(&self.config).unwrap_or_default()
    }

    /// The identity of the content: a second name for it is the same image.
    pub(super) fn digest(&self) -> String {
        let digest = Sha256::digest(self.config());
        digest.iter().fold("sha256:".to_owned(), |text, byte| text + &format!("{byte:02x}"))
    }

    pub(super) fn is_called(&self, reference: &str) -> bool {
        let digest = self.digest();
        reference == digest || digest.strip_prefix("sha256:") == Some(reference)
    }

    pub(super) fn image(&self) -> Image {
        let size_bytes = u64::try_from(self.config.content.len()).unwrap_or(u64::MAX);
        Image { reference: self.reference.clone(), digest: self.digest(), size_bytes }
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let name = format!("{}.json", self.digest().trim_start_matches("sha256:"));
        let manifest = serde_json::json!([{ "Config": name, "RepoTags": [self.reference], "Layers": [] }]);
        let mut archive = Vec::new();
        for (name, content) in [(name, self.config()), ("manifest.json".to_owned(), manifest.to_string().into_bytes())]
        {
            let size = content.len() as u64;
            let header = TarFields { name: name.into_bytes(), mode: 0o444, letter: b'0', size, ..TarFields::default() };
            archive.extend_from_slice(&header.encode());
            archive.extend_from_slice(&content);
            archive.resize(archive.len().next_multiple_of(BLOCK), 0);
        }
        archive.resize(archive.len() + 2 * BLOCK, 0);
        archive
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self, Error> {
        let mut inspector = Inspector::default();
        let found = inspector.feed(bytes).and_then(|()| inspector.finish()).map_err(Error::BadArchive)?;
        let Some(found) = found.into_iter().next() else { return Err(Error::BadArchive("no image".to_owned())) };
        let config = serde_json::from_slice(&found.config).map_err(|error| Error::BadArchive(error.to_string()))?;
        Ok(Self { reference: found.name().to_owned(), config })
    }
}

/// The reference as the engine stores it: a registry in front, a tag behind.
pub(super) fn canonical(reference: &str) -> String {
    let registry = reference.split_once('/').map_or("", |(first, _)| first);
    let named = registry == "localhost" || registry.contains(['.', ':']);
    let full = if named { reference.to_owned() } else { format!("localhost/{reference}") };
    let tagged = full.rsplit('/').next().is_some_and(|last| last.contains(':'));
    if tagged { full } else { full + ":latest" }
}
