//! What a browser gets. Pure: a view in, text out; whatever comes from elsewhere is escaped by the macro that puts it in.
//!
//! The parts that change have ids and are replaced one by one by `live.js`. Colours say nothing that a word beside them does not.

use std::collections::BTreeMap;

use maud::{DOCTYPE, Markup, html};
use time::OffsetDateTime;

use super::{
    entry::Asked,
    plot,
    view::{Mood, Operation, Server, Tenant, Transfer, View, bytes, moment, outage, span},
};
use crate::store::Viewer;

/// Servers on the map unless all are asked for.
const SERVERS_SHOWN: usize = 60;
/// Tenants in a tile of the map.
const IN_TILE: usize = 24;
/// Tenants in the table, at once.
const TENANTS_SHOWN: usize = 200;
/// Operations in full.
const OPERATIONS_SHOWN: usize = 20;
/// Warnings in full.
const WARNINGS_SHOWN: usize = 8;
/// Moves in words.
const MOVES_SHOWN: usize = 4;

/// Said when a token is not good.
pub(super) const REFUSED: &str =
    "This token is unknown or has ended. Copy all of what featherctl printed, or make another one.";
/// Said when there were too many that were not.
pub(super) const TOO_MANY: &str = "Too many tokens were refused. Wait a minute, then try again.";

fn mood(mood: Mood) -> &'static str {
    match mood {
        Mood::Bad => "bad",
        Mood::Doubtful => "doubtful",
        Mood::Busy => "busy",
        Mood::Good => "good",
        Mood::Idle => "idle",
    }
}

fn ago(now: OffsetDateTime, then: Option<OffsetDateTime>) -> String {
    then.map(|then| span((now - then).whole_seconds())).unwrap_or_default()
}

fn counted(count: usize, noun: &str) -> String {
    format!("{count} {noun}{}", if count == 1 { "" } else { "s" })
}

fn frame(title: &str, live: bool, body: &Markup) -> String {
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { (title) }
                link rel="stylesheet" href="/page.css";
                @if live {
                    script src="/live.js" defer {}
                    noscript { meta http-equiv="refresh" content="15"; }
                }
            }
            body { (body) }
        }
    };
    page.into_string()
}

/// Where a token is pasted.
pub(super) fn login(problem: Option<&str>) -> String {
    let body = html! {
        main.gate {
            h1 { "Feather Fleet" }
            p { "This page shows the fleet to whoever has a token. Make one with" }
            pre { "featherctl user web" }
            form method="post" action="/login" {
                label for="token" { "Token" }
                input #token name="token" type="password" autocomplete="off" spellcheck="false" required autofocus;
                @if let Some(problem) = problem {
                    p.problem role="alert" { (problem) }
                }
                button { "Look at the fleet" }
            }
        }
    };
    frame("Feather Fleet: log in", false, &body)
}

/// One thing to say.
pub(super) fn notice(title: &str, text: &str) -> String {
    let body = html! {
        main.gate {
            h1 { (title) }
            p { (text) }
            p { a href="/" { "Try again" } }
        }
    };
    frame(title, false, &body)
}

/// The whole page.
pub(super) fn document(view: &View, viewer: &Viewer, asked: &Asked) -> String {
    let body = html! {
        header {
            h1 { "Feather Fleet" }
            (summary(view))
            div.who {
                (connection(view))
                span title=(format!("until {}", moment(viewer.expires))) { (viewer.name) }
                form method="post" action="/logout" { button.quiet { "Log out" } }
            }
        }
        main {
            (warnings(view))
            div.columns {
                div {
                    section { h2 { "Servers" } (map(view, asked)) }
                    section { (search(asked)) (tenants(view, asked)) }
                }
                div.side {
                    section { h2 { "Under way" } (operations(view)) }
                    section { h2 { "Outages of moves" } (outages(view)) }
                    section { h2 { "What happened" } (events(view)) }
                }
            }
        }
        footer { "feather-controller " (view.version) }
    };
    frame("Feather Fleet", true, &body)
}

fn search(asked: &Asked) -> Markup {
    html! {
        div.bar-of-table {
            h2 { "Tenants" }
            form method="get" action="/" {
                @if asked.all { input type="hidden" name="all" value="1"; }
                input name="q" type="search" value=(asked.sought) maxlength="64" placeholder="name, server or state"
                    aria-label="Tenants by name, server or state";
                button.quiet { "Find" }
            }
        }
    }
}

/// When this was so.
fn connection(view: &View) -> Markup {
    let at = moment(view.now);
    html! { span #connection title=(at) { "as of " (at.get(11..19).unwrap_or_default()) " UTC" } }
}

/// The parts that change, for the script to put in.
pub(super) fn live(view: &View, asked: &Asked) -> Markup {
    html! {
        (connection(view))
        (summary(view)) (warnings(view)) (map(view, asked)) (operations(view)) (outages(view)) (events(view)) (tenants(view, asked))
    }
}

fn summary(view: &View) -> Markup {
    let well = view.servers.iter().filter(|one| one.state.word == "ready").count();
    let (free, slots) = view.servers.iter().fold((0, 0), |sum, one| (sum.0 + one.slots.0, sum.1 + one.slots.1));
    let mut states = BTreeMap::<_, usize>::new();
    for tenant in &view.tenants {
        *states.entry(tenant.state).or_default() += 1;
    }
    html! {
        ul #summary {
            li { b { (well) "/" (view.servers.len()) } " servers ready" }
            li { b { (free) "/" (slots) } " slots free" }
            @for (state, count) in states { li.(mood(state.mood)) { b { (count) } " " (state.word) } }
            @for (name, what) in [("DNS", &view.dns), ("certificate", &view.certificate)] {
                @if let Some((said, well)) = what {
                    li.(if *well { "good" } else { "bad" }) title=(said) { (name) " " @if *well { "well" } @else { "failing" } }
                }
            }
        }
    }
}

fn warnings(view: &View) -> Markup {
    let known = usize::try_from(view.acknowledged).unwrap_or(usize::MAX);
    html! {
        section #warnings.(if view.warnings.is_empty() { "none" } else { "some" }) {
            @if !view.warnings.is_empty() {
                h2 { (counted(view.warnings.len(), "warning")) }
                ul {
                    @for one in view.warnings.iter().take(WARNINGS_SHOWN) {
                        li {
                            span { (one.message) }
                            span.soft { code { (one.id) } " for " (ago(view.now, one.since)) }
                        }
                    }
                }
                @let rest = view.warnings.len().saturating_sub(WARNINGS_SHOWN);
                @if rest > 0 { p.soft { "and " (rest) " more: " code { "featherctl warning list" } } }
            }
            @if known > 0 { p.soft { (counted(known, "more warning")) " that somebody knows of" } }
        }
    }
}

/// A part of a whole, with its words beside it.
fn meter(name: &str, used: u64, total: u64, said: &str) -> Markup {
    let percent = if total == 0 { 0 } else { u128::from(used.min(total)) * 100 / u128::from(total) };
    let full = if percent >= 90 { "full" } else { "" };
    html! {
        div.meter {
            span.soft { (name) }
            (bar(u8::try_from(percent).unwrap_or(100), full))
            span { (said) }
        }
    }
}

fn bar(percent: u8, look: &str) -> Markup {
    html! {
        svg.bar.(look) viewBox="0 0 100 6" preserveAspectRatio="none" aria-hidden="true" {
            rect.rail width="100" height="6" {}
            rect.fill width=(percent) height="6" {}
        }
    }
}

fn map(view: &View, asked: &Asked) -> Markup {
    let mut living = BTreeMap::<&str, Vec<&Tenant>>::new();
    for tenant in &view.tenants {
        living.entry(&tenant.server).or_default().push(tenant);
    }
    let shown = if asked.all { view.servers.len() } else { SERVERS_SHOWN };
    html! {
        div #map {
            @for server in view.servers.iter().take(shown) {
                (tile(view, server, living.get(server.name.as_str()).map_or(&[], Vec::as_slice)))
            }
            @if view.servers.is_empty() { p.soft { "No servers yet: " code { "featherctl server invite NAME" } } }
            @if view.servers.len() > shown {
                @let address = Asked { all: true, ..asked.clone() }.address();
                p { a href=(address) { "and " (view.servers.len() - shown) " more" } }
            }
        }
    }
}

fn tile(view: &View, server: &Server, tenants: &[&Tenant]) -> Markup {
    let (free, slots) = (u64::from(server.slots.0), u64::from(server.slots.1));
    let room =
        |(free, total): (u64, u64)| if total == 0 { "not known".to_owned() } else { format!("{} free", bytes(free)) };
    html! {
        article.tile.(mood(server.state.mood)) {
            h3 {
                span { (server.name) }
                @if server.ingress { span.tag title="the wildcard record leads here" { "ingress" } }
                @if server.cordoned { span.tag.doubtful title="takes no new tenants" { "cordoned" } }
                span.state.(mood(server.state.mood)) { (server.state.word) }
            }
            @for problem in &server.problems { p.problem { (problem) } }
            @if server.state.word != "ready" { p.soft { "heard of " (ago(view.now, server.seen)) " ago" } }
            // How many are free on a server that does not answer, nobody knows.
            @if server.state.mood != Mood::Bad {
                (meter("slots", slots.saturating_sub(free), slots, &format!("{free} of {slots} free")))
            }
            (meter("memory", server.memory.1.saturating_sub(server.memory.0), server.memory.1, &room(server.memory)))
            (meter("disk", server.disk.1.saturating_sub(server.disk.0), server.disk.1, &room(server.disk)))
            @if !tenants.is_empty() {
                ul.chips {
                    @for tenant in tenants.iter().take(IN_TILE) {
                        li.(mood(tenant.state.mood)) title=(format!("{}: {}", tenant.name, tenant.state.word)) {
                            (tenant.name)
                            @if !matches!(tenant.state.mood, Mood::Good) { " " i { (tenant.state.word) } }
                        }
                    }
                    @if tenants.len() > IN_TILE { li.soft { "and " (tenants.len() - IN_TILE) " more" } }
                }
            }
            @if !server.labels.is_empty() { p.labels { @for label in &server.labels { code { (label) } " " } } }
        }
    }
}

fn operations(view: &View) -> Markup {
    html! {
        div #operations {
            @if view.operations.is_empty() { p.soft { "Nothing is being changed." } }
            @for one in view.operations.iter().take(OPERATIONS_SHOWN) { (operation(view, one)) }
            @let rest = view.operations.len().saturating_sub(OPERATIONS_SHOWN);
            @if rest > 0 { p.soft { "and " (rest) " more: " code { "featherctl operation list" } } }
        }
    }
}

fn operation(view: &View, one: &Operation) -> Markup {
    let way = match (one.source.as_str(), one.target.as_str()) {
        ("", "") => String::new(),
        (source, target) if source == target || target.is_empty() => source.to_owned(),
        ("", target) => target.to_owned(),
        (source, target) => format!("{source} → {target}"),
    };
    html! {
        article.operation {
            h3 {
                span { (one.kind) " " (one.subject) }
                @if way != one.subject { span.soft { (way) } }
                span.state.(mood(one.state.mood)) {
                    @if one.state.word == "running" && !one.step.is_empty() { (one.step) } @else { (one.state.word) }
                }
            }
            @if let Some(transfer) = &one.transfer { (progress(transfer)) }
            @if !one.trouble.is_empty() { p.problem { (one.trouble) } }
            p.soft { code { (one.id) } " by " (one.by) ", for " (ago(view.now, one.begun)) }
        }
    }
}

fn progress(transfer: &Transfer) -> Markup {
    let mut said = match transfer.percent() {
        Some(percent) => {
            vec![format!("{percent} %"), format!("{} of {}", bytes(transfer.bytes), bytes(transfer.total))]
        }
        None => vec![bytes(transfer.bytes)],
    };
    said.extend((transfer.rate > 0).then(|| format!("{}/s", bytes(transfer.rate))));
    said.extend(transfer.seconds_left().map(|left| format!("{} left", span(i64::try_from(left).unwrap_or(i64::MAX)))));
    html! {
        div.progress {
            (bar(transfer.percent().unwrap_or(0), "busy"))
            span { (said.join(" · ")) }
            span.soft { (transfer.phase) }
        }
    }
}

fn outages(view: &View) -> Markup {
    html! {
        div #outages {
            @match plot::summary(&view.moves) {
                None => p.soft { "No tenant has moved yet." },
                Some((middle, worst)) => {
                    (plot::outages(&view.moves, view.now))
                    p.soft {
                        (counted(view.moves.len(), "move")) ", the middle one " (outage(middle)) ", the worst " (outage(worst))
                    }
                    ol.moves {
                        @for one in view.moves.iter().rev().take(MOVES_SHOWN) {
                            li {
                                b { (one.tenant) } " " (one.source) " → " (one.target) ": " (outage(one.outage_ms))
                                span.soft { ", " (bytes(one.sent)) " sent, " (ago(view.now, Some(one.at))) " ago" }
                            }
                        }
                    }
                },
            }
        }
    }
}

fn events(view: &View) -> Markup {
    html! {
        ol #events {
            @for one in &view.events {
                li {
                    time.soft datetime=(moment(one.at)) title=(moment(one.at)) { (ago(view.now, Some(one.at))) }
                    span { b { (one.subject.trim_start_matches("server/")) } " " (one.message) }
                }
            }
        }
    }
}

/// Those that are sought, behind the last one of the page before.
fn found<'a>(view: &'a View, asked: &Asked) -> Vec<&'a Tenant> {
    let sought = asked.sought.to_lowercase();
    let fits = |one: &&Tenant| {
        [one.name.as_str(), one.server.as_str(), one.state.word].iter().any(|text| text.contains(&sought))
    };
    view.tenants.iter().filter(fits).filter(|one| asked.after.is_empty() || one.name > asked.after).collect()
}

fn tenants(view: &View, asked: &Asked) -> Markup {
    let found = found(view, asked);
    let shown = &found[..found.len().min(TENANTS_SHOWN)];
    html! {
        div #tenants {
            @if shown.is_empty() {
                p.soft { @if view.tenants.is_empty() { "No tenants yet." } @else { "None of that kind." } }
            } @else {
                div.wide {
                    table {
                        thead { tr { th { "Tenant" } th { "State" } th { "Server" } th { "Age" } th { "Restarts" } th { "Address" } } }
                        tbody { @for one in shown { (row(view, one)) } }
                    }
                }
            }
            @if found.len() > shown.len() {
                @let last = shown.last().map(|one| one.name.clone()).unwrap_or_default();
                @let address = Asked { after: last, ..asked.clone() }.address();
                p { a href=(address) { "the next of " (found.len() - shown.len()) " more" } }
            }
        }
    }
}

fn row(view: &View, one: &Tenant) -> Markup {
    html! {
        tr {
            td { b { (one.name) } }
            td {
                span.state.(mood(one.state.mood)) { (one.state.word) }
                @if !one.problem.is_empty() { span.problem { (one.problem) } }
            }
            td { (one.server) }
            td.number { (ago(view.now, one.created)) }
            td.number { @if one.restarts > 0 { (one.restarts) } }
            td.soft { (one.url) }
        }
    }
}

#[cfg(test)]
mod tests;
