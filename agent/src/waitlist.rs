//! The waitlist: people leave an address at a loopback port, the fleet lists and invites them.
//!
//! Owns the addresses of one server from the answer `{"ok":true}` on: they are on disk before it is given. Knows nothing of
//! tenants and invitations; those are the controller's. Addresses are personal data: nothing here logs one.

mod answer;
mod book;
mod door;
mod rate;

#[cfg(test)]
mod tests;

use std::{
    net::SocketAddr,
    path::PathBuf,
    sync::{Arc, Mutex},
    time::Duration,
};

use feather_proto::{
    email::EmailAddress,
    error::{Error, reason},
};
use time::OffsetDateTime;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::agent::locked;

pub use answer::Origins;
use book::Book;
pub(crate) use book::Entry;
pub use door::Limits;
pub use rate::Rate;

/// A port that was taken is tried again after this long.
const BIND_PAUSE: Duration = Duration::from_secs(5);

/// Where the waitlist is offered, and to whom.
#[derive(Debug, Clone)]
pub struct Door {
    /// Loopback, unless an operator knows better.
    pub listen: SocketAddr,
    /// Whose pages may send addresses.
    pub origins: Origins,
    /// How much and how fast.
    pub limits: Limits,
}

/// The addresses of one server.
pub(crate) struct Waitlist {
    file: PathBuf,
    /// Opened at the first use, and again after a failure.
    book: Arc<Mutex<Option<Book>>>,
    /// Why nobody can come in, and why nothing can be read or written.
    port_trouble: Mutex<Option<String>>,
    disk_trouble: Mutex<Option<String>>,
}

impl Waitlist {
    pub(crate) fn new(file: PathBuf) -> Self {
        Self { file, book: Arc::default(), port_trouble: Mutex::default(), disk_trouble: Mutex::default() }
    }

    /// What a person should know about, in a sentence.
    pub(crate) fn problem(&self) -> Option<String> {
        locked(&self.disk_trouble).clone().or_else(|| locked(&self.port_trouble).clone())
    }

    /// Puts an address on the list, or leaves it there. On return it survives a power cut.
    pub(crate) async fn sign_up(&self, email: EmailAddress, now: OffsetDateTime) -> Result<(), book::Error> {
        self.with(move |book| book.sign_up(email, now)).await
    }

    /// Everybody, the earliest first.
    pub(crate) async fn entries(&self) -> Result<Vec<Entry>, Error> {
        Ok(self.with(|book| Ok(book.entries())).await?)
    }

    pub(crate) async fn entry(&self, email: EmailAddress) -> Result<Option<Entry>, Error> {
        Ok(self.with(move |book| Ok(book.entry(&email))).await?)
    }

    /// Forgets an address; false when it was not there.
    pub(crate) async fn remove(&self, email: EmailAddress) -> Result<bool, Error> {
        Ok(self.with(move |book| book.remove(&email)).await?)
    }

    /// The work goes on when its caller is dropped, as everything that writes.
    async fn with<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Book) -> Result<T, book::Error> + Send + 'static,
    ) -> Result<T, book::Error> {
        let (book, file) = (self.book.clone(), self.file.clone());
        let task = tokio::task::spawn_blocking(move || {
            let mut open = locked(&book);
            let mut one = match open.take() {
                Some(one) => one,
                None => Book::open(&file)?,
            };
            let done = work(&mut one).map(|done| (done, one.damaged()));
            // After a failed write the file is read again before anything else is said about it.
            if !matches!(done, Err(book::Error::Disk(_))) {
                *open = Some(one);
            }
            done
        });
        let done = task.await.unwrap_or_else(|panic| Err(book::Error::Disk(std::io::Error::other(panic))));
        let file = self.file.display();
        let trouble = match &done {
            Err(book::Error::Disk(cause)) => Some(format!("the waitlist in {file} cannot be read or written: {cause}")),
            Ok((_, damaged @ 1..)) => {
                Some(format!("{damaged} lines of the waitlist in {file} cannot be read; they are kept as they are"))
            }
            Ok(_) | Err(book::Error::Full) => None,
        };
        *locked(&self.disk_trouble) = trouble;
        done.map(|(done, _)| done)
    }

    /// Listens until the agent ends. A port that is taken is reported, and tried again: nothing else of the server needs it.
    pub(crate) async fn keep_open(
        self: Arc<Self>,
        door: Door,
        clock: Arc<dyn crate::clock::Clock>,
        ended: CancellationToken,
    ) {
        let listen = door.listen;
        loop {
            match TcpListener::bind(listen).await {
                Ok(listener) => {
                    if locked(&self.port_trouble).take().is_some() {
                        tracing::info!(%listen, "the waitlist is open again");
                    }
                    return self.serve(listener, door, clock, ended).await;
                }
                Err(error) => {
                    let trouble =
                        format!("the waitlist cannot listen on {listen} ({error}); free the port, it is tried again");
                    if locked(&self.port_trouble).replace(trouble).is_none() {
                        tracing::warn!(%listen, %error, "the waitlist is closed");
                    }
                }
            }
            tokio::select! {
                () = tokio::time::sleep(BIND_PAUSE) => {}
                () = ended.cancelled() => return,
            }
        }
    }

    /// Answers on this listener until the agent ends.
    pub(crate) async fn serve(
        self: Arc<Self>,
        listener: TcpListener,
        door: Door,
        clock: Arc<dyn crate::clock::Clock>,
        ended: CancellationToken,
    ) {
        // What is wrong with the file shows at the start, not when the first person comes.
        if let Err(error) = self.entries().await {
            tracing::error!(%error, "the waitlist cannot be read");
        }
        door::serve(self, listener, door, clock, ended).await;
    }
}

impl From<book::Error> for Error {
    fn from(error: book::Error) -> Error {
        let sentence = error.to_string();
        match error {
            book::Error::Full => Error::full(reason::STORAGE, sentence),
            book::Error::Disk(source) => Error::unavailable(reason::STORAGE, sentence).with("cause", source),
        }
    }
}
