//! Makes the calls of a script or of recordings, in their order, to fleets that are started for them.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    time::Duration,
};

use anyhow::{Context as _, bail, ensure};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use feather_agent::runtime::fake::{Behaviour, archive};
use feather_proto::{
    error::Error,
    join_token::JoinToken,
    login_token::LoginToken,
    tls::{self, Channel, Role},
    version::Range,
};
use serde_json::Value as Json;
use tonic::{Request, client::Grpc, codegen::http::uri::PathAndQuery};

use super::{Answer, Call, Read, Recording, Schema, World, raw::Raw};
use crate::{Fleet, fleet::WORK_IMAGE, wait::within};

/// Longest that one call may take.
const CALL_MAX: Duration = Duration::from_secs(60);
/// Messages of a volume may be as long.
const MESSAGE_MAX_BYTES: usize = 8 << 20;
/// Names of tenants in a server's certificate.
const TENANTS: &str = "*.users.inceptel.ai";

/// The fleets, and what is known from earlier answers.
pub struct Player {
    schema: Schema,
    /// What the callers say they speak; nothing, for the release that knew no versions.
    says: Option<Range>,
    fleets: BTreeMap<World, Fleet>,
    known: BTreeMap<String, String>,
    folder: tempfile::TempDir,
}

/// What one call got.
struct Got {
    answer: Answer,
    /// The message that counts.
    message: Option<Json>,
}

impl Player {
    /// With the schema of the release that made the calls, and with what it said of itself.
    ///
    /// # Errors
    /// There is no room for temporary files.
    pub fn new(schema: Schema, says: Option<Range>) -> anyhow::Result<Self> {
        Ok(Self { schema, says, fleets: BTreeMap::new(), known: BTreeMap::new(), folder: tempfile::tempdir()? })
    }

    /// Makes a call of a script.
    ///
    /// # Errors
    /// It is none by the schema, or did not get the code that the script says.
    pub async fn record(&mut self, call: &Call) -> anyhow::Result<Recording> {
        let mut bytes = Vec::new();
        for json in &call.send {
            let fixed = !json.to_string().contains("${");
            bytes.push(if fixed { Some(hex(&self.schema.request(&call.rpc, json)?)) } else { None });
        }
        let got = self.make(call, &bytes).await?;
        let (code, reason) = (&got.answer.code, &got.answer.reason);
        ensure!(*code == call.code, "{} was to get {} and got {code} ({reason})", call.rpc, call.code);
        self.learn(call, got.message.as_ref())?;
        Ok(Recording { call: call.clone(), bytes, answer: got.answer })
    }

    /// Makes a recorded call again: the answer that it gets today.
    ///
    /// # Errors
    /// The recording does not fit its schema, or the answer is none by that schema.
    pub async fn replay(&mut self, recording: &Recording) -> anyhow::Result<Answer> {
        let got = self.make(&recording.call, &recording.bytes).await?;
        if got.answer.code == recording.answer.code {
            self.learn(&recording.call, got.message.as_ref())?;
        }
        Ok(got.answer)
    }

    fn learn(&mut self, call: &Call, message: Option<&Json>) -> anyhow::Result<()> {
        for (name, place) in &call.keep {
            let value = message.and_then(|message| message.pointer(place));
            let value = value.with_context(|| format!("{} has no {place} in its answer: {message:?}", call.rpc))?;
            let text = value.as_str().map_or_else(|| value.to_string(), ToOwned::to_owned);
            self.known.insert(name.clone(), text);
        }
        Ok(())
    }

    async fn make(&mut self, call: &Call, bytes: &[Option<String>]) -> anyhow::Result<Got> {
        ensure!(bytes.len() == call.send.len(), "{} has {} requests", call.rpc, call.send.len());
        let mut requests = Vec::new();
        for (json, fixed) in call.send.iter().zip(bytes) {
            requests.push(match fixed {
                Some(fixed) => unhex(fixed)?,
                None => self.schema.request(&call.rpc, &self.filled(json)?)?,
            });
        }
        let channel = self.channel(call).await?;
        if !call.settles {
            return self.once(&channel, call, requests).await;
        }
        within(CALL_MAX, &call.rpc, async || match self.once(&channel, call, requests.clone()).await {
            Ok(got) if got.answer.code != call.code => Err(format!("{} ({})", got.answer.code, got.answer.reason)),
            other => Ok(other),
        })
        .await
    }

    async fn once(&self, channel: &Channel, call: &Call, requests: Vec<Bytes>) -> anyhow::Result<Got> {
        let messages = tokio::time::timeout(CALL_MAX, exchange(channel, call, requests));
        let (messages, status) = messages.await.with_context(|| format!("{} takes too long", call.rpc))?;
        let mut all = Vec::new();
        for message in messages {
            all.push(self.schema.answer(&call.rpc, message)?);
        }
        let message = all.pop();
        let fields = message.as_ref().and_then(Json::as_object).map(|fields| fields.keys().cloned().collect());
        let fields = fields.unwrap_or_default();
        let answer = match status {
            Ok(()) => Answer { code: "Ok".into(), reason: String::new(), fields },
            Err(status) => {
                let code = format!("{:?}", status.code());
                Answer { code, reason: Error::from(status).reason, fields }
            }
        };
        Ok(Got { answer, message })
    }

    async fn channel(&mut self, call: &Call) -> anyhow::Result<Channel> {
        let fleet = match self.fleets.entry(call.world) {
            Entry::Occupied(started) => started.into_mut(),
            Entry::Vacant(place) => {
                let mut fleet = Fleet::start(&["ams", "fra", "nyc"]).await;
                if call.world == World::Agents {
                    fleet.kill_controller();
                }
                place.insert(fleet)
            }
        };
        let (role, name) = match call.caller.split_once('/') {
            Some(("agent", name)) => (Role::Agent, name),
            None if call.caller == "controller" => (Role::Controller, "controller"),
            None if call.caller == "admin" => (Role::Admin, "admin"),
            None if call.caller == "nobody" => return Ok(fleet.stranger().saying(self.says)),
            _ => bail!("nobody is called {}", call.caller),
        };
        let identity = fleet.identity(role, name);
        let channel =
            if call.to == "controller" { fleet.channel(identity) } else { fleet.agent_channel(&call.to, identity) };
        Ok(channel.saying(self.says))
    }

    /// A request with every `${name}` replaced.
    fn filled(&self, json: &Json) -> anyhow::Result<Json> {
        Ok(match json {
            Json::String(text) => Json::String(self.filled_text(text)?),
            Json::Array(all) => Json::Array(all.iter().map(|one| self.filled(one)).collect::<Result<_, _>>()?),
            Json::Object(fields) => {
                let fields = fields.iter().map(|(name, value)| Ok((name.clone(), self.filled(value)?)));
                Json::Object(fields.collect::<anyhow::Result<_>>()?)
            }
            other => other.clone(),
        })
    }

    fn filled_text(&self, text: &str) -> anyhow::Result<String> {
        let Some((before, rest)) = text.split_once("${") else { return Ok(text.to_owned()) };
        let (name, after) = rest.split_once('}').with_context(|| format!("{text} does not end"))?;
        Ok(format!("{before}{}{}", self.value(name)?, self.filled_text(after)?))
    }

    fn value(&self, name: &str) -> anyhow::Result<String> {
        let known = |name: &str| self.known.get(name).with_context(|| format!("no answer said {name}"));
        let fleet = || self.fleets.get(&World::Fleet).context("the fleet was not started");
        Ok(match name.split_once(':') {
            Some(("csr", name)) => tls::csr(name)?.1,
            Some(("join-secret", name)) => known(name)?.parse::<JoinToken>()?.secret,
            Some(("login-secret", name)) => known(name)?.parse::<LoginToken>()?.secret,
            Some(("certificate", name)) => fleet()?.identity(Role::Agent, name).certificate_pem,
            None if name == "archive" => STANDARD.encode(archive(WORK_IMAGE, "newer", Behaviour::Healthy, machine())),
            None if name == "repository" => self.folder.path().join("backups").display().to_string(),
            _ => known(name)?.clone(),
        })
    }

    /// A certificate of its own for the tenants' names, as later calls need it.
    ///
    /// # Errors
    /// None can be made.
    pub fn make_certificate(&mut self) -> anyhow::Result<()> {
        let made = rcgen::generate_simple_self_signed([TENANTS.to_owned()])?;
        self.known.insert("chain".into(), made.cert.pem());
        self.known.insert("key".into(), made.signing_key.serialize_pem());
        Ok(())
    }
}

/// How archives call this machine.
fn machine() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// All messages that came, and how it ended.
async fn exchange(channel: &Channel, call: &Call, requests: Vec<Bytes>) -> (Vec<Bytes>, Result<(), tonic::Status>) {
    let mut client = Grpc::new(channel.clone()).max_decoding_message_size(MESSAGE_MAX_BYTES);
    if let Err(error) = client.ready().await {
        return (Vec::new(), Err(tonic::Status::unavailable(error.to_string())));
    }
    let path = PathAndQuery::try_from(format!("/{}", call.rpc)).expect("names of the schema make a path");
    let asked = client.streaming(Request::new(tokio_stream::iter(requests)), path, Raw).await;
    let mut stream = match asked {
        Ok(response) => response.into_inner(),
        Err(status) => return (Vec::new(), Err(status)),
    };
    let mut messages = Vec::new();
    loop {
        match stream.message().await {
            Ok(Some(message)) => messages.push(message),
            Ok(None) => return (messages, Ok(())),
            Err(status) => return (messages, Err(status)),
        }
        if call.read == Read::First {
            return (messages, Ok(()));
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> anyhow::Result<Bytes> {
    ensure!(text.len().is_multiple_of(2), "half a byte");
    let byte = |at: usize| Ok(u8::from_str_radix(text.get(at..at + 2).context("not hexadecimal")?, 16)?);
    (0..text.len()).step_by(2).map(byte).collect()
}
