//! Faults that are broken promises: what the specification allows is refused, what was acknowledged is not kept.

use super::{Harm, Target};
use crate::door::peers::topic;
use crate::door::socket::{QUIET, Socket};
use crate::door::wire::{Connect, GOODBYE, Publish, Version, first};
use std::collections::BTreeSet;
use tidegate_schemas::DeviceTopic;

/// Messages of 1 KiB to a session that is away: twice what rumqttd was told to keep.
const AWAY: u16 = 8_000;
/// Prompts of 1 KiB to the door: under the bound of one device.
const PROMPTS: u16 = 2_000;
/// Unacknowledged at once.
const WINDOW: u16 = 20;

/// A keep-alive of 0: the server need not look (MQTT-3.1.2.10).
pub(super) async fn keep_alive(at: &Target) -> anyhow::Result<Harm> {
    let connect = Connect { keep_alive_s: 0, ..Connect::new(Version::V4, "no-keep-alive") };
    Ok(Socket::enter(at.v4, &connect).await.err().map(|_| "refused".to_owned()))
}

/// What was acknowledged while its reader was away is there when it comes back. The door promises that for what it
/// serves itself: a prompt that was acknowledged has an outcome.
pub(super) async fn kept(at: &Target) -> anyhow::Result<Harm> {
    if at.ours { prompts_kept(at).await } else { messages_kept(at).await }
}

fn persistent(client_id: &str) -> Connect<'_> {
    Connect { clean: false, ..Connect::new(Version::V4, client_id) }
}

async fn messages_kept(at: &Target) -> anyhow::Result<Harm> {
    let (mut reader, _) = Socket::enter(at.v4, &persistent("kept-reader")).await?;
    reader.subscribe("kept/x", 1).await?;
    reader.send(&GOODBYE).await?;
    reader.ends_within(QUIET).await;
    let mut writer = at.client(Version::V4, "kept-writer").await?;
    let acked = publish_all(&mut writer, "kept/x", AWAY, |number| {
        let mut payload = vec![b'x'; 1024];
        payload[..2].copy_from_slice(&number.to_be_bytes());
        payload
    })
    .await?;
    let (mut reader, present) = Socket::enter(at.v4, &persistent("kept-reader")).await?;
    let mut came = BTreeSet::new();
    while let Some((_, payload)) = reader.message(QUIET).await? {
        came.insert(payload[..2].to_vec());
    }
    let (came, lost) = (came.len(), usize::from(acked).saturating_sub(came.len()));
    Ok((lost > 0).then(|| format!("{acked} acknowledged, {came} came back (session present: {present})")))
}

async fn prompts_kept(at: &Target) -> anyhow::Result<Harm> {
    let device = "local-kept";
    let (mut socket, _) = Socket::enter(at.v4, &persistent(device)).await?;
    let prompt = topic(DeviceTopic::Prompt, device)?;
    let acked = publish_all(&mut socket, &prompt, PROMPTS, |number| {
        let text = "x ".repeat(480);
        format!("{{\"id\":\"k-{number}\",\"task\":\"intent\",\"input\":\"{text}\"}}").into_bytes()
    })
    .await?;
    drop(socket);
    let (mut socket, _) = Socket::enter(at.v4, &persistent(device)).await?;
    socket.subscribe(&topic(DeviceTopic::Answer, device)?, 1).await?;
    let mut came = BTreeSet::new();
    while came.len() < usize::from(acked) {
        let Some((_, payload)) = socket.message(at.patience).await? else { break };
        let frame: serde_json::Value = serde_json::from_slice(&payload)?;
        if frame["kind"] == "answer" || frame["kind"] == "error" {
            came.insert(frame["id"].to_string());
        }
    }
    let came = came.len();
    Ok((came < usize::from(acked)).then(|| format!("{acked} prompts acknowledged, {came} have an outcome")))
}

/// Publishes at QoS 1 with a window, and counts what was acknowledged.
async fn publish_all(
    socket: &mut Socket,
    topic: &str,
    count: u16,
    payload: impl Fn(u16) -> Vec<u8>,
) -> anyhow::Result<u16> {
    let (mut sent, mut acked) = (0, 0);
    while acked < count {
        while sent < count && sent - acked < WINDOW {
            sent += 1;
            socket.send(&Publish::new(topic, sent, &payload(sent)).bytes(Version::V4)).await?;
        }
        socket.expect(first::PUBACK).await?;
        acked += 1;
    }
    Ok(acked)
}
