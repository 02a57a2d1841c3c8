//! Changes to forwarded messages and dead letters.
//!
//! A forwarded message is removed by the word of whoever sent it, by its time, or by its class's policy; a dead letter
//! is written in the same atomic step that ends what it tells of.

use crate::class::{DropReason, Notice, QueueClass};
use crate::dead::{DeadId, DeadItem, DeadReason, DeadRecord};
use crate::envelope::{Class, Key};
use crate::error::SpoolError;
use crate::forward::{ForwardId, ForwardRecord};
use crate::index::DeadSlot;
use crate::record::OutcomeRecord;
use crate::shelf::Slot;
use crate::staged::Staged;
use crate::stamp::Stamp;
use crate::store::{Store, body};
use crate::telemetry::{ForwardSlot, Stand};
use tidegate_schemas::JobId;

fn forward_key(number: u64) -> Key {
    Key::new(Class::Forward, JobId(number))
}

fn dead_key(number: u64) -> Key {
    Key::new(Class::Dead, JobId(number))
}

/// When a message's time is over on this boot's `CLOCK_BOOTTIME`, as far as its age is known.
pub(crate) fn expires_boot_ms(record: &ForwardRecord, now: &Stamp) -> u64 {
    let left = |ttl_ms: u64| now.boot_ms.saturating_add(ttl_ms.saturating_sub(record.stamp.age_ms(now)));
    record.ttl_ms.map_or(u64::MAX, left)
}

impl Store {
    pub(crate) fn forward(&mut self, record: ForwardRecord, staged: &mut Staged) -> Result<(), SpoolError> {
        let number = self.index.next_forward;
        let record = ForwardRecord { entry: ForwardId(number), ..record };
        self.space.admit_telemetry()?;
        let body = body(&record)?;
        let bytes = Slot::of(&body).bytes.into();
        let victims = self.index.telemetry.room_for(&record.source, bytes, record.priority)?;
        let slot = self.put(forward_key(number), &body, staged)?;
        victims.into_iter().for_each(|victim| self.drop_forward(victim, DropReason::Full, staged));
        let slot = ForwardSlot {
            slot,
            expires_boot_ms: expires_boot_ms(&record, &Stamp::now()),
            source: record.source,
            priority: record.priority,
            stand: Stand::Waiting,
            attempts: 0,
            restored: false,
        };
        self.index.telemetry.insert(number, slot);
        self.index.next_forward = number + 1;
        Ok(())
    }

    pub(crate) fn forward_done(&mut self, entry: ForwardId, staged: &mut Staged) -> Result<(), SpoolError> {
        self.proceed()?;
        self.remove_forward(entry.0, staged).map(drop).ok_or(SpoolError::NoEntry(entry.0))
    }

    pub(crate) fn forward_drop(&mut self, entry: ForwardId, staged: &mut Staged) -> Result<(), SpoolError> {
        self.proceed()?;
        if self.index.telemetry.shelf().get(entry.0).is_none() {
            return Err(SpoolError::NoEntry(entry.0));
        }
        self.drop_forward(entry.0, DropReason::Operator, staged);
        Ok(())
    }

    /// Refused for good: the letter takes its place. Without room for the letter the message goes all the same, or it
    /// would be refused for ever.
    pub(crate) fn forward_dead(
        &mut self,
        entry: ForwardId,
        reason: DeadReason,
        staged: &mut Staged,
    ) -> Result<(), SpoolError> {
        self.proceed()?;
        let record: Option<ForwardRecord> = self.read(forward_key(entry.0), Some(staged));
        let removed = self.remove_forward(entry.0, staged).ok_or(SpoolError::NoEntry(entry.0))?;
        let number = DeadId(self.index.next_dead);
        let letter = record.map(|record| DeadRecord {
            entry: number,
            source: record.source.clone(),
            item: DeadItem::Forward(record),
            reason,
            stamp: Stamp::now(),
        });
        let kept = letter.is_some_and(|letter| self.keep_letter(letter, staged));
        if !kept {
            staged.dropped(QueueClass::Telemetry, DropReason::Full, removed);
        }
        Ok(())
    }

    /// Drops a forwarded message, and says so.
    pub(crate) fn drop_forward(&mut self, number: u64, reason: DropReason, staged: &mut Staged) {
        if let Some(slot) = self.remove_forward(number, staged) {
            staged.dropped(QueueClass::Telemetry, reason, slot);
            self.tally_drop(reason);
        }
    }

    fn remove_forward(&mut self, number: u64, staged: &mut Staged) -> Option<Slot> {
        let slot = self.index.telemetry.remove(number)?.slot;
        staged.remove_slot(forward_key(number), slot);
        self.forgets(forward_key(number), staged);
        Some(slot)
    }

    /// The letter of a job that is about to end.
    pub(crate) fn letter_of_job(
        &self,
        outcome: &OutcomeRecord,
        reason: DeadReason,
        staged: &Staged,
    ) -> Option<DeadRecord> {
        let key = Key::new(Class::Escalation, outcome.job);
        let refused = matches!(reason, DeadReason::Refused { .. });
        let escalation = if refused { self.read(key, Some(staged)).map(DeadItem::Escalation) } else { None };
        let item = escalation.or_else(|| self.prompt(outcome.job, Some(staged)).map(DeadItem::Prompt))?;
        let entry = DeadId(self.index.next_dead);
        Some(DeadRecord { entry, source: outcome.device.clone(), item, reason, stamp: outcome.stamp })
    }

    /// Keeps a dead letter if there is room for it; says whether there was.
    pub(crate) fn keep_letter(&mut self, letter: DeadRecord, staged: &mut Staged) -> bool {
        let kept = body(&letter).and_then(|body| {
            let surplus = self.index.room_for_dead(&letter.source, Slot::of(&body).bytes.into())?;
            let slot = self.put(dead_key(letter.entry.0), &body, staged)?;
            Ok((slot, surplus))
        });
        let (slot, surplus) = match kept {
            Ok(kept) => kept,
            Err(error) => {
                tracing::warn!(%error, source = %letter.source, reason = %letter.reason, "a dead letter was not kept");
                self.tally_drop(DropReason::Full);
                return false;
            }
        };
        surplus.into_iter().for_each(|old| self.drop_dead(old, DropReason::Full, staged));
        let DeadRecord { entry, source, reason, stamp, .. } = letter;
        self.index.dead.insert(entry.0, DeadSlot { slot, source: source.clone(), stamp });
        self.index.next_dead = entry.0 + 1;
        staged.told.push(Notice::Died { entry, source, reason });
        true
    }

    /// Drops a dead letter, and says so.
    pub(crate) fn drop_dead(&mut self, number: u64, reason: DropReason, staged: &mut Staged) {
        if let Some(slot) = self.remove_dead(number, staged) {
            staged.dropped(QueueClass::Dead, reason, slot);
            self.tally_drop(reason);
        }
    }

    pub(crate) fn dead_remove(&mut self, entry: DeadId, staged: &mut Staged) -> Result<(), SpoolError> {
        self.proceed()?;
        self.remove_dead(entry.0, staged).map(drop).ok_or(SpoolError::NoEntry(entry.0))
    }

    fn remove_dead(&mut self, number: u64, staged: &mut Staged) -> Option<Slot> {
        let slot = self.index.dead.remove(number)?.slot;
        staged.remove_slot(dead_key(number), slot);
        self.forgets(dead_key(number), staged);
        Some(slot)
    }

    /// A dead forwarded message is forwarded again, with its time to live from the start.
    pub(crate) fn dead_forward(&mut self, entry: DeadId, staged: &mut Staged) -> Result<(), SpoolError> {
        let letter: Option<DeadRecord> = self.read(dead_key(entry.0), Some(staged));
        let Some(DeadItem::Forward(record)) = letter.map(|letter| letter.item) else {
            return Err(SpoolError::NoEntry(entry.0));
        };
        self.forward(ForwardRecord { stamp: Stamp::now(), ..record }, staged)?;
        self.dead_remove(entry, staged)
    }

    fn tally_drop(&mut self, reason: DropReason) {
        match reason {
            DropReason::Full => self.tally.dropped_full += 1,
            DropReason::Expired => self.tally.dropped_expired += 1,
            DropReason::Operator => self.tally.dropped_operator += 1,
        }
    }
}
