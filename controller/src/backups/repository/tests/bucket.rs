//! A bucket on this machine: as much of S3 as a repository uses, over real HTTP.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use axum::{
    Router,
    body::{Body, Bytes},
    extract::{Request, State},
    http::{Method, StatusCode},
    response::{IntoResponse as _, Response},
};
use object_store::{ObjectStore, aws::AmazonS3Builder};

const MODIFIED: &str = "2026-01-02T03:04:05.000Z";

#[derive(Clone, Default)]
pub(super) struct Bucket(Arc<Mutex<BTreeMap<String, Bytes>>>);

impl Bucket {
    /// Names of what is in it.
    pub(super) fn names(&self) -> Vec<String> {
        self.0.lock().unwrap().keys().cloned().collect()
    }

    pub(super) fn spoil(&self, name: &str) {
        self.0.lock().unwrap().insert(name.to_owned(), Bytes::from_static(b"rot"));
    }

    /// Serves it, and the way there; ends with the runtime.
    pub(super) async fn serve(&self, prefix: &str) -> Arc<dyn ObjectStore> {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let router = Router::new().fallback(answer).with_state(self.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        let builder = AmazonS3Builder::new()
            .with_endpoint(endpoint)
            .with_region("somewhere")
            .with_access_key_id("key")
            .with_secret_access_key("secret")
            .with_allow_http(true);
        crate::backups::place::s3(builder, "bucket", prefix).unwrap()
    }
}

async fn answer(State(bucket): State<Bucket>, request: Request) -> Response {
    let signed = request.headers().get("authorization").and_then(|value| value.to_str().ok()).unwrap_or_default();
    if !signed.starts_with("AWS4-HMAC-SHA256 Credential=key/") {
        return StatusCode::FORBIDDEN.into_response();
    }
    let (method, uri) = (request.method().clone(), request.uri().clone());
    let Some(name) = uri.path().strip_prefix("/bucket") else { return StatusCode::NOT_FOUND.into_response() };
    let name = name.trim_start_matches('/').to_owned();
    let query = uri.query().unwrap_or_default().to_owned();
    let body = axum::body::to_bytes(request.into_body(), 8 << 20).await.unwrap();
    let mut held = bucket.0.lock().unwrap();
    match method {
        Method::PUT => {
            held.insert(name, body);
            ([("etag", "\"1\"")], "").into_response()
        }
        Method::GET if name.is_empty() => list(&held, &query).into_response(),
        Method::GET | Method::HEAD => match held.get(&name) {
            None => StatusCode::NOT_FOUND.into_response(),
            Some(content) => Response::builder()
                .header("etag", "\"1\"")
                .header("last-modified", "Fri, 02 Jan 2026 03:04:05 GMT")
                .header("content-length", content.len())
                .body(if method == Method::HEAD { Body::empty() } else { Body::from(content.clone()) })
                .unwrap(),
        },
        Method::POST if query.starts_with("delete") => {
            let text = String::from_utf8(body.to_vec()).unwrap();
            let keys = text.split("<Key>").skip(1).filter_map(|rest| rest.split("</Key>").next());
            let deleted = keys.inspect(|key| drop(held.remove(*key)));
            let deleted: String = deleted.map(|key| format!("<Deleted><Key>{key}</Key></Deleted>")).collect();
            format!("<DeleteResult>{deleted}</DeleteResult>").into_response()
        }
        Method::DELETE => {
            held.remove(&name);
            StatusCode::NO_CONTENT.into_response()
        }
        _ => StatusCode::METHOD_NOT_ALLOWED.into_response(),
    }
}

fn list(held: &BTreeMap<String, Bytes>, query: &str) -> String {
    let prefix = form_value(query, "prefix");
    let entry = |(name, content): (&String, &Bytes)| {
        format!(
            "<Contents><Key>{name}</Key><LastModified>{MODIFIED}</LastModified><ETag>\"1\"</ETag><Size>{}</Size></Contents>",
            content.len()
        )
    };
    let entries: String = held.iter().filter(|(name, _)| name.starts_with(&prefix)).map(entry).collect();
    format!("<ListBucketResult><IsTruncated>false</IsTruncated>{entries}</ListBucketResult>")
}

fn form_value(query: &str, wanted: &str) -> String {
    let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
    let found = pairs.into_iter().find(|(name, _)| *name == wanted).map_or("", |(_, value)| value);
    found.replace("%2F", "/")
}
