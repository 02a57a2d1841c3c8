//! What is between a session and the backend: publishes that the backend has not taken for good, QoS 2 deliveries that
//! it has not released.
//!
//! Invariants: a publish stays here until the backend acknowledged it; a QoS 2 delivery that the client has is not
//! passed on again; packet identifiers of what is under way are not used twice.

use crate::codec::{Publish, QoS};
use std::collections::{BTreeSet, VecDeque};
use tokio::sync::oneshot;

/// Kept with the session while its client is away, where the backend keeps its side.
#[derive(Debug, Default)]
pub(crate) struct Upstream {
    pub(crate) unacked: VecDeque<Unacked>,
    /// Packet ids of the backend's QoS 2 publishes that the client acknowledged and the backend has not released.
    pub(crate) received: BTreeSet<u16>,
    last_id: u16,
}

/// The backend's word about a publish.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Taken {
    /// Reason code of MQTT 5; 0 is success.
    pub(crate) reason: u8,
    pub(crate) reason_string: Option<String>,
}

/// How far a publish has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stage {
    /// Waits for room in the backend's window.
    Waiting,
    Published,
    /// QoS 2: the backend has it, PUBREL was sent.
    Released,
}

#[derive(Debug)]
pub(crate) struct Unacked {
    /// With the packet id of the link.
    pub(crate) publish: Publish,
    /// The packet id of the client.
    pub(crate) client_id: u16,
    pub(crate) stage: Stage,
    /// None when the connection that waited has gone.
    pub(crate) done: Option<oneshot::Sender<Taken>>,
}

impl Upstream {
    /// A packet id that nothing under way has; `also` says which others are taken.
    pub(crate) fn next_id(&mut self, also: impl Fn(u16) -> bool) -> u16 {
        loop {
            self.last_id = self.last_id.checked_add(1).unwrap_or(1);
            let id = self.last_id;
            if !also(id) && self.unacked.iter().all(|u| u.publish.id != id) {
                return id;
            }
        }
    }

    /// The publish that this one repeats, from an earlier connection of the session.
    pub(crate) fn repeated(&mut self, publish: &Publish) -> Option<&mut Unacked> {
        let same = |u: &&mut Unacked| {
            u.client_id == publish.id && u.publish.qos == publish.qos && u.publish.topic == publish.topic
        };
        if !publish.dup {
            return None;
        }
        self.unacked.iter_mut().filter(|u| u.done.is_none()).find(same)
    }

    /// The backend is done with a publish.
    pub(crate) fn done(&mut self, id: u16, taken: Taken) {
        let Some(at) = self.unacked.iter().position(|u| u.publish.id == id) else { return };
        let done = self.unacked.remove(at).and_then(|unacked| unacked.done);
        // A connection that is ending waits for nothing any more.
        let _ = done.map(|done| done.send(taken));
    }

    /// How many publishes the backend has unacknowledged.
    pub(crate) fn under_way(&self) -> usize {
        self.unacked.iter().filter(|u| u.stage != Stage::Waiting).count()
    }

    /// Nobody waits for the word any more; a later connection may.
    pub(crate) fn left(mut self) -> Self {
        self.unacked.iter_mut().for_each(|unacked| unacked.done = None);
        self.unacked.retain(|unacked| unacked.publish.qos != QoS::AtMostOnce);
        self
    }
}
