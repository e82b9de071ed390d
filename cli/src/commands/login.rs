//! `featherctl login`

use std::{
    fs,
    io::{self, Read as _},
    path::Path,
    sync::Arc,
};

use feather_proto::{
    login_token::LoginToken,
    pb::controller::v1::{self as pb, user_service_client::UserServiceClient},
    tls::{self, Identity, Principal, Rotating, Trust},
};
use serde::Serialize;

use crate::{arguments::Context, connect::identity_path, error::Failure, units};

/// The variable that a token may be in.
const TOKEN: &str = "FEATHERCTL_LOGIN_TOKEN";
/// A token is some hundred characters.
const TOKEN_MAX: u64 = 64 << 10;

/// Log in with a token from `featherctl user add`.
///
/// The token is read from standard input or from FEATHERCTL_LOGIN_TOKEN: on the command line everybody on this machine could see it. A key
/// is made here, and it stays here, in the identity file, readable by you only.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Replace an identity file that is there already.
    #[arg(long)]
    replace: bool,
}

#[derive(Serialize)]
struct LoginView<'a> {
    user: &'a str,
    role: &'a str,
    identity: String,
    controller: &'a str,
}

pub(crate) async fn run(arguments: Args, context: &Context) -> Result<(), Failure> {
    let file = identity_path(context.global.identity.as_deref())?;
    if file.exists() && !arguments.replace {
        return Err(Failure::usage(
            format!("{} exists", file.display()),
            "choose another file with --identity (FEATHERCTL_IDENTITY), or replace it with --replace",
        ));
    }
    let token: LoginToken = token(context)?.parse()?;
    let ca_pem = tls::fetch_ca(&tls::Tcp, &token.controller, &token.ca_fingerprint).await?;
    let trust = Trust::CaOnly(ca_pem);
    let channel = tls::channel(Arc::new(tls::Tcp), &token.controller, &Principal::controller(), &trust)?;
    let (key_pem, csr_pem) = tls::csr(&token.name)?;
    let request = || pb::LoginRequest { secret: token.secret.clone(), csr_pem: csr_pem.clone() };
    let mut client = UserServiceClient::new(channel);
    // The same key may log in twice: the first reply may have been lost.
    let answer = match within(context, client.login(request())).await {
        Err(failure) if failure.retryable => within(context, client.login(request())).await?,
        answer => answer?,
    };
    let identity = Identity { certificate_pem: answer.certificate_pem, key_pem, ca_pem: answer.ca_pem };
    Rotating::new(identity.clone())?;
    if let Some(folder) = file.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        make_private(folder).map_err(|error| {
            let attempt = format!("cannot create {}", folder.display());
            Failure::file(
                attempt,
                &error,
                "choose another place with --identity; the token can be used once more from here",
            )
        })?;
    }
    identity.save(&file)?;
    let view = LoginView {
        user: &answer.name,
        role: &answer.role,
        identity: file.display().to_string(),
        controller: &token.controller,
    };
    context.output.show(&view, || format!("{}/{}: {}", view.role, view.user, view.identity))?;
    context.output.note(&format!("The controller: export FEATHERCTL_CONTROLLER={}", token.controller));
    Ok(())
}

fn token(context: &Context) -> Result<String, Failure> {
    if let Some(token) = std::env::var(TOKEN).ok().filter(|token| !token.is_empty()) {
        return Ok(token);
    }
    if context.output.can_ask() {
        return Ok(context.output.ask("token:").unwrap_or_default());
    }
    let mut text = String::new();
    io::stdin().take(TOKEN_MAX).read_to_string(&mut text).map_err(|error| {
        Failure::file("cannot read the token from standard input", &error, "pass it in FEATHERCTL_LOGIN_TOKEN")
    })?;
    Ok(text)
}

async fn within<T>(
    context: &Context,
    call: impl Future<Output = Result<tonic::Response<T>, tonic::Status>>,
) -> Result<T, Failure> {
    let timeout = context.global.timeout;
    match tokio::time::timeout(timeout, call).await {
        Ok(answer) => {
            answer.map(tonic::Response::into_inner).map_err(|status| feather_proto::error::Error::from(status).into())
        }
        Err(_) => {
            let mut failure = Failure::unreachable(
                format!("the controller gave no answer within {}", units::spelled(timeout)),
                "try again with the same token, or wait longer with --timeout",
            );
            failure.retryable = true;
            Err(failure)
        }
    }
}

fn make_private(folder: &Path) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt as _;
    fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)
}
