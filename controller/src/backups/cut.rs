//! An archive cut into pieces by its content. Pure.
//!
//! Where a piece ends follows from the bytes around (FastCDC, Xia et al. 2016, 2020), so that what comes before and after a change is cut
//! as before, and is found in the repository again.

use fastcdc::v2020::FastCDC;

/// Bytes of a piece: at least, about and at most. Home directories hold small files; smaller pieces would be more objects than stores
/// are good at.
const LEAST: usize = 64 << 10;
const ABOUT: usize = 256 << 10;
/// No piece is larger.
pub const MOST: usize = 1 << 20;

/// Takes bytes, gives pieces.
#[derive(Debug, Default)]
pub struct Cutter {
    buffer: Vec<u8>,
    /// So much of the buffer has been given already.
    start: usize,
    ended: bool,
}

impl Cutter {
    /// More of the archive.
    pub fn push(&mut self, data: &[u8]) {
        if self.start > 0 {
            self.buffer.drain(..self.start);
            self.start = 0;
        }
        self.buffer.extend_from_slice(data);
    }

    /// That was all.
    pub fn end(&mut self) {
        self.ended = true;
    }

    /// The next piece, if it is certain where it ends.
    pub fn piece(&mut self) -> Option<Vec<u8>> {
        let rest = &self.buffer[self.start..];
        if rest.is_empty() || (rest.len() < MOST && !self.ended) {
            return None;
        }
        let length = FastCDC::new(rest, LEAST, ABOUT, MOST).next().map_or(rest.len(), |piece| piece.length);
        let piece = rest[..length].to_vec();
        self.start += length;
        Some(piece)
    }
}

#[cfg(test)]
mod tests {
    use rand::{Rng as _, SeedableRng as _, rngs::StdRng};

    use super::{Cutter, MOST};

    fn cut(data: &[u8], step: usize) -> Vec<Vec<u8>> {
        let mut cutter = Cutter::default();
        let mut pieces = vec![];
        for part in data.chunks(step) {
            cutter.push(part);
            pieces.extend(std::iter::from_fn(|| cutter.piece()));
        }
        cutter.end();
        pieces.extend(std::iter::from_fn(|| cutter.piece()));
        pieces
    }

    fn noise(seed: u64, bytes: usize) -> Vec<u8> {
        let mut data = vec![0; bytes];
        StdRng::seed_from_u64(seed).fill_bytes(&mut data);
        data
    }

    #[test]
    fn pieces_are_the_archive_however_it_comes() {
        let data = noise(1, 5 << 20);
        let pieces = cut(&data, 64 << 10);
        assert_eq!(pieces.concat(), data);
        assert!(pieces.iter().all(|piece| !piece.is_empty() && piece.len() <= MOST));
        assert_eq!(cut(&data, 1_000_003), pieces);
        assert_eq!(cut(&data, data.len()), pieces);
        assert!(cut(&[], 1).is_empty());
        assert_eq!(cut(&vec![0; 3 * MOST], MOST).concat().len(), 3 * MOST, "all alike");
    }

    #[test]
    fn a_change_costs_the_pieces_around_it() {
        let mut data = noise(2, 8 << 20);
        let before = cut(&data, 1 << 20);
        data.splice(4_000_000..4_000_000, *b"something new");
        let after = cut(&data, 1 << 20);
        let new = after.iter().filter(|piece| !before.contains(piece)).count();
        assert!(new <= 3, "{new} of {} pieces are new", after.len());
    }
}
