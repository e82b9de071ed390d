//! Whether the fleet has taken this server out, and that it runs none of the fleet's tenants from then on.
//!
//! Owns the mark of it, which outlives the process, and when it is made and when it goes (both pure). Only an answer of this fleet's
//! controller makes it, never silence: tenants do not depend on the controller. What becomes of records is decided in
//! `transition/fencing.rs`, how the controller is asked in `fenced/ask.rs`.

mod ask;

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::Duration,
};

use feather_proto::{
    error::{Error, reason},
    ids::ServerName,
    tls::{Identity, sha256_hex},
};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use crate::{
    agent::{Agent, locked},
    clock::{Clock as _, SystemClock},
    config::Config,
    events::Kind,
    join::Membership,
    ledger::storage::write_atomically,
};

/// Tenants wait so long for an answer when the agent starts, and no longer.
const ASK_MAX: Duration = Duration::from_secs(5);

/// What the controller said about this server's certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Answer {
    /// It is a member by it.
    Member,
    /// The certificate was revoked.
    Revoked,
    /// Nothing that says the one or the other, and why.
    Nothing(String),
}

/// That this server is out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Mark {
    /// Its name in the fleet.
    server: ServerName,
    /// SHA-256 of the certificate that was revoked, empty when nobody told. Another one in its place is a new membership.
    certificate: String,
    /// When this server heard of it.
    #[serde(with = "time::serde::rfc3339")]
    since: OffsetDateTime,
}

#[derive(Debug, Default)]
enum State {
    #[default]
    Open,
    Closed(Mark),
    /// There is a mark, and it cannot be read: somebody must look.
    Damaged,
}

/// The mark, on disk and in force. Clones share it.
#[derive(Clone, Default)]
pub(crate) struct Fence {
    file: PathBuf,
    state: Arc<Mutex<State>>,
}

impl State {
    fn take(&mut self) -> Self {
        std::mem::take(self)
    }
}

impl Fence {
    /// As an agent before this one left it. A file that cannot be read keeps tenants from running: nobody writes one without reason.
    pub(crate) fn open(file: PathBuf) -> Self {
        let state = match fs::read(&file) {
            Ok(text) => serde_json::from_slice(&text).map_or(State::Damaged, State::Closed),
            Err(error) if error.kind() == io::ErrorKind::NotFound => State::Open,
            Err(_) => State::Damaged,
        };
        Self { file, state: Arc::new(Mutex::new(state)) }
    }

    /// Is this server out?
    pub(crate) fn is_closed(&self) -> bool {
        !matches!(*locked(&self.state), State::Open)
    }

    /// The sentence for people, if this server is out.
    pub(crate) fn problem(&self) -> Option<String> {
        match &*locked(&self.state) {
            State::Open => None,
            State::Closed(mark) => Some(format!(
                "the fleet has taken {0} out ({0} was declared lost, removed or retired, or another machine has its place), as the controller \
                 said at {1}: this server runs none of its tenants, and their data is kept as it is. To use it again let it join anew \
                 (`featherctl server invite {0}`, and delete {2} first); what it keeps is then a copy, and nothing starts by itself",
                mark.server,
                moment(mark.since),
                self.file.with_file_name("agent.identity").display()
            )),
            State::Damaged => Some(format!(
                "{} says that this server is out of its fleet, and cannot be read: no tenant runs. Ask the fleet (`featherctl server list`); \
                 only if this server is a member, delete the file and restart the agent",
                self.file.display()
            )),
        }
    }

    /// The error for a call that would change a tenant of a server that is out.
    pub(crate) fn refusal(&self) -> Error {
        let why = self.problem().unwrap_or_else(|| "this server is in its fleet".to_owned());
        Error::refused(reason::REVOKED, format!("nothing was changed: {why}"))
    }

    /// Refuses whoever would change a tenant, if this server is out.
    pub(crate) fn heed(&self) -> Result<(), Error> {
        if self.is_closed() { Err(self.refusal()) } else { Ok(()) }
    }

    /// A join writes the file, too, while an agent runs.
    fn look(&self) {
        let mut state = locked(&self.state);
        if matches!(*state, State::Open) && self.file.exists() {
            *state = locked(&Self::open(self.file.clone()).state).take();
        }
    }

    fn mark(&self) -> Option<Mark> {
        match &*locked(&self.state) {
            State::Closed(mark) => Some(mark.clone()),
            State::Open | State::Damaged => None,
        }
    }

    /// In force at once, also when the disk does not take it: then it is asked for, and written, again at the next start.
    fn close(&self, mark: Mark) {
        let text = serde_json::to_vec_pretty(&mark).map_err(io::Error::other);
        if let Err(error) = text.and_then(|text| write_atomically(&self.file, &text)) {
            tracing::error!(%error, file = %self.file.display(), "cannot write down that this server is out of its fleet");
        }
        *locked(&self.state) = State::Closed(mark);
    }

    fn lift(&self) -> io::Result<()> {
        fs::remove_file(&self.file)?;
        self.file.parent().map_or(Ok(()), |folder| fs::File::open(folder)?.sync_all())?;
        *locked(&self.state) = State::Open;
        Ok(())
    }
}

/// Marks a server that is joining anew after an earlier membership of which nobody told it how it ended: what it ran then ends before it
/// serves. Before the new identity is on disk, which ends the mark.
pub(crate) fn shut(config: &Config, server: &ServerName) -> io::Result<()> {
    let file = config.fenced_file();
    if file.exists() {
        return Ok(());
    }
    let mark = Mark { server: server.clone(), certificate: String::new(), since: SystemClock.now() };
    write_atomically(&file, &serde_json::to_vec_pretty(&mark).map_err(io::Error::other)?)
}

/// A time for people.
fn moment(at: OffsetDateTime) -> String {
    format!("{} {:02}:{:02} UTC", at.date(), at.hour(), at.minute())
}

/// A certificate by what is in it.
fn fingerprint(identity: &Identity) -> String {
    sha256_hex(identity.certificate_pem.as_bytes())
}

/// Is this server out? Only if the controller said so of the very certificate that is still this server's: one that is gone from the disk
/// is being replaced by a new one, for which the controller revokes the old.
fn is_out(answer: &Answer, asked: &str, on_disk: Option<&str>) -> bool {
    *answer == Answer::Revoked && on_disk == Some(asked)
}

/// Is a mark about an earlier membership?
fn is_over(mark: &Mark, on_disk: Option<&str>) -> bool {
    on_disk.is_some_and(|certificate| certificate != mark.certificate)
}

/// The controller watches this server for as long as it lives.
pub(crate) struct Watching {
    agent: Arc<Agent>,
    one: Option<Arc<()>>,
}

impl Watching {
    pub(crate) fn begin(agent: &Arc<Agent>) -> Self {
        Self { agent: agent.clone(), one: Some(agent.watching.clone()) }
    }
}

impl Drop for Watching {
    fn drop(&mut self) {
        // Before anybody looks whether one is left.
        self.one = None;
        self.agent.unwatched.notify_one();
    }
}

fn own(identity_file: &Path) -> Option<Identity> {
    Identity::load(identity_file).ok()
}

/// Looks at intervals until the agent ends. The first look is [`settle`] before anything starts.
pub(crate) async fn run(agent: Arc<Agent>) {
    loop {
        tokio::select! {
            () = tokio::time::sleep(agent.config.standing_interval) => {}
            // A member is watched all the time: whoever is not any more may be none.
            () = agent.unwatched.notified() => {}
            () = agent.ended.cancelled() => return,
        }
        tokio::select! {
            () = settle(&agent) => {}
            () = agent.ended.cancelled() => return,
        }
    }
}

/// Heeds a join that was made while this agent ran: before the controller sees anything of this server, nothing here passes for a tenant
/// that lives here.
pub(crate) async fn heed_join(agent: &Agent) {
    agent.fence.look();
    if let Some(mark) = agent.fence.mark()
        && is_over(&mark, own(&agent.config.identity_file()).as_ref().map(fingerprint).as_deref())
    {
        begin_anew(agent, &mark).await;
    }
}

/// Finds out where this server stands, unless the controller watches it, which it does to members only. Bounded: without an answer
/// everything stays as it is.
pub(crate) async fn settle(agent: &Agent) {
    let identity_file = agent.config.identity_file();
    heed_join(agent).await;
    if agent.fence.is_closed() || Arc::strong_count(&agent.watching) > 1 {
        return;
    }
    let Some(identity) = own(&identity_file) else { return };
    let Ok(membership) = Membership::load(&agent.config.controller_file()) else { return };
    let now = agent.clock.now().unix_timestamp();
    let asking = ask::standing(agent.dial.clone(), &membership.controller, &identity, now);
    let answer = tokio::time::timeout(ASK_MAX, asking).await;
    let answer = answer.unwrap_or_else(|_| Answer::Nothing(format!("no answer within {} s", ASK_MAX.as_secs())));
    tracing::debug!(?answer, "asked where this server stands");
    let asked = fingerprint(&identity);
    if !is_out(&answer, &asked, own(&identity_file).as_ref().map(fingerprint).as_deref()) {
        return;
    }
    agent.fence.close(Mark { server: membership.server, certificate: asked, since: agent.clock.now() });
    let problem = agent.fence.problem().unwrap_or_default();
    tracing::error!(problem, "this server is out of its fleet");
    agent.note_event(Kind::Fenced, None, problem);
    agent.wake.notify_one();
}

/// A new membership: the mark goes once nothing in the ledger would start by itself. A record that cannot be read might.
async fn begin_anew(agent: &Agent, mark: &Mark) {
    let mut left = agent.relinquish().await;
    left.extend(agent.ledger.damaged().keys().map(|file| format!("the ledger file {file} is damaged; move it away")));
    if !left.is_empty() {
        tracing::warn!(?left, "this server has joined anew, and runs no tenant before these are done");
        return;
    }
    match agent.fence.lift() {
        Ok(()) => {
            let message =
                format!("joined anew after it was out of the fleet as {}; what it keeps are copies", mark.server);
            agent.note_event(Kind::Unfenced, None, message);
            agent.wake.notify_one();
        }
        Err(error) => tracing::error!(%error, "the mark that this server is out of its fleet cannot be removed"),
    }
}

#[cfg(test)]
mod tests {
    use time::OffsetDateTime;

    use super::{Answer, Fence, Mark, State, is_out, is_over};

    fn mark() -> Mark {
        Mark { server: "nyc".parse().unwrap(), certificate: "a".into(), since: OffsetDateTime::UNIX_EPOCH }
    }

    #[test]
    fn only_the_word_of_the_controller_about_the_certificate_in_use_takes_a_server_out() {
        assert!(is_out(&Answer::Revoked, "a", Some("a")));
        // Somebody has deleted it and lets the server rejoin, or has done so.
        assert!(!is_out(&Answer::Revoked, "a", None) && !is_out(&Answer::Revoked, "a", Some("b")));
        for answer in [Answer::Member, Answer::Nothing("connection refused".into())] {
            assert!(!is_out(&answer, "a", Some("a")), "{answer:?}");
        }
    }

    #[test]
    fn only_another_certificate_ends_it() {
        assert!(!is_over(&mark(), Some("a")) && !is_over(&mark(), None));
        assert!(is_over(&mark(), Some("b")));
    }

    #[test]
    fn the_mark_outlives_the_process_and_a_damaged_one_holds() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("fenced.json");
        let fence = Fence::open(file.clone());
        assert!(!fence.is_closed() && fence.heed().is_ok() && fence.problem().is_none());
        fence.close(mark());
        let clone = fence.clone();
        let later = Fence::open(file.clone());
        assert_eq!((later.mark(), clone.is_closed()), (Some(mark()), true));
        let said = later.heed().unwrap_err().message;
        assert!(said.contains("featherctl server invite nyc") && said.contains("agent.identity"), "{said}");
        assert!(said.contains("said at 1970-01-01 00:00 UTC: "), "{said}");
        later.lift().unwrap();
        assert!(!later.is_closed() && !Fence::open(file.clone()).is_closed());
        std::fs::write(&file, "{").unwrap();
        let damaged = Fence::open(file);
        assert!(matches!(*damaged.state.lock().unwrap(), State::Damaged));
        assert!(damaged.heed().unwrap_err().message.contains("cannot be read"));
    }

    #[test]
    fn what_the_disk_does_not_take_is_in_force_all_the_same() {
        let fence = Fence::open("/nonexistent/fenced.json".into());
        fence.close(mark());
        assert!(fence.is_closed());
    }
}
