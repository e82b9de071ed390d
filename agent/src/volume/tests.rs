//! The engine's promises, on real directories. They need root, as the agent does.

mod archive;
mod archive_hostile;
mod delta;
mod ends;
mod faults;
mod hostile;
mod round_trip;
mod tree;
mod wire;

use std::{os::fd::OwnedFd, path::Path, sync::Arc};

use super::{Error, Frame, Limits, Notes, Receiver, Summary, Volume, open_root, send};

fn open(path: &Path) -> OwnedFd {
    open_root(path).unwrap()
}

/// All frames of a volume.
fn frames_of(path: &Path) -> Vec<Frame> {
    let mut frames = Vec::new();
    let sent = send(open(path), &mut |frame| {
        frames.push(frame);
        Ok(())
    });
    sent.unwrap();
    frames
}

/// Pushes frames into an empty directory.
fn receive_into(path: &Path, limits: Limits, frames: impl IntoIterator<Item = Frame>) -> Result<Summary, Error> {
    let mut receiver = Receiver::new(open(path), limits)?;
    for frame in frames {
        receiver.push(frame)?;
    }
    receiver.finish()
}

/// A volume whose notes are in this directory.
fn noted(notes: &Path) -> Volume {
    Volume { name: "volume".to_owned(), notes: Arc::new(Notes::new(notes.to_owned())) }
}
