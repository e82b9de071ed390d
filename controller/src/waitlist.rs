//! The waitlists of all servers as one, and how somebody on them becomes a tenant.
//!
//! Owns folding, and that an address is invited once: the invitation is noted before its addition begins, and stands as long as
//! that has not failed. Who signed up is known to the servers alone and asked of them each time; addresses never go into a log.

mod naming;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use feather_proto::{
    email::EmailAddress,
    error::{Error, reason},
    ids::{ServerName, TenantName},
};
use futures::{
    FutureExt as _,
    future::{BoxFuture, join_all},
};
use time::OffsetDateTime;
use tokio::sync::Mutex;
use uuid::Uuid;

use crate::{
    agents::{Agent, SignUp, SignUps},
    fleet::Reachability,
    intent::{self, Home, Intent, Planned},
    store::{Invitation, ServerRow, TenantState, server_not_found},
    world::World,
};

/// An address, where and when it signed up first, and whether it was invited.
#[derive(Clone)]
pub struct Entry {
    /// As it was typed.
    pub email: EmailAddress,
    /// Where.
    pub server: ServerName,
    /// When.
    pub signed_up: OffsetDateTime,
    /// When it was invited, and whom it became.
    pub invited: Option<(OffsetDateTime, TenantName)>,
}

/// Everybody, as far as servers can be asked.
pub struct Listed {
    /// The earliest first.
    pub entries: Vec<Entry>,
    /// Servers that could not be asked.
    pub unreachable: Vec<ServerName>,
    /// What is wrong with servers' waitlists.
    pub problems: Vec<String>,
}

/// What a removal did.
pub struct Removed {
    /// Servers that had the address.
    pub servers: Vec<ServerName>,
    /// Whom it had become.
    pub tenant: Option<TenantName>,
}

/// Who is to be invited.
pub struct Invite {
    /// Chosen by the caller; also that of the addition.
    pub request_id: Uuid,
    /// Who.
    pub email: EmailAddress,
    /// What to call the tenant; by default something like what stands before the `@`.
    pub tenant: Option<TenantName>,
    /// Where to put it.
    pub server: Option<ServerName>,
    /// Who asks.
    pub requested_by: String,
    /// Only plan.
    pub dry_run: bool,
}

/// The waitlist of the fleet.
pub struct Waitlist {
    world: Arc<World>,
    intent: Intent,
    /// Held from looking for an invitation to the beginning of its addition.
    inviting: Mutex<()>,
}

impl Waitlist {
    /// Over this world.
    pub fn new(world: Arc<World>, intent: Intent) -> Self {
        Self { world, intent, inviting: Mutex::default() }
    }

    /// Everybody who signed up, on one server or on any.
    pub async fn list(&self, only: Option<&ServerName>) -> Result<Listed, Error> {
        let mut members = self.world.store.servers().await?;
        if let Some(only) = only {
            let only = self.world.store.member(only).await?;
            members.retain(|row| row.name == only.name);
        }
        let answers = ask(&self.world, members, |agent| async move { agent.sign_ups().await }.boxed()).await;
        let invitations = self.world.store.invitations().await?;
        Ok(fold(answers, &invitations))
    }

    /// Forgets an address everywhere, and that it was invited.
    pub async fn remove(&self, email: &EmailAddress) -> Result<Removed, Error> {
        let members = self.world.store.servers().await?;
        let (mut servers, mut silent) = (Vec::new(), Vec::new());
        let remove = |agent: Arc<dyn Agent>| {
            let email = email.clone();
            async move { agent.remove_sign_up(&email).await }.boxed()
        };
        for (server, answer) in ask(&self.world, members, remove).await {
            match answer {
                Ok(true) => servers.push(server),
                Ok(false) => {}
                Err(_) => silent.push(server),
            }
        }
        let invitation = self.world.store.invitation(&email.key()).await?;
        if !silent.is_empty() {
            let message = format!(
                "{} cannot be asked, and the address may be there; the other servers have forgotten it: repeat the command when all answer",
                names(&silent)
            );
            return Err(Error::refused(reason::SERVER_UNREACHABLE, message));
        }
        if servers.is_empty() && invitation.is_none() {
            return Err(not_listed());
        }
        self.world.store.forget_invitation(&email.key(), None).await?;
        Ok(Removed { servers, tenant: invitation.filter(Invitation::stands).map(|one| one.tenant) })
    }

    /// Adds a tenant for an address, once.
    pub async fn invite(&self, invite: &Invite) -> Result<(TenantName, Planned), Error> {
        let _one_at_a_time = self.inviting.lock().await;
        let address = invite.email.key();
        let known = self.world.store.invitation(&address).await?;
        if let Some(known) = &known {
            // The first answer was lost, or the controller ended between the note and the beginning.
            if known.request_id == invite.request_id {
                return self.add(invite, known.tenant.clone()).await;
            }
            if known.stands() {
                return Err(invited_before(known));
            }
        }
        self.require_listed(&invite.email).await?;
        let tenant = self.name(invite).await?;
        if invite.dry_run {
            return self.add(invite, tenant).await;
        }
        let note = Invitation {
            address,
            tenant: tenant.clone(),
            request_id: invite.request_id,
            at: self.world.clock.now(),
            operation: None,
        };
        self.world.store.note_invitation(&note, known.map(|known| known.request_id)).await?;
        let added = self.add(invite, tenant).await;
        if added.as_ref().is_err_and(|error| !error.code.retryable()) {
            // Nothing began, so there is nothing to remember.
            self.world.store.forget_invitation(&note.address, Some(note.request_id)).await?;
        }
        added
    }

    async fn add(&self, invite: &Invite, tenant: TenantName) -> Result<(TenantName, Planned), Error> {
        let request = intent::Request {
            request_id: invite.request_id,
            tenant: tenant.clone(),
            requested_by: invite.requested_by.clone(),
            dry_run: invite.dry_run,
        };
        Ok((tenant, self.intent.add(&request, Home::on(invite.server.clone())).await?))
    }

    async fn require_listed(&self, email: &EmailAddress) -> Result<(), Error> {
        let members = self.world.store.servers().await?;
        let look = |agent: Arc<dyn Agent>| {
            let email = email.clone();
            async move { agent.sign_up(&email).await }.boxed()
        };
        let answers = ask(&self.world, members, look).await;
        if answers.iter().any(|(_, answer)| matches!(answer, Ok(Some(_)))) {
            return Ok(());
        }
        let silent: Vec<_> = answers.into_iter().filter(|(_, answer)| answer.is_err()).map(|(name, _)| name).collect();
        if silent.is_empty() {
            return Err(not_listed());
        }
        let message = format!("the address is on no server that answers, and {} cannot be asked", names(&silent));
        Err(Error::refused(reason::SERVER_UNREACHABLE, message))
    }

    async fn name(&self, invite: &Invite) -> Result<TenantName, Error> {
        let taken = self.taken().await?;
        let Some(wanted) = &invite.tenant else { return Ok(naming::derive(invite.email.local(), &taken)) };
        if taken.contains(wanted) {
            return Err(Error::exists(
                reason::TENANT_EXISTS,
                format!(
                    "{wanted} is somebody's name, or was and its data is kept; choose another: `featherctl tenant list --all` shows them"
                ),
            )
            .with("tenant", wanted));
        }
        Ok(wanted.clone())
    }

    /// Names that belong to somebody: a newcomer must not find somebody else's data.
    async fn taken(&self) -> Result<BTreeSet<TenantName>, Error> {
        // What an addition has just left behind or taken back is not in the last report yet.
        let members = self.world.store.servers().await?;
        let answers =
            |row: &&ServerRow| !matches!(self.world.fleet.observed(&row.name).reachability, Reachability::Silent(_));
        join_all(members.iter().filter(answers).map(|row| self.world.look_again(&row.name))).await;
        let rows = self.world.store.tenants().await?;
        let mut taken: BTreeSet<_> = rows
            .into_iter()
            .filter(|row| row.state != TenantState::Removed || row.server.is_some())
            .map(|row| row.name)
            .collect();
        for observed in self.world.fleet.all().into_values() {
            let Some(snapshot) = observed.snapshot else { continue };
            taken.extend(snapshot.volumes.iter().map(|volume| volume.tenant.clone()));
        }
        Ok(taken)
    }
}

/// Asks all servers at once; one that is not connected is not waited for.
async fn ask<T: Send + 'static>(
    world: &World,
    members: Vec<ServerRow>,
    call: impl Fn(Arc<dyn Agent>) -> BoxFuture<'static, Result<T, Error>>,
) -> Vec<(ServerName, Result<T, Error>)> {
    let way_to = |row: &ServerRow| match world.fleet.observed(&row.name).reachability {
        Reachability::Silent(why) => Err(Error::unavailable(reason::SERVER_UNREACHABLE, why)),
        Reachability::Connecting | Reachability::Alive => world.agents.agent(&row.name, &row.principal(), &row.address),
    };
    let calls: Vec<_> = members
        .iter()
        .map(|row| match way_to(row) {
            Ok(agent) => call(agent),
            Err(error) => std::future::ready(Err(error)).boxed(),
        })
        .collect();
    members.into_iter().map(|row| row.name).zip(join_all(calls).await).collect()
}

/// What is on one server's waitlist alone, without a word of who it is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OnlyThere {
    /// So many signed up there, on no other server that answers, and were not invited.
    pub count: usize,
    /// What is wrong with the list: there may be more.
    pub problem: Option<String>,
}

/// Looks what would be lost with a server's waitlist.
///
/// # Errors
/// The server cannot be asked.
pub async fn only_on(world: &World, server: &ServerName) -> Result<OnlyThere, Error> {
    let members = world.store.servers().await?;
    let answers = ask(world, members, |agent| async move { agent.sign_ups().await }.boxed()).await;
    let invitations = world.store.invitations().await?;
    let (here, elsewhere): (Vec<_>, Vec<_>) = answers.into_iter().partition(|(name, _)| name == server);
    let (_, here) = here.into_iter().next().ok_or_else(|| server_not_found(server))?;
    // Of one that does not answer nobody knows whom it has.
    let elsewhere: Vec<_> = elsewhere.into_iter().filter_map(|(_, answer)| answer.ok()).collect();
    Ok(only_there(here.map_err(intent::nothing_began)?, &elsewhere, &invitations))
}

fn only_there(here: SignUps, elsewhere: &[SignUps], invitations: &[Invitation]) -> OnlyThere {
    let others = elsewhere.iter().flat_map(|all| &all.entries).map(|entry| entry.email.key());
    let invited = invitations.iter().filter(|one| one.stands()).map(|one| one.address.clone());
    let known: BTreeSet<_> = others.chain(invited).collect();
    let mine: BTreeSet<_> = here.entries.iter().map(|entry| entry.email.key()).collect();
    OnlyThere { count: mine.difference(&known).count(), problem: here.problem }
}

/// One list of many: an address counts once, with its earliest time.
fn fold(answers: Vec<(ServerName, Result<SignUps, Error>)>, invitations: &[Invitation]) -> Listed {
    let (mut unreachable, mut problems) = (Vec::new(), Vec::new());
    let mut first: BTreeMap<String, (ServerName, SignUp)> = BTreeMap::new();
    for (server, answer) in answers {
        let Ok(all) = answer else {
            unreachable.push(server);
            continue;
        };
        problems.extend(all.problem.map(|problem| format!("{server}: {problem}")));
        for entry in all.entries {
            let key = entry.email.key();
            if first.get(&key).is_none_or(|(_, earlier)| entry.at < earlier.at) {
                first.insert(key, (server.clone(), entry));
            }
        }
    }
    let invited: BTreeMap<_, _> =
        invitations.iter().filter(|one| one.stands()).map(|one| (one.address.as_str(), one)).collect();
    let mut entries: Vec<_> = first
        .into_iter()
        .map(|(key, (server, entry))| Entry {
            invited: invited.get(key.as_str()).map(|one| (one.at, one.tenant.clone())),
            email: entry.email,
            server,
            signed_up: entry.at,
        })
        .collect();
    entries.sort_by_key(|entry| entry.signed_up);
    Listed { entries, unreachable, problems }
}

fn names(servers: &[ServerName]) -> String {
    servers.iter().map(ServerName::as_str).collect::<Vec<_>>().join(", ")
}

fn not_listed() -> Error {
    Error::not_found(
        reason::NOT_ON_WAITLIST,
        "the address is not on the waitlist; `featherctl waitlist list` shows who is, and `featherctl tenant add NAME` adds a tenant \
         for anybody",
    )
}

fn invited_before(known: &Invitation) -> Error {
    let tenant = &known.tenant;
    let day = known.at.date();
    let error = Error::exists(
        reason::ALREADY_INVITED,
        format!(
            "the address was invited on {day} and became the tenant {tenant}; `featherctl tenant show {tenant}` shows it, `featherctl \
             tenant password {tenant}` sets a new password"
        ),
    );
    let error = error.with("tenant", tenant);
    match &known.operation {
        Some((id, _)) => error.with("operation", id),
        None => error,
    }
}

#[cfg(test)]
mod tests {
    use feather_proto::error::{Error, reason};
    use time::{Duration, OffsetDateTime};
    use uuid::Uuid;

    use super::{OnlyThere, fold, only_there};
    use crate::{
        agents::{SignUp, SignUps},
        operations::State,
        store::Invitation,
    };

    fn at(seconds: i64) -> OffsetDateTime {
        OffsetDateTime::UNIX_EPOCH + Duration::seconds(seconds)
    }

    fn signed_up(entries: &[(&str, i64)]) -> Result<SignUps, Error> {
        let entries = entries.iter().map(|(email, seconds)| SignUp { email: email.parse().unwrap(), at: at(*seconds) });
        Ok(SignUps { entries: entries.collect(), problem: None })
    }

    fn invitation(address: &str, tenant: &str, state: Option<State>) -> Invitation {
        let id = feather_proto::ids::OperationId::from_uuid(Uuid::nil());
        Invitation {
            address: address.into(),
            tenant: tenant.parse().unwrap(),
            request_id: Uuid::nil(),
            at: at(100),
            operation: state.map(|state| (id, state)),
        }
    }

    #[test]
    fn the_lists_of_all_servers_are_one_list_in_which_everybody_is_once() {
        let answers = vec![
            ("fra".parse().unwrap(), signed_up(&[("zoe@example.org", 3), ("ADA@example.org", 9)])),
            ("nyc".parse().unwrap(), signed_up(&[("ada@example.org", 5)])),
            ("sin".parse().unwrap(), Err(Error::unavailable(reason::SERVER_UNREACHABLE, "gone"))),
        ];
        let listed = fold(answers, &[]);
        let shown: Vec<_> =
            listed.entries.iter().map(|one| (one.email.as_str(), one.server.as_str(), one.signed_up)).collect();
        assert_eq!(shown, [("zoe@example.org", "fra", at(3)), ("ada@example.org", "nyc", at(5))]);
        assert_eq!(listed.unreachable.len(), 1);
    }

    #[test]
    fn who_is_on_one_list_alone_and_was_not_invited_would_be_lost_with_it() {
        let all = |entries: &[(&str, i64)]| signed_up(entries).unwrap();
        let here =
            || all(&[("ada@example.org", 1), ("ADA@example.org", 2), ("zoe@example.org", 3), ("bea@example.org", 4)]);
        let count =
            |elsewhere: &[SignUps], invitations: &[Invitation]| only_there(here(), elsewhere, invitations).count;
        assert_eq!(count(&[], &[]), 3, "an address is one");
        assert_eq!(count(&[all(&[("Zoe@example.org", 9)])], &[]), 2);
        let came_of_it = invitation("bea@example.org", "bea", Some(State::Succeeded));
        let nothing_came = invitation("ada@example.org", "ada", Some(State::Failed));
        assert_eq!(count(&[all(&[("zoe@example.org", 9)])], &[came_of_it, nothing_came]), 1);
        let unread = SignUps { entries: vec![], problem: Some("unreadable".into()) };
        assert_eq!(only_there(unread, &[], &[]), OnlyThere { count: 0, problem: Some("unreadable".into()) });
    }

    #[test]
    fn only_an_invitation_that_something_came_of_is_shown() {
        let states = [None, Some(State::Failed), Some(State::Cancelled), Some(State::Running), Some(State::Succeeded)];
        for state in states {
            let answers = vec![("nyc".parse().unwrap(), signed_up(&[("ada@example.org", 1)]))];
            let listed = fold(answers, &[invitation("ada@example.org", "ada", state)]);
            let stands = matches!(state, Some(State::Running | State::Succeeded));
            assert_eq!(listed.entries[0].invited.is_some(), stands, "{state:?}");
        }
    }
}
