//! The store itself, used by one thread: stages changes against the index, commits a group of them at once.
//!
//! A large record is on disk under its name before the database names it; it is removed after the database has
//! forgotten it. Whatever lies between is an orphan, which the next opening removes.

use crate::class::{DropReason, Notice, QueueClass};
use crate::database::Database;
use crate::dead::DeadReason;
use crate::envelope::{BODY_BYTES_MAX, Class, Envelope, Form, Key};
use crate::error::{Bound, SpoolError};
use crate::gone::Gone;
use crate::good_time::GoodTime;
use crate::index::{EscalationSlot, Index, OutcomeSlot, PromptSlot};
use crate::large::LargeFiles;
use crate::record::{Change, Counts, EscalationRecord, OutcomeRecord, PromptRecord};
use crate::shelf::Slot;
use crate::space::{LEAST_BYTES, Space};
use crate::staged::{HORIZON, Horizon, Staged};
use crate::stamp::Stamp;
use crate::witness::{self, Synced};
use serde::Serialize;
use std::fs::File;
use std::io;
use std::path::PathBuf;
use tidegate_schemas::{JobId, cbor};

/// Entries of a class that one round of pruning removes: about the work of one group.
const PRUNE_MAX: usize = 256;

/// Nobody asks for the database meanwhile.
const SWITCHING: &str = "the generation switch did not end";

/// The open store.
pub(crate) struct Store {
    /// The directory, and the lock on it.
    pub(crate) dir: PathBuf,
    pub(crate) _lock: File,
    pub(crate) generation: u64,
    /// None only while a generation switch is under way.
    pub(crate) database: Option<Database>,
    /// Size of the database file when it was opened, in bytes.
    pub(crate) opened_bytes: u64,
    pub(crate) large: LargeFiles,
    pub(crate) space: Space,
    /// [`crate::Limits::behind_max`].
    pub(crate) behind_max: usize,
    pub(crate) synced: Synced,
    pub(crate) index: Index,
    /// The sequence number of the next record.
    pub(crate) seq: u64,
    pub(crate) good_time: GoodTime,
    /// As it stands on disk.
    pub(crate) horizon: Horizon,
    pub(crate) gone: Gone,
    /// What was counted since the opening; entries and bytes are filled in when they are asked for.
    pub(crate) tally: Counts,
}

impl Store {
    /// Checks a change against the bounds, writes what is large, and adds the rest to the group.
    pub(crate) fn stage(&mut self, change: Change, staged: &mut Staged) -> Result<(), SpoolError> {
        match change {
            Change::Keep(record) => self.keep(&record, staged),
            Change::MarkAttempt { job, attempts } => self.mark_attempt(job, attempts, staged),
            Change::Escalate(record) => self.escalate(&record, staged),
            Change::Conclude(record) => self.conclude(&record, staged),
            Change::Release { job } => self.release(job, staged),
            Change::Forget { job } => self.forget(job, staged),
            Change::ConcludeDead { outcome, reason } => self.conclude_dead(&outcome, reason, staged),
            Change::Forward(record) => self.forward(record, staged),
            Change::ForwardDone { entry } => self.forward_done(entry, staged),
            Change::ForwardDead { entry, reason } => self.forward_dead(entry, reason, staged),
            Change::ForwardDrop { entry } => self.forward_drop(entry, staged),
            Change::DeadForward { entry } => self.dead_forward(entry, staged),
            Change::DeadRemove { entry } => self.dead_remove(entry, staged),
        }
    }

    fn keep(&mut self, record: &PromptRecord, staged: &mut Staged) -> Result<(), SpoolError> {
        let job = record.job;
        if self.index.prompts.contains(job.0) || self.index.outcomes.contains(job.0) {
            return Err(SpoolError::Taken(job));
        }
        self.space.admit()?;
        let body = body(record)?;
        self.index.check_prompt(&record.device, Slot::of(&body).bytes.into())?;
        let surplus = self.index.room_for_outcome(&record.device)?;
        let slot = self.put(Key::new(Class::Prompt, job), &body, staged)?;
        surplus.into_iter().for_each(|old| self.prune_one(old, staged));
        self.use_again(job, staged);
        self.index.add_prompt(job, PromptSlot { slot, device: record.device.clone(), attempted: false });
        Ok(())
    }

    /// A number that was used before would be taken for a shadow: it is no longer gone. Where the floor comes down with
    /// it, what else lay below is gone by itself. Gateways never do this: their numbers only grow.
    fn use_again(&mut self, job: JobId, staged: &mut Staged) {
        let key = |number: u64| Key::new(Class::Prompt, JobId(number));
        let floor = self.horizon.floor;
        (job.0.saturating_add(1)..floor).for_each(|number| self.gone.add(key(number)));
        staged.forgets |= self.gone.take_back(key(job.0)) || job.0 < floor;
    }

    fn mark_attempt(&mut self, job: JobId, attempts: u32, staged: &mut Staged) -> Result<(), SpoolError> {
        self.proceed()?;
        let prompt = self.index.prompts.get_mut(job.0).ok_or(SpoolError::Unknown(job))?;
        prompt.attempted = true;
        self.put_inline(Key::new(Class::Attempts, job), &cbor::to_vec(&attempts), staged);
        Ok(())
    }

    fn escalate(&mut self, record: &EscalationRecord, staged: &mut Staged) -> Result<(), SpoolError> {
        let job = record.job;
        if !self.index.prompts.contains(job.0) {
            return Err(SpoolError::Unknown(job));
        }
        self.space.admit()?;
        let body = body(record)?;
        let device = &record.escalation.device;
        self.index.check_escalation(job, device, Slot::of(&body).bytes.into())?;
        let key = Key::new(Class::Escalation, job);
        let slot = self.put(key, &body, staged)?;
        let replaced = self.index.escalations.remove(job.0);
        if replaced.is_some_and(|old| old.slot.form == Form::File) && slot.form == Form::Inline {
            staged.unlink.insert(key);
        }
        self.index.escalations.insert(job.0, EscalationSlot { slot, device: device.clone() });
        Ok(())
    }

    pub(crate) fn conclude(&mut self, record: &OutcomeRecord, staged: &mut Staged) -> Result<(), SpoolError> {
        let job = record.job;
        let frame_crc = crc32c::crc32c(&record.frame);
        if let Some(stored) = self.index.outcomes.get(job.0) {
            return if stored.frame_crc == frame_crc { Ok(()) } else { Err(SpoolError::Decided(job)) };
        }
        if !self.index.prompts.contains(job.0) {
            return Err(SpoolError::Unknown(job));
        }
        self.proceed()?;
        let slot = self.put(Key::new(Class::Outcome, job), &body(record)?, staged)?;
        self.remove_job(job, staged);
        let (device, stamp, released) = (record.device.clone(), record.stamp, record.released);
        self.index.add_outcome(job, OutcomeSlot { slot, device, stamp, frame_crc, released });
        Ok(())
    }

    /// Takes prompt, attempts and escalation of a job off the disk.
    fn remove_job(&mut self, job: JobId, staged: &mut Staged) {
        if let Some(prompt) = self.index.prompts.remove(job.0) {
            staged.remove_slot(Key::new(Class::Prompt, job), prompt.slot);
            if prompt.attempted {
                staged.remove(Key::new(Class::Attempts, job));
            }
        }
        if let Some(escalation) = self.index.escalations.remove(job.0) {
            staged.remove_slot(Key::new(Class::Escalation, job), escalation.slot);
        }
    }

    fn release(&mut self, job: JobId, staged: &mut Staged) -> Result<(), SpoolError> {
        let outcome = self.index.outcomes.get(job.0).ok_or(SpoolError::Unknown(job))?;
        if outcome.released {
            return Ok(());
        }
        self.proceed()?;
        self.index.release(job);
        self.put_inline(Key::new(Class::Released, job), &[], staged);
        Ok(())
    }

    fn forget(&mut self, job: JobId, staged: &mut Staged) -> Result<(), SpoolError> {
        let outcome = self.index.outcomes.get(job.0).ok_or(SpoolError::Unknown(job))?;
        if !outcome.released {
            return Err(SpoolError::Unreleased(job));
        }
        self.proceed()?;
        self.prune_one(job, staged);
        Ok(())
    }

    /// Keeps what is dead before its outcome ends it.
    fn conclude_dead(
        &mut self,
        outcome: &OutcomeRecord,
        reason: DeadReason,
        staged: &mut Staged,
    ) -> Result<(), SpoolError> {
        let letter = self.letter_of_job(outcome, reason, staged);
        let open = self.index.prompts.contains(outcome.job.0);
        self.conclude(outcome, staged)?;
        if open && let Some(letter) = letter {
            self.keep_letter(letter, staged);
        }
        Ok(())
    }

    /// Stages the removal of what is over its time; says whether there may be more.
    pub(crate) fn prune(&mut self, now: &Stamp, staged: &mut Staged) -> bool {
        if self.proceed().is_err() {
            return false;
        }
        let overdue = self.index.overdue(now, PRUNE_MAX);
        let forwards = self.index.telemetry.overdue(now.boot_ms, PRUNE_MAX);
        let letters = self.index.overdue_dead(now, PRUNE_MAX);
        let more = [overdue.len(), forwards.len(), letters.len()].contains(&PRUNE_MAX);
        overdue.into_iter().for_each(|job| self.prune_one(job, staged));
        forwards.into_iter().for_each(|number| self.drop_forward(number, DropReason::Expired, staged));
        letters.into_iter().for_each(|number| self.drop_dead(number, DropReason::Expired, staged));
        more
    }

    fn prune_one(&mut self, job: JobId, staged: &mut Staged) {
        let Some(outcome) = self.index.remove_outcome(job) else { return };
        staged.remove_slot(Key::new(Class::Outcome, job), outcome.slot);
        staged.remove(Key::new(Class::Released, job));
        self.forgets(Key::new(Class::Outcome, job), staged);
        if outcome.released {
            self.tally.pruned += 1;
        } else {
            self.tally.dropped += 1;
            staged.dropped(QueueClass::Outcomes, DropReason::Expired, outcome.slot);
        }
    }

    /// Writes down with the group that this went: nothing else tells of it.
    pub(crate) fn forgets(&mut self, key: Key, staged: &mut Staged) {
        self.gone.add(key);
        staged.forgets = true;
    }

    /// Writes the group and syncs it; afterwards what it made superfluous goes. Returns what is to be told. An error
    /// poisons the store.
    pub(crate) fn commit(&mut self, mut staged: Staged) -> Result<Vec<Notice>, String> {
        if staged.forgets {
            self.horizon = Horizon::of(&self.index);
            self.put_inline(HORIZON, &cbor::to_vec(&self.horizon), &mut staged);
            for (key, bits) in self.gone.changes(&self.horizon) {
                match bits {
                    Some(bits) => self.put_inline(key, &bits, &mut staged),
                    None => staged.remove(key),
                }
            }
        }
        if staged.named {
            self.large.sync().map_err(|e| format!("sync of the directory of large records: {e}"))?;
        }
        let notices = staged.take_notices();
        self.database_mut()?.apply(&staged.ops)?;
        self.tally.syncs += 1;
        self.synced.note(self.seq);
        self.seq = witness::end_of_group(self.seq);
        staged.unlink.into_iter().for_each(|key| self.large.remove(key));
        Ok(notices)
    }

    /// Whether what was admitted may go on: behind the end of the log, or as long as the disk has room.
    pub(crate) fn proceed(&self) -> Result<(), SpoolError> {
        let reserved = self.database.as_ref().map_or(0, Database::reserved_bytes);
        if reserved >= LEAST_BYTES { Ok(()) } else { self.space.proceed() }
    }

    pub(crate) fn restore_ballast(&self) {
        self.space.restore_ballast();
    }

    pub(crate) fn database(&self) -> Result<&Database, String> {
        self.database.as_ref().ok_or_else(|| SWITCHING.to_owned())
    }

    fn database_mut(&mut self) -> Result<&mut Database, String> {
        self.database.as_mut().ok_or_else(|| SWITCHING.to_owned())
    }

    /// Lets the table of places take in what the journal says, when it is time, and there is room for it. An error
    /// poisons the store.
    pub(crate) fn catch_up(&mut self) -> Result<(), String> {
        let (roomy, behind_max) = (self.space.spare() > 0, self.behind_max);
        let database = self.database_mut()?;
        if database.is_behind(behind_max) && (roomy || database.has_room_to_catch_up()) {
            database.catch_up()
        } else {
            Ok(())
        }
    }

    /// Writes a record into the database or, when it is large, into a file that the database will name.
    pub(crate) fn put(&mut self, key: Key, body: &[u8], staged: &mut Staged) -> Result<Slot, SpoolError> {
        let slot = Slot::of(body);
        if slot.form == Form::Inline {
            self.put_inline(key, body, staged);
            return Ok(slot);
        }
        // A file of its own cannot go behind the end of the log.
        self.space.proceed()?;
        let seq = self.next_seq();
        let record = Envelope { key, form: Form::Inline, seq, body }.encode();
        self.large.write(key, &record).map_err(|e| self.write_failed(&e))?;
        staged.bytes += record.len();
        staged.named = true;
        staged.unlink.remove(&key);
        staged.put(key, Envelope { key, form: Form::File, seq, body: &[] }.encode());
        Ok(slot)
    }

    fn put_inline(&mut self, key: Key, body: &[u8], staged: &mut Staged) {
        let seq = self.next_seq();
        staged.put(key, Envelope { key, form: Form::Inline, seq, body }.encode());
    }

    fn next_seq(&mut self) -> u64 {
        self.seq += 1;
        self.seq
    }

    /// A large file that does not fit concerns its own change only; any other failure concerns the disk.
    fn write_failed(&self, error: &io::Error) -> SpoolError {
        match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => self.space.full(),
            _ => SpoolError::Poisoned(format!("write of a large record: {error}")),
        }
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        if let Some(database) = self.database.take() {
            database.close();
        }
    }
}

pub(crate) fn body<T: Serialize>(record: &T) -> Result<Vec<u8>, SpoolError> {
    let body = cbor::to_vec(record);
    if body.len() > BODY_BYTES_MAX {
        let (would, max) = (body.len() as u64, BODY_BYTES_MAX as u64);
        return Err(SpoolError::Full { what: Bound::RecordBytes, would, max });
    }
    Ok(body)
}
