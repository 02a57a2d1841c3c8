//! The only file that names sled: where in the journal the record of each key stands.
//!
//! What is here follows from the journal and is behind it: it is brought up to date now and then, in one atomic batch
//! with the mark up to which it knows the journal. Whatever older state a power cut brings back, the journal behind its
//! mark makes up for it; and a state that is none of the past does not have the sum that stands with the mark.
//!
//! sled's `flush` ends in `sync_file_range`, which reaches neither the drive's cache nor the file's size, so a batch
//! is durable after `flush` *and* `sync_data` on the data file. sled's own periodic flusher is off: every batch is
//! synced at once, so it had nothing to flush, and its page cleaner would move old records about between our syncs.
//!
//! Stores of formats 1 to 3 have the records themselves here; they stay until they go.

use crate::directory;
use crate::journal::{Mark, Place};
use rustix::fs::{FallocateFlags, fallocate};
use std::cell::Cell;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Page cache of sled, in bytes as pages are written; in memory a place takes three times as much. Those of one time stand
/// together, and nothing else is asked for often.
const CACHE_BYTES: u64 = 256 << 10;

/// Room behind the end of the file, in bytes: four segments.
const RESERVE_BYTES: u64 = 2 << 20;
/// With less it is made anew.
const RESERVE_LOW: u64 = 1 << 20;

/// The key of the mark: before all others, and none of theirs.
const MARK: [u8; 1] = [0];
/// Bytes of the mark: three numbers of the journal, two of the sum, a checksum.
const MARK_BYTES: usize = 44;
/// Starts a place; a record starts with its magic.
const PLACE: u8 = b'@';
/// Bytes of a place.
const PLACE_BYTES: usize = 13;

/// The key of a record, as it sorts.
pub(crate) type KeyBytes = [u8; 9];

/// What stands under a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Found {
    /// Its record stands here in the journal.
    At(Place),
    /// The record itself, of an older format.
    Record(Vec<u8>),
}

impl Found {
    fn parse(value: &[u8]) -> Self {
        let place = value.strip_prefix(&[PLACE]).filter(|rest| rest.len() == PLACE_BYTES - 1).and_then(|rest| {
            let (offset, bytes) = rest.split_at(8);
            let (offset, bytes) = (offset.try_into().ok()?, bytes.try_into().ok()?);
            Some(Place { offset: u64::from_be_bytes(offset), bytes: u32::from_be_bytes(bytes) })
        });
        place.map_or_else(|| Self::Record(value.to_vec()), Self::At)
    }
}

fn value(place: Place) -> Vec<u8> {
    [&[PLACE][..], &place.offset.to_be_bytes(), &place.bytes.to_be_bytes()].concat()
}

/// What all pairs come to, in whatever order they are counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Sum {
    pairs: u64,
    sum: u64,
}

impl Sum {
    fn of(key: &[u8], value: &[u8]) -> u64 {
        u64::from(crc32c::crc32c_append(crc32c::crc32c(key), value))
    }

    fn add(&mut self, key: &[u8], value: &[u8]) {
        self.pairs = self.pairs.wrapping_add(1);
        self.sum = self.sum.wrapping_add(Self::of(key, value));
    }

    fn take(&mut self, key: &[u8], value: &[u8]) {
        self.pairs = self.pairs.wrapping_sub(1);
        self.sum = self.sum.wrapping_sub(Self::of(key, value));
    }
}

/// An open table in a directory of its own. Errors are texts: whatever sled says, the answer is the same.
pub(crate) struct Places {
    db: sled::Db,
    file: File,
    path: PathBuf,
    /// Up to where the data file owns its room, in bytes.
    reserved: Cell<u64>,
    mark: Option<Mark>,
    /// What stands here comes to this; of a table without a mark it is known once it was read.
    sum: Cell<Sum>,
}

impl Places {
    /// Opens or creates it; sled may panic.
    pub(crate) fn open(path: &Path) -> Result<Self, String> {
        directory::make(path).map_err(|e| e.to_string())?;
        remove_leftovers(path).map_err(|e| e.to_string())?;
        let config = sled::Config::new()
            .path(path)
            .mode(sled::Mode::HighThroughput)
            .cache_capacity(CACHE_BYTES)
            .flush_every_ms(None);
        let db = open_when_free(&config)?;
        let file = File::options().read(true).write(true).open(path.join("db")).map_err(|e| e.to_string())?;
        let stored = db.get(MARK).map_err(|e| e.to_string())?;
        let (mark, sum) = match stored {
            Some(bytes) => parse_mark(&bytes).map(|(mark, sum)| (Some(mark), sum)).ok_or("the mark is damaged")?,
            None => (None, Sum::default()),
        };
        let places = Self { db, file, path: path.to_owned(), reserved: Cell::new(0), mark, sum: Cell::new(sum) };
        places.reserve();
        Ok(places)
    }

    /// Up to where it knows the journal.
    pub(crate) fn mark(&self) -> Option<Mark> {
        self.mark
    }

    pub(crate) fn get(&self, key: &KeyBytes) -> Result<Option<Found>, String> {
        self.db.get(key).map(|value| value.map(|v| Found::parse(&v))).map_err(|e| e.to_string())
    }

    /// Shows all pairs in the order of keys; an error when they are not what was written.
    pub(crate) fn scan(&self, mut show: impl FnMut(&[u8], Found) -> Result<(), String>) -> Result<(), String> {
        let mut sum = Sum::default();
        for pair in self.db.iter() {
            let (key, value) = pair.map_err(|e| e.to_string())?;
            if *key != MARK {
                sum.add(&key, &value);
                show(&key, Found::parse(&value))?;
            }
        }
        if self.mark.is_none() {
            self.sum.set(sum);
        }
        let expected = self.sum.get();
        if sum == expected { Ok(()) } else { Err(format!("{} places, where {} were", sum.pairs, expected.pairs)) }
    }

    /// Takes in what the journal says up to a mark, durably.
    pub(crate) fn advance(&mut self, said: &BTreeMap<KeyBytes, Option<Place>>, mark: Mark) -> Result<(), String> {
        let (mut batch, mut sum) = (sled::Batch::default(), self.sum.get());
        for (key, place) in said {
            let old = self.db.get(key).map_err(|e| e.to_string())?;
            old.iter().for_each(|old| sum.take(key, old));
            match place {
                Some(place) => {
                    let value = value(*place);
                    sum.add(key, &value);
                    batch.insert(key, value);
                }
                None if old.is_some() => batch.remove(key),
                None => {}
            }
        }
        batch.insert(&MARK, render_mark(mark, sum));
        self.db.apply_batch(batch).map_err(|e| format!("write of places: {e}"))?;
        self.db.flush().map_err(|e| format!("flush: {e}"))?;
        self.file.sync_data().map_err(|e| format!("sync of {}: {e}", self.path.join("db").display()))?;
        self.sum.set(sum);
        self.mark = Some(mark);
        self.reserve();
        Ok(())
    }

    /// Takes room behind the end of the file, if little is left of it.
    fn reserve(&self) {
        let end = self.file_bytes();
        if self.reserved.get().saturating_sub(end) < RESERVE_LOW
            && fallocate(&self.file, FallocateFlags::KEEP_SIZE, end, RESERVE_BYTES).is_ok()
        {
            self.reserved.set(end + RESERVE_BYTES);
        }
    }

    /// Whether it can take in more though the disk is full.
    pub(crate) fn has_room(&self) -> bool {
        self.reserved.get().saturating_sub(self.file_bytes()) >= RESERVE_LOW / 2
    }

    /// Bytes of the data file; zero where it cannot be told.
    pub(crate) fn file_bytes(&self) -> u64 {
        self.file.metadata().map_or(0, |m| m.len())
    }

    /// A record as formats 1 to 3 have it.
    #[cfg(test)]
    pub(crate) fn put_record(&self, key: &KeyBytes, record: Vec<u8>) {
        self.db.insert(key, record).expect("a test has a disk");
    }

    /// Closes it. sled may panic when it cannot sync; what was promised stands in the journal.
    pub(crate) fn close(self) {
        if catch_unwind(AssertUnwindSafe(|| drop(self.db))).is_err() {
            tracing::warn!(path = %self.path.display(), "closing the database panicked");
        }
    }
}

fn render_mark(mark: Mark, sum: Sum) -> Vec<u8> {
    let numbers = [mark.offset, mark.group, mark.seq, sum.pairs, sum.sum];
    let mut bytes: Vec<u8> = numbers.iter().flat_map(|n| n.to_be_bytes()).collect();
    bytes.extend_from_slice(&crc32c::crc32c(&bytes).to_be_bytes());
    bytes
}

fn parse_mark(bytes: &[u8]) -> Option<(Mark, Sum)> {
    let (numbers, crc) = bytes.split_at_checked(MARK_BYTES - 4)?;
    if crc != crc32c::crc32c(numbers).to_be_bytes() {
        return None;
    }
    let at = |index: usize| Some(u64::from_be_bytes(numbers.get(8 * index..8 * index + 8)?.try_into().ok()?));
    Some((Mark { offset: at(0)?, group: at(1)?, seq: at(2)? }, Sum { pairs: at(3)?, sum: at(4)? }))
}

/// How long another database in the same place may take to let go of its files.
const RELEASE_MAX: Duration = Duration::from_secs(10);
/// How often it is looked at meanwhile.
const RELEASE_LOOK: Duration = Duration::from_millis(5);

/// sled's threads may hold the lock for a while after the database was dropped, on a busy machine for long. The store's
/// own lock keeps other processes out, so it is one of ours, and will go.
fn open_when_free(config: &sled::Config) -> Result<sled::Db, String> {
    let give_up = Instant::now() + RELEASE_MAX;
    loop {
        match config.open() {
            Ok(db) => return Ok(db),
            Err(error) if is_locked(&error) && Instant::now() < give_up => std::thread::sleep(RELEASE_LOOK),
            Err(error) => return Err(error.to_string()),
        }
    }
}

/// sled has no error of its own for this.
fn is_locked(error: &sled::Error) -> bool {
    matches!(error, sled::Error::Io(io) if io.to_string().contains("could not acquire lock"))
}

/// A snapshot that was being written when the power went keeps sled from opening; it is not needed.
fn remove_leftovers(path: &Path) -> std::io::Result<()> {
    for name in directory::names(path)?.iter().filter(|n| n.ends_with(".generating")) {
        fs::remove_file(path.join(name))?;
    }
    Ok(())
}

/// Sets the snapshots aside: sled then reads its whole log instead. Says whether there were any.
pub(crate) fn set_snapshots_aside(path: &Path) -> std::io::Result<bool> {
    let mut found = false;
    for name in directory::names(path)?.iter().filter(|n| n.starts_with("snap.")) {
        fs::rename(path.join(name), path.join(format!("aside-{name}")))?;
        found = true;
    }
    directory::sync(path)?;
    Ok(found)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::envelope::{Class, Key};
    use tidegate_schemas::JobId;

    #[test]
    fn a_lock_that_was_just_let_go_is_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let config = sled::Config::new().path(dir.path());
        let held = config.open().unwrap();
        assert!(is_locked(&sled::Config::new().path(dir.path()).open().unwrap_err()));
        drop(held);
        open_when_free(&config).unwrap();
    }

    fn key(job: u64) -> KeyBytes {
        Key::new(Class::Prompt, JobId(job)).bytes()
    }

    fn place(offset: u64) -> Place {
        Place { offset, bytes: 7 }
    }

    #[test]
    fn what_is_taken_in_is_there_after_a_reopening_and_its_sum_with_it() {
        let dir = tempfile::tempdir().unwrap();
        let mark = |group| Mark { offset: 12 * group, group, seq: group };
        let mut places = Places::open(dir.path()).unwrap();
        assert_eq!(places.mark(), None);
        places.advance(&(1..=40).map(|job| (key(job), Some(place(job)))).collect(), mark(2)).unwrap();
        places.advance(&[(key(3), None), (key(4), Some(place(400))), (key(99), None)].into(), mark(3)).unwrap();
        places.close();
        let places = Places::open(dir.path()).unwrap();
        assert_eq!((places.mark(), places.get(&key(3)).unwrap()), (Some(mark(3)), None));
        assert_eq!(places.get(&key(4)).unwrap(), Some(Found::At(place(400))));
        let mut shown = 0;
        let mut count = |_: &[u8], _| {
            shown += 1;
            Ok(())
        };
        places.scan(&mut count).unwrap();
        assert_eq!(shown, 39);
        // What nobody wrote is not believed.
        places.db.insert(key(7), value(place(8))).unwrap();
        places.scan(|_, _| Ok(())).unwrap_err();
        places.db.insert(key(7), value(place(7))).unwrap();
        places.scan(|_, _| Ok(())).unwrap();
        places.db.remove(key(8)).unwrap();
        places.scan(|_, _| Ok(())).unwrap_err();
    }
}
