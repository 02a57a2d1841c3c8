//! A device and a pair of general clients that mind their own business while a rig does its worst beside them. They must
//! not miss a message, and notice nothing but time.

use super::peers::topic;
use super::socket::{PATIENCE, Socket};
use super::wire::{Connect, Publish, Version, first};
use crate::clock::now_us;
use anyhow::{Context as _, bail};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;
use tidegate_schemas::DeviceTopic;
use tokio::time::sleep;

/// Pause between two rounds: often enough to be in the midst of everything, seldom enough to be no load.
const PAUSE: Duration = Duration::from_millis(20);
/// Client id and device of the bystander.
const NAME: &str = "local-bystander";

/// A bystander at work.
pub(crate) struct Bystander {
    stop: Arc<AtomicBool>,
    rounds: Arc<AtomicU64>,
    thread: JoinHandle<anyhow::Result<Seen>>,
}

/// What a bystander went through.
#[derive(Debug, Clone, Copy, Default, serde::Serialize)]
pub(crate) struct Seen {
    /// Rounds: a general message, published and heard, and a prompt, acknowledged and answered.
    pub(crate) rounds: u64,
    /// The slowest round, in milliseconds.
    pub(crate) slowest_ms: f64,
}

impl Bystander {
    /// Connects to the door at `to` and begins. Ends with an error at the first thing that is missing.
    pub(crate) fn start(to: SocketAddr) -> Self {
        let (stop, rounds) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (ends, counted) = (stop.clone(), rounds.clone());
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(live(to, &ends, &counted))
        });
        Self { stop, rounds, thread }
    }

    /// Waits until one more round was begun and ended, so that what happened before is judged.
    pub(crate) fn look(&self) -> anyhow::Result<()> {
        let begin = std::time::Instant::now();
        let due = self.rounds.load(Ordering::Relaxed) + 2;
        while self.rounds.load(Ordering::Relaxed) < due {
            if self.thread.is_finished() || begin.elapsed() > 4 * PATIENCE {
                bail!("the bystander is harmed");
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        Ok(())
    }

    /// Ends it and says what it went through.
    pub(crate) fn end(self) -> anyhow::Result<Seen> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().ok().context("the bystander panicked")?.context("the bystander was harmed")
    }
}

async fn live(to: SocketAddr, stop: &AtomicBool, rounds: &AtomicU64) -> anyhow::Result<Seen> {
    let connect = Connect { clean: false, ..Connect::new(Version::V4, NAME) };
    let (mut device, _) = Socket::enter(to, &connect).await?;
    device.subscribe(&topic(DeviceTopic::Answer, NAME)?, 1).await?;
    device.subscribe("bystander/+", 1).await?;
    let prompt_topic = topic(DeviceTopic::Prompt, NAME)?;
    let mut seen = Seen::default();
    while !stop.load(Ordering::Relaxed) {
        let begin_us = now_us();
        let word = seen.rounds.to_string();
        let id = (seen.rounds % 30_000) as u16 * 2 + 1;
        device.send(&Publish::new("bystander/word", id, word.as_bytes()).bytes(Version::V4)).await?;
        hear(&mut device, &[Due::Ack(id), Due::Word(&word)]).await.with_context(|| format!("word {word}"))?;
        let prompt = format!("{{\"id\":\"b-{word}\",\"task\":\"intent\",\"input\":\"how warm is it\"}}");
        device.send(&Publish::new(&prompt_topic, id + 1, prompt.as_bytes()).bytes(Version::V4)).await?;
        let name = format!("\"b-{word}\"");
        hear(&mut device, &[Due::Ack(id + 1), Due::Outcome(&name)]).await.with_context(|| format!("prompt {word}"))?;
        seen.slowest_ms = seen.slowest_ms.max((now_us() - begin_us) as f64 / 1e3);
        seen.rounds += 1;
        rounds.store(seen.rounds, Ordering::Relaxed);
        sleep(PAUSE).await;
    }
    Ok(seen)
}

enum Due<'a> {
    /// A PUBACK with this identifier.
    Ack(u16),
    /// The general message with this text.
    Word(&'a str),
    /// An outcome whose text has this in it; the first outcome that comes must be it.
    Outcome(&'a str),
}

/// Waits until everything that is due came. Words and outcomes come in order, each once or, repeated, as it was.
async fn hear(device: &mut Socket, due: &[Due<'_>]) -> anyhow::Result<()> {
    let mut open: Vec<&Due<'_>> = due.iter().collect();
    while !open.is_empty() {
        let packet = device.next().await?;
        device.acknowledge(&packet).await?;
        if packet.kind() == first::PUBACK {
            let id = packet.seen().id();
            open.retain(|due| !matches!(due, Due::Ack(expected) if *expected == id));
        } else if let Some(message) = packet.message(Version::V4) {
            let text = String::from_utf8_lossy(message.payload);
            let general = message.topic == b"bystander/word";
            open.retain(|due| match due {
                Due::Word(word) => !(general && text == *word),
                Due::Outcome(name) => {
                    let outcome = text.contains("\"kind\":\"answer\"") || text.contains("\"kind\":\"error\"");
                    general || !(outcome && text.contains(*name))
                }
                Due::Ack(_) => true,
            });
        }
    }
    Ok(())
}
