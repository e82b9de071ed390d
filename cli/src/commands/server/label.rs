//! `featherctl server label`

use feather_proto::{
    ids::ServerName,
    labels::{Label, LabelName},
    pb::controller::v1 as pb,
};
use serde::Serialize;

use crate::{
    arguments::Context,
    commands::{label, labels, server_name},
    confirm::NothingToConfirm,
    error::Failure,
    view::labels::LabelsView,
};

/// Say what a server is, for placement: `region=eu`.
///
/// A tenant that is added with `--on region=eu` goes only to servers with that label. Changing labels moves nobody. A name is 1 to 32
/// of a-z, 0-9, '.', '_' and '-', beginning with a letter and ending in a letter or digit; a value 1 to 64 of those and A-Z, beginning
/// and ending in a letter or digit; a server has at most 32.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Which server.
    #[arg(value_name = "SERVER", value_parser = server_name)]
    server: ServerName,
    /// Labels to set.
    #[arg(value_name = "NAME=VALUE", value_parser = label, required_unless_present = "remove")]
    set: Vec<Label>,
    /// A label to take away; may be given several times.
    #[arg(long, value_name = "NAME", value_parser = label_name)]
    remove: Vec<LabelName>,
    /// Only say what would change.
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    _confirm: NothingToConfirm,
}

fn label_name(text: &str) -> Result<LabelName, feather_proto::error::Error> {
    text.parse()
}

#[derive(Serialize)]
struct LabelledView<'a> {
    server: &'a str,
    dry_run: bool,
    labels: LabelsView,
    changed: bool,
    version: u64,
}

pub(crate) async fn run(arguments: Args, context: &Context) -> Result<(), Failure> {
    let connection = context.connect()?;
    let (server, dry_run) = (arguments.server.as_str(), arguments.dry_run);
    let remove = arguments.remove.iter().map(ToString::to_string).collect();
    let request = pb::LabelServerRequest { server: server.to_owned(), set: labels(&arguments.set), remove, dry_run };
    let response = connection.change(async || connection.servers().label_server(request.clone()).await).await?;
    let view = LabelledView {
        server,
        dry_run,
        labels: response.labels.into(),
        changed: response.changed,
        version: response.version,
    };
    context.output.show(&view, || view.labels.lines())?;
    context.output.note(&match (view.changed, dry_run) {
        (false, _) => format!("{server} has these labels already"),
        (true, true) => format!("{server} would have these labels"),
        (true, false) => format!("{server} has these labels now; tenants stay where they are"),
    });
    Ok(())
}
