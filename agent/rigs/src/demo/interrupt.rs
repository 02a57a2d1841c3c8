//! Ctrl-C and SIGTERM: the demo stops its children in order, and leaves no directory behind.

use anyhow::Context as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};

/// Exit status of a program that was interrupted (128 + SIGINT).
const STATUS: i32 = 130;

/// Whether somebody wants the demo to end.
pub(super) struct Interrupts {
    came: mpsc::Receiver<()>,
    at_once: Arc<AtomicBool>,
}

/// Starts listening for both signals, on a thread of its own.
pub(super) fn arm() -> anyhow::Result<Interrupts> {
    let (out, came) = mpsc::channel();
    let at_once = Arc::new(AtomicBool::new(false));
    let shared = Arc::clone(&at_once);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("cannot start tokio")?;
    std::thread::spawn(move || runtime.block_on(listen(&out, &shared)));
    Ok(Interrupts { came, at_once })
}

/// The first signal asks; the second, or one when nothing runs any more, ends: the kernel ends the children.
async fn listen(out: &mpsc::Sender<()>, at_once: &AtomicBool) {
    let (Ok(mut interrupt), Ok(mut terminate)) = (signal(SignalKind::interrupt()), signal(SignalKind::terminate()))
    else {
        eprintln!("cannot listen for signals; ctrl-C ends everything at once");
        return;
    };
    let mut asked = false;
    loop {
        tokio::select! { _ = interrupt.recv() => {}, _ = terminate.recv() => {} }
        if asked || at_once.load(Ordering::Relaxed) || out.send(()).is_err() {
            std::process::exit(STATUS);
        }
        eprintln!("\nstopping (once more to stop at once)");
        asked = true;
    }
}

impl Interrupts {
    /// Whether a signal came.
    pub(super) fn came(&self) -> bool {
        self.came.try_recv().is_ok()
    }

    /// Waits for a signal for a while.
    pub(super) fn within(&self, limit: Duration) -> bool {
        self.came.recv_timeout(limit).is_ok()
    }

    /// From now on a signal ends the process: nothing is left to stop in order.
    pub(super) fn end_at_once(&self) {
        self.at_once.store(true, Ordering::Relaxed);
    }
}
