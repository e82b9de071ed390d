//! A browser without a screen, steered by the protocol that all of them speak. Owns its process: it ends with this value.

use std::{
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::{Context as _, bail};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use feather_tests::wait::until;
use serde_json::{Value, json};

/// The name under which the protocol gives out elements.
const ELEMENT: &str = "element-6066-11e4-a52e-4f735466cecf";

/// A window of it.
pub(crate) struct Browser {
    driver: Child,
    client: reqwest::Client,
    session: String,
}

impl Drop for Browser {
    fn drop(&mut self) {
        drop(self.driver.kill());
        drop(self.driver.wait());
    }
}

impl Browser {
    pub(crate) async fn start() -> anyhow::Result<Self> {
        let port = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let mut command = Command::new("chromedriver");
        command.arg(format!("--port={port}")).stdout(Stdio::null()).stderr(Stdio::null());
        let driver = command.spawn().context("chromedriver does not start; `make screenshots` says what is needed")?;
        let client = reqwest::Client::builder().timeout(Duration::from_secs(60)).build()?;
        let mut browser = Self { driver, client, session: String::new() };
        let base = format!("http://127.0.0.1:{port}");
        until("the browser's driver answers", async || {
            let answer =
                browser.client.get(format!("{base}/status")).send().await.map_err(|error| error.to_string())?;
            if answer.status().is_success() { Ok(()) } else { Err(answer.status().to_string()) }
        })
        .await;
        // As root, as in containers, it has no sandbox of its own.
        let arguments =
            ["--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--disable-dev-shm-usage"];
        let wanted = json!({ "capabilities": { "alwaysMatch": {
            "goog:chromeOptions": { "args": arguments },
            "goog:loggingPrefs": { "browser": "ALL" },
        } } });
        let answer = browser.client.post(format!("{base}/session")).json(&wanted).send().await?;
        let answer: Value = answer.json().await?;
        let id = answer["value"]["sessionId"].as_str().with_context(|| format!("no browser: {answer}"))?;
        browser.session = format!("{base}/session/{id}");
        Ok(browser)
    }

    async fn post(&self, path: &str, body: &Value) -> anyhow::Result<Value> {
        let answer = self.client.post(format!("{}/{path}", self.session)).json(body).send().await?;
        let (status, mut answer) = (answer.status(), answer.json::<Value>().await?);
        if !status.is_success() {
            bail!("{path}: {}", answer["value"]["message"]);
        }
        Ok(answer["value"].take())
    }

    pub(crate) async fn window(&self, width: u32, height: u32) -> anyhow::Result<()> {
        self.post("window/rect", &json!({ "width": width, "height": height })).await.map(drop)
    }

    pub(crate) async fn go(&self, url: &str) -> anyhow::Result<()> {
        self.post("url", &json!({ "url": url })).await.map(drop)
    }

    async fn element(&self, selector: &str) -> anyhow::Result<String> {
        let found = self.post("element", &json!({ "using": "css selector", "value": selector })).await?;
        Ok(found[ELEMENT].as_str().with_context(|| format!("no {selector}"))?.to_owned())
    }

    pub(crate) async fn type_into(&self, selector: &str, text: &str) -> anyhow::Result<()> {
        let element = self.element(selector).await?;
        self.post(&format!("element/{element}/value"), &json!({ "text": text })).await.map(drop)
    }

    pub(crate) async fn click(&self, selector: &str) -> anyhow::Result<()> {
        let element = self.element(selector).await?;
        self.post(&format!("element/{element}/click"), &json!({})).await.map(drop)
    }

    /// What a person reads there.
    pub(crate) async fn text(&self, selector: &str) -> anyhow::Result<String> {
        let script = "return document.querySelector(arguments[0])?.innerText ?? ''";
        let text = self.post("execute/sync", &json!({ "script": script, "args": [selector] })).await?;
        Ok(text.as_str().unwrap_or_default().to_owned())
    }

    pub(crate) async fn run(&self, script: &str) -> anyhow::Result<Value> {
        self.post("execute/sync", &json!({ "script": script, "args": [] })).await
    }

    /// A script that says itself when it is done.
    pub(crate) async fn run_to_the_end(&self, script: &str) -> anyhow::Result<Value> {
        self.post("execute/async", &json!({ "script": script, "args": [] })).await
    }

    /// What is in the window, as by day or by night.
    pub(crate) async fn picture(&self, file: &Path, dark: bool) -> anyhow::Result<()> {
        let scheme = if dark { "dark" } else { "light" };
        let features = json!({ "features": [{ "name": "prefers-color-scheme", "value": scheme }] });
        self.post("goog/cdp/execute", &json!({ "cmd": "Emulation.setEmulatedMedia", "params": features })).await?;
        let answer: Value = self.client.get(format!("{}/screenshot", self.session)).send().await?.json().await?;
        let png = STANDARD.decode(answer["value"].as_str().context("no picture")?)?;
        std::fs::write(file, png).with_context(|| format!("cannot write {}", file.display()))
    }

    /// What the browser's console says of errors: scripts that failed, and what the page's policy forbade. That a token was refused is
    /// no news.
    pub(crate) async fn complaints(&self) -> anyhow::Result<Vec<String>> {
        let log = self.post("se/log", &json!({ "type": "browser" })).await?;
        let lines = log.as_array().cloned().unwrap_or_default();
        let severe = lines.iter().filter(|line| line["level"] == "SEVERE").map(|line| line["message"].to_string());
        Ok(severe.filter(|line| !line.contains("401") && !line.contains("favicon")).collect())
    }
}
