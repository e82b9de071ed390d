//! `featherctl volume verify`

use feather_proto::{ids::TenantName, pb::controller::v1 as pb};
use serde::Serialize;

use crate::{
    arguments::Context,
    commands::{present, tenant_name},
    connect::interrupt,
    error::Failure,
    output::pairs,
    units,
    view::SummaryView,
};

/// Read a tenant's whole volume and print its root digest.
///
/// Two volumes with the same root digest are identical in every path, owner, mode, time, link and byte. The digest of a
/// running tenant changes with its data.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Which tenant.
    #[arg(value_name = "TENANT", value_parser = tenant_name)]
    tenant: TenantName,
}

#[derive(Serialize)]
struct VerifiedView<'a> {
    tenant: &'a str,
    server: &'a str,
    summary: &'a SummaryView,
}

pub(crate) async fn run(arguments: Args, context: &Context) -> Result<(), Failure> {
    let connection = context.connect()?;
    let tenant = arguments.tenant.as_str();
    let request = pb::VerifyVolumeRequest { tenant: tenant.to_owned() };
    let mut progress = context.output.progress();
    progress.step(&format!("reading {tenant}'s volume"));
    let response = tokio::select! {
        answer = async { connection.long_call(connection.volumes().verify_volume(request)).await } => answer?,
        () = interrupt() => return Err(Failure::interrupted("stopped before the volume was read", "nothing was changed")),
    };
    drop(progress);
    let summary = SummaryView::from(present(response.summary, "summary")?);
    let view = VerifiedView { tenant, server: &response.server, summary: &summary };
    context.output.show(&view, || {
        pairs(&[
            ("tenant", tenant.to_owned()),
            ("server", response.server.clone()),
            ("size", summary.size()),
            ("directories", summary.directories.to_string()),
            ("entries", summary.entries.to_string()),
            ("root digest", summary.root_digest.clone()),
            ("note", skipped(&summary)),
        ])
    })
}

fn skipped(summary: &SummaryView) -> String {
    match summary.skipped_sockets {
        0 => String::new(),
        count => format!("{} left out: a socket means nothing without its process", units::counted(count, "socket")),
    }
}
