//! How a command ends when it cannot do its work: one sentence for the person, one status for the script.

use std::fmt;

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
}

impl Failure {
    /// The configuration has mistakes.
    pub(crate) fn config(sentence: impl fmt::Display) -> Self {
        Self { status: STATUS_CONFIG, sentence: sentence.to_string() }
    }

    /// The data directory cannot be used.
    pub(crate) fn storage(sentence: impl fmt::Display) -> Self {
        Self { status: STATUS_STORAGE, sentence: sentence.to_string() }
    }

    /// Anything else.
    pub(crate) fn other(sentence: impl fmt::Display) -> Self {
        Self { status: STATUS_OTHER, sentence: sentence.to_string() }
    }

    /// The exit status.
    pub(crate) fn status(&self) -> u8 {
        self.status
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.sentence)
    }
}
