//! Why a change is refused, and why a store does not open.

use crate::class::QueueClass;
use std::fmt;
use std::io;
use std::path::PathBuf;
use tidegate_schemas::JobId;

/// Which bound is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Bound {
    /// Entries of a class. Those of outcomes count what open prompts will need.
    Entries(QueueClass),
    /// Bytes of a class. Those of outcomes count what open prompts will need.
    Bytes(QueueClass),
    /// Entries of one device in a class.
    DeviceEntries(QueueClass),
    /// Bytes of one device in a class.
    DeviceBytes(QueueClass),
    /// Changes that wait for the storage thread.
    Queue,
    /// Bytes of one record.
    RecordBytes,
}

impl fmt::Display for Bound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let told = |class: &QueueClass| match class {
            QueueClass::Outcomes => "outcomes stored and to come",
            other => other.name(),
        };
        match self {
            Self::Entries(class) => f.write_str(told(class)),
            Self::Bytes(class) => write!(f, "bytes of {}", told(class)),
            Self::DeviceEntries(class) => write!(f, "{} of the device", told(class)),
            Self::DeviceBytes(class) => write!(f, "bytes of {} of the device", told(class)),
            Self::Queue => f.write_str("changes that wait for the disk"),
            Self::RecordBytes => f.write_str("bytes of one record"),
        }
    }
}

/// Why a change is not on disk.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SpoolError {
    /// A bound is reached; nothing was written.
    #[error("{what} would be {would}, limit is {max}")]
    Full {
        /// Which bound.
        what: Bound,
        /// What it would have become.
        would: u64,
        /// The bound.
        max: u64,
    },
    /// A write or a sync failed: nobody knows what is on the disk. All later changes are refused until the store is
    /// closed and opened anew, which reads what is there.
    #[error("the store is poisoned: {0}")]
    Poisoned(String),
    /// The file system has too little room; nothing was written.
    #[error("{free} bytes are free on disk, {min} are needed")]
    DiskFull {
        /// Free bytes.
        free: u64,
        /// Bytes that must be free.
        min: u64,
    },
    /// Nothing of that job is stored that the change could apply to.
    #[error("job {0} is not in the store")]
    Unknown(JobId),
    /// The number of a new prompt is already taken.
    #[error("job {0} is already in the store")]
    Taken(JobId),
    /// Another outcome of the job is already stored; it stands.
    #[error("job {0} already has another outcome")]
    Decided(JobId),
    /// No such forwarded message or dead letter is stored.
    #[error("entry {0} is not in the store")]
    NoEntry(u64),
    /// The outcome was not released yet, so it cannot be forgotten.
    #[error("the outcome of job {0} is not released")]
    Unreleased(JobId),
    /// The store is closed.
    #[error("the store is closed")]
    Stopped,
}

impl SpoolError {
    /// Whether it is the device's own bound that is reached.
    pub(crate) fn is_of_device(&self) -> bool {
        matches!(self, Self::Full { what: Bound::DeviceEntries(_) | Bound::DeviceBytes(_), .. })
    }
}

/// Why a store does not open.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process has it open.
    #[error("{} is in use by another process", path.display())]
    InUse {
        /// The directory.
        path: PathBuf,
    },
    /// The directory belongs to another user.
    #[error("{} belongs to uid {owner}, this process runs as uid {ours}", path.display())]
    Owner {
        /// The directory.
        path: PathBuf,
        /// Its owner.
        owner: u32,
        /// The user of this process.
        ours: u32,
    },
    /// A newer version of Tidegate wrote it.
    #[error("{} has format {found}, this version reads up to format {known}: it was written by a newer version", path.display())]
    Format {
        /// The directory.
        path: PathBuf,
        /// The format found.
        found: u32,
        /// The newest format that this version reads.
        known: u32,
    },
    /// The path is there and is not a directory.
    #[error("{} is not a directory", path.display())]
    NotADirectory {
        /// The path.
        path: PathBuf,
    },
    /// The file system refused.
    #[error("{what} {}: {source}", path.display())]
    Io {
        /// What was tried.
        what: &'static str,
        /// On which path.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A fresh database could not be opened.
    #[error("database {}: {what}", path.display())]
    Database {
        /// The directory of the database.
        path: PathBuf,
        /// What it said.
        what: String,
    },
}

impl OpenError {
    /// For `map_err`: puts what was tried and where beside what the system said.
    pub(crate) fn io(what: &'static str, path: &std::path::Path) -> impl FnOnce(io::Error) -> Self + use<> {
        let path = path.to_owned();
        move |source| Self::Io { what, path, source }
    }
}
