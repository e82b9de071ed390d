//! The HTTP side: connections, heads as they were spelled, replies and their absence.
//!
//! Written on sockets because a faithful fake must see the case of a header's letters, and must be able to stop in the
//! middle of a reply.

use std::{io, net::IpAddr, sync::Arc};

use serde_json::Value;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};

use super::{account::Account, faults::Answer};

/// Bytes of a request, at most.
const REQUEST_MAX: usize = 256 << 10;

/// A whole request.
#[derive(Debug)]
pub(super) struct Incoming {
    pub(super) method: String,
    /// Path with query, exactly as sent.
    pub(super) target: String,
    /// Names exactly as sent.
    pub(super) headers: Vec<(String, String)>,
    pub(super) body: Vec<u8>,
    pub(super) peer: IpAddr,
}

impl Incoming {
    /// Whatever the case of its name.
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    /// Only in this spelling.
    pub(super) fn header_spelled(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }
}

/// What goes back.
#[derive(Debug)]
pub(super) struct Outgoing {
    pub(super) status: u16,
    pub(super) content_type: &'static str,
    pub(super) body: String,
}

impl Outgoing {
    pub(super) fn json(status: u16, body: &Value) -> Self {
        Self { status, content_type: "application/json", body: body.to_string() }
    }
}

/// Serves until it is dropped.
pub(super) async fn serve(listener: TcpListener, account: Arc<Account>) {
    let mut open = tokio::task::JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let Ok((stream, peer)) = accepted else { continue };
                let account = account.clone();
                open.spawn(async move { drop(one(stream, peer.ip(), &account).await) });
            }
            Some(_) = open.join_next() => {}
        }
    }
}

/// One request on one connection.
async fn one(mut stream: TcpStream, peer: IpAddr, account: &Account) -> io::Result<()> {
    let Some(request) = read(&mut stream, peer).await? else { return Ok(()) };
    let (outgoing, answer) = account.answer(&request).await;
    let (outgoing, whole) = match answer {
        Answer::Lost => return Ok(()),
        Answer::Cut => (outgoing, false),
        Answer::Slow(pause) => {
            tokio::time::sleep(pause).await;
            (outgoing, true)
        }
        Answer::Html(status) => {
            let body = "<!DOCTYPE html><html><body><h1>Sorry</h1></body></html>".to_owned();
            (Outgoing { status, content_type: "text/html", body }, true)
        }
        Answer::Text(body) => (Outgoing { status: 200, content_type: "text/plain", body }, true),
        Answer::True | Answer::Error(..) | Answer::Version1 => (outgoing, true),
    };
    let head = format!(
        "HTTP/1.1 {} Fake\r\ncontent-type: {}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
        outgoing.status,
        outgoing.content_type,
        outgoing.body.len()
    );
    let body = outgoing.body.as_bytes();
    let body = if whole { body } else { &body[..body.len() / 2] };
    stream.write_all(&[head.as_bytes(), body].concat()).await?;
    stream.shutdown().await
}

async fn read(stream: &mut TcpStream, peer: IpAddr) -> io::Result<Option<Incoming>> {
    let mut bytes = Vec::new();
    loop {
        let mut headers = [httparse::EMPTY_HEADER; 64];
        let mut head = httparse::Request::new(&mut headers);
        if let httparse::Status::Complete(length) = head.parse(&bytes).map_err(io::Error::other)? {
            let headers: Vec<_> = head
                .headers
                .iter()
                .map(|header| (header.name.to_owned(), String::from_utf8_lossy(header.value).into_owned()))
                .collect();
            let mut request = Incoming {
                method: head.method.unwrap_or_default().to_owned(),
                target: head.path.unwrap_or_default().to_owned(),
                headers,
                body: bytes.split_off(length),
                peer,
            };
            let wanted = request.header("content-length").and_then(|text| text.parse().ok()).unwrap_or(0);
            if wanted > REQUEST_MAX {
                return Ok(None);
            }
            while request.body.len() < wanted {
                if stream.read_buf(&mut request.body).await? == 0 {
                    return Ok(None);
                }
            }
            request.body.truncate(wanted);
            return Ok(Some(request));
        }
        if bytes.len() > REQUEST_MAX || stream.read_buf(&mut bytes).await? == 0 {
            return Ok(None);
        }
    }
}
