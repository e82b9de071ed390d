//! What moves left that no operation goes on with, as of a store that was lost: nothing is begun on it that could not be undone there, or
//! that could run twice. `adoption.rs` clears it away.

use feather_proto::{
    error::{Error, reason},
    ids::{ServerName, TenantName},
    model::{Residence, TenantReport},
};

use super::{Intent, nothing_began};
use crate::adoption::{self, Names};

impl Intent {
    /// A move that no operation goes on with, as of a store that was lost, may have left its half on the target. An agent takes nothing else of
    /// that tenant before it is given back, and an operation could not even be undone there.
    pub(super) async fn nothing_came(&self, tenant: &TenantName, target: &ServerName) -> Result<(), Error> {
        let came = |report: &TenantReport| report.incoming.is_some();
        if !self.world.fleet.tenant(target, tenant).is_some_and(|report| came(&report)) {
            return Ok(());
        }
        // Nothing holds the tenant: what was reported may be of an operation that has just ended.
        let now = self.world.look(target).await.map_err(nothing_began)?;
        let Some(report) = now.tenant(tenant).filter(|report| came(report)) else { return Ok(()) };
        Err(Error::refused(
            reason::WRONG_STATE,
            format!(
                "{target} still has what came of {tenant} in a move that no operation goes on with (generation {}); it is given back when the \
                 original is in sight, and `featherctl server show {target}` says what that waits for. Until then choose another server",
                report.generation
            ),
        ))
    }

    /// One that stands still in a move that no operation goes on with may have been taken over by the target of that move.
    pub(super) async fn may_run(&self, tenant: &TenantName, home: &ServerName) -> Result<(), Error> {
        let still = |report: &TenantReport| report.residence == Residence::Sealed;
        if !self.world.fleet.tenant(home, tenant).is_some_and(|report| still(&report)) {
            return Ok(());
        }
        // What was reported may be of an operation that has just ended.
        let now = self.world.look(home).await.map_err(nothing_began)?;
        let Some(report) = now.tenant(tenant).cloned().filter(still) else { return Ok(()) };
        let names = Names::read(&self.world).await?;
        match self.world.fleet.with(|observed| adoption::served_elsewhere(home, &report, observed, &names)) {
            Some(why) => Err(Error::refused(reason::WRONG_STATE, format!("{tenant} is not started: {why}"))),
            None => Ok(()),
        }
    }
}
