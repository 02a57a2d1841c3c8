//! Records that would make the journal grow too fast, each in a file of its own that is on disk before the record that
//! names it, and goes after it.

use crate::directory;
use crate::envelope::{BODY_BYTES_MAX, Class, HEADER_BYTES, Key};
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use tidegate_schemas::JobId;

/// Largest record that stands in the journal, in bytes: a new generation copies what is there, and nothing of these. In
/// formats 1 to 3 they were values of sled, whose leaves spill to files that are never synced above 128 KiB.
pub(crate) const INLINE_BYTES_MAX: usize = 4096;

/// The directory `large/`.
#[derive(Debug)]
pub(crate) struct LargeFiles {
    dir: PathBuf,
}

impl LargeFiles {
    /// Creates the directory where there is none, and removes what an interrupted write left.
    pub(crate) fn open(store: &Path) -> io::Result<Self> {
        let dir = store.join("large");
        directory::make(&dir)?;
        for name in directory::names(&dir)?.iter().filter(|n| n.ends_with(".tmp")) {
            fs::remove_file(dir.join(name))?;
        }
        Ok(Self { dir })
    }

    /// Writes a whole record and syncs the file; `sync` makes its name durable.
    pub(crate) fn write(&self, key: Key, record: &[u8]) -> io::Result<()> {
        directory::write_aside(&self.path(key), record)
    }

    /// Makes the names of the files durable.
    pub(crate) fn sync(&self) -> io::Result<()> {
        directory::sync(&self.dir)
    }

    /// Reads a file, whatever is in it, up to the size of the largest record.
    pub(crate) fn read(&self, key: Key) -> io::Result<Vec<u8>> {
        let mut record = Vec::new();
        File::open(self.path(key))?.take((HEADER_BYTES + BODY_BYTES_MAX) as u64).read_to_end(&mut record)?;
        Ok(record)
    }

    /// Removes a file whose record is gone. One that stays is an orphan, which the next opening removes.
    pub(crate) fn remove(&self, key: Key) {
        if let Err(error) = fs::remove_file(self.path(key)) {
            tracing::warn!(%error, job = %key.job, "a large record could not be removed");
        }
    }

    /// The keys of all files.
    pub(crate) fn keys(&self) -> io::Result<Vec<Key>> {
        Ok(directory::names(&self.dir)?.iter().filter_map(|n| parse(n)).collect())
    }

    fn path(&self, key: Key) -> PathBuf {
        self.dir.join(format!("{}-{}", char::from(key.class.byte()), key.job))
    }
}

fn parse(name: &str) -> Option<Key> {
    let (class, job) = name.split_once('-')?;
    let [class] = class.as_bytes() else { return None };
    Some(Key { class: Class::of(*class)?, job: JobId(job.parse().ok()?) })
}
