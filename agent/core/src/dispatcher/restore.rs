//! What was on disk at start becomes jobs again. Invariants: the order is that of acceptance; a prompt may have run
//! once without a mark; limits on admission do not apply, what was accepted stays accepted.

use super::{Dispatcher, cloud::record_bytes};
use crate::Command;
use crate::escalate::Leg;
use crate::event::{Restored, RestoredEscalation};
use crate::job::{Case, Failure, Job, Otherwise, Plan, Stage};
use crate::predict::Work;
use crate::route::Cloud;
use crate::seen::SeenFinal;
use crate::site::{Consent, Keep, Learning, Provisional, Task};
use crate::time::Now;
use std::sync::Arc;
use tidegate_schemas::{ErrorCode, JobId, Reason, TaskName, TaskSpec};

impl Dispatcher {
    /// After `new`, before the first `handle`: what was on disk.
    pub fn restore(&mut self, mut jobs: Vec<Restored>, mut seen: Vec<SeenFinal>, now: Now) -> Vec<Command> {
        // By number, not by age: after a jump of the clock the ages say nothing of what came first.
        seen.sort_by_key(|last| last.job);
        for last in seen {
            self.next_job = self.next_job.max(last.job.0 + 1);
            self.seen.end(last, now);
        }
        // Escalations first: what is in the outbox already takes its room before anything new may.
        jobs.sort_by_key(|restored| (restored.escalation.is_none(), restored.job));
        for restored in jobs {
            self.next_job = self.next_job.max(restored.job.0 + 1);
            self.restore_one(restored, now);
        }
        self.settle(now)
    }

    fn restore_one(&mut self, restored: Restored, now: Now) {
        let name = restored.prompt.task.clone().unwrap_or_else(|| self.default_task.clone());
        let known = self.tasks.get(&name).cloned();
        let task = known.clone().unwrap_or_else(|| Arc::new(gone(name.clone())));
        let (id, escalation, attempts) = (restored.job, restored.escalation.clone(), restored.attempts);
        let mut job = job(restored, task);
        job.work = self.work(&job);
        self.waits_for_disk += 1;
        self.hold(job);
        match escalation {
            Some(escalation) => self.reopen(id, escalation, now),
            None if known.is_none() => {
                let message = format!("task {name} is no longer one of this gateway's");
                self.fail(id, Failure { code: ErrorCode::UnknownTask, message });
            }
            None if attempts >= self.limits.attempts_max => self.exhausted(id, now),
            None => self.enter(id, Stage::Queued),
        }
    }

    /// An escalation is open again: whether it was published before, nobody knows.
    fn reopen(&mut self, id: JobId, restored: RestoredEscalation, now: Now) {
        let Some(job) = self.jobs.get_mut(&id) else { return };
        let reason = restored.escalation.reason;
        let otherwise = match (restored.provisional, reason) {
            (Some(answer), _) => Otherwise::Answer(answer),
            // Low confidence without an answer: it was given up while it was written.
            (None, Reason::TooSlow | Reason::NoCapacity | Reason::LowConfidence) => Otherwise::Run,
            (None, _) => Otherwise::Fail(failure(reason)),
        };
        let bytes = record_bytes(job, &otherwise);
        job.reserved = Some(bytes);
        job.stored = true;
        self.counts.outbox_entries += 1;
        self.counts.outbox_bytes += bytes;
        let (task, prompt) = (Arc::clone(&job.task), Arc::clone(&job.prompt));
        match self.cloud(&task, &prompt) {
            Cloud::LocalOnly => self.without_cloud(id, otherwise, Reason::LocalOnly, now),
            Cloud::NoCloud => self.without_cloud(id, otherwise, Reason::NoCloud, now),
            Cloud::LinkDown | Cloud::LinkUp { .. } => self.open(id, reason, otherwise, now),
        }
    }

    fn open(&mut self, id: JobId, reason: Reason, otherwise: Otherwise, now: Now) {
        let Some(job) = self.jobs.get_mut(&id) else { return };
        let give_up = job.deadline().unwrap_or_else(|| job.received.after(self.limits.cloud_wait_ms));
        job.case = Some(Box::new(Case { reason, otherwise, leg: Leg::new(now), give_up, judgement: None }));
        self.enter(id, Stage::Escalated);
    }
}

fn job(restored: Restored, task: Arc<Task>) -> Job {
    let Restored { job, device, prompt, encoding, bytes, received, attempts, .. } = restored;
    Job {
        id: job,
        device,
        hash: prompt.id.as_ref().map(|_| prompt.content_hash()),
        prompt,
        encoding,
        bytes,
        received,
        task,
        work: Work::default(),
        plan: Plan::Run,
        stage: Stage::Keeping,
        tickets: Vec::new(),
        runs: attempts.max(1),
        marked: attempts,
        suspect: attempts > 1,
        here: false,
        case: None,
        reserved: None,
        stored: false,
        timer: None,
        dead: None,
        judgement: None,
        predicted_ms: None,
    }
}

/// What the gateway itself had to say before it asked the cloud.
fn failure(reason: Reason) -> Failure {
    Failure { code: ErrorCode::Unresolved, message: format!("the gateway had no answer ({reason})") }
}

/// Stands for a task that the configuration has no more.
fn gone(name: TaskName) -> Task {
    let spec =
        TaskSpec { name, sha256: String::new(), system: String::new(), schema: None, max_tokens: 1, max_bytes: 0 };
    let provisional = Provisional::Withhold;
    Task {
        spec: Arc::new(spec),
        consent: Consent::Never,
        keep: Keep::Threshold(0.0),
        learning: Learning::Off,
        value: 1.0,
        provisional,
        expected_tokens: 1,
    }
}
