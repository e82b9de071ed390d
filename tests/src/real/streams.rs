//! Connections that stay open: a WebSocket whose echo is awaited all the time, and a stream of events of which none may be missing.

use std::{net::Ipv4Addr, time::Duration};

use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::TcpStream,
    sync::watch,
    task::JoinHandle,
};
use tokio_util::sync::CancellationToken;

use super::Login;

/// Nothing of a stream takes longer.
const PATIENCE: Duration = Duration::from_secs(10);
/// But for its beginning, which may have to wait until its tenant has moved.
const OPENING: Duration = Duration::from_secs(90);
const PACE: Duration = Duration::from_millis(20);
/// So much has to come after each change before a stream counts as uncut.
const MORE: u64 = 3;

/// Both streams of one tenant, open until [`Streams::close`].
pub struct Streams {
    stop: CancellationToken,
    open: Vec<Stream>,
}

struct Stream {
    name: &'static str,
    count: watch::Receiver<u64>,
    task: JoinHandle<Result<(), String>>,
}

impl Streams {
    /// Opens them through the Caddy at this address.
    pub fn open(through: Ipv4Addr, login: &Login) -> Self {
        let stop = CancellationToken::new();
        let (echoed, echoes) = watch::channel(0);
        let (seen, events) = watch::channel(0);
        let (until, user) = (stop.clone(), login.clone());
        let socket = async move { echo(Kind::Socket.open(through, &user).await?, echoed).await };
        let socket = tokio::spawn(async move { until.run_until_cancelled(socket).await.unwrap_or(Ok(())) });
        let (until, user) = (stop.clone(), login.clone());
        let listener = async move { listen(Kind::Events.open(through, &user).await?, seen).await };
        let listener = tokio::spawn(async move { until.run_until_cancelled(listener).await.unwrap_or(Ok(())) });
        let open = vec![
            Stream { name: "the WebSocket", count: echoes, task: socket },
            Stream { name: "the stream of events", count: events, task: listener },
        ];
        Self { stop, open }
    }

    /// Waits until more has come through each of them, on the connection of the beginning.
    pub async fn go_on(&self) {
        for stream in &self.open {
            let wanted = *stream.count.borrow() + MORE;
            crate::wait::until(&format!("{} goes on", stream.name), async || {
                let count = *stream.count.borrow();
                if count >= wanted { Ok(()) } else { Err((count, stream.task.is_finished())) }
            })
            .await;
        }
    }

    /// Ends them, and tells how it went.
    pub async fn close(self) {
        self.stop.cancel();
        for stream in self.open {
            let went = stream.task.await.expect("a stream does not panic");
            assert_eq!(went, Ok(()), "{} was cut", stream.name);
        }
    }
}

async fn bounded<T>(what: &str, work: impl Future<Output = std::io::Result<T>>) -> Result<T, String> {
    within(PATIENCE, what, work).await
}

async fn within<T>(bound: Duration, what: &str, work: impl Future<Output = std::io::Result<T>>) -> Result<T, String> {
    match tokio::time::timeout(bound, work).await {
        Ok(done) => done.map_err(|error| format!("{what}: {error}")),
        Err(_) => Err(format!("{what}: nothing for {bound:?}")),
    }
}

async fn ask(through: Ipv4Addr, login: &Login, path: &str, more: &str) -> Result<BufReader<TcpStream>, String> {
    let (host, password) = (&login.host, &login.password);
    let request = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {password}\r\n{more}\r\n");
    let work = async {
        let mut stream = TcpStream::connect((through, 80)).await?;
        stream.write_all(request.as_bytes()).await?;
        Ok(BufReader::new(stream))
    };
    bounded("asking", work).await
}

/// Reads the head of the answer; its first line.
async fn head(stream: &mut BufReader<TcpStream>) -> Result<String, String> {
    let (mut first, mut line) = (String::new(), String::new());
    loop {
        line.clear();
        within(OPENING, "the head", stream.read_line(&mut line)).await?;
        if first.is_empty() {
            first.clone_from(&line);
        }
        if line.trim().is_empty() {
            return Ok(first);
        }
    }
}

/// The two ways to keep a connection.
#[derive(Debug, Clone, Copy)]
pub(super) enum Kind {
    Socket,
    Events,
}

impl Kind {
    /// Asks for the stream; an answer that is none is an error.
    pub(super) async fn open(self, through: Ipv4Addr, login: &Login) -> Result<BufReader<TcpStream>, String> {
        let (path, more, wanted) = match self {
            Kind::Socket => {
                let upgrade = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                               Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
                ("/ws", upgrade, " 101 ")
            }
            Kind::Events => ("/sse", "Accept: text/event-stream\r\n", " 200 "),
        };
        let mut stream = ask(through, login, path, more).await?;
        let first = head(&mut stream).await?;
        if first.contains(wanted) { Ok(stream) } else { Err(first) }
    }

    /// Uses it until it ends.
    pub(super) async fn follow(self, stream: BufReader<TcpStream>) -> Result<(), String> {
        let (count, _) = watch::channel(0);
        match self {
            Kind::Socket => echo(stream, count).await,
            Kind::Events => listen(stream, count).await,
        }
    }
}

async fn echo(mut stream: BufReader<TcpStream>, count: watch::Sender<u64>) -> Result<(), String> {
    for number in 0_u64.. {
        // A text of up to 125 bytes in one frame; ours are masked, with a mask of zeroes.
        let text = number.to_string();
        let length = u8::try_from(text.len()).unwrap_or_default();
        let mut frame = vec![0x81, 0x80 | length, 0, 0, 0, 0];
        frame.extend_from_slice(text.as_bytes());
        bounded("sending", stream.write_all(&frame)).await?;
        let mut answer = vec![0; 2 + text.len()];
        bounded("the echo", stream.read_exact(&mut answer)).await?;
        if answer[..2] != [0x81, length] || &answer[2..] != text.as_bytes() {
            return Err(format!("the echo of {text} was {answer:?}"));
        }
        count.send_replace(number + 1);
        tokio::time::sleep(PACE).await;
    }
    Ok(())
}

async fn listen(mut stream: BufReader<TcpStream>, count: watch::Sender<u64>) -> Result<(), String> {
    let (mut wanted, mut line) = (0_u64, String::new());
    loop {
        line.clear();
        if bounded("an event", stream.read_line(&mut line)).await? == 0 {
            return Err("it ended".to_owned());
        }
        let Some(id) = line.strip_prefix("id:") else { continue };
        if id.trim() != wanted.to_string() {
            return Err(format!("event {id} came instead of {wanted}"));
        }
        wanted += 1;
        count.send_replace(wanted);
    }
}
