//! Volumes to measure with, made from a seed: the same bytes on every machine.

use std::{
    fs::{self, File},
    io::Write as _,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, utimensat};

/// What people keep at home: many small files, few large ones, in some thousand directories.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Shape {
    pub(crate) files: u32,
    pub(crate) bytes: u64,
}

const GIB: u64 = 1 << 30;

/// 60,000 files, about 1 GiB.
pub(crate) const S: Shape = Shape { files: 60_000, bytes: GIB };
/// As many files with ten times the bytes.
pub(crate) const S_BYTES: Shape = Shape { files: 60_000, bytes: 10 * GIB };
/// Ten times the files in as many bytes.
pub(crate) const S_FILES: Shape = Shape { files: 600_000, bytes: GIB };
/// Four files of 512 MiB, every other one incompressible.
const L_FILES: u32 = 4;
const L_FILE_BYTES: u64 = GIB / 2;

const FILES_PER_DIRECTORY: u32 = 15;
/// One name in so many is a symbolic link.
const LINK_EVERY: u32 = 40;
/// 2023: so long ago that no time looks like a change of just now.
const LONG_AGO_SECONDS: i64 = 1_690_000_000;
const PIECE_BYTES: usize = 1 << 20;

const WORDS: [&str; 16] = [
    "feather", "server", "tenant", "volume", "return", "import", "function", "the", "of", "and", "value", "const",
    "error", "result", "    ", "\n",
];

/// Bytes to write: every other stretch is noise, the rest reads like source code.
struct Matter {
    noise: Vec<u8>,
    text: Vec<u8>,
}

impl Matter {
    fn new(random: &mut StdRng) -> Self {
        let mut noise = vec![0; PIECE_BYTES + 4096];
        random.fill(&mut noise[..]);
        let mut text = Vec::with_capacity(PIECE_BYTES + 4096);
        while text.len() < PIECE_BYTES + 4096 {
            text.extend(WORDS[random.random_range(0..WORDS.len())].as_bytes());
            text.push(b' ');
        }
        Self { noise, text }
    }

    fn write(&self, file: &mut File, length: u64, noisy: bool, random: &mut StdRng) -> std::io::Result<()> {
        let from = if noisy { &self.noise } else { &self.text };
        let mut left = length;
        while left > 0 {
            let start = random.random_range(0..4096);
            let now = usize::try_from(left).unwrap_or(PIECE_BYTES).min(PIECE_BYTES);
            file.write_all(&from[start..start + now])?;
            left -= now as u64;
        }
        Ok(())
    }
}

/// Makes a home directory below `root`, which exists.
pub(crate) fn small_files(root: &Path, shape: Shape, seed: u64) -> anyhow::Result<()> {
    let mut random = StdRng::seed_from_u64(seed);
    let matter = Matter::new(&mut random);
    let mut directories = vec![root.to_owned()];
    for _ in 0..shape.files / FILES_PER_DIRECTORY {
        let above = directories[random.random_range(0..directories.len())].clone();
        let path = above.join(format!("d{}", directories.len()));
        fs::create_dir(&path).with_context(|| format!("making {}", path.display()))?;
        directories.push(path);
    }
    // The mean of 4^u for u in 0..6 is 492 times the smallest: half of all files hold less than a seventh of the mean.
    let smallest = shape.bytes as f64 / f64::from(shape.files) / 492.4;
    for number in 0..shape.files {
        let directory = &directories[random.random_range(0..directories.len())];
        let path = directory.join(format!("file-{number}"));
        if number % LINK_EVERY == 0 {
            symlink(format!("file-{}", number + 1), &path)?;
        } else {
            let exponent: f64 = random.random_range(0.0..6.0);
            let length = (smallest * 4_f64.powf(exponent)) as u64;
            let mut file = File::create_new(&path).with_context(|| format!("making {}", path.display()))?;
            matter.write(&mut file, length, number % 2 == 0, &mut random)?;
        }
        age(&path, i64::from(number))?;
    }
    directories.iter().rev().try_for_each(|path| age(path, 0))
}

/// Makes the large files below `root`.
pub(crate) fn large_files(root: &Path, seed: u64) -> anyhow::Result<()> {
    let mut random = StdRng::seed_from_u64(seed);
    let matter = Matter::new(&mut random);
    for number in 0..L_FILES {
        let path = root.join(format!("large-{number}"));
        let mut file = File::create_new(&path)?;
        if number % 2 == 0 {
            // Noise that repeats would be no noise.
            let mut piece = vec![0; PIECE_BYTES];
            for _ in 0..L_FILE_BYTES / PIECE_BYTES as u64 {
                random.fill(&mut piece[..]);
                file.write_all(&piece)?;
            }
        } else {
            matter.write(&mut file, L_FILE_BYTES, false, &mut random)?;
        }
        age(&path, 0)?;
    }
    Ok(())
}

/// Changes one file in a hundred: most are written anew, some grow, some go, some come.
pub(crate) fn change(root: &Path, seed: u64) -> anyhow::Result<()> {
    let mut random = StdRng::seed_from_u64(seed);
    let matter = Matter::new(&mut random);
    let mut files = Vec::new();
    regular_files(root, &mut files)?;
    files.sort();
    for number in 0..files.len() / 100 {
        let path = &files[random.random_range(0..files.len())];
        let Ok(metadata) = fs::metadata(path) else { continue };
        match number % 10 {
            0 => fs::remove_file(path)?,
            1 => matter.write(&mut File::options().append(true).open(path)?, 1000, false, &mut random)?,
            2 => {
                let beside = path.with_extension(format!("new-{seed}-{number}"));
                matter.write(&mut File::create(beside)?, metadata.len(), true, &mut random)?;
            }
            _ => matter.write(&mut File::create(path)?, metadata.len(), number % 2 == 0, &mut random)?,
        }
    }
    Ok(())
}

fn regular_files(directory: &Path, found: &mut Vec<PathBuf>) -> anyhow::Result<()> {
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        match entry.file_type()? {
            kind if kind.is_dir() => regular_files(&entry.path(), found)?,
            kind if kind.is_file() => found.push(entry.path()),
            _ => {}
        }
    }
    Ok(())
}

/// Sets a modification time of long ago.
fn age(path: &Path, seconds: i64) -> anyhow::Result<()> {
    let time = Timespec { tv_sec: LONG_AGO_SECONDS + seconds, tv_nsec: 123_456_789 };
    let times = Timestamps { last_access: time, last_modification: time };
    utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW).with_context(|| format!("ageing {}", path.display()))
}
