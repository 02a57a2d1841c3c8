//! The only file that names sled: one tree, atomic batches, and a sync that is one.
//!
//! sled's `flush` ends in `sync_file_range`, which reaches neither the drive's cache nor the file's size, so a batch
//! is durable after `flush` *and* `sync_data` on the data file. sled's own periodic flusher is off: every batch is
//! synced at once, so it had nothing to flush, and its page cleaner would move old records about between our syncs.
//! What the cleaner would win back, the generation switch does.
//!
//! Behind the end of the data file stands room that is the file's already: on a full disk the log goes on into it, and
//! nobody else can take it. Where a file system has no such room, the ballast alone has to do.

use crate::directory;
use crate::envelope::{Class, Key};
use crate::generation;
use rustix::fs::{FallocateFlags, fallocate};
use std::cell::Cell;
use std::fs::{self, File};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Page cache of sled, in bytes. Outcomes are read once, when they are sent, so there is little to cache.
const CACHE_BYTES: u64 = 1 << 20;

/// Room behind the end of the log, in bytes: eight segments, some thousand outcomes.
const RESERVE_BYTES: u64 = 4 << 20;
/// With less it is made anew: after two more segments, not with each.
const RESERVE_LOW: u64 = 3 << 20;

/// A write: the record of a key, or none to remove it.
pub(crate) struct Op {
    pub(crate) key: Key,
    pub(crate) record: Option<Vec<u8>>,
}

/// An open database in a directory of its own. Errors are texts: whatever sled says, the answer is the same.
pub(crate) struct Database {
    db: sled::Db,
    file: File,
    path: PathBuf,
    /// Up to where the data file owns its room, in bytes.
    reserved: Cell<u64>,
}

impl Database {
    /// Opens or creates it; panics of sled are errors.
    pub(crate) fn open(path: &Path) -> Result<Self, String> {
        let opened = catch_unwind(AssertUnwindSafe(|| open(path)));
        opened.unwrap_or_else(|_| Err("opening it panicked".to_owned()))
    }

    /// Shows every pair in the order of keys. Stops at the first error; panics of sled are errors.
    pub(crate) fn scan(&self, mut show: impl FnMut(&[u8], &[u8])) -> Result<(), String> {
        let shown = catch_unwind(AssertUnwindSafe(|| {
            for pair in self.db.iter() {
                let (key, value) = pair.map_err(|e| e.to_string())?;
                show(&key, &value);
            }
            Ok(())
        }));
        shown.unwrap_or_else(|_| Err("reading it panicked".to_owned()))
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
        self.db.get(key.bytes()).map(|v| v.map(|v| v.to_vec())).map_err(|e| e.to_string())
    }

    /// Applies all writes atomically, and returns when they are durable.
    pub(crate) fn apply(&self, ops: Vec<Op>) -> Result<(), String> {
        self.write(ops)?;
        self.sync()?;
        self.reserve();
        Ok(())
    }

    /// Applies all writes atomically, not durably.
    pub(crate) fn write(&self, ops: Vec<Op>) -> Result<(), String> {
        let mut batch = sled::Batch::default();
        for op in ops {
            match op.record {
                Some(record) => batch.insert(&op.key.bytes(), record),
                None => batch.remove(&op.key.bytes()),
            }
        }
        self.db.apply_batch(batch).map_err(|e| format!("write: {e}"))
    }

    /// Makes all writes durable.
    pub(crate) fn sync(&self) -> Result<(), String> {
        self.db.flush().map_err(|e| format!("flush: {e}"))?;
        self.file.sync_data().map_err(|e| format!("sync of {}: {e}", self.path.join("db").display()))
    }

    /// Takes room behind the end of the log, if little is left of it. On a full disk what there is has to do.
    fn reserve(&self) {
        let end = self.file_bytes();
        if self.reserved_bytes() < RESERVE_LOW
            && fallocate(&self.file, FallocateFlags::KEEP_SIZE, end, RESERVE_BYTES).is_ok()
        {
            self.reserved.set(end + RESERVE_BYTES);
        }
    }

    /// Bytes that can be written though the disk is full.
    pub(crate) fn reserved_bytes(&self) -> u64 {
        self.reserved.get().saturating_sub(self.file_bytes())
    }

    /// Bytes of the data file; zero where it cannot be told.
    pub(crate) fn file_bytes(&self) -> u64 {
        self.file.metadata().map_or(0, |m| m.len())
    }

    /// Closes it. sled may panic when it cannot sync; what was promised was synced before.
    pub(crate) fn close(self) {
        if catch_unwind(AssertUnwindSafe(|| drop(self.db))).is_err() {
            tracing::warn!(path = %self.path.display(), "closing the database panicked");
        }
    }
}

/// Writes a new generation, record by record.
pub(crate) struct Builder {
    database: Database,
    ops: Vec<Op>,
}

/// Records that a builder writes at once.
const BUILD_BATCH: usize = 256;

impl Builder {
    pub(crate) fn start(store: &Path, number: u64) -> Result<Self, String> {
        let path = generation::building(store, number).map_err(|e| e.to_string())?;
        Ok(Self { database: Database::open(&path)?, ops: Vec::new() })
    }

    pub(crate) fn put(&mut self, key: Key, record: Vec<u8>) -> Result<(), String> {
        self.ops.push(Op { key, record: Some(record) });
        if self.ops.len() < BUILD_BATCH { Ok(()) } else { self.database.write(std::mem::take(&mut self.ops)) }
    }

    /// Writes the last record, in a batch of its own behind all others: whoever reads it has read the whole log. It is
    /// the latest by its sequence number too, so that the witnesses miss it where sled stops before the end. sled does so
    /// after a cut in the first opening: that wipes segments that nothing lives in, and without the snapshot that it has
    /// not synced it takes the first of these for the end of the log.
    pub(crate) fn seal(&mut self, last: Op) -> Result<(), String> {
        self.database.write(std::mem::take(&mut self.ops))?;
        self.database.write(vec![last])
    }

    /// All is durable under the name of a generation being built, and the database is closed.
    pub(crate) fn finish(mut self) -> Result<(), String> {
        self.database.apply(std::mem::take(&mut self.ops))?;
        self.database.close();
        Ok(())
    }
}

fn open(path: &Path) -> Result<Database, String> {
    directory::make(path).map_err(|e| e.to_string())?;
    remove_leftovers(path).map_err(|e| e.to_string())?;
    let config = sled::Config::new()
        .path(path)
        .mode(sled::Mode::HighThroughput)
        .cache_capacity(CACHE_BYTES)
        .flush_every_ms(None);
    let db = open_when_free(&config)?;
    let file = File::options().read(true).write(true).open(path.join("db")).map_err(|e| e.to_string())?;
    // sled has created files and replaced snapshots without syncing them.
    directory::sync_whole(path).map_err(|e| e.to_string())?;
    let database = Database { db, file, path: path.to_owned(), reserved: Cell::new(0) };
    database.reserve();
    Ok(database)
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

/// Sets the snapshots aside: sled then reads the whole log instead. Says whether there were any.
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

    #[test]
    fn a_lock_that_was_just_let_go_is_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let config = sled::Config::new().path(dir.path());
        let held = config.open().unwrap();
        assert!(is_locked(&sled::Config::new().path(dir.path()).open().unwrap_err()));
        drop(held);
        open_when_free(&config).unwrap();
    }
}
