//! A client's way into the trunk.
//!
//! Invariants: its publishes go in the order in which they came; what waits here is bounded by whoever reads the client,
//! who is told its bytes.

use crate::backend::{Carried, Load, Trunk};
use crate::codec::{Properties, Publish, QoS};
use crate::upstream::Taken;
use std::collections::VecDeque;
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::time::timeout;

/// How long what a client said last may wait for room in the trunk: longer than a replacement takes.
const REST: Duration = Duration::from_secs(4);

pub(super) struct Ramp {
    trunk: Trunk,
    load: Load,
    /// Publishes that came after a SUBSCRIBE or UNSUBSCRIBE which rumqttd has not answered, since they go another way and
    /// must not overtake it, or that found no room in the trunk.
    held: VecDeque<Carried>,
}

impl Ramp {
    /// Of a client that is not read while `bytes_max` wait.
    pub(super) fn new(trunk: Trunk, bytes_max: usize) -> Self {
        Self { trunk, load: Load::new(bytes_max), held: VecDeque::new() }
    }

    /// Bytes that have not left the trunk.
    pub(super) fn bytes(&self) -> usize {
        self.load.bytes()
    }

    /// Passes a publish on, or keeps it if it `waits` for the answer to a question.
    pub(super) fn publish(&mut self, mut publish: Publish, waits: bool) -> oneshot::Receiver<Taken> {
        (publish.properties, publish.dup) = (Properties::default(), false);
        publish.qos = publish.qos.min(QoS::AtLeastOnce);
        let (carried, receiver) = Carried::new(publish, &self.load);
        let waits = waits || !self.held.is_empty();
        let held = if waits { Some(carried) } else { self.trunk.put(carried) };
        self.held.extend(held);
        receiver
    }

    /// Passes on what waited, as far as there is room.
    pub(super) fn let_go(&mut self) {
        while let Some(carried) = self.held.pop_front() {
            if let Some(carried) = self.trunk.put(carried) {
                return self.held.push_front(carried);
            }
        }
    }

    /// Waits until the client may be read again, and passes on what found no room unless it `waits` for an answer.
    pub(super) async fn eased(&mut self, waits: bool) {
        let crowded = !waits && !self.held.is_empty();
        tokio::select! {
            () = self.load.eased() => {}
            () = self.trunk.room(), if crowded => self.let_go(),
        }
    }

    /// Passes on all that is left of a client that is gone, answers or not.
    pub(super) async fn finish(&mut self) {
        let rest = async {
            self.let_go();
            while !self.held.is_empty() {
                self.trunk.room().await;
                self.let_go();
            }
        };
        if timeout(REST, rest).await.is_err() {
            tracing::warn!(publishes = self.held.len(), "the backend took no more of a client that left");
        }
    }
}
