//! The loop of the thread that owns the model: takes orders, steps, beats.

use crate::batcher::{Batcher, Gone, Outlet};
use crate::load::{self, Loaded};
use crate::protocol::{BEAT_BUSY_MS, BEAT_IDLE_MS, FromEngine, Run, Start};
use std::sync::mpsc::{Receiver, RecvTimeoutError, TryRecvError};
use std::time::{Duration, Instant};
use tidegate_schemas::JobId;

/// Orders that stand between the reader and the engine; they are taken before every step.
pub(crate) const ORDERS_MAX: usize = 64;
/// Stack of the engine's thread, in bytes: llama.cpp runs regular expressions over prompts recursively. It is only
/// address space until it is used.
pub(crate) const STACK_BYTES: usize = 64 * 1024 * 1024;

/// What the engine is asked to do.
#[derive(Debug)]
pub(crate) enum Order {
    Run(Run),
    Abort(JobId),
    Stop,
}

/// Why the service ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Ended {
    /// As asked, or because nobody listens.
    Asked,
    /// It cannot go on; the parent was told.
    Fatal(String),
}

/// Loads the model, says so, and serves until asked to stop.
pub(crate) fn serve(start: &Start, orders: &Receiver<Order>, out: &mut Outlet<'_>) -> Ended {
    match load_and_work(start, orders, out) {
        Ok(()) | Err(Failure::Gone) => Ended::Asked,
        Err(Failure::Fatal(message)) => match out(FromEngine::Fatal { message: message.clone() }) {
            Ok(()) | Err(Gone) => Ended::Fatal(message),
        },
    }
}

enum Failure {
    Gone,
    Fatal(String),
}

impl From<Gone> for Failure {
    fn from(Gone: Gone) -> Self {
        Self::Gone
    }
}

fn load_and_work(start: &Start, orders: &Receiver<Order>, out: &mut Outlet<'_>) -> Result<(), Failure> {
    let mut beat = Beat::new();
    let loaded = load::load(start, &mut || {
        // A parent that is gone shows at the next message that matters.
        let _ = beat.when_due(out);
    });
    let loaded = loaded.map_err(Failure::Fatal)?;
    let mut batcher = Batcher::new(&loaded).map_err(Failure::Fatal)?;
    out(ready(&loaded))?;
    work(&mut batcher, orders, out)?;
    Ok(())
}

fn ready(loaded: &Loaded) -> FromEngine {
    let file = &loaded.file;
    FromEngine::Ready { name: file.name.clone(), sha256: file.sha256.clone(), context_tokens: loaded.context_tokens }
}

fn work(batcher: &mut Batcher<'_>, orders: &Receiver<Order>, out: &mut Outlet<'_>) -> Result<(), Gone> {
    let mut beat = Beat::new();
    loop {
        let order = match batcher.rests() {
            true => orders.recv_timeout(Duration::from_millis(BEAT_IDLE_MS)).map_err(|e| match e {
                RecvTimeoutError::Timeout => TryRecvError::Empty,
                RecvTimeoutError::Disconnected => TryRecvError::Disconnected,
            }),
            false => orders.try_recv(),
        };
        match order {
            Ok(Order::Run(run)) => batcher.submit(&run, out)?,
            Ok(Order::Abort(job)) => batcher.abort(job, out)?,
            Ok(Order::Stop) | Err(TryRecvError::Disconnected) => return Ok(()),
            Err(TryRecvError::Empty) => batcher.step(out)?,
        }
        beat.when_due(out)?;
    }
}

/// Says that the engine lives, not more often than need be.
struct Beat {
    last: Instant,
}

impl Beat {
    fn new() -> Self {
        Self { last: Instant::now() }
    }

    fn when_due(&mut self, out: &mut Outlet<'_>) -> Result<(), Gone> {
        if self.last.elapsed() < Duration::from_millis(BEAT_BUSY_MS) {
            return Ok(());
        }
        self.last = Instant::now();
        out(FromEngine::Beat)
    }
}
