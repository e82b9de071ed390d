//! Restarts, admin containers and events, as they are shown.

use feather_proto::pb::types::v1 as types;
use serde::Serialize;

use super::{Moment, moment, set};

/// So many of the newest events are shown to people; JSON has all.
const SHOWN: usize = 10;

/// The container that answers whatever is for no tenant.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct AdminView {
    pub(crate) container: Option<String>,
    pub(crate) port: Option<u32>,
    pub(crate) image: Option<String>,
    pub(crate) image_digest: Option<String>,
    pub(crate) running: bool,
    pub(crate) restarts: u64,
    pub(crate) last_restart: Option<Moment>,
    pub(crate) crash_loop: bool,
    pub(crate) problem: Option<String>,
    pub(crate) candidate: Option<String>,
}

/// Something that happened on a server by itself.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct EventView {
    pub(crate) sequence: u64,
    #[serde(rename = "at")]
    pub(crate) time: Option<Moment>,
    pub(crate) kind: String,
    pub(crate) tenant: Option<String>,
    pub(crate) message: String,
}

impl From<types::AdminContainer> for AdminView {
    fn from(pb: types::AdminContainer) -> Self {
        Self {
            container: set(pb.container),
            port: Some(pb.port).filter(|port| *port != 0),
            image: set(pb.image),
            image_digest: set(pb.image_digest),
            running: pb.running,
            restarts: pb.restarts,
            last_restart: moment!(pb.last_restart),
            crash_loop: pb.crash_loop,
            problem: set(pb.problem),
            candidate: set(pb.candidate),
        }
    }
}

impl From<types::Event> for EventView {
    fn from(pb: types::Event) -> Self {
        Self { sequence: pb.sequence, time: moment!(pb.at), kind: pb.kind, tenant: set(pb.tenant), message: pb.message }
    }
}

impl AdminView {
    fn state(&self) -> &'static str {
        match (&self.container, self.crash_loop, self.running) {
            (None, ..) => "none yet",
            (_, true, _) => "crash-loop",
            (_, _, true) => "running",
            _ => "not running",
        }
    }

    /// Names and values for the details of a server.
    pub(crate) fn lines(&self) -> Vec<(&'static str, String)> {
        let named = self.container.as_ref().zip(self.port).map(|(name, port)| format!("{name} on port {port}, "));
        let mut lines = vec![("admin container", format!("{}{}", named.unwrap_or_default(), self.state()))];
        if let (Some(image), Some(digest)) = (&self.image, &self.image_digest) {
            lines.push(("admin image", format!("{image} {digest}")));
        }
        if self.restarts > 0 {
            lines.push(("admin restarts", restarts(self.restarts, self.last_restart)));
        }
        if let Some(candidate) = &self.candidate {
            lines.push(("admin swap", format!("{candidate} is being proved")));
        }
        lines
    }
}

/// The newest events, the newest last.
pub(crate) fn event_lines(events: &[EventView]) -> Vec<(&'static str, String)> {
    let newest = events.len().saturating_sub(SHOWN);
    let line = |event: &EventView| {
        let time = event.time.map(|time| format!("{time} ")).unwrap_or_default();
        ("event", format!("{time}{}: {}", event.kind, event.message))
    };
    events[newest..].iter().map(line).collect()
}

/// `3, the last 5m ago`
pub(crate) fn restarts(count: u64, last: Option<Moment>) -> String {
    match last {
        Some(last) => format!("{count}, the last {} ago", last.age()),
        None => count.to_string(),
    }
}
