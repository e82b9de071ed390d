//! Which calls of the fake engine fail, and how. Knows nothing of what the calls do.

use std::collections::BTreeMap;

use crate::runtime::Error;

macro_rules! verbs {
    ($($verb:ident => $words:literal),* $(,)?) => {
        /// A call that can be made to fail; named like the method of [`Runtime`](crate::runtime::Runtime).
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Verb {
            $(#[doc = concat!("To ", $words, ".")] $verb),*
        }

        impl Verb {
            /// All of them, for tests that try a fault at each.
            pub const ALL: &[Verb] = &[$(Verb::$verb),*];

            fn words(self) -> &'static str {
                match self { $(Verb::$verb => $words),* }
            }
        }
    };
}

verbs! {
    Capacity => "measure the machine",
    Images => "list images",
    Image => "look at an image",
    LoadImage => "load an image",
    ExportImage => "export an image",
    Container => "look at a container",
    Containers => "list containers",
    Inspect => "look into a container",
    EnsureContainer => "create a container",
    Start => "start a container",
    Stop => "stop a container",
    Resources => "say what a container may use",
    EnsureLimits => "limit a container",
    RemoveContainer => "remove a container",
    Logs => "read logs",
    Healthy => "ask for health",
    Volume => "look at a volume",
    Volumes => "list volumes",
    EnsureVolume => "create a volume",
    RemoveVolume => "remove a volume",
}

#[derive(Debug, thiserror::Error)]
#[error("injected fault")]
struct Injected;

fn unreachable() -> Error {
    Error::Unreachable(Box::new(Injected))
}

#[derive(Default)]
pub(super) struct Faults {
    pub(super) unreachable: bool,
    refusals: BTreeMap<Verb, u32>,
    lost_replies: BTreeMap<Verb, u32>,
    calls: BTreeMap<Verb, u64>,
}

/// What becomes of the answer of a call that was let in.
#[must_use]
pub(super) struct Reply {
    lost: bool,
}

impl Reply {
    pub(super) fn deliver<T>(self, value: T) -> Result<T, Error> {
        if self.lost { Err(unreachable()) } else { Ok(value) }
    }
}

impl Faults {
    pub(super) fn refuse(&mut self, verb: Verb, times: u32) {
        self.refusals.insert(verb, times);
    }

    pub(super) fn lose_reply(&mut self, verb: Verb) {
        *self.lost_replies.entry(verb).or_default() += 1;
    }

    pub(super) fn calls(&self, verb: Verb) -> u64 {
        self.calls.get(&verb).copied().unwrap_or_default()
    }

    /// Counts the call and takes one refusal, if any is left.
    pub(super) fn take_refusal(&mut self, verb: Verb) -> bool {
        *self.calls.entry(verb).or_default() += 1;
        take(&mut self.refusals, verb)
    }

    pub(super) fn enter(&mut self, verb: Verb) -> Result<Reply, Error> {
        let refused = self.take_refusal(verb);
        if self.unreachable {
            return Err(unreachable());
        }
        if refused {
            return Err(Error::Refused { attempt: verb.words().to_owned(), message: "injected fault".to_owned() });
        }
        Ok(Reply { lost: take(&mut self.lost_replies, verb) })
    }
}

fn take(counts: &mut BTreeMap<Verb, u32>, verb: Verb) -> bool {
    match counts.get_mut(&verb) {
        Some(left) if *left > 0 => {
            *left -= 1;
            true
        }
        _ => false,
    }
}
