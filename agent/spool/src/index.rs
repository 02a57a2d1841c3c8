//! What is stored, without its content: entries and bytes per class, and whether something more fits.

use crate::envelope::{Class, Form, Key};
use crate::error::{Bound, SpoolError};
use crate::limits::Limits;
use crate::record::ClassCounts;
use crate::stamp::Stamp;
use std::collections::{BTreeMap, BTreeSet};
use tidegate_schemas::{JobId, OUTCOME_BYTES_MAX};

/// Room that an open prompt holds for its outcome, in bytes: the largest frame, and 2 KiB for ids, header and notice.
pub(crate) const RESERVED_BYTES: u64 = OUTCOME_BYTES_MAX as u64 + 2048;
/// Bytes of key, attempts and release of a job, counted as live beside its records.
const MARK_BYTES: u64 = 96;

/// A stored record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Slot {
    /// Bytes of the whole record.
    pub(crate) bytes: u32,
    pub(crate) form: Form,
}

/// A stored prompt.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PromptSlot {
    pub(crate) slot: Slot,
    /// Whether there is a record of its attempts.
    pub(crate) attempted: bool,
}

/// A stored outcome.
#[derive(Debug, Clone, Copy)]
pub(crate) struct OutcomeSlot {
    pub(crate) slot: Slot,
    pub(crate) stamp: Stamp,
    /// Tells a repeated outcome from another one.
    pub(crate) frame_crc: u32,
    pub(crate) released: bool,
}

/// Entries, bytes and bounds of all classes.
#[derive(Debug)]
pub(crate) struct Index {
    limits: Limits,
    pub(crate) prompts: BTreeMap<JobId, PromptSlot>,
    pub(crate) escalations: BTreeMap<JobId, Slot>,
    pub(crate) outcomes: BTreeMap<JobId, OutcomeSlot>,
    released: BTreeSet<JobId>,
    prompt_bytes: u64,
    escalation_bytes: u64,
    outcome_bytes: u64,
    /// Bytes of records that stand in the database.
    inline_bytes: u64,
    /// Above every job that was ever stored.
    pub(crate) next_job: u64,
}

impl Index {
    pub(crate) fn new(limits: Limits) -> Self {
        Self {
            limits,
            prompts: BTreeMap::new(),
            escalations: BTreeMap::new(),
            outcomes: BTreeMap::new(),
            released: BTreeSet::new(),
            prompt_bytes: 0,
            escalation_bytes: 0,
            outcome_bytes: 0,
            inline_bytes: 0,
            next_job: 1,
        }
    }

    /// Whether a prompt fits the inbox.
    pub(crate) fn check_prompt(&self, bytes: u64) -> Result<(), SpoolError> {
        check(Bound::Prompts, self.prompts.len() as u64 + 1, self.limits.inbox_entries_max)?;
        check(Bound::PromptBytes, self.prompt_bytes + bytes, self.limits.inbox_bytes_max)
    }

    /// Whether an escalation of a job fits the outbox, in the place of an earlier one of the same job.
    pub(crate) fn check_escalation(&self, job: JobId, bytes: u64) -> Result<(), SpoolError> {
        let replaced = self.escalations.get(&job);
        let entries = self.escalations.len() as u64 + u64::from(replaced.is_none());
        check(Bound::Escalations, entries, self.limits.outbox_entries_max)?;
        let freed = replaced.map_or(0, |s| u64::from(s.bytes));
        check(Bound::EscalationBytes, self.escalation_bytes - freed + bytes, self.limits.outbox_bytes_max)
    }

    /// Released outcomes, oldest first, that must go before one more prompt can hold room for its outcome.
    pub(crate) fn room_for_outcome(&self) -> Result<Vec<JobId>, SpoolError> {
        let open = self.prompts.len() as u64 + 1;
        let mut entries = self.outcomes.len() as u64 + open;
        let mut bytes = self.outcome_bytes + open * RESERVED_BYTES;
        let fits = |entries, bytes| {
            check(Bound::Outcomes, entries, self.limits.outcomes_entries_max)?;
            check(Bound::OutcomeBytes, bytes, self.limits.outcomes_bytes_max)
        };
        let mut surplus = Vec::new();
        let mut oldest = self.released.iter();
        while let Err(full) = fits(entries, bytes) {
            let Some(job) = oldest.next() else { return Err(full) };
            entries -= 1;
            bytes -= self.outcomes.get(job).map_or(0, |o| u64::from(o.slot.bytes));
            surplus.push(*job);
        }
        Ok(surplus)
    }

    pub(crate) fn add_prompt(&mut self, job: JobId, prompt: PromptSlot) {
        self.count(prompt.slot, |i| &mut i.prompt_bytes);
        self.prompts.insert(job, prompt);
        self.used(job);
    }

    pub(crate) fn remove_prompt(&mut self, job: JobId) -> Option<PromptSlot> {
        let prompt = self.prompts.remove(&job)?;
        self.discount(prompt.slot, |i| &mut i.prompt_bytes);
        Some(prompt)
    }

    pub(crate) fn add_escalation(&mut self, job: JobId, slot: Slot) {
        self.count(slot, |i| &mut i.escalation_bytes);
        self.escalations.insert(job, slot);
    }

    pub(crate) fn remove_escalation(&mut self, job: JobId) -> Option<Slot> {
        let slot = self.escalations.remove(&job)?;
        self.discount(slot, |i| &mut i.escalation_bytes);
        Some(slot)
    }

    pub(crate) fn add_outcome(&mut self, job: JobId, outcome: OutcomeSlot) {
        self.count(outcome.slot, |i| &mut i.outcome_bytes);
        self.outcomes.insert(job, outcome);
        if outcome.released {
            self.released.insert(job);
        }
        self.used(job);
    }

    pub(crate) fn remove_outcome(&mut self, job: JobId) -> Option<OutcomeSlot> {
        let outcome = self.outcomes.remove(&job)?;
        self.discount(outcome.slot, |i| &mut i.outcome_bytes);
        self.released.remove(&job);
        Some(outcome)
    }

    pub(crate) fn release(&mut self, job: JobId) {
        if let Some(outcome) = self.outcomes.get_mut(&job) {
            outcome.released = true;
            self.released.insert(job);
        }
    }

    /// Outcomes over their time, at most `max`: released ones past `seen_keep_ms`, others past `answer_keep_ms`.
    pub(crate) fn overdue(&self, now: &Stamp, max: usize) -> Vec<JobId> {
        let over = |o: &OutcomeSlot| {
            let keep_ms = if o.released { self.limits.seen_keep_ms } else { self.limits.answer_keep_ms };
            o.stamp.age_ms(now) > keep_ms
        };
        self.outcomes.iter().filter(|(_, o)| over(o)).map(|(job, _)| *job).take(max).collect()
    }

    /// Where the record of a key stands, if it is stored.
    pub(crate) fn form(&self, key: Key) -> Option<Form> {
        let slot = match key.class {
            Class::Prompt => self.prompts.get(&key.job).map(|p| p.slot),
            Class::Escalation => self.escalations.get(&key.job).copied(),
            Class::Outcome => self.outcomes.get(&key.job).map(|o| o.slot),
            Class::Attempts | Class::Released | Class::Horizon => None,
        };
        slot.map(|s| s.form)
    }

    /// The oldest job that is stored; all below are gone for good.
    pub(crate) fn floor(&self) -> u64 {
        let first = [self.prompts.keys().next(), self.outcomes.keys().next()];
        first.into_iter().flatten().map(|j| j.0).min().unwrap_or(self.next_job)
    }

    pub(crate) fn prompt_counts(&self) -> ClassCounts {
        ClassCounts { entries: self.prompts.len() as u64, bytes: self.prompt_bytes }
    }

    pub(crate) fn escalation_counts(&self) -> ClassCounts {
        ClassCounts { entries: self.escalations.len() as u64, bytes: self.escalation_bytes }
    }

    pub(crate) fn outcome_counts(&self) -> ClassCounts {
        ClassCounts { entries: self.outcomes.len() as u64, bytes: self.outcome_bytes }
    }

    /// Outcomes that no session acknowledged.
    pub(crate) fn pending(&self) -> u64 {
        (self.outcomes.len() - self.released.len()) as u64
    }

    /// Bytes that live in the database.
    pub(crate) fn live_bytes(&self) -> u64 {
        self.inline_bytes + MARK_BYTES * (self.prompts.len() + self.outcomes.len()) as u64
    }

    fn used(&mut self, job: JobId) {
        self.next_job = self.next_job.max(job.0.saturating_add(1));
    }

    fn count(&mut self, slot: Slot, class: impl Fn(&mut Self) -> &mut u64) {
        *class(self) += u64::from(slot.bytes);
        if slot.form == Form::Inline {
            self.inline_bytes += u64::from(slot.bytes);
        }
    }

    fn discount(&mut self, slot: Slot, class: impl Fn(&mut Self) -> &mut u64) {
        *class(self) -= u64::from(slot.bytes);
        if slot.form == Form::Inline {
            self.inline_bytes -= u64::from(slot.bytes);
        }
    }
}

fn check(what: Bound, would: u64, max: u64) -> Result<(), SpoolError> {
    if would > max { Err(SpoolError::Full { what, would, max }) } else { Ok(()) }
}
