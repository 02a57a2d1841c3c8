//! Bounds: each met by a client that goes over it, while another notices nothing.

use crate::support::*;
use bytes::Bytes;
use std::time::{Duration, Instant};
use tidegate_broker::{Door, DoorLimits, Ephemeral, Listener, TlsFiles};
use tokio::io::AsyncWriteExt;

async fn limited(limits: DoorLimits) -> (Door, std::sync::Arc<FakeKeeper>) {
    door_with(tidegate_broker::DoorConfig { limits, ..config() }).await
}

/// Sends prompts at QoS 1 with ids from 1, and does not wait for anything.
async fn flood(raw: &mut Raw, count: u16) {
    for id in 1..=count {
        raw.send(&publish_v4(2, PROMPT.as_bytes(), Some(id), b"x")).await;
    }
}

async fn acknowledged(raw: &mut Raw, count: u16) {
    for id in 1..=count {
        let [high, low] = id.to_be_bytes();
        raw.expect(&[0x40, 2, high, low]).await;
    }
}

#[tokio::test]
async fn a_slow_disk_holds_clients_back_and_loses_nothing() {
    let (door, keeper) = door().await;
    keeper.gate.send_replace(false);
    let (mut five, body) = Raw::greet_v5(&door, "five", &[]).await;
    assert!(has(&body, &[0x21, 0, 64]), "Receive Maximum is announced: {body:02x?}");
    let mut four = Raw::open(&door).await;
    four.send(&connect_v4("four", 1)).await;
    four.expect(&[0x20, 2, 0, 0]).await;
    // Neither takes the window for what it is; the door does.
    for id in 1..=200 {
        five.send(&publish_v5(2, PROMPT, Some(id), &[], b"x")).await;
    }
    flood(&mut four, 200).await;
    keeper.until(|store| store.handed == 128).await;
    // Longer than one and a half keep-alives: who is not read is not blamed for silence.
    tokio::time::sleep(Duration::from_millis(1_800)).await;
    assert_eq!(keeper.store.lock().unwrap().handed, 128, "64 of each, the rest is not read");
    keeper.gate.send_replace(true);
    acknowledged(&mut four, 200).await;
    for id in 1_u16..=200 {
        let (first, ack) = five.packet().await.unwrap();
        assert_eq!((first, &ack[..2]), (0x40, id.to_be_bytes().as_slice()));
    }
    assert_eq!(keeper.store.lock().unwrap().prompts.len(), 400);
}

#[tokio::test]
async fn all_that_waits_for_the_disk_is_bounded_together() {
    let limits = DoorLimits { waiting_total_bytes_max: 64 * 1024, ..DoorLimits::default() };
    let (door, keeper) = limited(limits).await;
    keeper.gate.send_replace(false);
    let mut clients = Vec::new();
    for id in 0..8 {
        let client = Client::connect(&door, &id.to_string()).await;
        for _ in 0..8 {
            client.mqtt.publish(PROMPT, rumqttc::QoS::AtLeastOnce, false, vec![b'x'; 16 * 1024]).await.unwrap();
        }
        clients.push(client);
    }
    keeper.until(|store| store.handed >= 4).await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    let handed = keeper.store.lock().unwrap().handed;
    assert!(handed <= 4 + 8, "64 KiB, and what each connection had begun, are {handed} prompts of 16 KiB");
    keeper.gate.send_replace(true);
    keeper.until(|store| store.prompts.len() == 64).await;
}

#[tokio::test]
async fn a_publisher_over_its_rate_is_slowed_and_loses_nothing() {
    let (door, keeper) = limited(DoorLimits { messages_per_s_max: 20, ..DoorLimits::default() }).await;
    let mut fast = Raw::open(&door).await;
    fast.send(&connect_v4("fast", 0)).await;
    fast.expect(&[0x20, 2, 0, 0]).await;
    let begin = Instant::now();
    flood(&mut fast, 100).await;
    let mut polite = Client::connect(&door, "polite").await;
    polite.mqtt.publish(PROMPT, rumqttc::QoS::AtLeastOnce, false, "mine").await.unwrap();
    assert!(matches!(polite.next().await, rumqttc::Packet::PubAck(_)));
    assert!(keeper.store.lock().unwrap().prompts.len() < 100, "the polite one did not wait for the fast one");
    acknowledged(&mut fast, 100).await;
    let took = begin.elapsed();
    assert!(took >= Duration::from_millis(3_900), "100 at 20 per second and a burst of 20 take 4 s, not {took:?}");
    assert!(door.stats().throttled > 0);
}

#[tokio::test]
async fn bytes_of_everybody_have_a_rate_too() {
    let limits = DoorLimits { total_bytes_per_s_max: 64 * 1024, ..DoorLimits::default() };
    let (door, keeper) = limited(limits).await;
    let begin = Instant::now();
    let mut clients = Vec::new();
    for id in ["one", "two"] {
        let client = Client::connect(&door, id).await;
        for _ in 0..3 {
            client.mqtt.publish(PROMPT, rumqttc::QoS::AtLeastOnce, false, vec![b'x'; 32 * 1024]).await.unwrap();
        }
        clients.push(client);
    }
    keeper.until(|store| store.prompts.len() == 6).await;
    assert!(begin.elapsed() >= Duration::from_millis(900), "192 KiB at 64 KiB per second: {:?}", begin.elapsed());
}

#[tokio::test]
async fn connections_of_an_identity_and_of_everybody_are_bounded() {
    let limits = DoorLimits { connections_per_identity_max: 2, connections_max: 4, ..DoorLimits::default() };
    let (door, _keeper) = limited(limits).await;
    let _first = Client::connect(&door, "one").await;
    let second = Client::connect(&door, "two").await;
    let mut third = Raw::open(&door).await;
    third.send(&connect_v4("three", 0)).await;
    third.expect(&[0x20, 2, 0, 3]).await;
    let mut third = Raw::open(&door).await;
    third.send(&connect_v5("three", 2, 0, &[])).await;
    let (first, body) = third.packet().await.unwrap();
    assert_eq!((first, body[1]), (0x20, 0x97), "{body:02x?}");
    // Who takes its own session over is no third.
    let _again = Client::connect(&door, "two").await;
    drop(second);
    let (_a, _b) = (Raw::open(&door).await, Raw::open(&door).await);
    until(|| door.stats().refused >= 3 || door.stats().connections == 2).await;
    let mut fifth = Raw::open(&door).await;
    assert!(fifth.rest().await.is_empty());
}

#[tokio::test]
async fn connects_have_a_rate() {
    let (door, _keeper) = limited(DoorLimits { connects_per_s_max: 5, ..DoorLimits::default() }).await;
    let mut refused = 0;
    for _ in 0..20 {
        let mut raw = Raw::open(&door).await;
        // The door may have closed already.
        let _ = raw.0.write_all(&connect_v4("c", 0)).await;
        refused += usize::from(raw.packet().await.is_none());
    }
    assert!((5..=15).contains(&refused), "{refused} of 20");
}

#[tokio::test]
async fn subscriptions_are_bounded_per_session_and_identity() {
    let limits = DoorLimits { subscriptions_max: 2, subscriptions_per_identity_max: 3, ..DoorLimits::default() };
    let (door, _keeper) = limited(limits).await;
    let (mut one, _) = Raw::greet_v5(&door, "one", &[]).await;
    let (mut two, _) = Raw::greet_v5(&door, "two", &[]).await;
    assert_eq!([one.subscribe_v5("a", 1).await, one.subscribe_v5("b", 1).await], [1, 1]);
    assert_eq!(one.subscribe_v5("c", 1).await, 0x97);
    assert_eq!(one.subscribe_v5("b", 0).await, 0, "one that is there may change");
    assert_eq!([two.subscribe_v5("a", 1).await, two.subscribe_v5("b", 1).await], [1, 0x97]);
    drop(one);
    until(|| door.stats().connections == 1).await;
    assert_eq!(two.subscribe_v5("b", 1).await, 1);
}

#[tokio::test]
async fn topics_have_few_levels_and_bytes() {
    let limits = DoorLimits { levels_max: 6, topic_bytes_max: 330, ..DoorLimits::default() };
    let (door, _keeper) = limited(limits).await;
    let (mut raw, _) = Raw::greet_v5(&door, "c", &[]).await;
    assert_eq!(raw.subscribe_v5("a/b/c/d/e/f", 1).await, 1);
    assert_eq!(raw.subscribe_v5("a/b/c/d/e/f/g", 1).await, 0x8f);
    assert_eq!(raw.subscribe_v5(&"x".repeat(331), 1).await, 0x8f);
    raw.send(&publish_v5(0, "a/b/c/d/e/f/g", None, &[], b"")).await;
    let (first, body) = raw.packet().await.unwrap();
    assert_eq!((first, body[0]), (0xe0, 0x90));
}

#[tokio::test]
async fn a_reader_that_acknowledges_nothing_is_disconnected_with_quota_exceeded() {
    let limits = DoorLimits { outgoing_bytes_max: 64 * 1024, inflight_max: 2, ..DoorLimits::default() };
    let (door, _keeper) = limited(limits).await;
    let (mut raw, _) = Raw::greet_v5(&door, "slow", &[]).await;
    assert_eq!(raw.subscribe_v5(ANSWER, 1).await, 1);
    for _ in 0..20 {
        door.send(&"local-1".parse().unwrap(), Bytes::from(vec![b'x'; 8 * 1024]), Ephemeral::Provisional);
        tokio::task::yield_now().await;
    }
    let mut publishes = 0;
    loop {
        match raw.packet().await {
            Some((0x32, _)) => publishes += 1,
            Some((0xe0, body)) => {
                assert_eq!(body[0], 0x97);
                break;
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(publishes, 2, "as many as the window takes");
}

#[tokio::test]
async fn what_waits_for_all_readers_is_bounded_together() {
    let limits = DoorLimits { outgoing_total_bytes_max: 256 * 1024, inflight_max: 1, ..DoorLimits::default() };
    let (door, _keeper) = limited(limits).await;
    let mut readers = Vec::new();
    for id in ["one", "two", "three", "four"] {
        let (mut raw, _) = Raw::greet_v5(&door, id, &[]).await;
        assert_eq!(raw.subscribe_v5(ANSWER, 1).await, 1);
        readers.push(raw);
    }
    for _ in 0..20 {
        door.send(&"local-1".parse().unwrap(), Bytes::from(vec![b'x'; 8 * 1024]), Ephemeral::Provisional);
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    until(|| door.stats().connections < 4).await;
    assert!(door.stats().connections > 0, "only as many are cut as it needs");
}

#[tokio::test]
async fn whoever_says_nothing_is_let_go() {
    let limits = DoorLimits { connect_timeout_ms: 200, handshake_timeout_ms: 200, ..DoorLimits::default() };
    let pki = crate::reload::Pki::new();
    let tls = TlsFiles::new(pki.file("cert"), pki.file("key"));
    let mut config = tidegate_broker::DoorConfig { limits, ..config() };
    config.listeners.push(Listener { addr: "127.0.0.1:0".parse().unwrap(), tls: Some(tls) });
    let (door, _keeper) = door_with(config).await;
    for addr in door.local_addrs() {
        let mut silent = Raw(tokio::net::TcpStream::connect(addr).await.unwrap());
        let begin = Instant::now();
        assert!(silent.rest().await.is_empty());
        assert!(begin.elapsed() >= Duration::from_millis(190), "{:?}", begin.elapsed());
    }
    let mut half = Raw::open(&door).await;
    half.send(&connect_v4("c", 0)[..5]).await;
    assert!(half.rest().await.is_empty());
}
