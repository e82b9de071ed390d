//! `featherctl user`

use std::path::Path;

use clap::Subcommand;
use feather_proto::{
    pb::controller::v1 as pb,
    tls::{self, Identity, Rotating},
};
use time::OffsetDateTime;

use crate::{
    arguments::Context,
    connect::{Connection, identity_path},
    error::Failure,
};

mod add;
mod list;
mod renew;
mod revoke;
mod web;

#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    List(list::Args),
    Add(add::Args),
    Revoke(revoke::Args),
    Renew(renew::Args),
    Web(web::Args),
}

pub(crate) async fn run(verb: Verb, context: &Context) -> Result<(), Failure> {
    match verb {
        Verb::List(arguments) => list::run(arguments, context).await,
        Verb::Add(arguments) => add::run(arguments, context).await,
        Verb::Revoke(arguments) => revoke::run(arguments, context).await,
        Verb::Renew(arguments) => renew::run(arguments, context).await,
        Verb::Web(arguments) => web::run(arguments, context).await,
    }
}

/// A certificate is renewed when two thirds of its life are over.
fn is_due((from, until): (i64, i64), now: i64) -> bool {
    now >= from.saturating_add(until.saturating_sub(from) / 3 * 2)
}

/// Another certificate for a key that is made here, in the place of the one in the identity file. A crash leaves the old or the new one.
async fn renew(connection: &Connection, file: &Path) -> Result<Identity, Failure> {
    let old = Identity::load(file)?;
    let principal = old.principal()?;
    let (key_pem, csr_pem) = tls::csr(&principal.name)?;
    let answer = connection.call(connection.users().renew_login(pb::RenewLoginRequest { csr_pem })).await?;
    let fresh = Identity { certificate_pem: answer.certificate_pem, key_pem, ca_pem: answer.ca_pem };
    // Proved usable before it takes the place of one that is.
    Rotating::new(fresh.clone())?;
    if fresh.principal()? != principal {
        return Err(Failure::bug("the controller answered with somebody else's certificate"));
    }
    fresh.save(file)?;
    Ok(fresh)
}

/// Renews a certificate that is due, behind a command that went well. Not being able to is a remark: the next command tries again.
#[allow(clippy::disallowed_methods, reason = "one command looks at the clock once; there is nothing to wait for")]
pub(crate) async fn keep_certificate(context: &Context) {
    let Ok(file) = identity_path(context.global.identity.as_deref()) else { return };
    let Ok(validity) = Identity::load(&file).and_then(|identity| identity.validity()) else { return };
    if !is_due(validity, OffsetDateTime::now_utc().unix_timestamp()) {
        return;
    }
    let renewed = match context.connect() {
        Ok(connection) => renew(&connection, &file).await.map(drop),
        Err(failure) => Err(failure),
    };
    let remark = match renewed {
        Ok(()) => format!("your certificate was renewed in {}", file.display()),
        Err(failure) => format!("your certificate is due for renewal, and was not renewed: {}", failure.message),
    };
    context.output.note(&remark);
}

#[cfg(test)]
mod tests {
    use super::is_due;

    #[test]
    fn a_certificate_is_renewed_at_two_thirds_of_its_life() {
        assert!(!is_due((1000, 4000), 2999) && is_due((1000, 4000), 3000));
        assert!(is_due((i64::MIN, i64::MAX), i64::MAX), "no arithmetic of bad dates goes wrong");
    }
}
