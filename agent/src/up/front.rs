//! What stands towards the devices: the door, or an intake in its place.

use crate::intake::Intake;
use bytes::Bytes;
use std::net::SocketAddr;
use tidegate_broker::{Door, DoorFailure, DoorStats, Ephemeral, Outgoing};
use tidegate_schemas::{DeviceId, Reply};

/// One of the two. Its methods return at once, but for [`Front::shutdown`] and [`Front::failed`].
pub(super) enum Front {
    /// Devices connect to us.
    Door(Door),
    /// We connect to the devices' own broker.
    Intake(Intake),
}

impl Front {
    /// An outcome just became durable.
    pub(super) fn deliver(&self, device: &DeviceId, outgoing: Outgoing) {
        match self {
            Self::Door(door) => door.deliver(device, outgoing),
            Self::Intake(intake) => intake.outcome_ready(device, outgoing.job, outgoing.payload),
        }
    }

    /// A frame that is not the first delivery of an outcome.
    pub(super) fn send_to(&self, device: &DeviceId, payload: Bytes, how: Ephemeral, reply: Reply) {
        match self {
            Self::Door(door) => door.send_to(device, payload, how, reply),
            // The devices' own broker carries no reply topics: frames go where every device of it looks.
            Self::Intake(intake) => intake.send(device, payload, how),
        }
    }

    /// Certificates, users and rights are read again; an intake reads its own with each connection.
    pub(super) fn reload(&self) {
        match self {
            Self::Door(door) => door.reload(),
            Self::Intake(_) => {}
        }
    }

    /// What is wrong with files that were read again.
    pub(super) fn faults(&self) -> Vec<String> {
        match self {
            Self::Door(door) => door.faults(),
            Self::Intake(_) => Vec::new(),
        }
    }

    /// Retained state.
    pub(super) fn state(&self, topic: String, payload: Bytes) {
        match self {
            Self::Door(door) => door.publish_state(topic, payload),
            Self::Intake(intake) => intake.state(topic, payload),
        }
    }

    /// An event.
    pub(super) fn event(&self, topic: String, payload: Bytes) {
        match self {
            Self::Door(door) => door.publish_event(topic, payload),
            Self::Intake(intake) => intake.event(topic, payload),
        }
    }

    /// The door's counters; of an intake only what it dropped.
    pub(super) fn stats(&self) -> DoorStats {
        match self {
            Self::Door(door) => door.stats(),
            Self::Intake(intake) => DoorStats { dropped_frames: intake.dropped(), ..DoorStats::default() },
        }
    }

    /// Where devices connect.
    pub(super) fn addresses(&self) -> Vec<SocketAddr> {
        match self {
            Self::Door(door) => door.local_addrs(),
            Self::Intake(_) => Vec::new(),
        }
    }

    /// Resolves when the process should be started anew.
    pub(super) async fn failed(&self) -> DoorFailure {
        match self {
            Self::Door(door) => door.failed().await,
            // It connects again for as long as it takes.
            Self::Intake(_) => std::future::pending().await,
        }
    }

    /// Closes.
    pub(super) async fn shutdown(self) {
        match self {
            Self::Door(door) => door.shutdown().await,
            Self::Intake(intake) => intake.shutdown().await,
        }
    }
}
