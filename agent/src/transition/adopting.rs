//! A tenant that was there before this ledger becomes part of it.

use feather_proto::error::Error;

use super::{Next, wrong_state};
use crate::{
    adoption::Candidate,
    ledger::{Desired, Record, Residence, Spec, Volume},
};

/// It lives here from now on, as it is: running when it runs, stopped when it does not and nobody wishes that it be started. Only a name that this ledger knows nothing
/// of; whatever else is recorded was decided by somebody, and is not overruled by what happens to lie around.
pub(crate) fn admit_adopt(record: Option<&Record>, candidate: &Candidate) -> Result<Next, Error> {
    if let Some(record) = record {
        return Err(wrong_state(record, "only a tenant that this server has no record of can be adopted"));
    }
    let generation = candidate.seen.next();
    let desired = if candidate.start { Desired::Run } else { Desired::Stop };
    Ok(Next::Write(Record {
        residence: Residence::Active { desired, provisioning: None },
        spec: Some(Spec {
            placed: generation,
            port: candidate.port,
            password: candidate.password.clone(),
            image: candidate.image.clone(),
            image_digest: candidate.image_digest.clone(),
            created: candidate.created,
            found_data: true,
            adopted: candidate.running.clone(),
            limits: Default::default(),
        }),
        volume: Volume::whole(generation, None),
        ..Record::floor(candidate.tenant.clone(), generation)
    }))
}
