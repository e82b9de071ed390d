//! Extended headers of tar: records for what does not fit a header's fields.
//!
//! Owns their text form and bounds. Knows which keys mean what to a volume, and nothing of files.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::entry::{Timestamp, Xattr};

/// Largest extended header that is read: all attributes of an inode and a long path still fit.
pub(super) const PAX_BYTES_MAX: u64 = 4 << 20;
/// Prefix of the keys that carry extended attributes, shared by GNU tar, Go and star.
const XATTR: &[u8] = b"SCHILY.xattr.";

/// Records to be written in front of one member.
#[derive(Default)]
pub(super) struct Records {
    bytes: Vec<u8>,
}

impl Records {
    /// Appends one record: its own length in decimal, a space, key, `=`, value, a newline.
    pub(super) fn put(&mut self, key: &[u8], value: &[u8]) {
        let body = key.len() + value.len() + 3;
        let mut length = body + decimal_digits(body);
        // The length counts its own digits, which may have become one more.
        length = body + decimal_digits(length);
        self.bytes.extend(length.to_string().as_bytes());
        self.bytes.push(b' ');
        self.bytes.extend(key);
        self.bytes.push(b'=');
        self.bytes.extend(value);
        self.bytes.push(b'\n');
    }

    pub(super) fn put_number(&mut self, key: &str, value: u64) {
        self.put(key.as_bytes(), value.to_string().as_bytes());
    }

    pub(super) fn put_time(&mut self, key: &str, time: Timestamp) {
        self.put(key.as_bytes(), show_time(time).as_bytes());
    }

    /// An attribute; `=` and `%` in its name are escaped as GNU tar does, because a key ends at its first `=`.
    pub(super) fn put_xattr(&mut self, xattr: &Xattr) {
        let mut key = XATTR.to_vec();
        for byte in &xattr.name {
            match byte {
                b'=' => key.extend(b"%3D"),
                b'%' => key.extend(b"%25"),
                other => key.push(*other),
            }
        }
        self.put(&key, &xattr.value);
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }
}

fn decimal_digits(number: usize) -> usize {
    number.to_string().len()
}

/// What an extended header says about the member that follows.
#[derive(Debug, Default)]
pub(super) struct Extensions {
    pub(super) path: Option<Bytes>,
    pub(super) link_path: Option<Bytes>,
    pub(super) size: Option<u64>,
    pub(super) uid: Option<u64>,
    pub(super) gid: Option<u64>,
    pub(super) mtime: Option<Timestamp>,
    pub(super) xattrs: BTreeMap<Bytes, Bytes>,
    pub(super) sparse: SparseRecords,
}

/// The three ways in which GNU tar wrote sparse files in extended headers.
#[derive(Debug, Default)]
pub(super) struct SparseRecords {
    pub(super) major: Option<u64>,
    pub(super) minor: Option<u64>,
    pub(super) name: Option<Bytes>,
    pub(super) real_size: Option<u64>,
    /// Version 0.0 and 0.1: offset and length of each piece, flat.
    pub(super) map: Vec<u64>,
}

impl SparseRecords {
    pub(super) fn is_empty(&self) -> bool {
        self.major.is_none() && self.real_size.is_none() && self.map.is_empty()
    }
}

impl Extensions {
    /// Reads all records of one extended header.
    pub(super) fn read(&mut self, header: &Bytes) -> Result<(), &'static str> {
        let mut rest = header.clone();
        while !rest.is_empty() {
            let (key, value) = next_record(&mut rest).ok_or("a record of its extended header is malformed")?;
            self.record(&key, value)?;
        }
        Ok(())
    }

    fn record(&mut self, key: &Bytes, value: Bytes) -> Result<(), &'static str> {
        const NUMBER: &str = "a number in its extended header cannot be read";
        let number = || decimal(&value).map(Some).ok_or(NUMBER);
        match &key[..] {
            b"path" => self.path = Some(path(value)?),
            b"linkpath" => self.link_path = Some(path(value)?),
            b"size" => self.size = number()?,
            b"uid" => self.uid = number()?,
            b"gid" => self.gid = number()?,
            b"mtime" => self.mtime = Some(parse_time(&value).ok_or("its modification time cannot be read")?),
            b"GNU.sparse.major" => self.sparse.major = number()?,
            b"GNU.sparse.minor" => self.sparse.minor = number()?,
            b"GNU.sparse.name" => self.sparse.name = Some(path(value)?),
            b"GNU.sparse.realsize" | b"GNU.sparse.size" => self.sparse.real_size = number()?,
            b"GNU.sparse.offset" | b"GNU.sparse.numbytes" => {
                // They alternate, beginning with an offset.
                if self.sparse.map.len().is_multiple_of(2) != key.ends_with(b"offset") {
                    return Err("its map of holes is out of order");
                }
                self.sparse.map.push(decimal(&value).ok_or(NUMBER)?);
            }
            b"GNU.sparse.map" => {
                let map = value.split(|byte| *byte == b',').map(decimal).collect::<Option<Vec<_>>>();
                self.sparse.map = map.ok_or("its map of holes cannot be read")?;
            }
            _ if key.starts_with(b"SCHILY.acl.") => {
                return Err("it carries ACLs as text, with names of users; write it with --xattrs instead of --acls");
            }
            _ if key.starts_with(XATTR) => {
                let name = unescape(&key[XATTR.len()..]);
                if Xattr::travels(&name) {
                    self.xattrs.insert(name, value);
                }
            }
            // Access times, names of owners, comments: nothing that a volume keeps.
            _ => {}
        }
        Ok(())
    }

    /// Whether anything was said that is about a single member; a header for all members may not.
    pub(super) fn is_empty(&self) -> bool {
        let Self { path, link_path, size, uid, gid, mtime, xattrs, sparse } = self;
        path.is_none()
            && link_path.is_none()
            && size.is_none()
            && uid.is_none()
            && gid.is_none()
            && mtime.is_none()
            && xattrs.is_empty()
            && sparse.is_empty()
    }

    /// The attributes, ascending by name.
    pub(super) fn take_xattrs(&mut self) -> Vec<Xattr> {
        std::mem::take(&mut self.xattrs).into_iter().map(|(name, value)| Xattr { name, value }).collect()
    }
}

/// Splits the first record off; its length is trusted only as far as the header goes.
fn next_record(rest: &mut Bytes) -> Option<(Bytes, Bytes)> {
    let space = rest.iter().take(20).position(|byte| *byte == b' ')?;
    let length = usize::try_from(decimal(&rest[..space])?).ok()?;
    if length > rest.len() || length < space + 4 {
        return None;
    }
    let record = rest.split_to(length).slice(space + 1..);
    let record = record.strip_suffix(b"\n").map(|inner| record.slice_ref(inner))?;
    let equals = record.iter().position(|byte| *byte == b'=')?;
    (equals > 0).then(|| (record.slice(..equals), record.slice(equals + 1..)))
}

fn path(value: Bytes) -> Result<Bytes, &'static str> {
    if value.contains(&0) { Err("its path contains a NUL byte") } else { Ok(value) }
}

fn unescape(name: &[u8]) -> Bytes {
    let mut out = Vec::with_capacity(name.len());
    let mut rest = name;
    while let Some((first, tail)) = rest.split_first() {
        let (byte, next) = match rest {
            [b'%', b'3', b'D', next @ ..] => (b'=', next),
            [b'%', b'2', b'5', next @ ..] => (b'%', next),
            _ => (*first, tail),
        };
        out.push(byte);
        rest = next;
    }
    Bytes::from(out)
}

/// A number in decimal digits and nothing else.
pub(super) fn decimal(text: &[u8]) -> Option<u64> {
    let digits = !text.is_empty() && text.iter().all(u8::is_ascii_digit);
    digits.then(|| str::from_utf8(text).ok()?.parse().ok()).flatten()
}

/// Seconds with a fraction; before 1970 both count down, so -1.5 s is `-1.5` although it lies in second -2.
fn show_time(time: Timestamp) -> String {
    let Timestamp { seconds, nanos } = time;
    let (sign, whole, fraction) = match (seconds, nanos) {
        (0.., _) => ("", seconds.unsigned_abs(), nanos),
        (_, 0) => ("-", seconds.unsigned_abs(), 0),
        (_, _) => ("-", seconds.unsigned_abs() - 1, 1_000_000_000 - nanos),
    };
    if fraction == 0 { format!("{sign}{whole}") } else { format!("{sign}{whole}.{fraction:09}") }
}

fn parse_time(text: &[u8]) -> Option<Timestamp> {
    let (negative, text) = text.strip_prefix(b"-").map_or((false, text), |rest| (true, rest));
    let (whole, fraction) = match text.iter().position(|byte| *byte == b'.') {
        Some(point) => (&text[..point], &text[point + 1..]),
        None => (text, &b""[..]),
    };
    let seconds = i64::try_from(decimal(whole)?).ok()?;
    if !fraction.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let digit = |place: usize| u32::from(fraction.get(place).map_or(0, |digit| digit - b'0'));
    let nanos = (0..9).fold(0, |nanos, place| nanos * 10 + digit(place));
    Some(match (negative, nanos) {
        (false, _) => Timestamp { seconds, nanos },
        (true, 0) => Timestamp { seconds: -seconds, nanos },
        (true, _) => Timestamp { seconds: -seconds - 1, nanos: 1_000_000_000 - nanos },
    })
}
