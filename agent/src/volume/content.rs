//! Reading the content of one regular file, holes told apart from data.
//!
//! Owns the extents of a file. Knows nothing of frames and archives: it hands out pieces of at most a given size, in order.

use std::os::fd::BorrowedFd;

use rustix::{
    buffer::spare_capacity,
    fs::{self, SeekFrom},
    io::{self, Errno},
};

/// What reading stopped at.
#[derive(Debug)]
pub(super) enum Stop {
    /// The file has become shorter than it was.
    Shrunk,
    /// The kernel said so.
    Failed(Errno),
}

impl From<Errno> for Stop {
    fn from(errno: Errno) -> Self {
        Self::Failed(errno)
    }
}

/// The data of a file of known size, piece by piece.
pub(super) struct Pieces<'a> {
    file: BorrowedFd<'a>,
    size: u64,
    position: u64,
    /// End of the data that `position` lies in.
    data_end: u64,
}

impl<'a> Pieces<'a> {
    /// `allocated` below `size` says that there may be holes to look for.
    pub(super) fn new(file: BorrowedFd<'a>, size: u64, allocated: u64) -> Self {
        let data_end = if allocated >= size { size } else { 0 };
        Self { file, size, position: 0, data_end }
    }

    /// The next stretch of data, as offset and length, at most `length_max` long; `None` when only a hole is left.
    pub(super) fn next(&mut self, length_max: u64) -> Result<Option<(u64, u64)>, Stop> {
        if self.position >= self.size {
            return Ok(None);
        }
        if self.position >= self.data_end {
            let start = match fs::seek(self.file, SeekFrom::Data(self.position)) {
                // Nothing but a hole up to the end.
                Err(Errno::NXIO) => return Ok(None),
                found => found?,
            };
            if start >= self.size {
                return Ok(None);
            }
            self.data_end = fs::seek(self.file, SeekFrom::Hole(start))?.min(self.size);
            self.position = start;
        }
        let piece = (self.position, length_max.min(self.data_end - self.position));
        self.position += piece.1;
        Ok(Some(piece))
    }
}

/// Appends exactly `length` bytes from `offset` to `buffer`.
pub(super) fn read_exactly(file: BorrowedFd<'_>, offset: u64, length: usize, buffer: &mut Vec<u8>) -> Result<(), Stop> {
    let goal = buffer.len() + length;
    let start = buffer.len();
    buffer.reserve(length);
    while buffer.len() < goal {
        let position = offset + (buffer.len() - start) as u64;
        match io::pread(file, spare_capacity(buffer), position) {
            Ok(0) => return Err(Stop::Shrunk),
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Err(Stop::Failed(errno)),
        }
    }
    // The buffer may have had room for more than was asked for.
    buffer.truncate(goal);
    Ok(())
}
