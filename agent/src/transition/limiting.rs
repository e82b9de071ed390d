//! What a tenant may use from now on: whether it may be so, and what is recorded.

use feather_proto::{
    error::{Error, reason},
    ids::{Generation, TenantName},
    limits::Limits,
};

use super::{Next, fence, not_found, wrong_state};
use crate::{
    ledger::{Record, Residence, Spec},
    runtime::{Capacity, Resources},
};

/// What a change of limits needs to know of the world.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LimitFacts {
    /// What the tenant uses now; none when it does not run.
    pub(crate) used: Option<Resources>,
    pub(crate) capacity: Capacity,
}

/// A tenant that lives here shall have these limits, in place of those that it has.
pub(crate) fn admit_limits(
    record: Option<&Record>,
    tenant: &TenantName,
    generation: Generation,
    limits: Limits,
    facts: &LimitFacts,
) -> Result<Next, Error> {
    fence(record, tenant, generation)?;
    let current = record.ok_or_else(|| not_found(tenant))?;
    let (Residence::Active { provisioning: None, .. }, Some(spec)) = (&current.residence, &current.spec) else {
        return Err(wrong_state(current, "its limits can be set on the server where it lives"));
    };
    // Nothing about the world can speak against what is so already: a repeated call gets the answer of the first.
    if spec.limits == limits {
        return Ok(Next::Unchanged(current.clone()));
    }
    if limits.revision <= spec.limits.revision {
        return Err(Error::stale(
            reason::STALE_GENERATION,
            format!(
                "a newer change of the limits of {tenant} was seen here (revision {}, this call has {}); look at it with `featherctl tenant \
                 show {tenant}`",
                spec.limits.revision, limits.revision
            ),
        )
        .with("tenant", tenant));
    }
    within(tenant, limits, &spec.limits, facts).map_err(|error| error.with("tenant", tenant))?;
    Ok(Next::Write(Record { generation, spec: Some(Spec { limits, ..spec.clone() }), ..current.clone() }))
}

/// Only what becomes less or more is judged: a limit that stays is no reason to refuse another.
fn within(tenant: &TenantName, limits: Limits, before: &Limits, facts: &LimitFacts) -> Result<(), Error> {
    let (used, capacity) = (facts.used.unwrap_or_default(), facts.capacity);
    if let Some(memory) = limits.memory_bytes.filter(|_| limits.memory_bytes != before.memory_bytes) {
        if memory < used.memory_bytes {
            return Err(below_use(format!(
                "{tenant} uses {} of memory now and would be killed with a limit of {}; give it more, or restart it first if it can do \
                 with less (`featherctl tenant restart {tenant}`)",
                mebibytes(used.memory_bytes),
                mebibytes(memory)
            )));
        }
        if memory > capacity.memory_total_bytes {
            return Err(above(format!(
                "this server has {} of memory in all, which is less than the {} that {tenant} shall have; move it to a larger one first \
                 (`featherctl tenant migrate {tenant} --to SERVER`)",
                mebibytes(capacity.memory_total_bytes),
                mebibytes(memory)
            )));
        }
    }
    if let Some(cpu) = limits.cpu_millis.filter(|_| limits.cpu_millis != before.cpu_millis)
        && u64::from(cpu) > u64::from(capacity.cores) * 1000
    {
        return Err(above(format!(
            "this server has {} processor cores, so {tenant} cannot have {} of them; `none` takes the limit away, or move it to a larger \
             one first (`featherctl tenant migrate {tenant} --to SERVER`)",
            capacity.cores,
            f64::from(cpu) / 1000.0
        )));
    }
    if let Some(pids) = limits.pids.filter(|pids| limits.pids != before.pids && *pids < used.pids) {
        return Err(below_use(format!(
            "{tenant} has {} processes and threads now and could start none with a limit of {pids}; give it more",
            used.pids
        )));
    }
    Ok(())
}

fn below_use(message: String) -> Error {
    Error::refused(reason::LIMIT_BELOW_USE, message)
}

fn above(message: String) -> Error {
    Error::full(reason::NO_ROOM, message)
}

fn mebibytes(bytes: u64) -> String {
    format!("{} MiB", bytes.div_ceil(1 << 20))
}

#[cfg(test)]
mod tests {
    use feather_proto::{error::reason, ids::Generation, limits::Limits};
    use time::OffsetDateTime;

    use super::{LimitFacts, admit_limits};
    use crate::{
        ledger::{Desired, Provisioning, Record, Residence, Spec, Volume},
        password::Password,
        runtime::{Capacity, Resources},
        transition::Next,
    };

    const NOW: Generation = Generation(5);

    fn living() -> Record {
        let tenant = "alice".parse().unwrap();
        Record {
            residence: Residence::Active { desired: Desired::Run, provisioning: None },
            spec: Some(Spec {
                placed: Generation(3),
                port: 9001,
                password: Password::generate(10).unwrap(),
                image: "work".into(),
                image_digest: "sha256:1".into(),
                created: OffsetDateTime::UNIX_EPOCH,
                found_data: false,
                adopted: Some("ab".into()),
                limits: Limits { memory_bytes: Some(512 << 20), revision: 2, ..Limits::default() },
            }),
            volume: Volume::whole(Generation(3), None),
            ..Record::floor(tenant, NOW)
        }
    }

    fn facts() -> LimitFacts {
        let capacity = Capacity {
            memory_total_bytes: 4 << 30,
            memory_free_bytes: 1 << 30,
            disk_total_bytes: 0,
            disk_free_bytes: 0,
            cores: 2,
        };
        LimitFacts { used: Some(Resources { memory_bytes: 300 << 20, pids: 40, ..Resources::default() }), capacity }
    }

    fn next(record: &Record, generation: Generation, limits: Limits) -> Result<Next, String> {
        let decided = admit_limits(Some(record), &record.tenant, generation, limits, &facts());
        decided.map_err(|error| error.reason)
    }

    const MORE: Limits = Limits { memory_bytes: Some(1 << 30), cpu_millis: Some(2000), pids: Some(64), revision: 3 };

    #[test]
    fn a_change_is_recorded_once_and_an_older_one_that_comes_late_is_refused() {
        let Next::Write(changed) = next(&living(), NOW, MORE).unwrap() else { panic!("it is news") };
        assert_eq!(changed.spec.as_ref().unwrap().limits, MORE);
        assert_eq!(changed.spec.as_ref().unwrap().adopted, Some("ab".into()), "its container runs on");
        assert_eq!(next(&changed, NOW, MORE).unwrap(), Next::Unchanged(changed.clone()));
        for stale in [Limits { revision: 2, ..MORE }, Limits { memory_bytes: None, ..MORE }] {
            assert_eq!(next(&changed, NOW, stale).unwrap_err(), reason::STALE_GENERATION);
        }
        assert_eq!(next(&living(), Generation(4), MORE).unwrap_err(), reason::STALE_GENERATION);
    }

    #[test]
    fn what_it_uses_and_what_there_is_are_the_ends() {
        let refused = |limits| next(&living(), NOW, limits).unwrap_err();
        assert_eq!(refused(Limits { memory_bytes: Some(299 << 20), ..MORE }), reason::LIMIT_BELOW_USE);
        assert_eq!(refused(Limits { pids: Some(39), ..MORE }), reason::LIMIT_BELOW_USE);
        assert_eq!(refused(Limits { memory_bytes: Some(5 << 30), ..MORE }), reason::NO_ROOM);
        assert_eq!(refused(Limits { cpu_millis: Some(2001), ..MORE }), reason::NO_ROOM);
        for fits in [
            Limits { memory_bytes: Some(300 << 20), pids: Some(40), ..MORE },
            Limits { memory_bytes: Some(4 << 30), ..MORE },
            Limits { memory_bytes: None, cpu_millis: None, pids: None, ..MORE },
        ] {
            assert!(matches!(next(&living(), NOW, fits).unwrap(), Next::Write(_)), "{fits:?}");
        }
        // It came from a larger server with more cores than there are here: that says nothing against other limits.
        let mut moved = living();
        moved.spec.as_mut().unwrap().limits.cpu_millis = Some(8000);
        assert!(next(&moved, NOW, Limits { cpu_millis: Some(8000), ..MORE }).is_ok());
        let idle = LimitFacts { used: None, ..facts() };
        let low = Limits { memory_bytes: Some(64 << 20), ..MORE };
        assert!(
            admit_limits(Some(&living()), &living().tenant, NOW, low, &idle).is_ok(),
            "what is stopped uses nothing"
        );
    }

    #[test]
    fn only_where_it_lives() {
        let provisioning = Some(Provisioning { volume_is_new: true });
        for residence in [
            Residence::Absent,
            Residence::Sealed,
            Residence::Departed { forward_to: None },
            Residence::Active { desired: Desired::Run, provisioning },
        ] {
            let record = Record { residence, ..living() };
            assert_eq!(next(&record, NOW, MORE).unwrap_err(), reason::WRONG_STATE);
        }
        let nobody = admit_limits(None, &living().tenant, NOW, MORE, &facts()).unwrap_err();
        assert_eq!(nobody.reason, reason::TENANT_NOT_FOUND);
    }
}
