//! What differs between the record of the admin container and the server. Pure.

use std::collections::BTreeMap;

use feather_proto::model::ContainerState;

use super::{
    By,
    record::{Colour, Record, Stage},
};

/// A container of ours as the engine shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Seen {
    pub(super) state: ContainerState,
    pub(super) image_digest: String,
}

/// What the engine shows, while no call is busy with the admin container.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Observed {
    pub(super) containers: BTreeMap<Colour, Seen>,
    /// The one that serves runs and does not answer.
    pub(super) unhealthy: bool,
}

/// The next thing to do. One at a time: the next pass looks again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Action {
    /// There was never one: the first is decided on.
    First,
    /// One runs that no record knows: it is taken as it is.
    Adopt { colour: Colour, image_digest: String },
    /// Make sure that the one that serves exists as recorded, and runs.
    Run,
    /// End it and start it again.
    Restart,
    /// Go on with a swap that was committed.
    Finish,
    /// Give up a swap whose driver is gone.
    GiveUp,
    /// Remove a container that nothing accounts for.
    Remove(Colour),
    /// There shall be none: the one that served goes.
    Withdraw,
}

/// `wanted`: this server shall have an admin container.
pub(super) fn diff(record: &Record, observed: &Observed, wanted: bool) -> Option<Action> {
    let running =
        |colour: Colour| observed.containers.get(&colour).is_some_and(|seen| seen.state == ContainerState::Running);
    match record.swap.as_ref().map(|swap| (&swap.stage, swap.by)) {
        Some((Stage::Draining { .. }, _)) => return Some(Action::Finish),
        // No call is busy, or nobody would look here.
        Some((Stage::Trying { .. }, By::Agent)) => return Some(Action::GiveUp),
        Some((Stage::Trying { .. }, By::Caller)) | None => {}
    }
    let Some(serving) = record.serving.as_ref().map(|serving| serving.colour) else {
        // The candidate of a swap is nobody's find.
        let unknown = |colour: &Colour| record.candidate().is_none_or(|candidate| candidate.colour != *colour);
        let found = Colour::ALL.into_iter().filter(unknown).find(|colour| running(*colour));
        return match (wanted, found, &record.swap) {
            (false, ..) => None,
            (true, Some(colour), _) => {
                let image_digest = observed.containers.get(&colour)?.image_digest.clone();
                Some(Action::Adopt { colour, image_digest })
            }
            // A swap is on its way to become the first.
            (true, None, Some(_)) => None,
            (true, None, None) => Some(Action::First),
        };
    };
    if !wanted {
        return record.swap.is_none().then_some(Action::Withdraw);
    }
    if !running(serving) {
        return Some(Action::Run);
    }
    if observed.unhealthy {
        return Some(Action::Restart);
    }
    let stray = serving.other();
    let accounted = record.candidate().is_some_and(|candidate| candidate.colour == stray);
    (observed.containers.contains_key(&stray) && !accounted).then_some(Action::Remove(stray))
}

#[cfg(test)]
mod tests {
    use feather_proto::model::ContainerState::{self, Created, Exited, Running};
    use uuid::Uuid;

    use super::{Action, Observed, Seen, diff};
    use crate::work::{
        By,
        record::{Colour, Instance, Record, Stage, Swap},
    };

    const BLUE: Colour = Colour::Blue;
    const GREEN: Colour = Colour::Green;

    fn instance(colour: Colour) -> Instance {
        Instance { colour, image: "work".into(), image_digest: "digest".into() }
    }

    fn record(serving: Option<Colour>, swap: Option<(Stage, By)>) -> Record {
        let swap = swap.map(|(stage, by)| Swap { request: Uuid::nil(), asked: String::new(), by, stage });
        Record { serving: serving.map(instance), swap, last: None }
    }

    fn seen(containers: &[(Colour, ContainerState)]) -> Observed {
        let seen = |state| Seen { state, image_digest: "digest".into() };
        Observed {
            containers: containers.iter().map(|(colour, state)| (*colour, seen(*state))).collect(),
            unhealthy: false,
        }
    }

    #[test]
    fn the_one_that_serves_runs_and_the_other_is_gone() {
        let blue = record(Some(BLUE), None);
        assert_eq!(diff(&blue, &seen(&[]), true), Some(Action::Run));
        for state in [Created, Exited] {
            assert_eq!(diff(&blue, &seen(&[(BLUE, state)]), true), Some(Action::Run));
        }
        assert_eq!(diff(&blue, &seen(&[(BLUE, Running)]), true), None);
        let unhealthy = Observed { unhealthy: true, ..seen(&[(BLUE, Running)]) };
        assert_eq!(diff(&blue, &unhealthy, true), Some(Action::Restart));
        // Serving comes first, tidying second.
        assert_eq!(diff(&blue, &seen(&[(GREEN, Running)]), true), Some(Action::Run));
        for state in [Created, Exited, Running] {
            assert_eq!(diff(&blue, &seen(&[(BLUE, Running), (GREEN, state)]), true), Some(Action::Remove(GREEN)));
        }
    }

    #[test]
    fn the_first_one_is_found_or_made() {
        let none = record(None, None);
        assert_eq!(diff(&none, &seen(&[]), true), Some(Action::First));
        assert_eq!(diff(&none, &seen(&[(BLUE, Exited)]), true), Some(Action::First));
        let adopt = |colour| Some(Action::Adopt { colour, image_digest: "digest".into() });
        assert_eq!(diff(&none, &seen(&[(BLUE, Exited), (GREEN, Running)]), true), adopt(GREEN));
        assert_eq!(diff(&none, &seen(&[(BLUE, Running), (GREEN, Running)]), true), adopt(BLUE));
        // The first one may also come by a swap; it is not taken for a find.
        let coming = record(None, Some((Stage::Trying { candidate: instance(BLUE) }, By::Caller)));
        assert_eq!(diff(&coming, &seen(&[(BLUE, Running)]), true), None);
    }

    #[test]
    fn a_swap_is_its_drivers_until_it_is_committed_and_then_goes_on_by_itself() {
        let trying = |by| record(Some(BLUE), Some((Stage::Trying { candidate: instance(GREEN) }, by)));
        let both = seen(&[(BLUE, Running), (GREEN, Running)]);
        assert_eq!(diff(&trying(By::Caller), &both, true), None);
        assert_eq!(
            diff(&trying(By::Caller), &seen(&[(GREEN, Running)]), true),
            Some(Action::Run),
            "the old one serves"
        );
        assert_eq!(diff(&trying(By::Agent), &both, true), Some(Action::GiveUp));
        for by in [By::Caller, By::Agent] {
            let draining = record(Some(GREEN), Some((Stage::Draining { old: Some(instance(BLUE)) }, by)));
            assert_eq!(diff(&draining, &both, true), Some(Action::Finish));
        }
    }

    #[test]
    fn where_there_shall_be_none_only_our_own_goes() {
        assert_eq!(diff(&record(Some(BLUE), None), &seen(&[(BLUE, Running)]), false), Some(Action::Withdraw));
        assert_eq!(diff(&record(None, None), &seen(&[(BLUE, Running)]), false), None, "somebody else's");
    }
}
