//! The engine's side: who runs when, what came out, what happens when it dies. Invariants: at most `slots` at once;
//! a second attempt is written down before it begins; a suspect has the engine for itself.

use super::{Dispatcher, Mode, Run};
use crate::admit::elsewhere;
use crate::confidence::Confidence;
use crate::early::Floor;
use crate::event::{Completion, EngineFault, Signals};
use crate::job::{Failure, Job, Otherwise, Stage};
use crate::knowledge::{Judgement, Rule, Sense};
use crate::predict::Measured;
use crate::queue::Turn;
use crate::route::{Cloud, Doubt, Local, Policy, Way, route};
use crate::site::Provisional;
use crate::time::Now;
use crate::{Command, Dead, Inference, Note};
use std::collections::BTreeMap;
use std::sync::Arc;
use tidegate_schemas::{
    Answer, ErrorCode, Frame, JobId, ModelName, PromptText, Reason, Route, TaskSpec, Timing, Token,
};

impl Dispatcher {
    /// Fills free slots.
    pub(super) fn schedule(&mut self, now: Now) {
        while self.mode == Mode::Serving && self.engine.model.is_some() && !self.occupied() {
            let busy = self.engine.running.len() + self.engine.marking.len();
            match self.waiting.next(busy) {
                Some(Turn::Together(id) | Turn::Alone(id)) => self.start(id, now),
                None => return,
            }
        }
    }

    /// Whether nothing may start: all slots are taken, or one has the engine for itself.
    fn occupied(&self) -> bool {
        let taken = self.engine.running.len() + self.engine.marking.len();
        let marking_alone = self.engine.marking.iter().filter_map(|id| self.jobs.get(id)).any(|job| job.suspect);
        taken >= self.limits.slots as usize || marking_alone || self.engine.running.values().any(|run| run.alone)
    }

    /// It is the turn of this job, which has just left the queue.
    fn start(&mut self, id: JobId, now: Now) {
        let Some(job) = self.jobs.get(&id) else { return };
        let own = self.times.own(self.predictor.own_ms(job.work));
        let away = elsewhere(own, self.cloud(&job.task, &job.prompt), job.left_ms(now), self.strain);
        if job.runs >= self.limits.attempts_max {
            self.exhausted(id, now);
        } else if let Some(reason) = away.filter(|_| !job.here) {
            self.escalate_unrun(id, reason, now);
        } else if job.runs > 0 && job.marked <= job.runs {
            let attempt = job.runs + 1;
            self.enter(id, Stage::Marking);
            self.out.push(Command::MarkAttempt { job: id, attempt });
        } else {
            self.infer(id, now);
        }
    }

    pub(super) fn attempt_marked(&mut self, id: JobId, now: Now) {
        let Some(job) = self.jobs.get_mut(&id).filter(|job| job.stage == Stage::Marking) else { return };
        job.marked = job.runs + 1;
        if self.engine.model.is_some() && self.mode == Mode::Serving {
            self.infer(id, now);
        } else {
            self.enter(id, Stage::Queued);
        }
    }

    fn infer(&mut self, id: JobId, now: Now) {
        let Some(model) = self.engine.model.clone() else { return self.enter(id, Stage::Queued) };
        let floor = self.floor(id, now);
        let Some(job) = self.jobs.get_mut(&id) else { return };
        job.runs += 1;
        let inference = Inference {
            job: id,
            attempt: job.runs,
            prompt: Arc::clone(&job.prompt),
            task: spec(job),
            stream: job.prompt.stream && job.structured(),
            floor,
        };
        let predicted_ms = self.predictor.own_ms(job.work);
        let generation = self.engine.generation;
        let run = Run { started: now, work: job.work, predicted_ms, model, generation, seq: 0, alone: job.suspect };
        self.engine.running.insert(id, run);
        self.enter(id, Stage::Running);
        self.out.push(Command::Infer(inference));
    }

    pub(super) fn token(&mut self, id: JobId, text: PromptText) {
        let Some(job) = self.jobs.get(&id).filter(|job| job.stage == Stage::Running) else { return };
        let Some(run) = self.engine.running.get_mut(&id) else { return };
        if !(job.prompt.stream && job.structured()) {
            return;
        }
        let frame = Token { id: job.prompt_id().cloned(), attempt: job.runs, seq: run.seq, text };
        run.seq = run.seq.saturating_add(1);
        let (device, encoding) = (job.device.clone(), job.encoding);
        self.out.push(Command::Send { job: id, device, encoding, frame: Box::new(Frame::Token(frame)) });
    }

    pub(super) fn completed(&mut self, id: JobId, completion: Completion, now: Now) {
        let Some(run) = self.engine.running.remove(&id) else { return };
        let Some(job) = self.jobs.get(&id).filter(|job| job.stage == Stage::Running) else { return };
        let measured = Measured {
            bytes: run.work.bytes,
            tokens: completion.usage.completion_tokens,
            prefill_ms: completion.timing.prefill_ms,
            decode_ms: completion.timing.decode_ms,
        };
        if run.generation == self.engine.generation {
            self.predictor.measure(&job.task.spec.name, measured);
            self.times.learn(job, &run, now);
        }
        let judged = self.judge(id, &run, &completion.signals, now);
        let Some((way, confidence)) = judged else { return };
        let Some(job) = self.jobs.get(&id) else { return };
        let mut answer = answer(job, completion, confidence, &run, now);
        match way {
            Way::Keep(reason) | Way::Fail(reason) => {
                answer.reason = reason;
                self.keep_local(id, answer, now);
            }
            Way::Provisional(reason) => {
                answer.provisional = true;
                self.escalate(id, reason, Otherwise::Answer(Box::new(answer)), now);
            }
            Way::Escalate(reason) => self.escalate(id, reason, Otherwise::Answer(Box::new(answer)), now),
        }
    }

    /// What is thought of an answer, and what becomes of it.
    fn judge(&mut self, id: JobId, run: &Run, signals: &Signals, now: Now) -> Option<(Way, Confidence)> {
        let job = self.jobs.get(&id)?;
        let mut policy = self.policy(job, now);
        let prompt_bytes = u32::try_from(job.prompt.text_bytes()).unwrap_or(u32::MAX);
        let (name, left_ms, value) = (job.task.spec.name.clone(), policy.left_ms, job.task.value);
        let current = run.generation == self.engine.generation;
        let sense = if current { self.senses.get_mut(&name)? } else { self.engine.before.get_mut(&name)? };
        let judgement = sense.judge(&Signals { prompt_bytes, ..*signals }, unit(id));
        let audit = judgement.rule == Rule::Audit && matches!(policy.cloud, Cloud::LinkUp { .. });
        let judgement = Judgement { price: self.price.now(now), ..judgement };
        policy.doubt = match (judgement.sure || judgement.rule == Rule::Audit, sense.worth(&judgement)) {
            _ if audit => Doubt::Audit,
            (true, _) => Doubt::None,
            (false, false) => Doubt::NotWorth,
            (false, true) if sense.too_dear(&judgement, value) => Doubt::TooDear,
            (false, true) => Doubt::Worth,
        };
        let way = route(Local::Answer(judgement.confidence), policy);
        // What the cloud says of an answer teaches about the model that wrote it.
        if let Some(job) = self.jobs.get_mut(&id).filter(|_| current) {
            job.judgement = Some(judgement);
        }
        self.out.push(Command::Note(Note::Judged { job: id, judgement, way, left_ms }));
        Some((way, judgement.confidence))
    }

    /// Where an answer is given up while it is written: only where the cloud can be asked at once, and where there is
    /// time to run it here after all.
    fn floor(&self, id: JobId, now: Now) -> Option<Floor> {
        let job = self.jobs.get(&id).filter(|job| !job.here && job.runs == 0)?;
        let Cloud::LinkUp { .. } = self.cloud(&job.task, &job.prompt) else { return None };
        let own_ms = self.predictor.own_ms(job.work);
        let needs_ms = self.recent.typical_ms()?.saturating_mul(2).saturating_add(own_ms.saturating_mul(2));
        let in_time = job.left_ms(now).is_none_or(|left_ms| left_ms > needs_ms);
        self.senses.get(&job.task.spec.name).and_then(Sense::floor).filter(|_| in_time)
    }

    fn policy(&self, job: &Job, now: Now) -> Policy {
        Policy {
            doubt: Doubt::Worth,
            provisional: if job.structured() { job.task.provisional } else { Provisional::Withhold },
            cloud: self.cloud(&job.task, &job.prompt),
            left_ms: job.left_ms(now),
        }
    }

    pub(super) fn inference_failed(&mut self, id: JobId, fault: EngineFault, now: Now) {
        if self.engine.running.remove(&id).is_none() {
            return;
        }
        let Some(job) = self.jobs.get(&id).filter(|job| job.stage == Stage::Running) else { return };
        let (reason, code, message) = match fault {
            EngineFault::Aborted if self.mode == Mode::Draining => return self.enter(id, Stage::Queued),
            EngineFault::TooLong { tokens, context_tokens } => {
                let message = format!("prompt is {tokens} tokens, context window is {context_tokens}");
                (Reason::TooLong, ErrorCode::TooLarge, message)
            }
            EngineFault::Cut => {
                let message = format!("no valid ending within {} tokens", job.max_tokens());
                (Reason::NoValidEnding, ErrorCode::Cut, message)
            }
            EngineFault::Hopeless { .. } => return self.escalate_unrun(id, Reason::LowConfidence, now),
            EngineFault::Aborted => {
                (Reason::EngineFailed, ErrorCode::Unresolved, "the engine stopped the inference".to_owned())
            }
            EngineFault::Other(what) => {
                (Reason::EngineFailed, ErrorCode::Unresolved, format!("the engine failed: {what}"))
            }
        };
        self.nothing_local(id, reason, Failure { code, message }, now);
    }

    /// The gateway has no answer of its own: the cloud is asked, or this error is the outcome.
    pub(super) fn nothing_local(&mut self, id: JobId, reason: Reason, failure: Failure, now: Now) {
        let Some(job) = self.jobs.get(&id) else { return };
        match route(Local::Nothing(reason), self.policy(job, now)) {
            Way::Escalate(reason) | Way::Provisional(reason) => {
                self.escalate(id, reason, Otherwise::Fail(failure), now);
            }
            Way::Fail(_) | Way::Keep(_) => self.fail(id, failure),
        }
    }

    pub(super) fn engine_ready(&mut self, model: ModelName, now: Now) {
        self.engine_gone(now);
        self.engine.model = Some(model);
    }

    /// What ran is suspect: it runs again alone, unless it was alone already or may not run again.
    pub(super) fn engine_gone(&mut self, now: Now) {
        self.engine.model = None;
        let generation = self.engine.generation;
        self.lost(&|run| run.generation == generation, now);
    }

    /// These runs ended with their engine.
    pub(super) fn lost(&mut self, which: &dyn Fn(&Run) -> bool, now: Now) {
        let (lost, left) = std::mem::take(&mut self.engine.running).into_iter().partition(|(_, run)| which(run));
        self.engine.running = left;
        let lost: BTreeMap<JobId, Run> = lost;
        for (id, run) in lost {
            let Some(job) = self.jobs.get_mut(&id).filter(|job| job.stage == Stage::Running) else { continue };
            job.suspect = true;
            let (attempt, spent) = (job.runs, run.alone || job.runs >= self.limits.attempts_max);
            self.counts.suspects += 1;
            self.out.push(Command::Note(Note::Suspect { job: id, attempt }));
            if spent {
                self.exhausted(id, now);
            } else {
                self.enter(id, Stage::Queued);
            }
        }
    }

    /// It may not run here again.
    pub(super) fn exhausted(&mut self, id: JobId, now: Now) {
        let Some(job) = self.jobs.get_mut(&id) else { return };
        job.dead = Some(Dead::CrashedEngine { runs: job.runs });
        let message = format!("{} attempts did not end, limit is {}", job.runs, self.limits.attempts_max);
        self.nothing_local(id, Reason::EngineFailed, Failure { code: ErrorCode::Dead, message }, now);
    }
}

/// A number in 0..1 from a job's number (SplitMix64, Steele et al. 2014): no device chooses those, and a test can repeat
/// them.
fn unit(job: JobId) -> f64 {
    let mut z = job.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    ((z ^ (z >> 31)) >> 11) as f64 / (1_u64 << 53) as f64
}

/// The task for the engine, with the smaller `max_tokens` of task and prompt.
fn spec(job: &Job) -> Arc<TaskSpec> {
    let max_tokens = job.max_tokens();
    if max_tokens == job.task.spec.max_tokens {
        return Arc::clone(&job.task.spec);
    }
    Arc::new(TaskSpec { max_tokens, ..(*job.task.spec).clone() })
}

fn answer(job: &Job, completion: Completion, confidence: Confidence, run: &Run, now: Now) -> Answer {
    Answer {
        id: job.prompt_id().cloned(),
        body: completion.body,
        confidence: Some(confidence.get()),
        route: Route::Local,
        reason: Reason::LowConfidence,
        provisional: false,
        model: run.model.clone(),
        usage: completion.usage,
        timing: Timing {
            queued_ms: run.started.since(job.received),
            total_ms: now.since(job.received),
            ..completion.timing
        },
    }
}
