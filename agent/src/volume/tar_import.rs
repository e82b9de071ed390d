//! A tar archive into an empty volume: what `podman volume export` and GNU tar write.
//!
//! Owns reading members and their place in the tree. Trusts nothing: a name can only lead downwards through directories that
//! this archive made, everything is created new, and an archive without its end marker is refused, because exports that end
//! early report success. Owners are taken by number. Memory: one extended header and one buffer.

use std::{
    fs::File,
    io::{ErrorKind, Read},
    os::fd::OwnedFd,
    os::unix::fs::FileExt as _,
};

use bytes::Bytes;

use super::{
    Error,
    digest::Summary,
    entry::{DeviceNumber, FILE_BYTES_MAX, Kind, Metadata, Timestamp, check_name, check_target},
    error::show,
    pax::{Extensions, PAX_BYTES_MAX},
    receive::{Limits, Progress},
    send::scan,
    tar_header::{BLOCK, Fields, padding},
    tar_sparse::{MapReader, OldMap, SparseMap},
    writer::TreeWriter,
};

/// Longest path in a GNU long name.
const LONG_NAME_BYTES_MAX: u64 = 1 << 20;
/// Most padding behind the end marker: far above any record size.
const TAIL_BYTES_MAX: u64 = 64 << 20;
/// Bytes read and written at once; a stretch of zeros of this size becomes a hole.
const BUFFER_BYTES: usize = 256 * 1024;

/// Reads a whole archive into an empty directory, brings it to disk, and returns the summary of a second look at all of it.
///
/// # Errors
/// [`Error::Archive`] and [`Error::ArchiveTruncated`] for the archive, [`Error::ArchiveIo`] when `input` fails,
/// [`Error::NotEmpty`], [`Error::NoSpace`], [`Error::TooLarge`], [`Error::NotKept`], [`Error::Io`]. After any of them the
/// directory holds a part of a volume that must not be used.
pub fn read_tar(
    root: OwnedFd,
    input: &mut dyn Read,
    limits: &Limits,
    on_progress: &mut dyn FnMut(Progress),
) -> Result<Summary, Error> {
    let mut import = Import {
        input: Input { reader: input, offset: 0 },
        writer: TreeWriter::begin(root)?,
        limits: *limits,
        progress: Progress::default(),
        data_bytes: 0,
        member: Vec::new(),
        buffer: vec![0; BUFFER_BYTES],
    };
    let mut extensions = Extensions::default();
    while let Some(block) = import.header_block()? {
        let fields = Fields::decode(&block).map_err(|problem| import.refused(problem))?;
        if import.extension(&fields, &mut extensions)? {
            continue;
        }
        import.member(&block, fields, std::mem::take(&mut extensions))?;
        on_progress(import.progress);
    }
    if !extensions.is_empty() {
        return Err(import.refused("an extended header is followed by no member"));
    }
    import.tail()?;
    import.writer.finish()?;
    scan(import.writer.into_root())
}

/// How much of an archive [`check_archive_start`] wants to see.
pub const ARCHIVE_START_BYTES: usize = BLOCK;

/// Refuses what cannot be the beginning of a tar archive, before anything is replaced by it. An archive that passes may still
/// turn out to be damaged further on.
pub fn check_archive_start(start: &[u8]) -> Result<(), Error> {
    let Some(block) = start.first_chunk::<BLOCK>() else {
        return Err(Error::ArchiveTruncated { offset: start.len() as u64 });
    };
    // An empty archive begins with its end mark.
    if block.iter().all(|byte| *byte == 0) {
        return Ok(());
    }
    Fields::decode(block).map(drop).map_err(|problem| Error::Archive { offset: 0, path: String::new(), problem })
}

/// The archive as blocks, with the position for messages.
struct Input<'a> {
    reader: &'a mut dyn Read,
    offset: u64,
}

impl Input<'_> {
    /// Fills as much as there is; less than asked for only at the end.
    fn fill(&mut self, buffer: &mut [u8]) -> Result<usize, Error> {
        let mut filled = 0;
        while filled < buffer.len() {
            match self.reader.read(&mut buffer[filled..]) {
                Ok(0) => break,
                Ok(count) => filled += count,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(source) => return Err(Error::ArchiveIo { action: "read", source }),
            }
        }
        self.offset += filled as u64;
        Ok(filled)
    }

    fn exactly(&mut self, buffer: &mut [u8]) -> Result<(), Error> {
        if self.fill(buffer)? < buffer.len() {
            return Err(Error::ArchiveTruncated { offset: self.offset });
        }
        Ok(())
    }

    fn block(&mut self) -> Result<[u8; BLOCK], Error> {
        let mut block = [0; BLOCK];
        self.exactly(&mut block)?;
        Ok(block)
    }
}

struct Import<'a> {
    input: Input<'a>,
    writer: TreeWriter,
    limits: Limits,
    progress: Progress,
    data_bytes: u64,
    /// Name of the member at hand, for messages.
    member: Vec<u8>,
    buffer: Vec<u8>,
}

impl Import<'_> {
    fn refused(&self, problem: &'static str) -> Error {
        let path = if self.member.is_empty() { String::new() } else { show(&self.member) };
        Error::Archive { offset: self.input.offset, path, problem }
    }

    fn check<T>(&self, result: Result<T, &'static str>) -> Result<T, Error> {
        result.map_err(|problem| self.refused(problem))
    }

    /// The next header; `None` at the end marker, which is two blocks of zeros.
    fn header_block(&mut self) -> Result<Option<[u8; BLOCK]>, Error> {
        let block = self.input.block()?;
        if block != [0; BLOCK] {
            return Ok(Some(block));
        }
        if self.input.block()? != [0; BLOCK] {
            return Err(self.refused("there is a single block of zeros among its members"));
        }
        Ok(None)
    }

    /// Whatever follows the end marker must be padding.
    fn tail(&mut self) -> Result<(), Error> {
        let mut buffer = std::mem::take(&mut self.buffer);
        let start = self.input.offset;
        loop {
            let count = self.input.fill(&mut buffer)?;
            if count == 0 {
                return Ok(());
            }
            if !is_zero(&buffer[..count]) || self.input.offset - start > TAIL_BYTES_MAX {
                return Err(self.refused("something follows its end marker"));
            }
        }
    }

    /// Takes a header that only says something about the next member; false when it is a member itself.
    fn extension(&mut self, fields: &Fields, extensions: &mut Extensions) -> Result<bool, Error> {
        match fields.letter {
            b'x' | b'X' => {
                let records = self.small(fields.size, PAX_BYTES_MAX)?;
                let read = extensions.read(&records);
                self.check(read)?;
            }
            b'g' => {
                let records = self.small(fields.size, PAX_BYTES_MAX)?;
                let mut all = Extensions::default();
                let read = all.read(&records);
                self.check(read)?;
                if !all.is_empty() {
                    return Err(self.refused("a header for all members says what only a single one may"));
                }
            }
            b'L' => extensions.path = Some(self.long_name(fields.size)?),
            b'K' => extensions.link_path = Some(self.long_name(fields.size)?),
            // A volume label of GNU tar.
            b'V' => self.check(if fields.size == 0 { Ok(()) } else { Err("a volume label has content") })?,
            _ => return Ok(false),
        }
        Ok(true)
    }

    fn long_name(&mut self, size: u64) -> Result<Bytes, Error> {
        let name = self.small(size, LONG_NAME_BYTES_MAX)?;
        let end = name.iter().position(|byte| *byte == 0).unwrap_or(name.len());
        Ok(name.slice(..end))
    }

    /// Content that is kept in memory.
    fn small(&mut self, size: u64, most: u64) -> Result<Bytes, Error> {
        if size > most {
            return Err(self.refused("an extended header is too large"));
        }
        let length = usize::try_from(size).unwrap_or(usize::MAX);
        let mut content = Vec::new();
        // Grows with what really comes, not with what the header claims.
        while content.len() < length {
            let start = content.len();
            content.resize(length.min(start + BUFFER_BYTES), 0);
            self.input.exactly(&mut content[start..])?;
        }
        self.skip_padding(size)?;
        Ok(Bytes::from(content))
    }

    fn skip_padding(&mut self, size: u64) -> Result<(), Error> {
        let mut block = [0; BLOCK];
        let length = usize::try_from(padding(size)).unwrap_or(0);
        self.input.exactly(&mut block[..length])
    }

    fn member(&mut self, block: &[u8; BLOCK], fields: Fields, mut extensions: Extensions) -> Result<(), Error> {
        self.progress.entries += 1;
        if self.progress.entries > self.limits.max_entries {
            return Err(Error::TooLarge { what: "entries", limit: self.limits.max_entries });
        }
        let name = extensions.sparse.name.take().or_else(|| extensions.path.take());
        self.member = name.map_or_else(|| fields.name.clone(), |name| name.to_vec());
        let path = self.check(components(&self.member))?;
        let size = extensions.size.unwrap_or(fields.size);
        let metadata = self.metadata(&fields, &mut extensions)?;
        let link_path = extensions.link_path.take().unwrap_or_else(|| Bytes::from(fields.link_name.clone()));
        if !matches!(fields.letter, b'0' | b'S') && size != 0 {
            return Err(self.refused("it has content, but is no regular file"));
        }
        if fields.letter == b'5' {
            self.go_to(&path)?;
            self.writer.set_directory_metadata(metadata);
            return Ok(());
        }
        let Some((name, directories)) = path.split_last() else {
            return Err(self.refused("the root is not a directory"));
        };
        self.go_to(directories)?;
        let device = || {
            let number = |value| u32::try_from(value).map_err(|_| "its device number is too large");
            Ok(DeviceNumber { major: number(fields.device_major)?, minor: number(fields.device_minor)? })
        };
        let kind = match fields.letter {
            b'0' | b'S' => return self.regular(name, block, size, &metadata, extensions),
            b'1' => return self.hard_link(name, &link_path),
            b'2' => {
                self.check(check_target(&link_path))?;
                Kind::Symlink { target: link_path }
            }
            b'3' => Kind::CharacterDevice(self.check(device())?),
            b'4' => Kind::BlockDevice(self.check(device())?),
            b'6' => Kind::Fifo,
            _ => return Err(self.refused("its type is not known (a part of a split or incremental archive?)")),
        };
        let created = self.writer.create_special(name, &kind, &metadata);
        created.map(drop).map_err(|error| self.explained(error))
    }

    fn metadata(&self, fields: &Fields, extensions: &mut Extensions) -> Result<Metadata, Error> {
        let owner = |value: u64| u32::try_from(value).map_err(|_| "its owner is not a valid number");
        let mtime = extensions.mtime.unwrap_or(Timestamp { seconds: fields.mtime, nanos: 0 });
        let metadata = Metadata {
            mode: fields.mode,
            uid: self.check(owner(extensions.uid.unwrap_or(fields.uid)))?,
            gid: self.check(owner(extensions.gid.unwrap_or(fields.gid)))?,
            mtime,
            xattrs: extensions.take_xattrs(),
        };
        self.check(metadata.check())?;
        Ok(metadata)
    }

    /// Makes the directory at `path` the current one. Missing ones are made, as tar always did; what is there and is not a
    /// directory ends the import, so that no name leads through a symbolic link.
    fn go_to(&mut self, path: &[Bytes]) -> Result<(), Error> {
        let common = self.writer.names().zip(path).take_while(|(here, there)| *here == &there[..]).count();
        while self.writer.depth() > common + 1 {
            self.writer.leave()?;
        }
        for name in &path[common..] {
            let entered = self.writer.enter_directory(name.clone());
            if !entered.map_err(|error| self.explained(error))? {
                let metadata = Metadata { mode: 0o755, ..Metadata::default() };
                self.writer.create_directory(name.clone(), metadata)?;
            }
        }
        Ok(())
    }

    fn hard_link(&mut self, name: &[u8], target: &[u8]) -> Result<(), Error> {
        let target = self.check(components(target))?;
        if target.is_empty() {
            return Err(self.refused("a hard link to the root"));
        }
        let linked = self.writer.create_link(&target.join(&b'/'), name);
        linked.map_err(|error| self.explained(error))
    }

    fn regular(
        &mut self,
        name: &[u8],
        block: &[u8; BLOCK],
        stored: u64,
        metadata: &Metadata,
        extensions: Extensions,
    ) -> Result<(), Error> {
        let mut map_bytes = 0;
        let sparse = &extensions.sparse;
        let map = if block[156] == b'S' {
            Some(self.old_map(block)?)
        } else if sparse.major == Some(1) && sparse.minor == Some(0) {
            let Some(real_size) = sparse.real_size else {
                return Err(self.refused("it has holes, but no size"));
            };
            let (map, length) = self.leading_map(real_size, stored)?;
            map_bytes = length;
            Some(map)
        } else if let (true, Some(real_size)) = (sparse.major.is_none_or(|major| major == 0), sparse.real_size) {
            Some(self.check(SparseMap::from_flat(&sparse.map, real_size))?)
        } else if sparse.is_empty() {
            None
        } else {
            return Err(self.refused("it has holes in a form that is not known"));
        };
        let (pieces, size) = match map {
            Some(map) => {
                let map = self.check(map.check(stored - map_bytes))?;
                (map.pieces, map.real_size)
            }
            None => (vec![(0, stored)], stored),
        };
        if size > FILE_BYTES_MAX {
            return Err(self.refused("it is larger than any file system allows"));
        }
        let created = self.writer.create_file(name);
        let file = created.map_err(|error| self.explained(error))?;
        for (offset, length) in pieces {
            self.copy(name, &file, offset, length)?;
        }
        self.skip_padding(stored)?;
        file.set_len(size).map_err(|error| self.writer.failed("write the file", name, error))?;
        self.writer.finish_file(name, &file, metadata, size)?;
        self.progress.files += 1;
        self.progress.bytes += size;
        Ok(())
    }

    fn copy(&mut self, name: &[u8], file: &File, mut offset: u64, mut length: u64) -> Result<(), Error> {
        while length > 0 {
            let step = usize::try_from(length).unwrap_or(usize::MAX).min(self.buffer.len());
            let mut buffer = std::mem::take(&mut self.buffer);
            self.input.exactly(&mut buffer[..step])?;
            // Archives without maps of holes are full of zeros where the holes were.
            if step < BUFFER_BYTES || !is_zero(&buffer[..step]) {
                self.data_bytes += step as u64;
                if self.data_bytes > self.limits.max_bytes {
                    return Err(Error::TooLarge { what: "bytes of data", limit: self.limits.max_bytes });
                }
                file.write_all_at(&buffer[..step], offset)
                    .map_err(|error| self.writer.failed("write the file", name, error))?;
            }
            self.buffer = buffer;
            offset += step as u64;
            length -= step as u64;
        }
        Ok(())
    }

    /// The map in the header and the blocks behind it.
    fn old_map(&mut self, block: &[u8; BLOCK]) -> Result<SparseMap, Error> {
        let mut map = OldMap::default();
        let header = map.header(block);
        let mut more = self.check(header)?;
        while more {
            let next = map.more(&self.input.block()?);
            more = self.check(next)?;
        }
        Ok(map.finish())
    }

    /// The map in front of the data, and how many of the stored bytes it takes.
    fn leading_map(&mut self, real_size: u64, stored: u64) -> Result<(SparseMap, u64), Error> {
        let mut map = MapReader::default();
        let mut length = 0;
        loop {
            length += BLOCK as u64;
            if length > stored {
                return Err(self.refused("its map of holes is longer than itself"));
            }
            let complete = map.block(&self.input.block()?);
            if self.check(complete)? {
                let map = self.check(map.finish(real_size))?;
                return Ok((map, length));
            }
        }
    }

    /// Turns what the file system says about a hostile name into what the archive did.
    fn explained(&self, error: Error) -> Error {
        use rustix::io::Errno;
        let Error::Io { source, .. } = &error else { return error };
        match Errno::from_io_error(source) {
            Some(Errno::EXIST) => self.refused("it is in the archive twice"),
            Some(Errno::NOTDIR | Errno::LOOP) => {
                self.refused("its path leads through something that is not a directory")
            }
            Some(Errno::NOENT) => self.refused("a hard link names nothing that came before it"),
            Some(Errno::PERM) => self.refused("a hard link names a directory"),
            _ => error,
        }
    }
}

/// The components of a path in an archive, `.` and doubled slashes left out.
fn components(path: &[u8]) -> Result<Vec<Bytes>, &'static str> {
    if path.starts_with(b"/") {
        return Err("its path is absolute");
    }
    let mut components = Vec::new();
    for component in path.split(|byte| *byte == b'/').filter(|component| !matches!(*component, b"" | b".")) {
        check_name(component)?;
        components.push(Bytes::copy_from_slice(component));
    }
    if path.is_empty() { Err("its path is empty") } else { Ok(components) }
}

fn is_zero(bytes: &[u8]) -> bool {
    // In wide words: this looks at every byte of an archive.
    let (words, rest) = bytes.as_chunks::<16>();
    words.iter().all(|word| u128::from_ne_bytes(*word) == 0) && rest.iter().all(|byte| *byte == 0)
}
