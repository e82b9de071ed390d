//! Passes that build on what is there: whatever that is, the end is the same data.

use std::{
    fs::{self, File},
    os::unix::fs::{FileExt as _, MetadataExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use proptest::prelude::*;
use tokio_util::sync::CancellationToken;

use super::{
    super::{
        BaseUse, Batch, Chunk, Digest, Error, Expect, Frame, Limits, Step, Summary, Trust, Volume, clear, ends::Told,
        entry::Timestamp, receive::Received, scan, stamp::Moment,
    },
    noted, open,
    tree::{allocated, assert_same, build, facts, volume},
};

/// One server's copy of a volume.
struct Side {
    data: tempfile::TempDir,
    _notes: tempfile::TempDir,
    volume: Volume,
}

impl Side {
    fn new() -> Self {
        let (data, notes) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let volume = noted(notes.path());
        Self { data, _notes: notes, volume }
    }

    fn path(&self) -> &Path {
        self.data.path()
    }

    fn file(&self, name: &str) -> PathBuf {
        self.path().join(name)
    }
}

/// Long enough after everything that happened, so that stamps prove something.
fn later() -> Moment {
    let Moment(now) = Moment::now();
    Moment(Timestamp { seconds: now.seconds + 60, ..now })
}

/// What a frame becomes on its way; `None` cuts the stream off.
type OnTheWay<'a> = &'a mut dyn FnMut(usize, Frame) -> Option<Frame>;

/// One pass, with all there is around it.
fn pass_with(
    from: &Side,
    to: &Side,
    expect: Expect,
    trust: Trust,
    moment: Moment,
    on_the_way: OnTheWay<'_>,
) -> Result<Received, Error> {
    let root = open(to.path());
    let base = to.volume.prepare(&root, trust, &CancellationToken::new())?;
    let mut parts = Vec::new();
    if base.is_some() {
        to.volume.list(&root, &mut |part| {
            parts.push(Ok(part));
            Ok(())
        })?;
    } else {
        clear(open(to.path()))?;
    }
    let mut parts = parts.into_iter();
    let told = Told { digest: base, listing: Box::new(move || parts.next()) };
    let mut receiver = to.volume.receiver(root, base, Limits::default())?;
    let mut count = 0;
    from.volume.send(open(from.path()), expect, moment, told, &mut |frame| {
        count += 1;
        match on_the_way(count - 1, frame) {
            Some(frame) => receiver.push(frame),
            None => Err(Error::Cancelled),
        }
    })?;
    let mut received = receiver.received()?;
    received.draft.take().unwrap().publish(&to.volume.notes, &to.volume.name);
    Ok(received)
}

fn pass(from: &Side, to: &Side, expect: Expect) -> Result<Received, Error> {
    pass_with(from, to, expect, Trust::LastPass, Moment::now(), &mut |_, frame| Some(frame))
}

/// A pass as an agent makes it: when its notes turn out to be wrong, it looks again.
fn pass_in_the_end(from: &Side, to: &Side, expect: Expect) -> Received {
    pass(from, to, expect)
        .or_else(|error| {
            assert!(matches!(error, Error::BaseLost { .. }), "{error:?}");
            pass_with(from, to, expect, Trust::Stamps, Moment::now(), &mut |_, frame| Some(frame))
        })
        .unwrap()
}

/// The frames of a pass that must succeed.
fn frames_between(from: &Side, to: &Side, moment: Moment) -> (Received, Vec<Frame>) {
    let mut frames = Vec::new();
    let received = pass_with(from, to, Expect::Still, Trust::LastPass, moment, &mut |_, frame| {
        frames.push(frame.clone());
        Some(frame)
    });
    (received.unwrap(), frames)
}

fn assert_equal(from: &Side, to: &Side, received: &Summary) {
    assert_same(&facts(from.path()), &facts(to.path()));
    assert!(scan(open(to.path())).unwrap().same_content(received));
}

fn weight(frames: &[Frame]) -> usize {
    frames.iter().map(Frame::weight).sum()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, ..ProptestConfig::default() })]

    #[test]
    fn any_volume_becomes_any_other(one in volume(), other in volume(), noted in any::<bool>()) {
        let (from, to) = (Side::new(), Side::new());
        build(&one, from.path());
        if noted {
            pass(&from, &to, Expect::Still).unwrap();
        } else {
            build(&one, to.path());
        }
        clear(open(from.path())).unwrap();
        build(&other, from.path());
        let received = pass(&from, &to, Expect::Still).unwrap();
        assert_equal(&from, &to, &received.summary);
        // And back, onto what is left there.
        fs::write(to.file("more"), b"more").unwrap();
        let back = pass_in_the_end(&to, &from, Expect::Still);
        assert_equal(&to, &from, &back.summary);
    }

    #[test]
    fn a_pass_that_was_cut_off_is_taken_up_again(one in volume(), other in volume(), at in any::<prop::sample::Index>()) {
        let (from, to) = (Side::new(), Side::new());
        build(&one, to.path());
        build(&other, from.path());
        let whole = super::frames_of(from.path()).len();
        let end = at.index(whole);
        let mut cut = |count, frame| (count < end).then_some(frame);
        let _ = pass_with(&from, &to, Expect::Still, Trust::LastPass, Moment::now(), &mut cut);
        let received = pass_in_the_end(&from, &to, Expect::Still);
        assert_equal(&from, &to, &received.summary);
    }

    #[test]
    fn damage_to_a_pass_is_refused_and_the_next_one_heals_it(
        one in volume(), other in volume(), at in any::<prop::sample::Index>(), bit in any::<prop::sample::Index>(), what in 0_u8..6,
    ) {
        let (from, to) = (Side::new(), Side::new());
        build(&one, from.path());
        pass(&from, &to, Expect::Still).unwrap();
        clear(open(from.path())).unwrap();
        build(&other, from.path());
        let place = at.index(4);
        let mut damaged = false;
        let done = pass_with(&from, &to, Expect::Still, Trust::LastPass, Moment::now(), &mut |count, frame| {
            if count < place || damaged {
                return Some(frame);
            }
            let worse = damage(frame.clone(), bit, what);
            damaged = worse != frame;
            Some(worse)
        });
        prop_assert!(done.is_err() || !damaged, "accepted");
        let received = pass_in_the_end(&from, &to, Expect::Still);
        assert_equal(&from, &to, &received.summary);
    }

    #[test]
    fn whatever_is_written_before_the_stop_is_carried(
        plant in volume(), deeds in prop::collection::vec((0_usize..12, any::<prop::sample::Index>(), 0_u8..10), 1..24), rounds in 1_usize..4,
    ) {
        let (from, to) = (Side::new(), Side::new());
        build(&plant, from.path());
        let mut deeds = deeds.into_iter().enumerate();
        for _ in 0..rounds {
            let mut during = |count, frame| {
                for (number, (_, which, deed)) in deeds.by_ref().take(2).filter(|(_, (when, ..))| *when >= count) {
                    disturb(from.path(), which, deed, number);
                }
                Some(frame)
            };
            // A live pass may fail under such hands; that must not matter.
            let _ = pass_with(&from, &to, Expect::Live, Trust::LastPass, Moment::now(), &mut during);
        }
        for (number, (_, which, deed)) in deeds.by_ref() {
            disturb(from.path(), which, deed, number);
        }
        let received = pass_in_the_end(&from, &to, Expect::Still);
        assert_equal(&from, &to, &received.summary);
    }
}

/// Changes one thing in a frame.
fn damage(frame: Frame, bit: prop::sample::Index, what: u8) -> Frame {
    match frame {
        Frame::Header(mut header) => {
            header.version += 1;
            Frame::Header(header)
        }
        Frame::Batch(Batch { mut steps }) => {
            let at = bit.index(steps.len());
            match (&mut steps[at], what) {
                (_, 0) => drop(steps.remove(at)),
                (Step::Keep(count) | Step::Drop(count), 1) => *count += 1,
                (Step::Keep(count) | Step::Drop(count), 2) => *count -= 1,
                (Step::Keep(count), _) => steps[at] = Step::Drop(*count),
                (Step::Drop(count), _) => steps[at] = Step::Keep(*count),
                (Step::Entry(entry), _) => entry.depth += 1,
            }
            Frame::Batch(Batch { steps })
        }
        Frame::Chunk(chunk) => Frame::Chunk(Chunk { end: Some(Digest([7; 32])), ..chunk }),
        Frame::Trailer(mut trailer) => {
            trailer.summary.root_digest.0[bit.index(32)] ^= 1;
            Frame::Trailer(trailer)
        }
    }
}

/// Something that a tenant might do.
fn disturb(root: &Path, which: prop::sample::Index, deed: u8, number: usize) {
    let all: Vec<_> = facts(root).into_iter().filter(|(path, _)| !path.as_os_str().is_empty()).collect();
    let fresh = root.join(format!("new-{number}"));
    if all.is_empty() || deed == 0 {
        fs::write(&fresh, vec![number as u8; number * 777]).unwrap();
        return;
    }
    let (path, seen) = &all[which.index(all.len())];
    let path = root.join(path);
    let write = || File::options().write(true).open(&path).unwrap();
    match (deed, seen.kind) {
        (1, 'f') => write().write_all_at(b"overwritten", seen.content.len() as u64 / 2).unwrap(),
        (2, 'f') => write().write_all_at(&vec![9; 300_000], seen.content.len() as u64).unwrap(),
        (3, 'f') => write().set_len(seen.content.len() as u64 / 3).unwrap(),
        (4, 'f') => fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap(),
        (5, 'f') => fs::hard_link(&path, &fresh).unwrap(),
        (6, 'f' | 'l' | 'p') => fs::remove_file(&path).unwrap(),
        (7, _) if seen.kind == 'd' => fs::create_dir(path.join(format!("new-{number}"))).unwrap_or_default(),
        (7, _) => {
            fs::remove_file(&path).unwrap();
            fs::create_dir(&path).unwrap();
        }
        (8, 'd') => fs::remove_dir_all(&path).unwrap(),
        (9, 'd') => {
            fs::remove_dir_all(&path).unwrap();
            fs::write(&path, b"a file where a directory was").unwrap();
        }
        _ => fs::rename(&path, &fresh).unwrap(),
    }
}

#[test]
fn an_untouched_volume_is_neither_read_nor_sent_again() {
    let (from, to) = (Side::new(), Side::new());
    fs::create_dir(from.file("folder")).unwrap();
    for index in 0..200 {
        fs::write(from.file(&format!("folder/{index}")), vec![7; 5000]).unwrap();
    }
    fs::write(from.file("large"), vec![7; 3 << 20]).unwrap();
    let (first, _) = frames_between(&from, &to, later());
    assert_eq!((first.trailer.files_read, first.changes.files_changed), (201, 201));
    let (second, frames) = frames_between(&from, &to, later());
    assert_eq!((second.trailer.files_read, second.changes.files_changed), (0, 0));
    assert_eq!(second.changes.bytes_reused, second.summary.bytes);
    let [Frame::Header(header), Frame::Batch(Batch { steps }), Frame::Trailer(_)] = &frames[..] else {
        panic!("{frames:?}")
    };
    assert_eq!((header.base, &steps[..]), (BaseUse::Shared, &[Step::Keep(203)][..]));
    assert_equal(&from, &to, &second.summary);
}

#[test]
fn what_changed_a_moment_ago_is_read_again_although_it_looks_the_same() {
    let (from, to) = (Side::new(), Side::new());
    fs::write(from.file("file"), b"one").unwrap();
    pass(&from, &to, Expect::Still).unwrap();
    let again = pass(&from, &to, Expect::Still).unwrap();
    assert_eq!((again.trailer.files_read, again.changes.files_changed), (1, 0));
}

#[test]
fn of_a_large_file_only_the_blocks_that_changed_travel() {
    let (from, to) = (Side::new(), Side::new());
    let content: Vec<u8> = (0..6_500_000_u32).map(|index| (index >> 8) as u8 ^ index as u8).collect();
    fs::write(from.file("database"), &content).unwrap();
    pass(&from, &to, Expect::Still).unwrap();
    let before = fs::metadata(to.file("database")).unwrap().ino();
    let file = File::options().write(true).open(from.file("database")).unwrap();
    file.write_all_at(b"changed", 2_500_000).unwrap();
    file.write_all_at(&[1; 100_000], 6_500_000).unwrap();
    let (received, frames) = frames_between(&from, &to, Moment::now());
    assert_equal(&from, &to, &received.summary);
    // One block amid, and the last two, of which one is new.
    assert!(weight(&frames) < (3 << 20) + 10_000, "{}", weight(&frames));
    assert_eq!(received.changes.bytes_reused, 5 << 20);
    assert_eq!(fs::metadata(to.file("database")).unwrap().ino(), before);
}

#[test]
fn a_block_that_became_a_hole_becomes_one_at_the_other_end() {
    let (from, to) = (Side::new(), Side::new());
    fs::write(from.file("disk"), vec![7; 8 << 20]).unwrap();
    pass(&from, &to, Expect::Still).unwrap();
    let file = File::options().write(true).open(from.file("disk")).unwrap();
    let punch = rustix::fs::FallocateFlags::PUNCH_HOLE | rustix::fs::FallocateFlags::KEEP_SIZE;
    rustix::fs::fallocate(&file, punch, 1 << 20, 6 << 20).unwrap();
    let (received, frames) = frames_between(&from, &to, Moment::now());
    assert_equal(&from, &to, &received.summary);
    assert!(weight(&frames) < 10_000);
    assert!(allocated(&to.file("disk")) <= 2 << 20);
}

#[test]
fn a_touched_file_costs_its_metadata_only() {
    let (from, to) = (Side::new(), Side::new());
    fs::write(from.file("file"), vec![7; 200_000]).unwrap();
    pass(&from, &to, Expect::Still).unwrap();
    fs::set_permissions(from.file("file"), fs::Permissions::from_mode(0o600)).unwrap();
    let (received, frames) = frames_between(&from, &to, Moment::now());
    assert!(weight(&frames) < 1000);
    assert_equal(&from, &to, &received.summary);
}

#[test]
fn after_a_cut_only_what_is_missing_travels() {
    let (from, to) = (Side::new(), Side::new());
    for index in 0..40 {
        fs::write(from.file(&format!("{index:02}")), vec![index; 1 << 20]).unwrap();
    }
    let whole = weight(&super::frames_of(from.path()));
    let mut sent = 0;
    let mut cut = |_, frame: Frame| {
        sent += frame.weight();
        (sent < whole / 2).then_some(frame)
    };
    pass_with(&from, &to, Expect::Live, Trust::LastPass, Moment::now(), &mut cut).unwrap_err();
    let (received, frames) = frames_between(&from, &to, Moment::now());
    assert!(weight(&frames) < whole / 2 + (2 << 20), "{} of {whole}", weight(&frames));
    assert_equal(&from, &to, &received.summary);
}

#[test]
fn what_somebody_else_changed_on_the_target_is_found_out_and_healed() {
    let tampering: [fn(&Side); 5] = [
        |to| fs::write(to.file("kept"), b"tampered").unwrap(),
        |to| fs::remove_file(to.file("kept")).unwrap(),
        |to| fs::write(to.file("stray"), b"stray").unwrap(),
        |to| fs::set_permissions(to.file("folder"), fs::Permissions::from_mode(0o777)).unwrap(),
        |to| {
            fs::remove_dir(to.file("folder")).unwrap();
            std::os::unix::fs::symlink("/etc", to.file("folder")).unwrap();
        },
    ];
    for tamper in tampering {
        let (from, to) = (Side::new(), Side::new());
        fs::write(from.file("kept"), b"original").unwrap();
        fs::create_dir(from.file("folder")).unwrap();
        pass(&from, &to, Expect::Still).unwrap();
        tamper(&to);
        assert!(matches!(pass(&from, &to, Expect::Still), Err(Error::BaseLost { .. })));
        let received = pass_in_the_end(&from, &to, Expect::Still);
        assert_equal(&from, &to, &received.summary);
    }
}

#[test]
fn a_socket_from_an_earlier_stay_is_in_nobodys_way() {
    let (from, to) = (Side::new(), Side::new());
    fs::write(from.file("service"), b"no socket any more").unwrap();
    drop(std::os::unix::net::UnixListener::bind(to.file("service")).unwrap());
    drop(std::os::unix::net::UnixListener::bind(to.file("other")).unwrap());
    let received = pass(&from, &to, Expect::Still).unwrap();
    assert_equal(&from, &to, &received.summary);
    assert!(!to.file("other").exists());
}

#[test]
fn a_full_directory_gives_way_to_anything_else() {
    let others: [fn(&Path); 4] = [
        |path| fs::write(path, b"a file").unwrap(),
        |path| std::os::unix::fs::symlink("elsewhere", path).unwrap(),
        |path| fs::create_dir(path).unwrap(),
        |path| fs::hard_link(path.with_file_name("a"), path).unwrap(),
    ];
    for other in others {
        let (from, to) = (Side::new(), Side::new());
        fs::write(from.file("a"), b"a").unwrap();
        fs::create_dir_all(from.file("place/below/it")).unwrap();
        fs::write(from.file("place/below/file"), b"below").unwrap();
        fs::write(from.file("place/last"), b"last").unwrap();
        fs::write(from.file("z"), b"z").unwrap();
        pass(&from, &to, Expect::Still).unwrap();
        fs::remove_dir_all(from.file("place")).unwrap();
        other(&from.file("place"));
        let received = pass(&from, &to, Expect::Still).unwrap();
        assert_equal(&from, &to, &received.summary);
    }
}

#[test]
fn a_look_that_is_stopped_ends_and_the_next_one_sees_everything() {
    let (from, to) = (Side::new(), Side::new());
    fs::write(from.file("file"), vec![7; 3 << 20]).unwrap();
    pass(&from, &to, Expect::Still).unwrap();
    let stopped = CancellationToken::new();
    stopped.cancel();
    let error = to.volume.prepare(&open(to.path()), Trust::Nothing, &stopped).unwrap_err();
    assert!(matches!(error, Error::Cancelled), "{error:?}");
    fs::write(from.file("file"), b"shorter").unwrap();
    let received = pass(&from, &to, Expect::Still).unwrap();
    assert_equal(&from, &to, &received.summary);
}

#[test]
fn notes_that_are_damaged_anywhere_are_not_believed() {
    for place in 0..40 {
        let (from, to) = (Side::new(), Side::new());
        for index in 0..50 {
            fs::write(from.file(&format!("{index}")), vec![7; 5000]).unwrap();
        }
        pass(&from, &to, Expect::Still).unwrap();
        for side in [&from, &to] {
            let path = side._notes.path().join("volume.whole");
            let mut bytes = fs::read(&path).unwrap();
            let at = place * bytes.len() / 40;
            bytes[at] ^= 1 << (place % 8);
            fs::write(&path, bytes).unwrap();
        }
        fs::write(from.file("10"), b"changed").unwrap();
        let mut last = None;
        for trust in [Trust::LastPass, Trust::Stamps, Trust::Nothing] {
            last = pass_with(&from, &to, Expect::Still, trust, Moment::now(), &mut |_, frame| Some(frame)).ok();
            if last.is_some() {
                break;
            }
        }
        assert_equal(&from, &to, &last.unwrap().summary);
    }
}

/// A target with three entries below its root, and what it says to such a stream.
fn outcome(steps: Vec<Step>) -> Error {
    let (from, to) = (Side::new(), Side::new());
    fs::create_dir(from.file("a")).unwrap();
    fs::write(from.file("a/b"), b"x").unwrap();
    fs::write(from.file("c"), b"y").unwrap();
    pass(&from, &to, Expect::Still).unwrap();
    let mut steps = Some(steps);
    let done = pass_with(&from, &to, Expect::Still, Trust::LastPass, Moment::now(), &mut |_, frame| match frame {
        Frame::Batch(_) => steps.take().map(|steps| Frame::Batch(Batch { steps })),
        other => Some(other),
    });
    done.unwrap_err()
}

#[test]
fn a_stream_that_says_something_else_of_the_base_is_refused() {
    use Step::{Drop, Keep};
    let cases: [(Vec<Step>, &str); 10] = [
        (vec![Keep(5)], "it keeps more than there is"),
        (vec![Keep(0)], "it keeps nothing"),
        (vec![Keep(3)], "it passes over something that is here"),
        (vec![Keep(4), Drop(1)], "it drops more than there is"),
        (vec![Keep(1), Drop(0)], "it drops nothing"),
        (vec![Drop(4)], "it drops the root"),
        (vec![Keep(1), Drop(1), Keep(2)], "it keeps something in a directory that it drops"),
        (vec![Keep(u64::MAX)], "it keeps more than there is"),
        (vec![Keep(1), Drop(u64::MAX)], "it drops more than there is"),
        (vec![Keep(1), Drop(1)], "it passes over something that is here"),
    ];
    for (steps, expected) in cases {
        let shown = format!("{steps:?}");
        match outcome(steps) {
            Error::Refused { problem, .. } => assert_eq!(problem, expected, "{shown}"),
            other => panic!("{shown}: {other:?}"),
        }
    }
}
