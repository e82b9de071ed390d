//! The program as a whole: what it says on its socket, and how it ends.

// What a test starts and stops things with asserts like the test itself.
#![allow(clippy::unwrap_used)]

use std::{
    fs,
    io::{BufRead, BufReader, Read},
    path::Path,
    process::{Child, ChildStdout, Command, Stdio},
};

use futures::{SinkExt, StreamExt};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tokio_tungstenite::tungstenite::{Message, client::IntoClientRequest};

struct Running {
    child: Child,
    output: BufReader<ChildStdout>,
    port: u16,
}

impl Running {
    fn start(home_dir: &Path) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_feather-work"))
            .env_clear()
            .env("PORT", "0")
            .env("HOME_DIR", home_dir)
            .env("FEATHER_PASSWORD", "x7k9m2")
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut output = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        let port = loop {
            line.clear();
            assert_ne!(output.read_line(&mut line).unwrap(), 0, "it ended before it listened");
            if let Some(port) = line.trim().strip_prefix("listening port=") {
                break port.parse().unwrap();
            }
        };
        Self { child, output, port }
    }

    /// Asks it to end; gives back how it ended and what it still had to say.
    fn terminate(mut self) -> (Option<i32>, String) {
        assert!(Command::new("kill").arg(self.child.id().to_string()).status().unwrap().success());
        let mut rest = String::new();
        self.output.read_to_string(&mut rest).unwrap();
        (self.child.wait().unwrap().code(), rest)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Already gone after `terminate`; a failed test must leave nothing behind either.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[tokio::test]
async fn a_terminated_process_ends_its_streams_and_writes_its_stop() {
    let directory = tempfile::tempdir().unwrap();
    let running = Running::start(directory.path());
    let mut stream = TcpStream::connect(("127.0.0.1", running.port)).await.unwrap();
    stream.write_all(b"GET /sse HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer x7k9m2\r\n\r\n").await.unwrap();
    let mut seen = vec![0; 1024];
    let read = stream.read(&mut seen).await.unwrap();
    assert!(seen[..read].starts_with(b"HTTP/1.1 200"));

    let (code, said) = running.terminate();
    assert_eq!(code, Some(0));
    assert!(said.contains("stop boot="), "{said}");
    let starts = fs::read_to_string(directory.path().join("starts.log")).unwrap();
    let words: Vec<&str> = starts.split_whitespace().collect();
    assert_eq!([words[0], words[3]], ["start", "stop"], "{starts}");
    assert_eq!(words[1], words[4], "one process wrote both");
    // The stream was ended, not torn: the last, empty chunk is there.
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).await.unwrap();
    assert!(rest.ends_with(b"0\r\n\r\n"));
}

#[tokio::test]
async fn the_web_socket_echoes_text_and_bytes() {
    let directory = tempfile::tempdir().unwrap();
    let running = Running::start(directory.path());
    let mut request = format!("ws://127.0.0.1:{}/ws", running.port).into_client_request().unwrap();
    request.headers_mut().insert("authorization", "Bearer x7k9m2".parse().unwrap());
    let (mut socket, _) = tokio_tungstenite::connect_async(request).await.unwrap();
    for message in [Message::text("hello"), Message::binary(vec![0, 255])] {
        socket.send(message.clone()).await.unwrap();
        assert_eq!(socket.next().await.unwrap().unwrap(), message);
    }
    let (code, _) = running.terminate();
    assert_eq!(code, Some(0));
    assert!(matches!(socket.next().await, Some(Ok(Message::Close(_)))));
}
