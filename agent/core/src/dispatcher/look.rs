//! What a person may ask about one prompt. Looking changes nothing.

use super::Dispatcher;
use crate::job::Stage;
use crate::seen::Known;
use crate::time::Now;
use std::sync::Arc;
use tidegate_schemas::{DeviceId, JobId, Prompt, PromptId, Reason, TaskName};

/// Where a prompt is.
#[derive(Debug, Clone)]
pub enum Whereabouts {
    /// It has no outcome yet.
    Open(Box<Standing>),
    /// The outcome of this job is stored.
    Ended(JobId),
}

/// A prompt without an outcome.
#[derive(Debug, Clone)]
pub struct Standing {
    /// Its job.
    pub job: JobId,
    /// Where it stands, in a word: `keeping`, `queued`, `marking`, `running`, `escalating`, `escalated`, `concluding`.
    pub stage: &'static str,
    /// Its task.
    pub task: TaskName,
    /// Why the cloud was asked, if it was.
    pub reason: Option<Reason>,
    /// Inferences that were begun.
    pub runs: u32,
    /// Since its receipt, in milliseconds.
    pub age_ms: u64,
    /// Until its deadline, in milliseconds; none without one.
    pub left_ms: Option<u64>,
    /// What it asks.
    pub prompt: Arc<Prompt>,
}

impl Dispatcher {
    /// Where the prompt with this id of this device is; none if the id is not known (any more).
    #[must_use]
    pub fn look(&self, device: &DeviceId, id: &PromptId, now: Now) -> Option<Whereabouts> {
        let job = match self.seen.get(device, id, now)? {
            Known::Final { job, .. } => return Some(Whereabouts::Ended(job)),
            Known::UnderWay { job, .. } => self.jobs.get(&job)?,
        };
        Some(Whereabouts::Open(Box::new(Standing {
            job: job.id,
            stage: word(job.stage),
            task: job.task.spec.name.clone(),
            reason: job.case.as_ref().map(|case| case.reason),
            runs: job.runs,
            age_ms: now.since(job.received),
            left_ms: job.left_ms(now),
            prompt: Arc::clone(&job.prompt),
        })))
    }
}

fn word(stage: Stage) -> &'static str {
    match stage {
        Stage::Keeping => "keeping",
        Stage::Queued => "queued",
        Stage::Marking => "marking",
        Stage::Running => "running",
        Stage::KeepingEscalation => "escalating",
        Stage::Escalated => "escalated",
        Stage::Concluding => "concluding",
    }
}
