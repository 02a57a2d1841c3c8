//! A device inside a measuring rig: asks, and hears the frames, each with its moment.

use crate::clock::now_us;
use crate::device::decode;
use crate::link::{Link, Packet, Protocol};
use crate::world::Door;
use anyhow::{Context as _, bail};
use std::time::Duration;
use tidegate_schemas::{DeviceId, DeviceTopic, Frame, Prompt, PromptId, TaskName, Topic};

/// Longest wait for any frame: an engine that loads, and a queue before it.
pub(crate) const FRAME_LIMIT: Duration = Duration::from_secs(60);

/// One connection that asks.
pub(crate) struct Probe {
    link: Link,
    prompt_topic: String,
    task: TaskName,
}

impl Probe {
    /// Connects as a device and subscribes to its answers.
    pub(crate) async fn connect(door: &Door, name: &str, protocol: Protocol) -> anyhow::Result<Self> {
        let device: DeviceId = name.parse()?;
        let mut link = Link::open(protocol, door.address, name);
        let topic = |what| Topic::device(&door.origin, what, &device).name();
        loop {
            match packet(&mut link).await? {
                Packet::Up => link.subscribe(&topic(DeviceTopic::Answer)).await?,
                Packet::Subscribed => break,
                Packet::Sent(_) | Packet::Acked(..) | Packet::Message(_) | Packet::Down(_) => {}
            }
        }
        Ok(Self { link, prompt_topic: topic(DeviceTopic::Prompt), task: "intent".parse()? })
    }

    /// The payload of a prompt of the task `intent`.
    pub(crate) fn payload(&self, id: &PromptId, text: &str) -> anyhow::Result<Vec<u8>> {
        let prompt = Prompt { id: Some(id.clone()), task: Some(self.task.clone()), ..Prompt::bare(text) };
        serde_json::to_vec(&prompt).context("cannot write a prompt")
    }

    /// Publishes a prompt; gives the moment just before.
    pub(crate) async fn ask(&self, payload: Vec<u8>) -> anyhow::Result<u64> {
        let at_us = now_us();
        self.link.publish(&self.prompt_topic, payload).await?;
        Ok(at_us)
    }

    /// The next frame and when it came.
    pub(crate) async fn frame(&mut self) -> anyhow::Result<(u64, Frame)> {
        loop {
            if let Packet::Message(payload) = packet(&mut self.link).await? {
                let at_us = now_us();
                return Ok((at_us, decode(&payload).context("a frame could not be read")?));
            }
        }
    }
}

async fn packet(link: &mut Link) -> anyhow::Result<Packet> {
    match tokio::time::timeout(FRAME_LIMIT, link.next()).await {
        Ok(Packet::Down(why)) => bail!("the gateway's door closed: {why}"),
        Ok(packet) => Ok(packet),
        Err(_) => bail!("nothing came within {} s", FRAME_LIMIT.as_secs()),
    }
}

/// A directory for a gateway on the disk that the build is on: a temporary one may be memory, where syncing is free.
pub(crate) fn disk_dir(rig: &str) -> anyhow::Result<tempfile::TempDir> {
    let binary = crate::process::own_binary()?;
    let beside = binary.parent().context("this program lies in no directory")?;
    let prefix = format!("{rig}-");
    tempfile::Builder::new().prefix(&prefix).tempdir_in(beside).context("cannot make a directory")
}
