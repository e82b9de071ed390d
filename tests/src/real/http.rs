//! People at a tenant's own web app: by its host name, through the Caddy of a server of their choice.

use std::{net::Ipv4Addr, time::Duration};

use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// What `tenant add` printed.
#[derive(Debug, Clone)]
pub struct Login {
    /// Its name.
    pub tenant: String,
    /// Its host name.
    pub host: String,
    /// Its password.
    pub password: String,
}

impl Login {
    /// Reads the one line; anything else on standard output is a failure.
    pub fn parse(tenant: &str, output: &str) -> Self {
        let line = output.strip_suffix('\n').expect("a whole line");
        let (url, password) = line.split_once(" | password: ").expect("url and password");
        let host = url.strip_prefix("https://").expect("an address");
        assert_eq!(host, format!("{tenant}.users.inceptel.ai"));
        assert!(
            password.len() >= 10 && password.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
        );
        Self { tenant: tenant.to_owned(), host: host.to_owned(), password: password.to_owned() }
    }
}

impl Login {
    /// A file for `curl --header @FILE`: no password is seen among its arguments.
    pub fn header_file(&self) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().expect("a file can be made");
        std::fs::write(file.path(), format!("Authorization: Bearer {}\n", self.password)).expect("it can be written");
        file
    }
}

/// An answer of the web app, or of Caddy in its place.
#[derive(Debug, Clone)]
pub struct Answer {
    /// HTTP status.
    pub status: u16,
    /// Names the process of the web app that answered, if one did.
    pub boot: Option<String>,
    /// Body.
    pub text: String,
}

/// A connection each time, and no patience: an answer that does not come is a failure of the request.
pub(super) fn client() -> reqwest::Client {
    let builder = reqwest::Client::builder().no_proxy().pool_max_idle_per_host(0).timeout(Duration::from_secs(10));
    builder.build().expect("a client can be made")
}

/// Somebody with a browser, and perhaps with the password.
#[derive(Clone)]
pub struct Visitor {
    client: reqwest::Client,
    through: Ipv4Addr,
    login: Login,
}

impl Visitor {
    pub(super) fn new(client: reqwest::Client, through: Ipv4Addr, login: Login) -> Self {
        Self { client, through, login }
    }

    /// GET.
    pub async fn get(&self, path: &str) -> Result<Answer, String> {
        self.send(self.client.get(self.url(path))).await
    }

    /// The same for what is no text.
    pub async fn get_bytes(&self, path: &str) -> Result<Vec<u8>, String> {
        let request =
            self.client.get(self.url(path)).header("host", &self.login.host).bearer_auth(&self.login.password);
        let response = request.send().await.map_err(|error| format!("{error:?}"))?;
        let bytes = response.bytes().await.map_err(|error| format!("{error:?}"))?;
        Ok(bytes.to_vec())
    }

    /// One numbered line; acknowledged when the status is 200.
    pub async fn append(&self, line: &str) -> Result<Answer, String> {
        self.send(self.client.post(self.url("/append")).body(line.to_owned())).await
    }

    /// A file of the tenant's, replaced.
    pub async fn put(&self, path: &str, content: Vec<u8>) -> Result<Answer, String> {
        self.send(self.client.put(self.url(path)).body(content)).await
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.through)
    }

    async fn send(&self, request: reqwest::RequestBuilder) -> Result<Answer, String> {
        let request = request.header("host", &self.login.host).bearer_auth(&self.login.password);
        let response = request.send().await.map_err(|error| format!("{error:?}"))?;
        let status = response.status().as_u16();
        let boot = response.headers().get("x-work-boot").and_then(|boot| boot.to_str().ok()).map(ToOwned::to_owned);
        let text = response.text().await.map_err(|error| format!("{status} by {boot:?}, and then {error:?}"))?;
        Ok(Answer { status, boot, text })
    }
}

/// What became of somebody's writing.
#[derive(Debug, Default)]
pub struct Written {
    /// Lines that were acknowledged, in order.
    pub acknowledged: Vec<String>,
    /// What was answered, or went wrong, instead of an acknowledgement.
    pub refused: Vec<String>,
}

/// Somebody who writes all the time, and remembers what was acknowledged.
pub struct Writer {
    stop: CancellationToken,
    task: JoinHandle<Written>,
    count: tokio::sync::watch::Receiver<usize>,
}

impl Writer {
    /// Begins to write. Every attempt has its own text: one whose answer was lost may have been written too.
    pub fn start(who: &'static str, visitor: Visitor) -> Self {
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        let (report, count) = tokio::sync::watch::channel(0);
        let task = tokio::spawn(async move {
            let mut written = Written::default();
            let mut pace = tokio::time::interval(Duration::from_millis(5));
            pace.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
            for attempt in 0_u64.. {
                pace.tick().await;
                if stopped.is_cancelled() {
                    break;
                }
                let line = format!("{who}-{attempt}");
                match visitor.append(&line).await {
                    Ok(answer) if answer.status == 200 => {
                        written.acknowledged.push(line);
                        report.send_replace(written.acknowledged.len());
                    }
                    Ok(answer) => written.refused.push(format!("{line}: {} {}", answer.status, answer.text)),
                    Err(error) => written.refused.push(format!("{line}: {error}")),
                }
            }
            written
        });
        Self { stop, task, count }
    }

    /// Waits until this many more lines were acknowledged.
    pub async fn goes_on(&self, more: usize) {
        let wanted = *self.count.borrow() + more;
        crate::wait::until("the writer goes on", async || {
            let count = *self.count.borrow();
            if count >= wanted { Ok(()) } else { Err(count) }
        })
        .await;
    }

    /// Ends, and tells what it wrote.
    pub async fn stop(self) -> Written {
        self.stop.cancel();
        self.task.await.expect("a writer does not panic")
    }
}

/// Every acknowledged line is there once and in order, and the numbers have no gap: nobody else ever wrote to another copy.
pub fn journal_is_whole(journal: &str, acknowledged: &[String]) {
    let mut wanted = acknowledged.iter().peekable();
    for (index, line) in journal.lines().enumerate() {
        let (number, text) = line.split_once(' ').expect("a number and a text");
        assert_eq!(number, (index + 1).to_string(), "the numbers have a gap at {line:?}");
        if wanted.peek().is_some_and(|next| *next == text) {
            wanted.next();
        } else {
            assert!(!acknowledged.iter().any(|other| other == text), "{line:?} is out of order, or there twice");
        }
    }
    assert_eq!(wanted.next(), None, "an acknowledged line is lost");
}

/// No process began before its predecessor had ended. A killed one could not say so; `killed` of them are allowed.
pub fn one_at_a_time(starts: &str, killed: usize) {
    let (mut open, mut unended, mut latest) = (None, 0, 0_u128);
    for line in starts.lines() {
        let words: Vec<_> = line.split(' ').collect();
        let [what, boot, at] = words[..] else { panic!("not a mark: {line:?}") };
        let at: u128 = at.parse().expect("a time");
        assert!(at >= latest, "times go back at {line:?}:\n{starts}");
        latest = at;
        match what {
            "start" => unended += usize::from(open.replace(boot).is_some()),
            _ => assert_eq!(open.take(), Some(boot), "two at a time:\n{starts}"),
        }
    }
    assert!(unended <= killed, "{unended} processes were followed by another without an end:\n{starts}");
}
