//! Rigs that try to make a gateway forget: power cuts, kills, full disks, damage, clocks.

mod book;
pub(crate) mod clock_jumps;
pub(crate) mod corrupt;
mod disk;
pub(crate) mod disk_full;
pub(crate) mod engine_chaos;
mod group;
mod history;
pub(crate) mod kill;
mod loopback;
mod mount;
pub(crate) mod power_cut;
mod recording;
mod records;
mod states;
mod town;
pub(crate) mod wear;

use std::process::ExitCode;

/// Exit status of a rig that could not run here; `deploy/test` counts it as skipped.
const SKIPPED: u8 = 77;

/// Ends a rig that lacks a part of the machine.
pub(crate) fn skip(rig: &str, reason: &str) -> ExitCode {
    println!("{rig}: skipped: {reason}");
    ExitCode::from(SKIPPED)
}

/// A directory in memory where there is one: for what is opened many times and cut never.
pub(crate) fn memory_dir(rig: &str) -> anyhow::Result<tempfile::TempDir> {
    let prefix = format!("tidegate-{rig}-");
    let mut builder = tempfile::Builder::new();
    let builder = builder.prefix(&prefix);
    Ok(builder.tempdir_in("/dev/shm").or_else(|_| builder.tempdir())?)
}
