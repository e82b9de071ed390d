//! Lost servers on the wire: what is asked, and what would become of each tenant.

use feather_proto::{error::Error, model::invalid_field, pb::controller::v1 as pb};
use time::OffsetDateTime;

use super::{given, optional};
use crate::{
    intent::{Fate, Losing, Recovery},
    recovery::Wish,
};

fn wish(from: pb::RecoverFrom) -> Wish {
    match from {
        pb::RecoverFrom::Unspecified => Wish::Newest,
        pb::RecoverFrom::Copy => Wish::Copy,
        pb::RecoverFrom::Backup => Wish::Backup,
    }
}

pub(super) fn losing(message: &pb::LoseServerRequest) -> Result<Losing, Error> {
    let parallel = u8::try_from(message.parallel).map_err(|_| invalid_field("parallel", "from 1 to 16, or 0 for 2"))?;
    Ok(Losing { confirm: message.confirm.clone(), wish: wish(message.from()), to: given(&message.to)?, parallel })
}

pub(super) fn recovery(message: &pb::RecoverTenantRequest) -> Result<Recovery, Error> {
    Ok(Recovery { wish: wish(message.from()), to: given(&message.to)?, part_of: None })
}

pub(super) fn fates(fates: Vec<Fate>, now: OffsetDateTime) -> Vec<pb::LostTenant> {
    let encode = |one: Fate| pb::LostTenant {
        tenant: one.tenant.into(),
        target: optional(one.target),
        data: one.data.map(|data| data.told(Some(now))).unwrap_or_default(),
        why: one.why,
        removed: one.removed,
    };
    fates.into_iter().map(encode).collect()
}
