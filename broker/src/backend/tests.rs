//! rumqttd behind the door dies, and another one takes its place.
#![allow(clippy::unwrap_used)]

use super::*;
use crate::codec::{Filter, Packet, Publish};
use std::time::Duration;
use tokio::time::timeout;

/// T2 of the studied faults: a topic that starts outside ASCII kills the router for everybody.
#[tokio::test]
async fn a_router_that_died_is_replaced_within_two_seconds() {
    let counters = Arc::new(Counters::default());
    let limits = DoorLimits { connections_max: 4, ..DoorLimits::default() };
    let mut backend = start(&BackendConfig::Rumqttd, &limits, counters.clone()).await.unwrap();
    let state = |payload: &'static [u8]| Statement {
        topic: "s/health".to_owned(),
        payload: Bytes::from_static(payload),
        kind: StatementKind::State,
    };
    backend.statements.send(state(b"up")).await.unwrap();
    let address = backend.address.borrow_and_update().clone();
    let mut killer = Link::open(address, Hello::passing("killer", Version::V4)).await.unwrap();
    let filter = Filter { filter: "#".to_owned(), qos: QoS::AtMostOnce, options: 0 };
    killer.push(&Packet::Subscribe { id: 1, filters: vec![filter], properties: Box::default() });
    killer.turn().await.unwrap();
    let publish = Publish {
        dup: false,
        qos: QoS::AtMostOnce,
        retain: false,
        topic: "é/x".to_owned(),
        id: 0,
        properties: Properties::default(),
        payload: Bytes::new(),
    };
    killer.push(&Packet::Publish(Box::new(publish)));
    let _gone = timeout(Duration::from_secs(1), async { while killer.turn().await.is_ok() {} }).await;
    timeout(Duration::from_secs(3), backend.address.changed()).await.unwrap().unwrap();
    assert_eq!(counters.view().backend_restarts, 1);
    let address = backend.address.borrow().clone();
    let mut link = Link::open(address, Hello::passing("reader", Version::V4)).await.unwrap();
    let filter = Filter { filter: "s/+".to_owned(), qos: QoS::AtMostOnce, options: 0 };
    link.push(&Packet::Subscribe { id: 1, filters: vec![filter], properties: Box::default() });
    let retained = timeout(Duration::from_secs(3), async {
        loop {
            if let Packet::Publish(publish) = link.turn().await.unwrap() {
                return publish;
            }
        }
    });
    assert_eq!(retained.await.unwrap().payload.as_ref(), b"up");
}
