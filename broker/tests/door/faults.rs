//! What stops bare rumqttd, sent to the door: the sender is refused, a bystander notices nothing.

use crate::support::*;
use rumqttc::QoS;
use tidegate_broker::Door;

/// A pair of general clients and a prompt device that must not miss anything.
struct Bystander {
    reader: Client,
    said: u32,
}

impl Bystander {
    async fn new(door: &Door) -> Self {
        let mut reader = Client::connect(door, "bystander").await;
        reader.subscribe("bystander/#", QoS::AtLeastOnce).await;
        reader.subscribe(ANSWER, QoS::AtMostOnce).await;
        Self { reader, said: 0 }
    }

    async fn is_well(&mut self, door: &Door) {
        self.said += 1;
        let word = self.said.to_string();
        self.reader.mqtt.publish("bystander/x", QoS::AtLeastOnce, false, word.clone()).await.unwrap();
        assert_eq!(self.reader.message().await.1, word);
        self.reader.mqtt.publish(PROMPT, QoS::AtLeastOnce, false, "prompt").await.unwrap();
        assert_eq!(self.reader.message().await.1, "accepted");
        assert_eq!(door.stats().backend_restarts, 0);
    }
}

async fn connected(door: &Door, id: &str) -> Raw {
    let mut raw = Raw::open(door).await;
    raw.send(&connect_v4(id, 0)).await;
    raw.expect(&[0x20, 2, 0, 0]).await;
    raw
}

#[tokio::test]
async fn t1_client_ids_with_wildcards_connect_twice() {
    let (door, _keeper) = door().await;
    let mut bystander = Bystander::new(&door).await;
    for _ in 0..2 {
        let mut raw = connected(&door, "a/b+#$").await;
        raw.send(&publish_v4(2, b"t", Some(1), b"x")).await;
        raw.expect(&[0x40, 2, 0, 1]).await;
    }
    bystander.is_well(&door).await;
}

#[tokio::test]
async fn t2_and_t10_topics_that_must_not_pass() {
    let (door, _keeper) = door().await;
    let mut bystander = Bystander::new(&door).await;
    for topic in ["é/x", "x/+", "x/#", "$SYS/x"] {
        let mut raw = connected(&door, "evil").await;
        raw.send(&publish_v4(0, topic.as_bytes(), None, b"x")).await;
        assert!(raw.rest().await.is_empty(), "{topic}");
        bystander.is_well(&door).await;
    }
    let mut raw = connected(&door, "evil").await;
    raw.send(&[0x82, 10, 0, 1, 0, 5, b'a', b'/', b'#', b'/', b'b', 1]).await;
    raw.expect(&[0x90, 3, 0, 1, 0x80]).await;
    bystander.is_well(&door).await;
}

#[tokio::test]
async fn t4_shared_subscriptions_are_refused() {
    let (door, _keeper) = door().await;
    let mut bystander = Bystander::new(&door).await;
    let mut raw = connected(&door, "sharer").await;
    raw.send(&[0x82, 15, 0, 1, 0, 10, b'$', b's', b'h', b'a', b'r', b'e', b'/', b'g', b'/', b't', 1]).await;
    raw.expect(&[0x90, 3, 0, 1, 0x80]).await;
    bystander.is_well(&door).await;
}

#[tokio::test]
async fn t20_a_stalled_subscriber_that_comes_again_and_leaves() {
    let (door, _keeper) = door().await;
    let mut bystander = Bystander::new(&door).await;
    let subscribe = [0x82, 6, 0, 1, 0, 1, b'n', 1];
    let mut stalled = connected(&door, "stalled").await;
    stalled.send(&subscribe).await;
    stalled.expect(&[0x90, 3, 0, 1, 1]).await;
    let writer = Client::connect(&door, "writer").await;
    for _ in 0..200 {
        writer.mqtt.publish("n", QoS::AtLeastOnce, false, vec![b'x'; 8 * 1024]).await.unwrap();
    }
    bystander.is_well(&door).await;
    let mut again = connected(&door, "stalled").await;
    again.send(&[0xe0, 0]).await;
    assert!(again.rest().await.is_empty());
    drop(stalled);
    bystander.is_well(&door).await;
}

#[tokio::test]
async fn a_packet_over_the_limit_ends_only_its_connection() {
    let (door, _keeper) = door().await;
    let mut bystander = Bystander::new(&door).await;
    let mut raw = connected(&door, "huge").await;
    raw.send(&[0x30, 0xff, 0xff, 0xff, 0x7f]).await;
    assert!(raw.rest().await.is_empty());
    let mut raw = Raw::open(&door).await;
    raw.send(&[0x10, 15, 0, 4, b'M', b'Q', b'T', b'T', 5, 2, 0, 0, 0, 0, 2, b'h', b'5']).await;
    raw.expect(&[0x20]).await;
    raw.send(&[0x30, 0xff, 0xff, 0xff, 0x7f]).await;
    let rest = raw.rest().await;
    let disconnect = rest.iter().rposition(|byte| *byte == 0xe0).map(|at| rest[at + 2]);
    assert_eq!(disconnect, Some(0x95), "MQTT 5 hears that the packet is too large");
    bystander.is_well(&door).await;
}

#[tokio::test]
async fn random_bytes_on_many_connections_harm_nobody() {
    use rand::{Rng, SeedableRng};
    let (door, _keeper) = door().await;
    let mut bystander = Bystander::new(&door).await;
    let mut rng = rand::rngs::StdRng::seed_from_u64(7);
    for n in 0..300 {
        let mut raw = Raw::open(&door).await;
        let mut bytes = connect_v4("fuzz", 0);
        bytes.extend(publish_v4(2, PROMPT.as_bytes(), Some(1), b"x"));
        for _ in 0..rng.random_range(0..6) {
            let at = rng.random_range(0..bytes.len());
            bytes[at] = rng.random();
        }
        bytes.truncate(rng.random_range(1..=bytes.len()));
        raw.send(&bytes).await;
        if n % 50 == 0 {
            bystander.is_well(&door).await;
        }
    }
    bystander.is_well(&door).await;
}
