//! The audit log as it is shown.

use feather_proto::pb::controller::v1 as pb;
use serde::Serialize;

use super::{Moment, moment, set};
use crate::output::table;

#[derive(Debug, Serialize)]
pub(crate) struct EntryView {
    pub(crate) sequence: u64,
    pub(crate) at: Option<Moment>,
    pub(crate) caller: Option<String>,
    pub(crate) address: Option<String>,
    pub(crate) rpc: String,
    /// As the log holds it; text, when it is no JSON.
    pub(crate) arguments: serde_json::Value,
    pub(crate) code: String,
    pub(crate) reason: Option<String>,
    pub(crate) operation: Option<String>,
    pub(crate) hash: String,
}

impl From<pb::AuditEntry> for EntryView {
    fn from(pb: pb::AuditEntry) -> Self {
        Self {
            sequence: pb.sequence,
            at: moment!(pb.at),
            caller: set(pb.caller),
            address: set(pb.address),
            rpc: pb.rpc,
            arguments: serde_json::from_str(&pb.arguments).unwrap_or(serde_json::Value::String(pb.arguments)),
            code: pb.code,
            reason: set(pb.reason),
            operation: set(pb.operation),
            hash: pb.hash,
        }
    }
}

/// One line for each call.
pub(crate) fn list(entries: &[EntryView]) -> String {
    let text = |text: &Option<String>| text.clone().unwrap_or("-".into());
    let rows: Vec<_> = entries
        .iter()
        .map(|entry| {
            let call = entry.rpc.rsplit('/').next().unwrap_or_default().to_owned();
            let end = match &entry.reason {
                Some(reason) => format!("{} {reason}", entry.code),
                None => entry.code.clone(),
            };
            [
                entry.sequence.to_string(),
                entry.at.map(|at| at.to_string()).unwrap_or_default(),
                text(&entry.caller),
                text(&entry.address),
                call,
                end,
                text(&entry.operation),
                shown(&entry.arguments),
            ]
        })
        .collect();
    table(["ROW", "AT", "WHO", "FROM", "CALL", "END", "OPERATION", "WITH"], &rows)
}

/// `tenant=alice server=fra`, without what only programs need.
fn shown(arguments: &serde_json::Value) -> String {
    let Some(fields) = arguments.as_object() else { return arguments.to_string() };
    let field = |(name, value): (&String, &serde_json::Value)| {
        let value = value.as_str().map_or_else(|| value.to_string(), ToOwned::to_owned);
        (name != "request_id").then(|| format!("{name}={value}"))
    };
    fields.iter().filter_map(field).collect::<Vec<_>>().join(" ")
}
