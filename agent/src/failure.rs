//! How a command ends when it cannot do its work: one sentence for the person and what to do next, one status for the
//! script.

use serde_json::{Value, json};
use std::fmt;
use tidegate_spool::OpenError;

/// Exit status of a mistake in the configuration (`EX_CONFIG` is 78 in sysexits; the design fixes 64).
const STATUS_CONFIG: u8 = 64;
/// Exit status of a store that cannot be used.
const STATUS_STORAGE: u8 = 74;
/// Exit status of anything else.
const STATUS_OTHER: u8 = 1;

/// Why a command ended without its work done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Failure {
    status: u8,
    sentence: String,
    next: Option<String>,
}

impl Failure {
    /// The configuration has mistakes.
    pub(crate) fn config(sentence: impl fmt::Display) -> Self {
        Self { status: STATUS_CONFIG, sentence: sentence.to_string(), next: None }
    }

    /// The data directory cannot be used.
    pub(crate) fn storage(sentence: impl fmt::Display) -> Self {
        Self { status: STATUS_STORAGE, sentence: sentence.to_string(), next: None }
    }

    /// Anything else.
    pub(crate) fn other(sentence: impl fmt::Display) -> Self {
        Self { status: STATUS_OTHER, sentence: sentence.to_string(), next: None }
    }

    /// With what to do next; one that is known already stays.
    pub(crate) fn next(self, step: impl fmt::Display) -> Self {
        let next = self.next.or_else(|| Some(step.to_string()));
        Self { next, ..self }
    }

    /// The exit status.
    pub(crate) fn status(&self) -> u8 {
        self.status
    }

    /// The fact alone.
    pub(crate) fn sentence(&self) -> &str {
        &self.sentence
    }

    /// For a script.
    pub(crate) fn json(&self) -> Value {
        json!({ "error": self.sentence, "next": self.next, "status": self.status })
    }
}

/// What to do about a store that does not open.
pub(crate) fn next_of_store(error: &OpenError) -> &'static str {
    match error {
        OpenError::InUse { .. } => "stop the gateway that has it, or name another directory with --data-dir",
        OpenError::Owner { .. } => "run this as the owner, or give the directory to this user with chown -R",
        OpenError::Format { .. } => "install the version that wrote it, or a newer one; the store is left as it is",
        OpenError::NotADirectory { .. } => "choose another data_dir",
        OpenError::Io { source, .. } if source.kind() == std::io::ErrorKind::ReadOnlyFilesystem => {
            "the disk is read-only: look at `dmesg`, then remount it writable"
        }
        OpenError::Io { .. } => {
            "see who owns the directory, and whether the disk is full: `tidegate doctor` looks at both"
        }
        OpenError::Database { .. } => "look at the disk with `dmesg` and `df`; the directory is left as it is",
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.sentence)?;
        match &self.next {
            Some(next) => write!(f, "\n  next: {next}"),
            None => Ok(()),
        }
    }
}
