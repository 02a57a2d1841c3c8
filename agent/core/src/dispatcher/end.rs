//! The end of a job: its outcome is decided once, stored, then delivered. Invariant: a job that is concluding never
//! leaves that stage but by `Concluded`.

use super::Dispatcher;
use crate::job::{Failure, Job, Stage};
use crate::seen::SeenFinal;
use crate::time::Now;
use crate::{Command, Dead, Note};
use tidegate_schemas::{Answer, ErrorCode, ErrorFrame, Frame, JobId, Route, Timing};

impl Dispatcher {
    /// The local answer, with its reason, is the outcome.
    pub(super) fn keep_local(&mut self, id: JobId, answer: Answer, now: Now) {
        let Some(job) = self.jobs.get(&id) else { return };
        let timing = Timing { total_ms: now.since(job.received), ..answer.timing };
        self.out.push(Command::Note(Note::KeptLocal { job: id, reason: answer.reason }));
        self.conclude(id, Frame::Answer(Answer { provisional: false, timing, ..answer }));
    }

    /// The outcome is an error.
    pub(super) fn fail(&mut self, id: JobId, failure: Failure) {
        let Some(job) = self.jobs.get(&id) else { return };
        let Failure { code, message } = failure;
        let error = ErrorFrame { id: job.prompt_id().cloned(), code, message, retry_after_ms: None };
        self.conclude(id, Frame::Error(error));
    }

    /// The deadline passed without an answer.
    pub(super) fn expire(&mut self, id: JobId, now: Now) {
        let Some(job) = self.jobs.get(&id) else { return };
        let limit_ms = job.prompt.deadline_ms.map_or(0, tidegate_schemas::DeadlineMs::get);
        let message = format!("{} ms passed since receipt, deadline was {limit_ms} ms", now.since(job.received));
        self.fail(id, Failure { code: ErrorCode::Expired, message });
    }

    /// Decides the outcome; whatever comes later finds the job concluding and changes nothing.
    pub(super) fn conclude(&mut self, id: JobId, outcome: Frame) {
        let Some(job) = self.jobs.get_mut(&id).filter(|job| job.stage != Stage::Concluding) else { return };
        job.case = None;
        let answered = matches!(outcome, Frame::Answer(_));
        // Of what crashed the engine nothing is dead once the cloud has answered it.
        let dead = job.dead.take().filter(|dead| !answered || matches!(dead, Dead::Refused { .. }));
        let running = job.stage == Stage::Running && self.engine.running.contains_key(&id);
        let (route, code) = match &outcome {
            Frame::Answer(answer) => (Some(answer.route), None),
            Frame::Error(error) => (None, Some(error.code)),
            Frame::Accepted(_) | Frame::Token(_) => (None, None),
        };
        let conclude = Command::Conclude {
            job: id,
            device: job.device.clone(),
            encoding: job.encoding,
            max_bytes: job.prompt.max_bytes,
            outcome: Box::new(outcome),
            dead,
        };
        match route {
            Some(Route::Cloud | Route::Peer) => self.counts.answered_cloud += 1,
            Some(Route::Local | Route::Stored) => self.counts.answered_local += 1,
            None => self.counts.errors += 1,
        }
        self.enter(id, Stage::Concluding);
        self.out.extend(running.then_some(Command::Abort(id)));
        self.out.push(Command::Note(Note::Ended { job: id, route, code }));
        self.out.push(conclude);
    }

    pub(super) fn concluded(&mut self, id: JobId, now: Now) {
        if self.jobs.get(&id).is_none_or(|job| job.stage != Stage::Concluding) {
            return;
        }
        let Some(job) = self.release(id) else { return };
        if let (Some(prompt_id), Some(hash)) = (job.prompt.id.clone(), job.hash) {
            let last = SeenFinal { device: job.device.clone(), id: prompt_id, hash, job: id, at: now };
            self.seen.end(last, now);
        }
        self.out.push(Command::Deliver { job: id, device: job.device });
    }

    /// Takes a job out of the books.
    pub(super) fn release(&mut self, id: JobId) -> Option<Job> {
        self.unreserve(id);
        let job = self.jobs.remove(&id)?;
        self.waits_for_disk -= usize::from(job.stage.waits_for_disk());
        self.counts.inbox_bytes -= u64::from(job.bytes);
        if let Some(held) = self.devices.get_mut(&job.device) {
            held.entries -= 1;
            held.bytes -= u64::from(job.bytes);
            if held.entries == 0 {
                self.devices.remove(&job.device);
            }
        }
        Some(job)
    }
}
