//! `featherctl version`

use serde::Serialize;

use crate::{arguments::Context, error::Failure};

/// Print featherctl's version.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {}

#[derive(Serialize)]
struct VersionView {
    name: &'static str,
    version: &'static str,
}

pub(crate) fn run(_: &Args, context: &Context) -> Result<(), Failure> {
    let view = VersionView { name: "featherctl", version: env!("CARGO_PKG_VERSION") };
    context.output.show(&view, || format!("{} {}", view.name, view.version))
}
