//! One class of what is stored, without its content: entries and bytes in all and by device, held against its bounds.

use crate::class::QueueClass;
use crate::envelope::{Form, HEADER_BYTES};
use crate::error::{Bound, SpoolError};
use crate::forward::Room;
use crate::large::INLINE_BYTES_MAX;
use crate::record::ClassCounts;
use std::collections::{BTreeMap, HashMap};
use tidegate_schemas::DeviceId;

/// A stored record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Slot {
    /// Bytes of the whole record.
    pub(crate) bytes: u32,
    pub(crate) form: Form,
}

impl Slot {
    /// Where a body will stand, and how large its record is.
    pub(crate) fn of(body: &[u8]) -> Self {
        let bytes = HEADER_BYTES + body.len();
        let form = if bytes > INLINE_BYTES_MAX { Form::File } else { Form::Inline };
        Self { bytes: u32::try_from(bytes).unwrap_or(u32::MAX), form }
    }
}

/// An entry of a shelf.
pub(crate) trait Entry {
    fn slot(&self) -> Slot;
    fn device(&self) -> &DeviceId;
    fn device_mut(&mut self) -> &mut DeviceId;
}

/// What a change adds, less what goes for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct More {
    entries: i64,
    bytes: i64,
}

impl More {
    /// Entries of so many bytes in all.
    pub(crate) fn of(entries: u64, bytes: u64) -> Self {
        let signed = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
        Self { entries: signed(entries), bytes: signed(bytes) }
    }

    pub(crate) fn one(bytes: u64) -> Self {
        Self::of(1, bytes)
    }

    /// An entry goes for it.
    pub(crate) fn less(&mut self, slot: Slot) {
        self.entries -= 1;
        self.bytes -= i64::from(slot.bytes);
    }

    fn entries(self, has: u64) -> u64 {
        has.saturating_add_signed(self.entries)
    }

    fn bytes(self, has: u64) -> u64 {
        has.saturating_add_signed(self.bytes)
    }
}

/// All entries of a class, by number.
#[derive(Debug)]
pub(crate) struct Shelf<E> {
    class: QueueClass,
    room: Room,
    device_room: Room,
    entries: BTreeMap<u64, E>,
    bytes: u64,
    /// Bytes of records that stand in the database.
    inline_bytes: u64,
    devices: HashMap<DeviceId, ClassCounts>,
}

impl<E: Entry> Shelf<E> {
    pub(crate) fn new(class: QueueClass, room: Room, device_room: Room) -> Self {
        let (entries, devices) = (BTreeMap::new(), HashMap::new());
        Self { class, room, device_room, entries, bytes: 0, inline_bytes: 0, devices }
    }

    /// Whether so much more fits the bounds of its device, then those of the class.
    pub(crate) fn check(&self, device: &DeviceId, own: More, all: More) -> Result<(), SpoolError> {
        let (has, class) = (self.of(device), self.class);
        check(Bound::DeviceEntries(class), own.entries(has.entries), self.device_room.entries_max)?;
        check(Bound::DeviceBytes(class), own.bytes(has.bytes), self.device_room.bytes_max)?;
        check(Bound::Entries(class), all.entries(self.entries.len() as u64), self.room.entries_max)?;
        check(Bound::Bytes(class), all.bytes(self.bytes), self.room.bytes_max)
    }

    /// Adds an entry; one of the same number is replaced.
    pub(crate) fn insert(&mut self, number: u64, mut entry: E) {
        self.remove(number);
        let slot = entry.slot();
        // One name per device, however many entries it has.
        let known = self.devices.get_key_value(entry.device()).map(|(name, _)| name.clone());
        known.into_iter().for_each(|name| *entry.device_mut() = name);
        let own = self.devices.entry(entry.device().clone()).or_default();
        own.entries += 1;
        own.bytes += u64::from(slot.bytes);
        self.bytes += u64::from(slot.bytes);
        self.inline_bytes += inline_bytes(slot);
        self.entries.insert(number, entry);
    }

    pub(crate) fn remove(&mut self, number: u64) -> Option<E> {
        let entry = self.entries.remove(&number)?;
        let slot = entry.slot();
        self.bytes -= u64::from(slot.bytes);
        self.inline_bytes -= inline_bytes(slot);
        if let Some(own) = self.devices.get_mut(entry.device()) {
            own.entries -= 1;
            own.bytes -= u64::from(slot.bytes);
            if own.entries == 0 {
                self.devices.remove(entry.device());
            }
        }
        Some(entry)
    }

    pub(crate) fn get(&self, number: u64) -> Option<&E> {
        self.entries.get(&number)
    }

    pub(crate) fn get_mut(&mut self, number: u64) -> Option<&mut E> {
        self.entries.get_mut(&number)
    }

    pub(crate) fn contains(&self, number: u64) -> bool {
        self.entries.contains_key(&number)
    }

    /// All entries, oldest first.
    pub(crate) fn iter(&self) -> impl DoubleEndedIterator<Item = (u64, &E)> {
        self.entries.iter().map(|(number, entry)| (*number, entry))
    }

    /// Numbers above `after`, oldest first.
    pub(crate) fn numbers(&self, after: u64) -> impl Iterator<Item = u64> {
        self.entries.range(after.saturating_add(1)..).map(|(number, _)| *number)
    }

    /// What one device has here.
    pub(crate) fn of(&self, device: &DeviceId) -> ClassCounts {
        self.devices.get(device).copied().unwrap_or_default()
    }

    pub(crate) fn counts(&self) -> ClassCounts {
        ClassCounts { entries: self.entries.len() as u64, bytes: self.bytes }
    }

    /// The lowest number that is stored.
    pub(crate) fn first(&self) -> Option<u64> {
        self.entries.keys().next().copied()
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(crate) fn inline_bytes(&self) -> u64 {
        self.inline_bytes
    }
}

fn inline_bytes(slot: Slot) -> u64 {
    if slot.form == Form::Inline { slot.bytes.into() } else { 0 }
}

pub(crate) fn check(what: Bound, would: u64, max: u64) -> Result<(), SpoolError> {
    if would > max { Err(SpoolError::Full { what, would, max }) } else { Ok(()) }
}
