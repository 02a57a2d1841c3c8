//! The closed loop: events in, commands out. It owns every accepted prompt until its outcome is stored.
//!
//! Invariants: a job is in exactly one [`Stage`]; it is concluded once; at most `slots` inferences run, never two of
//! one job; a suspect runs alone; a prompt that may not leave the host is never escalated; every wait has an end, told
//! by [`Dispatcher::next_deadline`], or is for a shell that owes an event.

mod arrive;
mod cloud;
mod end;
mod look;
mod replace;
mod restore;
mod run;
mod times;

pub use look::{Standing, Whereabouts};

use crate::escalate::Recent;
use crate::gain::Gain;
use crate::job::{Job, Stage};
use crate::knowledge::{Knowledge, Sense};
use crate::learn::Learner;
use crate::load::LoadView;
use crate::predict::{Predictor, Work};
use crate::price::Price;
use crate::queue::Waiting;
use crate::risk::Unsupported;
use crate::route::Cloud;
use crate::seen::Seen;
use crate::site::{Bridge, Consent, Limits, Site, Task};
use crate::strain::Strain;
use crate::time::Now;
use crate::{Command, Event};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use tidegate_schemas::{DeviceId, JobId, ModelName, Origin, Prompt, TaskName};
use times::Times;

/// Whether the central broker can be reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Link {
    Up,
    Down,
}

/// Whether new work is begun.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    Serving,
    Draining,
}

/// An inference under way; it outlives its job where that was concluded before the engine stopped.
#[derive(Debug)]
struct Run {
    started: Now,
    work: Work,
    /// How long it was thought to take, in milliseconds.
    predicted_ms: u64,
    model: ModelName,
    /// Which of the engine's models, by their order, runs it.
    generation: u32,
    seq: u32,
    alone: bool,
}

/// What one device has without outcome.
#[derive(Debug, Clone, Copy, Default)]
struct Held {
    entries: u32,
    bytes: u64,
}

/// What the engine does. `marking` holds slots for jobs whose attempt is being written down.
#[derive(Debug, Default)]
struct Engine {
    model: Option<ModelName>,
    /// How many models took over from another one.
    generation: u32,
    /// What is known of the model before, for the answers that it still writes.
    before: BTreeMap<TaskName, Sense>,
    running: BTreeMap<JobId, Run>,
    marking: BTreeSet<JobId>,
}

/// Leads every prompt from arrival to its outcome.
#[derive(Debug)]
pub struct Dispatcher {
    origin: Origin,
    default_task: TaskName,
    tasks: BTreeMap<TaskName, Arc<Task>>,
    bridge: Bridge,
    limits: Limits,
    senses: BTreeMap<TaskName, Sense>,
    next_job: u64,
    jobs: BTreeMap<JobId, Job>,
    devices: BTreeMap<DeviceId, Held>,
    waiting: Waiting,
    engine: Engine,
    predictor: Predictor,
    times: Times,
    price: Price,
    strain: Option<Strain>,
    seen: Seen,
    link: Link,
    recent: Recent,
    escalated: BTreeSet<JobId>,
    ready: BTreeSet<JobId>,
    publishing: BTreeSet<JobId>,
    timers: BTreeSet<(Now, JobId)>,
    mode: Mode,
    waits_for_disk: usize,
    counts: LoadView,
    out: Vec<Command>,
}

impl Dispatcher {
    /// A dispatcher without jobs; numbers of new jobs start at `next_job`. A task of which nothing is known takes the
    /// model's own probability as it is.
    #[must_use]
    pub fn new(site: Site, known: BTreeMap<TaskName, Knowledge>, next_job: JobId) -> Self {
        let tasks: BTreeMap<_, _> = site.tasks.into_iter().map(|(name, task)| (name, Arc::new(task))).collect();
        Self {
            predictor: replace::predictor(&tasks),
            times: Times::default(),
            price: Price::new(site.limits.escalations_per_hour),
            strain: None,
            seen: Seen::new(site.limits.seen_keep_ms, site.limits.seen_per_device_max),
            origin: site.origin,
            default_task: site.default_task,
            senses: replace::senses(&tasks, known),
            tasks,
            bridge: site.bridge,
            limits: site.limits,
            next_job: next_job.0,
            jobs: BTreeMap::new(),
            devices: BTreeMap::new(),
            waiting: Waiting::default(),
            engine: Engine::default(),
            link: Link::Down,
            recent: Recent::default(),
            escalated: BTreeSet::new(),
            ready: BTreeSet::new(),
            publishing: BTreeSet::new(),
            timers: BTreeSet::new(),
            mode: Mode::Serving,
            waits_for_disk: 0,
            counts: LoadView::default(),
            out: Vec::new(),
        }
    }

    /// One event; what is to be done about it, in order.
    pub fn handle(&mut self, event: Event, now: Now) -> Vec<Command> {
        self.fire_due(now);
        self.on(event, now);
        self.settle(now)
    }

    /// What time, free slots and free places in the window make possible.
    fn settle(&mut self, now: Now) -> Vec<Command> {
        self.fire_due(now);
        self.schedule(now);
        self.publish_ready(now);
        std::mem::take(&mut self.out)
    }

    fn on(&mut self, event: Event, now: Now) {
        match event {
            Event::Arrived(arrival) => self.arrived(arrival, now),
            Event::Controlled { ticket, device, control, .. } => self.controlled(ticket, &device, &control, now),
            Event::Kept(job) => self.kept(job, now),
            Event::NotKept { job, why } => self.not_kept(job, &why),
            Event::AttemptMarked(job) => self.attempt_marked(job, now),
            Event::EscalationKept(job) => self.escalation_kept(job),
            Event::EscalationNotKept(job) => self.escalation_not_kept(job, now),
            Event::Concluded(job) => self.concluded(job, now),
            Event::EngineReady { model, .. } => self.engine_ready(model, now),
            Event::EngineGone => self.engine_gone(now),
            Event::EngineReplaced { model, known } => self.engine_replaced(model, *known),
            Event::OldEngineGone => self.old_engine_gone(now),
            Event::Token { job, text } => self.token(job, text),
            Event::Completed { job, completion } => self.completed(job, *completion, now),
            Event::InferenceFailed { job, fault } => self.inference_failed(job, fault, now),
            Event::LinkUp => self.link_up(now),
            Event::LinkDown => self.link_down(),
            Event::EscalationSent { job, attempt } => self.escalation_sent(job, attempt, now),
            Event::EscalationUnsent { job, attempt } => self.escalation_unsent(job, attempt, now),
            Event::EscalationRefused { job, attempt, by } => self.escalation_refused(job, attempt, by, now),
            Event::Dropped(job, what) => self.dropped(job, what, now),
            Event::Resolved(resolution) => self.resolved(*resolution, now),
            Event::Machine(condition) => self.machine(condition),
            Event::Tick => {}
            Event::Drain => self.mode = Mode::Draining,
        }
    }

    /// When the shell sends `Tick` at the latest.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Now> {
        self.timers.first().map(|(at, _)| *at)
    }

    /// Queues and counters.
    #[must_use]
    pub fn load(&self) -> LoadView {
        LoadView {
            queued: self.waiting.len() as u64,
            running: self.engine.running.len() as u64,
            escalated: self.escalated.len() as u64,
            inbox_entries: self.jobs.len() as u64,
            seen: self.seen.answered() as u64,
            strain: self.strain,
            decode_tokens_per_s: self.predictor.decode_tokens_per_s(),
            prefill_bytes_per_s: self.predictor.prefill_bytes_per_s(),
            ..self.counts
        }
    }

    /// What was learned of each task, for a file.
    #[must_use]
    pub fn learned(&self) -> BTreeMap<TaskName, (Learner, Gain)> {
        self.senses.iter().map(|(name, sense)| (name.clone(), sense.known().learned())).collect()
    }

    /// Tasks whose promise no labelled answers support, and why: nothing of theirs is kept on it.
    #[must_use]
    pub fn unsupported(&self) -> Vec<(TaskName, Unsupported)> {
        self.senses.iter().filter_map(|(name, sense)| Some((name.clone(), sense.unsupported()?))).collect()
    }

    /// After `Drain`: nothing runs any more, nothing waits for the disk. What has no outcome stays on disk.
    #[must_use]
    pub fn drained(&self) -> bool {
        self.mode == Mode::Draining && self.engine.running.is_empty() && self.waits_for_disk == 0
    }

    /// Moves a job to a stage, and everything that follows from where it stands: queue, sets, timer.
    fn enter(&mut self, id: JobId, stage: Stage) {
        let Some(job) = self.jobs.get_mut(&id) else { return };
        let before = std::mem::replace(&mut job.stage, stage);
        self.waits_for_disk += usize::from(stage.waits_for_disk());
        self.waits_for_disk -= usize::from(before.waits_for_disk());
        match before {
            Stage::Queued => self.waiting.remove(&job.device, job.place()),
            Stage::Marking => {
                self.engine.marking.remove(&id);
            }
            Stage::Escalated => {
                self.escalated.remove(&id);
                self.ready.remove(&id);
            }
            Stage::Keeping | Stage::Running | Stage::KeepingEscalation | Stage::Concluding => {}
        }
        match stage {
            Stage::Queued if job.suspect => self.waiting.push_suspect(id, job.work),
            Stage::Queued => self.waiting.push(&job.device, job.place(), job.work),
            Stage::Marking => {
                self.engine.marking.insert(id);
            }
            Stage::Escalated => {
                self.escalated.insert(id);
            }
            Stage::Keeping | Stage::Running | Stage::KeepingEscalation | Stage::Concluding => {}
        }
        self.retime(id);
    }

    /// Sets the moment at which time alone changes something for this job.
    fn retime(&mut self, id: JobId) {
        let Some(job) = self.jobs.get_mut(&id) else { return };
        let due = match (job.stage, job.case.as_deref()) {
            (Stage::Queued | Stage::Marking | Stage::Running, _) => job.deadline(),
            (Stage::Escalated, Some(case)) => {
                let idle = self.link == Link::Down || self.ready.contains(&id) || self.publishing.contains(&id);
                let leg = if idle { None } else { case.leg.due() };
                Some(leg.map_or(case.give_up, |at| at.min(case.give_up)))
            }
            _ => None,
        };
        if due == job.timer {
            return;
        }
        if let Some(old) = std::mem::replace(&mut job.timer, due) {
            self.timers.remove(&(old, id));
        }
        if let Some(at) = due {
            self.timers.insert((at, id));
        }
    }

    fn fire_due(&mut self, now: Now) {
        while let Some(&(at, id)) = self.timers.first().filter(|(at, _)| *at <= now) {
            self.timers.remove(&(at, id));
            if let Some(job) = self.jobs.get_mut(&id) {
                job.timer = None;
                self.time_passed(id, now);
                self.retime(id);
            }
        }
    }

    fn time_passed(&mut self, id: JobId, now: Now) {
        match self.jobs.get(&id).map(|job| (job.stage, job.deadline())) {
            Some((Stage::Queued | Stage::Marking | Stage::Running, Some(deadline))) if deadline <= now => {
                self.expire(id, now);
            }
            Some((Stage::Escalated, _)) => self.leg_due(id, now),
            _ => {}
        }
    }

    /// What the cloud can do for a prompt now.
    fn cloud(&self, task: &Task, prompt: &Prompt) -> Cloud {
        match (self.bridge, task.consent, self.link) {
            _ if prompt.local => Cloud::LocalOnly,
            (_, Consent::Never, _) => Cloud::LocalOnly,
            (Bridge::None, ..) => Cloud::NoCloud,
            (Bridge::Configured, Consent::Allowed, Link::Down) => Cloud::LinkDown,
            (Bridge::Configured, Consent::Allowed, Link::Up) => Cloud::LinkUp { reach: self.recent.interval() },
        }
    }
}
