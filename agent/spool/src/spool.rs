//! What callers hold: a cloneable end of the storage thread's queue. Nothing here waits for the disk but `close`.

use crate::error::{Bound, OpenError, SpoolError};
use crate::limits::Limits;
use crate::open;
use crate::record::{Change, Counts, OutcomeRecord, Recovered};
use crate::thread::{self, Done, Request};
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
        let (requests, queue) = sync_channel(limits.queue_max + READS_MAX);
        thread::start(store, queue, limits).map_err(OpenError::io("thread for", dir))?;
        Ok((Self { requests, waiting: Arc::default(), queue_max: limits.queue_max }, recovered))
    }

    /// Submits a change. `done` is called exactly once: at once when the queue is full or the store closed, else on
    /// the storage thread, after the change was fsynced or refused, in the order of submission. It must not block.
    pub fn submit(&self, change: Change, done: impl FnOnce(Result<(), SpoolError>) + Send + 'static) {
        let ahead = self.waiting.fetch_add(1, Ordering::Relaxed);
        let done = Done::new(Box::new(done), Arc::clone(&self.waiting));
        let full = SpoolError::Full { what: Bound::Queue, would: ahead as u64 + 1, max: self.queue_max as u64 };
        if ahead >= self.queue_max {
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
        if let Err(refused) = self.requests.try_send(Request::Outcome(job, Box::new(done))) {
            let (TrySendError::Full(request) | TrySendError::Disconnected(request)) = refused;
            request.refuse(SpoolError::Stopped);
        }
    }

    /// Counts what is stored, after all that was submitted before. `done` gets zeros when the store is closed.
    pub fn counts(&self, done: impl FnOnce(Counts) + Send + 'static) {
        if let Err(refused) = self.requests.try_send(Request::Counts(Box::new(done))) {
            let (TrySendError::Full(request) | TrySendError::Disconnected(request)) = refused;
            request.refuse(SpoolError::Stopped);
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
