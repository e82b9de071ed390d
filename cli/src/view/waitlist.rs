//! The waitlist as it is shown.

use feather_proto::pb::controller::v1 as pb;
use serde::Serialize;

use super::{Moment, moment, or_empty, set};
use crate::output::table;

#[derive(Clone, Serialize)]
pub(crate) struct EntryView {
    pub(crate) email: String,
    pub(crate) server: String,
    pub(crate) signed_up: Option<Moment>,
    pub(crate) invited: Option<Moment>,
    pub(crate) tenant: Option<String>,
}

#[derive(Default, Serialize)]
pub(crate) struct WaitlistView {
    pub(crate) entries: Vec<EntryView>,
    pub(crate) unreachable_servers: Vec<String>,
    pub(crate) problems: Vec<String>,
}

impl WaitlistView {
    /// One more page of it.
    pub(crate) fn add(&mut self, page: pb::ListEntriesResponse) {
        self.entries.extend(page.entries.into_iter().map(|entry| EntryView {
            email: entry.email,
            server: entry.server,
            signed_up: moment!(entry.signed_up),
            invited: moment!(entry.invited),
            tenant: set(entry.tenant),
        }));
        self.unreachable_servers.extend(page.unreachable_servers);
        self.problems.extend(page.problems);
    }
}

fn time(moment: Option<Moment>) -> String {
    moment.map(|moment| moment.to_string()).unwrap_or_default()
}

pub(crate) fn list(entries: &[EntryView]) -> String {
    let rows: Vec<_> = entries
        .iter()
        .map(|entry| {
            [
                entry.email.clone(),
                time(entry.signed_up),
                entry.server.clone(),
                time(entry.invited),
                or_empty(entry.tenant.as_ref()),
            ]
        })
        .collect();
    table(["EMAIL", "SIGNED UP", "SERVER", "INVITED", "USERNAME"], &rows)
}

/// With a header; a field is quoted only when it has to be.
pub(crate) fn csv(entries: &[EntryView]) -> String {
    let mut text = "email,signed_up,server\n".to_owned();
    for entry in entries {
        let fields = [field(&entry.email), field(&time(entry.signed_up)), field(&entry.server)];
        text.push_str(&fields.join(","));
        text.push('\n');
    }
    text
}

fn field(text: &str) -> String {
    if text.contains(['"', ',', '\n', '\r']) { format!("\"{}\"", text.replace('"', "\"\"")) } else { text.to_owned() }
}

#[cfg(test)]
mod tests {
    #[test]
    fn fields_are_quoted_only_when_they_have_to_be() {
        assert_eq!(super::field("ada@example.org"), "ada@example.org");
        assert_eq!(super::field("a\",b"), "\"a\"\",b\"");
    }
}
