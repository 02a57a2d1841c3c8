//! The one loop: events in, commands out. It owns the dispatcher and everything that belongs to open jobs, and waits
//! for nothing but its own ears: every shell behind it takes orders without blocking.

use super::clock;
use super::delivery::{Facts, Pending};
use super::front::Front;
use super::gauges::Meter;
use super::judged::Judged;
use super::message::{Ears, Input, Query, Report, Task, ToBridge};
use super::notices::Notices;
use super::onlookers::{Onlookers, page_device};
use super::succession::Succession;
use super::view::View;
use super::watchdog::Watchdog;
use crate::engine::{EngineCommand, Successor};
use crate::failure::Failure;
use crate::learned::{Learned, write_synced};
use crate::schema::Checker;
use std::collections::{HashMap, VecDeque};
use std::path::Path;
use std::time::{Duration, Instant};
use tidegate_broker::{Outgoing, Verdict};
use tidegate_core::{Arrival, Dispatcher, Event, Ticket};
use tidegate_schemas::{DeviceId, Encoding, JobId, Reply, TaskName};
use tidegate_spool::Spool;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::sleep_until;
use tracing::{info, warn};

/// How often queues and rates are told to whoever listens, if they changed.
const TELL_EVERY: Duration = Duration::from_secs(5);
/// How often what was learned is saved, if anything was.
const SAVE_EVERY: Duration = Duration::from_secs(60);
/// Longest sleep without a deadline; only a bound.
const IDLE_MAX: Duration = Duration::from_secs(60);
/// Messages that are taken before deadlines and signals are looked at again: some milliseconds of work.
const MESSAGES_MAX: usize = 64;
/// Shortest sleep, so that a deadline that has come cannot make the loop spin.
const IDLE_MIN: Duration = Duration::from_millis(1);

/// Publishes that wait for their acknowledgement.
#[derive(Default)]
pub(super) struct Tickets {
    next: u64,
    waiting: HashMap<Ticket, (Encoding, Reply, oneshot::Sender<Verdict>)>,
}

impl Tickets {
    fn add(&mut self, encoding: Encoding, reply_to: Reply, reply: oneshot::Sender<Verdict>) -> Ticket {
        self.next += 1;
        let ticket = Ticket(self.next);
        self.waiting.insert(ticket, (encoding, reply_to, reply));
        ticket
    }

    /// Ends a wait. Its client may be gone meanwhile.
    pub(super) fn end(&mut self, ticket: Ticket, verdict: impl FnOnce(Encoding) -> Verdict) {
        if let Some((encoding, _, reply)) = self.waiting.remove(&ticket) {
            let _ = reply.send(verdict(encoding));
        }
    }

    /// Where what that publish asks for goes, if it says so.
    pub(super) fn reply(&self, ticket: Ticket) -> Option<Reply> {
        self.waiting.get(&ticket).map(|(_, reply, _)| reply.clone()).filter(|reply| !reply.is_plain())
    }
}

/// Where orders go.
pub(super) struct Hands {
    pub(super) spool: Spool,
    pub(super) front: Front,
    pub(super) engine: mpsc::Sender<EngineCommand>,
    pub(super) successors: mpsc::Sender<Successor>,
    pub(super) bridge: Option<mpsc::Sender<ToBridge>>,
    /// Back to this loop.
    pub(super) reports: mpsc::UnboundedSender<Report>,
}

/// The loop and its state.
pub(super) struct Hub {
    pub(super) dispatcher: Dispatcher,
    pub(super) hands: Hands,
    pub(super) tickets: Tickets,
    /// Where the outcome of the prompt goes that is being handed to the dispatcher.
    pub(super) asking: Reply,
    /// What the store must know of each open job.
    pub(super) facts: HashMap<JobId, Facts>,
    /// Frames of outcomes between disk and door.
    pub(super) ready: HashMap<JobId, Outgoing>,
    pub(super) pending: Pending,
    pub(super) checkers: HashMap<TaskName, Checker>,
    pub(super) default_task: TaskName,
    /// Resolutions whose acknowledgement waits until their job's outcome is on disk.
    pub(super) settle: HashMap<JobId, u64>,
    /// Changes that the disk refused for now; they go in order, since all wait equally long.
    pub(super) retries: VecDeque<(Instant, Task)>,
    /// The latest judgements.
    pub(super) judged: Judged,
    /// What the cloud's answers have taught.
    pub(super) learned: Learned,
    /// A model that is about to take over.
    pub(super) succession: Option<Succession>,
    pub(super) view: View,
    pub(super) meter: Meter,
    /// Who looks at prompts of the page.
    pub(super) onlookers: Onlookers,
    /// What the store said and nobody was told yet.
    pub(super) notices: Notices,
    /// Whom this loop tells that it turns.
    pub(super) watchdog: Watchdog,
    /// Why the process cannot go on.
    pub(super) fatal: Option<Failure>,
}

impl Hub {
    /// Runs until a drain is over or the process cannot go on.
    pub(super) async fn run(&mut self, mut ears: Ears, mut stop: watch::Receiver<bool>, drain: Duration) {
        let mut draining: Option<Instant> = None;
        let (mut tell_at, mut save_at) = (Instant::now(), Instant::now() + SAVE_EVERY);
        while self.fatal.is_none() && !self.over(draining, drain) {
            let wake = self.wake(tell_at, draining.map(|since| since + drain));
            tokio::select! {
                biased;
                Some(report) = ears.reports.recv() => self.report(report),
                Some(report) = ears.engine.recv() => self.engine(report),
                changed = stop.changed(), if draining.is_none() => {
                    if changed.is_err() || *stop.borrow() {
                        info!("draining");
                        draining = Some(Instant::now());
                        self.view.draining = true;
                        self.watchdog.stopping();
                        self.step(Event::Drain);
                    }
                }
                Some(()) = ears.hangup.recv() => {
                    info!("reading certificates, users and rights again");
                    self.hands.front.reload();
                }
                failure = self.hands.front.failed() => self.fatal = Some(Failure::other(failure)),
                Some(input) = ears.inputs.recv() => self.input(input),
                () = sleep_until(wake.into()) => self.step(Event::Tick),
            }
            self.take_more(&mut ears);
            self.retry();
            if Instant::now() >= tell_at {
                tell_at = Instant::now() + TELL_EVERY;
                self.look_at_machine();
                self.watchdog.alive();
                self.step(Event::Machine(super::machine::read(Path::new("/sys"))));
                self.count();
                self.tell();
                self.tell_notices();
                self.tell_reloads();
            }
            if Instant::now() >= save_at {
                save_at = Instant::now() + SAVE_EVERY;
                self.save_learned();
            }
        }
        if let Some(saving) = self.save_learned() {
            let _ = saving.await;
        }
    }

    /// Takes what is there already, in the same order: a wait costs as much as many messages do.
    fn take_more(&mut self, ears: &mut Ears) {
        for _ in 0..MESSAGES_MAX {
            if self.fatal.is_some() {
                return;
            }
            match (ears.reports.try_recv(), ears.engine.is_empty()) {
                (Ok(report), _) => self.report(report),
                // The engine comes before new prompts.
                (Err(_), false) => return,
                (Err(_), true) => match ears.inputs.try_recv() {
                    Ok(input) => self.input(input),
                    Err(_) => return,
                },
            }
        }
    }

    /// Puts on disk what was learned since the last time, beside the loop: a sync may take long. What a crash takes is
    /// learned again.
    pub(super) fn save_learned(&mut self) -> Option<tokio::task::JoinHandle<()>> {
        let (path, bytes) = self.learned.snapshot(self.dispatcher.learned())?;
        Some(tokio::task::spawn_blocking(move || {
            if let Err(error) = write_synced(&path, &bytes) {
                warn!(%error, "what was learned is not saved");
            }
        }))
    }

    fn over(&self, draining: Option<Instant>, drain: Duration) -> bool {
        let Some(since) = draining else { return false };
        if self.dispatcher.drained() && self.retries.is_empty() {
            return true;
        }
        let late = since.elapsed() >= drain;
        if late {
            let open = self.dispatcher.load().inbox_entries;
            warn!(open, "the drain took too long: what is open runs again after the start");
        }
        late
    }

    fn wake(&self, tell_at: Instant, drained_by: Option<Instant>) -> Instant {
        let now = Instant::now();
        let deadline = self.dispatcher.next_deadline().map_or(IDLE_MAX, clock::until);
        let wake = (now + deadline.clamp(IDLE_MIN, IDLE_MAX)).min(tell_at);
        let retry = self.retries.front().map_or(wake, |(at, _)| wake.min(*at));
        drained_by.map_or(retry, |by| retry.min(by))
    }

    /// One event and everything that follows from it at once.
    pub(super) fn step(&mut self, event: Event) {
        let commands = self.dispatcher.handle(event, clock::now());
        self.perform(commands);
    }

    fn report(&mut self, report: Report) {
        match report {
            Report::Event(event) => {
                self.note_link(&event);
                let link = matches!(event, Event::LinkUp | Event::LinkDown);
                self.step(event);
                if link {
                    self.tell();
                }
            }
            Report::Disk(task, result) => self.disk(task, result),
            Report::Fetched { ticket, device, record } => self.fetched(ticket, &device, record),
            Report::Read(record) => self.read(record),
            Report::Released(device, job) => {
                if self.pending.release(&device, job) {
                    self.submit(Task::Release(job));
                }
            }
            Report::Resolution(number, resolution) => self.resolution(number, resolution),
            Report::Counts(counts) => self.view.counts = counts,
            Report::Numbers(numbers) => self.tell_numbers(numbers),
            Report::Store(notice) => self.notices.add(notice),
            Report::Bridge(facts) => self.bridged(*facts),
            Report::Intake(fault) => self.intake(fault),
            Report::Certificates(papers) => self.certificates(papers),
        }
    }

    fn input(&mut self, input: Input) {
        match input {
            Input::Prompt { device, prompt, encoding, bytes, reply_to, reply } => {
                let ticket = self.tickets.add(encoding, reply_to.clone(), reply);
                // A prompt that is accepted is kept within this step.
                self.asking = reply_to;
                self.step(Event::Arrived(Arrival { ticket, device, prompt, encoding, bytes }));
                self.asking = Reply::default();
            }
            Input::Control { device, control, encoding, reply_to, reply } => {
                let ticket = self.tickets.add(encoding, reply_to, reply);
                self.step(Event::Controlled { ticket, device, control, encoding });
            }
            Input::Pending { device, after, max, reply } => {
                let jobs = self.pending.of(&device, after, max);
                tokio::spawn(gather(self.hands.spool.clone(), jobs, reply));
            }
            Input::Waiting { after, max, reply } => {
                let jobs = self.pending.of_all(after, max);
                tokio::spawn(gather_all(self.hands.spool.clone(), jobs, reply));
            }
            Input::Ask { prompt, bytes, frames, reply } => {
                let ticket = self.tickets.add(Encoding::Json, Reply::default(), reply);
                // As above: a prompt that is accepted is kept within this step.
                self.onlookers.arrives(frames);
                let (device, encoding) = (page_device(), Encoding::Json);
                self.step(Event::Arrived(Arrival { ticket, device, prompt, encoding, bytes }));
                self.onlookers.arrived();
            }
            Input::Succeed(both) => {
                let (successor, succession) = *both;
                self.succeed(successor, succession);
            }
            Input::Facts(reply) => {
                // For the next picture: what is counted here is a moment old.
                self.count();
                let _ = reply.send(Box::new(self.facts()));
            }
            Input::Query(query, reply) => self.query(query, reply),
        }
    }

    fn query(&mut self, query: Query, reply: oneshot::Sender<serde_json::Value>) {
        match query {
            Query::Status => {
                let _ = reply.send(self.status());
            }
            Query::Explain(job) => {
                let _ = reply.send(self.judged.explain(job));
            }
            Query::Drain => {
                let _ = reply.send(serde_json::json!({ "draining": true }));
                self.view.stop.send_replace(true);
            }
            Query::Outcome(device, id, text) => self.look(&device, &id, text, reply),
            Query::Drop(job, what) => {
                self.step(Event::Dropped(job, what));
                let _ = reply.send(serde_json::json!({ "dropped": job }));
            }
            Query::Discard(device, job) => {
                if self.pending.release(&device, job) {
                    self.submit(Task::Release(job));
                }
                let _ = reply.send(serde_json::json!({ "dropped": job }));
            }
            Query::Record(job) => self.hands.spool.outcome(job, move |record| {
                let _ = reply.send(super::view::record(job, record));
            }),
        }
    }
}

/// Reads stored outcomes of all devices, in order.
async fn gather_all(spool: Spool, jobs: Vec<(DeviceId, JobId)>, reply: oneshot::Sender<Vec<(DeviceId, Outgoing)>>) {
    let mut found = Vec::with_capacity(jobs.len());
    for (device, job) in jobs {
        let (sender, read) = oneshot::channel();
        gather(spool.clone(), vec![job], sender).await;
        found.extend(read.await.unwrap_or_default().into_iter().map(|outgoing| (device.clone(), outgoing)));
    }
    let _ = reply.send(found);
}

/// Reads stored outcomes, in order; those that are gone meanwhile are left out.
async fn gather(spool: Spool, jobs: Vec<JobId>, reply: oneshot::Sender<Vec<Outgoing>>) {
    let mut found = Vec::with_capacity(jobs.len());
    for job in jobs {
        let (sender, read) = oneshot::channel();
        spool.outcome(job, move |record| {
            let _ = sender.send(record);
        });
        if let Ok(Some(record)) = read.await {
            found.push(super::delivery::outgoing(record));
        }
    }
    let _ = reply.send(found);
}
