//! The model's process, seen from its parent: started, watched, restarted. The daemon and the worker each have one.
//!
//! Invariants: at most one child lives; it is dead before its end is reported; a run that was sent to one child never
//! reaches the next one (runs carry the number of the child that they are meant for).

mod pieces;
mod supervisor;

pub(crate) use supervisor::{COMMANDS_MAX, EngineCommand, EngineReport, Supervisor};

use crate::failure::Failure;

/// What `tidegate engine` does.
pub(crate) fn run() -> Result<(), Failure> {
    tidegate_engine::child::run(tidegate_engine::child::ChildConfig::default()).map_err(Failure::other)
}
