//! The forgetting disk as a file system that programs use, through FUSE. Every change is one operation of the disk;
//! nothing is cached above it but what was read, so a write is known here before its caller goes on.

use super::disk::{Disk, Ino, Kind, Op, ROOT};
use super::loopback::unmount;
use anyhow::Context as _;
use fuser::{
    BackgroundSession, BsdFileFlags, Config, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation,
    INodeNo, LockOwner, MountOption, OpenFlags, RenameFlags, ReplyAttr, ReplyCreate, ReplyData, ReplyDirectory,
    ReplyEmpty, ReplyEntry, ReplyStatfs, ReplyWrite, Request, TimeOrNow, WriteFlags,
};
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

/// How long the kernel may believe what it was told: nothing but the mount changes anything.
const TTL: Duration = Duration::from_secs(3600);
/// Free bytes that the file system claims: no test of it is about a full disk.
const FREE_BYTES: u64 = 1 << 40;
const BLOCK_BYTES: u32 = 4096;

/// What mount and rig share.
#[derive(Debug, Default)]
pub(crate) struct Shared {
    /// The disk.
    pub(crate) disk: Disk,
    /// All operations since the mount, if somebody wants them.
    pub(crate) journal: Option<Vec<Op>>,
    /// Operations since the mount.
    pub(crate) done: u64,
    /// Whether the power is gone: then every operation fails and nothing changes.
    pub(crate) dark: bool,
    /// The operation before which the power goes by itself.
    pub(crate) dark_at: Option<u64>,
    /// Permissions as they were set; the disk does not lose them.
    pub(crate) modes: std::collections::BTreeMap<Ino, u16>,
}

impl Shared {
    /// Does an operation, unless the power is gone.
    fn apply(&mut self, op: Op) -> Result<(), Errno> {
        if self.dark_at.is_some_and(|at| self.done >= at) {
            self.dark = true;
        }
        if self.dark {
            return Err(Errno::EIO);
        }
        self.disk.apply(&op);
        self.done += 1;
        if let Some(journal) = &mut self.journal {
            journal.push(op);
        }
        Ok(())
    }

    fn attr(&self, ino: Ino) -> Result<FileAttr, Errno> {
        let kind = self.disk.kind(ino).ok_or(Errno::ENOENT)?;
        let size = self.disk.content(ino).len() as u64;
        let (kind, perm, nlink) = match kind {
            Kind::File => (FileType::RegularFile, 0o600, 1),
            Kind::Directory => (FileType::Directory, 0o700, 2),
        };
        let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
        let time = SystemTime::UNIX_EPOCH;
        Ok(FileAttr {
            ino: INodeNo(ino),
            size,
            blocks: size.div_ceil(512),
            atime: time,
            mtime: time,
            ctime: time,
            crtime: time,
            kind,
            perm: self.modes.get(&ino).copied().unwrap_or(perm),
            nlink,
            uid,
            gid,
            rdev: 0,
            blksize: BLOCK_BYTES,
            flags: 0,
        })
    }

    fn make(&mut self, dir: Ino, name: &OsStr, mode: u32, kind: Kind) -> Result<FileAttr, Errno> {
        let name = text(name)?;
        if self.disk.find(dir, &name).is_some() {
            return Err(Errno::EEXIST);
        }
        let ino = self.disk.next_ino();
        self.apply(Op::Make { dir, name, ino, kind })?;
        self.modes.insert(ino, (mode & 0o777) as u16);
        self.attr(ino)
    }

    fn find(&self, dir: Ino, name: &OsStr) -> Result<(String, Ino), Errno> {
        let name = text(name)?;
        let ino = self.disk.find(dir, &name).ok_or(Errno::ENOENT)?;
        Ok((name, ino))
    }

    fn remove(&mut self, dir: Ino, name: &OsStr) -> Result<(), Errno> {
        let (name, ino) = self.find(dir, name)?;
        if self.disk.names(ino).next().is_some() {
            return Err(Errno::ENOTEMPTY);
        }
        self.apply(Op::Remove { dir, name, ino })
    }

    fn rename(&mut self, from: (Ino, &OsStr), to: (Ino, &OsStr)) -> Result<(), Errno> {
        let (name, ino) = self.find(from.0, from.1)?;
        let new = text(to.1)?;
        let replaced = self.disk.find(to.0, &new);
        if replaced.is_some_and(|old| self.disk.names(old).next().is_some()) {
            return Err(Errno::ENOTEMPTY);
        }
        self.apply(Op::Rename { from: (from.0, name), to: (to.0, new), ino })
    }
}

fn text(name: &OsStr) -> Result<String, Errno> {
    name.to_str().map(str::to_owned).ok_or(Errno::EINVAL)
}

/// Takes what is shared; a thread that panicked with it cannot have left it half changed.
pub(crate) fn lock(shared: &Mutex<Shared>) -> MutexGuard<'_, Shared> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A mounted disk; unmounted when it is dropped.
pub(crate) struct Mounted {
    session: Option<BackgroundSession>,
    /// What the mount shows.
    pub(crate) shared: Arc<Mutex<Shared>>,
    /// Where.
    pub(crate) path: PathBuf,
}

impl Mounted {
    /// Mounts a disk at an empty directory, which is made where it is missing.
    pub(crate) fn new(path: &Path, shared: Shared) -> anyhow::Result<Self> {
        std::fs::create_dir_all(path).context("cannot make a mount point")?;
        let shared = Arc::new(Mutex::new(shared));
        let mut config = Config::default();
        config.mount_options = vec![MountOption::FSName("tidegate-rig".to_owned()), MountOption::NoAtime];
        let session = fuser::spawn_mount(Face(Arc::clone(&shared)), path, &config)
            .with_context(|| format!("cannot mount a file system at {}", path.display()))?;
        Ok(Self { session: Some(session), shared, path: path.to_owned() })
    }

    /// Unmounts and gives the disk and its journal back.
    pub(crate) fn unmount(mut self) -> anyhow::Result<Shared> {
        if let Some(session) = self.session.take() {
            end(session, &self.path).with_context(|| format!("cannot unmount {}", self.path.display()))?;
        }
        Ok(std::mem::take(&mut *lock(&self.shared)))
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let unmounted = self.session.take().map_or(Ok(()), |session| end(session, &self.path));
        if let Err(error) = unmounted {
            eprintln!("{} stays mounted: {error}", self.path.display());
        }
    }
}

/// Unmounts, waiting for whoever was killed and still holds a file; who may not unmount leaves it to the session, which
/// knows another way.
fn end(session: BackgroundSession, path: &Path) -> std::io::Result<()> {
    if unmount(path).is_ok() { session.join() } else { session.umount_and_join() }
}

/// Why this machine cannot mount, if it cannot.
pub(crate) fn missing() -> Option<String> {
    let device = std::fs::OpenOptions::new().read(true).write(true).open("/dev/fuse");
    if let Err(error) = device {
        return Some(format!("/dev/fuse cannot be opened: {error}"));
    }
    let probe = tempfile::tempdir().map_err(anyhow::Error::from).and_then(|dir| {
        let mounted = Mounted::new(&dir.path().join("probe"), Shared::default())?;
        mounted.unmount().map(drop)
    });
    probe.err().map(|error| format!("{error:#}"))
}

struct Face(Arc<Mutex<Shared>>);

impl Face {
    fn shared(&self) -> MutexGuard<'_, Shared> {
        lock(&self.0)
    }
}

fn done(result: Result<(), Errno>, reply: ReplyEmpty) {
    match result {
        Ok(()) => reply.ok(),
        Err(error) => reply.error(error),
    }
}

fn entry(result: Result<FileAttr, Errno>, reply: ReplyEntry) {
    match result {
        Ok(attr) => reply.entry(&TTL, &attr, Generation(0)),
        Err(error) => reply.error(error),
    }
}

impl Filesystem for Face {
    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let shared = self.shared();
        entry(shared.find(parent.0, name).and_then(|(_, ino)| shared.attr(ino)), reply);
    }

    fn getattr(&self, _: &Request, ino: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        match self.shared().attr(ino.0) {
            Ok(attr) => reply.attr(&TTL, &attr),
            Err(error) => reply.error(error),
        }
    }

    fn setattr(
        &self,
        _: &Request,
        ino: INodeNo,
        mode: Option<u32>,
        _: Option<u32>,
        _: Option<u32>,
        size: Option<u64>,
        _: Option<TimeOrNow>,
        _: Option<TimeOrNow>,
        _: Option<SystemTime>,
        _: Option<FileHandle>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let mut shared = self.shared();
        if let Some(mode) = mode {
            shared.modes.insert(ino.0, (mode & 0o777) as u16);
        }
        let resized = size.map_or(Ok(()), |len| shared.apply(Op::Resize { ino: ino.0, len }));
        match resized.and_then(|()| shared.attr(ino.0)) {
            Ok(attr) => reply.attr(&TTL, &attr),
            Err(error) => reply.error(error),
        }
    }

    fn mkdir(&self, _: &Request, parent: INodeNo, name: &OsStr, mode: u32, _: u32, reply: ReplyEntry) {
        entry(self.shared().make(parent.0, name, mode, Kind::Directory), reply);
    }

    fn create(&self, _: &Request, parent: INodeNo, name: &OsStr, mode: u32, _: u32, _: i32, reply: ReplyCreate) {
        match self.shared().make(parent.0, name, mode, Kind::File) {
            Ok(attr) => reply.created(&TTL, &attr, Generation(0), FileHandle(0), FopenFlags::empty()),
            Err(error) => reply.error(error),
        }
    }

    fn unlink(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        done(self.shared().remove(parent.0, name), reply);
    }

    fn rmdir(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        done(self.shared().remove(parent.0, name), reply);
    }

    fn rename(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        newparent: INodeNo,
        newname: &OsStr,
        _: RenameFlags,
        reply: ReplyEmpty,
    ) {
        done(self.shared().rename((parent.0, name), (newparent.0, newname)), reply);
    }

    fn read(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let shared = self.shared();
        if shared.dark {
            return reply.error(Errno::EIO);
        }
        let content = shared.disk.content(ino.0);
        let start = (offset as usize).min(content.len());
        reply.data(&content[start..(start + size as usize).min(content.len())]);
    }

    fn write(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        at: u64,
        data: &[u8],
        _: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        match self.shared().apply(Op::Write { ino: ino.0, at, bytes: data.into() }) {
            Ok(()) => reply.written(data.len() as u32),
            Err(error) => reply.error(error),
        }
    }

    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        reply.ok();
    }

    fn fsync(&self, _: &Request, ino: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        done(self.shared().apply(Op::Sync { ino: ino.0 }), reply);
    }

    fn fsyncdir(&self, _: &Request, ino: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        done(self.shared().apply(Op::Sync { ino: ino.0 }), reply);
    }

    fn readdir(&self, _: &Request, ino: INodeNo, _: FileHandle, offset: u64, mut reply: ReplyDirectory) {
        let shared = self.shared();
        let own = [(".".to_owned(), ino.0), ("..".to_owned(), ROOT)];
        let names = own.into_iter().chain(shared.disk.names(ino.0).map(|(name, ino)| (name.clone(), ino)));
        for (index, (name, ino)) in names.enumerate().skip(offset as usize) {
            let kind = match shared.disk.kind(ino) {
                Some(Kind::Directory) => FileType::Directory,
                Some(Kind::File) | None => FileType::RegularFile,
            };
            if reply.add(INodeNo(ino), index as u64 + 1, kind, name) {
                break;
            }
        }
        reply.ok();
    }

    fn statfs(&self, _: &Request, _: INodeNo, reply: ReplyStatfs) {
        let free = FREE_BYTES / u64::from(BLOCK_BYTES);
        reply.statfs(free, free, free, 1 << 20, 1 << 20, BLOCK_BYTES, 255, BLOCK_BYTES);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::disk::Loss;
    use super::*;
    use std::fs;

    /// Where this machine cannot mount, the rig itself says so and is counted as skipped.
    #[test]
    fn what_was_synced_is_there_after_a_cut_and_the_rest_is_not() {
        if missing().is_some() {
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let mounted = Mounted::new(&dir.path().join("m"), Shared::default()).unwrap();
        let path = mounted.path.clone();
        fs::create_dir(path.join("d")).unwrap();
        fs::write(path.join("d/kept"), [7; 10_000]).unwrap();
        for synced in ["d/kept", "d", "."] {
            fs::File::open(path.join(synced)).unwrap().sync_all().unwrap();
        }
        fs::write(path.join("d/lost"), "x").unwrap();
        fs::rename(path.join("d/kept"), path.join("d/renamed")).unwrap();
        assert_eq!(fs::read(path.join("d/renamed")).unwrap(), [7; 10_000]);
        assert_eq!(fs::read_dir(path.join("d")).unwrap().count(), 2);
        lock(&mounted.shared).dark = true;
        assert!(fs::write(path.join("d/late"), "x").is_err());
        let disk = mounted.unmount().unwrap().disk.image(Loss::All);
        let mounted = Mounted::new(&path, Shared { disk, ..Shared::default() }).unwrap();
        assert_eq!(fs::read(path.join("d/kept")).unwrap(), [7; 10_000]);
        assert_eq!(fs::read_dir(path.join("d")).unwrap().count(), 1);
        fs::remove_dir_all(path.join("d")).unwrap();
        mounted.unmount().unwrap();
    }
}
