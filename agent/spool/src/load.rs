//! Reads a whole database: into the index what is stored, into `Recovered` what the gateway needs to go on.
//!
//! A record that is no record, or stands under another's key, is damage of the database and ends the reading. One
//! whose large file or content is unreadable is counted and removed. What a salvage brought back from the dead (a
//! prompt that has an outcome, a job below the horizon) is removed again.

use crate::database::{Database, Op};
use crate::dead::DeadRecord;
use crate::envelope::{BODY_BYTES_MAX, Class, Envelope, Form, Key};
use crate::forward::{ForwardId, ForwardRecord};
use crate::gone::Gone;
use crate::index::{DeadSlot, EscalationSlot, Index, OutcomeSlot, PromptSlot};
use crate::large::LargeFiles;
use crate::limits::Limits;
use crate::outbound::expires_boot_ms;
use crate::record::{EscalationRecord, OutcomeRecord, PromptRecord, Recovered, SeenOutcome};
use crate::shelf::Slot;
use crate::staged::Horizon;
use crate::stamp::Stamp;
use crate::telemetry::{ForwardSlot, Stand};
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
    pub(crate) horizon: Horizon,
    pub(crate) gone: Gone,
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
    loader.seq = loader.seq.max(database.seq());
    damage.map_or_else(|| Ok(loader.finish()), Err)
}

struct Loader<'a> {
    large: &'a LargeFiles,
    index: Index,
    recovered: Recovered,
    seq: u64,
    repairs: Vec<Op>,
    horizon: Horizon,
    gone: Gone,
    now: Stamp,
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
            horizon: Horizon::START,
            gone: Gone::default(),
            now: Stamp::now(),
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
        let shadow = self.horizon.is_over(key);
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
            Class::Gone => self.gone.read(envelope.key, body)?,
            Class::Horizon => self.horizon = read(body)?,
            Class::Escalation => {
                let record: EscalationRecord = read(body)?;
                let device = record.escalation.device.clone();
                self.index.escalations.insert(job.0, EscalationSlot { slot, device });
                self.escalations.insert(job, record);
            }
            Class::Prompt => {
                let mut record: PromptRecord = read(body)?;
                let attempts = self.attempts.get(&job);
                record.attempts = record.attempts.max(attempts.copied().unwrap_or(0));
                let (device, attempted) = (record.device.clone(), attempts.is_some());
                self.index.add_prompt(job, PromptSlot { slot, device, attempted });
                self.prompts.insert(job, record);
            }
            Class::Outcome => self.outcome(read(body)?, slot),
            Class::Forward => self.forward(&read(body)?, slot),
            Class::Dead => {
                let DeadRecord { entry, source, stamp, .. } = read(body)?;
                self.index.dead.insert(entry.0, DeadSlot { slot, source, stamp });
                self.index.next_dead = self.index.next_dead.max(entry.0 + 1);
            }
        }
        Some(())
    }

    fn forward(&mut self, record: &ForwardRecord, slot: Slot) {
        let (source, priority, expires_boot_ms) =
            (record.source.clone(), record.priority, expires_boot_ms(record, &self.now));
        let (stand, attempts, restored) = (Stand::Waiting, 0, true);
        let slot = ForwardSlot { slot, source, priority, stand, attempts, restored, expires_boot_ms };
        self.index.telemetry.insert(record.entry.0, slot);
        self.index.next_forward = self.index.next_forward.max(record.entry.0 + 1);
    }

    fn outcome(&mut self, record: OutcomeRecord, slot: Slot) {
        let job = record.job;
        let released = record.released || self.released.contains(&job);
        let frame_crc = crc32c::crc32c(&record.frame);
        let (device, stamp) = (record.device.clone(), record.stamp);
        self.index.add_outcome(job, OutcomeSlot { slot, device, stamp, frame_crc, released });
        if !released {
            self.recovered.pending.push((record.device.clone(), job));
        }
        let OutcomeRecord { device, hash, stamp, .. } = record;
        self.recovered.seen.extend(record.id.map(|id| SeenOutcome { job, device, id, hash, stamp }));
        // Its prompt and escalation went with it, unless a salvage brought them back.
        if self.prompts.remove(&job).is_some() {
            self.index.prompts.remove(job.0);
            self.remove(Key::new(Class::Prompt, job));
        }
        if self.escalations.remove(&job).is_some() {
            self.index.escalations.remove(job.0);
            self.remove(Key::new(Class::Escalation, job));
        }
    }

    fn finish(mut self) -> Loaded {
        self.remove_strays();
        let (index, horizon) = (&mut self.index, self.horizon);
        index.next_job = index.next_job.max(horizon.next_job);
        index.next_forward = index.next_forward.max(horizon.next_forward);
        index.next_dead = index.next_dead.max(horizon.next_dead);
        self.recovered.next_job = JobId(index.next_job);
        self.recovered.next_forward = ForwardId(index.next_forward);
        self.recovered.forwards = index.telemetry.waiting();
        self.recovered.prompts = self.prompts.into_values().collect();
        self.recovered.escalations = self.escalations.into_values().collect();
        let Self { index, recovered, seq, repairs, horizon, gone, .. } = self;
        Loaded { index, recovered, seq, repairs, horizon, gone }
    }

    /// Removes what belongs to nothing: its prompt or outcome was lost.
    fn remove_strays(&mut self) {
        let lost: Vec<JobId> = self.escalations.keys().filter(|j| !self.prompts.contains_key(j)).copied().collect();
        for job in lost {
            self.recovered.unreadable += 1;
            self.escalations.remove(&job);
            self.index.escalations.remove(job.0);
            self.remove(Key::new(Class::Escalation, job));
        }
        let attempts: Vec<JobId> = self.attempts.keys().filter(|j| !self.prompts.contains_key(j)).copied().collect();
        attempts.into_iter().for_each(|job| self.remove(Key::new(Class::Attempts, job)));
        let stray = |j: &&JobId| !self.index.outcomes.contains(j.0);
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
