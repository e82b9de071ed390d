//! A network in memory: addresses, pipes, and cuts.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
};

use async_trait::async_trait;
use feather_proto::tls::{BoxIo, Dial, Incoming};
use tokio::{
    io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf},
    sync::mpsc,
};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

const PIPE_BYTES: usize = 256 << 10;

#[derive(Default)]
struct State {
    listeners: BTreeMap<String, (mpsc::UnboundedSender<io::Result<BoxIo>>, CancellationToken)>,
    /// Pairs (who dials, which address) that do not reach each other.
    cut: BTreeSet<(String, String)>,
    links: Vec<((String, String), CancellationToken)>,
}

/// The network. Each party dials through its own [`Network::from`].
#[derive(Clone, Default)]
pub struct Network {
    state: Arc<Mutex<State>>,
}

/// The network as one party sees it.
pub struct From {
    network: Network,
    who: String,
}

impl Network {
    /// Listens at an address. Whoever listened there before is cut off, with all its connections.
    pub fn listen(&self, address: &str) -> Incoming {
        let (sender, receiver) = mpsc::unbounded_channel();
        self.close(address);
        self.lock().listeners.insert(address.to_owned(), (sender, CancellationToken::new()));
        Box::pin(tokio_stream::wrappers::UnboundedReceiverStream::new(receiver))
    }

    /// Nobody listens there any more.
    pub fn close(&self, address: &str) {
        if let Some((_, ended)) = self.lock().listeners.remove(address) {
            ended.cancel();
        }
    }

    /// The network as `who` sees it.
    pub fn from(&self, who: &str) -> Arc<dyn Dial> {
        Arc::new(From { network: self.clone(), who: who.to_owned() })
    }

    /// From now on `who` does not reach the address; open connections break.
    pub fn cut(&self, who: &str, address: &str) {
        let pair = (who.to_owned(), address.to_owned());
        let mut state = self.lock();
        state.links.retain(|(link, token)| {
            if *link == pair {
                token.cancel();
            }
            *link != pair
        });
        state.cut.insert(pair);
    }

    /// `who` reaches the address again.
    pub fn heal(&self, who: &str, address: &str) {
        self.lock().cut.remove(&(who.to_owned(), address.to_owned()));
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Dial for From {
    async fn dial(&self, address: &str) -> io::Result<BoxIo> {
        let pair = (self.who.clone(), address.to_owned());
        let mut state = self.network.lock();
        let refused = || io::Error::new(io::ErrorKind::ConnectionRefused, "connection refused");
        if state.cut.contains(&pair) {
            return Err(io::Error::new(io::ErrorKind::HostUnreachable, "no route to host"));
        }
        let (sender, ended) = state.listeners.get(address).cloned().ok_or_else(refused)?;
        let (near, far) = tokio::io::duplex(PIPE_BYTES);
        let token = ended.child_token();
        sender.send(Ok(Box::new(Link::new(far, &token)) as BoxIo)).map_err(|_| refused())?;
        state.links.push((pair, token.clone()));
        Ok(Box::new(Link::new(near, &token)))
    }
}

/// One end of a connection that can be cut.
struct Link {
    pipe: DuplexStream,
    token: CancellationToken,
    cut: Pin<Box<WaitForCancellationFutureOwned>>,
}

impl Link {
    fn new(pipe: DuplexStream, token: &CancellationToken) -> Self {
        Self { pipe, token: token.clone(), cut: Box::pin(token.clone().cancelled_owned()) }
    }

    fn reset() -> io::Error {
        io::Error::new(io::ErrorKind::ConnectionReset, "connection reset by peer")
    }
}

impl AsyncRead for Link {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.cut.as_mut().poll(context).is_ready() {
            return Poll::Ready(Err(Self::reset()));
        }
        Pin::new(&mut self.pipe).poll_read(context, buffer)
    }
}

impl AsyncWrite for Link {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        if self.token.is_cancelled() {
            return Poll::Ready(Err(Self::reset()));
        }
        Pin::new(&mut self.pipe).poll_write(context, data)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.pipe).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.pipe).poll_shutdown(context)
    }
}
