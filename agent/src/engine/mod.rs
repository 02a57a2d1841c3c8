//! The model's process, seen from its parent: started, watched, restarted. The daemon and the worker each have one.
//!
//! Invariants: one child serves at a time; beside it live at most one that is tried (`successor`) and one that was
//! replaced and ends what it began (`retired`); a child is dead before its end is reported; a run that was sent to one
//! child never reaches another one (runs carry the number of the child that they are meant for).

mod kid;
mod life;
mod pieces;
mod retired;
mod successor;
mod supervisor;

pub(crate) use life::Loaded;
pub(crate) use successor::Successor;
pub(crate) use supervisor::{COMMANDS_MAX, EngineCommand, EngineReport, Handover, Supervisor};

use crate::failure::Failure;

/// What `tidegate engine` does.
pub(crate) fn run() -> Result<(), Failure> {
    tidegate_engine::child::run(tidegate_engine::child::ChildConfig::default()).map_err(Failure::other)
}

/// What `tidegate engine --instructions` does: one name per line.
pub(crate) fn instructions() -> Result<(), Failure> {
    let lines = tidegate_engine::fit::instruction_sets().into_iter().map(|name| format!("{name}\n"));
    crate::terminal::print(&lines.collect::<String>())
}

/// Asks for them in a process of their own.
///
/// # Errors
/// How that process ended: by SIGILL where this processor lacks what the build uses.
pub(crate) fn asked_instructions() -> Result<Vec<String>, String> {
    let mut command = std::process::Command::new(supervisor::SELF);
    let output = command.args(["engine", "--instructions"]).output().map_err(|e| e.to_string())?;
    if !output.status.success() {
        return Err(output.status.to_string());
    }
    Ok(String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect())
}
