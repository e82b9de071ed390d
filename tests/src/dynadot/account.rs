//! The account behind the door: keys, limits, domains, faults, and the log of all that happened.

use std::{
    collections::{BTreeMap, VecDeque},
    net::IpAddr,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use feather_controller::dns::zone::{Zone, ZoneRecord};
use ring::hmac;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::{
    commands::{self, Command, Domain, Reply},
    door::{Incoming, Outgoing},
    faults::{Answer, Apply, Edit, Fault, Faults},
    legacy,
    names::Publications,
    switches::Switches,
    witness::Witness,
};

/// What a request's signature was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signature {
    /// Right.
    Valid,
    /// Wrong.
    Invalid,
    /// Not there.
    Missing,
}

/// One request, without its secrets.
#[derive(Debug, Clone)]
pub struct Logged {
    /// As sent.
    pub method: String,
    /// Without its query, which may hold a key.
    pub path: String,
    /// Of version 2's requests.
    pub signature: Signature,
    /// As JSON, null if it is none.
    pub body: Value,
    /// What the body said, also when nobody got it.
    pub code: u16,
    /// What went wrong.
    pub fault: Option<Fault>,
    /// Records that this request took away when it was made.
    pub destroyed: usize,
}

/// A key of the account.
#[derive(Clone)]
pub(super) struct Key {
    pub(super) key: String,
    pub(super) secret: String,
    pub(super) valid_from: Option<Instant>,
}

/// What is fixed at the start.
pub(super) struct Rules {
    pub(super) keys: Vec<Key>,
    /// Addresses that may call; all when it is empty.
    pub(super) allowed: Vec<IpAddr>,
    pub(super) per_minute: Option<usize>,
    pub(super) concurrent: usize,
    pub(super) zone: String,
}

/// A change that is made later.
struct Late {
    /// Requests until then.
    after: usize,
    domain: String,
    change: LateChange,
    what: String,
}

enum LateChange {
    Again(Command),
    Whole(Domain),
}

pub(super) struct State {
    pub(super) switches: Switches,
    pub(super) domains: BTreeMap<String, Domain>,
    pub(super) faults: Faults,
    pub(super) witness: Witness,
    pub(super) log: Vec<Logged>,
    late: Vec<Late>,
    recent: VecDeque<Instant>,
}

pub(super) struct Account {
    rules: Rules,
    state: Mutex<State>,
    pub(super) publications: Publications,
    in_flight: AtomicUsize,
}

/// Counts a request for as long as it is there.
struct InFlight<'a>(&'a AtomicUsize);

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Account {
    pub(super) fn new(
        rules: Rules,
        switches: Switches,
        domains: BTreeMap<String, Domain>,
        protected: &[ZoneRecord],
        publications: Publications,
    ) -> Self {
        let state = State {
            switches,
            domains,
            faults: Faults::default(),
            witness: Witness::new(protected),
            log: Vec::new(),
            late: Vec::new(),
            recent: VecDeque::new(),
        };
        Self { rules, state: Mutex::new(state), publications, in_flight: AtomicUsize::new(0) }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The main zone as it is now.
    pub(super) fn zone(&self) -> Zone {
        let state = self.lock();
        let domain = &state.domains[&self.rules.zone];
        let mut records = domain.records.clone();
        records.sort();
        Zone { ttl: domain.ttl, records }
    }

    /// A hand on the page.
    pub(super) fn edit(&self, edit: &Edit) {
        let mut state = self.lock();
        self.edit_in(&mut state, edit);
    }

    fn edit_in(&self, state: &mut State, edit: &Edit) {
        let Some(domain) = state.domains.get_mut(&self.rules.zone) else { return };
        match edit {
            Edit::Add(record) => domain.records.push(record.clone()),
            Edit::Remove(record) => {
                let Some(at) = domain.records.iter().position(|there| there == record) else { return };
                domain.records.remove(at);
            }
            Edit::Ttl(ttl) => domain.ttl = *ttl,
        }
        self.publications.publish(domain);
        state.witness.edited(edit);
    }

    /// Makes all changes that were to be made later.
    pub(super) fn settle(&self) {
        let mut state = self.lock();
        self.late_ones(&mut state, usize::MAX);
    }

    /// What a request gets, and whether it gets it.
    pub(super) async fn answer(&self, request: &Incoming) -> (Outgoing, Answer) {
        let before = self.in_flight.fetch_add(1, Ordering::SeqCst);
        let _counted = InFlight(&self.in_flight);
        let path = request.target.split('?').next().unwrap_or_default();
        if path == "/fake/state" {
            return (Outgoing::json(200, &self.report()), Answer::True);
        }
        let (outgoing, answer) = if path.starts_with("/api3.") {
            (legacy::answer(self, request), Answer::True)
        } else {
            self.version_2(request, before)
        };
        // The request is there as long as its reply is not.
        if let Answer::Slow(pause) = answer {
            tokio::time::sleep(pause).await;
            return (outgoing, Answer::True);
        }
        (outgoing, answer)
    }

    fn report(&self) -> Value {
        let zone = self.zone();
        let state = self.lock();
        json!({
            "zone": zone,
            "requests": state.log.len(),
            "destroyed": state.witness.destroyed(),
            "violations": state.witness.violations(),
        })
    }

    fn version_2(&self, request: &Incoming, before: usize) -> (Outgoing, Answer) {
        let mut state = self.lock();
        self.late_ones(&mut state, 1);
        let switches = state.switches;
        let (signature, admitted) = self.admit(&mut state, request, before);
        let command = admitted.and_then(|()| command(request).map_err(Refusal::Reply));
        let change = command.as_ref().map_or(request.method != "GET", |(_, command)| command.is_change());
        let fault = state.faults.take(change);
        if let Some(edit) = fault.as_ref().and_then(|fault| fault.edit.clone()) {
            self.edit_in(&mut state, &edit);
        }
        let what = format!("request {} ({} {})", state.log.len() + 1, request.method, request.target);
        let apply = fault.as_ref().map_or(Apply::Now, |fault| fault.apply);
        let (mut reply, destroyed, plain) = match command {
            Ok((domain, command)) => {
                let (reply, destroyed) = self.perform(&mut state, &domain, &command, apply, &what);
                (reply, destroyed, false)
            }
            Err(Refusal::Reply(reply)) => (reply, 0, false),
            Err(Refusal::Plain(reply)) => (reply, 0, true),
        };
        let answer = fault.as_ref().map_or(Answer::True, |fault| fault.answer.clone());
        if let Answer::Error(code, text) = &answer {
            reply = Reply::error(*code, text.clone());
        }
        state.log.push(Logged {
            method: request.method.clone(),
            path: request.target.split('?').next().unwrap_or_default().to_owned(),
            signature,
            body: serde_json::from_slice(&request.body).unwrap_or_default(),
            code: reply.code,
            fault,
            destroyed,
        });
        if answer == Answer::Version1 && !change {
            let domain = &state.domains[&self.rules.zone];
            return (Outgoing::json(200, &commands::version_1(domain)), answer);
        }
        let status = if plain || switches.always_200 { 200 } else { reply.code };
        let content_type = if plain { "text/plain" } else { "application/json" };
        (Outgoing { status, content_type, body: reply.json(&switches).to_string() }, answer)
    }

    /// Performs a command and makes its change, now or later.
    pub(super) fn perform(
        &self,
        state: &mut State,
        name: &str,
        command: &Command,
        apply: Apply,
        what: &str,
    ) -> (Reply, usize) {
        let Some(domain) = state.domains.get(name).cloned() else {
            return (Reply::error(404, format!("Can not find the {name} in the account.")), 0);
        };
        let seed = state.log.len() as u64;
        let (reply, after) = commands::perform(name, &domain, command, &state.switches, seed);
        let Some(after) = after else { return (reply, 0) };
        let late = |after, change| Late { after, domain: name.to_owned(), change, what: what.to_owned() };
        let destroyed = match apply {
            Apply::Now => self.commit(state, name, after, what),
            Apply::Never => 0,
            Apply::Late(requests) => {
                state.late.push(late(requests, LateChange::Again(command.clone())));
                0
            }
            Apply::LateWhole(requests) => {
                state.late.push(late(requests, LateChange::Whole(after)));
                0
            }
        };
        (reply, destroyed)
    }

    fn commit(&self, state: &mut State, name: &str, after: Domain, what: &str) -> usize {
        let before = state.domains.insert(name.to_owned(), after).unwrap_or_default();
        let after = &state.domains[name];
        if name != self.rules.zone {
            return 0;
        }
        self.publications.publish(after);
        state.witness.requested(what, (&before.records, before.ttl), (&after.records, after.ttl))
    }

    /// So many requests have passed: makes the changes whose time has come.
    fn late_ones(&self, state: &mut State, requests: usize) {
        for late in &mut state.late {
            late.after = late.after.saturating_sub(requests);
        }
        let (due, later) = std::mem::take(&mut state.late).into_iter().partition(|late: &Late| late.after == 0);
        state.late = later;
        for Late { domain: name, change, what, .. } in due {
            match change {
                LateChange::Again(command) => {
                    let what = format!("{what}, made late");
                    self.perform(state, &name, &command, Apply::Now, &what);
                }
                LateChange::Whole(domain) => {
                    state.witness.disordered(&domain.records);
                    self.commit(state, &name, domain, &what);
                }
            }
        }
    }

    /// Who calls, from where, how often, and with which signature.
    fn admit(&self, state: &mut State, request: &Incoming, before: usize) -> (Signature, Result<(), Refusal>) {
        let Some(authorization) = request.header("authorization") else {
            let reply = Reply::error(400, "The Authorization header not entered");
            return (Signature::Missing, Err(Refusal::Plain(reply)));
        };
        let now = Instant::now();
        let token = authorization.strip_prefix("Bearer ").unwrap_or_default();
        let key = self.rules.keys.iter().find(|known| known.key == token);
        let Some(key) = key.filter(|key| key.valid_from.is_none_or(|from| from <= now)) else {
            let text = "The provided API key is invalid, expired, or missing. Please check it and try again.";
            return (Signature::Missing, Err(Refusal::Reply(Reply::error(401, text))));
        };
        if !self.rules.allowed.is_empty() && !self.rules.allowed.contains(&request.peer) {
            let text = "The request is not allowed from the current IP address. Please contact our support.";
            return (Signature::Missing, Err(Refusal::Reply(Reply::error(403, text))));
        }
        let signature = signature(key, request, &state.switches);
        let optional = request.method == "DELETE" && state.switches.removal_unsigned;
        let refused = match signature {
            Signature::Invalid => Some(Reply::error(400, "the X-Signature provided is not valid")),
            Signature::Missing if !optional => {
                return (signature, Err(Refusal::Plain(Reply::error(400, "This command requires X-Signature"))));
            }
            _ => self.too_many(state, before, now),
        };
        (signature, refused.map_or(Ok(()), |reply| Err(Refusal::Reply(reply))))
    }

    fn too_many(&self, state: &mut State, before: usize, now: Instant) -> Option<Reply> {
        while state.recent.front().is_some_and(|at| now.duration_since(*at) >= Duration::from_secs(60)) {
            state.recent.pop_front();
        }
        state.recent.push_back(now);
        if before >= self.rules.concurrent {
            return Some(Reply::error(
                429,
                "Too many requests. You have reached the concurrent limit of your account.",
            ));
        }
        let many = self.rules.per_minute.is_some_and(|most| state.recent.len() > most);
        many.then(|| Reply::error(429, "Too many requests. Rate limit exceeded. Please try again after 60 seconds."))
    }

    /// Is this a key of the account? Version 3's only check.
    pub(super) fn knows(&self, token: &str) -> bool {
        self.rules.keys.iter().any(|key| key.key == token)
    }
}

/// Why a request is not performed.
enum Refusal {
    Reply(Reply),
    /// HTTP says 200, and that it is text.
    Plain(Reply),
}

fn signature(key: &Key, request: &Incoming, switches: &Switches) -> Signature {
    let given =
        if switches.signature_spelled { request.header_spelled("X-Signature") } else { request.header("x-signature") };
    let Some(given) = given else { return Signature::Missing };
    // The gateway knows this header in one spelling only.
    let id = request.header_spelled("X-Request-ID").unwrap_or_default();
    let head = format!("{}\n{}\n{id}\n", key.key, request.target);
    let message = [head.as_bytes(), &request.body].concat();
    let secret = hmac::Key::new(hmac::HMAC_SHA256, key.secret.as_bytes());
    let fits = STANDARD.decode(given).is_ok_and(|tag| hmac::verify(&secret, &message, &tag).is_ok());
    if fits { Signature::Valid } else { Signature::Invalid }
}

/// The domain and the command that a request asks for.
fn command(request: &Incoming) -> Result<(String, Command), Reply> {
    let path = request.target.split('?').next().unwrap_or_default();
    let parts: Vec<_> = path.trim_start_matches('/').split('/').collect();
    let ["restful", "v2", "domains", name, "records"] = parts.as_slice() else {
        return Err(Reply::error(404, "The requested command does not exist."));
    };
    is_domain(name)?;
    let body = || {
        let json = request.header("content-type").is_some_and(|kind| kind.starts_with("application/json"));
        let body = serde_json::from_slice::<Value>(&request.body).ok().filter(|_| json);
        body.ok_or_else(|| Reply::error(400, "The request body must be JSON."))
    };
    let command = match request.method.as_str() {
        "GET" => Command::Get,
        "POST" => Command::Set(body()?),
        "DELETE" => Command::Remove(body()?),
        _ => return Err(Reply::error(404, "The requested command does not exist.")),
    };
    Ok(((*name).to_owned(), command))
}

fn is_domain(name: &str) -> Result<(), Reply> {
    let refused = |text: &str| Err(Reply::error(400, text));
    if !name.is_ascii() {
        refused("The [domain_name] must be ascii.")
    } else if name.contains(char::is_whitespace) || name.contains("%20") {
        refused("The [domain_name] must be without whitespace.")
    } else if name.bytes().any(|byte| byte.is_ascii_uppercase()) {
        refused("The [domain_name] must be all lowercase.")
    } else if !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-.".contains(&byte)) {
        refused("The [domain_name] must be valid characters.")
    } else if !name.contains('.') {
        refused("The [domain_name] must be fully qualified.")
    } else if name.matches('.').count() > 1 {
        refused("Subdomains are not allowed")
    } else {
        Ok(())
    }
}
