//! The storage thread: takes what waits, writes it as one group, syncs once, answers in order.
//!
//! While one group syncs, the next one gathers: a lone change costs one sync, and under load a sync is shared by up to
//! `group_commit_max` changes. Two groups wait for company, for one `sync_every_ms` at most: one that nobody waits for,
//! and, after `SYNC_BURST` syncs in a row, one of a crowd; that spares the card.

use crate::class::{Notice, QueueClass};
use crate::error::SpoolError;
use crate::forward::{DueForward, ForwardId, Room};
use crate::limits::Limits;
use crate::reading::Stored;
use crate::record::{Change, Counts, OutcomeRecord};
use crate::staged::Staged;
use crate::stamp::Stamp;
use crate::store::Store;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender};
use std::time::{Duration, Instant};
use tidegate_schemas::JobId;

/// How often keep times and free space are looked at; both are hours and megabytes.
const TIDY_EVERY: Duration = Duration::from_secs(20);
/// Changes of a usual group from which on there is a crowd: a few devices that ask one after the other are none.
const CROWD: f32 = 4.0;
/// Syncs that may follow each other at once before they are held to their pace: those of some prompts one after the
/// other, or of a few devices, never wait.
const SYNC_BURST: u32 = 32;
/// How soon again when a round of tidying left something over: prompts come in between.
const TIDY_AGAIN: Duration = Duration::from_millis(200);

/// The syncs that are let through at once, in time.
fn burst(sync_every: Duration) -> Duration {
    SYNC_BURST * sync_every
}

/// Up to when the syncs are paid for after one more. What a few devices did before the crowd came is not held against it:
/// a group never waits longer than from one sync to the next.
fn paid(until: Instant, now: Instant, sync_every: Duration) -> Instant {
    (until.max(now) + sync_every).min(now + burst(sync_every) + sync_every)
}

type Answer<T> = Box<dyn FnOnce(T) + Send>;
/// Hears what the store has to say without being asked.
pub(crate) type Listener = Box<dyn FnMut(Notice) + Send>;

/// What the thread is asked.
pub(crate) enum Request {
    Change(Box<Change>, Done),
    Read(Read),
    /// Messages that were taken out wait again: those named, or all.
    PutBack(Option<Vec<ForwardId>>),
    Listen(Listener),
    Close(SyncSender<()>),
}

/// A question, answered after the sync of its group.
pub(crate) enum Read {
    Outcome(JobId, Answer<Option<OutcomeRecord>>),
    One(QueueClass, u64, Answer<Option<Stored>>),
    Page(QueueClass, u64, Room, Answer<Vec<Stored>>),
    Take(Room, Answer<Vec<DueForward>>),
    Counts(Answer<Counts>),
}

impl Read {
    /// Answers without the store.
    fn refuse(self) {
        match self {
            Self::Outcome(_, done) => done(None),
            Self::One(_, _, done) => done(None),
            Self::Page(_, _, _, done) => done(Vec::new()),
            Self::Take(_, done) => done(Vec::new()),
            Self::Counts(done) => done(Counts::default()),
        }
    }
}

impl Request {
    /// Answers without the store.
    pub(crate) fn refuse(self, error: SpoolError) {
        match self {
            Self::Change(_, done) => done.call(Err(error)),
            Self::Read(read) => read.refuse(),
            Self::PutBack(_) | Self::Listen(_) | Self::Close(_) => {}
        }
    }
}

/// Whether somebody waits for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Urgency {
    /// Nobody: it may as well be written a moment later.
    Lazy,
    /// A device, or whoever asks.
    Urgent,
}

impl Urgency {
    fn of(request: &Request) -> Self {
        match request {
            Request::Change(change, _) => match **change {
                Change::Release { .. } | Change::Forget { .. } | Change::ForwardDone { .. } => Self::Lazy,
                _ => Self::Urgent,
            },
            Request::PutBack(_) | Request::Listen(_) => Self::Lazy,
            Request::Read(_) | Request::Close(_) => Self::Urgent,
        }
    }
}

/// The callback of a change: called exactly once, with `Stopped` when the thread ended before it came to it.
pub(crate) struct Done {
    call: Option<Answer<Result<(), SpoolError>>>,
    waiting: Arc<AtomicUsize>,
}

impl Done {
    /// `waiting` was counted up for it, and is counted down when it is called.
    pub(crate) fn new(call: Answer<Result<(), SpoolError>>, waiting: Arc<AtomicUsize>) -> Self {
        Self { call: Some(call), waiting }
    }

    pub(crate) fn call(mut self, result: Result<(), SpoolError>) {
        self.finish(result);
    }

    fn finish(&mut self, result: Result<(), SpoolError>) {
        if let Some(call) = self.call.take() {
            self.waiting.fetch_sub(1, Ordering::Relaxed);
            guarded(|| call(result));
        }
    }
}

impl Drop for Done {
    fn drop(&mut self) {
        self.finish(Err(SpoolError::Stopped));
    }
}

/// A callback that panics must not take the store with it.
fn guarded(call: impl FnOnce()) {
    if catch_unwind(AssertUnwindSafe(call)).is_err() {
        tracing::error!("a callback of the store panicked");
    }
}

/// Starts the thread; it ends when it is asked to close or the last sender is gone.
pub(crate) fn start(store: Store, requests: Receiver<Request>, limits: Limits) -> io::Result<()> {
    let body = move || {
        Storage {
            store,
            requests,
            group_max: limits.group_commit_max.max(1),
            sync_every: Duration::from_millis(limits.sync_every_ms),
            paid_until: Instant::now(),
            usual: 0.0,
            listener: None,
            due: Instant::now() + TIDY_EVERY,
            poisoned: None,
        }
        .run()
    };
    std::thread::Builder::new().name("spool".to_owned()).spawn(body).map(drop)
}

/// An answer that waits for the sync of its group.
enum Pending {
    Change(Done, Result<(), SpoolError>),
    Read(Read),
}

struct Storage {
    store: Store,
    requests: Receiver<Request>,
    group_max: usize,
    /// [`Limits::sync_every_ms`].
    sync_every: Duration,
    /// Up to when the syncs so far are paid for, at one for each `sync_every`.
    paid_until: Instant,
    /// Changes of a group, on a moving average.
    usual: f32,
    listener: Option<Listener>,
    /// When to tidy up next.
    due: Instant,
    /// Why nothing is written any more.
    poisoned: Option<String>,
}

impl Storage {
    fn run(mut self) {
        let ended = loop {
            match self.requests.recv_timeout(self.due.saturating_duration_since(Instant::now())) {
                Ok(first) => {
                    if let Some(ended) = self.group(first) {
                        break Some(ended);
                    }
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break None,
            }
            if Instant::now() >= self.due {
                self.due = Instant::now() + self.tidy();
            }
        };
        // The lock must be free before anybody hears of the end. What still waits hears `Stopped` as it is dropped.
        drop(self.store);
        drop(self.requests);
        if let Some(ended) = ended {
            // Whoever asked may have stopped waiting.
            let _ = ended.try_send(());
        }
    }

    /// Writes one group, and answers it; returns who asked for the end, if that was in it.
    fn group(&mut self, first: Request) -> Option<SyncSender<()>> {
        let mut staged = Staged::default();
        let mut pending = Vec::new();
        let mut next = Some(first);
        let (mut ended, mut urgency, begun) = (None, Urgency::Lazy, Instant::now());
        while let Some(request) = next.take() {
            urgency = urgency.max(Urgency::of(&request));
            match request {
                Request::Change(change, done) => pending.push(Pending::Change(done, self.stage(*change, &mut staged))),
                Request::Read(read) => pending.push(Pending::Read(read)),
                Request::PutBack(which) => self.store.put_back(which),
                Request::Listen(listener) => self.listener = Some(listener),
                Request::Close(sender) => {
                    ended = Some(sender);
                    break;
                }
            }
            if pending.len() >= self.group_max || staged.is_full() {
                break;
            }
            next = self.requests.try_recv().ok().or_else(|| self.company(&staged, begun, urgency));
        }
        self.usual += (pending.len() as f32 - self.usual) / 16.0;
        self.commit(staged);
        pending.into_iter().for_each(|p| self.answer(p));
        self.renew();
        ended
    }

    /// The next request for a group that waits for company: one that nobody waits for, since a release or a removal that
    /// comes later harms nobody; and any, while there is a crowd and more syncs were made than are due.
    fn company(&self, staged: &Staged, begun: Instant, urgency: Urgency) -> Option<Request> {
        if staged.is_empty() {
            return None;
        }
        let until = match urgency {
            Urgency::Lazy => begun + self.sync_every,
            Urgency::Urgent if self.usual >= CROWD => self.paid_until.checked_sub(burst(self.sync_every))?,
            Urgency::Urgent => return None,
        };
        self.requests.recv_timeout(until.checked_duration_since(Instant::now())?).ok()
    }

    fn stage(&mut self, change: Change, staged: &mut Staged) -> Result<(), SpoolError> {
        self.alive()?;
        let store = &mut self.store;
        let result = catch_unwind(AssertUnwindSafe(|| store.stage(change, staged)))
            .unwrap_or_else(|_| Err(SpoolError::Poisoned("staging a change panicked".to_owned())));
        if let Err(SpoolError::Poisoned(why)) = &result {
            self.poison(why.clone());
        }
        result
    }

    fn commit(&mut self, staged: Staged) {
        if self.poisoned.is_some() || staged.is_empty() {
            return;
        }
        self.paid_until = paid(self.paid_until, Instant::now(), self.sync_every);
        let store = &mut self.store;
        match catch_unwind(AssertUnwindSafe(|| store.commit(staged))) {
            Ok(Ok(notices)) => notices.into_iter().for_each(|notice| self.tell(notice)),
            Ok(Err(why)) => self.poison(why),
            Err(_) => self.poison("the database panicked".to_owned()),
        }
    }

    fn tell(&mut self, notice: Notice) {
        if let Some(listener) = &mut self.listener {
            guarded(|| listener(notice));
        }
    }

    fn answer(&mut self, pending: Pending) {
        match pending {
            // A group that did not reach the disk reached it for none of its changes.
            Pending::Change(done, result) => done.call(result.and_then(|()| self.alive())),
            Pending::Read(read) => self.read(read),
        }
    }

    /// A read that panics, as sled's may, found nothing.
    fn read(&mut self, read: Read) {
        let store = &mut self.store;
        match read {
            Read::Outcome(job, done) => {
                let found = catch_unwind(AssertUnwindSafe(|| store.outcome(job))).unwrap_or(None);
                guarded(|| done(found));
            }
            Read::One(class, number, done) => {
                let found = catch_unwind(AssertUnwindSafe(|| store.stored(class, number))).unwrap_or(None);
                guarded(|| done(found));
            }
            Read::Page(class, after, room, done) => {
                let found = catch_unwind(AssertUnwindSafe(|| store.page(class, after, room))).unwrap_or_default();
                guarded(|| done(found));
            }
            Read::Take(room, done) => {
                let taken = catch_unwind(AssertUnwindSafe(|| store.take_forwards(room, &Stamp::now())));
                let (due, overdue) = taken.unwrap_or_default();
                if overdue {
                    self.due = Instant::now();
                }
                guarded(|| done(due));
            }
            Read::Counts(done) => guarded(|| done(store.counts())),
        }
    }

    /// Prunes what is over its time; returns when to come again.
    fn tidy(&mut self) -> Duration {
        if self.poisoned.is_some() {
            return TIDY_EVERY;
        }
        let mut staged = Staged::default();
        let now = Stamp::now();
        self.store.good_time.note(&now);
        let more = self.store.prune(&now, &mut staged);
        self.commit(staged);
        self.store.restore_ballast();
        if more { TIDY_AGAIN } else { TIDY_EVERY }
    }

    /// What the answers need not wait for: the table of places takes in what the journal says, and a file that has grown
    /// too large for what lives in it makes place for a new generation.
    fn renew(&mut self) {
        if self.poisoned.is_some() {
            return;
        }
        let store = &mut self.store;
        let renewed =
            catch_unwind(AssertUnwindSafe(
                || {
                    if store.is_worn() { store.switch_generation() } else { store.catch_up() }
                },
            ));
        if let Err(why) = renewed.unwrap_or_else(|_| Err("renewing the generation panicked".to_owned())) {
            self.poison(why);
        }
    }

    fn alive(&self) -> Result<(), SpoolError> {
        match &self.poisoned {
            Some(why) => Err(SpoolError::Poisoned(why.clone())),
            None => Ok(()),
        }
    }

    fn poison(&mut self, why: String) {
        tracing::error!(%why, "the store is poisoned, it must be opened anew");
        self.poisoned.get_or_insert(why);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_waits_for_one_sync_at_most_however_many_were_made_at_once() {
        let (now, every) = (Instant::now(), Duration::from_millis(16));
        let wait = |until: Instant| until.saturating_duration_since(now + burst(every));
        let mut until = now;
        for made in 1..=10_000 {
            until = paid(until, now, every);
            assert_eq!(wait(until) > Duration::ZERO, made > SYNC_BURST, "{made} syncs at once");
        }
        assert_eq!(wait(until), every);
    }
}
