//! From the door to the inbox: admission, repeated ids, control messages, acknowledgements. Invariant: a ticket is
//! acknowledged only when its prompt is on disk, and each ticket is answered once.

use super::{Dispatcher, Mode};
use crate::admit::{Admission, Asked, Occupied, admit};
use crate::event::{Arrival, Ticket};
use crate::job::{Failure, Job, Plan, Stage};
use crate::predict::Work;
use crate::queue::Place;
use crate::seen::Known;
use crate::site::Task;
use crate::time::Now;
use crate::{Command, Keepsake, Note};
use std::sync::Arc;
use tidegate_schemas::{
    Accepted, ContentHash, Control, ControlOp, DeviceId, ErrorCode, ErrorFrame, Frame, JobId, PromptId,
};

/// Most publishes of one prompt that wait for the same write: more repeats than a client with a timeout makes.
const TICKETS_MAX: usize = 16;
/// When a device should try again after a failed write or while the gateway stops, in milliseconds: a restart.
const RETRY_MS: u64 = 5_000;

impl Dispatcher {
    pub(super) fn arrived(&mut self, arrival: Arrival, now: Now) {
        let name = arrival.prompt.task.as_ref().unwrap_or(&self.default_task);
        let Some(task) = self.tasks.get(name).cloned() else {
            let error = error(&arrival, ErrorCode::UnknownTask, format!("task {name} is not one of this gateway's"));
            return self.refuse(arrival.ticket, &arrival.device, error);
        };
        let hash = arrival.prompt.id.as_ref().map(|_| arrival.prompt.content_hash());
        if let (Some(id), Some(hash)) = (&arrival.prompt.id, hash)
            && let Some(known) = self.seen.get(&arrival.device, id, now)
            && self.repeated(&arrival, known, hash, now)
        {
            return;
        }
        if self.mode == Mode::Draining {
            let error = busy(&arrival, "gateway is stopping".to_owned(), RETRY_MS);
            return self.refuse(arrival.ticket, &arrival.device, error);
        }
        let job = self.job(arrival, task, hash, now);
        self.admit(job, now);
    }

    /// Whether an id that is known answers for this arrival; a final id with other content is a new prompt.
    fn repeated(&mut self, arrival: &Arrival, known: Known, hash: ContentHash, now: Now) -> bool {
        match known {
            Known::UnderWay { job, hash: first } if first == hash => self.join(arrival, job, now),
            Known::UnderWay { .. } => {
                let message = "id is under way with other content".to_owned();
                self.refuse(arrival.ticket, &arrival.device, error(arrival, ErrorCode::IdReused, message));
            }
            Known::Final { job, hash: first } if first == hash => {
                self.out.push(Command::SendStored { ticket: arrival.ticket, job, device: arrival.device.clone() });
            }
            Known::Final { .. } => return false,
        }
        true
    }

    /// A repeat of a prompt that is under way: it is acknowledged when the first is.
    fn join(&mut self, arrival: &Arrival, id: JobId, now: Now) {
        let Some(job) = self.jobs.get_mut(&id) else { return };
        if job.stage != Stage::Keeping {
            return self.acknowledge(arrival.ticket, id, now);
        }
        if job.tickets.len() < TICKETS_MAX {
            return job.tickets.push(arrival.ticket);
        }
        let message = format!("{TICKETS_MAX} repeats of this prompt wait for the disk, limit is {TICKETS_MAX}");
        self.refuse(arrival.ticket, &arrival.device, busy(arrival, message, RETRY_MS));
    }

    fn job(&self, arrival: Arrival, task: Arc<Task>, hash: Option<ContentHash>, now: Now) -> Job {
        let mut job = Job {
            id: JobId(self.next_job),
            device: arrival.device,
            hash,
            encoding: arrival.encoding,
            bytes: arrival.bytes,
            received: now,
            task,
            work: Work::default(),
            plan: Plan::Run,
            stage: Stage::Keeping,
            tickets: vec![arrival.ticket],
            runs: 0,
            marked: 0,
            suspect: false,
            here: false,
            case: None,
            reserved: None,
            stored: false,
            timer: None,
            dead: None,
            judgement: None,
            predicted_ms: None,
            prompt: arrival.prompt,
        };
        job.work = self.work(&job);
        job
    }

    /// What a job has to do: template and prompt to read, the task's usual answer to write.
    pub(super) fn work(&self, job: &Job) -> Work {
        let bytes = job.prompt.text_bytes() + job.task.spec.system.len();
        self.predictor.work(&job.task.spec.name, bytes as u64, job.max_tokens())
    }

    fn admit(&mut self, mut job: Job, now: Now) {
        let cloud = self.cloud(&job.task, &job.prompt);
        let held = self.devices.get(&job.device).copied().unwrap_or_default();
        let occupied = Occupied {
            entries: u32::try_from(self.jobs.len()).unwrap_or(u32::MAX),
            bytes: self.counts.inbox_bytes,
            device_entries: held.entries,
            device_bytes: held.bytes,
        };
        let wait_ms = self.wait(&job.device, job.place(), now).1;
        let predicted_ms = wait_ms.saturating_add(self.predictor.own_ms(job.work));
        job.predicted_ms = Some(predicted_ms);
        let asked = Asked {
            bytes: job.bytes,
            deadline_ms: job.left_ms(now),
            wait_ms,
            here: self.times.whole(predicted_ms),
            strain: self.strain,
        };
        match admit(asked, occupied, &self.limits, cloud) {
            Admission::Refuse(refusal) => {
                let error = ErrorFrame {
                    id: job.prompt_id().cloned(),
                    code: refusal.code,
                    message: refusal.message,
                    retry_after_ms: refusal.retry_after_ms,
                };
                for ticket in job.tickets {
                    self.refuse(ticket, &job.device, error.clone());
                }
            }
            Admission::EscalateNow(reason) => {
                job.plan = Plan::Escalate(reason);
                self.keep(job);
            }
            Admission::RunHere => self.keep(job),
        }
    }

    fn keep(&mut self, job: Job) {
        self.next_job += 1;
        self.out.push(Command::Keep(Keepsake {
            job: job.id,
            device: job.device.clone(),
            prompt: Arc::clone(&job.prompt),
            encoding: job.encoding,
            bytes: job.bytes,
            received: job.received,
            hash: job.hash,
        }));
        self.waits_for_disk += 1;
        self.hold(job);
    }

    /// Takes a job into the books.
    pub(super) fn hold(&mut self, job: Job) {
        if let (Some(id), Some(hash)) = (job.prompt_id(), job.hash) {
            self.seen.begin(&job.device, id, job.id, hash);
        }
        let held = self.devices.entry(job.device.clone()).or_default();
        held.entries += 1;
        held.bytes += u64::from(job.bytes);
        self.counts.inbox_bytes += u64::from(job.bytes);
        self.jobs.insert(job.id, job);
    }

    pub(super) fn kept(&mut self, id: JobId, now: Now) {
        let Some(job) = self.jobs.get_mut(&id).filter(|job| job.stage == Stage::Keeping) else { return };
        let (tickets, plan, late) = (std::mem::take(&mut job.tickets), job.plan, job.left_ms(now) == Some(0));
        for ticket in tickets {
            self.acknowledge(ticket, id, now);
        }
        match plan {
            Plan::Cancel => self.fail(id, cancelled()),
            Plan::Run | Plan::Escalate(_) if late => self.expire(id, now),
            Plan::Run => self.enter(id, Stage::Queued),
            Plan::Escalate(reason) => self.escalate_unrun(id, reason, now),
        }
    }

    pub(super) fn not_kept(&mut self, id: JobId, why: &str) {
        if self.jobs.get(&id).is_none_or(|job| job.stage != Stage::Keeping) {
            return;
        }
        let Some(job) = self.release(id) else { return };
        if let Some(prompt_id) = job.prompt_id() {
            self.seen.forget(&job.device, prompt_id);
        }
        let message = format!("prompt was not stored: {why}");
        let (id, code) = (job.prompt_id().cloned(), ErrorCode::Busy);
        let error = ErrorFrame { id, code, message, retry_after_ms: Some(RETRY_MS) };
        for ticket in job.tickets {
            self.refuse(ticket, &job.device, error.clone());
        }
    }

    pub(super) fn controlled(&mut self, ticket: Ticket, device: &DeviceId, control: &Control, now: Now) {
        match (control.op, self.seen.get(device, &control.id, now)) {
            (ControlOp::Fetch, Some(Known::Final { job, .. })) => {
                self.out.push(Command::SendStored { ticket, job, device: device.clone() });
            }
            (ControlOp::Fetch, Some(Known::UnderWay { job, .. })) => self.fetch_early(ticket, job, now),
            (ControlOp::Cancel, Some(Known::UnderWay { job, .. })) if self.cancellable(job) => {
                self.out.push(Command::Acknowledge { ticket, frame: None });
                self.cancel(job);
            }
            (ControlOp::Cancel, Some(_)) => self.refuse_id(ticket, device, &control.id, "is final"),
            (_, None) => self.refuse_id(ticket, device, &control.id, "is not known"),
        }
    }

    /// `fetch` of a prompt that has no outcome yet; while it is being written it waits with the prompt.
    fn fetch_early(&mut self, ticket: Ticket, id: JobId, now: Now) {
        match self.jobs.get_mut(&id) {
            Some(job) if job.stage == Stage::Keeping && job.tickets.len() < TICKETS_MAX => job.tickets.push(ticket),
            Some(job) if job.stage == Stage::Keeping => self.out.push(Command::Acknowledge { ticket, frame: None }),
            _ => self.acknowledge(ticket, id, now),
        }
    }

    fn cancellable(&self, id: JobId) -> bool {
        self.jobs.get(&id).is_some_and(|job| job.stage != Stage::Concluding)
    }

    /// A prompt that is still being written is concluded when it is on disk, so that a refusal stays possible.
    fn cancel(&mut self, id: JobId) {
        match self.jobs.get_mut(&id) {
            Some(job) if job.stage == Stage::Keeping => job.plan = Plan::Cancel,
            _ => self.fail(id, cancelled()),
        }
    }

    /// Success for a publish, with `accepted` where the device understands it.
    fn acknowledge(&mut self, ticket: Ticket, id: JobId, now: Now) {
        let frame = self.jobs.get(&id).filter(|job| job.structured()).map(|job| {
            let (position, eta_ms) = self.outlook(job, now);
            Frame::Accepted(Accepted { id: job.prompt_id().cloned(), position, eta_ms })
        });
        self.out.push(Command::Acknowledge { ticket, frame });
    }

    /// Prompts ahead, and predicted time to the answer in milliseconds.
    fn outlook(&self, job: &Job, now: Now) -> (u32, u64) {
        match (job.stage, job.plan) {
            (Stage::Running, _) => {
                let run = self.engine.running.get(&job.id);
                (0, run.map_or(0, |run| self.predictor.left_ms(run.work, now.since(run.started))))
            }
            (Stage::KeepingEscalation | Stage::Escalated | Stage::Concluding, _) | (_, Plan::Escalate(_)) => {
                (0, self.recent.typical_ms().unwrap_or(0))
            }
            (Stage::Keeping | Stage::Queued | Stage::Marking, Plan::Run | Plan::Cancel) => {
                let (position, wait_ms) = self.wait(&job.device, job.place(), now);
                (position, wait_ms.saturating_add(self.predictor.own_ms(job.work)))
            }
        }
    }

    /// Prompts ahead of this place, those that run included, and the predicted wait in milliseconds.
    fn wait(&self, device: &DeviceId, place: Place, now: Now) -> (u32, u64) {
        let ahead = self.waiting.ahead(device, place);
        let running = self.engine.running.values();
        let mut left: Vec<u64> = running.map(|run| self.predictor.left_ms(run.work, now.since(run.started))).collect();
        let marking = self.engine.marking.iter().filter_map(|id| self.jobs.get(id));
        left.extend(marking.map(|job| self.predictor.own_ms(job.work)));
        let busy = u32::try_from(left.len()).unwrap_or(u32::MAX);
        (ahead.entries.saturating_add(busy), self.predictor.wait_ms(ahead.work, &left, self.limits.slots))
    }

    fn refuse_id(&mut self, ticket: Ticket, device: &DeviceId, id: &PromptId, what: &str) {
        let code = ErrorCode::UnknownId;
        let error = ErrorFrame { id: Some(id.clone()), code, message: format!("id {id} {what}"), retry_after_ms: None };
        self.refuse(ticket, device, error);
    }

    fn refuse(&mut self, ticket: Ticket, device: &DeviceId, error: ErrorFrame) {
        self.counts.refused += 1;
        self.out.push(Command::Note(Note::Refused { device: device.clone(), code: error.code }));
        self.out.push(Command::Refuse { ticket, error });
    }
}

fn cancelled() -> Failure {
    Failure { code: ErrorCode::Cancelled, message: "cancelled by its device".to_owned() }
}

fn error(arrival: &Arrival, code: ErrorCode, message: String) -> ErrorFrame {
    ErrorFrame { id: arrival.prompt.id.clone(), code, message, retry_after_ms: None }
}

fn busy(arrival: &Arrival, message: String, retry_ms: u64) -> ErrorFrame {
    ErrorFrame { retry_after_ms: Some(retry_ms), ..error(arrival, ErrorCode::Busy, message) }
}
