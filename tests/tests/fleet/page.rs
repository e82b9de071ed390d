//! The web page, asked for as browsers do.

use feather_proto::{
    error::{Error, reason},
    pb::controller::v1::{self as pb, user_service_client::UserServiceClient},
    tls::Role,
};
use feather_tests::Fleet;
use reqwest::{StatusCode, header, redirect::Policy};

/// A browser that follows nothing by itself and keeps no cookies.
struct Browser {
    client: reqwest::Client,
    base: String,
}

impl Browser {
    fn at(fleet: &Fleet) -> Self {
        let client = reqwest::Client::builder().redirect(Policy::none()).build().unwrap();
        Self { client, base: format!("http://{}", fleet.http_address()) }
    }

    async fn get(&self, path: &str, cookie: &str) -> reqwest::Response {
        self.client.get(format!("{}{path}", self.base)).header(header::COOKIE, cookie).send().await.unwrap()
    }

    async fn post(&self, path: &str, cookie: &str, body: String) -> reqwest::Response {
        let request = self.client.post(format!("{}{path}", self.base)).header(header::COOKIE, cookie);
        request.header(header::CONTENT_TYPE, "application/x-www-form-urlencoded").body(body).send().await.unwrap()
    }

    /// The cookie of a session.
    async fn log_in(&self, token: &str) -> String {
        let answer = self.post("/login", "", format!("token={token}")).await;
        assert_eq!((answer.status(), &answer.headers()["location"]), (StatusCode::SEE_OTHER, &"/".parse().unwrap()));
        let cookie = answer.headers()["set-cookie"].to_str().unwrap().to_owned();
        assert!(cookie.contains("HttpOnly") && cookie.contains("SameSite=Strict"), "{cookie}");
        assert!(!cookie.contains(token.trim_start_matches("feather-web-")), "a session is no token");
        cookie.split(';').next().unwrap().to_owned()
    }
}

async fn token(fleet: &Fleet, name: &str, ttl_seconds: u32) -> pb::CreateWebTokenResponse {
    let request = pb::CreateWebTokenRequest { name: name.into(), ttl_seconds };
    UserServiceClient::new(fleet.admin()).create_web_token(request).await.unwrap().into_inner()
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_has_a_token_sees_the_fleet_and_nobody_else_does() {
    let fleet = Fleet::start(&["nyc", "fra"]).await;
    fleet.add("alice", "nyc").await;
    assert_eq!(fleet.migrate("alice", "fra").await.state(), pb::OperationState::Succeeded);
    let browser = Browser::at(&fleet);
    for (path, status) in
        [("/", StatusCode::SEE_OTHER), ("/live", StatusCode::UNAUTHORIZED), ("/login", StatusCode::OK)]
    {
        let answer = browser.get(path, &format!("feather_session={}", "0".repeat(64))).await;
        assert_eq!(answer.status(), status, "{path}");
        let policy = answer.headers()["content-security-policy"].to_str().unwrap().to_owned();
        assert!(policy.starts_with("default-src 'none'") && !policy.contains("unsafe"), "{policy}");
        assert_eq!(answer.headers()["cache-control"], "no-store");
        assert!(!answer.text().await.unwrap().contains("alice"), "{path}");
    }
    let made = token(&fleet, "", 0).await;
    assert_eq!((made.name.as_str(), made.page), ("admin", fleet.http_address().to_string()));
    let session = browser.log_in(&made.token).await;
    let page = browser.get("/", &session).await.text().await.unwrap();
    for said in ["nyc", "fra", "alice", "running", "2/2</b> servers ready", "nyc → fra", "What happened", "admin"] {
        assert!(page.contains(said), "{said} is not on the page:\n{page}");
    }
    let live = browser.get("/live?q=nobody", &session).await.text().await.unwrap();
    assert!(live.contains("None of that kind") && !live.contains("<html"), "{live}");
    for (path, kind) in [("/page.css", "text/css"), ("/live.js", "text/javascript")] {
        let answer = browser.get(path, "").await;
        assert!(answer.headers()["content-type"].to_str().unwrap().starts_with(kind), "{path}");
    }
    let out = browser.post("/logout", &session, String::new()).await;
    assert!(out.headers()["set-cookie"].to_str().unwrap().contains("Max-Age=0"));
    assert_eq!(browser.get("/", &session).await.status(), StatusCode::SEE_OTHER);
    browser.log_in(&made.token).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_ends_with_a_revocation_at_once_and_is_no_way_to_change_anything() {
    let mut fleet = Fleet::start(&["nyc"]).await;
    let made = token(&fleet, "wall", 3600).await;
    let browser = Browser::at(&fleet);
    let (one, two) = (browser.log_in(&made.token).await, browser.log_in(&made.token).await);
    let mut users = UserServiceClient::new(fleet.admin());
    let list = users.list_users(pb::ListUsersRequest {}).await.unwrap().into_inner().users;
    let wall = list.iter().find(|user| user.name == "wall").unwrap();
    let until = (wall.web_until.map(|at| at.seconds), made.expires.map(|at| at.seconds));
    assert!(wall.role == "viewer" && until.0.is_some() && until.0 == until.1, "{wall:?}");
    // Sessions outlive a controller.
    fleet.stop_controller().await;
    fleet.start_controller().await;
    let browser = Browser::at(&fleet);
    assert_eq!(browser.get("/live", &one).await.status(), StatusCode::OK);
    let mut users = UserServiceClient::new(fleet.admin());
    users.revoke_user(pb::RevokeUserRequest { name: "wall".into(), unseen: false }).await.unwrap();
    for session in [&one, &two] {
        assert_eq!(browser.get("/live", session).await.status(), StatusCode::UNAUTHORIZED);
    }
    let again = browser.post("/login", "", format!("token={}", made.token)).await;
    assert_eq!(again.status(), StatusCode::UNAUTHORIZED);

    // An operator makes one for itself, and none for others.
    let channel = fleet.channel(fleet.identity(Role::Operator, "ada"));
    let mut ada = UserServiceClient::new(channel);
    let own = ada.create_web_token(pb::CreateWebTokenRequest::default()).await.unwrap().into_inner();
    assert_eq!(own.name, "ada");
    let others = pb::CreateWebTokenRequest { name: "wall".into(), ttl_seconds: 0 };
    assert!(Error::from(ada.create_web_token(others).await.err().unwrap()).is(reason::ROLE));
    let long = pb::CreateWebTokenRequest { name: String::new(), ttl_seconds: 100 * 86_400 };
    assert!(Error::from(ada.create_web_token(long).await.err().unwrap()).is(reason::INVALID_FIELD));
}

#[tokio::test(flavor = "multi_thread")]
async fn guesses_are_counted_and_what_is_too_large_or_from_elsewhere_is_refused() {
    let fleet = Fleet::start(&[]).await;
    let browser = Browser::at(&fleet);
    let made = token(&fleet, "", 0).await;
    let large = browser.post("/login", "", format!("token={}", "x".repeat(5000))).await;
    assert_eq!(large.status(), StatusCode::PAYLOAD_TOO_LARGE);
    let url = format!("{}/login", browser.base);
    let elsewhere =
        browser.client.post(&url).header("sec-fetch-site", "cross-site").body(format!("token={}", made.token));
    assert_eq!(elsewhere.send().await.unwrap().status(), StatusCode::FORBIDDEN);
    for path in ["/login?token=x", "/"] {
        let answer = browser.client.put(format!("{}{path}", browser.base)).send().await.unwrap();
        assert_eq!(answer.status(), StatusCode::METHOD_NOT_ALLOWED, "{path}");
    }
    let guess = format!("token=feather-web-{}", "0".repeat(64));
    let mut refused = 0;
    let last = loop {
        let answer = browser.post("/login", "", guess.clone()).await;
        if answer.status() != StatusCode::UNAUTHORIZED {
            break answer;
        }
        refused += 1;
        assert!(refused < 20, "guesses are not limited");
    };
    assert_eq!(last.status(), StatusCode::TOO_MANY_REQUESTS);
    assert!(last.headers().contains_key("retry-after") && refused >= 5, "{refused}");
    // Not even with a good one: it would tell that it is.
    let good = browser.post("/login", "", format!("token={}", made.token)).await;
    assert_eq!(good.status(), StatusCode::TOO_MANY_REQUESTS);
}
