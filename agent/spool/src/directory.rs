//! The directory itself: ours alone, locked, and made durable entry by entry.

use crate::error::OpenError;
use rustix::fs::{FlockOperation, flock};
use std::fs::{self, DirBuilder, File, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::Path;

/// Only the owner reads what devices asked.
const MODE: u32 = 0o700;

/// Creates the directory where there is none, checks whose it is, and locks it until the returned file is dropped.
pub(crate) fn claim(dir: &Path) -> Result<File, OpenError> {
    create(dir).map_err(OpenError::io("cannot create", dir))?;
    let found = fs::metadata(dir).map_err(OpenError::io("cannot look at", dir))?;
    if !found.is_dir() {
        return Err(OpenError::NotADirectory { path: dir.to_owned() });
    }
    let ours = rustix::process::geteuid().as_raw();
    if found.uid() != ours {
        return Err(OpenError::Owner { path: dir.to_owned(), owner: found.uid(), ours });
    }
    if found.mode() & 0o777 != MODE {
        fs::set_permissions(dir, Permissions::from_mode(MODE))
            .map_err(OpenError::io("cannot set mode 0700 on", dir))?;
    }
    lock(dir)
}

fn create(dir: &Path) -> io::Result<()> {
    if dir.exists() {
        return Ok(());
    }
    if let Some(parent) = dir.parent() {
        fs::create_dir_all(parent)?;
    }
    make(dir)?;
    dir.parent().filter(|p| !p.as_os_str().is_empty()).map_or(Ok(()), sync)
}

fn lock(dir: &Path) -> Result<File, OpenError> {
    let path = dir.join("lock");
    let file = File::options().create(true).truncate(false).write(true).open(&path);
    let file = file.map_err(OpenError::io("cannot open", &path))?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file),
        Err(e) if e == rustix::io::Errno::WOULDBLOCK => Err(OpenError::InUse { path: dir.to_owned() }),
        Err(e) => Err(OpenError::io("cannot lock", &path)(e.into())),
    }
}

/// Creates a directory that only its owner enters; one that is there is left.
pub(crate) fn make(dir: &Path) -> io::Result<()> {
    match DirBuilder::new().mode(MODE).create(dir) {
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists && dir.is_dir() => Ok(()),
        other => other,
    }
}

/// Makes the entries of a directory durable: a created, renamed or removed file is one only after this.
pub(crate) fn sync(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

/// Makes a directory of plain files durable, with what is in them.
pub(crate) fn sync_whole(dir: &Path) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_type()?.is_file() {
            File::open(entry.path())?.sync_all()?;
        }
    }
    sync(dir)
}

/// Removes a directory with all that is in it; one that is not there is gone already.
pub(crate) fn remove(dir: &Path) -> io::Result<()> {
    match fs::remove_dir_all(dir) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// Names of the entries of a directory; those that are no UTF-8 are not ours.
pub(crate) fn names(dir: &Path) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(dir)? {
        names.extend(entry?.file_name().into_string().ok());
    }
    Ok(names)
}

/// Puts a small file in the place of another: afterwards either the old or the new content is there, whole.
pub(crate) fn replace_file(path: &Path, content: &[u8]) -> io::Result<()> {
    write_aside(path, content)?;
    path.parent().map_or(Ok(()), sync)
}

/// Like `replace_file`, without the sync of the directory: for callers that write several and sync once.
pub(crate) fn write_aside(path: &Path, content: &[u8]) -> io::Result<()> {
    let aside = path.with_extension("tmp");
    let written = File::create(&aside).and_then(|mut file| {
        io::Write::write_all(&mut file, content)?;
        file.sync_all()
    });
    let placed = written.and_then(|()| fs::rename(&aside, path));
    if placed.is_err() {
        // The error that matters is the first one; an opening removes what stays behind.
        let _ = fs::remove_file(&aside);
    }
    placed
}
