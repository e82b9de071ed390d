//! `featherctl warning ack`

use feather_proto::pb::controller::v1 as pb;

use crate::{arguments::Context, commands::present, error::Failure, view::warning::WarningView};

/// Say that you know of warnings, so that they are not shown as new.
///
/// Nothing is changed by that but the list. A warning whose cause goes and comes back is new again.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Which ones, as `warning list` names them: disk/nyc.
    #[arg(value_name = "WARNING", required = true)]
    ids: Vec<String>,
    /// What others should know: who does what about it, and until when. One line of at most 500 characters.
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    note: String,
}

pub(crate) async fn run(arguments: Args, context: &Context) -> Result<(), Failure> {
    let connection = context.connect()?;
    let mut noted = Vec::new();
    for id in &arguments.ids {
        let request = pb::AcknowledgeWarningRequest { id: id.clone(), note: arguments.note.clone() };
        let response = connection.call(connection.warnings().acknowledge_warning(request)).await?;
        noted.push(WarningView::from(present(response.warning, "warning")?));
    }
    context.output.show(&noted, || noted.iter().map(|warning| format!("{}: noted\n", warning.id)).collect())
}
