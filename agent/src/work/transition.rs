//! What may become of the record of the admin container. Pure: every refusal of a swap is here.

use feather_proto::error::{Code, Error, reason};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use uuid::Uuid;

use super::record::{Colour, Ended, Failure, Instance, Record, Stage, Swap};

/// Who drives a swap.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum By {
    /// Somebody who repeats calls until they are answered.
    Caller,
    /// This process; when it ends, nobody does.
    Agent,
}

/// A swap to try.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TryRequest {
    pub(crate) request: Uuid,
    /// Empty: the server's work image.
    pub(crate) asked: String,
    pub(crate) by: By,
    /// What the image is found to be, by name and digest.
    pub(crate) image: Option<(String, String)>,
}

/// What becomes of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Trial {
    /// Prove this one; write the record first if there is a new one.
    Prove { candidate: Instance, write: Option<Box<Record>> },
    /// The swap has ended well: this one serves.
    Serves(Instance),
}

/// What becomes of a commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Commit {
    /// Prove it once more, then write that it serves.
    Prove(Instance),
    /// It serves; the old one is to end.
    Finish,
    /// All was done.
    Done,
}

/// Another swap is refused at once; it need not wait for the end of the one under way.
pub(crate) fn refuse_another(record: &Record, request: Uuid) -> Result<(), Error> {
    record.swap.as_ref().filter(|swap| swap.request != request).map_or(Ok(()), |swap| Err(running(swap)))
}

/// Whoever waited for his turn while another swap was done meant the admin container that served before it.
pub(crate) fn refuse_overtaken(before: &Record, now: &Record) -> Result<(), Error> {
    if let Some(swap) = &now.swap {
        return Err(running(swap));
    }
    if before.last == now.last {
        return Ok(());
    }
    Err(Error::stale(
        reason::WORLD_CHANGED,
        "another swap of the admin container came in between; nothing more was changed: look what serves now, and swap again if that is \
         not it",
    ))
}

fn running(swap: &Swap) -> Error {
    Error::refused(
        reason::OPERATION_RUNNING,
        format!(
            "another swap of the admin container is under way ({}); wait for its end: `featherctl operation list` shows it if it came \
             from the controller",
            swap.request
        ),
    )
}

fn as_before(ended: &Ended) -> Result<(), Error> {
    match &ended.failure {
        None => Ok(()),
        Some(failure) => {
            // The word is one of ours; which one, only the program that reads the answer needs to know.
            Err(Error::new(Code::Refused, word(&failure.reason), failure.message.clone()))
        }
    }
}

/// The reason words that a failed swap can have.
fn word(reason: &str) -> &'static str {
    [reason::NEVER_HEALTHY, reason::IMAGE_MISSING, reason::RUNTIME, reason::CANCELLED]
        .into_iter()
        .find(|known| *known == reason)
        .unwrap_or(reason::WRONG_STATE)
}

/// Where the next one is started: where none serves.
fn next_colour(record: &Record) -> Colour {
    record.serving.as_ref().map_or(Colour::Blue, |serving| serving.colour.other())
}

/// A new admin container is to be proved.
pub(crate) fn admit_try(record: &Record, asked: &TryRequest) -> Result<Trial, Error> {
    if let Some(ended) = record.last.as_ref().filter(|ended| ended.request == asked.request) {
        as_before(ended)?;
        return record.serving.clone().map(Trial::Serves).ok_or_else(no_swap);
    }
    if let Some(swap) = &record.swap {
        if swap.request != asked.request {
            return Err(running(swap));
        }
        if swap.asked != asked.asked {
            return Err(Error::invalid(
                reason::REQUEST_ID_REUSED,
                "this request id was used for a swap to another image; choose a new one for each swap",
            ));
        }
        return match &swap.stage {
            Stage::Trying { candidate } => Ok(Trial::Prove { candidate: candidate.clone(), write: None }),
            Stage::Draining { .. } => record.serving.clone().map(Trial::Serves).ok_or_else(no_swap),
        };
    }
    let Some((image, image_digest)) = asked.image.clone() else {
        return Err(Error::refused(
            reason::IMAGE_MISSING,
            format!("the image {} is not in this server's storage; nothing was changed", asked.asked),
        ));
    };
    let candidate = Instance { colour: next_colour(record), image, image_digest };
    let stage = Stage::Trying { candidate: candidate.clone() };
    let swap = Swap { request: asked.request, asked: asked.asked.clone(), by: asked.by, stage };
    Ok(Trial::Prove { candidate, write: Some(Box::new(Record { swap: Some(swap), ..record.clone() })) })
}

fn no_swap() -> Error {
    Error::refused(
        reason::WRONG_STATE,
        "there is no such swap on this server; begin one anew, the admin container serves as before",
    )
}

/// The new one is to serve.
pub(crate) fn admit_commit(record: &Record, request: Uuid) -> Result<Commit, Error> {
    if let Some(ended) = record.last.as_ref().filter(|ended| ended.request == request) {
        return as_before(ended).map(|()| Commit::Done);
    }
    match record.swap.as_ref().filter(|swap| swap.request == request).map(|swap| &swap.stage) {
        Some(Stage::Trying { candidate }) => Ok(Commit::Prove(candidate.clone())),
        Some(Stage::Draining { .. }) => Ok(Commit::Finish),
        None => Err(no_swap()),
    }
}

/// The new one is not wanted any more. The record without it, and the container to remove; none when nothing is left to do.
pub(crate) fn admit_abandon(
    record: &Record,
    request: Uuid,
    now: OffsetDateTime,
) -> Result<Option<(Record, Instance)>, Error> {
    let committed =
        || Error::refused(reason::NOT_CANCELLABLE, "the new admin container serves already; swap again to go back");
    if record.last.as_ref().is_some_and(|ended| ended.request == request && ended.failure.is_none()) {
        return Err(committed());
    }
    match record.swap.as_ref().filter(|swap| swap.request == request).map(|swap| &swap.stage) {
        Some(Stage::Trying { candidate }) => {
            let failure = Failure { reason: reason::CANCELLED.into(), message: "the swap was cancelled".into() };
            Ok(Some((ended(record, Some(failure), now), candidate.clone())))
        }
        Some(Stage::Draining { .. }) => Err(committed()),
        None => Ok(None),
    }
}

/// Requests go to the new one from here on.
pub(crate) fn switched(record: &Record) -> Record {
    match &record.swap {
        Some(Swap { stage: Stage::Trying { candidate }, .. }) => {
            let stage = Stage::Draining { old: record.serving.clone() };
            let swap = record.swap.clone().map(|swap| Swap { stage, ..swap });
            Record { serving: Some(candidate.clone()), swap, last: record.last.clone() }
        }
        _ => record.clone(),
    }
}

/// The swap is over.
pub(crate) fn ended(record: &Record, failure: Option<Failure>, at: OffsetDateTime) -> Record {
    let last = record.swap.as_ref().map(|swap| Ended { request: swap.request, at, failure });
    Record { serving: record.serving.clone(), swap: None, last: last.or_else(|| record.last.clone()) }
}

#[cfg(test)]
mod tests {
    use feather_proto::error::reason;
    use time::OffsetDateTime;
    use uuid::Uuid;

    use super::{
        By, Commit, Trial, TryRequest, admit_abandon, admit_commit, admit_try, ended, refuse_another, refuse_overtaken,
        switched,
    };
    use crate::work::record::{Colour, Failure, Instance, Record, Stage};

    const NOW: OffsetDateTime = OffsetDateTime::UNIX_EPOCH;

    fn instance(colour: Colour, digest: &str) -> Instance {
        Instance { colour, image: "work".into(), image_digest: digest.into() }
    }

    fn serving(colour: Colour) -> Record {
        Record { serving: Some(instance(colour, "old")), ..Record::default() }
    }

    fn asked(number: u128) -> TryRequest {
        let image = Some(("work".to_owned(), "new".to_owned()));
        TryRequest { request: Uuid::from_u128(number), asked: String::new(), by: By::Caller, image }
    }

    fn begun(record: &Record, number: u128) -> Record {
        match admit_try(record, &asked(number)).unwrap() {
            Trial::Prove { write: Some(record), .. } => *record,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_colours_serve_in_turns() {
        let mut record = Record::default();
        for (number, colour) in [Colour::Blue, Colour::Green, Colour::Blue].into_iter().enumerate() {
            let tried = begun(&record, number as u128);
            assert_eq!((tried.candidate().map(|one| one.colour), &tried.serving), (Some(colour), &record.serving));
            let after = switched(&tried);
            assert_eq!(after.swap.as_ref().unwrap().stage, Stage::Draining { old: record.serving.clone() });
            record = ended(&after, None, NOW);
            assert_eq!((record.serving.as_ref().unwrap().colour, &record.swap), (colour, &None));
        }
    }

    #[test]
    fn repeated_calls_get_the_same_answer_at_every_stage() {
        let before = serving(Colour::Blue);
        let tried = begun(&before, 1);
        let candidate = instance(Colour::Green, "new");
        assert_eq!(admit_try(&tried, &asked(1)).unwrap(), Trial::Prove { candidate: candidate.clone(), write: None });
        assert_eq!(admit_commit(&tried, Uuid::from_u128(1)).unwrap(), Commit::Prove(candidate.clone()));
        let draining = switched(&tried);
        assert_eq!(admit_try(&draining, &asked(1)).unwrap(), Trial::Serves(candidate.clone()));
        assert_eq!(admit_commit(&draining, Uuid::from_u128(1)).unwrap(), Commit::Finish);
        assert_eq!(switched(&draining), draining);
        let done = ended(&draining, None, NOW);
        assert_eq!(admit_try(&done, &asked(1)).unwrap(), Trial::Serves(candidate));
        assert_eq!(admit_commit(&done, Uuid::from_u128(1)).unwrap(), Commit::Done);
        for committed in [&draining, &done] {
            let error = admit_abandon(committed, Uuid::from_u128(1), NOW).unwrap_err();
            assert_eq!(error.reason, reason::NOT_CANCELLABLE);
        }
    }

    #[test]
    fn one_swap_at_a_time_and_a_request_id_means_one_image() {
        let tried = begun(&serving(Colour::Green), 1);
        assert_eq!(admit_try(&tried, &asked(2)).unwrap_err().reason, reason::OPERATION_RUNNING);
        let other = TryRequest { asked: "other".into(), ..asked(1) };
        assert_eq!(admit_try(&tried, &other).unwrap_err().reason, reason::REQUEST_ID_REUSED);
        assert_eq!(admit_commit(&tried, Uuid::from_u128(2)).unwrap_err().reason, reason::WRONG_STATE);
    }

    #[test]
    fn who_asks_once_is_refused_while_another_swap_is_under_way_and_when_one_came_in_between() {
        let before = serving(Colour::Blue);
        let tried = begun(&before, 1);
        let done = ended(&switched(&tried), None, NOW);
        for under_way in [&tried, &switched(&tried)] {
            assert_eq!(refuse_another(under_way, Uuid::from_u128(2)).unwrap_err().reason, reason::OPERATION_RUNNING);
            assert_eq!(refuse_overtaken(&before, under_way).unwrap_err().reason, reason::OPERATION_RUNNING);
        }
        assert_eq!(refuse_overtaken(&before, &done).unwrap_err().reason, reason::WORLD_CHANGED);
        // The first admin container came to serve meanwhile, which is what the swap is about.
        refuse_overtaken(&Record::default(), &before).unwrap();
        refuse_overtaken(&done, &done).unwrap();
    }

    #[test]
    fn a_swap_that_came_to_nothing_leaves_what_serves_and_is_remembered() {
        let before = serving(Colour::Blue);
        let tried = begun(&before, 1);
        let failure = Failure { reason: reason::NEVER_HEALTHY.into(), message: "it did not answer".into() };
        let failed = ended(&tried, Some(failure), NOW);
        assert_eq!((&failed.serving, &failed.swap), (&before.serving, &None));
        let again = admit_try(&failed, &asked(1)).unwrap_err();
        assert_eq!((again.reason.as_ref(), again.message.as_str()), (reason::NEVER_HEALTHY, "it did not answer"));
        assert_eq!(admit_abandon(&failed, Uuid::from_u128(1), NOW).unwrap(), None);

        let (abandoned, candidate) = admit_abandon(&tried, Uuid::from_u128(1), NOW).unwrap().unwrap();
        assert_eq!((&abandoned.serving, candidate.colour), (&before.serving, Colour::Green));
        assert_eq!(admit_try(&abandoned, &asked(1)).unwrap_err().reason, reason::CANCELLED);
        assert_eq!(admit_commit(&abandoned, Uuid::from_u128(1)).unwrap_err().reason, reason::CANCELLED);
        assert_eq!(admit_abandon(&before, Uuid::from_u128(1), NOW).unwrap(), None, "one that never came");
    }

    #[test]
    fn without_its_image_nothing_is_begun() {
        let missing = TryRequest { image: None, ..asked(1) };
        assert_eq!(admit_try(&serving(Colour::Blue), &missing).unwrap_err().reason, reason::IMAGE_MISSING);
    }
}
