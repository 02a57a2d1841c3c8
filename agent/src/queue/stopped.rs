//! The queue of a stopped gateway: its store, opened here. What is dropped gets the outcome that the gateway would give.

use super::rows::{Reveal, counts, export, full, room, row};
use super::{Keeper, Reaches, Request};
use crate::config::Config;
use crate::failure::Failure;
use serde_json::{Value, json};
use std::sync::mpsc::sync_channel;
use tidegate_schemas::{Answer, ErrorCode, ErrorFrame, Frame, JobId, Reason};
use tidegate_spool::{
    Change, DeadId, DeadItem, ForwardId, Limits, OpenError, OutcomeRecord, PromptRecord, QueueClass, Recovered, Spool,
    SpoolError, Stamp, Stored,
};

/// An open store; closed when the command ends.
pub(super) struct Stopped {
    spool: Spool,
    reaches: Reaches,
    next_job: JobId,
}

impl Stopped {
    pub(super) fn open(config: Config) -> Result<Self, Failure> {
        if !config.data_dir.join("CURRENT").exists() {
            let dir = config.data_dir.display();
            return Err(Failure::storage(format!(
                "data directory: there is no store in {dir}, and no gateway answers"
            )));
        }
        let reaches = Reaches::of(&config);
        // The ages that are shown, and the stamps that are written, are worth what the clock is worth.
        crate::trusted_time::look();
        let (spool, Recovered { next_job, .. }) =
            Spool::open(&config.data_dir, alone(config.spool)).map_err(|error| match error {
                OpenError::InUse { path } => Failure::storage(format!(
                    "data directory {} is in use by a process that does not answer at the control socket",
                    path.display()
                )),
                other => Failure::storage(format!("data directory: {other}")),
            })?;
        Ok(Self { spool, reaches, next_job })
    }

    fn read(&self, class: QueueClass, number: u64) -> Option<Stored> {
        let (done, answer) = sync_channel(1);
        self.spool.stored(class, number, move |found| drop(done.send(found)));
        answer.recv().ok().flatten()
    }

    fn page(&self, class: QueueClass, after: u64, limit: u64) -> Vec<Stored> {
        let (done, answer) = sync_channel(1);
        self.spool.page(class, after, room(limit), move |found| drop(done.send(found)));
        answer.recv().unwrap_or_default()
    }

    fn submit(&self, change: Change) -> Result<(), String> {
        let (done, answer) = sync_channel(1);
        self.spool.submit(change, move |result| drop(done.send(result)));
        answer.recv().unwrap_or(Err(SpoolError::Stopped)).map_err(|error| error.to_string())
    }

    fn drop_entry(&self, class: QueueClass, number: u64) -> Result<(), String> {
        let job = JobId(number);
        match self.read(class, number).ok_or_else(|| absent(class, number))? {
            Stored::Prompt(record) => self.submit(Change::Conclude(cancelled(&record, &self.reaches))),
            Stored::Escalation(record) => {
                let Some(Stored::Prompt(prompt)) = self.read(QueueClass::Prompts, number) else {
                    return Err(absent(QueueClass::Prompts, number));
                };
                let outcome = match record.provisional {
                    Some(answer) => confirmed(&prompt, answer, &self.reaches),
                    None => unresolved(&prompt, &self.reaches),
                };
                self.submit(Change::Conclude(outcome))
            }
            Stored::Outcome(_) => self.submit(Change::Release { job }),
            Stored::Forward(_) => self.submit(Change::ForwardDrop { entry: ForwardId(number) }),
            Stored::Dead(_) => self.submit(Change::DeadRemove { entry: DeadId(number) }),
        }
    }

    fn retry(&mut self, number: u64) -> Result<(), String> {
        let entry = DeadId(number);
        let Some(Stored::Dead(letter)) = self.read(QueueClass::Dead, number) else {
            return Err(absent(QueueClass::Dead, number));
        };
        let record = match letter.item {
            DeadItem::Forward(_) => return self.submit(Change::DeadForward { entry }),
            DeadItem::Prompt(record) => record,
            DeadItem::Escalation(_) => return Err(ESCALATION_AGAIN.to_owned()),
        };
        let prompt = again(record.prompt, number);
        let job = self.next_job;
        self.submit(Change::Keep(PromptRecord { job, prompt, stamp: Stamp::now(), attempts: 0, ..record }))?;
        self.next_job = JobId(job.0 + 1);
        // If this fails the letter stays, and a later retry asks once more: work may be repeated, not lost.
        self.submit(Change::DeadRemove { entry })
    }
}

/// Why a refused escalation is not tried again.
pub(crate) const ESCALATION_AGAIN: &str =
    "its outcome is decided and the cloud is asked only for what is open; ask again with a new prompt";

/// A dead prompt under a new id: the outcome of the old one stands.
pub(crate) fn again(prompt: tidegate_schemas::Prompt, number: u64) -> tidegate_schemas::Prompt {
    let named = prompt.id.as_ref().and_then(|id| format!("{id}-r{number}").parse().ok());
    let id = prompt.id.as_ref().and_then(|_| named.or_else(|| format!("retry-{number}").parse().ok()));
    tidegate_schemas::Prompt { id, ..prompt }
}

/// That nothing is there.
pub(crate) fn absent(class: QueueClass, number: u64) -> String {
    format!("{class} has no entry {number}")
}

/// The change of a command has no company to wait for.
fn alone(limits: Limits) -> Limits {
    Limits { sync_every_ms: 0, ..limits }
}

fn cancelled(record: &PromptRecord, reaches: &Reaches) -> OutcomeRecord {
    error(record, ErrorCode::Cancelled, "dropped by an operator", reaches)
}

fn unresolved(record: &PromptRecord, reaches: &Reaches) -> OutcomeRecord {
    error(record, ErrorCode::Unresolved, "the escalation was dropped by an operator", reaches)
}

fn error(record: &PromptRecord, code: ErrorCode, message: &str, reaches: &Reaches) -> OutcomeRecord {
    let (id, message) = (record.prompt.id.clone(), message.to_owned());
    outcome(record, &Frame::Error(ErrorFrame { id, code, message, retry_after_ms: None }), reaches)
}

/// The provisional answer becomes the outcome: the cloud is not asked any more.
fn confirmed(record: &PromptRecord, answer: Answer, reaches: &Reaches) -> OutcomeRecord {
    let answer = Answer { provisional: false, reason: Reason::CloudSilent, ..answer };
    outcome(record, &Frame::Answer(answer), reaches)
}

fn outcome(record: &PromptRecord, frame: &Frame, reaches: &Reaches) -> OutcomeRecord {
    OutcomeRecord {
        job: record.job,
        device: record.device.clone(),
        id: record.prompt.id.clone(),
        hash: record.prompt.content_hash(),
        encoding: record.encoding,
        frame: record.encoding.frame(frame).unwrap_or_default(),
        notice: None,
        released: false,
        stamp: Stamp::now(),
        reach: reaches.prompt(&record.prompt),
        reply: record.reply.clone(),
    }
}

impl Keeper for Stopped {
    fn ask(&mut self, request: Request) -> Result<Value, Failure> {
        let outcome = |result: Result<(), String>, what: &str, number: u64| match result {
            Ok(()) => json!({ what: number }),
            Err(error) => json!({ "error": error }),
        };
        Ok(match request {
            Request::Counts => {
                let (done, answer) = sync_channel(1);
                self.spool.counts(move |counts| {
                    let _ = done.send(counts);
                });
                counts(&answer.recv().unwrap_or_default())
            }
            Request::Ls { class, after, limit } => {
                let found = self.page(class, after, limit);
                json!({ "class": class, "entries": found.iter().map(row).collect::<Vec<_>>(),
                    "next": found.last().map(Stored::number) })
            }
            Request::Show { class, number, reveal } => match self.read(class, number) {
                Some(found) => full(&found, Reveal::from(reveal)),
                None => json!({ "error": absent(class, number) }),
            },
            Request::Export { class, after, reveal } => {
                let found = self.page(class, after, u64::MAX);
                page(&found, &self.reaches, Reveal::from(reveal))
            }
            Request::Retry { number } => outcome(self.retry(number), "retried", number),
            Request::Drop { class, number } => outcome(self.drop_entry(class, number), "dropped", number),
        })
    }
}

/// One page of an export.
pub(crate) fn page(found: &[Stored], reaches: &Reaches, reveal: Reveal) -> Value {
    let entries: Vec<Value> = found.iter().filter_map(|stored| export(stored, reaches, reveal)).collect();
    let left_out = found.len() - entries.len();
    json!({ "entries": entries, "left_out": left_out, "next": found.last().map(Stored::number) })
}

impl Drop for Stopped {
    fn drop(&mut self) {
        self.spool.clone().close();
    }
}
