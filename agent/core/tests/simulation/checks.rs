//! What must hold after every event, and at the end of a life.

use crate::devices::{Asked, content, site, task};
use crate::world::{Met, World};
use std::collections::{BTreeMap, BTreeSet};
use tidegate_core::{Command, Event, Inference, Ticket};
use tidegate_schemas::{Encoding, Escalation, Frame, JobId, Prompt, Reason};

/// What was seen, as far as the promises speak of it.
#[derive(Default)]
pub(crate) struct Checks {
    accepted: BTreeSet<usize>,
    runs: BTreeMap<JobId, u32>,
    deaths: BTreeMap<JobId, u32>,
    suspects: BTreeSet<JobId>,
    alone: Option<JobId>,
    concluding: BTreeSet<JobId>,
}

impl Checks {
    fn died(&mut self, running: &[JobId]) {
        running.iter().for_each(|job| *self.deaths.entry(*job).or_default() += 1);
        self.alone = None;
    }

    pub(crate) fn engine_died(&mut self, running: &[JobId]) {
        self.died(running);
        self.suspects.extend(running);
    }

    /// What had no outcome may run again, whether it ran at that moment or had run before.
    pub(crate) fn process_died(&mut self, open: &[JobId]) {
        self.died(open);
        self.suspects.clear();
        self.concluding.clear();
    }

    pub(crate) fn reported(&mut self, event: &Event, met: &mut Met) {
        match event {
            Event::NotKept { .. } => met.note("not kept"),
            Event::EscalationNotKept(_) => met.note("escalation not kept"),
            _ => {}
        }
    }
}

impl World {
    pub(crate) fn check_command(&mut self, command: &Command) {
        match command {
            Command::Acknowledge { ticket, frame } => self.check_acknowledged(*ticket, frame.as_ref()),
            Command::SendStored { ticket, job, device } => {
                self.met.note("stored again");
                let outcome = self.disk.outcomes.get(job).expect("a stored outcome that is not on disk");
                assert_eq!(&outcome.device, device);
                if let Some(Asked::Prompt(n)) = self.devices.open.get(ticket) {
                    assert_eq!(content(&outcome.prompt), *n, "the outcome of another prompt");
                }
            }
            Command::Refuse { error, .. } => self.met.note(error.code.as_str()),
            Command::Infer(inference) => self.check_infer(inference),
            Command::KeepEscalation { job, escalation, .. } => self.check_escalation(*job, escalation),
            Command::Publish(escalation) => self.check_publish(escalation),
            Command::Conclude { job, outcome, .. } => self.check_conclude(*job, outcome),
            Command::Deliver { job, .. } => {
                assert!(self.disk.outcomes.contains_key(job), "job {job} delivered before its outcome was stored");
            }
            Command::Send { encoding, frame, .. } => {
                assert!(!frame.is_outcome(), "an outcome was sent without being stored");
                assert_ne!(*encoding, Encoding::Text, "bare text gets nothing but the outcome");
                if matches!(**frame, Frame::Answer(_)) {
                    self.met.note("provisional");
                }
            }
            Command::Abort(job) => assert!(self.engine.ran(*job, self.now), "abort of job {job}, which does not run"),
            Command::Keep(_) | Command::MarkAttempt { .. } | Command::Note(_) => {}
        }
    }

    /// Promise 1: what is acknowledged is on disk.
    fn check_acknowledged(&mut self, ticket: Ticket, frame: Option<&Frame>) {
        assert!(frame.is_none_or(|f| matches!(f, Frame::Accepted(_))));
        let Some(Asked::Prompt(n)) = self.devices.open.get(&ticket) else { return };
        assert!(self.on_disk(*n), "prompt {n} was acknowledged and is not on disk");
        let bare = self.devices.plans[*n].encoding == Encoding::Text;
        assert_eq!(frame.is_none(), bare, "accepted goes to every device but those of bare text");
        self.checks.accepted.insert(*n);
    }

    fn on_disk(&self, n: usize) -> bool {
        let is = |prompt: &Prompt| content(prompt) == n;
        self.disk.inbox.values().any(|kept| is(&kept.keepsake.prompt))
            || self.disk.outcomes.values().any(|outcome| is(&outcome.prompt))
    }

    /// Promise 3: never two at a time, one more per crash, two in all; a suspect alone.
    fn check_infer(&mut self, inference: &Inference) {
        let job = inference.job;
        assert!(self.engine.ready, "inference of job {job} without an engine");
        assert!(self.disk.inbox.contains_key(&job), "job {job} runs and is not on disk");
        assert!(!self.engine.runs(job), "job {job} runs twice at the same time");
        assert!(self.engine.busy() < site().limits.slots as usize, "more inferences than slots");
        assert!(self.checks.alone.is_none_or(|alone| !self.engine.runs(alone)), "job {job} beside a suspect");
        if self.checks.suspects.contains(&job) {
            assert_eq!(self.engine.busy(), 0, "suspect {job} beside others");
            self.checks.alone = Some(job);
        }
        let runs = self.checks.runs.entry(job).or_default();
        *runs += 1;
        let deaths = self.checks.deaths.get(&job).copied().unwrap_or(0);
        assert!(*runs <= 2 && *runs <= 1 + deaths, "job {job}: run {runs} after {deaths} crashes");
        assert!(*runs == 1 || self.disk.inbox[&job].attempts == 2, "run {runs} of job {job} is not marked on disk");
    }

    /// Promise 7.
    fn check_escalation(&mut self, job: JobId, escalation: &Escalation) {
        let prompt = &escalation.prompt;
        let closed = prompt.task == Some(task("closed"));
        assert!(!prompt.local && !closed, "job {job} is local-only and was escalated");
        assert_eq!(escalation.origin, site().origin);
        if escalation.reason == Reason::TooSlow {
            self.met.note("too_slow");
        }
    }

    /// Promise 4: on disk first, within the window, never past its expiry, a bounded number of times.
    fn check_publish(&mut self, escalation: &Escalation) {
        let job = escalation.job;
        self.check_escalation(job, escalation);
        let limits = site().limits;
        assert!(self.cloud.told, "job {job} published without a link");
        assert!(self.disk.outbox.contains_key(&job), "job {job} published before its escalation was stored");
        assert!(!self.cloud.in_flight.contains_key(&job), "job {job} published twice at the same time");
        assert!(self.cloud.in_flight.len() < limits.escalations_in_flight_max as usize, "window exceeded");
        assert!(escalation.attempt <= 1 + limits.escalation_attempts_max, "attempt {}", escalation.attempt);
        assert_ne!(escalation.expires_in_ms, Some(0), "job {job} published past its expiry");
    }

    /// Promise 2: one outcome, decided once by a process and stored once in a life.
    fn check_conclude(&mut self, job: JobId, outcome: &Frame) {
        assert!(outcome.is_outcome());
        assert!(self.disk.inbox.contains_key(&job), "an outcome of job {job}, which is not open");
        assert!(self.checks.concluding.insert(job), "a second outcome of job {job} was decided");
        match outcome {
            Frame::Answer(answer) => self.met.note(answer.reason.as_str()),
            Frame::Error(error) => self.met.note(error.code.as_str()),
            Frame::Accepted(_) | Frame::Token(_) => {}
        }
    }

    pub(crate) fn check_step(&self) {
        for n in &self.checks.accepted {
            assert!(self.on_disk(*n), "prompt {n} was accepted and is lost");
        }
        let load = self.load();
        let limits = site().limits;
        assert_eq!(load.running as usize, self.engine.busy());
        assert!(load.inbox_entries <= u64::from(limits.inbox_entries_max));
        assert!(load.outbox_entries <= u64::from(limits.outbox_entries_max));
        assert!(self.disk.outbox.keys().all(|job| self.disk.inbox.contains_key(job)));
    }

    /// Every accepted prompt has exactly one outcome, and nothing is left over.
    pub(crate) fn check_end(&self) {
        let open: Vec<_> = self.disk.inbox.keys().collect();
        assert!(open.is_empty(), "jobs without outcome at the end: {open:?}, {:?}", self.load());
        assert!(self.disk.outcomes.values().all(|outcome| outcome.frame.is_outcome()));
        let mut outcomes: BTreeMap<usize, u32> = BTreeMap::new();
        self.disk.outcomes.values().for_each(|o| *outcomes.entry(content(&o.prompt)).or_default() += 1);
        for n in &self.checks.accepted {
            assert!(outcomes.contains_key(n), "prompt {n} was accepted and has no outcome");
        }
        for (n, count) in outcomes {
            assert!(count == 1 || self.devices.plans[n].reused, "prompt {n} has {count} outcomes");
        }
        assert!(self.devices.open.is_empty(), "publishes that nobody answered");
        let load = self.load();
        let left = [load.queued, load.running, load.escalated, load.inbox_entries, load.inbox_bytes];
        assert_eq!((left, load.outbox_entries, load.outbox_bytes), ([0; 5], 0, 0));
    }
}
