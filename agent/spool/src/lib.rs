//! What the gateway remembers: prompts, escalations and outcomes on sled, each on disk before anybody hears of it.
//!
//! Invariants:
//! - one thread owns the store; everybody else holds a [`Spool`] and gets called back;
//! - a callback of success means that the journal was fsynced after the change was written, in the order of
//!   submission; a failed sync poisons the store: every later change is refused until it is opened anew;
//! - a prompt has at most one outcome, which is never replaced, and which takes prompt and escalation off the disk in
//!   the same atomic step;
//! - every class is bounded in entries and bytes, in all and by device; an open prompt holds room for its outcome; what
//!   goes without being delivered is counted and told;
//! - a forwarded message leaves the disk by the word of whoever sent it, its time to live, or its class's policy;
//! - opening ends in a running store, whatever lies in the directory, unless the directory is another's, in use, or
//!   written by a newer version.
//!
//! On disk: `CURRENT` names the format and the generation; `gen-<n>/journal` holds the records and decides what was
//! promised, `gen-<n>/db` is a sled database of one tree that says where in it they stand, under a class byte and the
//! big-endian number of job, forwarded message or letter; `large/<class>-<number>` holds what is too
//! large for the journal; `corrupt-<n>/` is what a failed opening set aside; `clock` holds the last good time; `synced`
//! and `before` (formats 1 to 3) witness against silent loss; `ballast` is space to be given up on a full disk; `lock` is held while the store is open.

mod carve;
mod class;
mod database;
mod dead;
mod directory;
mod envelope;
mod error;
#[cfg(test)]
mod format_tests;
mod forward;
mod generation;
mod gone;
mod good_time;
mod index;
mod journal;
#[cfg(test)]
mod journal_tests;
#[cfg(test)]
mod keep_times;
mod large;
mod limits;
mod load;
mod open;
mod outbound;
mod places;
#[cfg(test)]
mod poison_tests;
mod reading;
mod record;
mod salvage;
mod shelf;
mod space;
mod spool;
mod staged;
mod stamp;
mod store;
mod switch;
mod telemetry;
mod thread;
mod witness;

pub use class::{DropReason, Notice, Policy, QueueClass, UnknownClass};
pub use dead::{DeadId, DeadItem, DeadReason, DeadRecord};
pub use error::{Bound, OpenError, SpoolError};
pub use forward::{DueForward, ForwardId, ForwardProperties, ForwardRecord, Room};
pub use generation::{FORMAT, format_of};
pub use good_time::last_good_ms;
pub use limits::Limits;
pub use reading::Stored;
pub use record::{
    Change, ClassCounts, Counts, EscalationRecord, OutcomeRecord, PromptRecord, Reach, Recovered, SeenOutcome,
};
pub use spool::Spool;
pub use stamp::{BUILD_DATE_MS, Stamp, WallClock, set_wall_clock};
