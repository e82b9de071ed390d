//! `featherctl user list`

use feather_proto::pb::controller::v1 as pb;

use crate::{arguments::Context, error::Failure, view::user};

/// Show everybody who has or had a certificate, with its end and its last call.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {}

pub(crate) async fn run(_: Args, context: &Context) -> Result<(), Failure> {
    let connection = context.connect()?;
    let response = connection.call(connection.users().list_users(pb::ListUsersRequest {})).await?;
    let views: Vec<_> = response.users.into_iter().map(user::UserView::from).collect();
    context.output.show(&views, || user::list(&views))
}
