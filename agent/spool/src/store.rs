//! The store itself, used by one thread: stages changes against the index, commits a group of them at once.
//!
//! A large record is on disk under its name before the database names it; it is removed after the database has
//! forgotten it. Whatever lies between is an orphan, which the next opening removes.

use crate::database::{Database, Op};
use crate::envelope::{BODY_BYTES_MAX, Class, Envelope, Form, Key};
use crate::error::{Bound, SpoolError};
use crate::generation;
use crate::index::{Index, OutcomeSlot, PromptSlot, Slot};
use crate::large::{INLINE_BYTES_MAX, LargeFiles};
use crate::record::{Change, Counts, EscalationRecord, OutcomeRecord, PromptRecord};
use crate::space::Space;
use crate::stamp::Stamp;
use crate::witness::{self, Synced};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::fs::File;
use std::io;
use std::path::PathBuf;
use tidegate_schemas::{JobId, cbor};

/// Bytes that one group writes at most, over by one change: bounds the time of a sync, and stays within one segment
/// of sled, so that no segment is reused for what was not synced.
const GROUP_BYTES_MAX: usize = 256 << 10;
/// Outcomes that one round of pruning removes: about the work of one group.
const PRUNE_MAX: usize = 256;
/// A smaller file is not worth a new generation, in bytes.
const WORN_BYTES_MIN: u64 = 32 << 20;
/// How much larger than what lives in it a file may be.
const WORN_RATIO: u64 = 4;

/// What must outlive the outcomes that are pruned.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Horizon {
    /// Above every job that was ever stored.
    pub(crate) next_job: u64,
    /// All jobs below are gone; a record of one that a scan of a damaged file finds is a shadow.
    pub(crate) floor: u64,
}

/// The key of the horizon.
pub(crate) const HORIZON: Key = Key { class: Class::Horizon, job: JobId(0) };

/// What a group will write.
#[derive(Default)]
pub(crate) struct Staged {
    ops: Vec<Op>,
    bytes: usize,
    /// Whether names in `large/` wait for their sync.
    named: bool,
    /// Large records that go once the group is on disk.
    unlink: BTreeSet<Key>,
    /// Whether outcomes go, so that the horizon has to be written.
    forgets: bool,
}

impl Staged {
    /// Removals that an opening found due. The horizon goes with them: of every group one record must stay.
    pub(crate) fn repairs(ops: Vec<Op>) -> Self {
        Self { ops, forgets: true, ..Self::default() }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.ops.is_empty()
    }

    pub(crate) fn is_full(&self) -> bool {
        self.bytes >= GROUP_BYTES_MAX
    }

    fn put(&mut self, key: Key, record: Vec<u8>) {
        self.bytes += record.len();
        self.ops.push(Op { key, record: Some(record) });
    }

    fn remove(&mut self, key: Key) {
        self.ops.push(Op { key, record: None });
    }

    fn remove_slot(&mut self, key: Key, slot: Slot) {
        self.remove(key);
        if slot.form == Form::File {
            self.unlink.insert(key);
        }
    }
}

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
    pub(crate) synced: Synced,
    pub(crate) index: Index,
    /// The sequence number of the next record.
    pub(crate) seq: u64,
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
        }
    }

    fn keep(&mut self, record: &PromptRecord, staged: &mut Staged) -> Result<(), SpoolError> {
        let job = record.job;
        if self.index.prompts.contains_key(&job) || self.index.outcomes.contains_key(&job) {
            return Err(SpoolError::Taken(job));
        }
        self.space.admit()?;
        let body = body(record)?;
        self.index.check_prompt(Slot::of(&body).bytes.into())?;
        let surplus = self.index.room_for_outcome()?;
        let slot = self.put(Key::new(Class::Prompt, job), &body, staged)?;
        surplus.into_iter().for_each(|old| self.prune_one(old, staged));
        self.index.add_prompt(job, PromptSlot { slot, attempted: false });
        Ok(())
    }

    fn mark_attempt(&mut self, job: JobId, attempts: u32, staged: &mut Staged) -> Result<(), SpoolError> {
        self.space.proceed()?;
        let prompt = self.index.prompts.get_mut(&job).ok_or(SpoolError::Unknown(job))?;
        prompt.attempted = true;
        self.put_inline(Key::new(Class::Attempts, job), &cbor::to_vec(&attempts), staged);
        Ok(())
    }

    fn escalate(&mut self, record: &EscalationRecord, staged: &mut Staged) -> Result<(), SpoolError> {
        let job = record.job;
        if !self.index.prompts.contains_key(&job) {
            return Err(SpoolError::Unknown(job));
        }
        self.space.admit()?;
        let body = body(record)?;
        self.index.check_escalation(job, Slot::of(&body).bytes.into())?;
        let key = Key::new(Class::Escalation, job);
        let slot = self.put(key, &body, staged)?;
        let replaced = self.index.remove_escalation(job);
        if replaced.is_some_and(|old| old.form == Form::File) && slot.form == Form::Inline {
            staged.unlink.insert(key);
        }
        self.index.add_escalation(job, slot);
        Ok(())
    }

    fn conclude(&mut self, record: &OutcomeRecord, staged: &mut Staged) -> Result<(), SpoolError> {
        let job = record.job;
        let frame_crc = crc32c::crc32c(&record.frame);
        if let Some(stored) = self.index.outcomes.get(&job) {
            return if stored.frame_crc == frame_crc { Ok(()) } else { Err(SpoolError::Decided(job)) };
        }
        if !self.index.prompts.contains_key(&job) {
            return Err(SpoolError::Unknown(job));
        }
        self.space.proceed()?;
        let slot = self.put(Key::new(Class::Outcome, job), &body(record)?, staged)?;
        self.remove_job(job, staged);
        let (stamp, released) = (record.stamp, record.released);
        self.index.add_outcome(job, OutcomeSlot { slot, stamp, frame_crc, released });
        Ok(())
    }

    /// Takes prompt, attempts and escalation of a job off the disk.
    fn remove_job(&mut self, job: JobId, staged: &mut Staged) {
        if let Some(prompt) = self.index.remove_prompt(job) {
            staged.remove_slot(Key::new(Class::Prompt, job), prompt.slot);
            if prompt.attempted {
                staged.remove(Key::new(Class::Attempts, job));
            }
        }
        if let Some(slot) = self.index.remove_escalation(job) {
            staged.remove_slot(Key::new(Class::Escalation, job), slot);
        }
    }

    fn release(&mut self, job: JobId, staged: &mut Staged) -> Result<(), SpoolError> {
        let outcome = self.index.outcomes.get(&job).ok_or(SpoolError::Unknown(job))?;
        if outcome.released {
            return Ok(());
        }
        self.space.proceed()?;
        self.index.release(job);
        self.put_inline(Key::new(Class::Released, job), &[], staged);
        Ok(())
    }

    fn forget(&mut self, job: JobId, staged: &mut Staged) -> Result<(), SpoolError> {
        let outcome = self.index.outcomes.get(&job).ok_or(SpoolError::Unknown(job))?;
        if !outcome.released {
            return Err(SpoolError::Unreleased(job));
        }
        self.space.proceed()?;
        self.prune_one(job, staged);
        Ok(())
    }

    /// Stages the removal of outcomes over their time; says whether there may be more.
    pub(crate) fn prune(&mut self, now: &Stamp, staged: &mut Staged) -> bool {
        if self.space.proceed().is_err() {
            return false;
        }
        let overdue = self.index.overdue(now, PRUNE_MAX);
        let more = overdue.len() == PRUNE_MAX;
        overdue.into_iter().for_each(|job| self.prune_one(job, staged));
        more
    }

    fn prune_one(&mut self, job: JobId, staged: &mut Staged) {
        let Some(outcome) = self.index.remove_outcome(job) else { return };
        staged.remove_slot(Key::new(Class::Outcome, job), outcome.slot);
        staged.remove(Key::new(Class::Released, job));
        staged.forgets = true;
        if outcome.released {
            self.tally.pruned += 1;
        } else {
            self.tally.dropped += 1;
            tracing::warn!(%job, "an outcome was dropped: no session took it within answer_keep");
        }
    }

    /// Writes the group and syncs it; afterwards what it made superfluous goes. An error poisons the store.
    pub(crate) fn commit(&mut self, mut staged: Staged) -> Result<(), String> {
        if staged.forgets {
            let horizon = Horizon { next_job: self.index.next_job, floor: self.index.floor() };
            self.put_inline(HORIZON, &cbor::to_vec(&horizon), &mut staged);
        }
        if staged.named {
            self.large.sync().map_err(|e| format!("sync of the directory of large records: {e}"))?;
        }
        self.database()?.apply(staged.ops)?;
        self.tally.syncs += 1;
        self.synced.note(self.seq);
        self.seq = witness::end_of_group(self.seq);
        staged.unlink.into_iter().for_each(|key| self.large.remove(key));
        Ok(())
    }

    /// The outcome of a job, if it is there and readable.
    pub(crate) fn outcome(&self, job: JobId) -> Option<OutcomeRecord> {
        let slot = self.index.outcomes.get(&job)?;
        let key = Key::new(Class::Outcome, job);
        let record = match slot.slot.form {
            Form::Inline => self.database().ok()?.get(key).ok()??,
            Form::File => self.large.read(key).ok()?,
        };
        let envelope = Envelope::decode(&record).filter(|e| e.key == key)?;
        let outcome: OutcomeRecord = cbor::from_slice(envelope.body, BODY_BYTES_MAX).ok()?;
        Some(OutcomeRecord { released: slot.released, ..outcome })
    }

    pub(crate) fn counts(&self) -> Counts {
        Counts {
            prompts: self.index.prompt_counts(),
            escalations: self.index.escalation_counts(),
            outcomes: self.index.outcome_counts(),
            pending: self.index.pending(),
            file_bytes: self.database.as_ref().map_or(0, Database::file_bytes),
            ..self.tally
        }
    }

    pub(crate) fn restore_ballast(&self) {
        self.space.restore_ballast();
    }

    /// Whether the file is much larger than what lives in it, and than it was when it was new.
    pub(crate) fn is_worn(&self) -> bool {
        let bytes = self.database.as_ref().map_or(0, Database::file_bytes);
        bytes > WORN_BYTES_MIN && bytes > WORN_RATIO * self.index.live_bytes() && bytes > 2 * self.opened_bytes
    }

    fn database(&self) -> Result<&Database, String> {
        self.database.as_ref().ok_or_else(|| "the generation switch did not end".to_owned())
    }

    /// Writes a record into the database or, when it is large, into a file that the database will name.
    fn put(&mut self, key: Key, body: &[u8], staged: &mut Staged) -> Result<Slot, SpoolError> {
        let slot = Slot::of(body);
        if slot.form == Form::Inline {
            self.put_inline(key, body, staged);
            return Ok(slot);
        }
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

impl Slot {
    /// Where a body will stand, and how large its record is.
    pub(crate) fn of(body: &[u8]) -> Self {
        let bytes = crate::envelope::HEADER_BYTES + body.len();
        let form = if bytes > INLINE_BYTES_MAX { Form::File } else { Form::Inline };
        Self { bytes: u32::try_from(bytes).unwrap_or(u32::MAX), form }
    }
}

fn body<T: Serialize>(record: &T) -> Result<Vec<u8>, SpoolError> {
    let body = cbor::to_vec(record);
    if body.len() > BODY_BYTES_MAX {
        let (would, max) = (body.len() as u64, BODY_BYTES_MAX as u64);
        return Err(SpoolError::Full { what: Bound::RecordBytes, would, max });
    }
    Ok(body)
}

impl Store {
    /// Copies what lives into a new generation and makes it the current one. A failure before the switch leaves the
    /// old one as it was; an error is one after which neither is open.
    pub(crate) fn switch_generation(&mut self) -> Result<(), String> {
        let next = self.generation + 1;
        let bytes = self.database()?.file_bytes();
        // Whatever happens, not again before the file has doubled.
        self.opened_bytes = bytes;
        if let Err(why) = self.database()?.copy_to(&self.dir, next) {
            tracing::warn!(%why, "the new generation could not be built, the old one stays");
            let _ = generation::building(&self.dir, next);
            return Ok(());
        }
        if let Some(old) = self.database.take() {
            old.close();
        }
        generation::finish(&self.dir, next).map_err(|e| format!("generation switch: {e}"))?;
        let database = Database::open(&generation::path(&self.dir, next))?;
        self.opened_bytes = database.file_bytes();
        self.database = Some(database);
        self.generation = next;
        self.tally.switches += 1;
        generation::remove_others(&self.dir, next).map_err(|e| format!("generation switch: {e}"))?;
        tracing::info!(generation = next, from_bytes = bytes, to_bytes = self.opened_bytes, "new generation");
        Ok(())
    }
}
