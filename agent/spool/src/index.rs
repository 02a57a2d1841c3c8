//! What is stored, without its content: entries and bytes per class and device, and whether something more fits.

use crate::class::{Policy, QueueClass};
use crate::envelope::{Class, Form, Key};
use crate::error::SpoolError;
use crate::forward::Room;
use crate::limits::Limits;
use crate::shelf::{Entry, More, Shelf, Slot};
use crate::stamp::Stamp;
use crate::telemetry::Telemetry;
use std::collections::BTreeSet;
use tidegate_schemas::{DeviceId, JobId, OUTCOME_BYTES_MAX};

/// Room that an open prompt holds for its outcome, in bytes: the largest frame, and 2 KiB for ids, header and notice.
pub(crate) const RESERVED_BYTES: u64 = OUTCOME_BYTES_MAX as u64 + 2048;
/// Bytes of key, attempts and release of a job, counted as live beside its records.
const MARK_BYTES: u64 = 96;

/// A stored prompt.
#[derive(Debug)]
pub(crate) struct PromptSlot {
    pub(crate) slot: Slot,
    pub(crate) device: DeviceId,
    /// Whether there is a record of its attempts.
    pub(crate) attempted: bool,
}

/// A stored escalation.
#[derive(Debug)]
pub(crate) struct EscalationSlot {
    pub(crate) slot: Slot,
    pub(crate) device: DeviceId,
}

/// A stored outcome.
#[derive(Debug)]
pub(crate) struct OutcomeSlot {
    pub(crate) slot: Slot,
    pub(crate) device: DeviceId,
    pub(crate) stamp: Stamp,
    /// Tells a repeated outcome from another one.
    pub(crate) frame_crc: u32,
    pub(crate) released: bool,
}

/// A stored dead letter.
#[derive(Debug)]
pub(crate) struct DeadSlot {
    pub(crate) slot: Slot,
    pub(crate) source: DeviceId,
    pub(crate) stamp: Stamp,
}

macro_rules! entry {
    ($slot:ident, $device:ident) => {
        impl Entry for $slot {
            fn slot(&self) -> Slot {
                self.slot
            }
            fn device(&self) -> &DeviceId {
                &self.$device
            }
            fn device_mut(&mut self) -> &mut DeviceId {
                &mut self.$device
            }
        }
    };
}
entry!(PromptSlot, device);
entry!(EscalationSlot, device);
entry!(OutcomeSlot, device);
entry!(DeadSlot, source);

/// Entries, bytes and bounds of all classes.
#[derive(Debug)]
pub(crate) struct Index {
    limits: Limits,
    pub(crate) prompts: Shelf<PromptSlot>,
    pub(crate) escalations: Shelf<EscalationSlot>,
    pub(crate) outcomes: Shelf<OutcomeSlot>,
    pub(crate) telemetry: Telemetry,
    pub(crate) dead: Shelf<DeadSlot>,
    released: BTreeSet<u64>,
    released_of: BTreeSet<(DeviceId, u64)>,
    /// Above every job that was ever stored.
    pub(crate) next_job: u64,
    /// Above every forwarded message that was ever stored.
    pub(crate) next_forward: u64,
    /// Above every dead letter that was ever stored.
    pub(crate) next_dead: u64,
}

impl Index {
    pub(crate) fn new(limits: Limits) -> Self {
        let room = |entries_max, bytes_max| Room { entries_max, bytes_max };
        let prompts = room(limits.inbox_entries_max, limits.inbox_bytes_max);
        let escalations = room(limits.outbox_entries_max, limits.outbox_bytes_max);
        let outcomes = room(limits.outcomes_entries_max, limits.outcomes_bytes_max);
        Self {
            limits,
            prompts: Shelf::new(QueueClass::Prompts, prompts, limits.inbox_device),
            escalations: Shelf::new(QueueClass::Escalations, escalations, limits.outbox_device),
            outcomes: Shelf::new(QueueClass::Outcomes, outcomes, limits.outcomes_device),
            telemetry: Telemetry::new(&limits),
            dead: Shelf::new(QueueClass::Dead, limits.dead, limits.dead_device),
            released: BTreeSet::new(),
            released_of: BTreeSet::new(),
            next_job: 1,
            next_forward: 1,
            next_dead: 1,
        }
    }

    /// Whether a prompt fits the inbox.
    pub(crate) fn check_prompt(&self, device: &DeviceId, bytes: u64) -> Result<(), SpoolError> {
        self.prompts.check(device, More::one(bytes), More::one(bytes))
    }

    /// Whether an escalation of a job fits the outbox, in the place of an earlier one of the same job.
    pub(crate) fn check_escalation(&self, job: JobId, device: &DeviceId, bytes: u64) -> Result<(), SpoolError> {
        let mut more = More::one(bytes);
        self.escalations.get(job.0).into_iter().for_each(|replaced| more.less(replaced.slot));
        self.escalations.check(device, more, more)
    }

    /// Released outcomes that must go before one more prompt of a device can hold room for its outcome: the device's
    /// own where it is over its bound, else the oldest of all.
    pub(crate) fn room_for_outcome(&self, device: &DeviceId) -> Result<Vec<JobId>, SpoolError> {
        let reserved = |open: u64| More::of(open + 1, (open + 1) * RESERVED_BYTES);
        let (mut own, mut all) = (reserved(self.prompts.of(device).entries), reserved(self.prompts.len() as u64));
        let mut surplus = BTreeSet::new();
        let of_device = self.released_of.range((device.clone(), 0)..=(device.clone(), u64::MAX)).map(|(_, job)| *job);
        let (mut of_device, mut of_all) = (of_device, self.released.iter().copied());
        while let Err(full) = self.outcomes.check(device, own, all) {
            let fresh = |job: &u64| !surplus.contains(job);
            let oldest = if full.is_of_device() { of_device.find(fresh) } else { of_all.find(fresh) };
            let Some(job) = oldest else { return Err(full) };
            let Some(outcome) = self.outcomes.get(job) else { return Err(full) };
            all.less(outcome.slot);
            if outcome.device == *device {
                own.less(outcome.slot);
            }
            surplus.insert(job);
        }
        Ok(surplus.into_iter().map(JobId).collect())
    }

    /// Dead letters that must go before one more fits; none of them is owed to anybody.
    pub(crate) fn room_for_dead(&self, source: &DeviceId, bytes: u64) -> Result<Vec<u64>, SpoolError> {
        let (mut own, mut all) = (More::one(bytes), More::one(bytes));
        let mut surplus = BTreeSet::new();
        while let Err(full) = self.dead.check(source, own, all) {
            let wanted =
                |n: &u64, slot: &DeadSlot| !surplus.contains(n) && (!full.is_of_device() || slot.source == *source);
            let oldest = self.dead.iter().find(|(number, slot)| wanted(number, slot));
            let Some((number, slot)) = oldest.filter(|_| self.limits.dead_policy != Policy::RefuseNewest) else {
                return Err(full);
            };
            all.less(slot.slot);
            if slot.source == *source {
                own.less(slot.slot);
            }
            surplus.insert(number);
        }
        Ok(surplus.into_iter().collect())
    }

    pub(crate) fn add_prompt(&mut self, job: JobId, prompt: PromptSlot) {
        self.prompts.insert(job.0, prompt);
        self.used(job);
    }

    pub(crate) fn add_outcome(&mut self, job: JobId, outcome: OutcomeSlot) {
        let released = outcome.released;
        self.outcomes.insert(job.0, outcome);
        if released {
            self.release(job);
        }
        self.used(job);
    }

    pub(crate) fn remove_outcome(&mut self, job: JobId) -> Option<OutcomeSlot> {
        let outcome = self.outcomes.remove(job.0)?;
        self.released.remove(&job.0);
        self.released_of.remove(&(outcome.device.clone(), job.0));
        Some(outcome)
    }

    pub(crate) fn release(&mut self, job: JobId) {
        if let Some(outcome) = self.outcomes.get_mut(job.0) {
            outcome.released = true;
            self.released.insert(job.0);
            self.released_of.insert((outcome.device.clone(), job.0));
        }
    }

    /// Outcomes over their time, at most `max`: released ones past `seen_keep_ms`, others past `answer_keep_ms`.
    pub(crate) fn overdue(&self, now: &Stamp, max: usize) -> Vec<JobId> {
        let over = |o: &OutcomeSlot| {
            let keep_ms = if o.released { self.limits.seen_keep_ms } else { self.limits.answer_keep_ms };
            o.stamp.age_ms(now) > keep_ms
        };
        self.outcomes.iter().filter(|(_, o)| over(o)).map(|(job, _)| JobId(job)).take(max).collect()
    }

    /// Dead letters over their keep time, at most `max`.
    pub(crate) fn overdue_dead(&self, now: &Stamp, max: usize) -> Vec<u64> {
        let over = |slot: &DeadSlot| slot.stamp.age_ms(now) > self.limits.dead_keep_ms;
        self.dead.iter().filter(|(_, slot)| over(slot)).map(|(number, _)| number).take(max).collect()
    }

    /// Where the record of a key stands, if it is stored.
    pub(crate) fn form(&self, key: Key) -> Option<Form> {
        let number = key.job.0;
        let slot = match key.class {
            Class::Prompt => self.prompts.get(number).map(Entry::slot),
            Class::Escalation => self.escalations.get(number).map(Entry::slot),
            Class::Outcome => self.outcomes.get(number).map(Entry::slot),
            Class::Forward => self.telemetry.shelf().get(number).map(Entry::slot),
            Class::Dead => self.dead.get(number).map(Entry::slot),
            Class::Attempts | Class::Released | Class::Horizon | Class::Gone => None,
        };
        slot.map(|s| s.form)
    }

    /// The oldest job that is stored; all below are gone for good.
    pub(crate) fn floor(&self) -> u64 {
        let first = [self.prompts.first(), self.outcomes.first()];
        first.into_iter().flatten().min().unwrap_or(self.next_job)
    }

    /// Outcomes that no session acknowledged.
    pub(crate) fn pending(&self) -> u64 {
        (self.outcomes.len() - self.released.len()) as u64
    }

    /// Bytes that live in the database.
    pub(crate) fn live_bytes(&self) -> u64 {
        let records = [
            self.prompts.inline_bytes(),
            self.escalations.inline_bytes(),
            self.outcomes.inline_bytes(),
            self.telemetry.shelf().inline_bytes(),
            self.dead.inline_bytes(),
        ];
        records.iter().sum::<u64>() + MARK_BYTES * (self.prompts.len() + self.outcomes.len()) as u64
    }

    fn used(&mut self, job: JobId) {
        self.next_job = self.next_job.max(job.0.saturating_add(1));
    }
}
