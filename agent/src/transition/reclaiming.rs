//! A copy that was left on this server becomes its tenant's data again: where its tenant lived was lost.

use feather_proto::{
    error::Error,
    ids::{Generation, TenantName},
};

use super::{Next, fence, require_whole, stale, wrong_state};
use crate::ledger::{Record, Residence};

/// What is here (with `needs_data`: a whole copy, or it is refused) is what an add under this generation will find. Everything below that
/// generation is refused from now on; itself it is left to the add.
pub(crate) fn admit_reclaim(
    record: Option<&Record>,
    tenant: &TenantName,
    generation: Generation,
    needs_data: bool,
) -> Result<Next, Error> {
    fence(record, tenant, generation)?;
    let below = Generation(generation.0 - 1);
    let floor = Record::floor(tenant.clone(), below);
    let current = record.unwrap_or(&floor);
    if current.incoming.is_some() {
        return Err(wrong_state(current, "abandon the move to this server first"));
    }
    match current.residence {
        // The add was faster than a copy of this call.
        Residence::Active { .. } if current.generation == generation => return Ok(Next::Unchanged(current.clone())),
        Residence::Active { .. } => return Err(wrong_state(current, "what lives here is no copy")),
        // What came after this call under its generation has ended.
        _ if current.generation == generation => return Err(stale(current, generation)),
        Residence::Sealed | Residence::Departed { .. } | Residence::Absent => {}
    }
    if needs_data {
        require_whole(current)?;
    }
    let next = Record {
        generation: below.max(current.generation),
        residence: Residence::Absent,
        spec: None,
        volume: current.volume.clone().kept_until(None),
        failed_add: None,
        last_reset: None,
        hold: None,
        ..current.clone()
    };
    Ok(Next::of(record, next))
}

#[cfg(test)]
mod tests {
    use feather_proto::{error::reason, ids::Generation};
    use time::OffsetDateTime;

    use super::admit_reclaim;
    use crate::{
        ledger::{Desired, Record, Residence, Volume},
        transition::Next,
    };

    fn record(residence: Residence, volume: Volume) -> Record {
        Record { residence, volume, ..Record::floor("alice".parse().unwrap(), Generation(5)) }
    }

    fn whole() -> Volume {
        Volume::whole(Generation(3), None).kept_until(Some(OffsetDateTime::UNIX_EPOCH))
    }

    fn reclaimed(record: Option<&Record>, generation: u64, needs_data: bool) -> Result<Record, String> {
        match admit_reclaim(record, &"alice".parse().unwrap(), Generation(generation), needs_data) {
            Ok(Next::Write(next) | Next::Unchanged(next)) => Ok(next),
            Err(error) => Err(error.reason),
        }
    }

    #[test]
    fn a_copy_becomes_data_without_an_end_and_the_floor_leaves_room_for_its_add() {
        let away = Residence::Departed { forward_to: Some("nyc:80".into()) };
        for residence in [Residence::Absent, away, Residence::Departed { forward_to: None }, Residence::Sealed] {
            let next = reclaimed(Some(&record(residence, whole())), 9, true).unwrap();
            assert_eq!((&next.residence, next.generation), (&Residence::Absent, Generation(8)));
            assert_eq!(next.volume, Volume::whole(Generation(3), None));
            assert_eq!(reclaimed(Some(&next), 9, true).unwrap(), next, "twice is once");
        }
    }

    #[test]
    fn what_is_no_whole_copy_is_never_taken_for_one() {
        assert_eq!(reclaimed(None, 9, true), Err(reason::DATA_MISSING.into()));
        let half = record(Residence::Absent, Volume::Incomplete { generation: Generation(4) });
        assert_eq!(reclaimed(Some(&half), 9, true), Err(reason::VOLUME_INCOMPLETE.into()));
        // Where data is imported next it need not be one.
        assert_eq!(reclaimed(None, 9, false).unwrap().generation, Generation(8));
        assert_eq!(reclaimed(Some(&half), 9, false).unwrap().volume, half.volume);
    }

    #[test]
    fn who_lives_here_and_what_was_decided_since_is_left_alone() {
        let lives = |desired| record(Residence::Active { desired, provisioning: None }, whole());
        for desired in [Desired::Run, Desired::Stop] {
            assert_eq!(reclaimed(Some(&lives(desired)), 9, true), Err(reason::WRONG_STATE.into()));
        }
        assert_eq!(reclaimed(Some(&lives(Desired::Run)), 5, true).unwrap(), lives(Desired::Run), "its own add is done");
        let absent = record(Residence::Absent, whole());
        for generation in [4, 5] {
            assert_eq!(reclaimed(Some(&absent), generation, true), Err(reason::STALE_GENERATION.into()));
        }
    }
}
