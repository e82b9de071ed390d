//! The truths that must hold on this server: which containers run, and which routes the router has.
//!
//! Level-triggered: every pass reads everything and compares, so that the first pass after a reboot, a retry and a change are
//! the same code. Owns [`diff`], which is pure, and the loop that applies it. Knows no calls and no controller: a server
//! brings its tenants back alone. A tenant that a call is busy with is left to that call.

mod backoff;
mod pass;

use std::collections::{BTreeMap, BTreeSet};

use feather_proto::{ids::TenantName, model::ContainerState};
use time::OffsetDateTime;

use crate::ledger::{Desired, Record, Residence, Volume};

pub(crate) use backoff::Backoff;
pub(crate) use pass::{Changes, run};

/// What the engine shows.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Observed {
    /// Containers of tenants.
    pub(crate) containers: BTreeMap<TenantName, ContainerState>,
    /// Volumes of tenants.
    pub(crate) volumes: BTreeSet<TenantName>,
    /// Tenants whose running container this process has made sure of.
    pub(crate) settled: BTreeSet<TenantName>,
    /// Tenants that have not answered for too long.
    pub(crate) unhealthy: BTreeSet<TenantName>,
}

/// What shall be done about one tenant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Action {
    /// Make sure that its container exists as recorded, and runs.
    Run,
    /// End its process, which runs and answers nobody, and start it again.
    Restart,
    /// Go on with an add that was cut off.
    Provision,
    /// End its process.
    Stop,
    /// Remove its container.
    Remove,
    /// Delete its volume, whose time to be kept has passed.
    Collect,
    /// Nothing may be done; a person should know why.
    Report(String),
}

/// What differs between the records and the server, by tenant.
pub(crate) fn diff(records: &[Record], observed: &Observed, now: OffsetDateTime) -> BTreeMap<TenantName, Action> {
    let mut actions: BTreeMap<_, _> =
        records.iter().filter_map(|record| Some((record.tenant.clone(), diff_one(record, observed, now)?))).collect();
    let known: BTreeSet<_> = records.iter().map(|record| &record.tenant).collect();
    for stranger in observed.containers.keys().filter(|tenant| !known.contains(tenant)) {
        let problem = format!(
            "the container {} is unknown to this server's ledger; it is left alone until it is taken over: `featherctl server adopt`, or \
             `tenant.sh adopt` on a server that belongs to no fleet",
            stranger.container()
        );
        actions.insert(stranger.clone(), Action::Report(problem));
    }
    actions
}

fn diff_one(record: &Record, observed: &Observed, now: OffsetDateTime) -> Option<Action> {
    let tenant = &record.tenant;
    let container = observed.containers.get(tenant).copied().unwrap_or(ContainerState::Missing);
    let running = container == ContainerState::Running;
    // A trial belongs to the move that began it.
    if record.on_trial().is_some() {
        return None;
    }
    match &record.residence {
        Residence::Active { desired: Desired::Run, provisioning: Some(_) } => Some(Action::Provision),
        Residence::Active { desired: Desired::Run, provisioning: None } => {
            if let Some(problem) = unusable(record, observed) {
                return Some(Action::Report(problem));
            }
            let dead = running && observed.unhealthy.contains(tenant);
            match () {
                () if !running || !observed.settled.contains(tenant) => Some(Action::Run),
                () if dead => Some(Action::Restart),
                () => None,
            }
        }
        Residence::Active { desired: Desired::Stop, .. } | Residence::Sealed if running => Some(Action::Stop),
        Residence::Active { desired: Desired::Stop, .. } => unusable(record, observed).map(Action::Report),
        Residence::Sealed => None,
        Residence::Departed { .. } | Residence::Absent if running && record.incoming.is_some() => Some(Action::Stop),
        Residence::Absent if container != ContainerState::Missing && record.incoming.is_none() => Some(Action::Remove),
        Residence::Departed { .. } if running => Some(Action::Stop),
        Residence::Absent | Residence::Departed { .. } => expired(record, now).then_some(Action::Collect),
    }
}

/// Why a tenant may not be started on what is there. It never starts empty in place of its data.
fn unusable(record: &Record, observed: &Observed) -> Option<String> {
    match record.volume {
        Volume::Complete { .. } if observed.volumes.contains(&record.tenant) => None,
        Volume::Incomplete { .. } => Some("its volume is incomplete; it is not started".into()),
        Volume::Complete { .. } | Volume::None => Some("data expected but missing; it is not started".into()),
    }
}

fn expired(record: &Record, now: OffsetDateTime) -> bool {
    record.incoming.is_none()
        && matches!(record.volume, Volume::Complete { keep_until: Some(until), .. } if until <= now)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use feather_proto::{
        ids::{Generation, TenantName},
        model::{ContainerState, IncomingStage},
    };
    use time::{Duration, OffsetDateTime};

    use super::{Action, Observed, diff};
    use crate::ledger::{Desired, Incoming, Provisioning, Record, Residence, Volume};

    const NOW: OffsetDateTime = OffsetDateTime::UNIX_EPOCH;

    fn alice() -> TenantName {
        "alice".parse().unwrap()
    }

    fn record(residence: Residence) -> Record {
        let mut record = Record::floor(alice(), Generation(3));
        record.residence = residence;
        record.volume = Volume::whole(Generation(3), None);
        record
    }

    fn seen(container: ContainerState, volume: bool, settled: bool) -> Observed {
        let only = |wanted: bool| -> BTreeSet<TenantName> { wanted.then(alice).into_iter().collect() };
        let containers = [(alice(), container)].into_iter().filter(|(_, state)| *state != ContainerState::Missing);
        Observed {
            containers: containers.collect(),
            volumes: only(volume),
            settled: only(settled),
            unhealthy: BTreeSet::new(),
        }
    }

    fn action(record: &Record, observed: &Observed) -> Option<Action> {
        diff(std::slice::from_ref(record), observed, NOW).remove(&alice())
    }

    fn active(desired: Desired) -> Record {
        record(Residence::Active { desired, provisioning: None })
    }

    #[test]
    fn what_should_run_is_run_and_what_should_not_is_stopped() {
        use ContainerState::{Created, Exited, Missing, Running};
        let run = active(Desired::Run);
        for state in [Missing, Created, Exited] {
            assert_eq!(action(&run, &seen(state, true, true)), Some(Action::Run));
        }
        assert_eq!(action(&run, &seen(Running, true, true)), None);
        assert_eq!(action(&run, &seen(Running, true, false)), Some(Action::Run));
        let departed = record(Residence::Departed { forward_to: None });
        for resting in [active(Desired::Stop), record(Residence::Sealed), departed] {
            assert_eq!(action(&resting, &seen(Running, true, false)), Some(Action::Stop));
            for state in [Missing, Created, Exited] {
                assert_eq!(action(&resting, &seen(state, true, false)), None);
            }
        }
        assert_eq!(action(&record(Residence::Absent), &seen(Exited, true, false)), Some(Action::Remove));
    }

    #[test]
    fn only_what_serves_and_is_made_sure_of_is_restarted_for_its_health() {
        let unhealthy = |container, settled| Observed { unhealthy: [alice()].into(), ..seen(container, true, settled) };
        let run = active(Desired::Run);
        assert_eq!(action(&run, &unhealthy(ContainerState::Running, true)), Some(Action::Restart));
        assert_eq!(action(&run, &unhealthy(ContainerState::Running, false)), Some(Action::Run));
        assert_eq!(action(&run, &unhealthy(ContainerState::Exited, true)), Some(Action::Run));
        for residence in [Residence::Sealed, Residence::Absent, Residence::Departed { forward_to: None }] {
            assert_ne!(action(&record(residence), &unhealthy(ContainerState::Running, true)), Some(Action::Restart));
        }
        let adding = record(Residence::Active {
            desired: Desired::Run,
            provisioning: Some(Provisioning { volume_is_new: true }),
        });
        assert_eq!(action(&adding, &unhealthy(ContainerState::Running, true)), Some(Action::Provision));
        assert_eq!(action(&active(Desired::Stop), &unhealthy(ContainerState::Running, true)), Some(Action::Stop));
    }

    #[test]
    fn nothing_starts_without_its_data() {
        let mut run = active(Desired::Run);
        let missing = seen(ContainerState::Missing, false, false);
        assert!(matches!(action(&run, &missing), Some(Action::Report(_))));
        run.volume = Volume::None;
        assert!(matches!(action(&run, &seen(ContainerState::Exited, true, true)), Some(Action::Report(_))));
        run.volume = Volume::Incomplete { generation: Generation(3) };
        assert!(matches!(action(&run, &seen(ContainerState::Exited, true, true)), Some(Action::Report(_))));
    }

    #[test]
    fn an_add_that_was_cut_off_goes_on() {
        let provisioning = Some(Provisioning { volume_is_new: true });
        let mut add = record(Residence::Active { desired: Desired::Run, provisioning });
        add.volume = Volume::None;
        assert_eq!(action(&add, &seen(ContainerState::Missing, false, false)), Some(Action::Provision));
    }

    #[test]
    fn a_trial_is_left_to_its_move_and_what_is_left_of_one_is_stopped() {
        for residence in [Residence::Absent, Residence::Departed { forward_to: None }] {
            let mut coming = record(residence);
            for (stage, wanted) in [
                (IncomingStage::Trial, None),
                (IncomingStage::Received, Some(Action::Stop)),
                (IncomingStage::Reserved, Some(Action::Stop)),
            ] {
                coming.incoming = Some(Incoming {
                    generation: Generation(3),
                    port: 9001,
                    image_digest: String::new(),
                    stage,
                    spec: None,
                });
                assert_eq!(action(&coming, &seen(ContainerState::Running, true, false)), wanted);
                assert_eq!(action(&coming, &seen(ContainerState::Exited, true, false)), None);
            }
        }
    }

    #[test]
    fn only_an_undo_copy_whose_time_has_passed_is_collected() {
        let gone = [Residence::Absent, Residence::Departed { forward_to: None }];
        let stays = [Residence::Sealed, Residence::Active { desired: Desired::Stop, provisioning: None }];
        for (residence, collected) in gone.into_iter().map(|r| (r, true)).chain(stays.into_iter().map(|r| (r, false))) {
            let mut kept = record(residence);
            let rest = seen(ContainerState::Missing, true, false);
            assert_eq!(action(&kept, &rest), None);
            kept.volume = kept.volume.kept_until(Some(NOW + Duration::SECOND));
            assert_eq!(action(&kept, &rest), None);
            kept.volume = kept.volume.kept_until(Some(NOW));
            assert_eq!(action(&kept, &rest), collected.then_some(Action::Collect));
        }
    }

    #[test]
    fn a_container_without_a_record_is_reported_and_not_touched() {
        let actions = diff(&[], &seen(ContainerState::Running, true, false), NOW);
        assert!(matches!(actions.get(&alice()), Some(Action::Report(_))));
    }
}
