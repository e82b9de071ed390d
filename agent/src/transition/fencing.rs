//! What is left of a tenant's record on a server that the fleet has taken out.

use crate::ledger::{Record, Residence, Volume};

/// Nothing of it starts by itself again, also after this server has joined anew: the fleet has given the tenant another home meanwhile, or
/// will. Data stays, without an end, as a copy that does not pass for the newest. The generation stays the floor that it was.
pub(crate) fn fenced(record: &Record) -> Record {
    let residence = match record.volume {
        Volume::None => Residence::Absent,
        Volume::Incomplete { .. } | Volume::Complete { .. } => Residence::Departed { forward_to: None },
    };
    Record {
        residence,
        incoming: None,
        spec: None,
        volume: record.volume.clone().kept_until(None),
        failed_add: None,
        last_reset: None,
        hold: None,
        ..record.clone()
    }
}

#[cfg(test)]
mod tests {
    use feather_proto::{
        ids::Generation,
        model::{Image, IncomingStage, VolumeExpectation},
    };
    use time::OffsetDateTime;

    use super::fenced;
    use crate::{
        ledger::{Desired, Incoming, Record, Residence, Volume},
        password::Password,
        transition::{AddFacts, AddRequest, admit_add, admit_start},
    };

    const NOW: OffsetDateTime = OffsetDateTime::UNIX_EPOCH;

    fn record(residence: Residence, volume: Volume) -> Record {
        Record { residence, volume, ..Record::floor("alice".parse().unwrap(), Generation(5)) }
    }

    fn whole() -> Volume {
        Volume::whole(Generation(5), None)
    }

    #[test]
    fn whatever_it_was_it_runs_no_more_and_keeps_its_data_and_its_floor() {
        let incoming = Incoming {
            generation: Generation(5),
            port: 9001,
            image_digest: String::new(),
            stage: IncomingStage::Trial,
            spec: None,
        };
        let active = |desired| Residence::Active { desired, provisioning: None };
        let away = Residence::Departed { forward_to: Some("fra:80".into()) };
        for residence in [active(Desired::Run), active(Desired::Stop), Residence::Sealed, away, Residence::Absent] {
            for incoming in [None, Some(incoming.clone())] {
                let before = Record { incoming, ..record(residence.clone(), whole().kept_until(Some(NOW))) };
                let after = fenced(&before);
                assert_eq!(after.residence, Residence::Departed { forward_to: None }, "{before:?}");
                assert_eq!((after.generation, &after.volume), (Generation(5), &whole()), "{before:?}");
                assert!(!after.should_run() && after.on_trial().is_none() && after.ports().next().is_none());
                assert_eq!(fenced(&after), after, "twice is once");
            }
        }
        let empty = fenced(&record(Residence::Departed { forward_to: Some("fra:80".into()) }, Volume::None));
        assert_eq!(empty, Record::floor("alice".parse().unwrap(), Generation(5)));
    }

    #[test]
    fn what_is_kept_is_neither_started_nor_taken_for_the_newest() {
        let kept = fenced(&record(Residence::Active { desired: Desired::Run, provisioning: None }, whole()));
        let tenant = kept.tenant.clone();
        for generation in [5, 6] {
            admit_start(Some(&kept), &tenant, Generation(generation)).unwrap_err();
        }
        let limits = Default::default();
        let request = |volume| AddRequest {
            tenant: tenant.clone(),
            generation: Generation(9),
            image: "work".into(),
            volume,
            limits,
        };
        let facts = AddFacts {
            image: Some(Image { reference: "work".into(), digest: "sha256:1".into(), size_bytes: 1 }),
            port: Some(9001),
            volume_exists: true,
            password: Password::generate(10).unwrap(),
            now: NOW,
        };
        for expectation in [VolumeExpectation::Any, VolumeExpectation::Kept] {
            admit_add(Some(&kept), &request(expectation), &facts).unwrap_err();
        }
    }
}
