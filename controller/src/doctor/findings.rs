//! What answers mean: one line each, and what to type next. Pure.

use std::collections::BTreeMap;

use feather_proto::{
    error::Error,
    ids::ServerName,
    version::{self, Age, Range},
};
use time::Duration;

use super::{Answer, Answers, Unsettled, Zone};
use crate::store::warnings::WarningRow;

/// Clocks that differ by so much are worth a look, and by so much wrong.
const CLOCK_WARN: Duration = Duration::seconds(2);
const CLOCK_FAIL: Duration = Duration::seconds(10);

/// How it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    /// As it should be.
    Ok,
    /// Worth a look.
    Warn,
    /// Does not work.
    Fail,
}

/// One line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// How it is.
    pub verdict: Verdict,
    /// `nyc`, `dns`, `store`, `warnings`.
    pub subject: String,
    /// A stable word for what was looked at.
    pub check: &'static str,
    /// What was found.
    pub message: String,
    /// What to type next; empty when nothing is to be done.
    pub next: String,
}

fn finding(verdict: Verdict, subject: impl ToString, check: &'static str, message: impl Into<String>) -> Finding {
    Finding { verdict, subject: subject.to_string(), check, message: message.into(), next: String::new() }
}

impl Finding {
    fn then(self, next: impl Into<String>) -> Self {
        Self { next: next.into(), ..self }
    }
}

/// All of them. What is known without asking comes as the warnings that hold.
pub fn findings(answers: &Answers, warnings: &[WarningRow]) -> Vec<Finding> {
    let mut found = Vec::new();
    found.push(match &answers.store {
        Ok(()) => finding(Verdict::Ok, "store", "store", "the controller's store answers"),
        Err(error) => finding(Verdict::Fail, "store", "store", error.message.clone())
            .then("look at the disk and the log of feather-controller"),
    });
    for (server, answer) in &answers.servers {
        match answer {
            Err(error) => found.push(
                finding(Verdict::Fail, server, "agent", format!("its agent does not answer: {}", error.message))
                    .then(format!("`featherctl server show {server}`; check the machine, its network and its agent")),
            ),
            Ok(answer) => found.extend(of_server(server, answer)),
        }
    }
    found.extend(of_protocols(&answers.servers));
    if let Some(zone) = &answers.zone {
        found.extend(of_zone(zone));
    }
    let raised = warnings.iter().filter(|row| row.raised.is_some());
    let new = raised.filter(|row| row.acknowledged.is_none());
    // What was just asked for is told by the answer.
    let asked = ["unreachable", "clock", "protocol", "dns-provider"];
    found.extend(new.filter(|row| !asked.contains(&row.kind.as_str())).map(|row| {
        finding(Verdict::Warn, row.subject.trim_start_matches("server/"), "warning", row.message.clone())
            .then(format!("`featherctl warning show {}`", row.id))
    }));
    found
}

fn of_server(server: &ServerName, answer: &Answer) -> Vec<Finding> {
    let mut found =
        vec![finding(Verdict::Ok, server, "agent", format!("its agent answers in {} ms", answer.took.as_millis()))];
    let off = answer.ahead.abs();
    let verdict = match () {
        () if off > CLOCK_FAIL => Verdict::Fail,
        () if off > CLOCK_WARN => Verdict::Warn,
        () => Verdict::Ok,
    };
    let direction = if answer.ahead.is_negative() { "behind" } else { "ahead of" };
    let clock =
        format!("its clock is {}.{:03} s {direction} the controller's", off.whole_seconds(), off.subsec_milliseconds());
    let clock = finding(verdict, server, "clock", clock);
    found.push(if verdict == Verdict::Ok { clock } else { clock.then("set both clocks by NTP") });
    found.push(match &answer.probed.router_problem {
        None => finding(Verdict::Ok, server, "proxy", "its Caddy answers"),
        Some(problem) => finding(Verdict::Fail, server, "proxy", format!("its Caddy does not answer: {problem}"))
            .then(format!("`featherctl server show {server}`; then the log of its birth container")),
    });
    let (reached, lost): (Vec<_>, Vec<_>) = answer.probed.peers.iter().partition(|peer| peer.problem.is_none());
    found.extend(lost.iter().map(|peer| {
        let why = peer.problem.as_deref().unwrap_or_default();
        finding(Verdict::Fail, server, "reach", format!("it does not reach {}: {why}", peer.server)).then(format!(
            "open port 7443 of {} to {server}, or move data with `featherctl tenant migrate NAME --via controller`",
            peer.server
        ))
    }));
    if !reached.is_empty() {
        let slowest = reached.iter().map(|peer| peer.took.as_millis()).max().unwrap_or_default();
        let who = match (reached.len(), lost.is_empty()) {
            (1, true) => reached[0].server.to_string(),
            (count, true) => format!("all {count} others"),
            (1, false) => format!("{} alone", reached[0].server),
            (count, false) => format!("{count} others"),
        };
        found.push(finding(Verdict::Ok, server, "reach", format!("it reaches {who}, the slowest in {slowest} ms")));
    }
    found
}

/// Servers whose agent is of another version of the protocol, and whose turn it is.
fn of_protocols(servers: &BTreeMap<ServerName, Result<Answer, Error>>) -> Vec<Finding> {
    let spoken = |(server, answer): (_, &Result<Answer, Error>)| Some((server, answer.as_ref().ok()?.protocol));
    let spoken: Vec<(&ServerName, Range)> = servers.iter().filter_map(spoken).collect();
    let newer = spoken.iter().any(|(_, spoken)| spoken.age(version::OURS) == Age::Newer);
    let first = spoken.iter().find(|(_, spoken)| spoken.age(version::OURS) == Age::Older).map(|(server, _)| *server);
    let found = spoken.iter().filter(|(_, spoken)| spoken.age(version::OURS) != Age::Same).map(|(server, spoken)| {
        let said = format!("its agent speaks protocol {spoken}, the controller {}", version::OURS);
        let next = match first {
            // The controller is the first of all.
            _ if newer => "upgrade the controller, then the agents one by one".to_owned(),
            Some(first) if first == *server => format!("upgrade the agent of {server} next"),
            Some(first) => format!("upgrade it when {first} is upgraded and ready"),
            None => "upgrade the controller".to_owned(),
        };
        finding(Verdict::Warn, server, "protocol", said).then(next)
    });
    found.collect()
}

fn of_zone(zone: &Zone) -> Vec<Finding> {
    let key = &zone.key;
    let mut found = vec![match &zone.provider {
        Ok(None) => finding(Verdict::Ok, "dns", "provider", format!("{key} is as wanted")),
        Ok(Some(Unsettled { create, remove, pending: true })) => {
            let told =
                format!("{key} is being changed, as after a move: records to create: {create}, to remove: {remove}");
            finding(Verdict::Ok, "dns", "provider", told)
        }
        Ok(Some(Unsettled { create, remove, pending: false })) => {
            let told = format!("{key} is not as wanted: records to create: {create}, to remove: {remove}");
            finding(Verdict::Warn, "dns", "provider", told).then("`featherctl dns plan` shows them")
        }
        Err(error) => finding(Verdict::Fail, "dns", "provider", error.message.clone())
            .then("`featherctl dns status` shows how it stands"),
    }];
    match &zone.name_servers {
        None => {}
        Some(Err(why)) => found.push(
            finding(Verdict::Fail, "dns", "name-servers", why.clone())
                .then("check the zone's NS records, or name the servers with --dns-authority"),
        ),
        Some(Ok(servers)) => found.extend(servers.iter().map(|(server, said)| {
            match said {
                Ok(()) => finding(Verdict::Ok, "dns", "name-server", format!("{server} answers")),
                Err(why) => finding(Verdict::Fail, "dns", "name-server", format!("{server} does not answer: {why}"))
                    .then("no forward ends until it does; `featherctl dns status`"),
            }
        })),
    }
    found
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, time::Duration};

    use feather_proto::{
        error::{Error, reason},
        version::{self, Range},
    };
    use time::OffsetDateTime;

    use super::{Finding, Verdict, findings};
    use crate::{
        agents::{Probed, Reached},
        doctor::{Answer, Answers, Unsettled, Zone},
        store::warnings::WarningRow,
    };

    fn answer(ahead_ms: i64, peers: Vec<Reached>) -> Answer {
        let probed = Probed { router_problem: None, peers };
        let (protocol, took) = (version::OURS, Duration::from_millis(3));
        Answer { probed, protocol, took, ahead: time::Duration::milliseconds(ahead_ms) }
    }

    fn reached(server: &str, problem: Option<&str>) -> Reached {
        Reached {
            server: server.parse().unwrap(),
            took: Duration::from_millis(7),
            problem: problem.map(ToOwned::to_owned),
        }
    }

    fn lines(answers: &Answers, warnings: &[WarningRow]) -> Vec<String> {
        let word = |verdict| match verdict {
            Verdict::Ok => "ok",
            Verdict::Warn => "warn",
            Verdict::Fail => "fail",
        };
        let line = |one: &Finding| format!("{} {} {}: {}", word(one.verdict), one.subject, one.check, one.message);
        let found = findings(answers, warnings);
        // Whatever is not well says what to do.
        assert!(found.iter().all(|one| (one.verdict == Verdict::Ok) == one.next.is_empty()), "{found:#?}");
        found.iter().map(line).collect()
    }

    #[test]
    fn every_answer_is_a_line_and_what_is_wrong_says_what_to_do() {
        let silent = Err(Error::unavailable(reason::SERVER_UNREACHABLE, "connection refused"));
        let mut nyc = answer(-11_250, vec![reached("ams", None), reached("fra", Some("timed out"))]);
        nyc.probed.router_problem = Some("no such socket".into());
        let servers = BTreeMap::from([
            ("ams".parse().unwrap(), Ok(answer(2_001, vec![reached("nyc", None)]))),
            ("fra".parse().unwrap(), silent),
            ("nyc".parse().unwrap(), Ok(nyc)),
        ]);
        let name_servers =
            Some(Ok(vec![("192.0.2.53:53".into(), Ok(())), ("192.0.2.54:53".into(), Err("timed out".into()))]));
        let unsettled = Unsettled { create: 1, remove: 0, pending: false };
        let zone = Zone { key: "dynadot/example.com".into(), provider: Ok(Some(unsettled)), name_servers };
        let answers = Answers { store: Ok(()), servers, zone: Some(zone) };
        assert_eq!(
            lines(&answers, &[]),
            [
                "ok store store: the controller's store answers",
                "ok ams agent: its agent answers in 3 ms",
                "warn ams clock: its clock is 2.001 s ahead of the controller's",
                "ok ams proxy: its Caddy answers",
                "ok ams reach: it reaches nyc, the slowest in 7 ms",
                "fail fra agent: its agent does not answer: connection refused",
                "ok nyc agent: its agent answers in 3 ms",
                "fail nyc clock: its clock is 11.250 s behind the controller's",
                "fail nyc proxy: its Caddy does not answer: no such socket",
                "fail nyc reach: it does not reach fra: timed out",
                "ok nyc reach: it reaches ams alone, the slowest in 7 ms",
                "warn dns provider: dynadot/example.com is not as wanted: records to create: 1, to remove: 0",
                "ok dns name-server: 192.0.2.53:53 answers",
                "fail dns name-server: 192.0.2.54:53 does not answer: timed out",
            ]
        );
    }

    #[test]
    fn a_zone_that_is_being_changed_is_no_warning() {
        let unsettled = Unsettled { create: 1, remove: 2, pending: true };
        let zone = Zone { key: "dynadot/example.com".into(), provider: Ok(Some(unsettled)), name_servers: None };
        let told = lines(&Answers { store: Ok(()), servers: BTreeMap::new(), zone: Some(zone) }, &[]);
        let wanted = "ok dns provider: dynadot/example.com is being changed, as after a move: records to create: 1, to remove: 2";
        assert_eq!(told[1..], [wanted]);
    }

    #[test]
    fn agents_of_another_version_are_upgraded_one_by_one_and_behind_the_controller() {
        let speaking =
            |oldest, newest| Ok(Answer { protocol: Range::new(oldest, newest).unwrap(), ..answer(0, vec![]) });
        let next = |servers: &[(&str, u32, u32)]| {
            let servers =
                servers.iter().map(|(name, oldest, newest)| (name.parse().unwrap(), speaking(*oldest, *newest)));
            let found = findings(&Answers { store: Ok(()), servers: servers.collect(), zone: None }, &[]);
            let of = found.into_iter().filter(|one| one.check == "protocol");
            of.map(|one| format!("{}: {}", one.subject, one.next)).collect::<Vec<_>>()
        };
        assert!(next(&[("ams", 1, 2), ("nyc", 1, 2)]).is_empty());
        let mixed = [("ams", 1, 2), ("fra", 1, 1), ("nyc", 1, 1)];
        let wanted = ["fra: upgrade the agent of fra next", "nyc: upgrade it when fra is upgraded and ready"];
        assert_eq!(next(&mixed), wanted);
        let wanted = "upgrade the controller, then the agents one by one";
        assert_eq!(next(&[("fra", 1, 1), ("nyc", 2, 3)]), [format!("fra: {wanted}"), format!("nyc: {wanted}")]);
    }

    #[test]
    fn what_is_known_without_asking_comes_as_warnings_and_is_not_said_twice() {
        let row = |kind: &str| WarningRow {
            id: format!("{kind}/nyc"),
            kind: kind.into(),
            subject: "server/nyc".into(),
            scope: "server/nyc".into(),
            message: "little is left".into(),
            since: OffsetDateTime::UNIX_EPOCH,
            raised: Some(OffsetDateTime::UNIX_EPOCH),
            acknowledged: None,
        };
        let answers = Answers { store: Ok(()), servers: BTreeMap::new(), zone: None };
        let told = lines(&answers, &[row("disk"), row("unreachable"), WarningRow { raised: None, ..row("memory") }]);
        assert_eq!(told[1..], ["warn nyc warning: little is left"]);
    }
}
