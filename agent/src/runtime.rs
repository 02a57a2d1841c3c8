//! The runtime of the commands that wait for many things at once.

use crate::failure::Failure;
use tokio::runtime::{Builder, Runtime};

/// Threads of the runtime: the work is waiting, and each thread has its own heap.
const RUNTIME_THREADS: usize = 2;
/// Threads for blocking calls: name resolution, the closing of the store.
const BLOCKING_THREADS_MAX: usize = 4;

/// Starts it.
///
/// # Errors
/// The system refuses threads.
pub(crate) fn start() -> Result<Runtime, Failure> {
    let mut builder = Builder::new_multi_thread();
    builder.worker_threads(RUNTIME_THREADS).max_blocking_threads(BLOCKING_THREADS_MAX).enable_all();
    builder.build().map_err(|e| Failure::other(format!("the system refuses threads: {e}")))
}
