//! `featherctl server rename`

use feather_proto::{ids::ServerName, pb::controller::v1 as pb};
use serde::Serialize;

use crate::{
    arguments::Context,
    commands::{request_id, server_name},
    confirm::NothingToConfirm,
    error::Failure,
    output::table,
};

/// Give a server another name, while it serves.
///
/// Nothing is restarted and no request is refused: who lives there, pins, the ingress, drains and warnings follow at once. Its certificate goes
/// on saying the name that it joined by, and so do its own log and `tenant.sh` there; `featherctl server show` names both. What has ended keeps
/// the old name: operations, events, the audit log. Invitations by the old name are void. Refused while an operation names either name, and
/// while anything else has the new one.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Which server.
    #[arg(value_name = "SERVER", value_parser = server_name)]
    server: ServerName,
    /// What it is to be called.
    #[arg(value_name = "NEW", value_parser = server_name)]
    name: ServerName,
    /// Only say what would change.
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    _confirm: NothingToConfirm,
}

#[derive(Serialize)]
struct RenamedView<'a> {
    server: &'a str,
    name: &'a str,
    dry_run: bool,
    changed: bool,
    version: u64,
    identity: String,
    tenants: Vec<String>,
    kept: Vec<String>,
    pinned: Vec<String>,
    moved_away: Vec<String>,
    sent_away: Vec<String>,
    ingress: bool,
    former_ingress: bool,
}

pub(crate) async fn run(arguments: Args, context: &Context) -> Result<(), Failure> {
    let connection = context.connect()?;
    let (server, name, dry_run) = (arguments.server.as_str(), arguments.name.as_str(), arguments.dry_run);
    let request =
        pb::RenameServerRequest { server: server.to_owned(), name: name.to_owned(), dry_run, request_id: request_id() };
    let response = connection.change(async || connection.servers().rename_server(request.clone()).await).await?;
    let view = RenamedView {
        server,
        name,
        dry_run,
        changed: response.changed,
        version: response.version,
        identity: response.identity,
        tenants: response.tenants,
        kept: response.kept,
        pinned: response.pinned,
        moved_away: response.moved_away,
        sent_away: response.sent_away,
        ingress: response.ingress,
        former_ingress: response.former_ingress,
    };
    context.output.show(&view, || follows(&view))?;
    if view.changed && dry_run {
        nothing_else(&view).iter().for_each(|line| context.output.note(line));
    }
    context.output.note(&match (view.changed, dry_run) {
        (false, _) => format!("{server} is called {name} already"),
        (true, true) => {
            format!("{server} would be called {name}; its certificate would go on saying {}", view.identity)
        }
        (true, false) => format!("{server} is called {name} now; its certificate goes on saying {}", view.identity),
    });
    Ok(())
}

/// What goes over to the new name.
fn follows(view: &RenamedView<'_>) -> String {
    let tenants = [
        ("lives there", &view.tenants),
        ("data is kept there", &view.kept),
        ("pinned to it", &view.pinned),
        ("lived there before", &view.moved_away),
        ("returns there", &view.sent_away),
    ];
    let ways = [("is the ingress", view.ingress), ("was the ingress before", view.former_ingress)];
    let tenants = tenants
        .into_iter()
        .filter(|(_, names)| !names.is_empty())
        .map(|(what, names)| [what.to_owned(), names.join(", ")]);
    let ways = ways.into_iter().filter(|(_, so)| *so).map(|(what, _)| [what.to_owned(), String::new()]);
    let rows: Vec<_> = tenants.chain(ways).collect();
    if rows.is_empty() { String::new() } else { table(["WHAT FOLLOWS", "TENANTS"], &rows) }
}

/// What was looked for and not found, so that nobody has to guess whether it was.
fn nothing_else(view: &RenamedView<'_>) -> Option<String> {
    let looked_for = [
        ("no tenants", view.tenants.is_empty()),
        ("no kept data", view.kept.is_empty()),
        ("no pins", view.pinned.is_empty()),
        ("nobody who lived there before", view.moved_away.is_empty()),
        ("nobody who returns there", view.sent_away.is_empty()),
        ("it is not the ingress", !view.ingress),
        ("it was not the ingress before", !view.former_ingress),
    ];
    let missing: Vec<_> = looked_for.into_iter().filter(|(_, so)| *so).map(|(what, _)| what).collect();
    (!missing.is_empty()).then(|| format!("nothing else names {}: {}", view.server, missing.join(", ")))
}
