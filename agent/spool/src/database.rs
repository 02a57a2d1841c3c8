//! A generation: the journal, the table of where in it each record stands, and what the table does not know yet.
//!
//! A change is durable when the journal was synced; the table follows in batches, off the way of the prompts. So a
//! prompt that has its outcome by then never reaches the table, and a leaf of it is written anew for a thousand changes
//! and not for ten.

use crate::envelope::{Class, Key};
use crate::generation;
use crate::journal::{Journal, Mark, Place};
use crate::places::{Found, KeyBytes, Places};
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

/// Bytes of the journal behind the mark, when the table is to take them in: what an opening reads of it.
const TAIL_BYTES: u64 = 4 << 20;

/// A write: the record of a key, or none to remove it.
pub(crate) struct Op {
    pub(crate) key: Key,
    pub(crate) record: Option<Vec<u8>>,
}

/// An open generation. Errors are texts: whatever is wrong with it, the answer is the same.
pub(crate) struct Database {
    places: Places,
    journal: Journal,
    /// What the journal says behind the table's mark.
    tail: BTreeMap<KeyBytes, Option<Place>>,
}

impl Database {
    /// Opens or creates it; panics of sled are errors.
    pub(crate) fn open(path: &Path) -> Result<Self, String> {
        let places = guarded("opening the table", || Places::open(path))?;
        let mut tail = BTreeMap::new();
        let opened = Journal::open(path, places.mark(), |(key, place)| {
            tail.insert(key.bytes(), place);
        });
        let synced = opened.and_then(|journal| {
            // sled has created files and replaced snapshots without syncing them.
            crate::directory::sync_whole(path).map_err(|e| e.to_string())?;
            Ok(journal)
        });
        match synced {
            Ok(journal) => Ok(Self { places, journal, tail }),
            Err(why) => {
                places.close();
                Err(why)
            }
        }
    }

    /// Shows every pair in the order of keys. Stops at the first error; panics of sled are errors.
    pub(crate) fn scan(&self, mut show: impl FnMut(&[u8], &[u8])) -> Result<(), String> {
        let mut tell = |key: &[u8], found: Found| {
            let record = match found {
                Found::At(place) => self.read(place)?,
                Found::Record(record) => record,
            };
            show(key, &record);
            Ok(())
        };
        let at = |place: &Option<Place>| place.map(Found::At);
        guarded("reading the table", || {
            let mut tail = self.tail.iter().peekable();
            self.places.scan(|key, found| {
                while let Some((newer, place)) = tail.next_if(|(newer, _)| newer.as_slice() < key) {
                    at(place).map_or(Ok(()), |found| tell(newer, found))?;
                }
                let same = tail.next_if(|(newer, _)| newer.as_slice() == key);
                same.map_or(Some(found), |(_, place)| at(place)).map_or(Ok(()), |found| tell(key, found))
            })?;
            tail.try_for_each(|(key, place)| at(place).map_or(Ok(()), |found| tell(key, found)))
        })
    }

    /// Writes all pairs into a database of its own that is built as the given generation, seals and closes that. What is
    /// gone from here was never there.
    pub(crate) fn copy_to(&self, store: &Path, number: u64, seal: Op) -> Result<(), String> {
        let mut copy = Builder::start(store, number)?;
        let mut written = Ok(());
        self.scan(|key, value| {
            if let (Ok(()), Some(key)) = (&written, Key::parse(key).filter(|key| key.class != Class::Gone)) {
                written = copy.put(key, value.to_vec());
            }
        })?;
        written?;
        copy.seal(seal)?;
        copy.finish()
    }

    pub(crate) fn get(&self, key: Key) -> Result<Option<Vec<u8>>, String> {
        let key = key.bytes();
        let found = match self.tail.get(&key) {
            Some(place) => place.map(Found::At),
            None => self.places.get(&key)?,
        };
        match found {
            Some(Found::At(place)) => self.read(place).map(Some),
            Some(Found::Record(record)) => Ok(Some(record)),
            None => Ok(None),
        }
    }

    fn read(&self, place: Place) -> Result<Vec<u8>, String> {
        self.journal.read(place).map_err(|e| format!("the journal at {}: {e}", place.offset))
    }

    /// Applies all writes atomically, and returns when they are durable.
    pub(crate) fn apply(&mut self, ops: &[Op]) -> Result<(), String> {
        self.write(ops)?;
        self.sync()?;
        self.journal.reserve();
        Ok(())
    }

    fn sync(&self) -> Result<(), String> {
        self.journal.sync().map_err(|e| format!("sync of the journal: {e}"))
    }

    /// Applies all writes atomically, not durably.
    fn write(&mut self, ops: &[Op]) -> Result<(), String> {
        let said = self.journal.append(ops).map_err(|e| format!("write of the journal: {e}"))?;
        self.tail.extend(said.into_iter().map(|(key, place)| (key.bytes(), place)));
        Ok(())
    }

    /// Whether the table is to take in what the journal says: that of so many keys, or so many bytes.
    pub(crate) fn is_behind(&self, keys_max: usize) -> bool {
        let known = self.places.mark().unwrap_or(Mark::START).offset;
        self.tail.len() >= keys_max || self.journal.end().offset.saturating_sub(known) >= TAIL_BYTES
    }

    /// Whether it can, though the disk is full.
    pub(crate) fn has_room_to_catch_up(&self) -> bool {
        self.places.has_room()
    }

    /// The table takes in what the journal says, which is durable. An error leaves the table in a state that nobody
    /// knows.
    pub(crate) fn catch_up(&mut self) -> Result<(), String> {
        let end = self.journal.end();
        self.places.advance(&self.tail, end)?;
        self.tail.clear();
        Ok(())
    }

    /// The largest sequence number that was written.
    pub(crate) fn seq(&self) -> u64 {
        self.journal.end().seq
    }

    /// Bytes that can be written though the disk is full.
    pub(crate) fn reserved_bytes(&self) -> u64 {
        self.journal.reserved_bytes()
    }

    /// Bytes of the data files; zero where it cannot be told.
    pub(crate) fn file_bytes(&self) -> u64 {
        self.places.file_bytes() + self.journal.end().offset
    }

    /// From now on nothing reaches the disk, and the next sync says so.
    #[cfg(test)]
    pub(crate) fn breaks(&mut self) {
        self.journal.breaks();
    }

    /// Closes it. sled may panic when it cannot sync; what was promised was synced before.
    pub(crate) fn close(self) {
        self.places.close();
    }
}

/// sled panics where others have errors.
fn guarded<T>(what: &str, work: impl FnOnce() -> Result<T, String>) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|_| Err(format!("{what} panicked")))
}

/// Writes a new generation, record by record.
pub(crate) struct Builder {
    database: Database,
    ops: Vec<Op>,
}

/// Records that a builder writes at once.
const BUILD_BATCH: usize = 256;
/// Keys that its table takes in at once.
const BUILD_BEHIND: usize = 1024;

impl Builder {
    pub(crate) fn start(store: &Path, number: u64) -> Result<Self, String> {
        let path = generation::building(store, number).map_err(|e| e.to_string())?;
        Ok(Self { database: Database::open(&path)?, ops: Vec::new() })
    }

    pub(crate) fn put(&mut self, key: Key, record: Vec<u8>) -> Result<(), String> {
        self.ops.push(Op { key, record: Some(record) });
        if self.ops.len() < BUILD_BATCH { Ok(()) } else { self.write() }
    }

    fn write(&mut self) -> Result<(), String> {
        self.database.write(&std::mem::take(&mut self.ops))?;
        // Nothing of it counts before all of it is durable, so the table may run ahead.
        if self.database.is_behind(BUILD_BEHIND) { self.database.catch_up() } else { Ok(()) }
    }

    /// Writes the last record, in a group of its own behind all others: whoever reads it has read the whole journal. It
    /// is the latest by its sequence number too, so that the witnesses miss it where the journal ends before.
    pub(crate) fn seal(&mut self, last: Op) -> Result<(), String> {
        if !self.ops.is_empty() {
            self.write()?;
        }
        self.database.write(&[last])
    }

    /// All is durable under the name of a generation being built, and the database is closed.
    pub(crate) fn finish(mut self) -> Result<(), String> {
        if !self.ops.is_empty() {
            self.write()?;
        }
        self.database.sync()?;
        self.database.catch_up()?;
        self.database.close();
        Ok(())
    }
}
