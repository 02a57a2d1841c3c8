//! Reads a whole database: into the index what is stored, into `Recovered` what the gateway needs to go on.
//!
//! A record that is no record, or stands under another's key, is damage of the database and ends the reading. One
//! whose large file or content is unreadable is counted and removed. What a salvage brought back from the dead (a
//! prompt that has an outcome, a job below the horizon) is removed again.

use crate::database::{Database, Op};
use crate::envelope::{BODY_BYTES_MAX, Class, Envelope, Form, Key};
use crate::index::{Index, OutcomeSlot, PromptSlot, Slot};
use crate::large::LargeFiles;
use crate::limits::Limits;
use crate::record::{EscalationRecord, OutcomeRecord, PromptRecord, Recovered, SeenOutcome};
use crate::store::Horizon;
use serde::de::DeserializeOwned;
use std::collections::{BTreeMap, BTreeSet};
use tidegate_schemas::{JobId, cbor};

/// What a database holds.
pub(crate) struct Loaded {
    pub(crate) index: Index,
    pub(crate) recovered: Recovered,
    /// The largest sequence number.
    pub(crate) seq: u64,
    /// Removals of what must not stay.
    pub(crate) repairs: Vec<Op>,
}

/// Reads all records. An error is damage.
pub(crate) fn load(database: &Database, large: &LargeFiles, limits: Limits) -> Result<Loaded, String> {
    let mut loader = Loader::new(large, limits);
    let mut damage = None;
    database.scan(|key, value| {
        if damage.is_none() {
            damage = loader.record(key, value).err();
        }
    })?;
    damage.map_or_else(|| Ok(loader.finish()), Err)
}

struct Loader<'a> {
    large: &'a LargeFiles,
    index: Index,
    recovered: Recovered,
    seq: u64,
    repairs: Vec<Op>,
    horizon: Horizon,
    attempts: BTreeMap<JobId, u32>,
    released: BTreeSet<JobId>,
    prompts: BTreeMap<JobId, PromptRecord>,
    escalations: BTreeMap<JobId, EscalationRecord>,
}

impl<'a> Loader<'a> {
    fn new(large: &'a LargeFiles, limits: Limits) -> Self {
        Self {
            large,
            index: Index::new(limits),
            recovered: Recovered::nothing(),
            seq: 0,
            repairs: Vec::new(),
            horizon: Horizon { next_job: 1, floor: 0 },
            attempts: BTreeMap::new(),
            released: BTreeSet::new(),
            prompts: BTreeMap::new(),
            escalations: BTreeMap::new(),
        }
    }

    /// Takes one pair of the tree. The order of classes puts the outcomes last, when all else is known.
    fn record(&mut self, key: &[u8], value: &[u8]) -> Result<(), String> {
        let key = Key::parse(key).ok_or("a key is none of ours")?;
        let envelope = Envelope::decode(value).filter(|e| e.key == key);
        let envelope = envelope.ok_or_else(|| format!("the {:?} of job {} is damaged", key.class, key.job))?;
        self.seq = self.seq.max(envelope.seq);
        let shadow = key.job.0 < self.horizon.floor && key.class != Class::Horizon;
        let readable = !shadow && self.content(&envelope);
        if !readable {
            self.recovered.unreadable += u64::from(!shadow);
            self.remove(key);
        }
        Ok(())
    }

    /// Whether the record, and its large file if it has one, could be read.
    fn content(&mut self, envelope: &Envelope<'_>) -> bool {
        if envelope.form == Form::Inline {
            return self.body(envelope, Form::Inline).is_some();
        }
        let file = self.large.read(envelope.key).unwrap_or_default();
        let content = Envelope::decode(&file).filter(|e| e.key == envelope.key && e.form == Form::Inline);
        content.and_then(|e| self.body(&e, Form::File)).is_some()
    }

    fn body(&mut self, envelope: &Envelope<'_>, form: Form) -> Option<()> {
        let (job, body) = (envelope.key.job, envelope.body);
        let slot = Slot { bytes: u32::try_from(envelope.len()).ok()?, form };
        match envelope.key.class {
            Class::Attempts => drop(self.attempts.insert(job, read(body)?)),
            Class::Released => drop(self.released.insert(job)),
            Class::Horizon => self.horizon = read(body)?,
            Class::Escalation => {
                self.escalations.insert(job, read(body)?);
                self.index.add_escalation(job, slot);
            }
            Class::Prompt => {
                let mut record: PromptRecord = read(body)?;
                let attempts = self.attempts.get(&job);
                record.attempts = record.attempts.max(attempts.copied().unwrap_or(0));
                self.index.add_prompt(job, PromptSlot { slot, attempted: attempts.is_some() });
                self.prompts.insert(job, record);
            }
            Class::Outcome => self.outcome(read(body)?, slot),
        }
        Some(())
    }

    fn outcome(&mut self, record: OutcomeRecord, slot: Slot) {
        let job = record.job;
        let released = record.released || self.released.contains(&job);
        let frame_crc = crc32c::crc32c(&record.frame);
        self.index.add_outcome(job, OutcomeSlot { slot, stamp: record.stamp, frame_crc, released });
        if !released {
            self.recovered.pending.push((record.device.clone(), job));
        }
        let OutcomeRecord { device, hash, stamp, .. } = record;
        self.recovered.seen.extend(record.id.map(|id| SeenOutcome { job, device, id, hash, stamp }));
        // Its prompt and escalation went with it, unless a salvage brought them back.
        if self.prompts.remove(&job).is_some() {
            self.index.remove_prompt(job);
            self.remove(Key::new(Class::Prompt, job));
        }
        if self.escalations.remove(&job).is_some() {
            self.index.remove_escalation(job);
            self.remove(Key::new(Class::Escalation, job));
        }
    }

    fn finish(mut self) -> Loaded {
        self.remove_strays();
        self.index.next_job = self.index.next_job.max(self.horizon.next_job);
        self.recovered.next_job = JobId(self.index.next_job);
        self.recovered.prompts = self.prompts.into_values().collect();
        self.recovered.escalations = self.escalations.into_values().collect();
        Loaded { index: self.index, recovered: self.recovered, seq: self.seq, repairs: self.repairs }
    }

    /// Removes what belongs to nothing: its prompt or outcome was lost.
    fn remove_strays(&mut self) {
        let lost: Vec<JobId> = self.escalations.keys().filter(|j| !self.prompts.contains_key(j)).copied().collect();
        for job in lost {
            self.recovered.unreadable += 1;
            self.escalations.remove(&job);
            self.index.remove_escalation(job);
            self.remove(Key::new(Class::Escalation, job));
        }
        let attempts: Vec<JobId> = self.attempts.keys().filter(|j| !self.prompts.contains_key(j)).copied().collect();
        attempts.into_iter().for_each(|job| self.remove(Key::new(Class::Attempts, job)));
        let stray = |j: &&JobId| !self.index.outcomes.contains_key(j);
        let released: Vec<JobId> = self.released.iter().filter(stray).copied().collect();
        released.into_iter().for_each(|job| self.remove(Key::new(Class::Released, job)));
    }

    fn remove(&mut self, key: Key) {
        self.repairs.push(Op { key, record: None });
    }
}

fn read<T: DeserializeOwned>(body: &[u8]) -> Option<T> {
    cbor::from_slice(body, BODY_BYTES_MAX).ok()
}
