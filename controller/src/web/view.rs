//! What is shown, in plain words and numbers. Nothing here is escaped: that is done where it is put on a page.

use time::OffsetDateTime;

/// The whole fleet at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct View {
    /// The moment.
    pub now: OffsetDateTime,
    /// The controller's version.
    pub version: String,
    /// Those that need attention first, then by name.
    pub servers: Vec<Server>,
    /// By name, without removed ones.
    pub tenants: Vec<Tenant>,
    /// What has not ended, the oldest first.
    pub operations: Vec<Operation>,
    /// Moves that were measured, the oldest first.
    pub moves: Vec<Move>,
    /// What needs a person and nobody has taken note of, the oldest first.
    pub warnings: Vec<Warning>,
    /// How many more there are that somebody knows of.
    pub acknowledged: u32,
    /// The newest events, the newest first.
    pub events: Vec<Event>,
    /// The zone in a sentence, and whether it is as it should be; none when there is none.
    pub dns: Option<(String, bool)>,
    /// The same for the tenants' certificate.
    pub certificate: Option<(String, bool)>,
}

/// How something stands: a word, and whether it is well.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct State {
    /// How it looks.
    pub mood: Mood,
    /// The same word that featherctl has for it.
    pub word: &'static str,
}

/// How much attention something needs; the first needs most.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Mood {
    /// Needs a person.
    Bad,
    /// Not as it should be, or not known.
    Doubtful,
    /// Being changed.
    Busy,
    /// As it should be.
    Good,
    /// Switched off.
    Idle,
}

/// A server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Server {
    /// Its name.
    pub name: String,
    /// Whether it answers.
    pub state: State,
    /// Takes no new tenants.
    pub cordoned: bool,
    /// The wildcard record leads to it.
    pub ingress: bool,
    /// As `name=value`.
    pub labels: Vec<String>,
    /// Free and all.
    pub slots: (u32, u32),
    /// Free and all, in bytes; all is 0 while it is not known.
    pub memory: (u64, u64),
    /// The same on its disk.
    pub disk: (u64, u64),
    /// When it was heard of last.
    pub seen: Option<OffsetDateTime>,
    /// What is wrong with it, in sentences.
    pub problems: Vec<String>,
}

/// A tenant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tenant {
    /// Its name.
    pub name: String,
    /// What the fleet says of it.
    pub state: State,
    /// Where it lives; empty while that is not decided.
    pub server: String,
    /// Its address for the world.
    pub url: String,
    /// When it was added.
    pub created: Option<OffsetDateTime>,
    /// How often its container was restarted by itself.
    pub restarts: u64,
    /// What is wrong with it; empty when nothing is.
    pub problem: String,
}

/// An operation that has not ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Operation {
    /// Its id.
    pub id: String,
    /// What it is.
    pub kind: &'static str,
    /// A tenant or a server.
    pub subject: String,
    /// From where, or where.
    pub source: String,
    /// To where.
    pub target: String,
    /// How it goes.
    pub state: State,
    /// The step under way; empty between two.
    pub step: String,
    /// What stands in its way, and what to type; empty when nothing does.
    pub trouble: String,
    /// When it was begun.
    pub begun: Option<OffsetDateTime>,
    /// Who asked for it.
    pub by: String,
    /// What is being transferred now.
    pub transfer: Option<Transfer>,
}

/// A pass over a volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transfer {
    /// What it is doing.
    pub phase: String,
    /// Bytes that are dealt with.
    pub bytes: u64,
    /// All of them; 0 while that is not known.
    pub total: u64,
    /// Bytes per second; 0 while that is not known.
    pub rate: u64,
}

impl Transfer {
    /// How much is done, in hundredths; none while the whole is not known.
    pub fn percent(&self) -> Option<u8> {
        let part = u128::from(self.bytes) * 100 / u128::from(self.total.max(1));
        (self.total > 0).then(|| u8::try_from(part.min(100)).unwrap_or(100))
    }

    /// How long it will take, in seconds; none while that cannot be said.
    pub fn seconds_left(&self) -> Option<u64> {
        (self.total > 0 && self.rate > 0).then(|| self.total.saturating_sub(self.bytes).div_ceil(self.rate))
    }
}

/// A move that was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Move {
    /// Who moved.
    pub tenant: String,
    /// From where.
    pub source: String,
    /// To where.
    pub target: String,
    /// When it had ended.
    pub at: OffsetDateTime,
    /// How long requests had to wait, in milliseconds.
    pub outage_ms: u64,
    /// What went from server to server, in bytes.
    pub sent: u64,
}

/// What needs a person.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Warning {
    /// What `featherctl warning ack` takes.
    pub id: String,
    /// A sentence.
    pub message: String,
    /// Since when.
    pub since: Option<OffsetDateTime>,
}

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// When.
    pub at: OffsetDateTime,
    /// What about.
    pub subject: String,
    /// A sentence.
    pub message: String,
}

/// `1.2 MiB`
pub(super) fn bytes(count: u64) -> String {
    const UNITS: [&str; 7] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    #[allow(clippy::cast_precision_loss)] // one decimal is shown
    let mut amount = count as f64;
    let mut unit = 0;
    while amount >= if unit == 0 { 1024.0 } else { 1023.95 } {
        amount /= 1024.0;
        unit += 1;
    }
    if unit == 0 { format!("{count} B") } else { format!("{amount:.1} {}", UNITS[unit]) }
}

/// `45s`, `12m`, `3h`, `5d`
pub(crate) fn span(seconds: i64) -> String {
    match seconds.max(0) {
        seconds @ 0..60 => format!("{seconds}s"),
        seconds @ 60..3600 => format!("{}m", seconds / 60),
        seconds @ 3600..86_400 => format!("{}h", seconds / 3600),
        seconds => format!("{}d", seconds / 86_400),
    }
}

/// `812 ms`, `3.2 s`, `75 s`
pub(super) fn outage(milliseconds: u64) -> String {
    match milliseconds {
        0..1000 => format!("{milliseconds} ms"),
        1000..10_000 => format!("{}.{} s", milliseconds / 1000, milliseconds % 1000 / 100),
        _ => format!("{} s", milliseconds / 1000),
    }
}

/// To the second, in UTC.
pub(super) fn moment(at: OffsetDateTime) -> String {
    feather_proto::model::rfc3339(at)
}

#[cfg(test)]
mod tests {
    use super::{Transfer, bytes, outage, span};

    #[test]
    fn numbers_are_short() {
        assert_eq!(
            [0, 1023, 1024, 1 << 20, (1 << 30) - 1, u64::MAX].map(bytes),
            ["0 B", "1023 B", "1.0 KiB", "1.0 MiB", "1.0 GiB", "16.0 EiB"]
        );
        assert_eq!([-5, 59, 60, 7300, 90_000].map(span), ["0s", "59s", "1m", "2h", "1d"]);
        assert_eq!([0, 552, 1000, 9999, 75_400].map(outage), ["0 ms", "552 ms", "1.0 s", "9.9 s", "75 s"]);
    }

    #[test]
    fn what_is_left_is_said_only_when_it_is_known() {
        let at = |bytes, total, rate| Transfer { phase: String::new(), bytes, total, rate };
        assert_eq!((at(5, 10, 2).percent(), at(5, 10, 2).seconds_left()), (Some(50), Some(3)));
        assert_eq!((at(5, 0, 2).percent(), at(5, 0, 2).seconds_left()), (None, None));
        assert_eq!((at(5, 10, 0).percent(), at(5, 10, 0).seconds_left()), (Some(50), None));
        // Files may have grown since they were counted.
        assert_eq!((at(30, 10, 2).percent(), at(30, 10, 2).seconds_left()), (Some(100), Some(0)));
        assert_eq!(at(u64::MAX, u64::MAX, 1).percent(), Some(100));
    }
}
