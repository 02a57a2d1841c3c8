//! Between the hub and the storage thread: what is submitted, and what its fate means.

use super::delivery;
use super::hub::Hub;
use super::message::{Report, Task};
use crate::failure::Failure;
use std::time::{Duration, Instant};
use tidegate_core::Event;
use tidegate_schemas::{DeviceId, JobId};
use tidegate_spool::{Change, OutcomeRecord, SpoolError};
use tracing::{debug, warn};

/// Wait before a change that the disk refused is tried again: room is made in seconds, not in milliseconds.
const RETRY_AFTER: Duration = Duration::from_secs(1);

impl Hub {
    /// Submits a change that can be tried again.
    pub(super) fn submit(&mut self, task: Task) {
        if let Some(change) = task.again() {
            self.submit_as(change, task);
        }
    }

    /// Submits a change; its fate comes as a report.
    pub(super) fn submit_as(&mut self, change: Change, task: Task) {
        let reports = self.hands.reports.clone();
        self.hands.spool.submit(change, move |result| {
            let _ = reports.send(Report::Disk(task, result));
        });
    }

    /// A change is on disk or is not.
    pub(super) fn disk(&mut self, task: Task, result: Result<(), SpoolError>) {
        if let Err(error @ (SpoolError::Poisoned(_) | SpoolError::Stopped)) = &result
            && !self.endures(error)
        {
            return self.fail(Failure::storage(error));
        }
        match (task, result) {
            (Task::Keep(job), Ok(())) => self.step(Event::Kept(job)),
            (Task::Keep(job), Err(error)) => {
                self.facts.remove(&job);
                self.onlookers.gone(job);
                let read_only = self.view.ailing.is_read_only();
                let why = if read_only { "the disk is read-only".to_owned() } else { error.to_string() };
                self.step(Event::NotKept { job, why });
            }
            (Task::Escalate(job), Ok(())) => self.step(Event::EscalationKept(job)),
            (Task::Escalate(job), Err(error)) => {
                warn!(%job, %error, "an escalation was not kept");
                self.step(Event::EscalationNotKept(job));
            }
            (Task::Mark(job, _), Ok(()) | Err(SpoolError::Unknown(_))) => self.step(Event::AttemptMarked(job)),
            (Task::Conclude(record, _), Ok(())) => self.concluded(*record),
            (Task::Conclude(record, _), Err(error @ (SpoolError::Decided(_) | SpoolError::Unknown(_)))) => {
                // What stands on disk is the outcome, whatever was made of the job meanwhile.
                warn!(job = %record.job, %error, "an outcome was already decided");
                self.ended(&record.device, record.job);
            }
            (Task::Release(job), Ok(()) | Err(SpoolError::Unknown(_))) => debug!(%job, "released"),
            (Task::Forward, _) => {}
            (task, Err(error)) => {
                // Of a disk that is read-only it was said once.
                if !self.view.ailing.is_read_only() {
                    warn!(%error, "the disk refuses a change, it is tried again");
                }
                self.retries.push_back((Instant::now() + RETRY_AFTER, task));
            }
        }
    }

    fn concluded(&mut self, record: OutcomeRecord) {
        let (device, job) = (record.device.clone(), record.job);
        self.ready.insert(job, delivery::outgoing(record));
        self.ended(&device, job);
    }

    fn ended(&mut self, device: &DeviceId, job: JobId) {
        self.facts.remove(&job);
        self.pending.add(device, job);
        self.step(Event::Concluded(job));
        if let Some(number) = self.settle.remove(&job) {
            self.settled(number);
        }
    }

    /// Tries again what has waited long enough.
    pub(super) fn retry(&mut self) {
        while self.retries.front().is_some_and(|(at, _)| *at <= Instant::now()) {
            if let Some((_, task)) = self.retries.pop_front() {
                self.submit(task);
            }
        }
    }

    /// Asks what is stored.
    pub(super) fn count(&self) {
        let reports = self.hands.reports.clone();
        self.hands.spool.counts(move |counts| {
            let _ = reports.send(Report::Counts(counts));
        });
    }
}
