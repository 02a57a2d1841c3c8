//! Faults that one packet provokes.

use super::{Harm, Target};
use crate::door::socket::{QUIET, Socket};
use crate::door::wire::{self, Connect, Publish, Version, first};
use std::collections::HashMap;

/// Content Type `x`, a property of MQTT 5.
const CONTENT_TYPE: [u8; 4] = [0x03, 0, 1, b'x'];
/// Topic Alias Maximum 10.
const ALIASES: [u8; 3] = [0x22, 0, 10];
const TOPIC_ALIAS: u8 = 0x23;

/// A topic whose first character has two bytes.
pub(super) async fn t2(at: &Target) -> anyhow::Result<Harm> {
    let mut reader = at.client(Version::V4, "t2-reader").await?;
    reader.subscribe("t2/#", 1).await?;
    let mut evil = at.client(Version::V4, "t2-evil").await?;
    evil.send(&Publish::lossy("é/x", b"x").bytes(Version::V4)).await?;
    evil.ends_within(QUIET).await;
    let cut = reader.ends_within(QUIET).await;
    Ok(at.dead("a subscriber was cut off").await.or_else(|| cut.then(|| "a subscriber was cut off".to_owned())))
}

/// A property on the way from 5 to 3.1.1.
pub(super) async fn t3(at: &Target) -> anyhow::Result<Harm> {
    let mut reader = at.client(Version::V4, "t3-reader").await?;
    reader.subscribe("t3/x", 1).await?;
    let mut writer = at.client(Version::V5, "t3-writer").await?;
    let publish = Publish { properties: &CONTENT_TYPE, ..Publish::new("t3/x", 1, b"typed") };
    writer.send(&publish.bytes(Version::V5)).await?;
    Ok(match reader.message(at.patience).await {
        Ok(Some((_, payload))) if payload == b"typed" => None,
        Ok(_) => Some("the message never came".to_owned()),
        Err(_) => Some("the 3.1.1 subscriber was cut off".to_owned()),
    })
}

/// Acknowledgements in another order than the messages.
pub(super) async fn t5(at: &Target) -> anyhow::Result<Harm> {
    let mut reader = at.client(Version::V4, "t5-reader").await?;
    reader.subscribe("t5/x", 1).await?;
    let mut writer = at.client(Version::V4, "t5-writer").await?;
    writer.publish("t5/x", 1, b"one").await?;
    writer.publish("t5/x", 2, b"two").await?;
    let mut ids = Vec::new();
    while ids.len() < 2 {
        let packet = reader.next().await?;
        ids.extend(packet.message(Version::V4).map(|message| message.id));
    }
    for id in ids.into_iter().rev() {
        reader.send(&wire::ack(first::PUBACK, id)).await?;
    }
    writer.publish("t5/x", 3, b"three").await?;
    Ok(match reader.message(at.patience).await {
        Ok(Some((_, payload))) if payload == b"three" => None,
        Ok(_) => Some("no further message came".to_owned()),
        Err(_) => Some("the subscriber was cut off".to_owned()),
    })
}

/// CONNACK and UNSUBACK as the first packet.
pub(super) async fn t7(at: &Target) -> anyhow::Result<Harm> {
    for bytes in [&[first::CONNACK, 3, 0, 0, 0][..], &[first::UNSUBACK, 4, 0, 1, 0, 0]] {
        let mut socket = Socket::open(at.v5, Version::V5).await?;
        socket.send(bytes).await?;
        socket.ends_within(QUIET).await;
    }
    let log = String::from_utf8_lossy(&std::fs::read(&at.log)?).into_owned();
    Ok(log.contains("panicked at").then(|| "a task panicked".to_owned()))
}

/// Topic aliases outwards.
pub(super) async fn t9(at: &Target) -> anyhow::Result<Harm> {
    let connect = Connect { properties: &ALIASES, ..Connect::new(Version::V5, "t9-reader") };
    let (mut reader, _) = Socket::enter(at.v5, &connect).await?;
    reader.subscribe("t9/+", 0).await?;
    let mut writer = at.client(Version::V5, "t9-writer").await?;
    for (id, topic) in [(1, "t9/a"), (2, "t9/b")] {
        writer.publish(topic, id, topic.as_bytes()).await?;
    }
    let mut aliases = HashMap::new();
    for _ in 0..2 {
        let packet = reader.expect(first::PUBLISH).await?;
        let Some(message) = packet.message(Version::V5) else { continue };
        let name = named(&packet.body, message.topic, &mut aliases);
        if name.as_deref() != Some(message.payload) {
            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            return Ok(Some(format!(
                "what was published to {} came as {}",
                text(message.payload),
                name.map_or_else(|| "nothing".to_owned(), |n| text(&n))
            )));
        }
    }
    Ok(None)
}

/// The topic of a QoS 0 PUBLISH whose first property may be an alias.
fn named(body: &[u8], topic: &[u8], aliases: &mut HashMap<[u8; 2], Vec<u8>>) -> Option<Vec<u8>> {
    let properties = body.get(2 + topic.len() + 1..)?;
    let alias = match properties {
        [TOPIC_ALIAS, high, low, ..] if body[2 + topic.len()] >= 3 => Some([*high, *low]),
        _ => None,
    };
    match (alias, topic.is_empty()) {
        (Some(alias), true) => aliases.get(&alias).cloned(),
        (Some(alias), false) => {
            aliases.insert(alias, topic.to_vec());
            Some(topic.to_vec())
        }
        (None, _) => Some(topic.to_vec()),
    }
}

/// Wildcards where none may be.
pub(super) async fn t10(at: &Target) -> anyhow::Result<Harm> {
    let mut writer = at.client(Version::V4, "t10-writer").await?;
    writer.send(&Publish::new("t10/+", 1, b"x").bytes(Version::V4)).await?;
    let published = !writer.ends_within(QUIET).await;
    let mut reader = at.client(Version::V4, "t10-reader").await?;
    // A broker may refuse the filter or end the connection.
    let subscribed = reader.subscribe("t10/#/b", 1).await.is_ok_and(|code| code < 0x80);
    Ok((published || subscribed).then(|| format!("publish taken: {published}, subscription granted: {subscribed}")))
}

/// UNSUBSCRIBE of nothing.
pub(super) async fn t15(at: &Target) -> anyhow::Result<Harm> {
    let mut socket = at.client(Version::V4, "t15").await?;
    socket.send(&wire::unsubscribe(Version::V4, 7, "t15/never/subscribed")).await?;
    Ok(match socket.within(at.patience).await? {
        Some(packet) if packet.kind() == first::UNSUBACK && packet.seen().id() == 7 => None,
        _ => Some("no UNSUBACK came".to_owned()),
    })
}

/// The broker's own topics.
pub(super) async fn sys(at: &Target) -> anyhow::Result<Harm> {
    let mut socket = at.client(Version::V4, "sys").await?;
    Ok(socket.subscribe("$SYS/#", 0).await.is_err().then(|| "the connection ended instead of a SUBACK".to_owned()))
}
