//! Which escalations are under way, and which are resolved: what outlives a connection.

use crate::engine::{EngineCommand, EngineReport};
use crate::schema::{self, Checker};
use crate::trace::hop;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::time::{Duration, Instant};
use tidegate_core::knowledge::Knowledge;
use tidegate_core::{Calibration, Signals};
use tidegate_engine::protocol::{Done, Fault, Stop};
use tidegate_schemas::{
    Body, DeviceId, DeviceTopic, ErrorCode, Escalation, JobId, ModelName, OUTCOME_BYTES_MAX, Origin, Resolution,
    ResolvedOutcome, TaskName, Timing, Topic, Usage, encode,
};
use tokio::sync::mpsc;
use tracing::{info, warn};

use super::engine_side::{run_of, version};

/// Resolutions that are remembered, at most: an hour of a busy worker.
const RESOLVED_MAX: usize = 4096;
/// Bytes of them, at most.
const RESOLVED_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Runs of an escalation that died with the engine, the last of them alone, before it counts as poison.
const CRASHES_MAX: u32 = 2;

/// One escalation, whichever attempt of it.
pub(super) type Key = (Origin, JobId);

/// A resolution, ready to be published.
#[derive(Clone)]
pub(super) struct Resolved {
    pub(super) topic: String,
    pub(super) payload: Vec<u8>,
}

/// What is to be done with an escalation that came.
pub(super) enum Taken {
    /// It is resolved already.
    Resolved(Resolved),
    /// It is under way.
    UnderWay,
}

struct Open {
    escalation: Box<Escalation>,
    /// The engine's name of it.
    run: JobId,
    received: Instant,
    expires: Option<Instant>,
    started: Option<Instant>,
    crashes: u32,
}

/// The table.
pub(super) struct Desk {
    commands: mpsc::Sender<EngineCommand>,
    calibrations: BTreeMap<TaskName, Knowledge>,
    slots: usize,
    child: Option<u64>,
    model: ModelName,
    open: BTreeMap<Key, Open>,
    waiting: VecDeque<Key>,
    running: HashMap<JobId, Key>,
    resolved: HashMap<Key, Resolved>,
    order: VecDeque<Key>,
    bytes: usize,
    runs: u64,
}

impl Desk {
    /// Nothing is under way.
    pub(super) fn new(
        commands: mpsc::Sender<EngineCommand>,
        slots: u32,
        calibrations: BTreeMap<TaskName, Knowledge>,
    ) -> Self {
        Self {
            commands,
            calibrations,
            slots: usize::try_from(slots).unwrap_or(usize::MAX),
            child: None,
            model: super::engine_side::no_model(),
            open: BTreeMap::new(),
            waiting: VecDeque::new(),
            running: HashMap::new(),
            resolved: HashMap::new(),
            order: VecDeque::new(),
            bytes: 0,
            runs: 0,
        }
    }

    /// An escalation came, at most for so long.
    pub(super) fn take(&mut self, mut escalation: Box<Escalation>, left: Option<Duration>) -> Taken {
        let key = (escalation.origin.clone(), escalation.job);
        if let Some(resolved) = self.resolved.get(&key) {
            return Taken::Resolved(resolved.clone());
        }
        if self.open.contains_key(&key) {
            return Taken::UnderWay;
        }
        if let Some(came) = &escalation.prompt.traceparent {
            let trace = hop(came);
            info!(origin = %key.0, job = %key.1, %trace, parent = came.parent_id(), "an escalation came");
            escalation.prompt.traceparent = Some(trace);
        }
        self.runs += 1;
        let now = Instant::now();
        let expires = left.map(|left| now + left);
        let run = JobId(self.runs);
        let open = Open { escalation, run, received: now, expires, started: None, crashes: 0 };
        self.open.insert(key.clone(), open);
        self.waiting.push_back(key);
        self.start();
        Taken::UnderWay
    }

    /// When [`Self::expire`] has something to do.
    pub(super) fn next_expiry(&self) -> Option<Instant> {
        self.open.values().filter_map(|open| open.expires).min()
    }

    /// Ends what nobody waits for any more.
    pub(super) fn expire(&mut self) -> Vec<Key> {
        let now = Instant::now();
        let over: Vec<Key> = self
            .open
            .iter()
            .filter(|(_, o)| o.expires.is_some_and(|at| at <= now))
            .map(|(key, _)| key.clone())
            .collect();
        for key in &over {
            self.end(key, error(ErrorCode::Expired, "the escalation expired at the worker"), None);
        }
        over
    }

    /// Something of the engine; the escalation that it ended, if it did.
    pub(super) fn engine(&mut self, report: EngineReport) -> Vec<Key> {
        match report {
            EngineReport::Ready { child, loaded, .. } => {
                self.child = Some(child);
                self.model = loaded.model;
                self.start();
                Vec::new()
            }
            EngineReport::Gone { .. } => self.crashed(),
            // A worker lets no other engine take over.
            EngineReport::Token(..) | EngineReport::Speed { .. } | EngineReport::Handover(_) => Vec::new(),
            EngineReport::Done(done) => self.done(&done).into_iter().collect(),
            EngineReport::Failed(run, fault) => self.failed(run, fault).into_iter().collect(),
        }
    }

    /// The resolution of an escalation that has ended.
    pub(super) fn resolution(&self, key: &Key) -> Option<&Resolved> {
        self.resolved.get(key)
    }

    /// Starts what fits. A suspect runs alone.
    fn start(&mut self) {
        let Some(child) = self.child else { return };
        while let Some(key) = self.waiting.front() {
            let Some(open) = self.open.get_mut(key) else {
                self.waiting.pop_front();
                continue;
            };
            let alone = open.crashes > 0 || self.running.len() == 1 && self.suspect_runs();
            let room = if alone { 1 } else { self.slots };
            if self.running.len() >= room {
                return;
            }
            let Some(open) = self.open.get_mut(key) else { return };
            if self.commands.try_send(EngineCommand::run(child, run_of(open.run, &open.escalation))).is_err() {
                return;
            }
            open.started = Some(Instant::now());
            self.running.insert(open.run, key.clone());
            self.waiting.pop_front();
        }
    }

    fn suspect_runs(&self) -> bool {
        self.running.values().filter_map(|key| self.open.get(key)).any(|open| open.crashes > 0)
    }

    /// The engine died: what ran is suspect and runs again, alone.
    fn crashed(&mut self) -> Vec<Key> {
        self.child = None;
        let mut dead = Vec::new();
        let mut suspects: Vec<Key> = self.running.drain().map(|(_, key)| key).collect();
        suspects.sort_unstable();
        let alone = suspects.len() == 1;
        for key in suspects.into_iter().rev() {
            let Some(open) = self.open.get_mut(&key) else { continue };
            // Who died in company is suspected; only who dies alone has done it.
            open.crashes = if alone { open.crashes + 1 } else { open.crashes.max(1) };
            warn!(origin = %key.0, job = %key.1, crashes = open.crashes, "ran while the engine died");
            if alone && open.crashes >= CRASHES_MAX {
                self.end(&key, error(ErrorCode::Dead, "the escalation crashed the worker's engine"), None);
                dead.push(key);
            } else {
                // A new name: late words about the old run are nobody's.
                self.runs += 1;
                open.run = JobId(self.runs);
                self.waiting.push_front(key);
            }
        }
        dead
    }

    fn done(&mut self, done: &Done) -> Option<Key> {
        let key = self.running.remove(&done.job)?;
        let task = &self.open.get(&key)?.escalation.task;
        let checker = task.schema.as_deref().map(Checker::new);
        let outcome = match checker {
            Some(Err(_)) => error(ErrorCode::Invalid, "the task's schema cannot be used by this worker"),
            checker => {
                let checker = checker.and_then(Result::ok);
                match schema::body(&done.text, checker.as_ref()).filter(|_| done.stop == Stop::End) {
                    Some(body) => fitted(body, task.max_bytes),
                    None => error(ErrorCode::Cut, "no valid ending within max_tokens"),
                }
            }
        };
        self.end(&key, outcome, Some(done));
        self.start();
        Some(key)
    }

    fn failed(&mut self, run: JobId, fault: Fault) -> Option<Key> {
        let key = self.running.remove(&run)?;
        let outcome = match fault {
            Fault::Cut => error(ErrorCode::Cut, "no valid ending within max_tokens"),
            // A worker sets no floor.
            Fault::Hopeless { .. } => error(ErrorCode::Unresolved, "the worker's engine gave up"),
            Fault::Aborted => error(ErrorCode::Expired, "the escalation expired at the worker"),
            Fault::TooLong { tokens, context_tokens } => {
                let message = format!("prompt is {tokens} tokens, the worker's context window is {context_tokens}");
                ResolvedOutcome::Error { code: ErrorCode::TooLarge, message }
            }
            Fault::Schema(why) | Fault::Other(why) => {
                ResolvedOutcome::Error { code: ErrorCode::Unresolved, message: format!("the worker's engine: {why}") }
            }
        };
        self.end(&key, outcome, None);
        self.start();
        Some(key)
    }

    /// Writes down a resolution.
    fn end(&mut self, key: &Key, outcome: ResolvedOutcome, done: Option<&Done>) {
        let Some(open) = self.open.remove(key) else { return };
        if self.running.remove(&open.run).is_some()
            && let Some(child) = self.child
            && self.commands.try_send(EngineCommand::abort(child, open.run)).is_err()
        {
            warn!("the engine takes no aborts, the run goes on");
        }
        let is_error = matches!(outcome, ResolvedOutcome::Error { .. });
        let trace = open.escalation.prompt.traceparent.as_ref().map(tracing::field::display);
        info!(origin = %key.0, job = %key.1, is_error, trace, "resolved");
        let confidence = done.filter(|_| !is_error).map(|done| self.confidence(&open.escalation, done));
        let resolution = Resolution {
            v: version(),
            job: key.1,
            origin: key.0.clone(),
            attempt: open.escalation.attempt,
            outcome,
            confidence,
            model: self.model.clone(),
            usage: done.map_or_else(Usage::default, |d| Usage {
                prompt_tokens: d.prompt_tokens,
                completion_tokens: d.completion_tokens,
            }),
            timing: timing(&open, done),
            traceparent: open.escalation.prompt.traceparent.clone(),
        };
        self.remember(key.clone(), &open.escalation.device, &resolution);
    }

    fn confidence(&self, escalation: &Escalation, done: &Done) -> f64 {
        let prompt_bytes = u32::try_from(escalation.prompt.text_bytes()).unwrap_or(u32::MAX);
        let signals = Signals { prompt_bytes, ..crate::up::signals(done) };
        let known = self.calibrations.get(&escalation.task.name);
        known.map_or_else(|| Calibration::identity().confidence(&signals), |known| known.confidence(&signals)).get()
    }

    fn remember(&mut self, key: Key, device: &DeviceId, resolution: &Resolution) {
        let topic = Topic::device(&key.0, DeviceTopic::Resolve, device).name();
        let resolved = Resolved { topic, payload: encode(resolution) };
        self.bytes += resolved.payload.len();
        self.resolved.insert(key.clone(), resolved);
        self.order.push_back(key);
        while self.order.len() > RESOLVED_MAX || self.bytes > RESOLVED_BYTES_MAX {
            let Some(oldest) = self.order.pop_front() else { return };
            self.bytes -= self.resolved.remove(&oldest).map_or(0, |r| r.payload.len());
        }
    }
}

fn timing(open: &Open, done: Option<&Done>) -> Timing {
    let ms = |from: Instant, to: Instant| u64::try_from(to.duration_since(from).as_millis()).unwrap_or(u64::MAX);
    Timing {
        queued_ms: open.started.map_or(0, |started| ms(open.received, started)),
        prefill_ms: done.map_or(0, |d| d.prefill_ms),
        decode_ms: done.map_or(0, |d| d.decode_ms),
        total_ms: ms(open.received, Instant::now()),
    }
}

/// An answer, unless it is larger than the task allows.
fn fitted(body: Body, max_bytes: u32) -> ResolvedOutcome {
    let bytes = body.to_line().len();
    let max = usize::try_from(max_bytes).unwrap_or(usize::MAX).min(OUTCOME_BYTES_MAX / 2);
    if bytes <= max {
        return ResolvedOutcome::Answer(body);
    }
    let message = format!("answer is {bytes} bytes, limit is {max}");
    ResolvedOutcome::Error { code: ErrorCode::TooLarge, message }
}

fn error(code: ErrorCode, message: &str) -> ResolvedOutcome {
    ResolvedOutcome::Error { code, message: message.to_owned() }
}
