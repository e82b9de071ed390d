//! A volume as a tar archive that `podman volume import` and GNU tar read.
//!
//! Owns the writing of members in POSIX (pax) form. Refuses to know where the bytes go. Sockets are left out, holes stay holes
//! (GNU sparse 1.0), and names are relative to the volume, each beginning with `./`.

use std::{
    collections::BTreeMap,
    io::Write,
    os::fd::{AsFd as _, OwnedFd},
};

use super::{
    Error,
    content::{self, Pieces, Stop},
    entry::Metadata,
    pax::Records,
    tar_header::{BLOCK, Fields, OCTAL_7_MAX, OCTAL_11_MAX, padding},
    tar_sparse::{PIECES_MAX, SparseMap},
    walk::{Expect, Found, Item, Walk},
};

/// What went into an archive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Exported {
    /// Members.
    pub entries: u64,
    /// Apparent bytes of regular files.
    pub bytes: u64,
    /// Files of a live volume that changed while they were read; each is complete in form, with zeros where it shrank.
    pub changed: u64,
    /// Sockets left out.
    pub skipped_sockets: u64,
}

/// Writes the whole volume as one archive, in walk order, end marker included.
///
/// # Errors
/// [`Error::ArchiveIo`] when `out` fails; [`Error::Changed`] when a still source was not; [`Error::Io`],
/// [`Error::MountInside`], [`Error::Unsupported`].
pub fn write_tar(root: OwnedFd, expect: Expect, out: &mut dyn Write) -> Result<Exported, Error> {
    let mut archive = Archive {
        walk: Walk::new(root, expect),
        expect,
        out,
        buffer: Vec::new(),
        first_names: BTreeMap::new(),
        done: Exported::default(),
    };
    while let Some(item) = archive.walk.next()? {
        archive.member(&item)?;
    }
    archive.put(&[0; 2 * BLOCK])?;
    archive.out.flush().map_err(write_failed)?;
    Ok(Exported { skipped_sockets: archive.walk.skipped_sockets, ..archive.done })
}

/// Bytes read and written at once.
const BUFFER_BYTES: u64 = 256 * 1024;

fn write_failed(source: std::io::Error) -> Error {
    Error::ArchiveIo { action: "write", source }
}

struct Archive<'a> {
    walk: Walk,
    expect: Expect,
    out: &'a mut dyn Write,
    buffer: Vec<u8>,
    /// Name of each hard-linked member by its position in the walk, with how many more names may come.
    first_names: BTreeMap<u64, (Vec<u8>, u32)>,
    done: Exported,
}

impl Archive<'_> {
    fn member(&mut self, item: &Item) -> Result<(), Error> {
        let mut name = [b"./", &self.walk.path_of(item)[..]].concat();
        let number = item.status.device_number;
        let mut fields = Fields::default();
        match &item.found {
            Found::Regular => return self.regular(item, name),
            Found::HardLink(first) => {
                let Some(first) = self.first_name(*first) else {
                    // Its first name vanished from a live volume before it was opened.
                    self.done.changed += 1;
                    return Ok(());
                };
                (fields.letter, fields.link_name) = (b'1', first);
            }
            Found::Directory => {
                fields.letter = b'5';
                if !name.ends_with(b"/") {
                    name.push(b'/');
                }
            }
            Found::Symlink(target) => (fields.letter, fields.link_name) = (b'2', target.to_vec()),
            Found::Fifo => fields.letter = b'6',
            Found::CharacterDevice => fields.letter = b'3',
            Found::BlockDevice => fields.letter = b'4',
        }
        if matches!(fields.letter, b'3' | b'4') {
            (fields.device_major, fields.device_minor) = (number.major.into(), number.minor.into());
        }
        // A hard link has no attributes of its own.
        let metadata = match item.found {
            Found::HardLink(_) => item.status.metadata(Vec::new()),
            _ => self.walk.metadata(item, &item.status, None)?,
        };
        self.remember(item, &name);
        fields.name = name;
        self.header(fields, &metadata, Records::default())
    }

    fn regular(&mut self, item: &Item, name: Vec<u8>) -> Result<(), Error> {
        let Some((file, _)) = self.walk.open(item)? else {
            self.done.changed += 1;
            return Ok(());
        };
        let size = item.status.size;
        let metadata = self.walk.metadata(item, &item.status, Some(file.as_fd()))?;
        self.remember(item, &name);
        let map = self.sparse_map(item, &file)?;
        let mut records = Records::default();
        let mut fields = Fields { name, size, letter: b'0', ..Fields::default() };
        let pieces = match &map {
            Some(map) => {
                records.put_number("GNU.sparse.major", 1);
                records.put_number("GNU.sparse.minor", 0);
                records.put(b"GNU.sparse.name", &fields.name);
                records.put_number("GNU.sparse.realsize", size);
                fields.name = b"./GNUSparseFile.0/data".to_vec();
                let text = map.encode();
                fields.size = text.len() as u64 + map.pieces.iter().map(|(_, length)| length).sum::<u64>();
                self.header(fields.clone(), &metadata, records)?;
                self.put(&text)?;
                map.pieces.clone()
            }
            None => {
                self.header(fields.clone(), &metadata, records)?;
                vec![(0, size)]
            }
        };
        let mut whole = true;
        for (offset, length) in pieces {
            whole &= self.copy(item, &file, offset, length)?;
        }
        let padding = padding(fields.size);
        self.zeros(padding)?;
        self.walk.is_unchanged(item, &item.status, file.as_fd())?;
        self.done.bytes += size;
        self.done.changed += u64::from(!whole);
        Ok(())
    }

    /// Where the data is, when there are holes worth keeping.
    fn sparse_map(&self, item: &Item, file: &OwnedFd) -> Result<Option<SparseMap>, Error> {
        let (size, allocated) = (item.status.size, item.status.allocated);
        if allocated >= size {
            return Ok(None);
        }
        let mut map = SparseMap { pieces: Vec::new(), real_size: size };
        let mut pieces = Pieces::new(file.as_fd(), size, allocated);
        while let Some(piece) = pieces.next(u64::MAX).map_err(|stop| self.stopped(item, stop))? {
            if map.pieces.len() == PIECES_MAX - 1 {
                return Ok(None);
            }
            map.pieces.push(piece);
        }
        let end = map.pieces.last().map_or(0, |(offset, length)| offset + length);
        if end == size && map.pieces == [(0, size)] {
            return Ok(None);
        }
        if end < size {
            // An empty piece marks where the last hole ends.
            map.pieces.push((size, 0));
        }
        Ok(Some(map))
    }

    /// Copies a stretch of the file; false when a live file had become shorter, and zeros were written for the rest.
    fn copy(&mut self, item: &Item, file: &OwnedFd, mut offset: u64, mut length: u64) -> Result<bool, Error> {
        while length > 0 {
            let step = length.min(BUFFER_BYTES);
            let mut buffer = std::mem::take(&mut self.buffer);
            buffer.clear();
            let step_bytes = usize::try_from(step).unwrap_or(usize::MAX);
            match content::read_exactly(file.as_fd(), offset, step_bytes, &mut buffer) {
                Ok(()) => self.put(&buffer)?,
                Err(Stop::Shrunk) if self.expect == Expect::Live => {
                    self.put(&buffer)?;
                    self.zeros(length - buffer.len() as u64)?;
                    return Ok(false);
                }
                Err(stop) => return Err(self.stopped(item, stop)),
            }
            self.buffer = buffer;
            offset += step;
            length -= step;
        }
        Ok(true)
    }

    /// Writes a member's header, preceded by an extended one when something does not fit.
    fn header(&mut self, mut fields: Fields, metadata: &Metadata, mut records: Records) -> Result<(), Error> {
        let Metadata { mode, uid, gid, mtime, xattrs } = metadata;
        fields.mode = *mode;
        (fields.uid, fields.gid, fields.mtime) = (u64::from(*uid), u64::from(*gid), mtime.seconds);
        if !Fields::name_fits(&fields.name) {
            records.put(b"path", &fields.name);
        }
        if !Fields::name_fits(&fields.link_name) {
            records.put(b"linkpath", &fields.link_name);
        }
        for (key, value, most) in
            [("size", fields.size, OCTAL_11_MAX), ("uid", fields.uid, OCTAL_7_MAX), ("gid", fields.gid, OCTAL_7_MAX)]
        {
            if value > most {
                records.put_number(key, value);
            }
        }
        if mtime.nanos != 0 || !u64::try_from(mtime.seconds).is_ok_and(|seconds| seconds <= OCTAL_11_MAX) {
            records.put_time("mtime", *mtime);
        }
        for xattr in xattrs {
            records.put_xattr(xattr);
        }
        let extended = records.as_bytes();
        if !extended.is_empty() {
            let size = extended.len() as u64;
            let header =
                Fields { name: b"./PaxHeaders/member".to_vec(), mode: 0o644, size, letter: b'x', ..Fields::default() };
            self.put(&header.encode())?;
            self.put(extended)?;
            self.zeros(padding(size))?;
        }
        self.done.entries += 1;
        self.put(&fields.encode())
    }

    fn remember(&mut self, item: &Item, name: &[u8]) {
        if item.status.links > 1 && !matches!(item.found, Found::Directory | Found::HardLink(_)) {
            self.first_names.insert(item.ordinal, (name.to_vec(), item.status.links - 1));
        }
    }

    fn first_name(&mut self, first: u64) -> Option<Vec<u8>> {
        let (name, remaining) = self.first_names.get_mut(&first)?;
        *remaining -= 1;
        if *remaining > 0 {
            return Some(name.clone());
        }
        self.first_names.remove(&first).map(|(name, _)| name)
    }

    fn stopped(&self, item: &Item, stop: Stop) -> Error {
        let path = self.walk.path_of(item);
        match stop {
            Stop::Shrunk => Error::changed(&path, "became shorter"),
            Stop::Failed(errno) => Error::io("read", &path, errno),
        }
    }

    fn put(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.out.write_all(bytes).map_err(write_failed)
    }

    fn zeros(&mut self, mut count: u64) -> Result<(), Error> {
        const ZEROS: [u8; 4096] = [0; 4096];
        while count > 0 {
            let step = count.min(ZEROS.len() as u64);
            self.put(&ZEROS[..usize::try_from(step).unwrap_or(ZEROS.len())])?;
            count -= step;
        }
        Ok(())
    }
}
