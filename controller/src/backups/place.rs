//! Where a repository is: a folder of this machine, or a place in an object store.

use std::{
    fmt, fs, io,
    os::unix::fs::DirBuilderExt as _,
    path::{Component, Path, PathBuf},
    str::FromStr,
    sync::Arc,
    time::Duration,
};

use feather_proto::error::{Error, reason};
use http_body_util::BodyExt as _;
use object_store::{
    ClientOptions, ObjectStore, RetryConfig,
    aws::AmazonS3Builder,
    client::{
        HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpResponse, HttpResponseBody, HttpService,
    },
    local::LocalFileSystem,
    prefix::PrefixStore,
};

use crate::https;

/// How long an object store may be silent before it counts as unreachable.
const RETRY_LIMIT: Duration = Duration::from_secs(60);
const RETRIES: usize = 4;
/// Until the head of a reply is there; what is written is at most a few MiB.
const REPLY_LIMIT: Duration = Duration::from_secs(60);

/// `/srv/backups` or `s3://bucket/prefix`. Nothing secret is in it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// A folder, by its absolute path.
    Folder(PathBuf),
    /// A bucket, and what all names in it begin with.
    S3 {
        /// Bucket.
        bucket: String,
        /// Without slashes at its ends; possibly empty.
        prefix: String,
    },
}

impl fmt::Display for Place {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::Folder(path) => path.display().fmt(formatter),
            Place::S3 { bucket, prefix } if prefix.is_empty() => write!(formatter, "s3://{bucket}"),
            Place::S3 { bucket, prefix } => write!(formatter, "s3://{bucket}/{prefix}"),
        }
    }
}

impl FromStr for Place {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let wrong = |what: &str| {
            Error::invalid(
                reason::REPOSITORY,
                format!(
                    "{text:?} is no place for backups: {what}. It is an absolute path on the controller's machine, or s3://BUCKET/PREFIX"
                ),
            )
        };
        if text.chars().any(|letter| letter.is_control()) || text.len() > 1024 {
            return Err(wrong("it is too long or not printable"));
        }
        if let Some(rest) = text.strip_prefix("s3://") {
            let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
            let prefix = prefix.trim_matches('/');
            let fine = |letter: char| letter.is_ascii_alphanumeric() || "-._".contains(letter);
            if bucket.is_empty() || !bucket.chars().all(fine) {
                return Err(wrong("the bucket's name is missing or has signs that no bucket has"));
            }
            if prefix.split('/').any(|part| matches!(part, "." | "..")) || rest.contains("//") {
                return Err(wrong("the prefix has empty parts or dots for parts"));
            }
            return Ok(Place::S3 { bucket: bucket.to_owned(), prefix: prefix.to_owned() });
        }
        let path = Path::new(text);
        let mut parts = path.components();
        if parts.next() != Some(Component::RootDir) {
            return Err(wrong("it is neither an absolute path nor s3://"));
        }
        if parts.clone().next().is_none() || !parts.all(|part| matches!(part, Component::Normal(_))) {
            return Err(wrong("it has `..` in it, or is the root of all"));
        }
        // The same folder has one name: slashes at the end or doubled say nothing.
        Ok(Place::Folder(path.components().collect()))
    }
}

impl Place {
    /// The way to what is there. `make`: a folder that is missing is made, if its parent exists.
    pub(super) fn open(&self, make: bool) -> Result<Arc<dyn ObjectStore>, Error> {
        match self {
            Place::Folder(path) => {
                if make {
                    match fs::DirBuilder::new().mode(0o700).create(path) {
                        Ok(()) => {}
                        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                        Err(error) => return Err(self.unusable(&error)),
                    }
                }
                let store = LocalFileSystem::new_with_prefix(path).map_err(|error| self.unusable(&error))?;
                Ok(Arc::new(store))
            }
            // Not from the command line: it would be in the list of processes.
            Place::S3 { bucket, prefix } => {
                let opened = s3(AmazonS3Builder::from_env(), bucket, prefix);
                opened.map_err(|error| self.unusable(&error))
            }
        }
    }

    fn unusable(&self, error: &dyn std::error::Error) -> Error {
        let next = match self {
            Place::Folder(_) => {
                "check that it exists on the controller's machine and that the controller may write there"
            }
            Place::S3 { .. } => {
                "check AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_REGION and AWS_ENDPOINT_URL in the controller's environment"
            }
        };
        Error::refused(reason::REPOSITORY, format!("{self} cannot be used for backups: {error}; {next}"))
    }
}

/// A place in a bucket; `builder` knows whose.
pub(super) fn s3(
    builder: AmazonS3Builder,
    bucket: &str,
    prefix: &str,
) -> Result<Arc<dyn ObjectStore>, object_store::Error> {
    let retry = RetryConfig { max_retries: RETRIES, retry_timeout: RETRY_LIMIT, ..RetryConfig::default() };
    let store = builder.with_bucket_name(bucket).with_retry(retry).with_http_connector(Https).build()?;
    Ok(Arc::new(PrefixStore::new(store, prefix)))
}

/// Requests go through the client that the rest of the controller uses: it brings its own provider of cryptography, and knows whom the
/// operating system trusts.
#[derive(Debug)]
struct Https;

#[derive(Debug)]
struct Service(https::Client);

impl HttpConnector for Https {
    fn connect(&self, _: &ClientOptions) -> Result<HttpClient, object_store::Error> {
        let client = https::Client::keeping(
            https::Trust::System,
            https::Limits { total: REPLY_LIMIT, ..https::Limits::default() },
        );
        let client = client.map_err(|error| object_store::Error::Generic { store: "S3", source: Box::new(error) })?;
        Ok(HttpClient::new(Service(client)))
    }
}

#[async_trait::async_trait]
impl HttpService for Service {
    async fn call(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let (head, body) = request.into_parts();
        let body = body.collect().await?.to_bytes();
        let reply = self.0.open(http::Request::from_parts(head, body)).await.map_err(|failed| {
            let kind = match failed {
                https::Failed::NotSent(_) => HttpErrorKind::Connect,
                https::Failed::Lost(_) => HttpErrorKind::Interrupted,
            };
            HttpError::new(kind, failed)
        })?;
        let broken = |error| HttpError::new(HttpErrorKind::Interrupted, error);
        Ok(reply.map(|body| HttpResponseBody::new(body.map_err(broken))))
    }
}

#[cfg(test)]
mod tests {
    use super::Place;

    #[test]
    fn places_have_one_name() {
        for (text, name) in [
            ("/srv/backups", "/srv/backups"),
            ("/srv//backups/", "/srv/backups"),
            ("s3://bucket", "s3://bucket"),
            ("s3://bucket/", "s3://bucket"),
            ("s3://my.bucket-1/a/b/", "s3://my.bucket-1/a/b"),
        ] {
            assert_eq!(text.parse::<Place>().unwrap().to_string(), name);
        }
    }

    #[test]
    fn other_texts_are_refused() {
        for text in [
            "",
            "backups",
            "./x",
            "/",
            "/srv/../etc",
            "s3://",
            "s3:///x",
            "s3://b/../c",
            "s3://b//c",
            "gs://b",
            "/a\nb",
            "s3://k:s@b",
        ] {
            assert!(text.parse::<Place>().is_err(), "{text:?}");
        }
    }
}
