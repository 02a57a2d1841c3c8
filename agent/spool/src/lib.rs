//! What the gateway remembers: prompts, escalations and outcomes on sled, each on disk before anybody hears of it.
//!
//! Invariants:
//! - one thread owns the store; everybody else holds a [`Spool`] and gets called back;
//! - a callback of success means that the data file was fsynced after the change was written, in the order of
//!   submission; a failed sync poisons the store: every later change is refused until it is opened anew;
//! - a prompt has at most one outcome, which is never replaced, and which takes prompt and escalation off the disk in
//!   the same atomic step;
//! - every class is bounded in entries and bytes, and an open prompt holds room for its outcome;
//! - opening ends in a running store, whatever lies in the directory, unless the directory is another's, in use, or
//!   written by a newer version.
//!
//! On disk: `CURRENT` names the generation; `gen-<n>/` is a sled database of one tree whose keys are a class byte and
//! the big-endian job number; `large/<class>-<job>` holds what is too large for a sled page; `corrupt-<n>/` is what a
//! failed opening set aside; `synced` and `before` witness against silent loss; `ballast` is space to be given up on a full disk; `lock` is held while the store is open.

mod carve;
mod database;
mod directory;
mod envelope;
mod error;
mod generation;
mod index;
#[cfg(test)]
mod keep_times;
mod large;
mod limits;
mod load;
mod open;
mod record;
mod salvage;
mod space;
mod spool;
mod stamp;
mod store;
mod thread;
mod witness;

pub use error::{Bound, OpenError, SpoolError};
pub use limits::Limits;
pub use record::{Change, ClassCounts, Counts, EscalationRecord, OutcomeRecord, PromptRecord, Recovered, SeenOutcome};
pub use spool::Spool;
pub use stamp::Stamp;
