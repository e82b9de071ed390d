//! Images of the fake engine: a name, some content, and how a container made of it behaves.
//!
//! Owns the archive format with which one fake engine hands an image to another.

use feather_proto::model::Image;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::runtime::Error;

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

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Archive {
    pub(super) reference: String,
    content: String,
    pub(super) behaviour: Behaviour,
}

impl Archive {
    pub(super) fn new(reference: &str, content: &str, behaviour: Behaviour) -> Self {
        Self { reference: canonical(reference), content: content.to_owned(), behaviour }
    }

    /// The identity of the content: a second name for it is the same image.
    pub(super) fn digest(&self) -> String {
        let content = format!("{:?}\n{}", self.behaviour, self.content);
        let digest = Sha256::digest(content.as_bytes());
        digest.iter().fold("sha256:".to_owned(), |text, byte| text + &format!("{byte:02x}"))
    }

    pub(super) fn is_called(&self, reference: &str) -> bool {
        let digest = self.digest();
        reference == digest || digest.strip_prefix("sha256:") == Some(reference)
    }

    pub(super) fn image(&self) -> Image {
        let size_bytes = u64::try_from(self.content.len()).unwrap_or(u64::MAX);
        Image { reference: self.reference.clone(), digest: self.digest(), size_bytes }
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        // Cannot fail: no map has keys other than text, and no serialiser of ours refuses.
        serde_json::to_vec(self).unwrap_or_default()
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self, Error> {
        serde_json::from_slice(bytes).map_err(|error| Error::BadArchive(error.to_string()))
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
