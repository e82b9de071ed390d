//! `featherctl login`

use std::{
    fs,
    io::{self, Read as _},
    path::{Path, PathBuf},
    sync::Arc,
};

use feather_proto::{
    login_token::LoginToken,
    pb::controller::v1::{self as pb, user_service_client::UserServiceClient},
    tls::{self, Identity, Principal, Rotating, Trust},
};
use serde::{Deserialize, Serialize};

use crate::{arguments::Context, connect::identity_path, error::Failure, units};

/// The variable that a token may be in.
const TOKEN: &str = "FEATHERCTL_LOGIN_TOKEN";
/// A token is some hundred characters.
const TOKEN_MAX: u64 = 64 << 10;

/// Log in with a token from `featherctl user add`.
///
/// The token is read from standard input or from FEATHERCTL_LOGIN_TOKEN: on the command line everybody on this machine could see it. A key
/// is made here, and it stays here, in the identity file, readable by you only. Until the certificate is there the key is in a file beside it
/// (*.login-key), so that the same token can be used again when something fails on the way.
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
    if let Some(folder) = file.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        make_private(folder).map_err(|error| {
            let attempt = format!("cannot create {}", folder.display());
            Failure::file(attempt, &error, "choose another place with --identity; the token was not used")
        })?;
    }
    let key_file = key_file(&file);
    let PendingKey { key_pem, csr_pem } = pending_key(&key_file, &token.name)?;
    let request = || pb::LoginRequest { secret: token.secret.clone(), csr_pem: csr_pem.clone() };
    let mut client = UserServiceClient::new(channel);
    // The same key may log in twice: the first reply may have been lost.
    let answer = match within(context, client.login(request())).await {
        Err(failure) if failure.retryable => within(context, client.login(request())).await?,
        answer => answer?,
    };
    let identity = Identity { certificate_pem: answer.certificate_pem, key_pem, ca_pem: answer.ca_pem };
    Rotating::new(identity.clone())?;
    identity.save(&file)?;
    if let Err(error) = fs::remove_file(&key_file) {
        context.output.note(&format!("{} is not needed any more, and cannot be deleted: {error}", key_file.display()));
    }
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

/// A key whose certificate may be on its way. The token is good for this key alone from when the controller has heard of it.
#[derive(Serialize, Deserialize)]
struct PendingKey {
    key_pem: String,
    csr_pem: String,
}

fn key_file(identity: &Path) -> PathBuf {
    let mut name = identity.as_os_str().to_owned();
    name.push(".login-key");
    PathBuf::from(name)
}

/// The key of an earlier attempt, or a new one that is on disk when this returns.
fn pending_key(path: &Path, name: &str) -> Result<PendingKey, Failure> {
    let failed = |attempt: &str, error: &io::Error| {
        let attempt = format!("cannot {attempt} {}", path.display());
        Failure::file(attempt, error, "choose another place with --identity; the token was not used from here")
    };
    match fs::read(path) {
        // One that was cut off was never shown to anybody: it is shown when it is whole on disk.
        Ok(text) => {
            if let Ok(pending) = serde_json::from_slice(&text) {
                return Ok(pending);
            }
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(failed("read", &error)),
    }
    let (key_pem, csr_pem) = tls::csr(name)?;
    let pending = PendingKey { key_pem, csr_pem };
    write_private(path, &pending).map_err(|error| failed("write", &error))?;
    Ok(pending)
}

fn write_private(path: &Path, pending: &PendingKey) -> io::Result<()> {
    use std::{io::Write as _, os::unix::fs::OpenOptionsExt as _};
    let mut new = path.as_os_str().to_owned();
    new.push(".new");
    let new = PathBuf::from(new);
    let mut file = fs::OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(&new)?;
    file.write_all(&serde_json::to_vec(pending)?)?;
    file.sync_all()?;
    fs::rename(&new, path)?;
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    fs::File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
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
