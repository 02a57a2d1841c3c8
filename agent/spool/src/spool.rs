//! What callers hold: a cloneable end of the storage thread's queue. Nothing here waits for the disk but `close`.

use crate::class::{Notice, QueueClass};
use crate::error::{Bound, OpenError, SpoolError};
use crate::forward::{DueForward, ForwardId, Room};
use crate::limits::Limits;
use crate::open;
use crate::reading::Stored;
use crate::record::{Change, Counts, OutcomeRecord, Recovered};
use crate::store::Store;
use crate::thread::{self, Done, Read, Request};
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use std::time::Duration;
use tidegate_schemas::JobId;

/// Reads that wait for the storage thread, beside the changes: one per fetching device and some for the status.
const READS_MAX: usize = 1024;
/// Longest that `close` waits: a full queue of groups on a slow card, twenty times over.
const CLOSE_MAX: Duration = Duration::from_secs(60);

/// The store, as its users hold it. Clones are ends of the same queue; the storage thread ends when one of them is
/// closed or the last one is dropped.
#[derive(Clone)]
pub struct Spool {
    requests: SyncSender<Request>,
    /// Changes that were submitted and not answered.
    waiting: Arc<AtomicUsize>,
    queue_max: usize,
}

impl std::fmt::Debug for Spool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Spool").field("waiting", &self.waiting).field("queue_max", &self.queue_max).finish()
    }
}

impl Spool {
    /// Opens the store in `dir`, creating it with mode 0700 where there is none, and starts its thread. Damage is
    /// set aside and reported in [`Recovered`]; it never keeps a store from opening. Opening also heals a store that
    /// was poisoned.
    ///
    /// # Errors
    /// The directory is another's, in use, from a newer version, or the file system refuses a fresh database.
    pub fn open(dir: &Path, limits: Limits) -> Result<(Self, Recovered), OpenError> {
        let (store, recovered) = open::open(dir, limits)?;
        let spool = Self::start(store, limits).map_err(OpenError::io("thread for", dir))?;
        Ok((spool, recovered))
    }

    /// Starts the thread of an open store.
    pub(crate) fn start(store: Store, limits: Limits) -> io::Result<Self> {
        let (requests, queue) = sync_channel(limits.queue_max + READS_MAX);
        thread::start(store, queue, limits)?;
        Ok(Self { requests, waiting: Arc::default(), queue_max: limits.queue_max })
    }

    /// Submits a change. `done` is called exactly once: at once when the queue is full or the store closed, else on
    /// the storage thread, after the change was fsynced or refused, in the order of submission. It must not block.
    pub fn submit(&self, change: Change, done: impl FnOnce(Result<(), SpoolError>) + Send + 'static) {
        let ahead = self.waiting.fetch_add(1, Ordering::Relaxed);
        let done = Done::new(Box::new(done), Arc::clone(&self.waiting));
        let full = SpoolError::Full { what: Bound::Queue, would: ahead as u64 + 1, max: self.queue_max as u64 };
        // What the user's telemetry may take, so that a storm of it refuses telemetry and not prompts.
        let places = if matches!(change, Change::Forward(_)) { self.queue_max / 2 } else { self.queue_max };
        if ahead >= places {
            return done.call(Err(full));
        }
        match self.requests.try_send(Request::Change(Box::new(change), done)) {
            Ok(()) => {}
            Err(TrySendError::Full(request)) => request.refuse(full),
            Err(TrySendError::Disconnected(request)) => request.refuse(SpoolError::Stopped),
        }
    }

    /// Reads the outcome of a job, after all that was submitted before. `done` gets none when there is no such
    /// outcome, its record is unreadable, the store is closed, or too many reads wait already.
    pub fn outcome(&self, job: JobId, done: impl FnOnce(Option<OutcomeRecord>) + Send + 'static) {
        self.read(Read::Outcome(job, Box::new(done)));
    }

    /// Reads one record of a class, by its number, as `outcome` does.
    pub fn stored(&self, class: QueueClass, number: u64, done: impl FnOnce(Option<Stored>) + Send + 'static) {
        self.read(Read::One(class, number, Box::new(done)));
    }

    /// Reads records of a class with numbers above `after`, oldest first, as many as fit in `room`; the first comes in
    /// any case. `done` gets nothing when there are none, the store is closed, or too many reads wait already.
    pub fn page(&self, class: QueueClass, after: u64, room: Room, done: impl FnOnce(Vec<Stored>) + Send + 'static) {
        self.read(Read::Page(class, after, room, Box::new(done)));
    }

    /// Takes out forwarded messages to be sent, after all that was submitted before: the most urgent first, every
    /// eighth the oldest of all, as many as fit in `room`; the first in any case. They stay on disk and nobody gets
    /// them again until [`Spool::put_back`]; [`Change::ForwardDone`], [`Change::ForwardDead`] or their time to live
    /// take them off it. `done` gets nothing when nothing waits.
    pub fn take_forwards(&self, room: Room, done: impl FnOnce(Vec<DueForward>) + Send + 'static) {
        self.read(Read::Take(room, Box::new(done)));
    }

    /// These forwarded messages were not sent after all: they wait again, each at its old place.
    pub fn put_back(&self, entries: Vec<ForwardId>) {
        self.order(Request::PutBack(Some(entries)));
    }

    /// The connection is gone: every forwarded message that was taken out waits again.
    pub fn put_all_back(&self) {
        self.order(Request::PutBack(None));
    }

    /// Who hears what the store says without being asked; called on the storage thread, after the sync. It must not
    /// block. A later listener takes the place of an earlier one.
    pub fn listen(&self, listener: impl FnMut(Notice) + Send + 'static) {
        self.order(Request::Listen(Box::new(listener)));
    }

    /// Counts what is stored, after all that was submitted before. `done` gets zeros when the store is closed.
    pub fn counts(&self, done: impl FnOnce(Counts) + Send + 'static) {
        self.read(Read::Counts(Box::new(done)));
    }

    fn read(&self, read: Read) {
        if let Err(refused) = self.requests.try_send(Request::Read(read)) {
            let (TrySendError::Full(request) | TrySendError::Disconnected(request)) = refused;
            request.refuse(SpoolError::Stopped);
        }
    }

    /// Orders are few; one that finds no place waits for it, one that finds no store has nothing to say any more.
    fn order(&self, request: Request) {
        if self.requests.send(request).is_err() {
            tracing::debug!("the store is closed");
        }
    }

    /// Waits until all that was submitted before is on disk, the files are closed and the lock is free. What other
    /// clones submit afterwards is refused with [`SpoolError::Stopped`].
    pub fn close(self) {
        let (ended, end) = sync_channel(1);
        // A closed queue means that another clone closed the store, or that the thread is over: nothing to wait for.
        if self.requests.send(Request::Close(ended)).is_ok() && end.recv_timeout(CLOSE_MAX).is_err() {
            tracing::warn!(wait_s = CLOSE_MAX.as_secs(), "storage thread did not report its end");
        }
    }
}
