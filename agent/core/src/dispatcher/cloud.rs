//! The cloud's side: what is escalated, published, repeated, resolved, given up. Invariants: an escalation is on disk
//! before it is published; at most one publish of it is under way; only an open escalation takes a resolution.

use super::{Dispatcher, Link};
use crate::escalate::{Leg, Want};
use crate::gain;
use crate::job::{Case, Failure, Job, Otherwise, Stage};
use crate::knowledge::Judgement;
use crate::time::Now;
use crate::{Command, Confidence, Dead, Note, OperatorDrop};
use std::sync::Arc;
use tidegate_schemas::{
    Answer, Body, DRAFT_BYTES_MAX, ErrorCode, Escalation, Frame, JobId, Reason, Resolution, ResolvedOutcome, Route,
    TaskName, Timing,
};

/// What an escalation takes on disk besides prompt, task and draft, in bytes: ids, numbers, keys.
const RECORD_BYTES: u64 = 1024;

impl Dispatcher {
    /// Sends a prompt to the cloud that has not run here.
    pub(super) fn escalate_unrun(&mut self, id: JobId, reason: Reason, now: Now) {
        self.escalate(id, reason, Otherwise::Run, now);
    }

    /// Reserves room in the outbox and writes the escalation down.
    pub(super) fn escalate(&mut self, id: JobId, reason: Reason, otherwise: Otherwise, now: Now) {
        let Some(job) = self.jobs.get_mut(&id) else { return };
        let bytes = record_bytes(job, &otherwise);
        let (entries_max, bytes_max) = (u64::from(self.limits.outbox_entries_max), self.limits.outbox_bytes_max);
        let fits = self.counts.outbox_entries < entries_max && self.counts.outbox_bytes + bytes <= bytes_max;
        if job.reserved.is_none() && !fits {
            return self.without_cloud(id, otherwise, Reason::OutboxFull, now);
        }
        if job.reserved.is_none() {
            job.reserved = Some(bytes);
            self.counts.outbox_entries += 1;
            self.counts.outbox_bytes += bytes;
        }
        let give_up = job.deadline().unwrap_or_else(|| now.after(self.limits.cloud_wait_ms));
        let provisional = match &otherwise {
            Otherwise::Answer(answer) => Some(answer.clone()),
            Otherwise::Run | Otherwise::Fail(_) => None,
        };
        job.case = Some(Box::new(Case { reason, otherwise, leg: Leg::new(now), give_up, judgement: job.judgement }));
        self.counts.escalations += 1;
        self.price.charge(now);
        self.enter(id, Stage::KeepingEscalation);
        self.out.push(Command::Note(Note::Escalated { job: id, reason }));
        if let Some(escalation) = self.escalation(id, now) {
            self.out.push(Command::KeepEscalation { job: id, escalation: Box::new(escalation), provisional });
        }
    }

    pub(super) fn escalation_kept(&mut self, id: JobId) {
        let Some(job) = self.jobs.get_mut(&id).filter(|job| job.stage == Stage::KeepingEscalation) else { return };
        job.stored = true;
        if let Some(Otherwise::Answer(answer)) = job.case.as_ref().map(|case| &case.otherwise)
            && answer.provisional
        {
            let frame = Box::new(Frame::Answer(Answer::clone(answer)));
            self.counts.provisional += 1;
            self.out.push(Command::Send { job: id, device: job.device.clone(), encoding: job.encoding, frame });
        }
        self.enter(id, Stage::Escalated);
    }

    pub(super) fn escalation_not_kept(&mut self, id: JobId, now: Now) {
        let Some(job) = self.jobs.get_mut(&id).filter(|job| job.stage == Stage::KeepingEscalation) else { return };
        let Some(case) = job.case.take() else { return };
        if !job.stored {
            self.unreserve(id);
        }
        self.without_cloud(id, case.otherwise, Reason::OutboxFull, now);
    }

    /// Gives the job's room in the outbox back.
    pub(super) fn unreserve(&mut self, id: JobId) {
        if let Some(bytes) = self.jobs.get_mut(&id).and_then(|job| job.reserved.take()) {
            self.counts.outbox_entries -= 1;
            self.counts.outbox_bytes -= bytes;
        }
    }

    /// The cloud is no help: what there is here becomes the outcome, or the prompt runs here after all.
    pub(super) fn without_cloud(&mut self, id: JobId, otherwise: Otherwise, reason: Reason, now: Now) {
        match otherwise {
            Otherwise::Answer(answer) => self.keep_local(id, Answer { reason, ..*answer }, now),
            Otherwise::Fail(failure) => self.fail(id, failure),
            Otherwise::Run => {
                if let Some(job) = self.jobs.get_mut(&id) {
                    job.case = None;
                    job.here = true;
                }
                self.enter(id, Stage::Queued);
            }
        }
    }

    /// An open escalation's time has come: to be published, to be published again, or to be given up.
    pub(super) fn leg_due(&mut self, id: JobId, now: Now) {
        let Some(case) = self.jobs.get(&id).and_then(|job| job.case.as_deref()) else { return };
        if case.give_up <= now {
            return self.give_up(id, now);
        }
        if self.link == Link::Down {
            return;
        }
        match case.leg.want(now, &self.limits) {
            Want::Publish => {
                self.ready.insert(id);
            }
            Want::GiveUp => self.silent(id, now),
            Want::Patience => {}
        }
    }

    /// The longest wait is over: a local answer is final, or there is none in time.
    fn give_up(&mut self, id: JobId, now: Now) {
        let Some(job) = self.jobs.get(&id) else { return };
        let answered = matches!(job.case.as_deref(), Some(Case { otherwise: Otherwise::Answer(_), .. }));
        if job.deadline().is_some() && !answered {
            return self.expire(id, now);
        }
        self.silent(id, now);
    }

    /// The cloud stays silent, or says that it has no answer.
    fn silent(&mut self, id: JobId, now: Now) {
        let Some(case) = self.jobs.get_mut(&id).and_then(|job| job.case.take()) else { return };
        match case.otherwise {
            Otherwise::Answer(answer) => {
                let unseen = !answer.provisional && !case.leg.was_sent() && self.link == Link::Down;
                let reason = if unseen { Reason::LinkDown } else { Reason::CloudSilent };
                self.keep_local(id, Answer { reason, ..*answer }, now);
            }
            Otherwise::Run => self.without_cloud(id, Otherwise::Run, Reason::CloudSilent, now),
            Otherwise::Fail(Failure { message, .. }) => {
                let message = format!("{message}, and the cloud had no answer");
                self.fail(id, Failure { code: ErrorCode::Unresolved, message });
            }
        }
    }

    /// Publishes what is ready, as far as the bridge's window allows.
    pub(super) fn publish_ready(&mut self, now: Now) {
        while self.link == Link::Up && self.publishing.len() < self.limits.escalations_in_flight_max as usize {
            let Some(id) = self.ready.pop_first() else { return };
            let case = self.jobs.get_mut(&id).and_then(|job| job.case.as_deref_mut());
            if let Some(case) = case.filter(|_| self.publishing.insert(id)) {
                case.leg.publish();
                self.counts.publishes += 1;
                let escalation = self.escalation(id, now);
                self.out.extend(escalation.map(|e| Command::Publish(Box::new(e))));
            }
            self.retime(id);
        }
    }

    pub(super) fn escalation_sent(&mut self, id: JobId, attempt: u32, now: Now) {
        self.publishing.remove(&id);
        let lease_ms = self.recent.lease_ms(self.limits.lease_ms_min);
        if let Some(case) = self.jobs.get_mut(&id).and_then(|job| job.case.as_deref_mut()) {
            case.leg.sent(attempt, now, lease_ms);
        }
        self.retime(id);
    }

    pub(super) fn escalation_unsent(&mut self, id: JobId, attempt: u32, now: Now) {
        self.publishing.remove(&id);
        if let Some(case) = self.jobs.get_mut(&id).and_then(|job| job.case.as_deref_mut()) {
            case.leg.unsent(attempt, now, self.limits.lease_ms_min);
        }
        self.retime(id);
    }

    /// The central broker will never take it: what there is here becomes the outcome, the escalation a dead letter.
    pub(super) fn escalation_refused(&mut self, id: JobId, attempt: u32, by: String, now: Now) {
        let current =
            self.jobs.get(&id).and_then(|job| job.case.as_deref()).is_some_and(|c| c.leg.attempt() == attempt);
        let Some(job) = self.jobs.get_mut(&id).filter(|job| current && job.stage == Stage::Escalated) else {
            // Its job went on without the cloud meanwhile: only its place in the window is free again.
            return self.escalation_unsent(id, attempt, now);
        };
        self.publishing.remove(&id);
        job.dead = Some(Dead::Refused { by });
        self.silent(id, now);
    }

    /// An operator ends a job, or its wait for the cloud.
    pub(super) fn dropped(&mut self, id: JobId, what: OperatorDrop, now: Now) {
        let stage = self.jobs.get(&id).map(|job| job.stage);
        match (stage, what) {
            (Some(Stage::Escalated), OperatorDrop::Escalation) => self.silent(id, now),
            (Some(Stage::Keeping | Stage::Concluding) | None, _) | (_, OperatorDrop::Escalation) => {}
            (Some(_), OperatorDrop::Prompt) => {
                let message = "dropped by an operator".to_owned();
                self.fail(id, Failure { code: ErrorCode::Cancelled, message });
            }
        }
    }

    pub(super) fn link_up(&mut self, now: Now) {
        self.link = Link::Up;
        for id in self.escalated.clone() {
            if let Some(case) = self.jobs.get_mut(&id).and_then(|job| job.case.as_deref_mut()) {
                case.leg.link_up(now);
            }
            self.retime(id);
        }
    }

    /// Escalations wait on disk; a prompt that never ran here and never left runs here after all.
    pub(super) fn link_down(&mut self) {
        self.link = Link::Down;
        self.ready.clear();
        for id in self.escalated.clone() {
            let case = self.jobs.get(&id).and_then(|job| job.case.as_deref());
            let unrun = case.is_some_and(|case| matches!(case.otherwise, Otherwise::Run) && !case.leg.was_sent());
            if unrun {
                self.without_cloud(id, Otherwise::Run, Reason::LinkDown, Now::default());
            } else {
                self.retime(id);
            }
        }
    }

    pub(super) fn resolved(&mut self, resolution: Resolution, now: Now) {
        let id = resolution.job;
        let open = self.jobs.get(&id).filter(|job| job.stage == Stage::Escalated);
        let Some(job) = open.filter(|_| resolution.origin == self.origin) else {
            self.counts.stray_resolutions += 1;
            return self.out.push(Command::Note(Note::StrayResolution { job: id }));
        };
        let took_ms = job.case.as_ref().and_then(|case| case.leg.took_ms(resolution.attempt, now));
        took_ms.into_iter().for_each(|ms| self.recent.add(ms));
        match &resolution.outcome {
            ResolvedOutcome::Answer(body) => {
                let label = label(job, body, resolution.confidence);
                let task = Arc::clone(&job.task);
                if let Some((judgement, agree, replaces)) = label {
                    self.learn(&task.spec.name, &judgement, agree, resolution.confidence);
                    if !replaces {
                        return self.confirmed(id, now);
                    }
                }
                let Some(job) = self.jobs.get(&id) else { return };
                if let Some(answer) = cloud_answer(job, resolution, now) {
                    self.conclude(id, Frame::Answer(answer));
                }
            }
            ResolvedOutcome::Error { .. } => self.silent(id, now),
        }
    }

    /// The cloud answered otherwise and is less sure than the gateway: the local answer is final.
    fn confirmed(&mut self, id: JobId, now: Now) {
        let Some(case) = self.jobs.get_mut(&id).and_then(|job| job.case.take()) else { return };
        self.without_cloud(id, case.otherwise, Reason::CloudLessSure, now);
    }

    fn learn(&mut self, task: &TaskName, judgement: &Judgement, agree: bool, cloud: Option<f64>) {
        if let Some(sense) = self.senses.get_mut(task) {
            sense.learn(judgement, agree, cloud);
            self.counts.labels += 1;
            let signals = judgement.signals;
            self.out.push(Command::Note(Note::Labelled { task: task.clone(), signals, agree }));
        }
    }

    /// The escalation as it is published now.
    fn escalation(&self, id: JobId, now: Now) -> Option<Escalation> {
        let job = self.jobs.get(&id)?;
        let case = job.case.as_deref()?;
        let local = match &case.otherwise {
            Otherwise::Answer(answer) => Some(answer),
            Otherwise::Run | Otherwise::Fail(_) => None,
        };
        Some(Escalation {
            v: 1,
            job: id,
            origin: self.origin.clone(),
            device: job.device.clone(),
            prompt: (*job.prompt).clone(),
            task: (*job.task.spec).clone(),
            draft: local.map(|answer| answer.body.clone()).filter(|body| draft_bytes(body) <= DRAFT_BYTES_MAX),
            confidence: local.and_then(|answer| answer.confidence),
            reason: case.reason,
            hops: 0,
            attempt: case.leg.attempt(),
            expires_in_ms: job.left_ms(now),
        })
    }
}

/// What a resolution says about the local answer: how that was judged, whether both agree, whether the cloud's replaces
/// it. None where there is no local answer to compare, or it was judged before a restart.
fn label(job: &Job, body: &Body, confidence: Option<f64>) -> Option<(Judgement, bool, bool)> {
    let case = job.case.as_deref()?;
    let Otherwise::Answer(ours) = &case.otherwise else { return None };
    let judgement = case.judgement?;
    let agree = same(&ours.body, body);
    Some((judgement, agree, agree || gain::replaces(ours.confidence, confidence)))
}

/// Whether two answers say the same: JSON by value, text but for case and the white space around it.
fn same(a: &Body, b: &Body) -> bool {
    match (a, b) {
        (Body::Json(a), Body::Json(b)) => a == b,
        _ => a.to_line().reveal().trim().to_lowercase() == b.to_line().reveal().trim().to_lowercase(),
    }
}

fn draft_bytes(body: &Body) -> usize {
    body.to_line().len()
}

/// What an escalation of this job takes in the outbox, in bytes.
pub(super) fn record_bytes(job: &Job, otherwise: &Otherwise) -> u64 {
    let spec = &job.task.spec;
    let task = spec.system.len() + spec.schema.as_ref().map_or(0, String::len);
    let local = match otherwise {
        Otherwise::Answer(answer) => 2 * draft_bytes(&answer.body),
        Otherwise::Run | Otherwise::Fail(_) => 0,
    };
    RECORD_BYTES + u64::from(job.bytes) + (task + local) as u64
}

/// The worker's answer as the device gets it.
fn cloud_answer(job: &Job, resolution: Resolution, now: Now) -> Option<Answer> {
    let ResolvedOutcome::Answer(body) = resolution.outcome else { return None };
    Some(Answer {
        id: job.prompt_id().cloned(),
        body,
        confidence: resolution.confidence.map(|c| Confidence::new(c).get()),
        route: Route::Cloud,
        reason: Reason::CloudAnswered,
        provisional: false,
        model: resolution.model,
        usage: resolution.usage,
        timing: Timing { total_ms: now.since(job.received), ..resolution.timing },
    })
}
