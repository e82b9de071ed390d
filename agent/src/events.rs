//! What happened on this server by itself: a bounded list that people read.
//!
//! Owns numbering and forgetting. Knows nothing of what the events are about; whoever makes one says it in a sentence.

use std::{
    collections::VecDeque,
    sync::{Mutex, PoisonError},
};

use feather_proto::{ids::TenantName, model::EventReport};
use time::OffsetDateTime;

/// So many are kept. They are part of every snapshot: more would make each of those heavy.
const KEPT: usize = 64;

/// What kind of event it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A container whose process had ended, or did not answer, was started again.
    Restarted,
    /// A container is restarted again and again.
    CrashLoop,
    /// It answers again.
    Recovered,
    /// The router did not answer and was restarted.
    RouterRestarted,
    /// Another admin container serves.
    Swapped,
    /// The new admin container was no good; the old one serves.
    SwapFailed,
    /// A container of the time before this agent became this agent's.
    Adopted,
    /// This server is out of its fleet: its tenants were stopped.
    Fenced,
    /// It is in a fleet again.
    Unfenced,
}

impl Kind {
    /// The stable word for programs.
    fn word(self) -> &'static str {
        match self {
            Kind::Restarted => "restarted",
            Kind::CrashLoop => "crash-loop",
            Kind::Recovered => "recovered",
            Kind::RouterRestarted => "router-restarted",
            Kind::Swapped => "swapped",
            Kind::SwapFailed => "swap-failed",
            Kind::Adopted => "adopted",
            Kind::Fenced => "fenced",
            Kind::Unfenced => "unfenced",
        }
    }
}

/// The newest events.
#[derive(Default)]
pub(crate) struct Events(Mutex<VecDeque<EventReport>>);

impl Events {
    /// Goes on where an agent before this one ended.
    pub(crate) fn after(earlier: Vec<EventReport>) -> Self {
        let too_many = earlier.len().saturating_sub(KEPT);
        Self(Mutex::new(earlier.into_iter().skip(too_many).collect()))
    }

    /// Notes one, and writes it to the log.
    pub(crate) fn note(&self, at: OffsetDateTime, kind: Kind, tenant: Option<&TenantName>, message: String) {
        let subject = tenant.map_or("server", TenantName::as_str);
        tracing::info!(event = kind.word(), subject, message, "something happened by itself");
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let sequence = kept.back().map_or(1, |last| last.sequence + 1);
        if kept.len() == KEPT {
            kept.pop_front();
        }
        kept.push_back(EventReport { sequence, at, kind: kind.word().to_owned(), tenant: tenant.cloned(), message });
    }

    /// Those that are kept, the oldest first.
    pub(crate) fn all(&self) -> Vec<EventReport> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use time::OffsetDateTime;

    use super::{Events, KEPT, Kind};

    #[test]
    fn the_newest_are_kept_and_their_numbers_go_on() {
        let events = Events::default();
        assert!(events.all().is_empty());
        for number in 0..KEPT + 3 {
            events.note(OffsetDateTime::UNIX_EPOCH, Kind::Restarted, None, number.to_string());
        }
        let all = events.all();
        assert_eq!((all.len(), all[0].sequence, all[0].message.as_str()), (KEPT, 4, "3"));
        assert_eq!(all.last().map(|last| last.sequence), u64::try_from(KEPT + 3).ok());
        let later = Events::after(all.clone());
        assert_eq!(later.all(), all);
        later.note(OffsetDateTime::UNIX_EPOCH, Kind::Recovered, None, "later".to_owned());
        assert_eq!(later.all().last().map(|last| last.sequence), u64::try_from(KEPT + 4).ok());
    }
}
