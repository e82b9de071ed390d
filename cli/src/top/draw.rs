//! How the screen of `featherctl top` looks. Pure: draws into a buffer, at a moment that is given.
//!
//! Colours say nothing that a word beside them does not.

use ratatui::{
    Frame,
    layout::{Constraint, Layout, Rect},
    style::{Color, Modifier, Style},
    text::{Line, Span},
    widgets::{Cell, Paragraph, Row, Table, TableState},
};
use time::OffsetDateTime;

use super::{Link, Screen, Tab};
use crate::{
    units,
    view::{
        Moment,
        operation::State,
        status::{StatusView, UnderWayView},
    },
};

/// Operations above the list, if there are any.
const OPERATIONS_ABOVE: usize = 4;
/// Cells of a bar.
const BAR: usize = 20;

/// How it is drawn.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Look {
    /// The moment.
    pub(crate) now: OffsetDateTime,
    /// With colours.
    pub(crate) colour: bool,
}

impl Look {
    fn word(self, word: &str) -> Style {
        let colour = match word {
            "ready" | "running" => Color::Green,
            "unreachable" | "broken" | "crash-loop" | "stuck" => Color::Red,
            "degraded" | "unknown" | "cordoned" | "undoing" => Color::Yellow,
            "changing" | "starting" | "connecting" => Color::Blue,
            _ => return Style::new(),
        };
        if self.colour { Style::new().fg(colour) } else { Style::new() }
    }

    fn soft(self) -> Style {
        Style::new().add_modifier(Modifier::DIM)
    }

    fn age(self, moment: Option<Moment>) -> String {
        moment.map(|Moment(then)| units::age(self.now, then)).unwrap_or_default()
    }
}

/// Draws everything.
pub(crate) fn draw(screen: &Screen, look: Look, frame: &mut Frame<'_>) {
    let under_way = screen.status.as_ref().map_or(0, |status| status.operations.len());
    let above = if screen.tab == Tab::Operations { 0 } else { under_way.min(OPERATIONS_ABOVE) };
    let gap = u16::from(above > 0);
    let above = u16::try_from(above).unwrap_or_default();
    let [head, operations, _, tabs, list, foot] = Layout::vertical([
        Constraint::Length(2),
        Constraint::Length(above),
        Constraint::Length(gap),
        Constraint::Length(1),
        Constraint::Min(1),
        Constraint::Length(1),
    ])
    .areas(frame.area());
    frame.render_widget(Paragraph::new(summary(screen, look)), head);
    if let Some(status) = &screen.status {
        let rows = status.operations.iter().map(|one| operation(one, look));
        frame.render_widget(operation_table(rows), operations);
    }
    frame.render_widget(Paragraph::new(tab_line(screen)), tabs);
    draw_list(screen, look, frame, list);
    frame.render_widget(Paragraph::new(foot_line(screen, look)), foot);
}

fn summary(screen: &Screen, look: Look) -> Vec<Line<'static>> {
    let Some(status) = &screen.status else { return vec![Line::from("Feather Fleet")] };
    let ready = status.servers.iter().filter(|one| one.state == "ready").count();
    let sum = |of: fn(&crate::view::server::ServerView) -> u32| -> u64 {
        status.servers.iter().map(|one| u64::from(of(one))).sum()
    };
    let first = format!(
        "Feather Fleet {}  {ready}/{} servers ready  {}/{} slots free  {} under way",
        status.version,
        status.servers.len(),
        sum(|one| one.slots_free),
        sum(|one| one.slots_total),
        status.operations.len()
    );
    let mut second = vec![Span::raw("tenants")];
    second.extend(
        status
            .tenants
            .iter()
            .filter(|one| one.state != "removed")
            .flat_map(|one| [Span::raw(format!("  {} ", one.count)), Span::styled(one.state, look.word(one.state))]),
    );
    second.push(warnings(status, look));
    vec![Line::styled(first, Modifier::BOLD), Line::from(second)]
}

fn warnings(status: &StatusView, look: Look) -> Span<'static> {
    match (status.warnings.len(), status.acknowledged) {
        (0, 0) => Span::raw(""),
        (0, known) => Span::raw(format!("  {} that somebody knows of", units::counted(known.into(), "warning"))),
        (new, _) => Span::styled(
            format!("  {}", units::counted(u64::try_from(new).unwrap_or(u64::MAX), "warning")),
            look.word("broken"),
        ),
    }
}

fn tab_line(screen: &Screen) -> Line<'static> {
    let tab = |(number, tab): (usize, Tab)| {
        let name = format!(" {} {} {} ", number + 1, tab.name(), screen.rows(tab));
        let style = if tab == screen.tab { Modifier::REVERSED } else { Modifier::empty() };
        [Span::styled(name, style), Span::raw(" ")]
    };
    Line::from(Tab::ALL.into_iter().enumerate().flat_map(tab).collect::<Vec<_>>())
}

fn foot_line(screen: &Screen, look: Look) -> Line<'static> {
    let heard = screen.status.as_ref().and_then(|status| status.now);
    let link = match &screen.link {
        Link::Connecting => Span::raw("connecting to the controller  "),
        Link::Alive => Span::raw(""),
        Link::Lost(why) => {
            let old = heard.map(|_| format!(", this is {} old", look.age(heard))).unwrap_or_default();
            Span::styled(format!("reconnecting{old}: {why}  "), look.word("broken").add_modifier(Modifier::BOLD))
        }
    };
    let order = match screen.order() {
        Some((name, turned)) => format!("s by {name}, r {}", if turned { "turned" } else { "turns" }),
        None => String::new(),
    };
    Line::from(vec![link, Span::styled(format!("q quits  tab next  arrows move  {order}"), look.soft())])
}

fn draw_list(screen: &Screen, look: Look, frame: &mut Frame<'_>, area: Rect) {
    let table = match screen.tab {
        Tab::Servers => servers(screen, look),
        Tab::Tenants => tenants(screen, look),
        Tab::Operations => {
            let status = screen.status.iter();
            operation_table(status.flat_map(|status| &status.operations).map(|one| operation(one, look)))
        }
        Tab::Warnings => warning_table(screen, look),
        Tab::Events => events(screen, look),
    };
    if screen.rows(screen.tab) == 0 {
        let nothing = if screen.status.is_some() { format!("no {}", screen.tab.name()) } else { String::new() };
        frame.render_widget(Paragraph::new(nothing).style(look.soft()), area);
        return;
    }
    let mut state = TableState::new().with_selected(screen.marked());
    frame.render_stateful_widget(table.row_highlight_style(Modifier::REVERSED), area, &mut state);
}

fn head<const N: usize>(names: [&'static str; N]) -> Row<'static> {
    Row::new(names).style(Modifier::BOLD)
}

fn servers(screen: &Screen, look: Look) -> Table<'static> {
    let rows = screen.servers().into_iter().map(|one| {
        let name = if one.ingress { format!("{} *", one.name) } else { one.name.clone() };
        let state = if one.cordoned { format!("{}, cordoned", one.state) } else { one.state.to_owned() };
        Row::new([
            Cell::from(name),
            Cell::from(state).style(look.word(one.state)),
            Cell::from(format!("{}/{}", one.slots_free, one.slots_total)),
            Cell::from(one.tenants.to_string()),
            Cell::from(units::free_of(one.memory_free_bytes, one.memory_total_bytes)),
            Cell::from(units::free_of(one.disk_free_bytes, one.disk_total_bytes)),
            Cell::from(look.age(one.last_seen)),
            Cell::from(one.problems.join("; ")),
        ])
    });
    let widths = [16, 21, 10, 7, 18, 20, 5].map(Constraint::Length).into_iter().chain([Constraint::Fill(1)]);
    let names = ["SERVER", "STATE", "FREE SLOTS", "TENANTS", "MEMORY", "DISK", "SEEN", "PROBLEMS"];
    Table::new(rows, widths).header(head(names))
}

fn tenants(screen: &Screen, look: Look) -> Table<'static> {
    let rows = screen.tenants().into_iter().map(|one| {
        Row::new([
            Cell::from(one.name.clone()),
            Cell::from(one.state).style(look.word(one.state)),
            Cell::from(one.server.clone().unwrap_or_default()),
            Cell::from(look.age(one.created)),
            Cell::from(one.restarts.to_string()),
            Cell::from(one.problem.clone().unwrap_or_default()),
        ])
    });
    let widths = [20, 11, 16, 5, 8].map(Constraint::Length).into_iter().chain([Constraint::Fill(1)]);
    Table::new(rows, widths).header(head(["TENANT", "STATE", "SERVER", "AGE", "RESTARTS", "PROBLEM"]))
}

fn bar(percent: u64) -> String {
    let full = usize::try_from(percent.min(100)).unwrap_or(100) * BAR / 100;
    format!("{}{} {percent:>3}%", "█".repeat(full), "░".repeat(BAR - full))
}

fn operation(one: &UnderWayView, look: Look) -> Row<'static> {
    let operation = &one.operation;
    let subject = if operation.tenant.is_empty() { String::new() } else { operation.tenant.clone() };
    let step = match operation.state {
        State::Running => operation.step.clone().unwrap_or_default(),
        other => other.word().to_owned(),
    };
    let done = one.percent().map(bar).unwrap_or_default();
    let rate = one.bytes_per_second.map(|rate| format!("{}/s", units::bytes(rate))).unwrap_or_default();
    let left = one.seconds_left().map(|left| format!("{left} s left")).unwrap_or_default();
    let trouble = operation.error.clone().unwrap_or_default();
    let last = [rate, left, trouble].into_iter().filter(|text| !text.is_empty()).collect::<Vec<_>>().join("  ");
    Row::new([
        Cell::from(operation.kind),
        Cell::from(subject),
        Cell::from(one.route()),
        Cell::from(step).style(look.word(operation.state.word())),
        Cell::from(look.age(operation.created)),
        Cell::from(done),
        Cell::from(last),
    ])
}

fn operation_table<'a>(rows: impl Iterator<Item = Row<'a>>) -> Table<'a> {
    let widths = [8, 20, 20, 12, 4, 25].map(Constraint::Length).into_iter().chain([Constraint::Fill(1)]);
    Table::new(rows, widths)
}

fn warning_table(screen: &Screen, look: Look) -> Table<'static> {
    let rows = screen.status.iter().flat_map(|status| &status.warnings).map(|one| {
        Row::new([
            Cell::from(look.age(one.since)),
            Cell::from(one.subject.clone()),
            Cell::from(one.message.clone()),
            Cell::from(one.id.clone()),
        ])
    });
    let widths = [Constraint::Length(5), Constraint::Length(18), Constraint::Fill(3), Constraint::Fill(1)];
    Table::new(rows, widths).header(head(["SINCE", "ABOUT", "WHAT", "WARNING"]))
}

fn events(screen: &Screen, look: Look) -> Table<'static> {
    let rows = screen.events.iter().map(|one| {
        Row::new([
            Cell::from(look.age(one.at)),
            Cell::from(one.subject.clone()),
            Cell::from(one.message.clone()),
            Cell::from(one.who.clone().unwrap_or_default()),
        ])
    });
    let widths = [Constraint::Length(5), Constraint::Length(18), Constraint::Fill(1), Constraint::Length(18)];
    Table::new(rows, widths).header(head(["AGO", "ABOUT", "WHAT", "WHO"]))
}

#[cfg(test)]
mod tests {
    use feather_proto::{model::to_timestamp, pb::controller::v1 as pb};
    use insta::assert_snapshot;
    use ratatui::{Terminal, backend::TestBackend};
    use time::{Duration, OffsetDateTime};

    use super::{Look, draw};
    use crate::top::{
        Key, News, Screen,
        tests::{event, heard, server, status, tenant},
    };

    const NOW: OffsetDateTime = OffsetDateTime::UNIX_EPOCH;

    fn shown(screen: &Screen, (width, height): (u16, u16)) -> String {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
        let look = Look { now: NOW, colour: true };
        terminal.draw(|frame| draw(screen, look, frame)).unwrap();
        let cells = terminal.backend().buffer().content();
        let lines = cells.chunks(usize::from(width)).map(|line| {
            let line: String = line.iter().map(ratatui::buffer::Cell::symbol).collect();
            line.trim_end().to_owned()
        });
        lines.collect::<Vec<_>>().join("\n")
    }

    fn busy() -> Screen {
        let ago = |seconds| Some(to_timestamp(NOW - Duration::seconds(seconds)));
        let operation = pb::Operation {
            kind: pb::OperationKind::Migrate.into(),
            state: pb::OperationState::Running.into(),
            tenant: "alice".into(),
            source: "nyc".into(),
            target: "fra".into(),
            step: "pre-copy".into(),
            created: ago(12),
            ..Default::default()
        };
        let progress = pb::TransferProgress {
            bytes: 1 << 30,
            total_bytes: 2 << 30,
            bytes_per_second: 64 << 20,
            ..Default::default()
        };
        let warning = pb::Warning {
            id: "unreachable-syd".into(),
            subject: "server/syd".into(),
            message: "syd does not answer".into(),
            since: ago(7200),
            ..Default::default()
        };
        let down = pb::Server {
            state: pb::ServerState::Unreachable.into(),
            problems: vec!["its stream\u{1b}[2J went silent".into()],
            last_seen: ago(7200),
            cordoned: true,
            ..server("syd", 0)
        };
        let fra = pb::Server { ingress: true, last_seen: ago(1), ..server("fra", 1) };
        let count = |state: pb::TenantState, count| pb::TenantCount { state: state.into(), count };
        let status = pb::GetStatusResponse {
            now: ago(0),
            operations: vec![pb::OperationUnderWay { operation: Some(operation), progress: Some(progress) }],
            warnings: vec![warning],
            tenants: vec![count(pb::TenantState::Running, 1), count(pb::TenantState::Changing, 1)],
            ..status(vec![fra, down])
        };
        let mut screen = Screen::new();
        let changing = tenant("alice", "nyc", pb::TenantState::Changing);
        screen.take(heard(status, vec![changing, tenant("bob", "fra", pb::TenantState::Running)]));
        screen.take(event(1));
        screen
    }

    #[test]
    fn the_fleet_is_on_one_screen() {
        assert_snapshot!(shown(&busy(), (120, 12)), @"
        Feather Fleet 0.1.0  1/2 servers ready  1/20 slots free  1 under way
        tenants  1 running  1 changing  1 warning
        migrate  alice                nyc -> fra           pre-copy     12s  ██████████░░░░░░░░░░  50% 64.0 MiB/s  16 s left

         1 servers 2   2 tenants 2   3 operations 1   4 warnings 1   5 events 1
        SERVER           STATE                 FREE SLOTS TENANTS MEMORY             DISK                 SEEN  PROBLEMS
        syd              unreachable, cordoned 0/10       0       1.0/2.0 GiB free   5.0/20.0 GiB free    2h    its stream[2J we
        fra *            ready                 1/10       0       1.0/2.0 GiB free   5.0/20.0 GiB free    1s



        q quits  tab next  arrows move  s by attention, r turns
        ");
    }

    #[test]
    fn each_list_is_shown_and_a_broken_connection_is_said() {
        let mut screen = busy();
        screen.press(Key::Number(2));
        screen.take(News::Lost("the controller gave no answer".into()));
        assert_snapshot!(shown(&screen, (120, 7)), @"
        Feather Fleet 0.1.0  1/2 servers ready  1/20 slots free  1 under way
        tenants  1 running  1 changing  1 warning
         1 servers 2   2 tenants 2   3 operations 1   4 warnings 1   5 events 1
        migrate  alice                nyc -> fra           pre-copy     12s  ██████████░░░░░░░░░░  50% 64.0 MiB/s  16 s left


        reconnecting, this is 0s old: the controller gave no answer  q quits  tab next  arrows move
        ");
        for (number, said) in [(1, "TENANT"), (3, "syd does not answer"), (4, "event 1")] {
            screen.press(Key::Number(number));
            assert!(shown(&screen, (100, 12)).contains(said), "{said}");
        }
    }

    #[test]
    fn any_size_will_do_and_the_marked_line_is_in_sight() {
        let mut screen = Screen::new();
        assert!(shown(&screen, (80, 24)).contains("connecting"));
        let servers = (0..100).map(|number| server(&format!("s{number:02}"), 5)).collect();
        screen.take(heard(status(servers), vec![]));
        for size in [(1, 1), (3, 2), (10, 3), (500, 200)] {
            shown(&screen, size);
        }
        screen.press(Key::Last);
        assert!(shown(&screen, (80, 12)).contains("s99"));
    }
}
