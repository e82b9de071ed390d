//! Plans drains and returns: who moves, in which order, and whether the rest of the fleet can hold them.

use feather_proto::{
    error::{Error, reason},
    ids::{ServerName, TenantName},
    model::invalid_field,
};
use futures::{FutureExt as _, StreamExt as _, stream};
use serde_json::json;

use super::{Asker, Flow, Intent, Planned, Proposal, to_json};
use crate::{
    fleet,
    operations::{
        Kind, Subject,
        resettle::{self, Way},
    },
    placement::{
        self, Candidate, Verdict,
        several::{Seat, choose_all},
    },
    store::{TenantRow, TenantState},
};

/// Most moves at once, and how many without a wish.
const PARALLEL_MAX: u8 = 16;
const PARALLEL_DEFAULT: u8 = 2;
/// Longer than anybody waits.
const DEADLINE_MAX_SECONDS: u64 = 30 * 24 * 3600;
/// Volumes that are asked for at once.
const ASKED_AT_ONCE: usize = 8;

/// How a server is to be emptied or filled again.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Resettling {
    /// Where to, instead of wherever placement says. Only for a drain.
    pub to: Option<ServerName>,
    /// Moves at once; 0 for the usual number.
    pub parallel: u8,
    /// After that no more moves begin; 0 for no limit.
    pub deadline_seconds: u64,
    /// Also when not everybody fits.
    pub partial: bool,
    /// The way that the data of each move takes.
    pub flow: Flow,
}

/// Where one of them would go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Foreseen {
    /// Who.
    pub tenant: TenantName,
    /// From where.
    pub source: ServerName,
    /// To where, if it fits anywhere.
    pub target: Option<ServerName>,
    /// Bytes of its volume on disk.
    pub volume_bytes: u64,
    /// Why it fits nowhere; empty otherwise.
    pub why: String,
}

impl Intent {
    /// Moves everybody away from a server.
    ///
    /// # Errors
    /// No such server, it cannot be reached, it is emptied or filled already, or (unless `partial` says so) the others cannot hold
    /// everybody.
    pub async fn drain(
        &self,
        request: &Asker,
        server: &ServerName,
        wanted: &Resettling,
    ) -> Result<(Planned, Vec<Foreseen>), Error> {
        if wanted.to.as_ref() == Some(server) {
            return Err(invalid_field("to", "another server than the one that is drained"));
        }
        if let Some(to) = &wanted.to {
            self.member(to).await?;
        }
        self.resettle(request, server, wanted, Way::Drain).await
    }

    /// Brings home those that a drain sent away from a server and that still live elsewhere.
    ///
    /// # Errors
    /// As for [`Intent::drain`].
    pub async fn bring_home(
        &self,
        request: &Asker,
        server: &ServerName,
        wanted: &Resettling,
    ) -> Result<(Planned, Vec<Foreseen>), Error> {
        self.resettle(request, server, wanted, Way::Return).await
    }

    async fn resettle(
        &self,
        request: &Asker,
        server: &ServerName,
        wanted: &Resettling,
        way: Way,
    ) -> Result<(Planned, Vec<Foreseen>), Error> {
        let parallel = if wanted.parallel == 0 { PARALLEL_DEFAULT } else { wanted.parallel };
        if parallel > PARALLEL_MAX {
            return Err(invalid_field("parallel", "from 1 to 16, or 0 for 2"));
        }
        if wanted.deadline_seconds > DEADLINE_MAX_SECONDS {
            return Err(invalid_field("deadline_seconds", "at most 2592000 (30 days), or 0 for none"));
        }
        wanted.flow.check()?;
        let kind = if way == Way::Drain { Kind::Drain } else { Kind::Return };
        let mut asked = json!({ "to": wanted.to, "parallel": parallel, "deadline": wanted.deadline_seconds, "partial": wanted.partial });
        asked[kind.name()] = json!(server);
        if wanted.flow != Flow::default() {
            asked["flow"] = to_json(&wanted.flow)?;
        }
        let subject = Subject::Residents(server.clone());
        if let Some(known) = self.known_on(&subject, request, &asked).await? {
            return Ok((known, Vec::new()));
        }
        let member = self.world.store.member(server).await?;
        self.reachable(server)?;
        let movers = self.movers(server, way).await?;
        let seats = self.seats(server, movers, wanted.to.as_ref(), way).await?;
        let foreseen: Vec<_> = seats.iter().map(|(home, seat)| foresee(home, seat)).collect();
        let left: Vec<_> = foreseen.iter().filter(|one| one.target.is_none()).collect();
        if !left.is_empty() && !wanted.partial && !request.dry_run {
            let reasons: Vec<_> = left.iter().map(|one| format!("{}: {}", one.tenant, one.why)).collect();
            let message = format!(
                "{} of {} could not be moved; nothing was changed (--partial moves the others all the same):\n{}",
                left.len(),
                foreseen.len(),
                reasons.join("\n")
            );
            return Err(Error::refused(reason::NO_ROOM, message).with("server", server));
        }
        let seconds = i64::try_from(wanted.deadline_seconds).unwrap_or(i64::MAX);
        let deadline = (seconds > 0).then(|| self.world.clock.now() + time::Duration::seconds(seconds));
        let plan = resettle::Plan {
            server: server.clone(),
            way,
            tenants: foreseen.iter().map(|one| one.tenant.clone()).collect(),
            to: wanted.to.clone(),
            parallel,
            flow: wanted.flow,
            deadline_ms: deadline.map(|at| i64::try_from(at.unix_timestamp_nanos() / 1_000_000).unwrap_or(i64::MAX)),
            cordoned_before: member.upkeep.cordoned,
            requested_by: request.requested_by.clone(),
        };
        let explanation = vec![explain(server, way, &foreseen)];
        let proposal = Proposal::on(kind, asked, server.clone(), to_json(&plan)?, explanation);
        Ok((self.begin_on(subject, request, proposal).await?, foreseen))
    }

    /// Who has to move, with the rows that say where from.
    async fn movers(&self, server: &ServerName, way: Way) -> Result<Vec<(TenantRow, ServerName)>, Error> {
        let store = &self.world.store;
        let away = if way == Way::Return { store.sent_away(server).await? } else { Vec::new() };
        let living = store.tenants().await?.into_iter().filter(|row| row.state == TenantState::Active);
        let moves = living.filter_map(|row| {
            let home = row.server.clone()?;
            let at_home = home == *server;
            let wanted = match way {
                Way::Drain => at_home,
                Way::Return => !at_home && away.contains(&row.name),
            };
            wanted.then_some((row, home))
        });
        Ok(moves.collect())
    }

    /// Decides for all of them at once.
    async fn seats(
        &self,
        server: &ServerName,
        movers: Vec<(TenantRow, ServerName)>,
        to: Option<&ServerName>,
        way: Way,
    ) -> Result<Vec<(ServerName, Seat)>, Error> {
        let asking: Vec<_> = movers.iter().map(|(row, home)| self.need_of(row, home).boxed()).collect();
        let needs: Vec<_> = stream::iter(asking).buffered(ASKED_AT_ONCE).collect().await;
        let only = if way == Way::Return { Some(server) } else { to };
        let wanted = movers.iter().zip(needs).map(|((row, home), need)| {
            let bounds = if way == Way::Return { placement::Bounds::default() } else { row.bounds.clone() };
            let need = placement::Need { only: only.cloned(), except: Some(home.clone()), bounds, ..need };
            (row.name.clone(), need)
        });
        let mut candidates: Vec<Candidate> = self.candidates().await?;
        for candidate in candidates.iter_mut().filter(|one| one.server == *server) {
            // As it will be when the moves begin.
            candidate.cordoned = way == Way::Drain;
        }
        let seats = choose_all(&candidates, wanted.collect());
        let from = |seat: Seat| {
            let home = movers.iter().find(|(row, _)| row.name == seat.tenant).map(|(_, home)| home.clone())?;
            Some((home, seat))
        };
        Ok(seats.into_iter().filter_map(from).collect())
    }

    /// What a tenant needs where it goes, as far as its server says.
    async fn need_of(&self, row: &TenantRow, home: &ServerName) -> placement::Need {
        // Without an answer it is planned as if it had no data; its own move looks again before it begins.
        let volume = async { self.world.agent(home).await?.volume(&row.name).await }.await.ok();
        let report = self.world.fleet.tenant(home, &row.name);
        placement::Need {
            volume_bytes: volume.map_or(0, |volume| volume.disk_bytes),
            image_digest: report.and_then(|report| report.image_digest),
            ..fleet::need(&self.world).of(&row.name, &row.limits)
        }
    }
}

fn foresee(home: &ServerName, seat: &Seat) -> Foreseen {
    let target = seat.decision.chosen.clone();
    let against = seat.decision.explanation();
    // That it does not stay where it is goes without saying, and so do servers that nobody asked for.
    let telling = seat.decision.verdicts.iter().zip(against);
    let telling = telling.filter(|((_, verdict), _)| !matches!(verdict, Verdict::Left | Verdict::NotWanted));
    let why: Vec<_> = telling.map(|(_, line)| line).collect();
    let why = match (&target, why.is_empty()) {
        (Some(_), _) => String::new(),
        (None, true) => "there is no other server".to_owned(),
        (None, false) => why.join(", "),
    };
    Foreseen { tenant: seat.tenant.clone(), source: home.clone(), target, volume_bytes: seat.need.volume_bytes, why }
}

fn explain(server: &ServerName, way: Way, foreseen: &[Foreseen]) -> String {
    let fits = foreseen.iter().filter(|one| one.target.is_some()).count();
    let (what, all) = (if way == Way::Drain { "leave" } else { "come home to" }, foreseen.len());
    format!("{all} tenants are to {what} {server}, {fits} of them fit as things stand")
}
