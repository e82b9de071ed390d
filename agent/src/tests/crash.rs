//! A crash at every write of the ledger, before it and after it.
//!
//! The scenario is repeated with the crash one write later each time, until it runs through without one. After every crash
//! the agent starts from disk, and the step that was cut off is repeated.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use feather_proto::{error::Error, pb::agent::v1 as pb};

use super::data::{export, import, messages};
use super::harness::{
    Server, World, abandon, activate, add, grant, hand_off, pull, pulled, remove, reserve, reset, retire, seal, start,
    stop, trial, wait_until,
};
use crate::ledger::{Directory, Storage, storage::Content};

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Cut {
    BeforeTheWrite,
    AfterTheWrite,
}

/// Works for some writes and is dead from then on, as the disk of a crashed machine.
pub(super) struct Crashing {
    directory: Directory,
    left: AtomicUsize,
    cut: Cut,
}

impl Crashing {
    /// Dead after so many writes.
    pub(super) fn after(writes: usize, cut: Cut, directory: Directory) -> Self {
        Self { directory, left: AtomicUsize::new(writes), cut }
    }
}

impl Storage for Crashing {
    fn read_all(&self) -> Result<Vec<(String, Content)>, crate::ledger::Error> {
        self.directory.read_all()
    }

    fn write(&self, file: &str, bytes: &[u8]) -> io::Result<()> {
        let left = self.left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1));
        match left {
            Ok(_) => self.directory.write(file, bytes),
            Err(_) => {
                // The first write that fails may have reached the disk.
                if self.cut == Cut::AfterTheWrite && self.left.swap(usize::MAX, Ordering::SeqCst) == 0 {
                    self.directory.write(file, bytes)?;
                }
                self.left.store(0, Ordering::SeqCst);
                Err(io::Error::other("the machine is off"))
            }
        }
    }
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Add,
    Stop,
    Import,
    Start,
    Reset,
    Reserve,
    Seal,
    Pull,
    Trial,
    Abandon,
    Restart,
    ReserveAgain,
    SealAgain,
    PullAgain,
    TrialAgain,
    Activate,
    HandOff,
    Retire,
    Remove,
}

impl Step {
    const ALL: [Step; 19] = [
        Step::Add,
        Step::Stop,
        Step::Import,
        Step::Start,
        Step::Reset,
        Step::Reserve,
        Step::Seal,
        Step::Pull,
        Step::Trial,
        Step::Abandon,
        Step::Restart,
        Step::ReserveAgain,
        Step::SealAgain,
        Step::PullAgain,
        Step::TrialAgain,
        Step::Activate,
        Step::HandOff,
        Step::Retire,
        Step::Remove,
    ];

    async fn act(self, nyc: &Server, fra: &Server) -> Result<(), Error> {
        let (mut source, mut target) = (nyc.tenants(), fra.tenants());
        let keep = time::OffsetDateTime::UNIX_EPOCH + time::Duration::days(40_000);
        match self {
            Step::Add => source.add_tenant(add(1)).await.map(drop)?,
            Step::Stop => source.stop_tenant(stop(1)).await.map(drop)?,
            Step::Import => import(nyc, messages(&export(nyc).await?, 1, true)).await.map(drop)?,
            Step::Start => source.start_tenant(start(1)).await.map(drop)?,
            Step::Reset => source.reset_password(reset(1)).await.map(drop)?,
            Step::Reserve => target.reserve_tenant(reserve(2, fra)).await.map(drop)?,
            Step::Seal => source.stop_tenant(seal(1)).await.map(drop)?,
            Step::Pull => fetch(nyc, fra, 2).await?,
            Step::Trial => target.start_tenant(trial(2)).await.map(drop)?,
            Step::Abandon => target.abandon_tenant(abandon(2)).await.map(drop)?,
            Step::Restart => source.start_tenant(start(3)).await.map(drop)?,
            Step::ReserveAgain => target.reserve_tenant(reserve(4, fra)).await.map(drop)?,
            Step::SealAgain => source.stop_tenant(seal(3)).await.map(drop)?,
            Step::PullAgain => fetch(nyc, fra, 4).await?,
            Step::TrialAgain => target.start_tenant(trial(4)).await.map(drop)?,
            Step::Activate => target.activate_tenant(activate(4)).await.map(drop)?,
            Step::HandOff => source.hand_off_tenant(hand_off(4, "fra:80")).await.map(drop)?,
            Step::Retire => source.retire_tenant(retire(4, keep)).await.map(drop)?,
            Step::Remove => target.remove_tenant(remove(5)).await.map(drop)?,
        }
        Ok(())
    }
}

async fn fetch(nyc: &Server, fra: &Server, generation: u64) -> Result<(), Error> {
    nyc.volumes().grant_transfer(grant(generation, "fra")).await?;
    pulled(fra, pull(generation, nyc)).await.map(drop)
}

/// Runs the scenario; true when the crash happened in it.
async fn run(crash_after: usize, cut: Cut, victim: &str) -> bool {
    let world = World::new();
    let (mut nyc, mut fra) = (world.server("nyc"), world.server("fra"));
    for server in [&mut nyc, &mut fra] {
        if server.name == victim {
            let directory = Directory::new(server.config.ledger_dir()).unwrap();
            server.start_on(Arc::new(Crashing::after(crash_after, cut, directory))).await;
        } else {
            server.start().await;
        }
    }
    let mut crashed = false;
    for step in Step::ALL {
        let outcome = step.act(&nyc, &fra).await;
        if let Err(error) = outcome {
            assert!(!crashed, "{step:?} failed after the crash at write {crash_after} ({cut:?}, {victim}): {error}");
            crashed = true;
            let server = if victim == "nyc" { &mut nyc } else { &mut fra };
            server.crash().await;
            server.engine.reboot();
            server.proxy.lose_routes();
            server.start().await;
            let again = step.act(&nyc, &fra).await;
            assert!(
                again.is_ok(),
                "{step:?} repeated after the crash at write {crash_after} ({cut:?}, {victim}): {again:?}"
            );
        }
        world.assert_never_two();
    }
    assert!(world.recorder.running("feather-user-alice").is_empty());
    wait_until("the routes are as at the end of every run", async || {
        let seen = (nyc.public().0, fra.public().0);
        (seen == (404, 404), seen)
    })
    .await;
    let (left, gone) = (fra.get().await, nyc.get().await);
    assert_eq!((left.residence(), left.generation, left.port), (pb::Residence::Absent, 5, 0));
    assert_eq!((gone.residence(), gone.generation), (pb::Residence::Departed, 4));
    assert!(nyc.volume().join("starts.log").exists() && fra.volume().join("starts.log").exists());
    nyc.stop().await;
    fra.stop().await;
    crashed
}

#[tokio::test]
async fn a_crash_at_any_write_of_the_ledger_leaves_a_world_that_goes_on() {
    for victim in ["nyc", "fra"] {
        for cut in [Cut::BeforeTheWrite, Cut::AfterTheWrite] {
            let mut crash_after = 0;
            while run(crash_after, cut, victim).await {
                crash_after += 1;
            }
            assert!(crash_after > 8, "only {crash_after} writes on {victim}");
        }
    }
}
