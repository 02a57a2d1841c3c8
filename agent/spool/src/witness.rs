//! Two witnesses against silent loss.
//!
//! - `synced` holds the sequence number of the last change that was synced. It is written without a sync of its own:
//!   it may be behind after a power cut, never ahead. It misses the end of a journal that was cut short.
//! - `before` is for stores of formats 1 to 3, whose records stand in sled's own log. sled opens a log with a damaged
//!   record as if the log ended there, and wipes what follows; nothing says that anything is missing. It is a copy of
//!   the log, taken before sled touches it and removed when the store is open. The records in it
//!   tell of every group that was once written; all but the last one were synced before the next was written. It is
//!   on disk before sled wipes anything, and gone from it before anything new is written: whatever power cut ends an
//!   opening, the next one finds all that was synced in copy and log together.

use crate::carve::{Carving, highest_seq};
use crate::directory;
use crate::journal;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// Sequence numbers of a group share all but these bits: a group is far smaller than 65,536 records.
const GROUP_BITS: u32 = 16;

/// The last sequence number that the group of `seq` can hold: what follows it is another group's.
pub(crate) fn end_of_group(seq: u64) -> u64 {
    seq | ((1 << GROUP_BITS) - 1)
}

/// The sequence number that seals a generation whose other records are all of `seq` or before: two groups on, since the
/// witnesses allow for one group that was not finished.
pub(crate) fn seal_after(seq: u64) -> u64 {
    end_of_group(end_of_group(seq) + 1) + 1
}

/// The file `synced`.
#[derive(Debug)]
pub(crate) struct Synced(File);

impl Synced {
    pub(crate) fn open(store: &Path) -> io::Result<Self> {
        let path = store.join("synced");
        File::options().create(true).truncate(false).read(true).write(true).open(path).map(Self)
    }

    /// The last sequence number known to be synced; zero when nothing is known.
    pub(crate) fn seq(&self) -> u64 {
        let mut bytes = [0; 12];
        let (seq, crc) = match self.0.read_exact_at(&mut bytes, 0) {
            Ok(()) => bytes.split_at(8),
            Err(_) => return 0,
        };
        let whole = crc == crc32c::crc32c(seq).to_be_bytes();
        seq.try_into().map(u64::from_be_bytes).ok().filter(|_| whole).unwrap_or(0)
    }

    /// Notes that all up to `seq` is synced. Only the detection of damage suffers when it cannot be noted.
    pub(crate) fn note(&self, seq: u64) {
        let mut bytes = [0; 12];
        bytes[..8].copy_from_slice(&seq.to_be_bytes());
        bytes[8..].copy_from_slice(&crc32c::crc32c(&seq.to_be_bytes()).to_be_bytes());
        if let Err(error) = self.0.write_all_at(&bytes, 0) {
            tracing::warn!(%error, "the last synced change could not be noted");
        }
    }
}

/// The log as it was before sled opened it, where it holds records.
#[derive(Debug)]
pub(crate) struct Before {
    path: PathBuf,
    /// The log itself, for when there was no room for a copy.
    log: PathBuf,
    /// The largest sequence number in it.
    pub(crate) written: u64,
}

impl Before {
    /// Copies the log, unless an opening that was interrupted has left its copy; a copy that is behind the log is of
    /// the past. With a log over `room` bytes the log alone is looked at, since sled needs the rest of the disk to open
    /// at all; then a salvage finds what sled has left of it.
    pub(crate) fn take(store: &Path, log: &Path, room: u64) -> Self {
        let path = store.join("before");
        let aside = store.join("before.tmp");
        let left_over = path.exists() && highest(&path) >= highest(log);
        if !left_over
            && log.exists()
            && highest(log) > 0
            && let Err(error) = copy(log, &aside, room).and_then(|()| place(&aside, &path, store))
        {
            tracing::warn!(%error, "the log could not be copied before it is opened");
            let _ = fs::remove_file(&aside);
        }
        let mut before = Self { path, log: log.to_owned(), written: 0 };
        // A copy that was just made says no more than the log.
        let sources = if left_over { before.sources() } else { vec![log] };
        before.written = sources.into_iter().map(highest).max().unwrap_or(0);
        before
    }

    fn sources(&self) -> Vec<&Path> {
        [&self.path, &self.log].into_iter().map(PathBuf::as_path).filter(|path| path.exists()).collect()
    }

    /// Beside the log lies the journal, which is never wiped.
    fn journal(&self) -> Option<PathBuf> {
        Some(self.log.with_file_name(journal::NAME)).filter(|path| path.exists())
    }

    /// All records in copy, log and journal: of two of a key the later one counts, wherever it stands.
    pub(crate) fn carve(&self) -> Carving {
        let mut carving = Carving::default();
        for source in self.sources().into_iter().chain(self.journal().as_deref()) {
            if let Err(error) = carving.search(source) {
                tracing::warn!(%error, "the log could not be looked through");
            }
        }
        carving
    }

    /// Whether a database whose latest record is `loaded` lacks something that was synced.
    pub(crate) fn tells_of_loss(&self, loaded: u64, synced: u64) -> bool {
        loaded < synced || (loaded >> GROUP_BITS) + 1 < self.written >> GROUP_BITS
    }

    /// The store is open: the copy is not needed any more. For good: one that a power cut brought back would be taken
    /// for that of an interrupted opening, and tell of the past.
    pub(crate) fn discard(self, store: &Path) {
        match fs::remove_file(&self.path).and_then(|()| directory::sync(store)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::warn!(%error, "the copy of the log could not be removed");
            }
            _ => {}
        }
    }
}

/// A copy of at most `room` bytes that a power cut leaves whole.
fn copy(from: &Path, to: &Path, room: u64) -> io::Result<()> {
    if fs::metadata(from)?.len() > room {
        return Err(io::ErrorKind::StorageFull.into());
    }
    fs::copy(from, to)?;
    File::open(to)?.sync_all()
}

/// Gives a file its name, for good.
fn place(aside: &Path, path: &Path, store: &Path) -> io::Result<()> {
    fs::rename(aside, path)?;
    directory::sync(store)
}

/// The largest sequence number in a file, zero where it cannot be read.
fn highest(path: &Path) -> u64 {
    highest_seq(path).unwrap_or_else(|error| {
        tracing::warn!(%error, "the log could not be looked through");
        0
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::envelope::{Class, Envelope, Form, Key};
    use tidegate_schemas::JobId;

    #[test]
    fn a_copy_that_a_power_cut_tore_hides_nothing_of_the_log() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("db");
        let key = |job| Key::new(Class::Prompt, JobId(job));
        let record = |job| Envelope { key: key(job), form: Form::Inline, seq: job, body: b"body" }.encode();
        fs::write(&log, [record(1), record(2)].concat()).unwrap();
        for torn in [Vec::new(), vec![0; 68], [record(1), vec![0; 34]].concat(), [vec![0; 34], record(3)].concat()] {
            let last = if torn.ends_with(&record(3)) { 3 } else { 2 };
            fs::write(dir.path().join("before"), torn).unwrap();
            let before = Before::take(dir.path(), &log, u64::MAX);
            assert_eq!(before.written, last);
            let carving = before.carve();
            assert!((1..=last).all(|job| carving.has(key(job))));
        }
    }

    #[test]
    fn a_copy_that_is_behind_the_log_is_made_anew_and_one_that_is_ahead_stays() {
        let dir = tempfile::tempdir().unwrap();
        let (log, copy) = (dir.path().join("db"), dir.path().join("before"));
        let key = Key::new(Class::Prompt, JobId(1));
        let record = |seq| Envelope { key, form: Form::Inline, seq, body: b"body" }.encode();
        for (in_log, in_copy, expect) in [(3, Some(2), 3), (2, Some(3), 3), (3, None, 3)] {
            fs::write(&log, record(in_log)).unwrap();
            let _ = fs::remove_file(&copy);
            in_copy.iter().for_each(|seq| fs::write(&copy, record(*seq)).unwrap());
            let before = Before::take(dir.path(), &log, u64::MAX);
            assert_eq!((before.written, fs::read(&copy).unwrap()), (expect, record(expect)));
            before.discard(dir.path());
            assert!(!copy.exists());
        }
    }

    #[test]
    fn a_log_that_would_fill_the_disk_is_not_copied_and_still_looked_at() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("db");
        let key = Key::new(Class::Prompt, JobId(1));
        let record = Envelope { key, form: Form::Inline, seq: 3, body: b"body" }.encode();
        fs::write(&log, &record).unwrap();
        for (room, copied) in [(record.len() as u64, true), (record.len() as u64 - 1, false)] {
            let before = Before::take(dir.path(), &log, room);
            assert_eq!((before.written, dir.path().join("before").exists()), (3, copied));
            assert!(before.carve().has(key));
            before.discard(dir.path());
        }
    }

    #[test]
    fn what_is_noted_is_read_and_damage_is_nothing_known() {
        let dir = tempfile::tempdir().unwrap();
        let synced = Synced::open(dir.path()).unwrap();
        assert_eq!(synced.seq(), 0);
        synced.note(77);
        assert_eq!(Synced::open(dir.path()).unwrap().seq(), 77);
        fs::write(dir.path().join("synced"), [1; 12]).unwrap();
        assert_eq!(synced.seq(), 0);
    }

    #[test]
    fn loss_is_told_from_a_group_that_was_cut_off() {
        let dir = tempfile::tempdir().unwrap();
        let before = Before::take(dir.path(), &dir.path().join("none"), u64::MAX);
        assert!(!before.tells_of_loss(5, 5), "all is there");
        assert!(!before.tells_of_loss(6, 5), "the note is behind");
        assert!(before.tells_of_loss(4, 5), "a synced change is missing");
    }
}
