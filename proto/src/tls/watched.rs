//! An outgoing connection that does not outlive its peer's place in the fleet.
//!
//! Owns the end of it. Whether a peer is still in is said by the list of revoked certificates.

use std::{
    future::Future,
    io,
    pin::Pin,
    task::{Context, Poll},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::{revoked::Revoked, serve::Peer};
use crate::error::Error;

/// A stream whose reads fail from when its peer's certificate is on the list: whoever dials over it again looks at the list before it
/// speaks. Reads are always under way on a connection of HTTP/2, so it ends at once, also when nobody says anything.
pub(super) struct Watched<S> {
    stream: S,
    state: State,
}

enum State {
    In(Pin<Box<dyn Future<Output = Error> + Send>>),
    Out(Error),
}

impl<S> Watched<S> {
    /// As long as this list does not refuse this peer.
    pub(super) fn new(stream: S, revoked: &Revoked, peer: &Peer) -> Self {
        Self { stream, state: State::In(Box::pin(revoked.ended(peer))) }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if let State::In(ended) = &mut self.state
            && let Poll::Ready(error) = ended.as_mut().poll(context)
        {
            self.state = State::Out(error);
        }
        match &self.state {
            State::Out(error) => Poll::Ready(Err(io::Error::other(error.clone()))),
            State::In(_) => Pin::new(&mut self.stream).poll_read(context, buffer),
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, data)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::Watched;
    use crate::tls::{Peer, Principal, Revocation, Revoked};

    #[tokio::test]
    async fn a_read_that_waits_ends_when_the_peer_is_taken_out() {
        let (revoked, nyc) = (Revoked::default(), Principal::agent("nyc"));
        let peer = Peer { principal: Some(nyc.clone()), valid_from: Some(7), ..Peer::default() };
        let (near, mut far) = tokio::io::duplex(64);
        let mut near = Watched::new(near, &revoked, &peer);
        far.write_all(b"hello").await.unwrap();
        let mut heard = [0; 5];
        near.read_exact(&mut heard).await.unwrap();
        let line = |valid_from_last| Revocation { principal: nyc.clone(), valid_from_last };
        {
            let mut waits = std::pin::pin!(near.read(&mut heard));
            assert!(futures::poll!(&mut waits).is_pending());
            revoked.replace([line(6)].into_iter().collect());
            assert!(futures::poll!(&mut waits).is_pending(), "an older certificate is another matter");
            revoked.replace([line(7)].into_iter().collect());
            assert!(waits.await.unwrap_err().to_string().contains("no member of the fleet"));
        }
        far.write_all(b"still").await.unwrap();
        assert!(near.read(&mut heard).await.is_err(), "and stays so");
    }
}
