//! Faults that come with subscribers that do not read, or do not speak.

use super::sessions::large;
use super::{Harm, Target};
use crate::door::socket::{QUIET, Socket};
use crate::door::wire::{Connect, GOODBYE, Publish, Version, first};
use std::time::{Duration, Instant};

/// Messages of 8 KiB that fill every buffer between a writer and a reader that does not read.
const FILL: u16 = 1_500;
/// Keep-alive of the silent subscriber, in seconds, and how much of it may pass.
const KEEP_ALIVE_S: u16 = 1;
const SILENT_MAX: Duration = Duration::from_secs(6);

/// A subscriber whose socket is full, and the stream that filled it.
async fn stalled(at: &Target, name: &str) -> anyhow::Result<Socket> {
    let mut reader = at.client(Version::V4, &format!("{name}-stalled")).await?;
    let topic = format!("{name}/n");
    reader.subscribe(&topic, 0).await?;
    let mut writer = at.client(Version::V4, &format!("{name}-writer")).await?;
    for number in 0..FILL {
        writer.send(&large(&topic, number + 1)).await?;
        if number % 20 == 19 {
            for _ in 0..20 {
                writer.expect(first::PUBACK).await?;
            }
        }
    }
    Ok(reader)
}

/// The same client id comes again and leaves.
async fn again(at: &Target, name: &str) -> anyhow::Result<()> {
    let mut again = at.client(Version::V4, &format!("{name}-stalled")).await?;
    again.send(&GOODBYE).await?;
    again.ends_within(QUIET).await;
    Ok(())
}

/// The old socket is read after all.
pub(super) async fn t20(at: &Target) -> anyhow::Result<Harm> {
    let mut old = stalled(at, "t20").await?;
    again(at, "t20").await?;
    old.ends_within(2 * QUIET).await;
    Ok(at.dead("the old socket was read").await)
}

/// The old socket dies, and with it whoever has its place.
pub(super) async fn t21(at: &Target) -> anyhow::Result<Harm> {
    let old = stalled(at, "t21").await?;
    again(at, "t21").await?;
    let mut innocent = at.client(Version::V4, "t21-innocent").await?;
    innocent.subscribe("t21/own", 1).await?;
    drop(old);
    let cut = innocent.ends_within(2 * QUIET).await;
    let heard = !cut && innocent.publish("t21/own", 1, b"x").await.is_ok();
    Ok((!heard).then(|| "a connection that had done nothing was cut off".to_owned()))
}

/// A subscriber that says nothing for longer than its keep-alive, while it is sent to.
pub(super) async fn half_open(at: &Target) -> anyhow::Result<Harm> {
    let connect = Connect { keep_alive_s: KEEP_ALIVE_S, ..Connect::new(Version::V4, "half-open") };
    let (mut silent, _) = Socket::enter(at.v4, &connect).await?;
    silent.subscribe("half/open", 0).await?;
    let mut writer = at.client(Version::V4, "half-writer").await?;
    let begin = Instant::now();
    while begin.elapsed() < SILENT_MAX {
        writer.send(&Publish::lossy("half/open", b"x").bytes(Version::V4)).await?;
        if silent.ends_within(Duration::from_millis(100)).await {
            return Ok(None);
        }
    }
    let (silent_s, limit_s) = (SILENT_MAX.as_secs(), 1.5 * f64::from(KEEP_ALIVE_S));
    Ok(Some(format!("still connected after {silent_s} s of silence, {limit_s} s are allowed")))
}
