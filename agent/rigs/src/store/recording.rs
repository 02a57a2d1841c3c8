//! Records what a real store does to its files: the store runs on the forgetting disk, which keeps a journal, and each
//! acknowledgement is noted at the operation after which it came.

use super::disk::{Disk, Op};
use super::history::{Fact, History, Sizes, Step, settle};
use super::mount::{Mounted, Shared, lock};
use anyhow::Context as _;
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use tidegate_spool::{Limits, Recovered, Spool};

/// Jobs that are in the middle of their lives at once.
const ACTIVE: u64 = 12;
/// Most changes that are submitted without waiting.
const BURST_MAX: u64 = 14;

/// The store lies here below the mount.
const STORE: &str = "store";

/// Limits of the stores of these rigs: the defaults, whatever room the machine has. The table of places takes in what
/// the journal says again and again, so that many states lie around that.
pub(crate) fn limits() -> Limits {
    Limits { free_bytes_min: 0, behind_max: 40, ..Limits::default() }
}

/// A run of a store.
pub(crate) struct Recording {
    /// What it is called.
    pub(crate) name: String,
    /// The disk before the run.
    pub(crate) start: Disk,
    /// All operations of the run.
    pub(crate) ops: Vec<Op>,
    /// What it was told.
    pub(crate) history: History,
    /// From this operation on every sync boundary counts; before it only some.
    pub(crate) dense_from: usize,
}

/// A store on the recorded disk.
pub(crate) struct Stage {
    /// Stands before the mount, so that it is closed before that goes.
    spool: Option<Open>,
    mounted: Mounted,
    facts: Arc<Mutex<Vec<Fact>>>,
    sizes: Sizes,
    dense_from: usize,
}

/// An open store; closed, with all its files, when it is dropped.
struct Open(Spool);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.clone().close();
    }
}

impl Stage {
    /// Mounts a disk and opens the store on it; gives what the opening found.
    pub(crate) fn open(scratch: &Path, disk: Disk, history: History) -> anyhow::Result<(Self, Recovered)> {
        let shared = Shared { disk, journal: Some(Vec::new()), ..Shared::default() };
        let mounted = Mounted::new(&scratch.join("recorded"), shared)?;
        let History { facts, sizes } = history;
        let facts = Arc::new(Mutex::new(facts));
        let mut stage = Self { spool: None, mounted, facts, sizes, dense_from: 0 };
        let found = stage.reopen()?;
        Ok((stage, found))
    }

    /// Closes the store, if it is open, and opens it.
    pub(crate) fn reopen(&mut self) -> anyhow::Result<Recovered> {
        drop(self.spool.take());
        let (spool, found) = Spool::open(&self.store(), limits()).context("the store does not open")?;
        self.spool = Some(Open(spool));
        Ok(found)
    }

    fn store(&self) -> PathBuf {
        self.mounted.path.join(STORE)
    }

    fn spool(&self) -> anyhow::Result<&Spool> {
        self.spool.as_ref().map(|open| &open.0).context("the store is closed")
    }

    /// Operations so far.
    fn now(&self) -> u64 {
        lock(&self.mounted.shared).done
    }

    /// Submits a step; when it is acknowledged is noted.
    pub(crate) fn submit(&self, job: u64, step: Step) -> anyhow::Result<()> {
        let index = {
            let mut facts = self.facts.lock().unwrap_or_else(PoisonError::into_inner);
            facts.push(Fact { job, step, submitted: self.now(), acknowledged: None });
            facts.len() - 1
        };
        let (facts, shared) = (Arc::clone(&self.facts), Arc::clone(&self.mounted.shared));
        self.spool()?.submit(self.sizes.change(job, step), move |result| {
            let at = lock(&shared).done;
            if let (Ok(()), Some(fact)) = (result, facts.lock().unwrap_or_else(PoisonError::into_inner).get_mut(index))
            {
                fact.acknowledged = Some(at);
            }
        });
        Ok(())
    }

    /// Waits until all is answered; gives the size of the database file.
    pub(crate) fn settle(&self) -> anyhow::Result<tidegate_spool::Counts> {
        settle(self.spool()?)
    }

    /// From here on every boundary counts.
    fn dense(&mut self) {
        self.dense_from = self.now() as usize;
    }

    /// Closes the store and gives the recording; `start` is the disk as it was.
    pub(crate) fn end(mut self, name: String, start: Disk) -> anyhow::Result<Recording> {
        drop(self.spool.take());
        let shared = self.mounted.unmount()?;
        let facts = std::mem::take(&mut *self.facts.lock().unwrap_or_else(PoisonError::into_inner));
        let ops = shared.journal.context("the journal was kept")?;
        let history = History { facts, sizes: self.sizes };
        Ok(Recording { name, start, ops, history, dense_from: self.dense_from })
    }
}

/// A run of all sorts of changes in groups of all sizes, with reopenings.
pub(crate) fn work(scratch: &Path, seed: u64, groups: u64) -> anyhow::Result<Recording> {
    let empty = History { facts: Vec::new(), sizes: Sizes::Mixed };
    let (mut stage, _) = Stage::open(scratch, Disk::default(), empty)?;
    let mut lives = Lives::new(seed, 1);
    for group in 1..=groups {
        lives.burst(&stage)?;
        if lives.chance.random_range(0..10) < 7 {
            stage.settle()?;
        }
        if group.is_multiple_of((groups / 4).max(1)) {
            stage.reopen()?;
        }
    }
    stage.settle()?;
    stage.end(format!("work, seed {seed}"), Disk::default())
}

/// Random lives of jobs.
pub(crate) struct Lives {
    /// The randomness of the run.
    pub(crate) chance: StdRng,
    active: Vec<(u64, Step)>,
    next: u64,
}

impl Lives {
    /// Lives of jobs from `first` on.
    pub(crate) fn new(seed: u64, first: u64) -> Self {
        Self { chance: StdRng::seed_from_u64(seed), active: Vec::new(), next: first }
    }

    /// Submits a few steps without waiting for any.
    pub(crate) fn burst(&mut self, stage: &Stage) -> anyhow::Result<()> {
        for _ in 0..self.chance.random_range(1..=BURST_MAX) {
            let (job, step) = self.step();
            stage.submit(job, step)?;
        }
        Ok(())
    }

    fn step(&mut self) -> (u64, Step) {
        let at = self.chance.random_range(0..ACTIVE as usize);
        let Some((job, last)) = self.active.get(at).copied() else {
            let job = self.next;
            self.next += 1;
            self.active.push((job, Step::Keep));
            return (job, Step::Keep);
        };
        let next = match (last, self.chance.random_range(0..10)) {
            (Step::Keep, 0) => Step::Mark,
            (Step::Keep | Step::Mark, 1..=3) => Step::Escalate,
            (Step::Keep | Step::Mark | Step::Escalate, _) => Step::Conclude,
            (Step::Conclude, _) => Step::Release,
            (Step::Release | Step::Forget, _) => Step::Forget,
        };
        // Two in three lives end with the release: most outcomes stay until their time is over.
        let over = next == Step::Forget || (next == Step::Release && self.chance.random_range(0..3) > 0);
        if over {
            self.active.remove(at);
        } else {
            self.active[at].1 = next;
        }
        (job, next)
    }
}

/// Size of the records that wear a generation out, in bytes.
const WEAR_RECORD_BYTES: usize = 3_500;
/// Size of the file above which the store may renew it, in bytes, and a bit.
const WEAR_FILE_BYTES: u64 = 33 << 20;
/// Jobs of one group while the file grows.
const WEAR_GROUP: u64 = 64;
/// Most jobs until the file must have grown.
const WEAR_JOBS_MAX: u64 = 20_000;
/// Jobs that stay.
const WEAR_STAY: u64 = 100;

/// A run that wears a generation out, so that the store switches to a new one, and goes on after it.
pub(crate) fn renewal(scratch: &Path, seed: u64) -> anyhow::Result<Recording> {
    let empty = History { facts: Vec::new(), sizes: Sizes::Fixed(WEAR_RECORD_BYTES) };
    let (mut stage, _) = Stage::open(scratch, Disk::default(), empty)?;
    let mut last = 0;
    while stage.settle()?.file_bytes < WEAR_FILE_BYTES {
        anyhow::ensure!(last < WEAR_JOBS_MAX, "the file did not grow to {WEAR_FILE_BYTES} bytes");
        for job in last + 1..=last + WEAR_GROUP {
            [Step::Keep, Step::Conclude].into_iter().try_for_each(|step| stage.submit(job, step))?;
        }
        last += WEAR_GROUP;
    }
    let mut gone = 0;
    while stage.settle()?.switches == 0 {
        anyhow::ensure!(gone + WEAR_STAY < last, "no new generation came with {WEAR_STAY} jobs left of {last}");
        // The last few groups before a switch count in full.
        stage.dense();
        let until = (gone + 4 * WEAR_GROUP).min(last - WEAR_STAY);
        for job in gone + 1..=until {
            [Step::Release, Step::Forget].into_iter().try_for_each(|step| stage.submit(job, step))?;
        }
        gone = until;
    }
    let mut lives = Lives::new(seed, last + 1);
    for _ in 0..12 {
        lives.burst(&stage)?;
        stage.settle()?;
    }
    stage.reopen()?;
    stage.end(format!("generation switch, seed {seed}"), Disk::default())
}
