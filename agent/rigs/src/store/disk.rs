//! A disk that keeps only what was synced: files and names as programs see them, and beside them what is certain.
//!
//! Invariants:
//! - a write, a new size or a name is *pending* until its file or directory is synced; a sync of a file says nothing of
//!   its name, and a sync of a directory nothing of its files (POSIX promises no more);
//! - `sync_file_range` and a close make nothing certain;
//! - `image` gives what one power cut may leave: each sector of 512 bytes, each size and each change of a name comes
//!   through or not, by a [`Loss`]; what is certain always does.

use std::collections::BTreeMap;
use std::sync::Arc;

/// Number of a file or directory.
pub(crate) type Ino = u64;
/// The directory that everything is in.
pub(crate) const ROOT: Ino = 1;
/// What a drive writes whole or not at all, in bytes.
const SECTOR_BYTES: u64 = 512;

/// What lies under a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A file of bytes.
    File,
    /// A directory.
    Directory,
}

/// One operation, as a program asks for it.
#[derive(Debug, Clone)]
pub(crate) enum Op {
    /// A new file or directory under a name.
    Make { dir: Ino, name: String, ino: Ino, kind: Kind },
    /// A name goes.
    Remove { dir: Ino, name: String, ino: Ino },
    /// A name becomes another one, in one step; what stood there is replaced.
    Rename { from: (Ino, String), to: (Ino, String), ino: Ino },
    /// Bytes of a file.
    Write { ino: Ino, at: u64, bytes: Arc<[u8]> },
    /// The length of a file.
    Resize { ino: Ino, len: u64 },
    /// Makes the content of a file, or the names of a directory, certain.
    Sync { ino: Ino },
}

#[derive(Debug, Clone)]
enum Pending {
    Write { at: u64, bytes: Arc<[u8]> },
    Resize(u64),
}

#[derive(Debug, Clone, Default)]
struct FileState {
    now: Vec<u8>,
    certain: Vec<u8>,
    /// What is not certain yet, with the number of its operation.
    pending: Vec<(u64, Pending)>,
}

#[derive(Debug, Clone, Default)]
struct DirectoryState {
    now: BTreeMap<String, Ino>,
    certain: BTreeMap<String, Ino>,
}

/// The disk.
#[derive(Debug, Clone)]
pub(crate) struct Disk {
    files: BTreeMap<Ino, FileState>,
    directories: BTreeMap<Ino, DirectoryState>,
    /// Changes of names that are not certain yet, with the number of their operation.
    names: Vec<(u64, Op)>,
    /// Operations so far.
    count: u64,
}

impl Default for Disk {
    fn default() -> Self {
        let directories = BTreeMap::from([(ROOT, DirectoryState::default())]);
        Self { files: BTreeMap::new(), directories, names: Vec::new(), count: 0 }
    }
}

/// What a power cut does to what is pending.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Loss {
    /// All of it is gone.
    All,
    /// None of it is gone.
    Nothing,
    /// The last operations are gone, counted from the end; of the one at the edge some sectors came through.
    Last { operations: u64, salt: u64 },
    /// Each sector holds any of the contents that it had since it was certain; names likewise.
    Scattered { salt: u64 },
    /// Each operation is there whole or gone, later ones without earlier ones too.
    Reordered { salt: u64 },
}

/// A well-mixed number from two: splitmix64's finaliser.
pub(crate) fn mix(a: u64, b: u64) -> u64 {
    let mut z = a.wrapping_add(b.wrapping_mul(0x9e37_79b9_7f4a_7c15)).wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

impl Disk {
    /// The number that the next new file takes.
    pub(crate) fn next_ino(&self) -> Ino {
        let last = |keys: Option<&Ino>| keys.copied().unwrap_or(0);
        last(self.files.keys().next_back()).max(last(self.directories.keys().next_back())) + 1
    }

    /// What a name stands for now.
    pub(crate) fn find(&self, dir: Ino, name: &str) -> Option<Ino> {
        self.directories.get(&dir)?.now.get(name).copied()
    }

    /// What lies under a number.
    pub(crate) fn kind(&self, ino: Ino) -> Option<Kind> {
        let directory = self.directories.contains_key(&ino).then_some(Kind::Directory);
        directory.or(self.files.contains_key(&ino).then_some(Kind::File))
    }

    /// The bytes of a file now; a directory has none.
    pub(crate) fn content(&self, ino: Ino) -> &[u8] {
        self.files.get(&ino).map_or(&[], |file| &file.now)
    }

    /// The names in a directory now.
    pub(crate) fn names(&self, dir: Ino) -> impl Iterator<Item = (&String, Ino)> {
        self.directories.get(&dir).into_iter().flat_map(|d| d.now.iter().map(|(name, ino)| (name, *ino)))
    }

    /// Does what a program asks; what concerns an unknown number changes nothing.
    pub(crate) fn apply(&mut self, op: &Op) {
        self.count += 1;
        match op {
            Op::Make { ino, kind: Kind::File, .. } => drop(self.files.insert(*ino, FileState::default())),
            Op::Make { ino, kind: Kind::Directory, .. } => {
                self.directories.insert(*ino, DirectoryState::default());
            }
            Op::Write { ino, at, bytes } => {
                return self.change(*ino, Pending::Write { at: *at, bytes: Arc::clone(bytes) });
            }
            Op::Resize { ino, len } => return self.change(*ino, Pending::Resize(*len)),
            Op::Sync { ino } => return self.sync(*ino),
            Op::Remove { .. } | Op::Rename { .. } => {}
        }
        rename(&mut self.directories, op, |d| &mut d.now);
        self.names.push((self.count, op.clone()));
    }

    fn change(&mut self, ino: Ino, change: Pending) {
        let Some(file) = self.files.get_mut(&ino) else { return };
        write(&mut file.now, &change, |_| true);
        file.pending.push((self.count, change));
    }

    fn sync(&mut self, ino: Ino) {
        if let Some(file) = self.files.get_mut(&ino) {
            for (_, change) in file.pending.drain(..) {
                write(&mut file.certain, &change, |_| true);
            }
            return;
        }
        let (certain, pending) = std::mem::take(&mut self.names).into_iter().partition(|(_, op)| concerns(op, ino));
        self.names = pending;
        let certain: Vec<(u64, Op)> = certain;
        certain.iter().for_each(|(_, op)| rename(&mut self.directories, op, |d| &mut d.certain));
    }

    /// What a power cut leaves: a disk on which everything is certain.
    pub(crate) fn image(&self, loss: Loss) -> Self {
        let mut directories = self.directories.clone();
        for (number, op) in &self.names {
            if self.keeps(loss, *number, 0) {
                rename(&mut directories, op, |d| &mut d.certain);
            }
        }
        directories.values_mut().for_each(|d| d.now.clone_from(&d.certain));
        let mut image = Self { files: BTreeMap::new(), directories, names: Vec::new(), count: 0 };
        for ino in image.reachable() {
            if let Some(file) = self.files.get(&ino) {
                let now = self.survivor(ino, file, loss);
                image.files.insert(ino, FileState { certain: now.clone(), now, pending: Vec::new() });
            }
        }
        image
    }

    /// The numbers that some path leads to.
    fn reachable(&mut self) -> Vec<Ino> {
        let mut found = vec![ROOT];
        let mut at = 0;
        while at < found.len() {
            found.extend(self.directories.get(&found[at]).into_iter().flat_map(|d| d.now.values()));
            at += 1;
        }
        self.directories.retain(|ino, _| found.contains(ino));
        found
    }

    /// Whether an operation that is not certain comes through, at one place of it.
    fn keeps(&self, loss: Loss, number: u64, place: u64) -> bool {
        match loss {
            Loss::All => false,
            Loss::Nothing => true,
            Loss::Last { operations, salt } => {
                let edge = self.count.saturating_sub(operations);
                number < edge || (number == edge && mix(salt, place) & 1 == 0)
            }
            Loss::Scattered { salt } | Loss::Reordered { salt } => mix(salt, number) & 1 == 0,
        }
    }

    fn survivor(&self, ino: Ino, file: &FileState, loss: Loss) -> Vec<u8> {
        let mut bytes = file.certain.clone();
        let count = file.pending.len() as u64;
        for (index, (number, change)) in file.pending.iter().enumerate() {
            write(&mut bytes, change, |sector| match loss {
                // The page cache reaches the drive sector by sector, each as it stands at that moment.
                Loss::Scattered { salt } => mix(mix(salt, ino), sector) % (count + 1) > index as u64,
                other => self.keeps(other, *number, sector),
            });
        }
        bytes
    }
}

/// Whether a sync of that directory makes the change of a name certain.
fn concerns(op: &Op, directory: Ino) -> bool {
    match op {
        Op::Make { dir, .. } | Op::Remove { dir, .. } => *dir == directory,
        Op::Rename { from, to, .. } => from.0 == directory || to.0 == directory,
        Op::Write { .. } | Op::Resize { .. } | Op::Sync { .. } => false,
    }
}

/// Changes names in one of the two views of the directories.
fn rename(
    directories: &mut BTreeMap<Ino, DirectoryState>,
    op: &Op,
    view: impl Fn(&mut DirectoryState) -> &mut BTreeMap<String, Ino>,
) {
    let mut set = |dir: &Ino, name: &String, old: Option<Ino>, new: Option<Ino>| {
        let Some(names) = directories.get_mut(dir).map(&view) else { return };
        match new {
            Some(ino) => drop(names.insert(name.clone(), ino)),
            // Only what it was about: the name may stand for something else by then.
            None if names.get(name).copied() == old => drop(names.remove(name)),
            None => {}
        }
    };
    match op {
        Op::Make { dir, name, ino, .. } => set(dir, name, None, Some(*ino)),
        Op::Remove { dir, name, ino } => set(dir, name, Some(*ino), None),
        Op::Rename { from, to, ino } => {
            set(&from.0, &from.1, Some(*ino), None);
            set(&to.0, &to.1, None, Some(*ino));
        }
        Op::Write { .. } | Op::Resize { .. } | Op::Sync { .. } => {}
    }
}

/// Changes bytes in those sectors that come through. A length comes through by the sector that it ends in.
fn write(content: &mut Vec<u8>, change: &Pending, comes_through: impl Fn(u64) -> bool) {
    match change {
        Pending::Resize(len) => {
            if comes_through(len / SECTOR_BYTES) {
                content.resize(*len as usize, 0);
            }
        }
        Pending::Write { at, bytes } => {
            let mut done = 0;
            while done < bytes.len() {
                let start = at + done as u64;
                let left = (SECTOR_BYTES - start % SECTOR_BYTES) as usize;
                let part = &bytes[done..(done + left).min(bytes.len())];
                if comes_through(start / SECTOR_BYTES) {
                    let end = start as usize + part.len();
                    content.resize(content.len().max(end), 0);
                    content[start as usize..end].copy_from_slice(part);
                }
                done += part.len();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn disk(ops: &[Op]) -> Disk {
        let mut disk = Disk::default();
        ops.iter().for_each(|op| disk.apply(op));
        disk
    }

    fn make(name: &str, ino: Ino) -> Op {
        Op::Make { dir: ROOT, name: name.to_owned(), ino, kind: Kind::File }
    }

    fn bytes(ino: Ino, at: u64, bytes: &[u8]) -> Op {
        Op::Write { ino, at, bytes: bytes.into() }
    }

    fn sync(ino: Ino) -> Op {
        Op::Sync { ino }
    }

    /// Name and content of all files in the root after a cut.
    fn left(disk: &Disk, loss: Loss) -> Vec<(String, Vec<u8>)> {
        let image = disk.image(loss);
        image.names(ROOT).map(|(name, ino)| (name.clone(), image.content(ino).to_vec())).collect()
    }

    #[test]
    fn a_file_needs_its_own_sync_and_that_of_its_name() {
        let written = [make("a", 2), bytes(2, 0, b"text")];
        assert_eq!(left(&disk(&written), Loss::All), []);
        let mut ops = written.to_vec();
        ops.push(sync(2));
        assert_eq!(left(&disk(&ops), Loss::All), [], "its name was not synced");
        ops.push(sync(ROOT));
        assert_eq!(left(&disk(&ops), Loss::All), [("a".to_owned(), b"text".to_vec())]);
        let named = [written.to_vec(), vec![sync(ROOT)]].concat();
        assert_eq!(left(&disk(&named), Loss::All), [("a".to_owned(), vec![])], "its content was not synced");
        assert_eq!(left(&disk(&written), Loss::Nothing), [("a".to_owned(), b"text".to_vec())]);
    }

    #[test]
    fn a_rename_happens_or_does_not() {
        let old = [make("a", 2), bytes(2, 0, b"old"), sync(2), sync(ROOT)];
        let new = [make("t", 3), bytes(3, 0, b"new"), sync(3)];
        let rename = Op::Rename { from: (ROOT, "t".to_owned()), to: (ROOT, "a".to_owned()), ino: 3 };
        let disk = disk(&[old.to_vec(), new.to_vec(), vec![rename]].concat());
        for salt in 0..64 {
            let left = left(&disk, Loss::Scattered { salt });
            let content = &left.iter().find(|(name, _)| name == "a").expect("one of both is there").1;
            assert!(content == b"old" || content == b"new", "{left:?}");
        }
        assert_eq!(left(&disk, Loss::All), [("a".to_owned(), b"old".to_vec())]);
    }

    #[test]
    fn sectors_come_through_one_by_one() {
        let base = [make("a", 2), bytes(2, 0, &[1; 2048]), sync(2), sync(ROOT)];
        let disk = disk(&[base.to_vec(), vec![bytes(2, 0, &[2; 2048]), bytes(2, 0, &[3; 2048])]].concat());
        let mut torn = 0;
        for salt in 0..64 {
            let content = &left(&disk, Loss::Scattered { salt })[0].1;
            let sectors: Vec<u8> = content.chunks(512).map(|sector| sector[0]).collect();
            assert!(content.chunks(512).all(|s| s.iter().all(|b| *b == s[0])), "a sector is whole");
            torn += usize::from(sectors.iter().any(|b| *b != sectors[0]));
        }
        assert!(torn > 32, "{torn} of 64 were torn");
    }

    #[test]
    fn a_later_write_may_come_through_without_an_earlier_one() {
        let base = [make("a", 2), bytes(2, 0, &[1; 1024]), sync(2), sync(ROOT)];
        let disk = disk(&[base.to_vec(), vec![bytes(2, 0, &[2; 512]), bytes(2, 512, &[3; 512])]].concat());
        let seen = |loss| left(&disk, loss)[0].1.iter().step_by(512).copied().collect::<Vec<u8>>();
        assert!((0..64).any(|salt| seen(Loss::Reordered { salt }) == [1, 3]));
        assert_eq!(seen(Loss::Last { operations: 0, salt: 1 })[0], 2, "only the last one is at the edge");
        assert!((0..64).all(|salt| seen(Loss::Last { operations: 1, salt })[1] == 1));
    }

    #[test]
    fn a_directory_that_is_lost_takes_what_is_in_it() {
        let inside = Op::Make { dir: 2, name: "f".to_owned(), ino: 3, kind: Kind::File };
        let folder = Op::Make { dir: ROOT, name: "d".to_owned(), ino: 2, kind: Kind::Directory };
        let disk = disk(&[folder, inside, sync(3), sync(2)]);
        assert_eq!(disk.image(Loss::All).next_ino(), 2);
        let kept = disk.image(Loss::Nothing);
        assert_eq!(kept.find(2, "f"), Some(3));
        assert_eq!(kept.kind(2), Some(Kind::Directory));
    }
}
