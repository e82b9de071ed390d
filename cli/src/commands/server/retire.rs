//! `featherctl server retire`

use feather_proto::{ids::ServerName, pb::controller::v1 as pb};
use serde::Serialize;

use crate::{
    arguments::Context,
    commands::server_name,
    confirm::{Question, confirm},
    error::Failure,
    output::table,
    view::{Moment, moment, set},
};

/// Take a server that was drained out of the fleet for good.
///
/// Refused while anything lives on it, an operation uses it, it takes new tenants, or something would be lost with it: copies of tenants that
/// moved away, the way of users whom names still lead to it, or its waitlist. Each is named, with what to do. The machine itself is left as it
/// is.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Which server.
    #[arg(value_name = "SERVER", value_parser = server_name)]
    server: ServerName,
    /// Give up the copies that it keeps of tenants that moved away.
    #[arg(long)]
    discard_kept_copies: bool,
    /// Let it go although it is the ingress, was it lately, or forwards for tenants that left it: for names that are led elsewhere by other
    /// means.
    #[arg(long)]
    dns_elsewhere: bool,
    /// Forget who signed up there, and nowhere else, without having been invited.
    #[arg(long)]
    discard_waitlist: bool,
    /// Do not ask.
    #[arg(long)]
    yes: bool,
    /// Only say whether it would be retired, and which copies it keeps.
    #[arg(long)]
    dry_run: bool,
}

#[derive(Serialize)]
struct RetiredView<'a> {
    server: &'a str,
    dry_run: bool,
    retired: bool,
    kept_copies: Vec<CopyView>,
}

#[derive(Serialize)]
struct CopyView {
    tenant: String,
    lives_on: Option<String>,
    keep_until: Option<Moment>,
}

impl From<pb::KeptCopy> for CopyView {
    fn from(pb: pb::KeptCopy) -> Self {
        Self { tenant: pb.tenant, lives_on: set(pb.lives_on), keep_until: moment!(pb.keep_until) }
    }
}

pub(crate) async fn run(arguments: Args, context: &Context) -> Result<(), Failure> {
    let connection = context.connect()?;
    let (server, dry_run) = (arguments.server.as_str(), arguments.dry_run);
    if !dry_run {
        let consequence = format!("This takes {server} out of the fleet for good, with the copies that it keeps.");
        confirm(context.output, &Question { name: server, consequence: &consequence, yes: arguments.yes })?;
    }
    let request = pb::RetireServerRequest {
        server: server.to_owned(),
        discard_kept_copies: arguments.discard_kept_copies,
        dry_run,
        dns_elsewhere: arguments.dns_elsewhere,
        discard_waitlist: arguments.discard_waitlist,
    };
    let response = connection.call(connection.servers().retire_server(request)).await?;
    let kept_copies = response.kept_copies.into_iter().map(CopyView::from).collect();
    let view = RetiredView { server, dry_run, retired: !dry_run, kept_copies };
    context.output.show(&view, || copies(&view.kept_copies))?;
    context.output.note(&match dry_run {
        true => format!("{server} would be out of the fleet"),
        false => format!("{server} is out of the fleet; stop its birth, and what is on its disk can go"),
    });
    Ok(())
}

fn copies(copies: &[CopyView]) -> String {
    if copies.is_empty() {
        return String::new();
    }
    let row = |one: &CopyView| {
        [
            one.tenant.clone(),
            one.lives_on.clone().unwrap_or_default(),
            one.keep_until.map(|until| until.to_string()).unwrap_or_default(),
        ]
    };
    table(["COPY OF", "LIVES ON", "KEPT UNTIL"], &copies.iter().map(row).collect::<Vec<_>>())
}
