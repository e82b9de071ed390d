//! What a finished operation puts on stdout, whichever verb followed it.

use feather_proto::pb::controller::v1 as pb;
use serde::Serialize;

use crate::{
    arguments::Context,
    connect::Connection,
    error::Failure,
    follow::Outcome,
    view::{
        migration::MigrationView,
        moves::{self, TenantMoveView},
        operation::OperationView,
    },
};

#[derive(Serialize)]
struct OutcomeView<'a> {
    operation: &'a str,
    kind: &'a str,
    state: &'a str,
    tenant: &'a str,
    /// Where the tenant is, or was to be.
    server: Option<&'a str>,
    source: Option<&'a str>,
    target: Option<&'a str>,
    url: Option<&'a str>,
    password: Option<&'a str>,
    migration: Option<&'a MigrationView>,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    moves: &'a [TenantMoveView],
}

/// For `--no-wait`: the id is the data.
pub(crate) fn begun(context: &Context, operation: &OperationView) -> Result<(), Failure> {
    let id = &operation.id;
    show(context, operation, None, None, || id.clone())?;
    let more = if operation.kind == "add" { " and prints the password" } else { "" };
    context.output.note(&format!("`featherctl operation watch {id}` follows it{more}"));
    Ok(())
}

/// Prints the end of an operation. The address of an added tenant is asked for when the caller does not know it.
pub(crate) async fn report(
    context: &Context,
    connection: &Connection,
    outcome: Outcome,
    known_url: Option<String>,
) -> Result<(), Failure> {
    if matches!(outcome.operation.kind, "drain" | "return") {
        // What became of each is the result, however it ended.
        let moves = &outcome.operation.moves;
        show(context, &outcome.operation, None, None, || {
            if moves.is_empty() { String::new() } else { moves::list(moves) }
        })?;
    }
    if outcome.operation.kind == "lost" {
        return lost(context, outcome);
    }
    let outcome = outcome.succeeded()?;
    let operation = &outcome.operation;
    let tenant = &operation.tenant;
    match operation.kind {
        "add" | "recover" => {
            let url = match known_url.filter(|url| !url.is_empty()) {
                Some(url) => url,
                None => url_of(connection, tenant).await?,
            };
            added(context, &outcome, &url)
        }
        "migrate" => moved(context, operation),
        "drain" | "return" => {
            context.output.note(&resettled(operation));
            Ok(())
        }
        kind => {
            show(context, operation, None, None, String::new)?;
            context.output.note(&match kind {
                // Only what was lost with its server is removed from nowhere.
                "remove" if operation.source.is_none() => {
                    format!("{tenant} is given up, with the data that was lost; its name is free: `featherctl tenant add {tenant}` begins anew")
                }
                "remove" => format!(
                    "{tenant} is removed. Its data is kept: `featherctl tenant add {tenant}` brings it back with all of it, \
                     `featherctl volume list` shows it."
                ),
                "start" => format!("{tenant} is running"),
                "restart" => format!("{tenant} is running anew"),
                "swap" => format!(
                    "{} has another admin container; `featherctl server show {0}` shows it",
                    operation.source.as_deref().unwrap_or("the server")
                ),
                "stop" => format!("{tenant} is stopped; `featherctl tenant start {tenant}` starts it again"),
                _ => format!("{tenant} is changed"),
            });
            Ok(())
        }
    }
}

/// A server was declared lost: what became of each is the result, and whoever is not back is a failure.
fn lost(context: &Context, outcome: Outcome) -> Result<(), Failure> {
    let moves = &outcome.operation.moves;
    show(context, &outcome.operation, None, None, || {
        if moves.is_empty() { String::new() } else { moves::recovered(moves) }
    })?;
    let outcome = outcome.succeeded()?;
    let (server, moves) = (outcome.operation.source.as_deref().unwrap_or("the server"), &outcome.operation.moves);
    let down = moves.iter().filter(|one| matches!(one.end, "left" | "lost" | "stuck")).count();
    if down == 0 {
        context.output.note(&format!(
            "{server} is out of the fleet, and everybody who lived there is back; passwords are new: `featherctl tenant password NAME`"
        ));
        return Ok(());
    }
    Err(Failure::refused(
        "NOT_ALL_RECOVERED",
        format!("{server} is out of the fleet, and {down} of {} who lived there are down", moves.len()),
        "`featherctl tenant recover NAME` tries one again, `featherctl explain NAME` says how it stands",
    ))
}

fn resettled(operation: &OperationView) -> String {
    let server = operation.source.as_deref().unwrap_or("the server");
    if operation.kind == "drain" {
        return format!(
            "nobody lives on {server}, and it takes no new tenants; `featherctl server return {server}` brings everybody home"
        );
    }
    format!("{server} takes tenants again, and everybody who was drained from it is home")
}

fn added(context: &Context, outcome: &Outcome, url: &str) -> Result<(), Failure> {
    let tenant = &outcome.operation.tenant;
    let password = outcome.password.as_deref();
    show(context, &outcome.operation, Some(url), password, || match password {
        Some(password) => credentials(url, password),
        None => url.to_owned(),
    })?;
    if password.is_none() {
        context.output.note(&format!(
            "{tenant} is added, but its password was handed out before or is lost: `featherctl tenant password {tenant}` sets a \
             new one and prints it"
        ));
    }
    Ok(())
}

/// The line that the operator passes on to the user.
pub(crate) fn credentials(url: &str, password: &str) -> String {
    format!("{url} | password: {password}")
}

fn moved(context: &Context, operation: &OperationView) -> Result<(), Failure> {
    if operation.migration.as_ref().is_some_and(|migration| !migration.equal) {
        return Err(Failure::bug(format!(
            "the controller calls the move of {} done, but reports different root digests; the old copy is kept on {}",
            operation.tenant,
            operation.source.as_deref().unwrap_or("the source"),
        ))
        .with("operation", &operation.id));
    }
    show(context, operation, None, None, || {
        let ends = format!(
            "{} moved {} -> {}",
            operation.tenant,
            operation.source.as_deref().unwrap_or("?"),
            operation.target.as_deref().unwrap_or("?"),
        );
        match &operation.migration {
            Some(migration) => migration.told(&ends),
            None => ends,
        }
    })
}

fn show(
    context: &Context,
    operation: &OperationView,
    url: Option<&str>,
    password: Option<&str>,
    text: impl FnOnce() -> String,
) -> Result<(), Failure> {
    let view = OutcomeView {
        operation: &operation.id,
        kind: operation.kind,
        state: operation.state.word(),
        tenant: &operation.tenant,
        server: operation.target.as_deref().or(operation.source.as_deref()),
        source: operation.source.as_deref(),
        target: operation.target.as_deref(),
        url,
        password,
        migration: operation.migration.as_ref(),
        moves: &operation.moves,
    };
    context.output.show(&view, text)
}

async fn url_of(connection: &Connection, tenant: &str) -> Result<String, Failure> {
    let request = pb::GetTenantRequest { tenant: tenant.to_owned() };
    let response = connection.call(connection.tenants().get_tenant(request)).await?;
    Ok(response.tenant.unwrap_or_default().url)
}
