//! What an operation does next: a pure function of its log.

use super::{Event, Step};

/// What to do next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next<S> {
    /// Do this step (again).
    Act(S),
    /// Take this step back (again).
    Undo(S),
    /// Write the end: everything was done.
    Succeed,
    /// Write the end: everything was taken back.
    Fail {
        /// Because somebody asked for it.
        cancelled: bool,
    },
    /// It has ended.
    Nothing,
}

/// The log, reduced to what decides.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Progress<S> {
    /// Steps that began, in order.
    pub begun: Vec<S>,
    /// Steps that are done.
    pub done: Vec<S>,
    /// Steps that were taken back.
    pub undone: Vec<S>,
    /// A step failed for good.
    pub failed: bool,
    /// Somebody asked for the end.
    pub cancelled: bool,
    /// The last line was written.
    pub ended: bool,
}

impl<S: Step> Progress<S> {
    /// Reads a log. Lines of steps that this version does not know are ignored.
    pub fn read<'a>(lines: impl IntoIterator<Item = (&'a str, Event)>) -> Self {
        let mut progress =
            Self { begun: vec![], done: vec![], undone: vec![], failed: false, cancelled: false, ended: false };
        for (name, event) in lines {
            progress.note(name, event);
        }
        progress
    }

    /// Reads one more line.
    pub fn note(&mut self, name: &str, event: Event) {
        let step = S::ALL.iter().copied().find(|step| step.name() == name);
        match (event, step) {
            (Event::Begin, Some(step)) if !self.begun.contains(&step) => self.begun.push(step),
            (Event::Done, Some(step)) if !self.done.contains(&step) => self.done.push(step),
            (Event::Undone, Some(step)) if !self.undone.contains(&step) => self.undone.push(step),
            (Event::Failed, _) => self.failed = true,
            (Event::CancelRequested, _) => self.cancelled = true,
            (Event::End, _) => self.ended = true,
            _ => {}
        }
    }

    /// Past the point of no return?
    pub fn committed(&self) -> bool {
        self.done.contains(&S::POINT_OF_NO_RETURN)
    }

    /// Is it going back?
    pub fn undoing(&self) -> bool {
        !self.committed() && (self.failed || self.cancelled)
    }
}

/// What to do next. Total: every log has an answer.
pub fn next<S: Step>(progress: &Progress<S>) -> Next<S> {
    if progress.ended {
        return Next::Nothing;
    }
    if progress.undoing() {
        let undo = progress.begun.iter().rev().copied().find(|step| !progress.undone.contains(step));
        return undo.map_or(Next::Fail { cancelled: progress.cancelled && !progress.failed }, Next::Undo);
    }
    S::ALL.iter().copied().find(|step| !progress.done.contains(step)).map_or(Next::Succeed, Next::Act)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{Event, Next, Progress, Step, next};

    #[derive(Debug, Clone, Copy, PartialEq)]
    enum Letter {
        A,
        B,
        C,
        D,
    }

    impl Step for Letter {
        const ALL: &'static [Self] = &[Letter::A, Letter::B, Letter::C, Letter::D];
        const POINT_OF_NO_RETURN: Self = Letter::C;
        fn name(self) -> &'static str {
            match self {
                Letter::A => "a",
                Letter::B => "b",
                Letter::C => "c",
                Letter::D => "d",
            }
        }
    }

    fn after(lines: &[(&str, Event)]) -> Next<Letter> {
        next(&Progress::read(lines.iter().copied()))
    }

    #[test]
    fn steps_are_done_in_order() {
        assert_eq!(after(&[]), Next::Act(Letter::A));
        assert_eq!(after(&[("a", Event::Begin)]), Next::Act(Letter::A));
        assert_eq!(after(&[("a", Event::Begin), ("a", Event::Done)]), Next::Act(Letter::B));
    }

    #[test]
    fn a_failed_step_is_undone_too_because_its_effect_is_unknown() {
        let lines = [("a", Event::Begin), ("a", Event::Done), ("b", Event::Begin), ("b", Event::Failed)];
        assert_eq!(after(&lines), Next::Undo(Letter::B));
        let more = [&lines[..], &[("b", Event::Undone)]].concat();
        assert_eq!(after(&more), Next::Undo(Letter::A));
        let more = [&more[..], &[("a", Event::Undone)]].concat();
        assert_eq!(after(&more), Next::Fail { cancelled: false });
        assert_eq!(after(&[&more[..], &[("", Event::End)]].concat()), Next::Nothing);
    }

    #[test]
    fn nothing_is_undone_past_the_point_of_no_return() {
        let mut lines = vec![];
        for name in ["a", "b", "c"] {
            lines.extend([(name, Event::Begin), (name, Event::Done)]);
        }
        lines.extend([("d", Event::Begin), ("d", Event::Failed), ("", Event::CancelRequested)]);
        assert_eq!(after(&lines), Next::Act(Letter::D));
    }

    fn any_log() -> impl Strategy<Value = Vec<(&'static str, Event)>> {
        let events = prop::sample::select(vec![
            Event::Begin,
            Event::Done,
            Event::Failed,
            Event::UndoBegin,
            Event::Undone,
            Event::Struggling,
            Event::CancelRequested,
            Event::Note,
        ]);
        prop::collection::vec((prop::sample::select(vec!["a", "b", "c", "d", "?"]), events), 0..40)
    }

    proptest! {
        #[test]
        fn every_log_has_an_answer_and_following_it_ends(mut lines in any_log()) {
            for _ in 0..20 {
                match after(&lines) {
                    Next::Act(step) => lines.extend([(step.name(), Event::Begin), (step.name(), Event::Done)]),
                    Next::Undo(step) => lines.push((step.name(), Event::Undone)),
                    Next::Succeed | Next::Fail { .. } => lines.push(("", Event::End)),
                    Next::Nothing => return Ok(()),
                }
            }
            prop_assert!(false, "no end");
        }

        #[test]
        fn once_committed_never_undone(lines in any_log()) {
            let progress = Progress::<Letter>::read(lines.iter().copied());
            if progress.committed() {
                let back = matches!(next(&progress), Next::Undo(_) | Next::Fail { .. });
                prop_assert!(!back, "{progress:?}");
            }
        }
    }
}
