use std::path::Path;

use axum::{
    body::{Body, to_bytes},
    http::{Request, StatusCode},
    response::Response,
};
use tower::ServiceExt;

use super::*;

const PASSWORD: &str = "x7k9m2";

fn app(home_dir: &Path, healthy_answers: Option<u64>) -> Router {
    let config = Config {
        port: 0,
        home_dir: home_dir.to_owned(),
        password: Some(PASSWORD.into()),
        slow_start: Duration::ZERO,
        healthy_answers,
        feather_variables: vec!["FEATHER_PASSWORD".into(), "OPENAI_API_KEY".into()],
    };
    let home = Home::open(home_dir).unwrap();
    let journal = Arc::new(Journal::open(&home).unwrap());
    let sessions = Sessions::open(&home, config.password.clone()).unwrap();
    routes(App::new(&config, home, journal, sessions, CancellationToken::new()))
}

async fn call(app: &Router, method: &str, path: &str, body: &str) -> (StatusCode, String) {
    let request = Request::builder().method(method).uri(path).header("authorization", format!("Bearer {PASSWORD}"));
    let request = request.body(Body::from(body.to_owned())).unwrap();
    read(app.clone().oneshot(request).await.unwrap()).await
}

async fn read(response: Response) -> (StatusCode, String) {
    let status = response.status();
    let body = to_bytes(response.into_body(), usize::MAX).await.unwrap();
    (status, String::from_utf8(body.to_vec()).unwrap())
}

#[tokio::test]
async fn lines_are_numbered_and_read_back() {
    let directory = tempfile::tempdir().unwrap();
    let app = app(directory.path(), None);
    assert_eq!(call(&app, "POST", "/append", "hello\n").await, (StatusCode::OK, r#"{"line":1}"#.into()));
    assert_eq!(call(&app, "POST", "/append", "again").await, (StatusCode::OK, r#"{"line":2}"#.into()));
    assert_eq!(call(&app, "POST", "/append", "two\nlines").await.0, StatusCode::BAD_REQUEST);
    assert_eq!(call(&app, "GET", "/journal", "").await, (StatusCode::OK, "1 hello\n2 again\n".into()));
    assert!(call(&app, "GET", "/", "").await.1.contains("2 lines"));
}

#[tokio::test]
async fn everything_but_health_and_login_needs_a_login() {
    let directory = tempfile::tempdir().unwrap();
    let app = app(directory.path(), None);
    for (method, path) in
        [("GET", "/"), ("POST", "/append"), ("GET", "/journal"), ("GET", "/sse"), ("GET", "/env"), ("PUT", "/files/x")]
    {
        let request = Request::builder().method(method).uri(path).body(Body::empty()).unwrap();
        assert_eq!(app.clone().oneshot(request).await.unwrap().status(), StatusCode::UNAUTHORIZED, "{path}");
    }
    let request = Request::builder().uri("/health").body(Body::empty()).unwrap();
    assert_eq!(read(app.oneshot(request).await.unwrap()).await, (StatusCode::OK, "ok".into()));
}

#[tokio::test]
async fn login_takes_a_form_or_json_and_hands_out_a_session() {
    let directory = tempfile::tempdir().unwrap();
    let app = app(directory.path(), None);
    for (kind, body, status) in [
        ("application/x-www-form-urlencoded", "password=x7k9m2", StatusCode::OK),
        ("application/json", r#"{"password":"x7k9m2"}"#, StatusCode::OK),
        ("application/json", r#"{"password":"wrong"}"#, StatusCode::UNAUTHORIZED),
        ("application/json", "nonsense", StatusCode::BAD_REQUEST),
    ] {
        let request = Request::post("/login").header("content-type", kind).body(Body::from(body)).unwrap();
        let response = app.clone().oneshot(request).await.unwrap();
        assert_eq!(response.status(), status, "{body}");
        let Some(cookie) = response.headers().get("set-cookie").cloned() else { continue };
        let cookie = cookie.to_str().unwrap().split(';').next().unwrap().to_owned();
        let request = Request::get("/journal").header("cookie", cookie).body(Body::empty()).unwrap();
        assert_eq!(app.clone().oneshot(request).await.unwrap().status(), StatusCode::OK);
    }
}

#[tokio::test]
async fn health_fails_after_the_told_number_of_answers() {
    let directory = tempfile::tempdir().unwrap();
    let app = app(directory.path(), Some(2));
    let mut seen = Vec::new();
    for _ in 0..4 {
        seen.push(call(&app, "GET", "/health", "").await.0.as_u16());
    }
    assert_eq!(seen, [200, 200, 503, 503]);
}

#[tokio::test]
async fn files_are_written_and_read_inside_the_home_only() {
    let directory = tempfile::tempdir().unwrap();
    let app = app(directory.path(), None);
    assert_eq!(call(&app, "PUT", "/files/a/b.txt", "content").await.0, StatusCode::CREATED);
    assert_eq!(call(&app, "GET", "/files/a/b.txt", "").await, (StatusCode::OK, "content".into()));
    assert_eq!(call(&app, "GET", "/files/a/c.txt", "").await.0, StatusCode::NOT_FOUND);
    assert_eq!(call(&app, "PUT", "/files/%2e%2e/b.txt", "escape").await.0, StatusCode::BAD_REQUEST);
    assert_eq!(call(&app, "GET", "/files/%2fetc/passwd", "").await.0, StatusCode::BAD_REQUEST);
}

#[tokio::test(start_paused = true)]
async fn the_event_stream_counts_and_ends_at_its_limit() {
    let directory = tempfile::tempdir().unwrap();
    let app = app(directory.path(), None);
    let (status, body) = call(&app, "GET", "/sse?limit=3", "").await;
    assert_eq!(status, StatusCode::OK);
    let counted: Vec<&str> = body.lines().filter_map(|line| line.strip_prefix("data: ")).collect();
    assert_eq!(counted, ["0", "1", "2"]);
}

#[tokio::test]
async fn variables_are_listed_by_name_only() {
    let directory = tempfile::tempdir().unwrap();
    let app = app(directory.path(), None);
    let (_, body) = call(&app, "GET", "/env", "").await;
    assert_eq!(body, r#"["FEATHER_PASSWORD","OPENAI_API_KEY"]"#);
}
