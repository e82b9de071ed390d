//! Requests of an earlier release, kept as files, and what that release answered.
//!
//! A script (`tests/recorded/script.jsonl`) makes every call of the schema, in an order in which most of them succeed. `feather-record`
//! plays it against the release that it is built from, and writes each call to a file. Later releases play the files again: the same
//! bytes, by the schema that is kept beside them. Knows no message by its type, only by that schema.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use anyhow::{Context as _, bail, ensure};
use bytes::Bytes;
use prost_reflect::{DescriptorPool, DynamicMessage, MethodDescriptor, prost::Message as _};
use serde::{Deserialize, Serialize};
use serde_json::Value as Json;

pub mod compatible;
pub mod player;
mod raw;

/// Which fleet a call is made to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum World {
    /// Agents whose controller is gone: nobody else changes them.
    Agents,
    /// Agents and their controller.
    Fleet,
}

/// How much of a stream of answers is waited for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Read {
    /// All of it; what counts is the last message.
    #[default]
    All,
    /// The first message, of a stream that may never end.
    First,
}

/// A call.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Call {
    /// To which fleet.
    pub world: World,
    /// `controller`, or a server.
    pub to: String,
    /// `controller`, `admin`, `agent/nyc` or `nobody`.
    #[serde(rename = "as")]
    pub caller: String,
    /// `package.Service/Call`.
    pub rpc: String,
    /// Its requests, as JSON of protobuf. `${name}` stands for what an earlier answer said, or for what is made anew each time.
    pub send: Vec<Json>,
    /// Values of the answer that later calls need: a name, and where it is (a JSON pointer).
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub keep: BTreeMap<String, String>,
    /// How much of the answer is waited for.
    #[serde(default)]
    pub read: Read,
    /// It is repeated until it gets the code that is expected: the fleet has to notice something first.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub settles: bool,
    /// The code that is expected.
    #[serde(default = "ok")]
    pub code: String,
}

fn ok() -> String {
    "Ok".to_owned()
}

/// What came back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    /// Code of gRPC.
    pub code: String,
    /// Stable reason word of an error.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// Names of the fields that were set in the message that counts.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub fields: BTreeSet<String>,
}

/// A call and what came back.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Recording {
    /// The call.
    pub call: Call,
    /// Its requests as they went over the wire, in hexadecimal; none of those that hold something that is made anew each time.
    pub bytes: Vec<Option<String>>,
    /// What came back.
    pub answer: Answer,
}

/// The schema of one release.
#[derive(Debug, Clone)]
pub struct Schema(pub DescriptorPool);

impl Schema {
    /// From encoded descriptors.
    ///
    /// # Errors
    /// They are none.
    pub fn decode(descriptors: &[u8]) -> anyhow::Result<Self> {
        Ok(Self(DescriptorPool::decode(descriptors)?))
    }

    /// Of this release.
    pub fn current() -> Self {
        Self::decode(feather_proto::pb::DESCRIPTORS).expect("the schema was compiled into this binary")
    }

    /// A call by `package.Service/Call`.
    ///
    /// # Errors
    /// There is no such call.
    pub fn method(&self, rpc: &str) -> anyhow::Result<MethodDescriptor> {
        let (service, call) = rpc.split_once('/').with_context(|| format!("{rpc} is not package.Service/Call"))?;
        let service = self.0.get_service_by_name(service).with_context(|| format!("no service of {rpc}"))?;
        service.methods().find(|method| method.name() == call).with_context(|| format!("no call {rpc}"))
    }

    /// All calls.
    pub fn rpcs(&self) -> BTreeSet<String> {
        let name = |method: MethodDescriptor| format!("{}/{}", method.parent_service().full_name(), method.name());
        self.0.services().flat_map(|service| service.methods().map(name).collect::<Vec<_>>()).collect()
    }

    fn request(&self, rpc: &str, json: &Json) -> anyhow::Result<Bytes> {
        let message = DynamicMessage::deserialize(self.method(rpc)?.input(), json)
            .with_context(|| format!("no request of {rpc}: {json}"))?;
        Ok(message.encode_to_vec().into())
    }

    /// An answer as JSON of protobuf.
    fn answer(&self, rpc: &str, bytes: Bytes) -> anyhow::Result<Json> {
        let message = DynamicMessage::decode(self.method(rpc)?.output(), bytes)
            .with_context(|| format!("the answer of {rpc} is none by this schema"))?;
        Ok(serde_json::to_value(&message)?)
    }
}

/// The calls of a script, one in each line; lines that begin with `#` are for people.
///
/// # Errors
/// A line is no call.
pub fn script(text: &str) -> anyhow::Result<Vec<Call>> {
    let lines = text.lines().enumerate().filter(|(_, line)| !line.is_empty() && !line.starts_with('#'));
    lines.map(|(number, line)| serde_json::from_str(line).with_context(|| format!("line {}", number + 1))).collect()
}

/// Writes schema and recordings into a folder that holds none yet.
///
/// # Errors
/// The folder is there already, or cannot be written.
pub fn save(folder: &Path, recordings: &[Recording]) -> anyhow::Result<()> {
    ensure!(!folder.exists(), "{} is there already: recordings are never changed", folder.display());
    std::fs::create_dir_all(folder)?;
    std::fs::write(folder.join("schema.binpb"), feather_proto::pb::DESCRIPTORS)?;
    for (number, recording) in recordings.iter().enumerate() {
        let rpc = recording.call.rpc.trim_start_matches("feather.").replace('/', ".");
        let text = serde_json::to_string_pretty(recording)? + "\n";
        std::fs::write(folder.join(format!("{:03}-{rpc}.json", number + 1)), text)?;
    }
    Ok(())
}

/// Schema and recordings of a release, in the order in which they were made.
///
/// # Errors
/// There are none, or one cannot be read.
pub fn load(folder: &Path) -> anyhow::Result<(Schema, Vec<Recording>)> {
    let mut files: Vec<_> =
        std::fs::read_dir(folder)?.map(|entry| Ok(entry?.path())).collect::<std::io::Result<_>>()?;
    files.retain(|file| file.extension().is_some_and(|extension| extension == "json"));
    files.sort();
    if files.is_empty() {
        bail!("there are no recordings in {}", folder.display());
    }
    let recording = |file: &std::path::PathBuf| {
        serde_json::from_slice(&std::fs::read(file)?).with_context(|| file.display().to_string())
    };
    let recordings = files.iter().map(recording).collect::<anyhow::Result<_>>()?;
    Ok((Schema::decode(&std::fs::read(folder.join("schema.binpb"))?)?, recordings))
}
