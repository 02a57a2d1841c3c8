//! Does what the dispatcher says: each command becomes an order to one shell.

use super::bridge::{Past, Wait};
use super::delivery::{self, Facts};
use super::hub::Hub;
use super::ingress::refusal;
use super::message::{Report, Task, ToBridge};
use super::onlookers;
use crate::engine::EngineCommand;
use crate::schema;
use bytes::Bytes;
use tidegate_broker::{Ephemeral, Verdict};
use tidegate_core::{Command, EngineFault, Event, Inference, Keepsake, Note, Ticket};
use tidegate_engine::protocol::{Floor, Run};
use tidegate_schemas::{
    ContentHash, DeviceId, Encoding, ErrorCode, ErrorFrame, Escalation, Frame, Input, JobId, Message, Prompt, Reply,
    Resolution, ResolvedOutcome, Role, Route, TraceParent,
};
use tidegate_spool::{Change, EscalationRecord, OutcomeRecord, PromptRecord, Reach, Stamp};
use tracing::{debug, error, info, warn};

impl Hub {
    /// All of them, in order.
    pub(super) fn perform(&mut self, commands: Vec<Command>) {
        for command in commands {
            self.perform_one(command);
        }
    }

    fn perform_one(&mut self, command: Command) {
        self.meter.note(&command, self.second());
        match command {
            Command::Keep(keepsake) => self.keep(keepsake),
            Command::Acknowledge { ticket, frame } => self.tickets.end(ticket, |encoding| Verdict::Kept {
                frame: frame.and_then(|frame| encoding.frame(&frame)).map(Bytes::from),
            }),
            Command::Refuse { ticket, error } => self.tickets.end(ticket, |encoding| refusal(encoding, error)),
            Command::SendStored { ticket, job, device } => self.send_stored(ticket, job, device),
            Command::MarkAttempt { job, attempt } => self.submit(Task::Mark(job, attempt)),
            Command::Infer(inference) => self.infer(&inference),
            Command::Abort(job) => self.abort(job),
            Command::KeepEscalation { job, escalation, provisional } => {
                let provisional = provisional.map(|answer| *answer);
                if let Some(facts) = self.facts.get_mut(&job) {
                    facts.wait = Some(Wait::from(Stamp::now()));
                }
                let change = Change::Escalate(EscalationRecord { job, escalation: *escalation, provisional });
                self.submit_as(change, Task::Escalate(job));
            }
            Command::Publish(escalation) => self.publish(escalation),
            Command::Conclude { job, ref dead, .. } => {
                let dead = dead.clone().map(delivery::reason);
                if let Some(record) = delivery::record(command, self.facts.get(&job)) {
                    self.submit(Task::Conclude(Box::new(record), dead));
                }
            }
            Command::Deliver { job, device } => self.deliver(job, &device),
            Command::Send { job, device, encoding, frame } => self.send(job, &device, encoding, &frame),
            Command::Note(note) => self.note(note),
        }
    }

    fn keep(&mut self, keepsake: Keepsake) {
        let Keepsake { job, device, prompt, encoding, bytes, hash, .. } = keepsake;
        let reply = std::mem::take(&mut self.asking);
        let hash = hash.unwrap_or_else(|| prompt.content_hash());
        let facts = self.facts_of(&prompt, hash, reply.clone());
        self.facts.insert(job, facts);
        self.onlookers.kept(job);
        if let Some(trace) = self.trace(job) {
            info!(%job, %device, trace, "accepted");
        }
        let prompt = (*prompt).clone();
        let record = PromptRecord { job, device, prompt, encoding, bytes, stamp: Stamp::now(), attempts: 0, reply };
        self.submit_as(Change::Keep(record), Task::Keep(job));
    }

    /// What is remembered of an open prompt.
    pub(super) fn facts_of(&self, prompt: &Prompt, hash: ContentHash, reply: Reply) -> Facts {
        let name = prompt.task.as_ref().unwrap_or(&self.default_task);
        let cloud = self.view.tasks.iter().any(|card| card.name == *name && card.cloud);
        let reach = if cloud && !prompt.local { Reach::Cloud } else { Reach::Host };
        let trace = prompt.traceparent.clone();
        Facts { hash, task: prompt.task.clone(), reach, reply, trace, wait: None }
    }

    fn infer(&mut self, inference: &Inference) {
        let run = run(inference);
        let job = run.job;
        let sent = match self.view.child {
            Some(child) => self.hands.engine.try_send(EngineCommand::run(child, run)).is_ok(),
            None => false,
        };
        if !sent {
            let fault = EngineFault::Other("the engine takes no runs".to_owned());
            self.later(Event::InferenceFailed { job, fault });
        }
    }

    fn abort(&mut self, job: JobId) {
        // Of the one that runs it and the one that replaced it, the other knows no such run.
        for child in self.view.child.into_iter().chain(self.view.serving.retiring) {
            if self.hands.engine.try_send(EngineCommand::abort(child, job)).is_err() {
                warn!(%job, "the engine takes no aborts, the run goes on");
            }
        }
    }

    fn publish(&mut self, escalation: Box<Escalation>) {
        let (job, attempt) = (escalation.job, escalation.attempt);
        let wait = self.facts.get_mut(&job).and_then(|facts| facts.wait.as_mut());
        let past = wait.map_or(Past::NONE, |wait| wait.publishes(attempt, &Stamp::now()));
        let sent = match &self.hands.bridge {
            Some(bridge) => bridge.try_send(ToBridge::Publish(escalation, past)).is_ok(),
            None => false,
        };
        if !sent {
            self.later(Event::EscalationUnsent { job, attempt });
        }
    }

    fn send(&self, job: JobId, device: &DeviceId, encoding: Encoding, frame: &Frame) {
        let how = if matches!(frame, Frame::Answer(_)) { Ephemeral::Provisional } else { Ephemeral::Lossy };
        if let Some(payload) = encoding.frame(frame) {
            if onlookers::is_page(device) {
                return self.onlookers.show(job, payload.into());
            }
            let reply = self.facts.get(&job).map(|facts| facts.reply.clone()).unwrap_or_default();
            self.hands.front.send_to(device, payload.into(), how, reply);
        }
    }

    fn send_stored(&self, ticket: Ticket, job: JobId, device: DeviceId) {
        let reports = self.hands.reports.clone();
        self.hands.spool.outcome(job, move |record| {
            let _ = reports.send(Report::Fetched { ticket, device, record: record.map(Box::new) });
        });
    }

    /// A stored outcome was read for a publish that asked for it.
    pub(super) fn fetched(&mut self, ticket: Ticket, device: &DeviceId, record: Option<Box<OutcomeRecord>>) {
        let Some(record) = record else {
            let message = "the outcome is not stored any more".to_owned();
            let error = ErrorFrame { id: None, code: ErrorCode::UnknownId, message, retry_after_ms: None };
            return self.tickets.end(ticket, |encoding| refusal(encoding, error));
        };
        let reply = self.tickets.reply(ticket).unwrap_or_else(|| record.reply.clone());
        self.hands.front.send_to(device, delivery::fetched(*record).into(), Ephemeral::Outcome, reply);
        self.tickets.end(ticket, |_| Verdict::Kept { frame: None });
    }

    fn deliver(&mut self, job: JobId, device: &DeviceId) {
        if onlookers::is_page(device) {
            return self.deliver_to_page(job, device);
        }
        if let Some(outgoing) = self.ready.remove(&job) {
            return self.hands.front.deliver(device, outgoing);
        }
        let reports = self.hands.reports.clone();
        self.hands.spool.outcome(job, move |record| {
            let _ = reports.send(Report::Read(record.map(Box::new)));
        });
    }

    /// A stored outcome was read, to be delivered.
    pub(super) fn read(&mut self, record: Option<Box<OutcomeRecord>>) {
        let Some(record) = record.filter(|record| !record.released) else { return };
        let device = record.device.clone();
        self.hands.front.deliver(&device, delivery::outgoing(*record));
    }

    /// A resolution from the cloud: what fits neither task nor size is dropped, the rest is the dispatcher's.
    pub(super) fn resolution(&mut self, number: u64, resolution: Box<Resolution>) {
        let job = resolution.job;
        if let Some(trace) = &resolution.traceparent {
            info!(%job, %trace, model = %resolution.model, "a resolution came");
        }
        if !self.fits(&resolution) {
            warn!(%job, "dropped a resolution that does not fit its task");
            self.view.misfits += 1;
            return self.settled(number);
        }
        let commands = self.dispatcher.handle(Event::Resolved(resolution), super::clock::now());
        let concludes = commands.iter().any(|c| matches!(c, Command::Conclude { job: ended, .. } if *ended == job));
        self.perform(commands);
        let earlier = if concludes { self.settle.insert(job, number) } else { Some(number) };
        earlier.into_iter().for_each(|number| self.settled(number));
    }

    fn fits(&self, resolution: &Resolution) -> bool {
        let ResolvedOutcome::Answer(body) = &resolution.outcome else { return true };
        let Some(facts) = self.facts.get(&resolution.job) else { return true };
        let task = facts.task.as_ref().unwrap_or(&self.default_task);
        schema::accepts(body, self.checkers.get(task))
    }

    /// The bridge may acknowledge that resolution.
    pub(super) fn settled(&self, number: u64) {
        let Some(bridge) = &self.hands.bridge else { return };
        if bridge.try_send(ToBridge::Settled(number)).is_err() {
            // It is sent again with the next connection, and is stray then.
            warn!(number, "the bridge takes no orders, a resolution stays unacknowledged");
        }
    }

    /// An event that follows from a command, after what is already under way.
    pub(super) fn later(&self, event: Event) {
        let _ = self.hands.reports.send(Report::Event(event));
    }

    fn note(&mut self, note: Note) {
        match note {
            Note::Judged { job, judgement, way, left_ms } => self.judged.add(job, judgement, way, left_ms),
            Note::Labelled { task, signals, agree } => self.learned.label(&task, &signals, agree),
            Note::Refused { device, code } => info!(%device, %code, "refused"),
            Note::Strain(Some(strain)) => {
                warn!(strain = strain.as_str(), "sparing this machine: work goes to the cloud where it may")
            }
            Note::Strain(None) => info!("this machine need not be spared any more"),
            Note::KeptLocal { job, reason } => debug!(%job, %reason, trace = self.trace(job), "kept local"),
            Note::Escalated { job, reason } => info!(%job, %reason, trace = self.trace(job), "escalated"),
            Note::Ended { job, route, code } => self.note_end(job, route, code),
            Note::StrayResolution { job } => info!(%job, "dropped a resolution of nothing that is open"),
            Note::Suspect { job, attempt } => warn!(%job, attempt, "ran while the engine died"),
        }
    }

    /// What belongs to somebody's trace is told at `info`, so that they find it; the rest is routine.
    fn note_end(&self, job: JobId, route: Option<Route>, code: Option<ErrorCode>) {
        match (self.trace(job), code) {
            (trace, Some(code)) => info!(%job, %code, trace, "ended in an error"),
            (Some(trace), None) => info!(%job, ?route, trace, "ended"),
            (None, None) => debug!(%job, ?route, "ended"),
        }
    }

    /// The trace that an open prompt belongs to.
    fn trace(&self, job: JobId) -> Option<&str> {
        self.facts.get(&job)?.trace.as_ref().map(TraceParent::as_str)
    }

    /// The process cannot go on.
    pub(super) fn fail(&mut self, failure: crate::failure::Failure) {
        error!(%failure, "stopping");
        self.fatal.get_or_insert(failure);
    }
}

/// What the engine is told.
pub(super) fn run(inference: &Inference) -> Run {
    let messages = match &inference.prompt.input {
        Input::Input(text) => vec![Message { role: Role::User, content: text.clone() }],
        Input::Messages(list) => list.clone(),
    };
    Run {
        job: inference.job,
        system: inference.task.system.clone(),
        messages,
        schema: inference.task.schema.clone(),
        max_tokens: inference.task.max_tokens,
        stream: inference.stream,
        floor: inference.floor.map(|floor| Floor { sums: floor.sums }),
    }
}
