//! The journal: groups of changes, one behind the other, each durable by one sync of this file. It alone decides what
//! was promised; what else lies in a generation only says where in it the records stand.
//!
//! Invariants:
//! - a group counts as a whole or not at all: its checksum covers all of it, with a number that is this file's alone, so
//!   that nothing that a device sent is taken for one;
//! - groups are numbered without a gap, and the next is written only when the last is on disk: what is behind the first
//!   that does not count is the torn rest of one that nobody was told of, and goes before anything is written there;
//! - nothing is ever written over: what a group says is there until its generation goes;
//! - behind the end stand zeros that were written ahead: a group takes their place, and a sync then writes the group and
//!   nothing else. A file that grows with each group has its file system write its size and its blocks down each time,
//!   four times as much as a prompt.
//!
//! ```text
//! file:  magic f1 'T' 'j' 1 | salt u32 | crc32c u32 | groups
//! group: magic f1 'T' 'k' 1 | number u64 | seq u64 | bytes of records u32 | removals u32 | crc32c u32
//!        | records as in `envelope` | keys that go, 9 bytes each
//! ```
//! Numbers are big-endian. Of a key that a group names more than once the last word counts.

use crate::database::Op;
use crate::envelope::{Envelope, Key};
use rustix::fs::{FallocateFlags, fallocate};
use rustix::io::Errno;
use std::collections::HashMap;
use std::collections::hash_map::RandomState;
use std::fs::{File, OpenOptions};
use std::hash::{BuildHasher, Hasher};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// Its name in a generation.
pub(crate) const NAME: &str = "journal";
/// Starts the file; the last byte is its version.
const MAGIC: [u8; 4] = [0xf1, b'T', b'j', 1];
/// Starts a group.
const GROUP_MAGIC: [u8; 4] = [0xf1, b'T', b'k', 1];
/// Bytes before the first group.
const HEADER_BYTES: usize = 12;
/// Bytes of a group before its records.
const GROUP_HEADER_BYTES: usize = 32;
/// Bytes of a key that goes.
const KEY_BYTES: usize = 9;
/// Largest group, in bytes: far over what is ever written at once, so that a damaged length is not believed.
const GROUP_BYTES_MAX: usize = 8 << 20;
/// Bytes that are looked through at once behind the last group.
const WINDOW_BYTES: usize = 64 << 10;

/// Room behind the end, in bytes: some thousand outcomes.
const RESERVE_BYTES: u64 = 4 << 20;
/// With less it is made anew.
const RESERVE_LOW: u64 = 3 << 20;
/// Zeros that are written ahead at once, in bytes: some hundred prompts, and a few hundredths of a second on a card.
const AHEAD_BYTES: usize = 256 << 10;
/// A group so large is dearer to write twice, zeros and all, than to have the file grow by it: that takes three blocks in
/// the file system's own journal.
const GROWS_BYTES: u64 = 12 << 10;

/// Where a record stands in the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) offset: u64,
    pub(crate) bytes: u32,
}

/// What a group says of a key: where its record stands, or that it is gone.
pub(crate) type Said = (Key, Option<Place>);

/// A place between two groups.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Mark {
    pub(crate) offset: u64,
    /// The number of the group that follows.
    pub(crate) group: u64,
    /// The largest sequence number before.
    pub(crate) seq: u64,
}

impl Mark {
    /// Before the first group.
    pub(crate) const START: Self = Self { offset: HEADER_BYTES as u64, group: 1, seq: 0 };
}

/// The open file.
#[derive(Debug)]
pub(crate) struct Journal {
    file: File,
    salt: u32,
    end: Mark,
    /// Whether something lies behind the end that must go before a group is written there.
    torn: bool,
    /// The length of the file: what lies between the end and here is zeros, where it is not torn.
    length: u64,
    /// Up to where the file owns its room, in bytes.
    reserved: u64,
    /// Whether its file system has no such room to own.
    roomless: bool,
}

impl Journal {
    /// Opens the file of a generation, or makes it, and shows what the groups behind `from` say. An error is damage, or
    /// one of the disk.
    pub(crate) fn open(generation: &Path, from: Option<Mark>, show: impl FnMut(Said)) -> Result<Self, String> {
        let path = generation.join(NAME);
        let file = OpenOptions::new().create(true).truncate(false).read(true).write(true).open(&path);
        let file = file.map_err(|e| e.to_string())?;
        let salt = read_header(&file).or_else(|damage| match from {
            // Nothing was ever written to it.
            None if length(&file)? <= HEADER_BYTES as u64 => write_header(&file).map_err(|e| e.to_string()),
            _ => Err(damage),
        })?;
        let mut journal =
            Self { file, salt, end: from.unwrap_or(Mark::START), torn: false, length: 0, reserved: 0, roomless: false };
        journal.replay(show)?;
        journal.reserve();
        if !journal.torn {
            journal.write_ahead(1);
        }
        Ok(journal)
    }

    fn replay(&mut self, mut show: impl FnMut(Said)) -> Result<(), String> {
        let length = length(&self.file)?;
        if length < self.end.offset {
            return Err(format!("the journal ends at {length}, where {} was on disk", self.end.offset));
        }
        while let Some(group) = self.group(self.end.offset).filter(|group| group.number == self.end.group) {
            let (offset, bytes) = (self.end.offset, group.bytes());
            group.said(offset).into_iter().for_each(&mut show);
            let seq = self.end.seq.max(group.seq);
            self.end = Mark { offset: offset + bytes, group: group.number + 1, seq };
        }
        self.length = length;
        self.torn = !self.is_clear(length);
        if self.torn && self.goes_on(length) {
            return Err(format!("the journal is damaged at {}", self.end.offset));
        }
        Ok(())
    }

    /// Whether only zeros stand behind the end.
    fn is_clear(&self, length: u64) -> bool {
        let mut window = vec![0; WINDOW_BYTES];
        let mut start = self.end.offset;
        while start < length {
            match self.file.read_at(&mut window, start) {
                Ok(filled) if filled > 0 && window[..filled].iter().all(|byte| *byte == 0) => start += filled as u64,
                _ => return false,
            }
        }
        true
    }

    /// Whether a group that was written later stands behind the end: then what lies between them was on disk.
    fn goes_on(&self, length: u64) -> bool {
        let mut window = vec![0; WINDOW_BYTES];
        let mut start = self.end.offset + 1;
        while start < length {
            let filled = self.file.read_at(&mut window, start).unwrap_or(0);
            let found = window[..filled].windows(GROUP_MAGIC.len()).enumerate().any(|(at, bytes)| {
                bytes == GROUP_MAGIC && self.group(start + at as u64).is_some_and(|group| group.number > self.end.group)
            });
            if found {
                return true;
            }
            // A sector that cannot be read is left behind.
            start += (filled.saturating_sub(GROUP_MAGIC.len() - 1) as u64).max(if filled == 0 { 4096 } else { 1 });
        }
        false
    }

    /// The group at an offset, if it counts.
    fn group(&self, offset: u64) -> Option<Group> {
        let mut header = [0; GROUP_HEADER_BYTES];
        self.file.read_exact_at(&mut header, offset).ok()?;
        let (magic, numbers) = header.split_at(GROUP_MAGIC.len());
        let u64_at = |at: usize| Some(u64::from_be_bytes(numbers.get(at..at + 8)?.try_into().ok()?));
        let u32_at = |at: usize| Some(u32::from_be_bytes(numbers.get(at..at + 4)?.try_into().ok()?));
        let (records, removals) = (u32_at(16)? as usize, u32_at(20)? as usize);
        let bytes = removals.checked_mul(KEY_BYTES)?.checked_add(records)?;
        if magic != GROUP_MAGIC || bytes > GROUP_BYTES_MAX {
            return None;
        }
        let mut body = vec![0; bytes];
        self.file.read_exact_at(&mut body, offset + GROUP_HEADER_BYTES as u64).ok()?;
        let counts = checksum(self.salt, &header[..GROUP_HEADER_BYTES - 4], &body) == u32_at(24)?;
        counts.then_some(Group { number: u64_at(0)?, seq: u64_at(8)?, records, body })
    }

    /// Writes a group behind the end, not durably; gives what it says.
    pub(crate) fn append(&mut self, ops: &[Op]) -> io::Result<Vec<Said>> {
        let group = Group::of(self.end, ops);
        let mut bytes = Vec::with_capacity(GROUP_HEADER_BYTES + group.body.len());
        bytes.extend_from_slice(&GROUP_MAGIC);
        bytes.extend_from_slice(&group.number.to_be_bytes());
        bytes.extend_from_slice(&group.seq.to_be_bytes());
        let removals = (group.body.len() - group.records) / KEY_BYTES;
        let u32_of = |n: usize| u32::try_from(n).expect("a group is at most GROUP_BYTES_MAX").to_be_bytes();
        bytes.extend_from_slice(&u32_of(group.records));
        bytes.extend_from_slice(&u32_of(removals));
        bytes.extend_from_slice(&checksum(self.salt, &bytes, &group.body).to_be_bytes());
        bytes.extend_from_slice(&group.body);
        self.clear()?;
        self.write_ahead(bytes.len() as u64);
        self.file.write_all_at(&bytes, self.end.offset)?;
        self.length = self.length.max(self.end.offset + bytes.len() as u64);
        let said = group.said(self.end.offset);
        self.end = Mark { offset: self.end.offset + bytes.len() as u64, group: group.number + 1, seq: group.seq };
        Ok(said)
    }

    /// What lies torn behind the end goes, for good: a later group must not stand beside it.
    fn clear(&mut self) -> io::Result<()> {
        if std::mem::take(&mut self.torn) {
            self.file.set_len(self.end.offset)?;
            self.file.sync_all()?;
            (self.length, self.reserved) = (self.end.offset, 0);
        }
        Ok(())
    }

    /// Sees to zeros for a group of so many bytes. Without them it is only dearer to sync; so they never take the last
    /// room of the disk, but only what is the file's already, where there is such room.
    fn write_ahead(&mut self, bytes: u64) {
        let until = self.length + AHEAD_BYTES as u64;
        let fits = self.end.offset + bytes <= self.length;
        if fits || bytes >= GROWS_BYTES || (until > self.reserved && !self.roomless) {
            return;
        }
        if self.file.write_all_at(&vec![0; AHEAD_BYTES], self.length).is_ok() {
            self.length = until;
        } else {
            self.length = length(&self.file).unwrap_or(self.length);
        }
    }

    /// Makes all groups durable.
    pub(crate) fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    /// Takes room behind the end, if little is left of it. On a full disk what there is has to do.
    pub(crate) fn reserve(&mut self) {
        if self.reserved_bytes() >= RESERVE_LOW {
            return;
        }
        match fallocate(&self.file, FallocateFlags::KEEP_SIZE, self.end.offset, RESERVE_BYTES) {
            Ok(()) => self.reserved = self.end.offset + RESERVE_BYTES,
            Err(error) => self.roomless = error == Errno::OPNOTSUPP,
        }
    }

    /// Bytes that can be written though the disk is full.
    pub(crate) fn reserved_bytes(&self) -> u64 {
        self.reserved.saturating_sub(self.end.offset)
    }

    /// Behind the last group.
    pub(crate) fn end(&self) -> Mark {
        self.end
    }

    /// A disk on which writes go well and syncs fail.
    #[cfg(test)]
    pub(crate) fn breaks(&mut self) {
        self.file = File::options().read(true).write(true).open("/dev/null").expect("every Linux has it");
    }

    /// The bytes of a record.
    pub(crate) fn read(&self, place: Place) -> io::Result<Vec<u8>> {
        let mut record = vec![0; place.bytes as usize];
        self.file.read_exact_at(&mut record, place.offset)?;
        Ok(record)
    }
}

/// A group, without its frame.
struct Group {
    number: u64,
    /// The largest sequence number up to its end, also of what it wrote and took back.
    seq: u64,
    /// Bytes of the records in the body; the rest are keys that go.
    records: usize,
    body: Vec<u8>,
}

impl Group {
    fn of(end: Mark, ops: &[Op]) -> Self {
        let last: HashMap<Key, usize> = ops.iter().enumerate().map(|(at, op)| (op.key, at)).collect();
        let counts = |(at, op): &(usize, &Op)| last.get(&op.key) == Some(at);
        let mut body = Vec::new();
        let written = ops.iter().filter_map(|op| Envelope::seq_of(op.record.as_deref()?));
        let seq = written.max().map_or(end.seq, |seq| seq.max(end.seq));
        ops.iter().enumerate().filter(counts).filter_map(|(_, op)| op.record.as_ref()).for_each(|r| body.extend(r));
        let records = body.len();
        let gone = ops.iter().enumerate().filter(counts).filter(|(_, op)| op.record.is_none());
        gone.for_each(|(_, op)| body.extend(op.key.bytes()));
        Self { number: end.group, seq, records, body }
    }

    fn bytes(&self) -> u64 {
        (GROUP_HEADER_BYTES + self.body.len()) as u64
    }

    /// What it says of each key, where it stands at this offset.
    fn said(&self, offset: u64) -> Vec<Said> {
        let (records, keys) = self.body.split_at(self.records);
        let mut said = Vec::new();
        let mut at = 0;
        while let Some(envelope) = Envelope::decode(&records[at..]) {
            let offset = offset + (GROUP_HEADER_BYTES + at) as u64;
            said.push((envelope.key, Some(Place { offset, bytes: envelope.len() as u32 })));
            at += envelope.len();
        }
        said.extend(keys.chunks_exact(KEY_BYTES).filter_map(|key| Some((Key::parse(key)?, None))));
        said
    }
}

fn checksum(salt: u32, header: &[u8], body: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c_append(crc32c::crc32c(&salt.to_be_bytes()), header), body)
}

fn length(file: &File) -> Result<u64, String> {
    file.metadata().map(|m| m.len()).map_err(|e| e.to_string())
}

/// The salt.
fn read_header(file: &File) -> Result<u32, String> {
    let mut header = [0; HEADER_BYTES];
    file.read_exact_at(&mut header, 0).map_err(|e| format!("the head of the journal: {e}"))?;
    let (head, crc) = header.split_at(8);
    let salt = head.strip_prefix(&MAGIC).and_then(|salt| salt.try_into().ok()).map(u32::from_be_bytes);
    let whole = crc == crc32c::crc32c(head).to_be_bytes();
    salt.filter(|_| whole).ok_or_else(|| "the head of the journal is damaged".to_owned())
}

/// Begins a file, durably; gives its salt.
fn write_header(file: &File) -> io::Result<u32> {
    // The standard library's hashes begin with a number that nobody outside knows.
    let salt = RandomState::new().build_hasher().finish() as u32;
    let mut header = [MAGIC, salt.to_be_bytes()].concat();
    header.extend_from_slice(&crc32c::crc32c(&header).to_be_bytes());
    file.write_all_at(&header, 0)?;
    file.sync_all()?;
    Ok(salt)
}
