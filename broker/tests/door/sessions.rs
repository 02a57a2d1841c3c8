//! Sessions: outcomes until they are acknowledged, takeover, keep-alive, wills, closing.

use crate::support::*;
use bytes::Bytes;
use rumqttc::{Packet, QoS};
use tidegate_broker::Ephemeral;
use tidegate_schemas::{DeviceId, JobId};

fn device() -> DeviceId {
    "local-1".parse().unwrap()
}

#[tokio::test]
async fn an_outcome_comes_again_until_its_puback() {
    let (door, keeper) = door().await;
    let mut options = Client::options(&door, "persistent");
    options.set_clean_session(false).set_manual_acks(true);
    let mut client = Client::with(options.clone()).await;
    client.subscribe(ANSWER, QoS::AtLeastOnce).await;
    keeper.keep_outcome("local-1", 5, "first");
    door.outcome_ready(&device(), JobId(5), Bytes::from_static(b"first"));
    assert_eq!(client.message().await.1, "first");
    client.kill();
    keeper.keep_outcome("local-1", 3, "second");
    let mut client = Client::with(options).await;
    let Packet::Publish(again) = client.next().await else { panic!("the unacknowledged one comes first") };
    assert_eq!((again.payload.as_ref(), again.dup), (b"first".as_slice(), true));
    let Packet::Publish(second) = client.next().await else { panic!("what arose meanwhile comes next") };
    assert_eq!(second.payload.as_ref(), b"second");
    assert!(keeper.store.lock().unwrap().released.is_empty());
    client.mqtt.ack(&again).await.unwrap();
    client.mqtt.ack(&second).await.unwrap();
    keeper.until(|store| store.released == [JobId(5), JobId(3)]).await;
}

#[tokio::test]
async fn subscribing_brings_what_is_pending_within_the_window() {
    let (door, keeper) = door().await;
    for job in 0..100 {
        keeper.keep_outcome("local-1", job, &job.to_string());
    }
    let mut client = Client::connect(&door, "late").await;
    client.subscribe(ANSWER, QoS::AtLeastOnce).await;
    for job in 0..100 {
        assert_eq!(client.message().await.1, job.to_string());
    }
    keeper.until(|store| store.released.len() == 100).await;
    door.outcome_ready(&device(), JobId(100), Bytes::from_static(b"last"));
    assert_eq!(client.message().await.1, "last");
}

#[tokio::test]
async fn a_qos_0_subscriber_gets_an_outcome_once_and_releases_nothing() {
    let (door, keeper) = door().await;
    let mut client = Client::connect(&door, "zero").await;
    client.subscribe(ANSWER, QoS::AtMostOnce).await;
    keeper.keep_outcome("local-1", 1, "one");
    door.outcome_ready(&device(), JobId(1), Bytes::from_static(b"one"));
    door.outcome_ready(&device(), JobId(1), Bytes::from_static(b"one"));
    door.send(&device(), Bytes::from_static(b"end"), Ephemeral::Lossy);
    assert_eq!(client.message().await.1, "one");
    assert_eq!(client.message().await.1, "end");
    assert!(keeper.store.lock().unwrap().released.is_empty());
}

#[tokio::test]
async fn a_client_id_that_comes_again_takes_over() {
    let (door, _keeper) = door().await;
    let mut first = Client::connect(&door, "same").await;
    let mut second = Client::connect(&door, "same").await;
    second.subscribe(ANSWER, QoS::AtLeastOnce).await;
    let end = tokio::time::timeout(PATIENCE, async { while first.packets.recv().await.is_some() {} }).await;
    end.expect("the first connection ends");
    assert_eq!(door.stats().connections, 1);
}

#[tokio::test]
async fn silence_of_one_and_a_half_keep_alives_ends_a_connection_and_zero_never_does() {
    let (door, _keeper) = door().await;
    let mut forever = Raw::open(&door).await;
    forever.send(&connect_v4("forever", 0)).await;
    forever.expect(&[0x20, 2, 0, 0]).await;
    let mut raw = Raw::open(&door).await;
    raw.send(&connect_v4("silent", 1)).await;
    raw.expect(&[0x20, 2, 0, 0]).await;
    let since = std::time::Instant::now();
    assert!(raw.rest().await.is_empty());
    let silent = since.elapsed().as_millis();
    assert!((1_400..3_000).contains(&silent), "{silent} ms");
    forever.send(&[0xc0, 0]).await;
    forever.expect(&[0xd0, 0]).await;
}

#[tokio::test]
async fn a_will_is_published_on_an_ungraceful_end_only() {
    let (door, _keeper) = door().await;
    let mut watcher = Client::connect(&door, "watcher").await;
    watcher.subscribe("wills/#", QoS::AtLeastOnce).await;
    for (id, graceful) in [("polite", true), ("rude", false)] {
        let mut options = Client::options(&door, id);
        options.set_last_will(rumqttc::LastWill::new(format!("wills/{id}"), "gone", QoS::AtLeastOnce, false));
        let client = Client::with(options).await;
        if graceful {
            client.mqtt.disconnect().await.unwrap();
            while door.stats().connections > 1 {
                tokio::task::yield_now().await;
            }
        } else {
            client.kill();
        }
    }
    assert_eq!(watcher.message().await, ("wills/rude".to_owned(), "gone".to_owned()));
}

#[tokio::test]
async fn closing_tells_mqtt_5_clients_why() {
    use rumqttc::v5::mqttbytes::v5::{DisconnectReasonCode, Packet};
    use rumqttc::v5::{AsyncClient, ConnectionError, Event, MqttOptions, StateError};
    let (door, _keeper) = door().await;
    let addr = door.local_addrs()[0];
    let (_client, mut events) = AsyncClient::new(MqttOptions::new("c5", addr.ip().to_string(), addr.port()), 10);
    let connected = events.poll().await.unwrap();
    assert!(matches!(connected, Event::Incoming(Packet::ConnAck(_))));
    tokio::spawn(door.shutdown());
    let closed = async {
        loop {
            match events.poll().await {
                Err(ConnectionError::MqttState(StateError::ServerDisconnect { reason_code, .. })) => {
                    return reason_code;
                }
                Err(error) => panic!("closed without a word: {error}"),
                Ok(_) => {}
            }
        }
    };
    let reason = tokio::time::timeout(PATIENCE, closed).await.unwrap();
    assert_eq!(reason, DisconnectReasonCode::ServerShuttingDown);
}
