//! What `featherctl top` has on its screen, and what keys do to it. Pure: knows neither the terminal nor the controller.

use std::{cmp::Reverse, collections::VecDeque};

use crate::view::{Moment, event::EventView, server::ServerView, status::StatusView, tenant::TenantView};

pub(crate) mod draw;

/// Events that are kept for looking back.
const EVENTS_KEPT: usize = 500;
/// Lines that a page up or down goes.
const PAGE: usize = 10;

/// One list of the screen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tab {
    Servers,
    Tenants,
    Operations,
    Warnings,
    Events,
}

impl Tab {
    pub(crate) const ALL: [Tab; 5] = [Tab::Servers, Tab::Tenants, Tab::Operations, Tab::Warnings, Tab::Events];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Tab::Servers => "servers",
            Tab::Tenants => "tenants",
            Tab::Operations => "operations",
            Tab::Warnings => "warnings",
            Tab::Events => "events",
        }
    }

    /// What it may be sorted by; nothing where the order means something.
    fn orders(self) -> &'static [&'static str] {
        match self {
            Tab::Servers => &["attention", "name", "free slots", "free memory", "free disk"],
            Tab::Tenants => &["name", "attention", "server", "age", "restarts"],
            Tab::Operations | Tab::Warnings | Tab::Events => &[],
        }
    }

    fn place(self) -> usize {
        Self::ALL.iter().position(|tab| *tab == self).unwrap_or_default()
    }
}

/// Whether what is shown is how things are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Link {
    /// Nothing was heard yet.
    Connecting,
    /// The newest look was answered.
    Alive,
    /// It was not, and why; what is shown is old.
    Lost(String),
}

/// What a key means here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Key {
    Quit,
    Next,
    Previous,
    /// The tab with this number, from 0.
    Number(usize),
    Up,
    Down,
    PageUp,
    PageDown,
    First,
    Last,
    Sort,
    Turn,
}

/// What a look brought.
pub(crate) enum News {
    Status(Box<StatusView>, Vec<TenantView>),
    Event(Box<EventView>),
    /// The look, or the stream of events, was not answered.
    Lost(String),
}

/// How a list is ordered and where the mark is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Standing {
    order: usize,
    turned: bool,
    marked: usize,
}

/// Everything on the screen.
pub(crate) struct Screen {
    pub(crate) tab: Tab,
    pub(crate) link: Link,
    pub(crate) status: Option<StatusView>,
    tenants: Vec<TenantView>,
    /// The newest first.
    pub(crate) events: VecDeque<EventView>,
    standings: [Standing; Tab::ALL.len()],
}

impl Screen {
    pub(crate) fn new() -> Self {
        Self {
            tab: Tab::Servers,
            link: Link::Connecting,
            status: None,
            tenants: Vec::new(),
            events: VecDeque::new(),
            standings: [Standing::default(); Tab::ALL.len()],
        }
    }

    /// Takes in what was brought.
    pub(crate) fn take(&mut self, news: News) {
        match news {
            News::Status(status, tenants) => {
                (self.status, self.tenants, self.link) = (Some(*status), tenants, Link::Alive);
            }
            // A stream that begins anew may send what is here already.
            News::Event(event) if self.events.front().is_some_and(|newest| newest.id >= event.id) => {}
            News::Event(event) => {
                self.events.push_front(*event);
                self.events.truncate(EVENTS_KEPT);
            }
            News::Lost(why) => self.link = Link::Lost(why),
        }
        self.stay_inside();
    }

    /// Does what a key means; false when that is to leave.
    pub(crate) fn press(&mut self, key: Key) -> bool {
        let (tabs, place, rows) = (Tab::ALL.len(), self.tab.place(), self.rows(self.tab));
        let standing = &mut self.standings[place];
        match key {
            Key::Quit => return false,
            Key::Next => self.tab = Tab::ALL[(place + 1) % tabs],
            Key::Previous => self.tab = Tab::ALL[(place + tabs - 1) % tabs],
            Key::Number(number) => self.tab = Tab::ALL.get(number).copied().unwrap_or(self.tab),
            Key::Up => standing.marked = standing.marked.saturating_sub(1),
            Key::Down => standing.marked += 1,
            Key::PageUp => standing.marked = standing.marked.saturating_sub(PAGE),
            Key::PageDown => standing.marked += PAGE,
            Key::First => standing.marked = 0,
            Key::Last => standing.marked = rows,
            Key::Sort => standing.order = (standing.order + 1) % self.tab.orders().len().max(1),
            Key::Turn => standing.turned ^= !self.tab.orders().is_empty(),
        }
        self.stay_inside();
        true
    }

    /// The marked line of the list in front.
    pub(crate) fn marked(&self) -> usize {
        self.standings[self.tab.place()].marked
    }

    /// What the list in front is sorted by, and whether the other way round; none where it is not sorted.
    pub(crate) fn order(&self) -> Option<(&'static str, bool)> {
        let standing = self.standings[self.tab.place()];
        self.tab.orders().get(standing.order).map(|name| (*name, standing.turned))
    }

    /// How many lines a list has.
    pub(crate) fn rows(&self, tab: Tab) -> usize {
        let status = self.status.as_ref();
        match tab {
            Tab::Servers => status.map_or(0, |status| status.servers.len()),
            Tab::Tenants => self.tenants.len(),
            Tab::Operations => status.map_or(0, |status| status.operations.len()),
            Tab::Warnings => status.map_or(0, |status| status.warnings.len()),
            Tab::Events => self.events.len(),
        }
    }

    fn stay_inside(&mut self) {
        for tab in Tab::ALL {
            let last = self.rows(tab).saturating_sub(1);
            let standing = &mut self.standings[tab.place()];
            standing.marked = standing.marked.min(last);
        }
    }

    fn turned<T>(&self, tab: Tab, mut rows: Vec<T>) -> Vec<T> {
        if self.standings[tab.place()].turned {
            rows.reverse();
        }
        rows
    }

    /// In the order that was chosen.
    pub(crate) fn servers(&self) -> Vec<&ServerView> {
        let mut rows: Vec<_> = self.status.iter().flat_map(|status| &status.servers).collect();
        rows.sort_by(|one, other| one.name.cmp(&other.name));
        match self.standings[Tab::Servers.place()].order {
            0 => rows.sort_by_key(|one| (one.state == "ready" && one.problems.is_empty(), one.slots_free)),
            2 => rows.sort_by_key(|one| one.slots_free),
            3 => rows.sort_by_key(|one| one.memory_free_bytes),
            4 => rows.sort_by_key(|one| one.disk_free_bytes),
            _ => {}
        }
        self.turned(Tab::Servers, rows)
    }

    /// In the order that was chosen.
    pub(crate) fn tenants(&self) -> Vec<&TenantView> {
        let mut rows: Vec<_> = self.tenants.iter().collect();
        rows.sort_by(|one, other| one.name.cmp(&other.name));
        match self.standings[Tab::Tenants.place()].order {
            1 => rows.sort_by_key(|one| attention(one.state)),
            2 => rows.sort_by(|one, other| one.server.cmp(&other.server)),
            3 => rows.sort_by_key(|one| Reverse(one.created.map(|Moment(at)| at))),
            4 => rows.sort_by_key(|one| Reverse(one.restarts)),
            _ => {}
        }
        self.turned(Tab::Tenants, rows)
    }
}

/// The first need a person most.
fn attention(state: &str) -> usize {
    const ORDER: [&str; 7] = ["broken", "crash-loop", "unknown", "changing", "starting", "stopped", "running"];
    ORDER.iter().position(|one| *one == state).unwrap_or(0)
}

#[cfg(test)]
pub(crate) mod tests {
    use feather_proto::pb::controller::v1 as pb;

    use super::{Key, Link, News, Screen, Tab};
    use crate::view::{event::EventView, status::StatusView, tenant::TenantView};

    pub(crate) fn server(name: &str, slots_free: u32) -> pb::Server {
        pb::Server {
            name: name.into(),
            state: pb::ServerState::Ready.into(),
            slots_free,
            slots_total: 10,
            memory_free_bytes: 1 << 30,
            memory_total_bytes: 2 << 30,
            disk_free_bytes: 5 << 30,
            disk_total_bytes: 20 << 30,
            ..Default::default()
        }
    }

    pub(crate) fn tenant(name: &str, server: &str, state: pb::TenantState) -> pb::Tenant {
        pb::Tenant { name: name.into(), server: server.into(), state: state.into(), ..Default::default() }
    }

    pub(crate) fn status(servers: Vec<pb::Server>) -> pb::GetStatusResponse {
        pb::GetStatusResponse { version: "0.1.0".into(), servers, ..Default::default() }
    }

    pub(crate) fn heard(status: pb::GetStatusResponse, tenants: Vec<pb::Tenant>) -> News {
        News::Status(Box::new(StatusView::from(status)), tenants.into_iter().map(TenantView::from).collect())
    }

    pub(crate) fn event(id: i64) -> News {
        let event =
            pb::FleetEvent { id, subject: "alice".into(), message: format!("event {id}"), ..Default::default() };
        News::Event(Box::new(EventView::from(event)))
    }

    fn full() -> Screen {
        let mut screen = Screen::new();
        let down = pb::Server { state: pb::ServerState::Unreachable.into(), ..server("syd", 0) };
        let running = pb::TenantState::Running;
        let tenants = vec![
            tenant("alice", "nyc", running),
            tenant("bob", "fra", pb::TenantState::Broken),
            tenant("carol", "fra", running),
        ];
        screen.take(heard(status(vec![server("nyc", 3), server("fra", 1), down]), tenants));
        screen
    }

    fn names(screen: &Screen) -> Vec<&str> {
        match screen.tab {
            Tab::Servers => screen.servers().iter().map(|one| one.name.as_str()).collect(),
            _ => screen.tenants().iter().map(|one| one.name.as_str()).collect(),
        }
    }

    #[test]
    fn keys_go_through_tabs_and_stay_inside_of_lists() {
        let mut screen = full();
        assert!(screen.press(Key::Previous) && screen.tab == Tab::Events);
        assert!(screen.press(Key::Next) && screen.tab == Tab::Servers);
        assert!(screen.press(Key::Number(1)) && screen.tab == Tab::Tenants);
        assert!(screen.press(Key::Number(9)) && screen.tab == Tab::Tenants);
        let marks = [Key::Up, Key::Down, Key::PageDown, Key::Up, Key::PageUp, Key::Last, Key::First].map(|key| {
            screen.press(key);
            screen.marked()
        });
        assert_eq!(marks, [0, 1, 2, 1, 0, 2, 0]);
        screen.press(Key::Last);
        screen.take(heard(status(vec![]), vec![]));
        assert_eq!(screen.marked(), 0, "the list became shorter");
        for key in [Key::Down, Key::Last, Key::Sort, Key::Turn] {
            assert!(screen.press(key), "nor is an empty one left");
        }
        assert!(!screen.press(Key::Quit));
    }

    #[test]
    fn lists_are_sorted_as_was_asked_and_what_needs_attention_comes_first() {
        let mut screen = full();
        assert_eq!((screen.order(), names(&screen)), (Some(("attention", false)), vec!["syd", "fra", "nyc"]));
        screen.press(Key::Sort);
        assert_eq!((screen.order(), names(&screen)), (Some(("name", false)), vec!["fra", "nyc", "syd"]));
        screen.press(Key::Turn);
        assert_eq!(names(&screen), ["syd", "nyc", "fra"]);
        screen.press(Key::Next);
        assert_eq!(names(&screen), ["alice", "bob", "carol"]);
        screen.press(Key::Sort);
        assert_eq!((screen.order(), names(&screen)), (Some(("attention", false)), vec!["bob", "alice", "carol"]));
        screen.press(Key::Number(4));
        assert_eq!(screen.order(), None);
    }

    #[test]
    fn events_come_once_and_a_break_keeps_what_was_seen() {
        let mut screen = full();
        for id in [1, 2, 2, 1, 3] {
            screen.take(event(id));
        }
        assert_eq!(screen.events.iter().map(|event| event.id).collect::<Vec<_>>(), [3, 2, 1]);
        screen.take(News::Lost("nobody answers".into()));
        assert_eq!(screen.link, Link::Lost("nobody answers".into()));
        assert_eq!(screen.rows(Tab::Servers), 3);
        (4..2000).for_each(|id| screen.take(event(id)));
        assert_eq!(screen.rows(Tab::Events), 500);
        screen.take(heard(status(vec![]), vec![]));
        assert_eq!(screen.link, Link::Alive);
    }
}
