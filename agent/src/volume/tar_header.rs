//! One 512-byte tar header: fields in, fields out.
//!
//! Owns numbers, checksums and the type letters. Knows nothing of names longer than a field, attributes and holes: those are
//! extensions, see `pax.rs` and `tar_sparse.rs`.

/// Headers and contents are padded to this.
pub(crate) const BLOCK: usize = 512;
/// Largest value that 11 octal digits hold: sizes and times above it need an extension.
pub(super) const OCTAL_11_MAX: u64 = 0o777_7777_7777;
/// Largest value that 7 octal digits hold: owners above it need an extension.
pub(super) const OCTAL_7_MAX: u64 = 0o777_7777;

/// Zeros that fill the last block of `length` bytes.
pub(crate) fn padding(length: u64) -> u64 {
    length.wrapping_neg() % BLOCK as u64
}

/// Fields of a header, as far as they are used here.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Fields {
    pub(crate) name: Vec<u8>,
    pub(crate) mode: u32,
    pub(crate) uid: u64,
    pub(crate) gid: u64,
    pub(crate) size: u64,
    pub(crate) mtime: i64,
    pub(crate) letter: u8,
    pub(crate) link_name: Vec<u8>,
    pub(crate) device_major: u64,
    pub(crate) device_minor: u64,
}

/// Where each field lies.
mod at {
    use std::ops::Range;

    pub(super) const NAME: Range<usize> = 0..100;
    pub(super) const MODE: Range<usize> = 100..108;
    pub(super) const UID: Range<usize> = 108..116;
    pub(super) const GID: Range<usize> = 116..124;
    pub(super) const SIZE: Range<usize> = 124..136;
    pub(super) const MTIME: Range<usize> = 136..148;
    pub(super) const CHECKSUM: Range<usize> = 148..156;
    pub(super) const LETTER: usize = 156;
    pub(super) const LINK_NAME: Range<usize> = 157..257;
    pub(super) const MAGIC: Range<usize> = 257..265;
    pub(super) const DEVICE_MAJOR: Range<usize> = 329..337;
    pub(super) const DEVICE_MINOR: Range<usize> = 337..345;
    pub(super) const PREFIX: Range<usize> = 345..500;
}

const MAGIC_POSIX: &[u8; 8] = b"ustar\x0000";
const MAGIC_GNU: &[u8; 8] = b"ustar  \0";

impl Fields {
    /// Whether name and link name fit their fields; else they go into an extension, and are cut here.
    pub(super) fn name_fits(name: &[u8]) -> bool {
        name.len() <= at::NAME.len()
    }

    /// Encodes as ustar; numbers too large for their field become 0 and need an extension record.
    pub(crate) fn encode(&self) -> [u8; BLOCK] {
        let mut block = [0; BLOCK];
        put_text(&mut block[at::NAME], &self.name);
        put_octal(&mut block[at::MODE], u64::from(self.mode));
        put_octal(&mut block[at::UID], self.uid);
        put_octal(&mut block[at::GID], self.gid);
        put_octal(&mut block[at::SIZE], self.size);
        put_octal(&mut block[at::MTIME], u64::try_from(self.mtime).unwrap_or(0));
        block[at::LETTER] = self.letter;
        put_text(&mut block[at::LINK_NAME], &self.link_name);
        block[at::MAGIC].copy_from_slice(MAGIC_POSIX);
        put_octal(&mut block[at::DEVICE_MAJOR], self.device_major);
        put_octal(&mut block[at::DEVICE_MINOR], self.device_minor);
        let sum = checksum(&block);
        // Six digits, a NUL and a space: the one field with its own form.
        let digits = format!("{sum:06o}\0 ");
        block[at::CHECKSUM].copy_from_slice(digits.as_bytes());
        block
    }

    /// Decodes a header of any tar since the seventh edition.
    pub(crate) fn decode(block: &[u8; BLOCK]) -> Result<Self, &'static str> {
        if block.starts_with(&[0x1f, 0x8b]) || block.starts_with(b"BZh") || block.starts_with(&[0x28, 0xb5, 0x2f, 0xfd])
        {
            return Err("it is compressed; decompress it first");
        }
        if number(&block[at::CHECKSUM]) != Some(u64::from(checksum(block))) {
            return Err("this is no tar header, or a damaged one (its checksum is wrong)");
        }
        let mut name = text(&block[at::NAME]).to_vec();
        if &block[at::MAGIC] == MAGIC_POSIX {
            let prefix = text(&block[at::PREFIX]);
            if !prefix.is_empty() {
                name = [prefix, b"/", &name].concat();
            }
        }
        let letter = match block[at::LETTER] {
            0 | b'7' if name.ends_with(b"/") => b'5',
            0 | b'7' => b'0',
            other => other,
        };
        let is_device = matches!(letter, b'3' | b'4');
        let has_magic = &block[at::MAGIC] == MAGIC_POSIX || &block[at::MAGIC] == MAGIC_GNU;
        let device = |field: &[u8]| if is_device && has_magic { number(field) } else { Some(0) };
        let fields = || {
            Some(Self {
                name,
                mode: u32::try_from(number(&block[at::MODE])? & 0o7777).ok()?,
                uid: number(&block[at::UID])?,
                gid: number(&block[at::GID])?,
                size: number(&block[at::SIZE])?,
                mtime: number(&block[at::MTIME])?.cast_signed(),
                letter,
                link_name: text(&block[at::LINK_NAME]).to_vec(),
                device_major: device(&block[at::DEVICE_MAJOR])?,
                device_minor: device(&block[at::DEVICE_MINOR])?,
            })
        };
        fields().ok_or("a number in its header cannot be read")
    }
}

/// Sum of all bytes, those of the checksum itself counted as spaces.
fn checksum(block: &[u8; BLOCK]) -> u32 {
    let sum = |bytes: &[u8]| bytes.iter().map(|byte| u32::from(*byte)).sum::<u32>();
    let spaces = 8 * u32::from(b' ');
    sum(&block[..at::CHECKSUM.start]) + spaces + sum(&block[at::CHECKSUM.end..])
}

fn put_text(field: &mut [u8], text: &[u8]) {
    let length = text.len().min(field.len());
    field[..length].copy_from_slice(&text[..length]);
}

fn put_octal(field: &mut [u8], value: u64) {
    let digits = field.len() - 1;
    let fits = value < 1 << (3 * digits);
    let text = format!("{:0digits$o}", if fits { value } else { 0 });
    field[..digits].copy_from_slice(text.as_bytes());
}

fn text(field: &[u8]) -> &[u8] {
    field.split(|byte| *byte == 0).next().unwrap_or_default()
}

/// A number in octal digits or, with its highest bit set, in binary (two's complement, so that times may be negative).
pub(super) fn number(field: &[u8]) -> Option<u64> {
    if let Some(first @ (0x80 | 0xff)) = field.first() {
        let (high, low) = field.split_at(field.len().saturating_sub(8).max(1));
        let filler = if *first == 0xff { 0xff } else { 0 };
        if high[1..].iter().any(|byte| *byte != filler) {
            return None;
        }
        let start = if filler == 0xff { u64::MAX } else { 0 };
        return Some(low.iter().fold(start, |value, byte| value << 8 | u64::from(*byte)));
    }
    let digits = field.trim_ascii_start();
    let digits = digits.split(|byte| matches!(byte, 0 | b' ')).next().unwrap_or_default();
    digits.iter().try_fold(0_u64, |value, digit| match digit {
        b'0'..=b'7' => value.checked_mul(8).map(|value| value + u64::from(digit - b'0')),
        _ => None,
    })
}
