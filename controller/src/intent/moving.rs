//! Plans moves: where to, by which way, and what that will take.

use feather_proto::{
    error::{Error, reason},
    ids::{OperationId, ServerName, TenantName},
    labels::Labels,
    model::invalid_field,
};
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::sync::MutexGuard;

use super::{Intent, Planned, Proposal, Request, no_room, nothing_began, to_json};
use crate::{
    agents::VolumeNow,
    fleet,
    operations::{
        Kind,
        migrate::{Ahead, Measured, Past, Plan, Prediction, predict},
    },
    placement::{self, Bounds, Candidate, Decision, Promise},
    rename,
    store::{OperationRow, TenantRow},
};

/// How long a move's source copy is kept unless the caller says otherwise.
const KEEP_SOURCE_DEFAULT_SECONDS: u64 = 7 * 24 * 3600;
/// Longer than any fleet, and far from what a calendar cannot hold.
const KEEP_SOURCE_MAX_SECONDS: u64 = 10 * 365 * 24 * 3600;
/// A lower limit would keep a tenant waiting for days.
const RATE_BYTES_MIN: u64 = 16 * 1024;
/// So many earlier moves are experience enough.
const PAST_MAX: u32 = 50;

/// Where a move goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Destination {
    /// There.
    Server(ServerName),
    /// Wherever placement says.
    Placement,
    /// To where it came from.
    Back,
    /// There, as far as what the tenant is bound to allows it.
    IfAllowed(ServerName),
}

impl Destination {
    fn word(&self) -> String {
        match self {
            Destination::Server(server) => server.to_string(),
            Destination::Placement => String::new(),
            Destination::Back => "<back>".into(),
            Destination::IfAllowed(server) => format!("<if-allowed>{server}"),
        }
    }
}

/// That a move is part of another operation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// Which.
    pub operation: OperationId,
    /// It leaves its home only for now.
    pub sends_away: bool,
}

/// The way that the data of a move takes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Flow {
    /// What goes between both servers in a second at most.
    pub bytes_per_second_max: Option<u64>,
    /// The controller stands between both agents.
    pub relayed: bool,
}

impl Flow {
    pub(super) fn check(&self) -> Result<(), Error> {
        if self.bytes_per_second_max.is_some_and(|limit| limit < RATE_BYTES_MIN) {
            return Err(invalid_field("bytes_per_second_max", "0 for no limit, or at least 16 KiB"));
        }
        Ok(())
    }
}

/// How a tenant is to be moved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Move {
    /// Where to.
    pub to: Destination,
    /// How long the source's copy is kept; 0 for the usual time.
    pub keep_source_seconds: u64,
    /// The way that its data takes.
    pub flow: Flow,
    /// Labels that the target must have, beside those that the tenant is bound to.
    pub on: Labels,
    /// Moves that a dry run planned before this one.
    pub planned_before: Vec<Promise>,
    /// What it is a part of.
    pub part: Option<Part>,
}

impl Move {
    /// There, as moves usually are.
    pub fn to(to: Destination) -> Self {
        Self {
            to,
            keep_source_seconds: 0,
            flow: Flow::default(),
            on: Labels::default(),
            planned_before: Vec::new(),
            part: None,
        }
    }

    /// What is compared when the request id comes again.
    fn asked(&self, tenant: &TenantName) -> Result<serde_json::Value, Error> {
        let mut asked = json!({
            "migrate": tenant,
            "to": self.to.word(),
            "keep": self.keep_source_seconds,
            "limit": self.flow.bytes_per_second_max,
            "relayed": self.flow.relayed,
        });
        if !self.on.is_empty() {
            asked["on"] = to_json(&self.on)?;
        }
        Ok(asked)
    }

    fn check(&self) -> Result<(), Error> {
        if self.keep_source_seconds > KEEP_SOURCE_MAX_SECONDS {
            return Err(invalid_field("keep_source_seconds", "at most 315360000 (ten years)"));
        }
        self.flow.check()
    }
}

/// What was chosen for a move.
struct Place {
    decision: Decision,
    target: ServerName,
    prediction: Result<Prediction, String>,
}

impl Intent {
    /// Moves a tenant.
    pub async fn migrate(&self, request: &Request, wanted: &Move) -> Result<Planned, Error> {
        wanted.check()?;
        let asked = wanted.asked(&request.tenant)?;
        if let Some(known) = self.known(request, &asked).await? {
            return Ok(known);
        }
        let (row, source) = self.living(&request.tenant).await?;
        let only = match &wanted.to {
            Destination::Server(server) | Destination::IfAllowed(server) => Some(server.clone()),
            Destination::Placement => None,
            Destination::Back => Some(row.previous_server.clone().ok_or_else(|| never_moved(&request.tenant))?),
        };
        if only.as_ref() == Some(&source) {
            return Err(Error::refused(
                reason::WRONG_STATE,
                format!("{} lives on {source} already; nothing to do", request.tenant),
            ));
        }
        if let Some(only) = &only {
            self.member(only).await?;
        }
        let report = self.movable(&request.tenant, &source).await?;
        let image_digest = report.image_digest.ok_or_else(|| Error::bug("a living tenant without an image"))?;
        let volume = self.world.agent(&source).await?.volume(&request.tenant).await.map_err(nothing_began)?;
        let need = placement::Need {
            volume_bytes: volume.disk_bytes,
            image_digest: Some(image_digest.clone()),
            only,
            except: Some(source.clone()),
            bounds: bounds(&row, wanted)?,
            ..fleet::need(&self.world).of(&row.name, &row.limits)
        };
        let (Place { decision, target, prediction }, _placing) =
            self.place(&request.tenant, &row, &source, &volume, &need, wanted).await?;
        let unmet = decision
            .verdicts
            .first()
            .map(|(best, _)| row.bounds.unmet(Some(&row.name), &best.server, &best.labels, &best.groups));
        let left = decision.verdicts.first().map(|(best, _)| after(best, &need));
        let plan = Plan {
            source: source.clone(),
            target: target.clone(),
            image_digest,
            source_generation: row.generation,
            volume_bytes: volume.disk_bytes,
            running: row.running,
            keep_source_seconds: match wanted.keep_source_seconds {
                0 => KEEP_SOURCE_DEFAULT_SECONDS,
                seconds => seconds,
            },
            bytes_per_second_max: wanted.flow.bytes_per_second_max,
            relayed: wanted.flow.relayed,
            predicted: prediction.as_ref().ok().cloned(),
            sent_away_by: wanted.part.as_ref().filter(|part| part.sends_away).map(|part| part.operation.clone()),
        };
        let mut explanation = decision.explanation();
        // Who names a server is not bound, but should know.
        if let Some(unmet) = unmet.filter(|unmet| !unmet.is_empty()) {
            explanation.push(format!(
                "{target} is outside of what {} is bound to: {}",
                request.tenant,
                unmet.join(", ")
            ));
        }
        explanation.push(format!("{} bytes on disk to move from {source} to {target}", volume.disk_bytes));
        let proposal = Proposal {
            parent: wanted.part.as_ref().map(|part| part.operation.clone()),
            target: Some(target),
            volume_bytes: volume.disk_bytes,
            ..Proposal::of(Kind::Migrate, asked, source, to_json(&plan)?, explanation, row)
        };
        Ok(Planned { prediction: Some(prediction), left, ..self.begin(request, proposal).await? })
    }

    /// Where the tenant goes, and what keeps that place free for it until the operation is in the store.
    ///
    /// The target is asked without keeping anybody else's request waiting, because it may not answer for long; so the place may be
    /// taken meanwhile, and then there is another choice.
    async fn place(
        &self,
        tenant: &TenantName,
        row: &TenantRow,
        source: &ServerName,
        volume: &VolumeNow,
        need: &placement::Need,
        wanted: &Move,
    ) -> Result<(Place, MutexGuard<'_, ()>), Error> {
        loop {
            let decision = self.choose(need, wanted).await?;
            let target = decision.chosen.clone().ok_or_else(|| no_room(tenant, &decision))?;
            let ahead = self.ahead(tenant, volume, &target, wanted, row.running).await;
            let prediction = self.predicted(source, &target, &ahead).await?;
            let placing = self.world.placing.lock().await;
            let still = self.choose(&placement::Need { only: Some(target.clone()), ..need.clone() }, wanted).await?;
            if still.chosen.is_some() {
                return Ok((Place { decision, target, prediction }, placing));
            }
        }
    }

    async fn choose(&self, need: &placement::Need, wanted: &Move) -> Result<Decision, Error> {
        let candidates = placement::without(self.candidates().await?, &wanted.planned_before);
        Ok(placement::choose(candidates, need))
    }

    /// What the target lacks: what has changed since the last pass, if it still has what that one left there.
    async fn ahead(
        &self,
        tenant: &TenantName,
        volume: &VolumeNow,
        target: &ServerName,
        wanted: &Move,
        running: bool,
    ) -> Ahead {
        // Without an answer it has nothing: at most more is predicted than comes.
        let there = async { self.world.agent(target).await?.volume(tenant).await }.await.ok();
        let same = |kept: &VolumeNow| kept.pass_digest.is_some() && kept.pass_digest == volume.pass_digest;
        Ahead {
            files: volume.entries,
            bytes: volume.bytes,
            bytes_lacking: if there.as_ref().is_some_and(same) { volume.bytes_changed } else { volume.bytes },
            bytes_per_second_max: wanted.flow.bytes_per_second_max,
            relayed: wanted.flow.relayed,
            running,
        }
    }

    async fn predicted(
        &self,
        source: &ServerName,
        target: &ServerName,
        ahead: &Ahead,
    ) -> Result<Result<Prediction, String>, Error> {
        let renamings = self.world.store.renamings().await?;
        let today = |row: &OperationRow| {
            let past = Measured::past(row)?;
            let called = |name| rename::called_now(name, row.created, &renamings);
            Some(Past { source: called(&past.source)?, target: called(&past.target)?, ..past })
        };
        let past: Vec<_> = self.world.store.moves(PAST_MAX).await?.iter().filter_map(today).collect();
        Ok(predict(&past, source, target, ahead))
    }
}

/// What the target must be: of the tenant's own bounds only where placement chooses.
fn bounds(row: &TenantRow, wanted: &Move) -> Result<Bounds, Error> {
    let bound = matches!(wanted.to, Destination::Placement | Destination::IfAllowed(_));
    let own = if bound { row.bounds.clone() } else { Bounds::default() };
    let on = own.on.and(&wanted.on).map_err(|error| {
        error.context(format!(
            "{0} is bound to other servers (`featherctl tenant place {0}` changes that, --to names a server all the same)",
            row.name
        ))
    })?;
    Ok(Bounds { on, ..own })
}

/// What a server has left when it has taken this.
fn after(candidate: &Candidate, need: &placement::Need) -> Candidate {
    let mut left = placement::without(vec![candidate.clone()], &[need.promise(candidate.server.clone())]);
    left.pop().unwrap_or_else(|| candidate.clone())
}

fn never_moved(tenant: &TenantName) -> Error {
    Error::refused(
        reason::WRONG_STATE,
        format!("{tenant} has not moved yet, so there is nothing to go back to; say where with --to"),
    )
}
