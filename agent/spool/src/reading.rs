//! What is read out of the open store: single records, pages of a class, counts. Nothing here changes what is on disk.

use crate::class::QueueClass;
use crate::database::Database;
use crate::dead::DeadRecord;
use crate::envelope::{BODY_BYTES_MAX, Class, Envelope, Form, Key};
use crate::forward::{DueForward, ForwardId, ForwardRecord, Room};
use crate::record::{Counts, EscalationRecord, OutcomeRecord, PromptRecord};
use crate::staged::Staged;
use crate::stamp::Stamp;
use crate::store::Store;
use serde::de::DeserializeOwned;
use tidegate_schemas::{JobId, cbor};

/// A stored record of any class.
#[derive(Debug, Clone, PartialEq)]
#[allow(clippy::large_enum_variant, reason = "read one page at a time")]
pub enum Stored {
    /// Of prompts.
    Prompt(PromptRecord),
    /// Of escalations.
    Escalation(EscalationRecord),
    /// Of outcomes.
    Outcome(OutcomeRecord),
    /// Of telemetry.
    Forward(ForwardRecord),
    /// Of dead letters.
    Dead(DeadRecord),
}

impl Stored {
    /// The number of the job, the forwarded message or the letter.
    #[must_use]
    pub fn number(&self) -> u64 {
        match self {
            Self::Prompt(record) => record.job.0,
            Self::Escalation(record) => record.job.0,
            Self::Outcome(record) => record.job.0,
            Self::Forward(record) => record.entry.0,
            Self::Dead(record) => record.entry.0,
        }
    }
}

impl Store {
    /// The record under a key, as it stands on disk or in the group that is being made.
    pub(crate) fn read<T: DeserializeOwned>(&self, key: Key, staged: Option<&Staged>) -> Option<T> {
        let in_group = staged.and_then(|group| group.ops.iter().rev().find(|op| op.key == key));
        let record = match (in_group, self.index.form(key)?) {
            (_, Form::File) => self.large.read(key).ok()?,
            (Some(op), Form::Inline) => op.record.clone()?,
            (None, Form::Inline) => self.database().ok()?.get(key).ok()??,
        };
        let envelope = Envelope::decode(&record).filter(|e| e.key == key)?;
        cbor::from_slice(envelope.body, BODY_BYTES_MAX).ok()
    }

    /// The outcome of a job, if it is there and readable.
    pub(crate) fn outcome(&self, job: JobId) -> Option<OutcomeRecord> {
        let released = self.index.outcomes.get(job.0)?.released;
        let outcome: OutcomeRecord = self.read(Key::new(Class::Outcome, job), None)?;
        Some(OutcomeRecord { released, ..outcome })
    }

    /// A prompt with the attempts that were marked, as in the group that is being made.
    pub(crate) fn prompt(&self, job: JobId, staged: Option<&Staged>) -> Option<PromptRecord> {
        let prompt: PromptRecord = self.read(Key::new(Class::Prompt, job), staged)?;
        let marked = self.marked(job, staged).unwrap_or(0);
        Some(PromptRecord { attempts: prompt.attempts.max(marked), ..prompt })
    }

    fn marked(&self, job: JobId, staged: Option<&Staged>) -> Option<u32> {
        let key = Key::new(Class::Attempts, job);
        let in_group = staged.and_then(|group| group.ops.iter().rev().find(|op| op.key == key));
        let record = match in_group {
            Some(op) => op.record.clone()?,
            None => self.database().ok()?.get(key).ok()??,
        };
        cbor::from_slice(Envelope::decode(&record)?.body, BODY_BYTES_MAX).ok()
    }

    /// One record.
    pub(crate) fn stored(&self, class: QueueClass, number: u64) -> Option<Stored> {
        let job = JobId(number);
        match class {
            QueueClass::Prompts => self.prompt(job, None).map(Stored::Prompt),
            QueueClass::Escalations => self.read(Key::new(Class::Escalation, job), None).map(Stored::Escalation),
            QueueClass::Outcomes => self.outcome(job).map(Stored::Outcome),
            QueueClass::Telemetry => self.read(Key::new(Class::Forward, job), None).map(Stored::Forward),
            QueueClass::Dead => self.read(Key::new(Class::Dead, job), None).map(Stored::Dead),
        }
    }

    /// Records of a class above `after`, oldest first, as many as fit; the first in any case. One that cannot be read
    /// is passed over.
    pub(crate) fn page(&self, class: QueueClass, after: u64, room: Room) -> Vec<Stored> {
        let entries = usize::try_from(room.entries_max).unwrap_or(usize::MAX);
        let numbers: Vec<u64> = match class {
            QueueClass::Prompts => self.index.prompts.numbers(after).take(entries).collect(),
            QueueClass::Escalations => self.index.escalations.numbers(after).take(entries).collect(),
            QueueClass::Outcomes => self.index.outcomes.numbers(after).take(entries).collect(),
            QueueClass::Telemetry => self.index.telemetry.shelf().numbers(after).take(entries).collect(),
            QueueClass::Dead => self.index.dead.numbers(after).take(entries).collect(),
        };
        let (mut found, mut bytes) = (Vec::new(), 0);
        for number in numbers {
            bytes += self.bytes(class, number);
            if bytes > room.bytes_max && !found.is_empty() {
                break;
            }
            found.extend(self.stored(class, number));
        }
        found
    }

    fn bytes(&self, class: QueueClass, number: u64) -> u64 {
        let slot = match class {
            QueueClass::Prompts => self.index.prompts.get(number).map(|e| e.slot),
            QueueClass::Escalations => self.index.escalations.get(number).map(|e| e.slot),
            QueueClass::Outcomes => self.index.outcomes.get(number).map(|e| e.slot),
            QueueClass::Telemetry => self.index.telemetry.shelf().get(number).map(|e| e.slot),
            QueueClass::Dead => self.index.dead.get(number).map(|e| e.slot),
        };
        slot.map_or(0, |slot| slot.bytes.into())
    }

    /// Takes forwarded messages out to be sent. One whose time is over, or that cannot be read, goes with the next
    /// tidying instead; says whether there was one.
    pub(crate) fn take_forwards(&mut self, room: Room, now: &Stamp) -> (Vec<DueForward>, bool) {
        let mut overdue = false;
        let mut due = Vec::new();
        for number in self.index.telemetry.take(room) {
            match self.due(number, now) {
                Some(found) => due.push(found),
                None => {
                    self.index.telemetry.expire(number);
                    overdue = true;
                }
            }
        }
        (due, overdue)
    }

    fn due(&self, number: u64, now: &Stamp) -> Option<DueForward> {
        let slot = self.index.telemetry.shelf().get(number)?;
        let record: ForwardRecord = self.read(Key::new(Class::Forward, JobId(number)), None)?;
        let queued_ms = record.stamp.age_ms(now);
        let expires_in_ms = match record.ttl_ms {
            Some(ttl_ms) => Some(ttl_ms.checked_sub(queued_ms).filter(|left| *left > 0)?),
            None => None,
        };
        let replayed = slot.restored || slot.attempts > 1;
        Some(DueForward { record, attempt: slot.attempts, replayed, queued_ms, expires_in_ms })
    }

    /// Messages that were taken out wait again: those named, or all.
    pub(crate) fn put_back(&mut self, which: Option<Vec<ForwardId>>) {
        let all = || self.index.telemetry.shelf().iter().map(|(number, _)| number).collect();
        let numbers: Vec<u64> = which.map_or_else(all, |named| named.into_iter().map(|entry| entry.0).collect());
        numbers.into_iter().for_each(|number| self.index.telemetry.put_back(number));
    }

    pub(crate) fn counts(&self) -> Counts {
        Counts {
            prompts: self.index.prompts.counts(),
            escalations: self.index.escalations.counts(),
            outcomes: self.index.outcomes.counts(),
            pending: self.index.pending(),
            telemetry: self.index.telemetry.shelf().counts(),
            telemetry_waiting: self.index.telemetry.waiting(),
            dead: self.index.dead.counts(),
            file_bytes: self.database.as_ref().map_or(0, Database::file_bytes),
            ..self.tally
        }
    }
}
