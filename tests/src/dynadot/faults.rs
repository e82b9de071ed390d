//! What can go wrong between a client and the provider: single faults in the order in which a test wants them, or a plan drawn from a seed.

use std::{collections::VecDeque, time::Duration};

use feather_controller::dns::zone::ZoneRecord;
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng, seq::IndexedRandom as _};

/// Which requests a fault waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum On {
    /// The next one.
    Any,
    /// The next read.
    Read,
    /// The next change.
    Change,
}

/// What becomes of the change that was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Apply {
    /// It is made, as it should.
    Now,
    /// It is not made.
    Never,
    /// It is made before the request that comes so many later, on what is there then (1: before the next).
    Late(usize),
    /// The same, but what is written then is the whole zone as it was thought to be now: what came in between is undone.
    LateWhole(usize),
}

/// What the client is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// The truth.
    True,
    /// Nothing: the connection ends.
    Lost,
    /// Half of the truth.
    Cut,
    /// The truth, after a while.
    Slow(Duration),
    /// An error in the provider's form: HTTP's status is the code.
    Error(u16, String),
    /// A page of HTML with this status.
    Html(u16),
    /// A word in plain text.
    Text(String),
    /// A read in the shape of version 1 of the API.
    Version1,
}

/// Somebody's hand on the provider's page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Edit {
    /// Adds a record.
    Add(ZoneRecord),
    /// Removes a record.
    Remove(ZoneRecord),
    /// Sets the zone's TTL.
    Ttl(u32),
}

/// One thing that goes wrong once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// With which request.
    pub on: On,
    /// A change by hand just before the request is looked at: between the client's read and its write.
    pub edit: Option<Edit>,
    /// What becomes of the request.
    pub apply: Apply,
    /// What is answered.
    pub answer: Answer,
}

impl Fault {
    /// A change that is made as it should be and answered so.
    pub fn on(on: On, apply: Apply, answer: Answer) -> Self {
        Self { on, edit: None, apply, answer }
    }

    /// The reply to the next change is lost before anything is done.
    pub fn lost_before() -> Self {
        Self::on(On::Change, Apply::Never, Answer::Lost)
    }

    /// The reply to the next change is lost after it was made.
    pub fn lost_after() -> Self {
        Self::on(On::Change, Apply::Now, Answer::Lost)
    }

    /// Too many requests.
    pub fn busy(on: On) -> Self {
        let text = "Too many requests. Rate limit exceeded. Please try again after 60 seconds.";
        Self::on(on, Apply::Never, Answer::Error(429, text.into()))
    }

    /// No more records.
    pub fn full() -> Self {
        let text = "Cannot add DNS for example.com. The Dns Settings reached the upper limit.";
        Self::on(On::Change, Apply::Never, Answer::Error(429, text.into()))
    }

    /// No more requests today.
    pub fn quota(on: On) -> Self {
        let text = "Daily quota for the command has been reached. Please try again tomorrow.";
        Self::on(on, Apply::Never, Answer::Error(429, text.into()))
    }

    /// A change by hand between the client's read and its next write, which goes well.
    pub fn edit_before_change(edit: Edit) -> Self {
        Self { edit: Some(edit), ..Self::on(On::Change, Apply::Now, Answer::True) }
    }

    fn fits(&self, change: bool) -> bool {
        match self.on {
            On::Any => true,
            On::Read => !change,
            On::Change => change,
        }
    }
}

/// A plan of faults.
#[derive(Debug)]
struct Plan {
    random: StdRng,
    percent: u32,
    hands: usize,
}

/// The faults to come.
#[derive(Debug, Default)]
pub(super) struct Faults {
    queue: VecDeque<Fault>,
    plan: Option<Plan>,
}

impl Faults {
    pub(super) fn push(&mut self, fault: Fault) {
        self.queue.push_back(fault);
    }

    /// From now on so many of a hundred requests go wrong, somehow.
    pub(super) fn plan(&mut self, seed: u64, percent: u32) {
        self.plan = Some(Plan { random: StdRng::seed_from_u64(seed), percent, hands: 0 });
    }

    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    pub(super) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// What goes wrong with this request.
    pub(super) fn take(&mut self, change: bool) -> Option<Fault> {
        if let Some(at) = self.queue.iter().position(|fault| fault.fits(change)) {
            return self.queue.remove(at);
        }
        self.plan.as_mut().and_then(|plan| plan.draw(change))
    }
}

impl Plan {
    fn draw(&mut self, change: bool) -> Option<Fault> {
        if self.random.random_range(0..100) >= self.percent {
            return None;
        }
        let error =
            |code: u16| Answer::Error(code, "Unexpected internal server error , please contact our support.".into());
        let answers = [
            Answer::Lost,
            Answer::Cut,
            error(500),
            error(503),
            Answer::Html(502),
            Answer::Html(200),
            Answer::Text("busy".into()),
        ];
        let answer = answers.choose(&mut self.random).cloned().unwrap_or(Answer::Lost);
        let late = self.random.random_range(1..4);
        let fault = match self.random.random_range(0..6) {
            0 => Fault::busy(On::Any),
            1 if change => Fault { edit: Some(self.hand()), ..Fault::on(On::Any, Apply::Now, Answer::True) },
            2 if change => Fault::on(On::Any, Apply::Late(late), Answer::True),
            3 if change => Fault::on(On::Any, Apply::Late(late), answer),
            4 => Fault::on(On::Any, Apply::Never, answer),
            _ => Fault::on(On::Any, Apply::Now, answer),
        };
        Some(fault)
    }

    /// Something that a person does: adds a record of theirs, or takes it away again.
    fn hand(&mut self) -> Edit {
        let record = |number: usize| ZoneRecord {
            host: format!("by-hand-{number}"),
            kind: "txt".into(),
            value: "typed on the page".into(),
            extra: String::new(),
        };
        if self.hands > 0 && self.random.random_bool(0.5) {
            self.hands -= 1;
            Edit::Remove(record(self.hands))
        } else {
            self.hands += 1;
            Edit::Add(record(self.hands - 1))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Fault, Faults, On};

    #[test]
    fn faults_come_in_their_order_to_the_requests_they_wait_for() {
        let mut faults = Faults::default();
        faults.push(Fault::lost_after());
        faults.push(Fault::busy(On::Read));
        faults.push(Fault::quota(On::Any));
        assert_eq!(faults.take(false), Some(Fault::busy(On::Read)));
        assert_eq!(faults.take(true), Some(Fault::lost_after()));
        assert_eq!(faults.take(true), Some(Fault::quota(On::Any)));
        assert!(faults.take(true).is_none() && faults.is_empty());
    }

    #[test]
    fn a_plan_is_the_same_for_the_same_seed() {
        let draw = |seed| {
            let mut faults = Faults::default();
            faults.plan(seed, 50);
            (0..50).map(|at| faults.take(at % 2 == 0)).collect::<Vec<_>>()
        };
        assert_eq!(draw(7), draw(7));
        assert_ne!(draw(7), draw(8));
        let some = draw(7).iter().flatten().count();
        assert!((10..40).contains(&some), "{some}");
    }
}
