//! What the store should hold, kept as plainly as possible: every rule is a loop over everything.
#![allow(clippy::unwrap_used, unreachable_pub)]

use std::collections::BTreeMap;
use tidegate_schemas::{DeviceId, JobId};
use tidegate_spool::{
    Bound, Change, DeadId, DeadItem, DeadReason, DeadRecord, EscalationRecord, ForwardId, ForwardRecord, OutcomeRecord,
    Policy, PromptRecord, QueueClass, SpoolError, Stamp, Stored,
};

/// What a salvage leaves out of each series of numbers.
const NUMBER_GAP: u64 = 1 << 20;
pub const INBOX_MAX: u64 = 3;
pub const INBOX_DEVICE_MAX: u64 = 2;
pub const OUTBOX_MAX: u64 = 2;
pub const OUTCOMES_MAX: u64 = 5;
pub const TELEMETRY_MAX: u64 = 4;
pub const TELEMETRY_DEVICE_MAX: u64 = 3;
pub const DEAD_MAX: u64 = 4;
pub const DEAD_DEVICE_MAX: u64 = 2;
/// Every turn of so many is the oldest's.
const SHARE: u64 = 8;

#[derive(Debug, Clone)]
pub struct Forwarded {
    pub record: ForwardRecord,
    taken: bool,
    attempts: u32,
    restored: bool,
}

pub struct Model {
    policy: Policy,
    pub prompts: BTreeMap<u64, PromptRecord>,
    pub escalations: BTreeMap<u64, EscalationRecord>,
    pub outcomes: BTreeMap<u64, OutcomeRecord>,
    pub forwards: BTreeMap<u64, Forwarded>,
    pub dead: BTreeMap<u64, DeadRecord>,
    pub highest: u64,
    pub next_forward: u64,
    next_dead: u64,
    turns: u64,
}

/// The stamp of a moment that the store chose itself is not compared.
pub fn timeless(record: ForwardRecord) -> ForwardRecord {
    ForwardRecord { stamp: Stamp::default(), ..record }
}

pub fn timeless_stored(stored: Stored) -> Stored {
    match stored {
        Stored::Forward(record) => Stored::Forward(timeless(record)),
        Stored::Dead(letter) => {
            let item = match letter.item {
                DeadItem::Forward(record) => DeadItem::Forward(timeless(record)),
                other => other,
            };
            Stored::Dead(DeadRecord { item, stamp: Stamp::default(), ..letter })
        }
        other => other,
    }
}

fn full(what: Bound, would: u64, max: u64) -> SpoolError {
    SpoolError::Full { what, would, max }
}

impl Model {
    pub fn new(policy: Policy) -> Self {
        Self {
            policy,
            prompts: BTreeMap::new(),
            escalations: BTreeMap::new(),
            outcomes: BTreeMap::new(),
            forwards: BTreeMap::new(),
            dead: BTreeMap::new(),
            highest: 0,
            next_forward: 1,
            next_dead: 1,
            turns: 0,
        }
    }

    pub fn apply(&mut self, change: Change) -> Result<(), SpoolError> {
        match change {
            Change::Keep(record) => self.keep(record),
            Change::MarkAttempt { job, attempts } => {
                self.prompts.get_mut(&job.0).ok_or(SpoolError::Unknown(job))?.attempts = attempts;
                Ok(())
            }
            Change::Escalate(record) => self.escalate(record),
            Change::Conclude(record) => self.conclude(record),
            Change::ConcludeDead { outcome, reason } => self.conclude_dead(outcome, reason),
            Change::Release { job } => {
                self.outcomes.get_mut(&job.0).ok_or(SpoolError::Unknown(job))?.released = true;
                Ok(())
            }
            Change::Forget { job } => self.forget(job.0),
            Change::Forward(record) => self.forward(record),
            Change::ForwardDone { entry } | Change::ForwardDrop { entry } => self.gone(entry).map(drop),
            Change::ForwardDead { entry, reason } => {
                let record = self.gone(entry)?.record;
                self.bury(record.source.clone(), DeadItem::Forward(record), reason);
                Ok(())
            }
            Change::DeadForward { entry } => self.dead_forward(entry),
            Change::DeadRemove { entry } => self.dead.remove(&entry.0).map(drop).ok_or(SpoolError::NoEntry(entry.0)),
        }
    }

    fn keep(&mut self, record: PromptRecord) -> Result<(), SpoolError> {
        let job = record.job.0;
        if self.prompts.contains_key(&job) || self.outcomes.contains_key(&job) {
            return Err(SpoolError::Taken(record.job));
        }
        let own = self.prompts.values().filter(|p| p.device == record.device).count() as u64 + 1;
        if own > INBOX_DEVICE_MAX {
            return Err(full(Bound::DeviceEntries(QueueClass::Prompts), own, INBOX_DEVICE_MAX));
        }
        let would = self.prompts.len() as u64 + 1;
        if would > INBOX_MAX {
            return Err(full(Bound::Entries(QueueClass::Prompts), would, INBOX_MAX));
        }
        let released: Vec<u64> = self.outcomes.values().filter(|o| o.released).map(|o| o.job.0).collect();
        let all = self.outcomes.len() as u64 + would;
        let surplus = all.saturating_sub(OUTCOMES_MAX);
        if surplus > released.len() as u64 {
            let would = all - released.len() as u64;
            return Err(full(Bound::Entries(QueueClass::Outcomes), would, OUTCOMES_MAX));
        }
        released.iter().take(surplus as usize).for_each(|j| drop(self.outcomes.remove(j)));
        self.prompts.insert(job, record);
        self.highest = self.highest.max(job);
        Ok(())
    }

    fn escalate(&mut self, record: EscalationRecord) -> Result<(), SpoolError> {
        let job = record.job.0;
        if !self.prompts.contains_key(&job) {
            return Err(SpoolError::Unknown(record.job));
        }
        let would = self.escalations.len() as u64 + u64::from(!self.escalations.contains_key(&job));
        if would > OUTBOX_MAX {
            return Err(full(Bound::Entries(QueueClass::Escalations), would, OUTBOX_MAX));
        }
        self.escalations.insert(job, record);
        Ok(())
    }

    fn conclude(&mut self, record: OutcomeRecord) -> Result<(), SpoolError> {
        let job = record.job.0;
        if let Some(stored) = self.outcomes.get(&job) {
            return if stored.frame == record.frame { Ok(()) } else { Err(SpoolError::Decided(record.job)) };
        }
        self.prompts.remove(&job).ok_or(SpoolError::Unknown(record.job))?;
        self.escalations.remove(&job);
        self.outcomes.insert(job, record);
        Ok(())
    }

    fn conclude_dead(&mut self, record: OutcomeRecord, reason: DeadReason) -> Result<(), SpoolError> {
        let (job, source) = (record.job.0, record.device.clone());
        let refused = matches!(reason, DeadReason::Refused { .. });
        let escalation = self.escalations.get(&job).filter(|_| refused).cloned().map(DeadItem::Escalation);
        let item = escalation.or_else(|| self.prompts.get(&job).cloned().map(DeadItem::Prompt));
        self.conclude(record)?;
        item.into_iter().for_each(|item| self.bury(source.clone(), item, reason.clone()));
        Ok(())
    }

    fn forget(&mut self, job: u64) -> Result<(), SpoolError> {
        let stored = self.outcomes.get(&job).ok_or(SpoolError::Unknown(JobId(job)))?;
        if !stored.released {
            return Err(SpoolError::Unreleased(JobId(job)));
        }
        self.outcomes.remove(&job);
        Ok(())
    }

    fn forward(&mut self, record: ForwardRecord) -> Result<(), SpoolError> {
        let before = self.forwards.clone();
        if let Err(error) = self.make_room(&record) {
            self.forwards = before;
            return Err(error);
        }
        let record = ForwardRecord { entry: ForwardId(self.next_forward), ..record };
        self.next_forward += 1;
        let forwarded = Forwarded { record, taken: false, attempts: 0, restored: false };
        self.forwards.insert(forwarded.record.entry.0, forwarded);
        Ok(())
    }

    fn make_room(&mut self, record: &ForwardRecord) -> Result<(), SpoolError> {
        loop {
            let own = self.forwards.values().filter(|f| f.record.source == record.source).count() as u64 + 1;
            let all = self.forwards.len() as u64 + 1;
            let (error, of) = if own > TELEMETRY_DEVICE_MAX {
                let what = Bound::DeviceEntries(QueueClass::Telemetry);
                (full(what, own, TELEMETRY_DEVICE_MAX), Some(&record.source))
            } else if all > TELEMETRY_MAX {
                (full(Bound::Entries(QueueClass::Telemetry), all, TELEMETRY_MAX), None)
            } else {
                return Ok(());
            };
            let waiting = self.forwards.values().map(|f| (f.taken, &f.record));
            let waiting = waiting.filter(|(taken, r)| !taken && of.is_none_or(|of| *of == r.source));
            let victim = match self.policy {
                Policy::RefuseNewest => None,
                Policy::DropOldest => waiting.map(|(_, r)| r.entry.0).min(),
                Policy::DropLowestPriority => {
                    let least = waiting.map(|(_, r)| (r.priority, r.entry.0)).min();
                    least.filter(|(priority, _)| *priority <= record.priority).map(|(_, number)| number)
                }
            };
            self.forwards.remove(&victim.ok_or(error)?);
        }
    }

    fn gone(&mut self, entry: ForwardId) -> Result<Forwarded, SpoolError> {
        self.forwards.remove(&entry.0).ok_or(SpoolError::NoEntry(entry.0))
    }

    fn dead_forward(&mut self, entry: DeadId) -> Result<(), SpoolError> {
        let Some(DeadItem::Forward(record)) = self.dead.get(&entry.0).map(|letter| letter.item.clone()) else {
            return Err(SpoolError::NoEntry(entry.0));
        };
        self.forward(record)?;
        self.dead.remove(&entry.0);
        Ok(())
    }

    fn bury(&mut self, source: DeviceId, item: DeadItem, reason: DeadReason) {
        let of_device = |dead: &BTreeMap<u64, DeadRecord>| -> Vec<u64> {
            dead.values().filter(|l| l.source == source).map(|l| l.entry.0).collect()
        };
        while of_device(&self.dead).len() as u64 >= DEAD_DEVICE_MAX {
            let oldest = of_device(&self.dead)[0];
            self.dead.remove(&oldest);
        }
        while self.dead.len() as u64 >= DEAD_MAX {
            self.dead.pop_first();
        }
        let entry = DeadId(self.next_dead);
        self.next_dead += 1;
        self.dead.insert(entry.0, DeadRecord { entry, source, item, reason, stamp: Stamp::default() });
    }

    /// With how often each was taken, and whether it may have been sent before.
    pub fn take(&mut self, max: u64) -> Vec<(ForwardRecord, u32, bool)> {
        let mut taken = Vec::new();
        while (taken.len() as u64) < max {
            let waiting = self.forwards.values().filter(|f| !f.taken).map(|f| (f.record.priority, f.record.entry.0));
            let by_age = (self.turns + 1).is_multiple_of(SHARE);
            let first = if by_age {
                waiting.map(|(_, number)| number).min()
            } else {
                waiting.max_by_key(|(priority, number)| (*priority, u64::MAX - number)).map(|(_, number)| number)
            };
            let Some(found) = first.and_then(|number| self.forwards.get_mut(&number)) else { break };
            self.turns += 1;
            found.taken = true;
            found.attempts += 1;
            taken.push((found.record.clone(), found.attempts, found.restored || found.attempts > 1));
        }
        taken
    }

    pub fn put_back(&mut self, number: u64) {
        self.forwards.get_mut(&number).into_iter().for_each(|f| f.taken = false);
    }

    pub fn put_all_back(&mut self) {
        self.forwards.values_mut().for_each(|f| f.taken = false);
    }

    /// After damage numbers are left out, so that none is used twice.
    pub fn salvaged(&mut self) {
        self.next_forward += NUMBER_GAP;
        self.next_dead += NUMBER_GAP;
        self.reopened();
    }

    /// What was in memory only is as at the start.
    pub fn reopened(&mut self) {
        self.turns = 0;
        for forwarded in self.forwards.values_mut() {
            forwarded.taken = false;
            forwarded.attempts = 0;
            forwarded.restored = true;
        }
    }
}
