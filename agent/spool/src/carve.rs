//! Reads records out of files that sled no longer reads: looks for the magic, believes the checksum.
//!
//! A log-structured file also holds records that were replaced or removed. Of two records of a key the later one
//! counts; which of them was ended or removed since is the salvage's to tell. Memory is bounded by the number of keys, not by the size of the files.

use crate::envelope::{Class, Envelope, Form, Key, MAGIC};
use crate::large::INLINE_BYTES_MAX;
use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// Bytes read at once; under the size from which glibc's allocator, once freed, keeps ever larger blocks resident.
const WINDOW_BYTES: usize = 64 << 10;
/// Bytes read again by the next window, so that no record falls between two: the largest that stands in a database.
const OVERLAP_BYTES: usize = 2 * INLINE_BYTES_MAX;
/// How far to go on behind a place that cannot be read.
const SECTOR_BYTES: usize = 4096;

const _: () = assert!(OVERLAP_BYTES >= INLINE_BYTES_MAX && OVERLAP_BYTES < WINDOW_BYTES / 2);

/// Where the latest record of a key lies.
#[derive(Debug, Clone, Copy)]
struct Place {
    seq: u64,
    file: usize,
    offset: u64,
    len: usize,
    form: Form,
}

/// The latest record of every key that was found.
#[derive(Debug, Default)]
pub(crate) struct Carving {
    files: Vec<PathBuf>,
    places: BTreeMap<Key, Place>,
}

impl Carving {
    /// Looks through a file.
    pub(crate) fn search(&mut self, path: &Path) -> io::Result<()> {
        self.files.push(path.to_owned());
        search(path, |envelope, offset| self.found(envelope, offset))
    }

    fn found(&mut self, envelope: &Envelope<'_>, offset: u64) {
        let (seq, form) = (envelope.seq, envelope.form);
        let place = Place { seq, file: self.files.len() - 1, offset, len: envelope.len(), form };
        let later = self.places.get(&envelope.key).is_none_or(|p| p.seq < place.seq);
        if later {
            self.places.insert(envelope.key, place);
        }
    }

    /// Shows the latest record of every wanted key; one that cannot be read a second time is passed over.
    pub(crate) fn each(
        &self,
        wanted: impl Fn(Key) -> bool,
        mut show: impl FnMut(Key, Vec<u8>) -> Result<(), String>,
    ) -> Result<(), String> {
        for (key, place) in self.places.iter().filter(|(key, _)| wanted(**key)) {
            let mut record = vec![0; place.len];
            let file = File::open(&self.files[place.file]);
            match file.and_then(|f| f.read_exact_at(&mut record, place.offset)) {
                Ok(()) => show(*key, record)?,
                Err(error) => tracing::warn!(%error, job = %key.job, "a record could not be read again"),
            }
        }
        Ok(())
    }

    /// When the latest record of a key was written, if one was found.
    pub(crate) fn seq(&self, key: Key) -> Option<u64> {
        self.places.get(&key).map(|place| place.seq)
    }

    /// Where the latest record of a key has its body, if one was found.
    pub(crate) fn form(&self, key: Key) -> Option<Form> {
        self.places.get(&key).map(|place| place.form)
    }

    /// Whether a key was found.
    pub(crate) fn has(&self, key: Key) -> bool {
        self.places.contains_key(&key)
    }

    /// The largest number of these classes that was found.
    pub(crate) fn highest_of(&self, classes: &[Class]) -> u64 {
        self.places.keys().filter(|key| classes.contains(&key.class)).map(|key| key.job.0).max().unwrap_or(0)
    }

    /// The largest sequence number found.
    pub(crate) fn highest_seq(&self) -> u64 {
        self.places.values().map(|place| place.seq).max().unwrap_or(0)
    }
}

/// The largest sequence number in a file; keeps nothing else of it.
pub(crate) fn highest_seq(path: &Path) -> io::Result<u64> {
    let mut highest = 0;
    search(path, |envelope, _| highest = highest.max(envelope.seq))?;
    Ok(highest)
}

/// Shows every record of a file with its offset; those in the overlap of two windows are shown twice.
fn search(path: &Path, mut show: impl FnMut(&Envelope<'_>, u64)) -> io::Result<()> {
    let file = File::open(path)?;
    let len = file.metadata()?.len();
    let mut window = vec![0; WINDOW_BYTES];
    let mut start = 0;
    while start < len {
        let filled = read_some(&file, &mut window, start);
        search_window(&window[..filled], |envelope, at| show(envelope, start + at as u64));
        // A window that a bad sector ended is left by less, so that what follows the sector is looked at.
        start += filled.saturating_sub(OVERLAP_BYTES).max(SECTOR_BYTES) as u64;
    }
    Ok(())
}

fn search_window(window: &[u8], mut show: impl FnMut(&Envelope<'_>, usize)) {
    let mut at = 0;
    while let Some(found) = find_magic(&window[at..]) {
        at += found;
        match Envelope::decode(&window[at..]) {
            Some(envelope) => {
                show(&envelope, at);
                at += envelope.len();
            }
            None => at += 1,
        }
    }
}

/// Fills as much of the window as the file has from `start`; a bad sector ends the window.
fn read_some(file: &File, window: &mut [u8], start: u64) -> usize {
    let mut filled = 0;
    while filled < window.len() {
        match file.read_at(&mut window[filled..], start + filled as u64) {
            Ok(0) => break,
            Ok(n) => filled += n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => break,
        }
    }
    filled
}

fn find_magic(bytes: &[u8]) -> Option<usize> {
    let mut at = 0;
    while let Some(found) = bytes[at..].iter().position(|b| *b == MAGIC[0]) {
        at += found;
        if bytes[at..].starts_with(&MAGIC) {
            return Some(at);
        }
        at += 1;
    }
    None
}
