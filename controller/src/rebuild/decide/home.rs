//! Who has a tenant, of all that know it. Pure.

use std::collections::BTreeSet;

use feather_proto::{
    ids::{Generation, ServerName, TenantName},
    model::Residence,
};

use super::{Findings, Sighting, Ways};

/// Where a tenant is.
#[derive(Debug, Clone)]
pub(super) enum Home<'a> {
    /// Runs there, or was stopped by its operator.
    Lives(Sighting<'a>),
    /// Stands still there in the middle of a move.
    Sealed(Sighting<'a>),
    /// Was removed; its data is kept there.
    Kept(Sighting<'a>),
    /// On a member that does not answer.
    Away(Away<'a>),
    /// With nobody who answered.
    Nowhere,
    /// A person has to say, and why.
    Unclear(String),
}

/// On a member that does not answer.
#[derive(Debug, Clone)]
pub(super) struct Away<'a> {
    pub(super) server: ServerName,
    /// Who knows most of it, of those that answer.
    pub(super) by: Sighting<'a>,
    /// No forward shows it: a person said so.
    said: bool,
}

/// Servers and the ways to them, and which of the members do not answer.
pub(super) type Around<'a, 'b> = (&'b Ways<'a>, &'b BTreeSet<&'b ServerName>);

/// Looks at everybody who knows a tenant. A person is heard where that leaves a doubt, and nowhere else.
pub(super) fn home<'a>(
    tenant: &TenantName,
    all: &[Sighting<'a>],
    assigned: Option<&ServerName>,
    around: Around<'_, '_>,
) -> Home<'a> {
    let judged = judged(tenant, all, around);
    let Some(server) = assigned else { return judged };
    let undisputed = match &judged {
        Home::Lives(home) | Home::Sealed(home) => Some(home.server),
        Home::Away(away) => Some(&away.server),
        Home::Kept(_) | Home::Nowhere | Home::Unclear(_) => None,
    };
    match undisputed {
        Some(home) if home == server => judged,
        Some(home) => Home::Unclear(format!(
            "--assign {tenant}={server}: nobody disputes that {tenant} is on {home}; leave --assign {tenant}={server} out"
        )),
        None => chosen(tenant, all, server, (matches!(judged, Home::Unclear(_)), around.1)),
    }
}

/// What a person chose where it is not clear.
fn chosen<'a>(
    tenant: &TenantName,
    all: &[Sighting<'a>],
    server: &ServerName,
    (unclear, silent): (bool, &BTreeSet<&ServerName>),
) -> Home<'a> {
    let newest = all.iter().max_by_key(|one| one.report.generation);
    match all.iter().find(|one| one.server == server && (one.lives() || one.is_sealed())) {
        Some(one) if one.is_sealed() => Home::Sealed(*one),
        Some(one) => Home::Lives(*one),
        None => match newest.filter(|_| unclear && silent.contains(server)) {
            Some(by) => Home::Away(Away { server: server.clone(), by: *by, said: true }),
            None => Home::Unclear(format!("--assign {tenant}={server}: {server} has no {tenant} that lives there")),
        },
    }
}

fn judged<'a>(tenant: &TenantName, all: &[Sighting<'a>], around: Around<'_, '_>) -> Home<'a> {
    let (ways, silent) = around;
    let living: Vec<_> = all.iter().filter(|one| one.lives()).collect();
    let sealed: Vec<_> = all.iter().filter(|one| one.is_sealed()).collect();
    match living.as_slice() {
        [] => match newest(&sealed) {
            Ok(Some(one)) => match taken_over(tenant, one, all, around) {
                Some(why) => Home::Unclear(why),
                None => Home::Sealed(*one),
            },
            Ok(None) => away(all, around).map_or_else(|| kept(all, ways, silent), Home::Away),
            Err(()) => Home::Unclear(several(tenant, &sealed)),
        },
        [one] => match doubt(one, all, ways) {
            Some(other) => Home::Unclear(several(tenant, &[*one, other])),
            None => Home::Lives(**one),
        },
        _ => Home::Unclear(several(tenant, &living)),
    }
}

/// Why somebody may serve a tenant that stands still here in a move: the target of that move does, once it was activated.
fn taken_over(
    tenant: &TenantName,
    sealed: &Sighting<'_>,
    all: &[Sighting<'_>],
    (ways, silent): Around<'_, '_>,
) -> Option<String> {
    let (server, generation) = (sealed.server, sealed.report.generation);
    let left = all.iter().filter(|one| one.report.generation > generation).find_map(|one| {
        let forward = one.report.forward_to.as_ref()?;
        (ways.leads_to(forward) != Some(server)).then(|| format!("{} forwards to {forward} since then", one.server))
    });
    let mute = || {
        let mute = silent.iter().map(|server| server.as_str()).collect::<Vec<_>>();
        (!mute.is_empty()).then(|| format!("of those that do not answer ({}) one may have taken over", mute.join(", ")))
    };
    let why = left.or_else(mute)?;
    Some(format!(
        "it stands still on {server} in a move (generation {generation}), and {why}: it may run elsewhere, with newer data. Let all \
         servers answer; otherwise look at what is there, then say --assign {tenant}={server}, or --assign {tenant}=SERVER with one that does not answer"
    ))
}

/// The member that does not answer to which the newest forward leads. Forwards are written when a move has been committed, and a forward to
/// who has a tenant by then: so this is no guess, unless somebody has data of a later moment, or gets some.
fn away<'a>(all: &[Sighting<'a>], (ways, silent): Around<'_, '_>) -> Option<Away<'a>> {
    let forwards = || all.iter().filter_map(|one| Some((one, one.report.forward_to.as_ref()?)));
    let generation = forwards().map(|(one, _)| one.report.generation).max()?;
    if all.iter().any(|one| one.report.incoming.is_some() || (one.report.generation > generation && one.has_data())) {
        return None;
    }
    let mut newest = forwards().filter(|(one, _)| one.report.generation == generation);
    let (by, forward) = newest.next()?;
    let server = ways.leads_to(forward).filter(|server| silent.contains(server))?;
    let agreed = newest.all(|(_, other)| ways.leads_to(other) == Some(server));
    agreed.then(|| Away { server: server.clone(), by: *by, said: false })
}

/// The one of the highest generation, if it alone has that.
fn newest<'a, 'b>(of: &[&'b Sighting<'a>]) -> Result<Option<&'b Sighting<'a>>, ()> {
    let highest = of.iter().map(|one| one.report.generation).max();
    let mut newest = of.iter().filter(|one| Some(one.report.generation) == highest);
    match (newest.next(), newest.next()) {
        (one, None) => Ok(one.copied()),
        _ => Err(()),
    }
}

/// Who knows that a tenant which lives somewhere was somewhere else later: then it is a copy from before a move.
fn doubt<'a, 'b>(living: &Sighting<'_>, all: &'b [Sighting<'a>], ways: &Ways<'_>) -> Option<&'b Sighting<'a>> {
    let generation = living.report.generation;
    all.iter().filter(|one| one.server != living.server).find(|one| {
        let left_for = one.report.forward_to.as_ref().and_then(|forward| ways.leads_to(forward));
        let elsewhere = left_for.is_some_and(|server| server != living.server);
        // A source that is sealed has an older generation than the target that took over from it.
        (one.is_sealed() && one.report.generation >= generation) || (elsewhere && one.report.generation > generation)
    })
}

/// Kept data of one that was removed. Where requests are forwarded, it lives: with somebody who did not answer.
fn kept<'a>(all: &[Sighting<'a>], ways: &Ways<'_>, silent: &BTreeSet<&ServerName>) -> Home<'a> {
    let unseen = |forward: &String| ways.leads_to(forward).is_none_or(|server| silent.contains(server));
    if all.iter().any(|one| one.report.incoming.is_some() || one.report.forward_to.as_ref().is_some_and(unseen)) {
        return Home::Nowhere;
    }
    let kept = |one: &&Sighting<'_>| one.report.residence == Residence::Absent && one.keeps_data();
    // It went on to somewhere after that, whatever became of it there.
    let left_later = |kept: &Sighting<'_>| {
        all.iter().any(|one| one.report.forward_to.is_some() && one.report.generation > kept.report.generation)
    };
    match newest(&all.iter().filter(kept).collect::<Vec<_>>()) {
        Ok(Some(one)) if !left_later(one) => Home::Kept(*one),
        _ => Home::Nowhere,
    }
}

fn several(tenant: &TenantName, those: &[&Sighting<'_>]) -> String {
    let one = |one: &&Sighting<'_>| {
        let how = match (&one.report.forward_to, one.report.residence) {
            (Some(to), _) => format!("left for {to}"),
            (None, Residence::Running) => "runs".into(),
            (None, Residence::Stopped) => "stopped".into(),
            (None, _) => "stands still in a move".into(),
        };
        format!("{} ({how}, generation {})", one.server, one.report.generation)
    };
    let those = those.iter().map(one).collect::<Vec<_>>().join(" and ");
    format!(
        "{those} do not agree who has it; look at what is there, then say --assign {tenant}=SERVER. The other one is left as it is"
    )
}

/// Where it lived before, by the copy that a move left there.
pub(super) fn left<'a>(all: &[Sighting<'a>], home: &ServerName) -> Option<&'a ServerName> {
    let copies =
        all.iter().filter(|one| one.server != home && one.report.residence == Residence::Departed && one.has_data());
    copies.max_by_key(|one| one.report.generation).map(|one| one.server)
}

/// Says what a person should know of it.
pub(super) fn remark(tenant: &TenantName, all: &[Sighting<'_>], found: &Home<'_>, findings: &mut Findings) {
    let home = match found {
        Home::Unclear(why) => return findings.stop(tenant, why.clone()),
        Home::Nowhere => return nowhere(tenant, all, findings),
        Home::Kept(_) => return,
        Home::Lives(home) => (home.server, home.report.generation),
        Home::Sealed(home) => {
            let server = home.server;
            findings.say(
                tenant,
                format!(
                    "it stands still on {server} in the middle of a move, and nobody who answers has taken over from it; its data is that of \
                     the moment when it was stopped there, and `featherctl tenant start {tenant}` starts it"
                ),
            );
            (server, home.report.generation)
        }
        Home::Away(away) => {
            let server = &away.server;
            let why = match away.said {
                true => "you say that it lives there".to_owned(),
                false => format!("{} forwards to it", away.by.server),
            };
            findings.say(
                tenant,
                format!(
                    "{server} does not answer; {why}, so it is written down there. If {server} is dead, `featherctl server lost {server}` \
                     brings back elsewhere what is left of it, once the controller serves"
                ),
            );
            (server, away.by.report.generation)
        }
    };
    for other in all.iter().filter(|one| one.server != home.0) {
        rival(tenant, other, home, findings);
        if other.report.incoming.is_some() {
            let there = other.server;
            let what = match found {
                Home::Away(_) => {
                    format!("a move to {there} had begun; what came over is given back when the original answers")
                }
                _ => format!(
                    "a move to {there} had begun and is given back; what came over stays there and counts as incomplete"
                ),
            };
            findings.say(tenant, what);
        }
    }
}

fn rival(
    tenant: &TenantName,
    other: &Sighting<'_>,
    (home, generation): (&ServerName, Generation),
    findings: &mut Findings,
) {
    let (server, older) = (other.server, other.report.generation < generation);
    let what = if other.is_sealed() && older {
        format!("{server} still holds its requests; the controller lets them go to {home} when both answer it")
    } else if other.is_sealed() {
        format!(
            "{server} still holds its requests; once `featherctl tenant restart {tenant}` has given the one on {home} a higher generation, the \
             controller lets them go there"
        )
    } else if other.lives() && older {
        format!(
            "the copy on {server} is older: the controller stops it when the one on {home} answers it, if both began as one, and its data stays \
             there"
        )
    } else if other.lives() {
        format!(
            "the copy on {server} runs on and is not known to the fleet; once `featherctl tenant restart {tenant}` has given the one on {home} a \
             higher generation, the controller stops it, if both began as one. Its data stays there"
        )
    } else if other.report.residence == Residence::Departed && other.keeps_data() {
        format!("its older data on {server} is kept without an end; a move there and back gives it one")
    } else {
        return;
    };
    findings.say(tenant, what);
}

fn nowhere(tenant: &TenantName, all: &[Sighting<'_>], findings: &mut Findings) {
    let servers = |which: &dyn Fn(&Sighting<'_>) -> bool| {
        all.iter().filter(|one| which(one)).map(|one| one.server.to_string()).collect::<Vec<_>>().join(", ")
    };
    let arriving = servers(&|one| one.report.incoming.is_some());
    let copies = servers(&|one| one.report.incoming.is_none() && one.has_data());
    if !arriving.is_empty() {
        findings.say(
            tenant,
            format!(
                "it was on its way to {arriving}, and nobody who answers has the original: what came is left alone, and the fleet does not know \
                 it until the server with the original answers. If that was not named, name it with --agent"
            ),
        );
    }
    if !copies.is_empty() {
        findings.say(
            tenant,
            format!("it lives nowhere that answers; a copy of its data is on {copies}, and the fleet does not know the tenant"),
        );
    }
}
