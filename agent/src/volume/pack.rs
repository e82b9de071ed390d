//! Frames made smaller for a link that is slower than the disk.
//!
//! Owns the judgement when that helps, which is pure and fed with durations, and the compression itself. Nothing is packed while
//! the link takes frames as fast as they are read: the queue before it is not full then. Nor while the receiver says that it is
//! its disk that frames wait for. Otherwise, packing is worth its time if reading and packing together are still clearly faster
//! than the link with the smaller frames. Both rates are measured all the while, so a link that changes is met by another
//! answer. What does not shrink is noticed and left alone for a while. (`docs/decisions/0038-packed-for-slow-links.md`)

use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use tokio::{
    sync::mpsc::{Sender, error::TrySendError},
    time::Instant,
};
use zstd::bulk::{Compressor, Decompressor};

use super::{Error, Frame, Trailer, wire};

/// The fastest level that always helps text: a link that is worth more effort is one that nobody moves volumes over.
const LEVEL: i32 = 1;
/// Smaller frames are not worth a thought.
const PLAIN_MIN_BYTES: usize = 4096;
/// What a frame may be after unpacking: a batch of 2 MiB and its envelope.
const UNPACKED_BYTES_MAX: usize = 3 << 20;

/// What a receiver says of itself while it receives.
#[derive(Debug, Clone, Default)]
pub struct Pace(Arc<AtomicBool>);

impl Pace {
    /// Whether frames wait for its disk.
    pub fn set_behind(&self, behind: bool) {
        self.0.store(behind, Ordering::Relaxed);
    }

    fn is_behind(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// Whether frames wait for the disk of this end: most of the last ones found the queue full, or most did not.
#[derive(Debug, Default)]
pub(super) struct Gauge {
    share: f64,
    behind: bool,
}

impl Gauge {
    /// A frame came; true when the answer has changed.
    pub(super) fn note(&mut self, queue_is_full: bool) -> bool {
        self.share += (f64::from(u8::from(queue_is_full)) - self.share) / 16.0;
        let now = if self.behind { self.share > 0.25 } else { self.share > 0.75 };
        std::mem::replace(&mut self.behind, now) != now
    }

    /// The answer.
    pub(super) fn is_behind(&self) -> bool {
        self.behind
    }
}

/// A frame on its way, packed or not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Parcel {
    /// As it is.
    Plain(Frame),
    /// Its message, compressed.
    Packed {
        /// A zstd frame.
        data: Bytes,
        /// Bytes of the message.
        size: u32,
    },
}

impl Parcel {
    /// About how many bytes it takes on the wire.
    #[must_use]
    pub fn weight(&self) -> usize {
        match self {
            Self::Plain(frame) => frame.weight(),
            Self::Packed { data, .. } => data.len() + 16,
        }
    }

    /// The end of the stream, which is never packed.
    #[must_use]
    pub fn trailer(&self) -> Option<&Trailer> {
        match self {
            Self::Plain(Frame::Trailer(trailer)) => Some(trailer),
            _ => None,
        }
    }

    /// The frame.
    ///
    /// # Errors
    /// [`Error::Malformed`]: what was packed is no frame, is packed itself, or does not have the size that the parcel says.
    pub fn open(self) -> Result<Frame, Error> {
        match self {
            Self::Plain(frame) => Ok(frame),
            Self::Packed { data, size } => unpack(&data, size),
        }
    }

    fn pack(frame: &Frame, zstd: &mut Compressor<'_>) -> Option<Self> {
        let message = wire::encoded(frame.clone());
        let data = zstd.compress(&message).ok()?;
        Some(Self::Packed { data: data.into(), size: u32::try_from(message.len()).ok()? })
    }
}

/// The frame in a packed one's bytes.
fn unpack(data: &[u8], size: u32) -> Result<Frame, Error> {
    let bad = |problem| Error::Malformed { problem };
    let size = usize::try_from(size).ok().filter(|size| *size <= UNPACKED_BYTES_MAX);
    let size = size.ok_or_else(|| bad("a packed frame is larger than any frame may be"))?;
    let mut zstd = Decompressor::new().map_err(|error| Error::io("unpack", b"", error))?;
    let message = zstd.decompress(data, size).map_err(|_| bad("a packed frame cannot be unpacked"))?;
    if message.len() != size {
        return Err(bad("a packed frame is smaller than it says"));
    }
    wire::decoded(message)
}

/// An average that forgets, over bytes rather than over frames: a small frame says little.
#[derive(Debug, Clone, Copy, Default)]
struct Rate {
    nanoseconds: f64,
    bytes: f64,
}

impl Rate {
    fn note(&mut self, took: Duration, bytes: usize) {
        #[allow(clippy::cast_precision_loss, reason = "an estimate")]
        let (nanoseconds, bytes) = (took.as_nanos() as f64, bytes as f64);
        self.nanoseconds += nanoseconds - self.nanoseconds / 8.0;
        self.bytes += bytes - self.bytes / 8.0;
    }

    /// Nanoseconds for each byte, once something is known.
    fn mean(self) -> Option<f64> {
        (self.bytes > 0.0).then(|| self.nanoseconds / self.bytes)
    }
}

/// Whether the next frame is worth packing. Pure: all it knows is what it is told.
#[derive(Debug, Default)]
struct Judge {
    /// Of a plain byte.
    reading: Rate,
    /// Of a byte on the wire, while frames wait for it.
    link: Rate,
    /// Of a plain byte.
    packing: Rate,
    /// Share of its bytes that a packed frame saved.
    saved: f64,
    /// Frames to let pass before the next try, and tries in a row that saved nothing.
    rest: u32,
    misses: u32,
    /// Frames since packing was last tried.
    untried: u32,
}

impl Judge {
    /// A frame that saves less than this was not worth it.
    const SAVED_MIN: f64 = 0.125;
    /// Packing has to make the whole faster by this, so that an estimate that is a bit off never slows it down.
    const GAIN: f64 = 0.8;
    /// After so many frames the cost of packing is measured again, whatever it was.
    const FORGET: u32 = 256;
    const REST_MAX_EXPONENT: u32 = 6;

    /// Asked when a frame has to wait for the link.
    fn worth(&mut self) -> bool {
        self.untried += 1;
        if self.rest > 0 {
            self.rest -= 1;
            return false;
        }
        let (Some(link), Some(reading)) = (self.link.mean(), self.reading.mean()) else { return false };
        let Some(packing) = self.packing.mean().filter(|_| self.untried < Self::FORGET) else { return true };
        let plain = link.max(reading);
        let packed = (reading + packing).max(link * (1.0 - self.saved));
        packed < plain * Self::GAIN
    }

    /// What a try has cost and brought.
    fn tried(&mut self, took: Duration, plain: usize, packed: usize) -> bool {
        #[allow(clippy::cast_precision_loss, reason = "an estimate")]
        let saved = 1.0 - packed as f64 / plain.max(1) as f64;
        self.untried = 0;
        if saved < Self::SAVED_MIN {
            self.rest = 1 << self.misses.min(Self::REST_MAX_EXPONENT);
            self.misses += 1;
            return false;
        }
        let first = self.packing.mean().is_none();
        self.packing.note(took, plain);
        self.saved = if first { saved } else { self.saved + (saved - self.saved) / 8.0 };
        self.misses = 0;
        true
    }
}

/// Sends frames, packed where that helps.
pub(super) struct Packer<'a> {
    out: &'a Sender<Result<Parcel, Error>>,
    /// `None` when the receiver takes plain frames only.
    zstd: Option<(Compressor<'static>, Pace)>,
    judge: Judge,
    /// Weights of what lies in the queue when it is full, the oldest first.
    queued: VecDeque<usize>,
    /// When the last frame was handed over, and whether it had to wait.
    last: Instant,
    waited: bool,
}

impl<'a> Packer<'a> {
    pub(super) fn new(out: &'a Sender<Result<Parcel, Error>>, packs: Option<Pace>) -> Self {
        let zstd = packs.and_then(|pace| Some((Compressor::new(LEVEL).ok()?, pace)));
        let queued = VecDeque::with_capacity(out.max_capacity() + 1);
        Self { out, zstd, judge: Judge::default(), queued, last: Instant::now(), waited: false }
    }

    /// Hands a frame over, and waits until there is room for it.
    ///
    /// # Errors
    /// [`Error::Cancelled`] when nobody takes frames any more.
    pub(super) fn send(&mut self, frame: Frame) -> Result<(), Error> {
        let weight = frame.weight();
        self.judge.reading.note(self.last.elapsed(), weight);
        let (weight, waited) = match self.out.try_send(Ok(Parcel::Plain(frame))) {
            Ok(()) => (weight, false),
            Err(TrySendError::Full(Ok(Parcel::Plain(frame)))) => {
                let parcel = self.parcel(frame);
                let weight = parcel.weight();
                self.out.blocking_send(Ok(parcel)).map_err(|_| Error::Cancelled)?;
                (weight, true)
            }
            Err(_) => return Err(Error::Cancelled),
        };
        let now = Instant::now();
        if waited
            && self.waited
            && let Some(drained) = self.queued.front()
        {
            self.judge.link.note(now - self.last, *drained);
        }
        self.queued.push_back(weight);
        if self.queued.len() > self.out.max_capacity() {
            self.queued.pop_front();
        }
        (self.last, self.waited) = (now, waited);
        Ok(())
    }

    fn parcel(&mut self, frame: Frame) -> Parcel {
        let weight = frame.weight();
        let packs = matches!(frame, Frame::Batch(_) | Frame::Chunk(_)) && weight >= PLAIN_MIN_BYTES;
        let mut may = self.zstd.as_mut().filter(|(_, pace)| packs && !pace.is_behind());
        let Some((zstd, _)) = may.take_if(|_| self.judge.worth()) else {
            return Parcel::Plain(frame);
        };
        let began = Instant::now();
        match Parcel::pack(&frame, zstd) {
            Some(packed) if self.judge.tried(began.elapsed(), weight, packed.weight()) => packed,
            _ => Parcel::Plain(frame),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{Gauge, Judge, unpack};
    use crate::volume::Error;

    const MIB: usize = 1 << 20;

    /// Milliseconds for each MiB.
    fn judge(reading: u64, link: u64) -> Judge {
        let mut judge = Judge::default();
        judge.reading.note(Duration::from_millis(reading), MIB);
        judge.link.note(Duration::from_millis(link), MIB);
        judge
    }

    fn packs(judge: &mut Judge, milliseconds: u64, packed: usize) -> bool {
        judge.worth() && judge.tried(Duration::from_millis(milliseconds), MIB, packed)
    }

    #[test]
    fn a_slow_link_gets_packed_frames_and_a_fast_one_does_not() {
        let mut slow = judge(1, 80);
        let mut fast = judge(1, 3);
        // One try each: nobody knows before what packing costs.
        for judge in [&mut slow, &mut fast] {
            assert!(packs(judge, 3, MIB / 3));
        }
        for _ in 0..100 {
            assert!(packs(&mut slow, 3, MIB / 3));
            assert!(!fast.worth());
        }
    }

    #[test]
    fn nothing_is_packed_before_the_link_was_measured() {
        let mut judge = Judge::default();
        judge.reading.note(Duration::from_millis(1), MIB);
        assert!(!judge.worth());
    }

    #[test]
    fn a_link_that_slows_down_is_met_with_packing() {
        let mut judge = judge(1, 3);
        assert!(packs(&mut judge, 3, MIB / 3));
        assert!(!judge.worth());
        for _ in 0..30 {
            judge.link.note(Duration::from_millis(100), MIB);
        }
        assert!(judge.worth());
        for _ in 0..60 {
            judge.link.note(Duration::from_millis(2), MIB);
        }
        assert!(!judge.worth(), "and it is fast again");
    }

    #[test]
    fn a_receiver_is_behind_when_most_frames_find_its_queue_full() {
        let mut gauge = Gauge::default();
        let changes = |gauge: &mut Gauge, full| (0..100).filter(|_| gauge.note(full)).count();
        assert_eq!((changes(&mut gauge, true), gauge.is_behind()), (1, true));
        assert!(!gauge.note(false) && !gauge.note(true), "a single frame says nothing");
        assert_eq!((changes(&mut gauge, false), gauge.is_behind()), (1, false));
    }

    #[test]
    fn what_does_not_shrink_is_tried_ever_less() {
        let mut judge = judge(1, 100);
        let tries = (0..1000).filter(|_| judge.worth() && !judge.tried(Duration::from_millis(1), MIB, MIB)).count();
        assert!((10..30).contains(&tries), "{tries} tries in 1,000 frames");
        // The first frame that shrinks again ends that.
        while !judge.worth() {}
        assert!(judge.tried(Duration::from_millis(3), MIB, MIB / 4));
        assert!(judge.worth());
    }

    #[test]
    fn a_cost_that_was_once_measured_too_high_is_measured_again() {
        let mut judge = judge(1, 80);
        assert!(packs(&mut judge, 5_000, MIB / 3));
        let waited = (0..1000).position(|_| judge.worth()).unwrap();
        assert!((200..300).contains(&waited), "{waited}");
    }

    #[test]
    fn a_parcel_that_is_no_frame_or_a_bomb_is_refused() {
        let bomb = zstd::bulk::compress(&vec![0; 64 << 20], 1).unwrap();
        let refused = |data: &[u8], size| match unpack(data, size) {
            Err(Error::Malformed { problem }) => problem,
            other => panic!("{other:?}"),
        };
        assert!(bomb.len() < 10_000);
        assert_eq!(refused(&bomb, 64 << 20), "a packed frame is larger than any frame may be");
        assert_eq!(refused(&bomb, 1 << 20), "a packed frame cannot be unpacked");
        assert_eq!(refused(b"no zstd", 100), "a packed frame cannot be unpacked");
        let short = zstd::bulk::compress(&[0; 100], 1).unwrap();
        assert_eq!(refused(&short, 200), "a packed frame is smaller than it says");
        assert_eq!(refused(&short, 100), "a packed frame holds no message");
    }
}
