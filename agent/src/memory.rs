//! What keeps the daemon small: the allocator's settings, which glibc reads from the environment before `main` and
//! nowhere else without `unsafe`, and the pages of the program that only its start needs.

use std::env;
use std::os::unix::process::CommandExt;
use std::process::Command;
use tracing::debug;

/// Blocks from 64 KiB on are given back to the system when they are freed, and one heap serves all threads: what
/// the start needs once (the store's tables, schemas, the model's head) does not stay. Without them a gateway holds
/// about 1.5 MB more.
pub(crate) const SETTINGS: [(&str, &str); 3] =
    [("MALLOC_MMAP_THRESHOLD_", "65536"), ("MALLOC_TRIM_THRESHOLD_", "65536"), ("MALLOC_ARENA_MAX", "1")];

/// Starts this program once more with the settings, in the same process; returns when they are there already, or when
/// that cannot be: they save memory, nothing else.
pub(crate) fn settle() {
    if SETTINGS.iter().any(|(name, _)| env::var_os(name).is_some()) {
        return;
    }
    let Ok(program) = env::current_exe() else { return };
    let mut arguments = env::args_os();
    let mut again = Command::new(program);
    if let Some(name) = arguments.next() {
        again.arg0(name);
    }
    let _ = again.args(arguments).envs(SETTINGS).exec();
}

/// Gives back what the start read of the program and nobody reads any more: about 3 MB.
pub(crate) fn forget_start() {
    match tidegate_engine::pages::forget_program() {
        Ok(bytes) => debug!(bytes, "gave back the pages of the start"),
        Err(error) => debug!(%error, "the pages of the start stay"),
    }
}
