//! The five classes of what is kept, and what each does when it is full.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// A class of entries with bounds of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum QueueClass {
    /// Accepted prompts without an outcome. Full: the new one is refused, since an accepted one must get its outcome.
    Prompts,
    /// Escalations without an outcome. Full: the new one is refused, and the local answer is final.
    Escalations,
    /// Outcomes. Room is held at admission; full of what is released, the oldest of those goes.
    Outcomes,
    /// Forwarded messages. Full: [`crate::Policy`] decides.
    Telemetry,
    /// Dead letters. Full: [`crate::Policy`] decides.
    Dead,
}

impl QueueClass {
    /// All of them, in the order in which they are told.
    pub const ALL: [Self; 5] = [Self::Prompts, Self::Escalations, Self::Outcomes, Self::Telemetry, Self::Dead];

    /// Its name in commands, events and files.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Prompts => "prompts",
            Self::Escalations => "escalations",
            Self::Outcomes => "outcomes",
            Self::Telemetry => "telemetry",
            Self::Dead => "dead",
        }
    }
}

impl fmt::Display for QueueClass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A word that names no class.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no class, known are prompts, escalations, outcomes, telemetry, dead")]
pub struct UnknownClass(String);

impl FromStr for QueueClass {
    type Err = UnknownClass;

    fn from_str(text: &str) -> Result<Self, UnknownClass> {
        Self::ALL.into_iter().find(|class| class.name() == text).ok_or_else(|| UnknownClass(text.to_owned()))
    }
}

/// What a class does with a new entry when it is full. Prompts, escalations and outcomes have none to choose: what was
/// accepted there is owed an outcome.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Policy {
    /// The new one is refused.
    RefuseNewest,
    /// The oldest goes.
    DropOldest,
    /// The oldest of the lowest priority goes, unless the new one's is lower still.
    DropLowestPriority,
}

/// Why entries went without being delivered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DropReason {
    /// Their class or their device had no room for a newer one.
    Full,
    /// Their time to live or their keep time was over.
    Expired,
    /// An operator dropped them.
    Operator,
}

impl fmt::Display for DropReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Full => "full",
            Self::Expired => "expired",
            Self::Operator => "operator",
        })
    }
}

/// What the store has to say without being asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Notice {
    /// Entries went without being delivered; the removal is on disk.
    Dropped {
        /// Of which class.
        class: QueueClass,
        /// Why.
        reason: DropReason,
        /// How many.
        entries: u64,
        /// Their bytes as stored.
        bytes: u64,
    },
    /// A dead letter was written.
    Died {
        /// Its number.
        entry: crate::DeadId,
        /// Whose it was.
        source: tidegate_schemas::DeviceId,
        /// Why.
        reason: crate::DeadReason,
    },
}
