//! Maps of holes in tar archives.
//!
//! Owns the four forms in which GNU tar writes where the data of a sparse member belongs. Knows nothing of members otherwise.

use super::{
    pax::decimal,
    tar_header::{BLOCK, number},
};

/// Most pieces in a map: bounds the memory that a hostile archive can take.
pub(super) const PIECES_MAX: usize = 1 << 18;

/// Where the stored bytes of a sparse member belong.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct SparseMap {
    /// Offset and length of each piece, ascending.
    pub(super) pieces: Vec<(u64, u64)>,
    /// Size of the file, holes included.
    pub(super) real_size: u64,
}

impl SparseMap {
    /// From the flat list of extended headers 0.0 and 0.1.
    pub(super) fn from_flat(flat: &[u64], real_size: u64) -> Result<Self, &'static str> {
        if !flat.len().is_multiple_of(2) {
            return Err("its map of holes is incomplete");
        }
        let pieces = flat.as_chunks::<2>().0.iter().map(|pair| (pair[0], pair[1])).collect();
        Ok(Self { pieces, real_size })
    }

    /// Checks that pieces ascend within the file and hold exactly `stored` bytes; drops empty ones.
    pub(super) fn check(mut self, stored: u64) -> Result<Self, &'static str> {
        if self.pieces.len() > PIECES_MAX {
            return Err("its map of holes is too long");
        }
        let mut position = 0;
        let mut total = 0_u64;
        for &(offset, length) in &self.pieces {
            let end = offset.checked_add(length).ok_or("its map of holes overflows")?;
            if offset < position || end > self.real_size {
                return Err("its map of holes is out of order or leads past its end");
            }
            position = end;
            // Bounded by the end of the last piece.
            total += length;
        }
        if total != stored {
            return Err("its map of holes does not match its size");
        }
        self.pieces.retain(|(_, length)| *length > 0);
        Ok(self)
    }

    /// The map as version 1.0 writes it in front of the data: decimal lines, padded to a block.
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut text = format!("{}\n", self.pieces.len());
        for (offset, length) in &self.pieces {
            text.push_str(&format!("{offset}\n{length}\n"));
        }
        let mut bytes = text.into_bytes();
        bytes.resize(bytes.len().next_multiple_of(BLOCK), 0);
        bytes
    }
}

/// Reads the map of version 1.0 block by block.
#[derive(Default)]
pub(super) struct MapReader {
    line: Vec<u8>,
    count: Option<u64>,
    flat: Vec<u64>,
}

impl MapReader {
    /// Takes one block; true when the map is complete.
    pub(super) fn block(&mut self, block: &[u8; BLOCK]) -> Result<bool, &'static str> {
        for byte in block {
            if *byte != b'\n' {
                self.line.push(*byte);
                // More digits than any number has.
                if self.line.len() > 20 {
                    return Err("its map of holes cannot be read");
                }
                continue;
            }
            let value = decimal(&self.line).ok_or("its map of holes cannot be read")?;
            self.line.clear();
            match self.count {
                None if value > PIECES_MAX as u64 => return Err("its map of holes is too long"),
                None => self.count = Some(value),
                Some(_) => self.flat.push(value),
            }
            // The rest of the block is padding.
            if self.count.is_some_and(|count| self.flat.len() as u64 == 2 * count) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    pub(super) fn finish(self, real_size: u64) -> Result<SparseMap, &'static str> {
        SparseMap::from_flat(&self.flat, real_size)
    }
}

/// Reads the oldest form: four pieces in the header itself, more in blocks behind it.
#[derive(Default)]
pub(super) struct OldMap {
    pieces: Vec<(u64, u64)>,
    real_size: u64,
}

impl OldMap {
    const IN_HEADER: usize = 386;
    const PIECE: usize = 24;

    /// Takes the member's header; true when a block with more pieces follows.
    pub(super) fn header(&mut self, block: &[u8; BLOCK]) -> Result<bool, &'static str> {
        self.real_size = number(&block[483..495]).ok_or("its size cannot be read")?;
        self.take(&block[Self::IN_HEADER..Self::IN_HEADER + 4 * Self::PIECE])?;
        Ok(block[482] != 0)
    }

    /// Takes a block with more pieces; true when one more follows.
    pub(super) fn more(&mut self, block: &[u8; BLOCK]) -> Result<bool, &'static str> {
        self.take(&block[..21 * Self::PIECE])?;
        Ok(block[21 * Self::PIECE] != 0)
    }

    pub(super) fn finish(self) -> SparseMap {
        SparseMap { pieces: self.pieces, real_size: self.real_size }
    }

    fn take(&mut self, pieces: &[u8]) -> Result<(), &'static str> {
        for piece in pieces.chunks_exact(Self::PIECE) {
            // An unused place is all zeros.
            if piece[0] == 0 {
                continue;
            }
            let both = number(&piece[..12]).zip(number(&piece[12..]));
            self.pieces.push(both.ok_or("its map of holes cannot be read")?);
        }
        if self.pieces.len() > PIECES_MAX { Err("its map of holes is too long") } else { Ok(()) }
    }
}
