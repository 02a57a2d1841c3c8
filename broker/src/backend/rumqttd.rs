//! rumqttd: its router, in this process. It has no socket: whoever can reach it is let in by the door.

use super::SPARE_CONNECTIONS;
use crate::codec::{Properties, Version};
use crate::error::DoorError;
use crate::link::{Address, Entrance, Hello, Link, Place};
use std::sync::Arc;
use tokio::sync::watch;

/// Log of one filter inside rumqttd, in bytes and segments: what a slow subscriber may lag behind.
const SEGMENT_BYTES_MAX: usize = 1024 * 1024;
const SEGMENTS_MAX: usize = 3;
/// Messages that the router puts down for one subscriber before it pauses: what it takes in from all publishers in one
/// turn, so that a subscriber that hears them all does not fall behind. They are in the log as well.
const TURN_MAX: u64 = 4_096;

/// A running rumqttd. Its links end when this is dropped; its router thread cannot be stopped and stays idle.
pub(super) struct Running {
    pub(super) address: Address,
    _alive: watch::Sender<()>,
}

/// What MQTT 5 clients are told that rumqttd cannot do.
fn announced() -> Properties {
    Properties { shared_available: Some(0), subscription_ids_available: Some(0), ..Properties::default() }
}

impl Running {
    pub(super) async fn start(connections_max: usize) -> Result<(Self, Link), DoorError> {
        let (alive, living) = watch::channel(());
        let entrance = Entrance::start(router_config(connections_max), living)
            .map_err(|source| DoorError::System { what: "a thread for rumqttd", source })?;
        let address = Address { place: Place::Inside(entrance), announced: Arc::new(announced()), since: None };
        let link = Link::open(address.clone(), Hello::passing("watch", Version::V4)).await;
        let link = link.map_err(|error| DoorError::Backend { what: error.to_string() })?;
        Ok((Self { address, _alive: alive }, link))
    }
}

fn router_config(connections_max: usize) -> rumqttd::RouterConfig {
    rumqttd::RouterConfig {
        max_connections: connections_max + SPARE_CONNECTIONS,
        max_outgoing_packet_count: TURN_MAX,
        max_segment_size: SEGMENT_BYTES_MAX,
        max_segment_count: SEGMENTS_MAX,
        ..rumqttd::RouterConfig::default()
    }
}
