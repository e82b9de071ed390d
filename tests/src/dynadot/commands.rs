//! The three commands on a domain's records: what they answer, and what the domain is afterwards. Pure.

use feather_controller::dns::zone::ZoneRecord;
use rand::{SeedableRng as _, rngs::StdRng, seq::SliceRandom as _};
use serde_json::{Map, Value, json};

use super::{switches::Switches, values};

/// TTL of a zone that was given none, in seconds.
const TTL_DEFAULT: u32 = 86_400;
/// Most records of the two lists.
const LIMITS: (usize, usize) = (20, 100);

/// Why a domain takes no commands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Standing {
    /// It takes them.
    #[default]
    Fine,
    /// Its registration has ended.
    Expired,
    /// Switched off by the provider.
    Disabled,
    /// In a dispute about its name.
    Locked,
    /// Taken out of the provider's hands.
    Forceout,
    /// Has e-mail settings, which exclude DNS of one's own.
    Email,
}

/// One domain of the account.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Domain {
    /// What answers for its name: `DNS` when the records below count.
    pub glue: String,
    /// What else a read shows of it.
    pub extras: Map<String, Value>,
    /// Seconds.
    pub ttl: u32,
    /// In the order in which they were stored.
    pub records: Vec<ZoneRecord>,
    /// Whether it takes commands.
    pub standing: Standing,
}

/// What is answered: the code, the reason, and data.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Reply {
    pub(super) code: u16,
    pub(super) description: String,
    pub(super) data: Option<Value>,
}

impl Reply {
    fn done(data: Option<Value>) -> Self {
        Self { code: 200, description: String::new(), data }
    }

    pub(super) fn error(code: u16, description: impl Into<String>) -> Self {
        Self { code, description: description.into(), data: None }
    }

    /// As the provider writes it.
    pub(super) fn json(&self, switches: &Switches) -> Value {
        let message = match self.code {
            200 => "Success",
            400 => "Bad Request",
            401 => "Unauthorized",
            403 => "Forbidden",
            404 => "Not Found",
            409 => "Conflict",
            429 => "Too many requests",
            _ => "Error",
        };
        let code = if switches.code_is_string { json!(self.code.to_string()) } else { json!(self.code) };
        let mut body = json!({"code": code, "message": message});
        if let Some(data) = &self.data {
            body["data"] = data.clone();
        }
        if self.code != 200 {
            body["error"] = json!({"description": self.description});
        }
        body
    }
}

/// A command on a domain's records.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Command {
    Get,
    Set(Value),
    Remove(Value),
}

impl Command {
    pub(super) fn is_change(&self) -> bool {
        *self != Self::Get
    }
}

/// The reply, and the domain afterwards when it is another. The seed is that of the order in which records are shown.
pub(super) fn perform(
    name: &str,
    domain: &Domain,
    command: &Command,
    switches: &Switches,
    seed: u64,
) -> (Reply, Option<Domain>) {
    let done = match (command, standing(name, domain, command.is_change())) {
        (_, Err(reply)) => Err(reply),
        (Command::Get, Ok(())) => return (Reply::done(Some(shown(domain, switches, seed))), None),
        (Command::Set(body), Ok(())) => set(name, domain, body, switches),
        (Command::Remove(body), Ok(())) => remove(domain, body, switches),
    };
    match done {
        Ok((reply, after)) => (reply, Some(after).filter(|after| after != domain)),
        Err(reply) => (reply, None),
    }
}

fn standing(name: &str, domain: &Domain, change: bool) -> Result<(), Reply> {
    match domain.standing {
        Standing::Expired => Err(Reply::error(400, format!("The {name} was expired."))),
        Standing::Disabled if change => Err(Reply::error(409, format!("The {name} is disabled."))),
        Standing::Locked if change => Err(Reply::error(409, format!("The {name} was UDRP locked."))),
        Standing::Forceout if change => Err(Reply::error(409, format!("The {name} was forceout."))),
        Standing::Email if change => Err(Reply::error(
            409,
            format!(
                "Cannot set DNS for {name} since the domain has existing Email Settings. Please disable Email Settings to set DNS."
            ),
        )),
        _ => Ok(()),
    }
}

fn shown(domain: &Domain, switches: &Switches, seed: u64) -> Value {
    let mut glue = domain.extras.clone();
    glue.insert("glue_type".into(), json!(domain.glue));
    if domain.glue == "DNS" {
        let ttl = if switches.ttl_is_number { json!(domain.ttl) } else { json!(domain.ttl.to_string()) };
        glue.insert("ttl".into(), ttl);
        for (list, apex) in [("dns_main_list", true), ("dns_sub_list", false)] {
            let mut items: Vec<_> = domain
                .records
                .iter()
                .filter(|record| record.host.is_empty() == apex)
                .map(|one| item(one, switches))
                .collect();
            if switches.shuffled {
                items.shuffle(&mut StdRng::seed_from_u64(seed));
            }
            if !items.is_empty() || switches.empty_lists_shown {
                glue.insert(list.into(), items.into());
            }
        }
    }
    json!({"glue_info": glue})
}

fn item(record: &ZoneRecord, switches: &Switches) -> Value {
    let kind = if switches.types_upper { record.kind.to_ascii_uppercase() } else { record.kind.clone() };
    let mut item = json!({"record_type": kind, "record_value1": record.value});
    if !record.host.is_empty() {
        item["sub_host"] = json!(record.host);
    }
    if !record.extra.is_empty() || switches.empty_values_shown {
        item["record_value2"] = json!(record.extra);
    }
    item
}

/// A read in the shape of version 1.
pub(super) fn version_1(domain: &Domain) -> Value {
    let item = |record: &ZoneRecord| json!({"record_type": record.kind, "sub_host": record.host, "value": record.value, "value2": record.extra});
    let list =
        |apex: bool| domain.records.iter().filter(|one| one.host.is_empty() == apex).map(item).collect::<Vec<_>>();
    json!({"code": "200", "message": "Success", "data": {"name_server_settings": {
        "type": "Dynadot DNS", "ttl": domain.ttl.to_string(), "main_domains": list(true), "sub_domains": list(false)}}})
}

/// An item of a request: its record, with an empty value when it names none. None for what is left out.
fn asked(item: &Value, apex: bool, switches: &Switches) -> Result<Option<ZoneRecord>, Reply> {
    let text = |member: &str| match item.get(member) {
        Some(Value::String(text)) => text.clone(),
        Some(Value::Number(number)) => number.to_string(),
        _ => String::new(),
    };
    let kind = text("record_type");
    if kind.is_empty() {
        return Ok(None);
    }
    if kind.bytes().any(|byte| byte.is_ascii_uppercase()) {
        if switches.upper_case_refused {
            return Err(Reply::error(400, format!("The record_type {kind} is not supported.")));
        }
        if switches.upper_case_ignored {
            return Ok(None);
        }
    }
    let host = if apex { String::new() } else { text("sub_host").to_ascii_lowercase() };
    if host.is_empty() != apex {
        return Err(Reply::error(400, "If record_type is entered, sub_host must be entered"));
    }
    let (value, extra) = (text("record_value1"), text("record_value2"));
    Ok(Some(ZoneRecord { host, kind: kind.to_ascii_lowercase(), value, extra }))
}

/// All items of both lists. Other members of the body are not looked at, whatever they hold.
fn lists(body: &Value, switches: &Switches) -> Result<Vec<ZoneRecord>, Reply> {
    let mut records = Vec::new();
    for (list, apex, most) in [("dns_main_list", true, LIMITS.0), ("dns_sub_list", false, LIMITS.1)] {
        let items = body.get(list).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        if items.len() > most {
            return Err(Reply::error(400, format!("The {list} exceeds the maximum length")));
        }
        for item in items {
            records.extend(asked(item, apex, switches)?);
        }
    }
    Ok(records)
}

type Done = Result<(Reply, Domain), Reply>;

fn nothing(domain: &Domain, switches: &Switches) -> Done {
    if switches.nothing_is_success {
        Ok((Reply::done(None), domain.clone()))
    } else {
        Err(Reply::error(400, "Please enter at least one DNS record."))
    }
}

fn has_apex(records: &[ZoneRecord]) -> bool {
    records.iter().any(|record| record.host.is_empty())
}

fn no_main_dns() -> Reply {
    Reply::error(403, "The domain doesn't have main dns.")
}

fn set(name: &str, domain: &Domain, body: &Value, switches: &Switches) -> Done {
    let append = body.get("add_dns_to_current_setting").and_then(Value::as_bool).unwrap_or(false);
    let records = lists(body, switches)?;
    let ttl = body.get("ttl").and_then(Value::as_u64).and_then(|ttl| u32::try_from(ttl).ok());
    // A replacement by nothing is done only where nothing is success: then it is what people lost their zones by.
    if records.is_empty() && (append || !switches.nothing_is_success) {
        return nothing(domain, switches);
    }
    for record in &records {
        if record.value.is_empty() {
            return Err(Reply::error(400, "If record_type is entered, record_value1 must be entered"));
        }
        values::check(record).map_err(|text| Reply::error(400, text))?;
    }
    let mut after = Domain { glue: "DNS".into(), extras: Map::new(), ..domain.clone() };
    let mine = domain.glue == "DNS";
    if !(append && mine) {
        after.records.clear();
    }
    if switches.apex_required && !has_apex(&after.records) && !has_apex(&records) {
        return Err(no_main_dns());
    }
    for record in records {
        if !(append && switches.duplicates_ignored && after.records.contains(&record)) {
            after.records.push(record);
        }
    }
    values::together(&after.records).map_err(|text| Reply::error(400, text))?;
    full(name, &after, switches)?;
    let reset = if append { switches.append_resets_ttl } else { !switches.replace_keeps_ttl };
    after.ttl = match ttl {
        Some(ttl) => ttl,
        None if reset || !mine => TTL_DEFAULT,
        None => domain.ttl,
    };
    Ok((Reply::done(None), after))
}

fn full(name: &str, domain: &Domain, switches: &Switches) -> Result<(), Reply> {
    let apex = domain.records.iter().filter(|record| record.host.is_empty()).count();
    let sub = domain.records.len() - apex;
    if switches.limits_per_request {
        Ok(())
    } else if apex > LIMITS.0 {
        Err(Reply::error(429, format!("Cannot add DNS for {name}. The Dns Settings reached the upper limit.")))
    } else if sub > LIMITS.1 {
        Err(Reply::error(
            429,
            format!("Cannot add subdomains for {name}. The Subdomain Settings reached the upper limit."),
        ))
    } else {
        Ok(())
    }
}

fn remove(domain: &Domain, body: &Value, switches: &Switches) -> Done {
    let records = lists(body, switches)?;
    if records.is_empty() {
        return nothing(domain, switches);
    }
    if switches.apex_required && !has_apex(&domain.records) {
        return Err(no_main_dns());
    }
    let mut after = domain.clone();
    for wanted in &records {
        let typed = wanted.value.is_empty();
        let matches = |record: &ZoneRecord| {
            let same = (&record.host, &record.kind) == (&wanted.host, &wanted.kind);
            same && if typed { switches.typed_removal_takes_all } else { record == wanted }
        };
        if switches.removal_takes_one && !typed {
            if let Some(at) = after.records.iter().position(matches) {
                after.records.remove(at);
            }
        } else {
            after.records.retain(|record| !matches(record));
        }
    }
    let apex = |domain: &Domain| domain.records.iter().filter(|record| record.host.is_empty()).count();
    let main = apex(domain) - apex(&after);
    let sub = domain.records.len() - after.records.len() - main;
    if main + sub == 0 && switches.absent_removal_refused {
        return Err(Reply::error(400, "The DNS record does not exist."));
    }
    let counts = json!({"main_record_removed_count": main, "sub_record_removed_count": sub});
    Ok((Reply::done(Some(counts)), after))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{Command, Domain, Reply, Standing, Switches, Value, ZoneRecord, perform};

    fn record(host: &str, kind: &str, value: &str) -> ZoneRecord {
        ZoneRecord { host: host.into(), kind: kind.into(), value: value.into(), extra: String::new() }
    }

    fn zone(records: &[ZoneRecord]) -> Domain {
        Domain { glue: "DNS".into(), ttl: 300, records: records.into(), ..Domain::default() }
    }

    fn run(domain: &Domain, command: &Command, switches: &Switches) -> (Reply, Domain) {
        let (reply, after) = perform("example.com", domain, command, switches, 1);
        (reply, after.unwrap_or_else(|| domain.clone()))
    }

    fn set(domain: &Domain, body: Value, switches: &Switches) -> (Reply, Domain) {
        run(domain, &Command::Set(body), switches)
    }

    fn with(change: impl FnOnce(&mut Switches)) -> Switches {
        let mut switches = Switches::default();
        change(&mut switches);
        switches
    }

    fn www() -> Value {
        json!([{"sub_host": "www", "record_type": "a", "record_value1": "192.0.2.9"}])
    }

    #[test]
    fn without_the_flag_the_zone_is_replaced_and_its_ttl_reset() {
        let before = zone(&[record("", "a", "192.0.2.1"), record("mail", "a", "192.0.2.2")]);
        let plain = Switches::default();
        let (reply, after) = set(&before, json!({"dns_sub_list": www()}), &plain);
        assert_eq!((reply.code, after.ttl, after.records), (200, 86_400, vec![record("www", "a", "192.0.2.9")]));
        let (_, after) = set(&before, json!({"dns_sub_list": www()}), &with(|all| all.replace_keeps_ttl = true));
        assert_eq!(after.ttl, 300);
        let flagged = json!({"dns_sub_list": www(), "add_dns_to_current_setting": true});
        let (_, after) = set(&before, flagged.clone(), &plain);
        assert_eq!((after.ttl, after.records.len()), (300, 3));
        let (_, after) = set(&before, flagged.clone(), &with(|all| all.append_resets_ttl = true));
        assert_eq!((after.ttl, after.records.len()), (86_400, 3));
        let (_, after) =
            set(&before, json!({"dns_sub_list": www(), "add_dns_to_current_setting": true, "ttl": 60}), &plain);
        assert_eq!(after.ttl, 60);
    }

    #[test]
    fn what_is_misspelled_is_success_and_does_nothing() {
        let before = zone(&[record("", "a", "192.0.2.1")]);
        let body = json!({"sub_list": www(), "dns_main_list": [{}], "add_dns_to_current_setting": true});
        let quiet = with(|all| all.nothing_is_success = true);
        assert_eq!(set(&before, body.clone(), &quiet), (Reply::done(None), before.clone()));
        assert_eq!(set(&before, body, &Switches::default()).0.code, 400);
        // And without the flag it is what people lost their zones by.
        assert_eq!(set(&before, json!({"sub_list": www()}), &quiet).1.records, []);
    }

    #[test]
    fn types_in_capitals_are_taken_left_out_or_refused() {
        let upper = json!({"dns_sub_list": [{"sub_host": "x", "record_type": "TXT", "record_value1": "V"},
                                            {"sub_host": "x", "record_type": "txt", "record_value1": "W"}]});
        let before = zone(&[]);
        assert_eq!(set(&before, upper.clone(), &Switches::default()).1.records.len(), 2);
        assert_eq!(set(&before, upper.clone(), &with(|all| all.upper_case_ignored = true)).1.records.len(), 1);
        assert_eq!(set(&before, upper, &with(|all| all.upper_case_refused = true)).0.code, 400);
    }

    #[test]
    fn values_duplicates_conflicts_and_limits() {
        let before = zone(&[record("", "a", "192.0.2.1"), record("www", "a", "192.0.2.9")]);
        let plain = Switches::default();
        let append = |list: Value| json!({"dns_sub_list": list, "add_dns_to_current_setting": true});
        let missing = json!([{"sub_host": "x", "record_type": "a"}]);
        assert!(set(&before, append(missing), &plain).0.description.contains("record_value1 must be entered"));
        assert_eq!(set(&before, append(www()), &plain).1.records.len(), 3);
        assert_eq!(set(&before, append(www()), &with(|all| all.duplicates_ignored = true)).1.records.len(), 2);
        let cname = json!([{"sub_host": "www", "record_type": "cname", "record_value1": "a.example.com"}]);
        assert_eq!(set(&before, append(cname), &plain).0.description, "Cannot set a and cname together.");

        let many = |count: usize| {
            (0..count).map(|n| json!({"sub_host": format!("h{n}"), "record_type": "a", "record_value1": "192.0.2.9"}))
        };
        let (reply, _) = set(&before, append(many(101).collect()), &plain);
        assert_eq!((reply.code, reply.description.contains("maximum length")), (400, true));
        let (reply, _) = set(&before, append(many(100).collect()), &plain);
        assert_eq!((reply.code, reply.description.contains("Subdomain Settings reached")), (429, true));
        assert_eq!(set(&before, append(many(100).collect()), &with(|all| all.limits_per_request = true)).0.code, 200);
    }

    #[test]
    fn removals_count_what_they_took() {
        let twice = record("www", "a", "192.0.2.9");
        let before =
            zone(&[record("", "a", "192.0.2.1"), twice.clone(), twice.clone(), record("www", "a", "192.0.2.8")]);
        let take = |list: Value, switches: &Switches| {
            let (reply, after) = run(&before, &Command::Remove(json!({"dns_sub_list": list})), switches);
            let count = reply.data.as_ref().map(|data| data["sub_record_removed_count"].as_u64().unwrap());
            (reply.code, count, after.records.len())
        };
        let plain = Switches::default();
        assert_eq!(take(www(), &plain), (200, Some(2), 2));
        assert_eq!(take(www(), &with(|all| all.removal_takes_one = true)), (200, Some(1), 3));
        let absent = || json!([{"sub_host": "www", "record_type": "a", "record_value1": "192.0.2.7"}]);
        assert_eq!(take(absent(), &plain), (200, Some(0), 4));
        assert_eq!(take(absent(), &with(|all| all.absent_removal_refused = true)).0, 400);
        let typed = || json!([{"sub_host": "www", "record_type": "a"}]);
        assert_eq!(take(typed(), &plain), (200, Some(0), 4));
        assert_eq!(take(typed(), &with(|all| all.typed_removal_takes_all = true)), (200, Some(3), 1));
        assert_eq!(take(json!([]), &plain).0, 400);
    }

    #[test]
    fn a_domain_may_be_elsewhere_or_refuse() {
        let parked = Domain { glue: "REGISTRAR_PARKING".into(), ..Domain::default() };
        let (reply, _) = run(&parked, &Command::Get, &Switches::default());
        assert_eq!(reply.data.unwrap(), json!({"glue_info": {"glue_type": "REGISTRAR_PARKING"}}));
        let needs = with(|all| all.apex_required = true);
        assert_eq!(set(&zone(&[]), json!({"dns_sub_list": www()}), &needs).0.code, 403);
        assert_eq!(run(&zone(&[]), &Command::Remove(json!({"dns_sub_list": www()})), &needs).0.code, 403);
        let (_, after) =
            set(&parked, json!({"dns_sub_list": www(), "add_dns_to_current_setting": true}), &Switches::default());
        assert_eq!((after.glue.as_str(), after.ttl), ("DNS", 86_400));
        for (standing, code) in [(Standing::Expired, 400), (Standing::Disabled, 409), (Standing::Email, 409)] {
            let domain = Domain { standing, ..zone(&[]) };
            assert_eq!(set(&domain, json!({"dns_sub_list": www()}), &Switches::default()).0.code, code);
        }
    }
}
