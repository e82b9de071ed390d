//! `featherctl version`

use feather_proto::version::{OURS, told};
use serde::Serialize;

use crate::{arguments::Context, error::Failure};

/// Print featherctl's version, and the versions of the protocol that it speaks.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {}

#[derive(Serialize)]
struct VersionView {
    name: &'static str,
    version: &'static str,
    protocol: String,
}

pub(crate) fn run(_: &Args, context: &Context) -> Result<(), Failure> {
    let view = VersionView { name: "featherctl", version: env!("CARGO_PKG_VERSION"), protocol: OURS.to_string() };
    context.output.show(&view, || format!("{} {}", view.name, told()))
}
