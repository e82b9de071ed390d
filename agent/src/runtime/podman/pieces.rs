//! Bounds an archive's stream: in the size of its pieces, and in the time that it may be silent.

use std::time::Duration;

use bytes::Bytes;
use futures::{
    StreamExt,
    stream::{self, BoxStream},
};

use crate::runtime::Error;

/// Largest piece, by the contract of an export.
const PIECE_BYTES_MAX: usize = 1 << 20;

type Pieces = BoxStream<'static, Result<Bytes, Error>>;

pub(super) fn bounded(content: Pieces, silence_max: Duration) -> Pieces {
    stream::try_unfold((content, Bytes::new()), move |(mut content, mut rest)| async move {
        while rest.is_empty() {
            match tokio::time::timeout(silence_max, content.next()).await {
                Ok(Some(piece)) => rest = piece?,
                Ok(None) => return Ok(None),
                Err(elapsed) => return Err(Error::Unreachable(elapsed.into())),
            }
        }
        let piece = rest.split_to(rest.len().min(PIECE_BYTES_MAX));
        Ok(Some((piece, (content, rest))))
    })
    .boxed()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use bytes::Bytes;
    use futures::{StreamExt, TryStreamExt, stream};

    use super::{PIECE_BYTES_MAX, bounded};
    use crate::runtime::Error;

    #[tokio::test(start_paused = true)]
    async fn large_pieces_are_cut_and_a_silent_engine_is_given_up() {
        let content = stream::iter([Ok(Bytes::new()), Ok(Bytes::from(vec![7; PIECE_BYTES_MAX + 1]))]);
        let sizes: Vec<_> =
            bounded(content.boxed(), Duration::from_secs(1)).map_ok(|piece| piece.len()).try_collect().await.unwrap();
        assert_eq!(sizes, [PIECE_BYTES_MAX, 1]);
        let mut silent = bounded(stream::pending().boxed(), Duration::from_secs(1));
        assert!(matches!(silent.next().await, Some(Err(Error::Unreachable(_)))));
    }
}
