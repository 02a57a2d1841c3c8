//! Files of certificates and keys: 0600, written in one step, never over another.

use crate::expiry::{Paper, paper};
use crate::failure::Failure;
use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// Only the owner reads and writes.
const FILE_MODE: u32 = 0o600;
/// Only the owner looks inside.
const FOLDER_MODE: u32 = 0o700;

/// A certificate and its key.
pub(super) struct Pair {
    pub(super) key: PathBuf,
    pub(super) cert: PathBuf,
}

impl Pair {
    /// Those of the CA.
    pub(super) fn of_ca(dir: &Path) -> Self {
        Self { key: dir.join("ca.key"), cert: dir.join("ca.crt") }
    }

    /// Those of a party; a name with a slash is a folder deeper.
    pub(super) fn of(dir: &Path, kind: &str, name: String) -> Self {
        let file = |ending: &str| dir.join(kind).join(format!("{name}.{ending}"));
        Self { key: file("key"), cert: file("crt") }
    }

    /// # Errors
    /// One of them is there.
    pub(super) fn absent(&self) -> Result<(), Failure> {
        match [&self.cert, &self.key].into_iter().find(|path| path.symlink_metadata().is_ok()) {
            Some(path) => Err(Failure::other(format!("{} is there and is not overwritten", path.display()))),
            None => Ok(()),
        }
    }

    /// Gives what is there another name, which says until when the certificate is valid.
    pub(super) fn set_aside(&self) -> Result<(), Failure> {
        let until = paper("certificate", &self.cert).ok().and_then(|paper| paper.until);
        let until = until.map_or("unread".to_owned(), |until| until.to_string());
        for path in [&self.cert, &self.key].into_iter().filter(|path| path.symlink_metadata().is_ok()) {
            let aside = free_name(path, &until);
            // A hard link first: the old one stays in use, under its old name too, until the new one takes the place.
            fs::hard_link(path, &aside).map_err(|e| refused("set aside", path, &e))?;
        }
        Ok(())
    }

    /// The key first: a reader that finds the new certificate finds its key, too.
    pub(super) fn write(&self, key: &str, cert: &str) -> Result<(), Failure> {
        if let Some(parent) = self.key.parent() {
            folder(parent)?;
        }
        replace(&self.key, key)?;
        replace(&self.cert, cert)
    }

    /// What was written.
    pub(super) fn papers(&self) -> Vec<Paper> {
        let key = Paper { what: "key", path: self.key.clone(), until: None };
        paper("certificate", &self.cert).into_iter().chain([key]).collect()
    }
}

fn free_name(path: &Path, until: &str) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let named = |number: u32| match number {
        0 => path.with_file_name(format!("{name}.until-{until}")),
        _ => path.with_file_name(format!("{name}.until-{until}.{number}")),
    };
    (0..).map(named).find(|free| free.symlink_metadata().is_err()).unwrap_or_else(|| named(u32::MAX))
}

/// Makes a folder, and those above it, for the owner alone; one that is there stays as it is.
pub(super) fn folder(dir: &Path) -> Result<(), Failure> {
    let made = DirBuilder::new().recursive(true).mode(FOLDER_MODE).create(dir);
    made.map_err(|e| refused("make", dir, &e))
}

/// Puts a file in place in one step, whatever was there; whoever calls has set that aside.
pub(super) fn replace(path: &Path, text: &str) -> Result<(), Failure> {
    let fresh = path.with_file_name(format!(
        ".{}.{}",
        path.file_name().unwrap_or_default().to_string_lossy(),
        std::process::id()
    ));
    let written = write(&fresh, text).and_then(|()| fs::rename(&fresh, path));
    written.map_err(|e| {
        let _ = fs::remove_file(&fresh);
        refused("write", path, &e)
    })
}

fn write(path: &Path, text: &str) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(FILE_MODE).open(path)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

fn refused(what: &str, path: &Path, error: &io::Error) -> Failure {
    Failure::other(format!("cannot {what} {}: {error}", path.display())).next("name a folder of yours with --dir")
}
