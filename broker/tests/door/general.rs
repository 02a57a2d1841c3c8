//! General traffic: through rumqttd, acknowledged after it, one client's slowness its own.

use crate::support::*;
use rumqttc::{Packet, QoS};

#[tokio::test]
async fn two_clients_talk_at_every_qos() {
    let (door, _keeper) = door().await;
    let mut reader = Client::connect(&door, "reader").await;
    reader.subscribe("plant/+/temp", QoS::AtLeastOnce).await;
    let mut writer = Client::connect(&door, "writer").await;
    for (qos, word) in [(QoS::AtMostOnce, "0"), (QoS::AtLeastOnce, "1"), (QoS::ExactlyOnce, "2")] {
        writer.mqtt.publish("plant/7/temp", qos, false, word).await.unwrap();
        assert_eq!(reader.message().await, ("plant/7/temp".to_owned(), word.to_owned()));
    }
    assert!(matches!(writer.next().await, Packet::PubAck(_)));
    assert!(matches!(writer.next().await, Packet::PubRec(_)));
    assert!(matches!(writer.next().await, Packet::PubComp(_)));
}

#[tokio::test]
async fn a_thousand_messages_arrive_in_order() {
    let (door, _keeper) = door().await;
    let mut reader = Client::connect(&door, "reader").await;
    reader.subscribe("n", QoS::AtLeastOnce).await;
    let writer = Client::connect(&door, "writer").await;
    for n in 0..1_000 {
        writer.mqtt.publish("n", QoS::AtLeastOnce, false, n.to_string()).await.unwrap();
    }
    for n in 0..1_000 {
        assert_eq!(reader.message().await.1, n.to_string());
    }
}

#[tokio::test]
async fn a_persistent_session_gets_what_was_published_while_it_was_away() {
    let (door, _keeper) = door().await;
    let mut options = Client::options(&door, "away");
    options.set_clean_session(false);
    let mut reader = Client::with(options.clone()).await;
    reader.subscribe("news", QoS::AtLeastOnce).await;
    reader.mqtt.disconnect().await.unwrap();
    while door.stats().connections > 0 {
        tokio::task::yield_now().await;
    }
    let mut writer = Client::connect(&door, "writer").await;
    writer.mqtt.publish("news", QoS::AtLeastOnce, false, "while away").await.unwrap();
    assert!(matches!(writer.next().await, Packet::PubAck(_)));
    let mut reader = Client::with(options).await;
    assert_eq!(reader.message().await.1, "while away");
}

#[tokio::test]
async fn state_is_retained_and_readable_by_every_client() {
    let (door, _keeper) = door().await;
    door.publish_state("tg/v1/s/g/state/health".to_owned(), bytes::Bytes::from_static(b"up"));
    let mut client = Client::connect(&door, "c").await;
    client.subscribe("tg/v1/+/+/state/+", QoS::AtLeastOnce).await;
    assert_eq!(client.message().await, ("tg/v1/s/g/state/health".to_owned(), "up".to_owned()));
}

#[tokio::test]
async fn a_reader_that_stalls_does_not_hold_up_the_others() {
    let (door, _keeper) = door().await;
    let mut stalled = Raw::open(&door).await;
    stalled.send(&connect_v4("stalled", 0)).await;
    stalled.expect(&[0x20, 2, 0, 0]).await;
    stalled.send(&[0x82, 6, 0, 1, 0, 1, b'n', 0]).await;
    stalled.expect(&[0x90, 3, 0, 1, 0]).await;
    let mut reader = Client::connect(&door, "reader").await;
    reader.subscribe("n", QoS::AtLeastOnce).await;
    let writer = Client::connect(&door, "writer").await;
    for _ in 0..300 {
        writer.mqtt.publish("n", QoS::AtLeastOnce, false, vec![b'x'; 32 * 1024]).await.unwrap();
        assert_eq!(reader.message().await.1.len(), 32 * 1024);
    }
    assert!(door.stats().dropped_frames > 0, "what the stalled reader did not take was dropped and counted");
}

#[tokio::test]
async fn unsubscribing_is_answered_once_whatever_was_subscribed() {
    let (door, _keeper) = door().await;
    let mut raw = Raw::open(&door).await;
    raw.send(&connect_v4("u", 0)).await;
    raw.expect(&[0x20, 2, 0, 0]).await;
    raw.send(&[0xa2, 8, 0, 7, 0, 1, b'a', 0, 1, b'b']).await;
    raw.expect(&[0xb0, 2, 0, 7]).await;
    raw.send(&[0xc0, 0]).await;
    raw.expect(&[0xd0, 0]).await;
}

/// `mosquitto_pub -q 0` does that: CONNECT, PUBLISH and DISCONNECT come in one read.
#[tokio::test]
async fn what_a_client_said_that_left_at_once_arrives() {
    let (door, _keeper) = door().await;
    let mut reader = Client::connect(&door, "reader").await;
    reader.subscribe("brief/x", QoS::AtLeastOnce).await;
    let mut brief = Raw::open(&door).await;
    let mut bytes = connect_v4("brief", 60);
    bytes.extend(publish_v4(0, b"brief/x", None, b"word"));
    bytes.extend([0xe0, 0]);
    brief.send(&bytes).await;
    assert_eq!(reader.message().await.1, "word");
}

/// More than the door keeps for one client: the rest waits in rumqttd's log.
#[tokio::test]
async fn what_a_reader_does_not_take_waits_for_it_in_order() {
    const COUNT: usize = 1_500;
    let (door, _keeper) = door().await;
    // Receive Maximum 2.
    let (mut reader, _) = Raw::greet_v5(&door, "reader", &[0x21, 0, 2]).await;
    assert_eq!(reader.subscribe_v5("n", 1).await, 1);
    let mut writer = Client::connect(&door, "writer").await;
    for n in 0..COUNT {
        let mut payload = n.to_string().into_bytes();
        payload.resize(1_000, b' ');
        writer.mqtt.publish("n", QoS::AtLeastOnce, false, payload).await.unwrap();
    }
    for _ in 0..COUNT {
        assert!(matches!(writer.next().await, Packet::PubAck(_)), "the writer does not wait for the reader");
    }
    for n in 0..COUNT {
        let (first, body) = reader.packet().await.expect("the reader is not cut off");
        // A topic of one byte, the packet id, no properties.
        assert_eq!((first, String::from_utf8_lossy(&body[6..]).trim_end()), (0x32, n.to_string().as_str()));
        reader.send(&packet(0x40, &body[3..5])).await;
    }
}

#[tokio::test]
async fn each_subscription_has_its_own_qos_whichever_came_first() {
    let (door, _keeper) = door().await;
    let writer = Client::connect(&door, "writer").await;
    let (sure, lossy) = (("a", QoS::AtLeastOnce), ("b", QoS::AtMostOnce));
    for (name, order) in [("one", [sure, lossy]), ("two", [lossy, sure])] {
        let mut reader = Client::connect(&door, name).await;
        for (filter, qos) in order {
            reader.subscribe(filter, qos).await;
        }
        for (topic, qos) in [sure, lossy, sure] {
            writer.mqtt.publish(topic, QoS::AtLeastOnce, false, "x").await.unwrap();
            let Packet::Publish(publish) = reader.next().await else { panic!("not a publish") };
            assert_eq!((publish.topic.as_str(), publish.qos), (topic, qos));
        }
    }
}

/// rumqttd acknowledges nothing of it, and must not be given more than it takes all the same.
#[tokio::test]
async fn publishes_at_qos_0_go_on_when_rumqttd_has_taken_those_before() {
    let (door, _keeper) = door().await;
    let mut writer = Client::connect(&door, "writer").await;
    for _ in 0..100 {
        writer.mqtt.publish("n", QoS::AtMostOnce, false, vec![b'x'; 32 * 1024]).await.unwrap();
    }
    writer.mqtt.publish("n", QoS::AtLeastOnce, false, "the last").await.unwrap();
    assert!(matches!(writer.next().await, Packet::PubAck(_)));
}

/// rumqttd drops over 3 MiB per filter without a word.
#[tokio::test]
async fn what_a_reader_takes_too_late_is_counted() {
    const COUNT: u32 = 6_000;
    let (door, _keeper) = door().await;
    let (mut reader, _) = Raw::greet_v5(&door, "reader", &[0x21, 0, 2]).await;
    assert_eq!(reader.subscribe_v5("n", 1).await, 1);
    let mut writer = Client::connect(&door, "writer").await;
    for n in 0..COUNT {
        let mut payload = n.to_string().into_bytes();
        payload.resize(1_000, b' ');
        writer.mqtt.publish("n", QoS::AtLeastOnce, false, payload).await.unwrap();
    }
    for _ in 0..COUNT {
        assert!(matches!(writer.next().await, Packet::PubAck(_)));
    }
    let (mut taken, mut last) = (0, None);
    while last != Some(COUNT - 1) {
        let (_, body) = reader.packet().await.expect("the reader is not cut off");
        let number = String::from_utf8_lossy(&body[6..]).trim_end().parse().unwrap();
        assert!(last < Some(number), "in order");
        (taken, last) = (taken + 1, Some(number));
        reader.send(&packet(0x40, &body[3..5])).await;
    }
    assert!(taken < COUNT, "the log is not so long");
    assert_eq!(door.stats().dropped_frames, u64::from(COUNT - taken));
}
