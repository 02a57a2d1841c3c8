//! One MQTT device in a process of its own: publishes what it is told on stdin, keeps its own ledger, reports on
//! stdout. One JSON value per line in both directions.

use crate::clock::now_us;
use crate::ledger::{Entry, Ledger, Tally};
use crate::link::{Link, Packet, Protocol};
use anyhow::Context as _;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::io::BufRead as _;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Duration;
use tidegate_schemas::{
    DeviceId, DeviceTopic, Encoding, Frame, OUTCOME_BYTES_MAX, Origin, Prompt, PromptId, Topic, cbor,
};
use tokio::sync::mpsc;
use tokio::time::Instant;

/// Pause before a new connection, so that a closed port is not hammered.
const RECONNECT_PAUSE: Duration = Duration::from_millis(250);
/// Orders that wait while there is no connection: more than a demo has prompts.
const ORDERS_MAX: usize = 4_096;

/// Options of a device.
#[derive(clap::Args, Debug, Clone)]
pub(crate) struct Options {
    /// The gateway's door.
    #[arg(long)]
    pub(crate) connect: SocketAddr,
    /// The device's name.
    #[arg(long)]
    pub(crate) name: DeviceId,
    /// Site and gateway, as SITE/GATEWAY.
    #[arg(long, value_parser = parse_origin)]
    pub(crate) origin: Origin,
    /// Protocol version.
    #[arg(long, value_enum)]
    pub(crate) protocol: Protocol,
    /// Writes CBOR instead of JSON.
    #[arg(long)]
    pub(crate) cbor: bool,
}

fn parse_origin(text: &str) -> Result<Origin, String> {
    let (site, gateway) = text.split_once('/').ok_or("SITE/GATEWAY is needed")?;
    let site = site.parse().map_err(|e| format!("{e}"))?;
    Ok(Origin { site, gateway: gateway.parse().map_err(|e| format!("{e}"))? })
}

/// What a device is told.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Order {
    /// Publish a prompt; its id is the device's to choose.
    Publish {
        /// The line of the prompt file.
        line: u32,
        /// The prompt.
        prompt: Prompt,
    },
    /// Report every prompt.
    Report,
}

/// What a device says.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Word {
    /// Connected and subscribed for the first time.
    Ready,
    /// The sums, after each change.
    Tally(Tally),
    /// Every prompt.
    Report(Vec<Entry>),
}

/// Runs a device until stdin ends.
pub(crate) fn run(options: Options) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("cannot start tokio")?;
    runtime.block_on(Device::new(options).live(orders()))?;
    Ok(ExitCode::SUCCESS)
}

/// Reads stdin on a thread of its own: it cannot be read without blocking.
fn orders() -> mpsc::Receiver<Order> {
    let (out, orders) = mpsc::channel(ORDERS_MAX);
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines().map_while(Result::ok) {
            let sent = match serde_json::from_str(&line) {
                Ok(order) => out.blocking_send(order),
                Err(error) => {
                    eprintln!("an order is none: {error}");
                    continue;
                }
            };
            if sent.is_err() {
                return;
            }
        }
    });
    orders
}

fn say(word: &Word) -> anyhow::Result<()> {
    println!("{}", serde_json::to_string(word).context("cannot write a word")?);
    Ok(())
}

/// How a connection ended.
enum End {
    /// Nobody needs the device any more.
    Stop,
    /// It broke.
    Down(String),
}

struct Device {
    options: Options,
    ledger: Ledger,
    said: Option<Tally>,
    /// Random per process, so that ids differ after a restart: firmware has no other memory.
    boot: u16,
    next: u32,
    prompts: HashMap<PromptId, (u32, Prompt)>,
    /// Published on this connection, packet id not known yet.
    unnumbered: VecDeque<PromptId>,
    inflight: HashMap<u16, PromptId>,
    retries: BTreeMap<Instant, PromptId>,
}

impl Device {
    fn new(options: Options) -> Self {
        Self {
            options,
            ledger: Ledger::default(),
            said: None,
            boot: rand::random(),
            next: 0,
            prompts: HashMap::new(),
            unnumbered: VecDeque::new(),
            inflight: HashMap::new(),
            retries: BTreeMap::new(),
        }
    }

    async fn live(mut self, mut orders: mpsc::Receiver<Order>) -> anyhow::Result<()> {
        loop {
            let mut link = Link::open(self.options.protocol, self.options.connect, self.options.name.as_str());
            match self.epoch(&mut link, &mut orders).await? {
                End::Stop => {
                    link.close().await;
                    return Ok(());
                }
                End::Down(why) => eprintln!("{}: connection ended: {why}", self.options.name),
            }
            tokio::time::sleep(RECONNECT_PAUSE).await;
        }
    }

    /// One connection, from CONNECT to its end.
    async fn epoch(&mut self, link: &mut Link, orders: &mut mpsc::Receiver<Order>) -> anyhow::Result<End> {
        self.unnumbered.clear();
        self.inflight.clear();
        let mut subscribed = false;
        loop {
            let retry = self.retries.keys().next().copied();
            let due = retry.unwrap_or_else(Instant::now);
            tokio::select! {
                packet = link.next() => match packet {
                    Packet::Up => link.subscribe(&self.topic(DeviceTopic::Answer)).await?,
                    Packet::Subscribed => {
                        subscribed = true;
                        self.resume(link).await?;
                    }
                    Packet::Down(why) => return Ok(End::Down(why)),
                    Packet::Sent(pkid) => self.number(pkid),
                    Packet::Acked(pkid, how) => self.acknowledged(pkid, how)?,
                    Packet::Message(payload) => self.message(&payload)?,
                },
                order = orders.recv(), if subscribed => match order {
                    None => return Ok(End::Stop),
                    Some(order) => self.obey(order, link).await?,
                },
                () = tokio::time::sleep_until(due), if subscribed && retry.is_some() => {
                    if let Some((_, id)) = self.retries.pop_first() {
                        self.publish(&id, link).await?;
                    }
                }
            }
        }
    }

    fn topic(&self, what: DeviceTopic) -> String {
        Topic::device(&self.options.origin, what, &self.options.name).name()
    }

    async fn resume(&mut self, link: &Link) -> anyhow::Result<()> {
        if self.said.is_none() {
            say(&Word::Ready)?;
        }
        for id in self.ledger.unacknowledged() {
            self.publish(&id, link).await?;
        }
        self.tell()
    }

    async fn obey(&mut self, order: Order, link: &Link) -> anyhow::Result<()> {
        match order {
            Order::Publish { line, prompt } => {
                self.next += 1;
                let id: PromptId = format!("{:04x}-{}", self.boot, self.next).parse().context("an id of ours")?;
                self.prompts.insert(id.clone(), (line, Prompt { id: Some(id.clone()), ..prompt }));
                self.publish(&id, link).await
            }
            Order::Report => say(&Word::Report(self.ledger.entries())),
        }
    }

    async fn publish(&mut self, id: &PromptId, link: &Link) -> anyhow::Result<()> {
        let Some((line, prompt)) = self.prompts.get(id) else { return Ok(()) };
        let payload = if self.options.cbor { cbor::to_vec(prompt) } else { serde_json::to_vec(prompt)? };
        self.ledger.published(id, *line, now_us());
        self.unnumbered.push_back(id.clone());
        link.publish(&self.topic(DeviceTopic::Prompt), payload).await?;
        self.tell()
    }

    fn number(&mut self, pkid: u16) {
        if let Some(id) = self.unnumbered.pop_front() {
            self.inflight.insert(pkid, id);
        }
    }

    fn acknowledged(&mut self, pkid: u16, how: crate::link::Acknowledgement) -> anyhow::Result<()> {
        if let Some(id) = self.inflight.remove(&pkid) {
            self.ledger.acknowledged(&id, how, now_us());
            if let Some(ms) = self.ledger.retry_after_ms(&id) {
                self.retries.insert(Instant::now() + Duration::from_millis(ms), id);
            }
        }
        self.tell()
    }

    fn message(&mut self, payload: &[u8]) -> anyhow::Result<()> {
        match decode(payload) {
            Some(frame) => self.ledger.frame(frame, now_us()),
            None => self.ledger.unreadable(),
        }
        self.tell()
    }

    /// Says the sums when they changed.
    fn tell(&mut self) -> anyhow::Result<()> {
        let tally = self.ledger.tally();
        if self.said.replace(tally) != Some(tally) { say(&Word::Tally(tally)) } else { Ok(()) }
    }
}

/// Reads a frame in the encoding that its first byte tells.
pub(crate) fn decode(payload: &[u8]) -> Option<Frame> {
    match Encoding::of(payload).ok()? {
        Encoding::Cbor => cbor::from_slice(payload, OUTCOME_BYTES_MAX).ok(),
        Encoding::Json => serde_json::from_slice(payload).ok(),
        Encoding::Text => None,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use tidegate_schemas::Accepted;

    #[test]
    fn frames_are_read_in_both_encodings() {
        let frame = Frame::Accepted(Accepted { id: Some("b3f1-7".parse().unwrap()), position: 2, eta_ms: 30 });
        for encoding in [Encoding::Cbor, Encoding::Json] {
            assert_eq!(decode(&encoding.frame(&frame).unwrap()), Some(frame.clone()));
        }
        assert_eq!(decode(b"bare text"), None);
    }

    #[test]
    fn orders_and_words_survive_their_line() {
        let order = Order::Publish { line: 3, prompt: Prompt::bare("hello") };
        let line = serde_json::to_string(&order).unwrap();
        let Order::Publish { line: 3, prompt } = serde_json::from_str(&line).unwrap() else { panic!("{line}") };
        assert_eq!(prompt, Prompt::bare("hello"));
        let line = serde_json::to_string(&Word::Tally(Tally::default())).unwrap();
        assert!(matches!(serde_json::from_str(&line).unwrap(), Word::Tally(tally) if tally == Tally::default()));
    }

    #[test]
    fn an_origin_is_two_names() {
        assert_eq!(parse_origin("a/b").unwrap().to_string(), "a/b");
        assert!(parse_origin("ab").is_err());
        assert!(parse_origin("a/b c").is_err());
    }
}
