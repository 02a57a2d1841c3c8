//! Counters of the door: written by its tasks, read by whoever asks. They only grow, but for `connections`.

use std::sync::atomic::{AtomicU64, Ordering};

/// A view of the door's counters.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DoorStats {
    /// Connections that passed CONNECT and are open now.
    pub connections: u64,
    /// Publishes taken from clients, of every kind.
    pub publishes: u64,
    /// Publishes, subscriptions and connections that were refused.
    pub refused: u64,
    /// Frames and messages dropped because a client was slow: at QoS 1, what left rumqttd's log before it was taken.
    pub dropped_frames: u64,
    /// Times that a client was not read for a while because a rate was reached.
    pub throttled: u64,
    /// Times that rumqttd was replaced, or another backend was lost.
    pub backend_restarts: u64,
}

#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) connections: AtomicU64,
    pub(crate) publishes: AtomicU64,
    pub(crate) refused: AtomicU64,
    pub(crate) dropped_frames: AtomicU64,
    pub(crate) throttled: AtomicU64,
    pub(crate) backend_restarts: AtomicU64,
}

pub(crate) fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

impl Counters {
    pub(crate) fn view(&self) -> DoorStats {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        DoorStats {
            connections: read(&self.connections),
            publishes: read(&self.publishes),
            refused: read(&self.refused),
            dropped_frames: read(&self.dropped_frames),
            throttled: read(&self.throttled),
            backend_restarts: read(&self.backend_restarts),
        }
    }
}
