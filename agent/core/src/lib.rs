//! The decisions: admit, confidence, route, and the dispatcher that leads a prompt through its life.
//!
//! Invariants: no IO, no clock, no randomness, no async, no serde, no logging. Time comes in as [`Now`]; a decision
//! comes out as a value with its reason; the shells do what the [`Command`]s say and report back with [`Event`]s.

mod command;
mod event;
mod time;

pub use command::{Command, Inference, Keepsake, Note};
pub use event::{Arrival, Completion, EngineFault, Event, Restored, RestoredEscalation, Signals, Ticket};
pub use time::Now;
