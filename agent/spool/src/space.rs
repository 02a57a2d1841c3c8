//! Room on the file system: a floor under which nothing new is admitted, and ballast that is given up so that what
//! was admitted can still be answered.

use crate::error::SpoolError;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// Size of the ballast, in bytes: some thousand outcomes, or eight segments of the database.
const BALLAST_BYTES: usize = 4 << 20;
/// Free bytes under which the ballast goes: four segments of the database.
const TIGHT_BYTES: u64 = 2 << 20;
/// Free bytes under which nothing at all is written: a database that meets a full disk is poisoned, and one that is
/// not asked is not. Two segments of the database.
pub(crate) const LEAST_BYTES: u64 = 1 << 20;

/// Watches the file system of one directory.
#[derive(Debug)]
pub(crate) struct Space {
    dir: PathBuf,
    ballast: PathBuf,
    /// Floor for admissions, in bytes.
    free_bytes_min: u64,
}

impl Space {
    pub(crate) fn new(dir: &Path, free_bytes_min: u64) -> Self {
        Self { dir: dir.to_owned(), ballast: dir.join("ballast"), free_bytes_min }
    }

    /// Whether something new may be admitted.
    pub(crate) fn admit(&self) -> Result<(), SpoolError> {
        let free = self.free();
        if free < self.free_bytes_min {
            return Err(SpoolError::DiskFull { free, min: self.free_bytes_min });
        }
        self.proceed()
    }

    /// Whether a forwarded message may be kept: only where it leaves prompts their room.
    pub(crate) fn admit_telemetry(&self) -> Result<(), SpoolError> {
        let (free, min) = (self.free(), self.free_bytes_min.saturating_mul(2));
        if free < min {
            return Err(SpoolError::DiskFull { free, min });
        }
        self.proceed()
    }

    /// Whether what was admitted may go on; gives the ballast up when room is short.
    pub(crate) fn proceed(&self) -> Result<(), SpoolError> {
        let mut free = self.free();
        if free < TIGHT_BYTES && self.drop_ballast() {
            free = self.free();
        }
        if free < LEAST_BYTES {
            return Err(SpoolError::DiskFull { free, min: LEAST_BYTES });
        }
        Ok(())
    }

    /// Bytes that may be taken without making room short.
    pub(crate) fn spare(&self) -> u64 {
        self.free().saturating_sub(TIGHT_BYTES)
    }

    /// Puts the ballast back once there is room for it again, and for twice as much beside the floor.
    pub(crate) fn restore_ballast(&self) {
        let roomy = self.free() > self.free_bytes_min.saturating_add(3 * BALLAST_BYTES as u64);
        if self.ballast.exists() || !roomy {
            return;
        }
        if let Err(error) = self.write_ballast() {
            tracing::warn!(%error, "the ballast file could not be written");
            self.drop_ballast();
        }
    }

    /// Zeros would take no room on file systems that compress.
    fn write_ballast(&self) -> io::Result<()> {
        let mut file = File::create(&self.ballast)?;
        let mut word = 0x9e37_79b9_7f4a_7c15_u64;
        let mut bytes = Vec::with_capacity(BALLAST_BYTES);
        while bytes.len() < BALLAST_BYTES {
            word ^= word << 13;
            word ^= word >> 7;
            word ^= word << 17;
            bytes.extend_from_slice(&word.to_le_bytes());
        }
        file.write_all(&bytes)
    }

    fn drop_ballast(&self) -> bool {
        let gone = fs::remove_file(&self.ballast).is_ok();
        if gone {
            tracing::warn!(bytes = BALLAST_BYTES, "the disk is nearly full, the ballast was given up");
        }
        gone
    }

    /// The error of a write that did not fit.
    pub(crate) fn full(&self) -> SpoolError {
        SpoolError::DiskFull { free: self.free(), min: LEAST_BYTES }
    }

    /// Free bytes for this user; a file system that does not say has room until it refuses a write.
    fn free(&self) -> u64 {
        rustix::fs::statvfs(&self.dir).map_or(u64::MAX, |s| s.f_bavail.saturating_mul(s.f_frsize))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_floor_above_the_free_space_refuses_only_what_is_new() {
        let dir = tempfile::tempdir().unwrap();
        let space = Space::new(dir.path(), u64::MAX);
        assert!(matches!(space.admit(), Err(SpoolError::DiskFull { min: u64::MAX, .. })));
        assert_eq!(space.proceed(), Ok(()));
    }

    #[test]
    fn ballast_is_written_once_and_given_up() {
        let dir = tempfile::tempdir().unwrap();
        let space = Space::new(dir.path(), 0);
        space.restore_ballast();
        assert_eq!(fs::metadata(dir.path().join("ballast")).unwrap().len(), BALLAST_BYTES as u64);
        assert!(space.drop_ballast());
        assert!(!space.drop_ballast());
    }
}
