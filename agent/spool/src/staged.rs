//! What a group of changes will write, and what follows from it once it is on disk.

use crate::class::{DropReason, Notice, QueueClass};
use crate::database::Op;
use crate::envelope::{Class, Envelope, Form, Key};
use crate::index::Index;
use crate::shelf::Slot;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use tidegate_schemas::{JobId, cbor};

/// Bytes that one group writes at most, over by one change: bounds the time of a sync.
const GROUP_BYTES_MAX: usize = 256 << 10;

/// What must outlive the outcomes that are pruned.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Horizon {
    /// Above every job that was ever stored.
    pub(crate) next_job: u64,
    /// All jobs below are gone; a record of one that a scan of a damaged file finds is a shadow.
    pub(crate) floor: u64,
    /// The same of forwarded messages.
    #[serde(default)]
    pub(crate) next_forward: u64,
    /// The same of forwarded messages.
    #[serde(default)]
    pub(crate) forward_floor: u64,
    /// The same of dead letters.
    #[serde(default)]
    pub(crate) next_dead: u64,
    /// The same of dead letters.
    #[serde(default)]
    pub(crate) dead_floor: u64,
}

impl Horizon {
    /// Before anything was stored.
    pub(crate) const START: Self =
        Self { next_job: 1, floor: 0, next_forward: 1, forward_floor: 0, next_dead: 1, dead_floor: 0 };

    pub(crate) fn of(index: &Index) -> Self {
        Self {
            next_job: index.next_job,
            floor: index.floor(),
            next_forward: index.next_forward,
            forward_floor: index.telemetry.shelf().first().unwrap_or(index.next_forward),
            next_dead: index.next_dead,
            dead_floor: index.dead.first().unwrap_or(index.next_dead),
        }
    }

    /// The write of it that seals a generation: with this sequence number, after all other records.
    pub(crate) fn sealing(&self, seq: u64) -> Op {
        let record = Envelope { key: HORIZON, form: Form::Inline, seq, body: &cbor::to_vec(self) }.encode();
        Op { key: HORIZON, record: Some(record) }
    }

    /// Whether what stands under this key is gone.
    pub(crate) fn is_over(&self, key: Key) -> bool {
        key.job.0 < self.floor_of(key.class)
    }

    /// All numbers below are gone, of this class.
    pub(crate) fn floor_of(&self, class: Class) -> u64 {
        match class {
            Class::Attempts | Class::Released | Class::Escalation | Class::Prompt | Class::Outcome => self.floor,
            Class::Forward => self.forward_floor,
            Class::Dead => self.dead_floor,
            Class::Horizon | Class::Gone => 0,
        }
    }
}

/// The key of the horizon.
pub(crate) const HORIZON: Key = Key { class: Class::Horizon, job: JobId(0) };

/// What a group will write.
#[derive(Default)]
pub(crate) struct Staged {
    pub(crate) ops: Vec<Op>,
    pub(crate) bytes: usize,
    /// Whether names in `large/` wait for their sync.
    pub(crate) named: bool,
    /// Large records that go once the group is on disk.
    pub(crate) unlink: BTreeSet<Key>,
    /// Whether something goes that nothing else tells of, so that the horizon has to be written.
    pub(crate) forgets: bool,
    /// What went without being delivered.
    drops: BTreeMap<(QueueClass, DropReason), (u64, u64)>,
    /// What else is told once it is on disk.
    pub(crate) told: Vec<Notice>,
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

    pub(crate) fn put(&mut self, key: Key, record: Vec<u8>) {
        self.bytes += record.len();
        self.ops.push(Op { key, record: Some(record) });
    }

    pub(crate) fn remove(&mut self, key: Key) {
        self.ops.push(Op { key, record: None });
    }

    pub(crate) fn remove_slot(&mut self, key: Key, slot: Slot) {
        self.remove(key);
        if slot.form == Form::File {
            self.unlink.insert(key);
        }
    }

    /// Something goes without being delivered.
    pub(crate) fn dropped(&mut self, class: QueueClass, reason: DropReason, slot: Slot) {
        let (entries, bytes) = self.drops.entry((class, reason)).or_default();
        *entries += 1;
        *bytes += u64::from(slot.bytes);
    }

    /// What is to be told once the group is on disk.
    pub(crate) fn take_notices(&mut self) -> Vec<Notice> {
        let drops = std::mem::take(&mut self.drops).into_iter();
        let drops = drops.map(|((class, reason), (entries, bytes))| Notice::Dropped { class, reason, entries, bytes });
        drops.chain(std::mem::take(&mut self.told)).collect()
    }
}
