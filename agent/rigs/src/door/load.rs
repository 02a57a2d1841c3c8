//! The load generator: publishers and subscribers that cost little beside the broker that they drive, all on one
//! thread. Deliveries are counted, not acknowledgements: a broker may acknowledge what it drops.
//!
//! At QoS 1 a publisher has at most `window` publishes without PUBACK; at QoS 0, which has none, at most `window` that
//! the first subscriber has not seen, so that what is measured is carried and not thrown away.

use super::histogram::Histogram;
use super::socket::PATIENCE;
use super::wire::{self, Connect, Publish, Seen, Version, first};
use crate::clock::now_us;
use anyhow::{Context as _, bail};
use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::task::{JoinSet, LocalSet};
use tokio::time::{sleep, timeout};

/// Room for one read, in bytes.
const READ_BYTES: usize = 64 * 1024;
/// How long nothing may arrive before the rest counts as lost.
const STALLED: Duration = Duration::from_secs(2);
/// How often the end is looked for.
const LOOK: Duration = Duration::from_millis(5);
/// Moment and publisher, at the front of every payload.
const STAMP_BYTES: usize = 12;

/// What is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub(crate) struct Load {
    pub(crate) publishers: usize,
    /// Subscribers; each hears every publisher.
    pub(crate) fan_out: usize,
    pub(crate) qos: u8,
    pub(crate) window: usize,
    pub(crate) payload_bytes: usize,
    /// How long is published, in milliseconds.
    pub(crate) time_ms: u64,
}

/// What became of it.
#[derive(Debug, Clone, serde::Serialize)]
pub(crate) struct Measured {
    /// Publishes that were acknowledged (at QoS 0: written).
    pub(crate) published: u64,
    /// Messages that reached subscribers.
    pub(crate) delivered: u64,
    /// From the first publish to the last delivery, in seconds.
    pub(crate) seconds: f64,
    /// From publish to delivery, in milliseconds.
    pub(crate) p50_ms: f64,
    pub(crate) p99_ms: f64,
    /// Messages that never reached a subscriber, in percent.
    pub(crate) lost_percent: f64,
}

impl Measured {
    /// Deliveries per second.
    pub(crate) fn rate(&self) -> f64 {
        self.delivered as f64 / self.seconds
    }
}

/// What the connections of a load share.
struct Ledger {
    load: Load,
    stop: Cell<bool>,
    published: Cell<u64>,
    delivered: Cell<u64>,
    last_us: Cell<u64>,
    latency: RefCell<Histogram>,
    /// Per publisher: publishes at QoS 0 that are under way.
    flows: Vec<(Cell<usize>, Notify)>,
}

/// Drives the broker at `to`, on this thread.
pub(crate) fn drive(to: SocketAddr, load: Load) -> anyhow::Result<Measured> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("cannot start tokio")?;
    LocalSet::new().block_on(&runtime, drive_all(to, load))
}

async fn drive_all(to: SocketAddr, load: Load) -> anyhow::Result<Measured> {
    let flows = (0..load.publishers).map(|_| (Cell::new(0), Notify::new())).collect();
    let ledger = Rc::new(Ledger {
        load,
        stop: Cell::new(false),
        published: Cell::new(0),
        delivered: Cell::new(0),
        last_us: Cell::new(0),
        latency: RefCell::default(),
        flows,
    });
    let mut subscribers = JoinSet::new();
    for number in 0..load.fan_out {
        let mut wire = Wire::enter(to, &format!("load-sub-{number}")).await?;
        wire.subscribe("load/#", load.qos).await?;
        subscribers.spawn_local(hear(wire, ledger.clone(), number == 0));
    }
    let mut wires = Vec::with_capacity(load.publishers);
    for number in 0..load.publishers {
        wires.push(Wire::enter(to, &format!("load-pub-{number}")).await?);
    }
    let begin_us = now_us();
    let mut publishers = JoinSet::new();
    for (number, wire) in wires.into_iter().enumerate() {
        publishers.spawn_local(publish(wire, ledger.clone(), number));
    }
    sleep(Duration::from_millis(load.time_ms)).await;
    ledger.stop.set(true);
    while let Some(ended) = publishers.join_next().await {
        ended.context("a publisher panicked")??;
    }
    drained(&ledger, &mut subscribers).await?;
    Ok(ledger.measured(begin_us))
}

/// Waits until everything has arrived, or nothing more does.
async fn drained(ledger: &Ledger, subscribers: &mut JoinSet<anyhow::Result<()>>) -> anyhow::Result<()> {
    let due = ledger.published.get() * ledger.load.fan_out as u64;
    let (mut seen, mut since) = (0, std::time::Instant::now());
    while ledger.delivered.get() < due && since.elapsed() < STALLED {
        sleep(LOOK).await;
        if let Some(ended) = subscribers.try_join_next() {
            ended.context("a subscriber panicked")??;
        }
        if ledger.delivered.get() > seen {
            (seen, since) = (ledger.delivered.get(), std::time::Instant::now());
        }
    }
    Ok(())
}

impl Ledger {
    fn measured(&self, begin_us: u64) -> Measured {
        let due = self.published.get() * self.load.fan_out as u64;
        let delivered = self.delivered.get();
        let latency = self.latency.borrow();
        Measured {
            published: self.published.get(),
            delivered,
            seconds: self.last_us.get().saturating_sub(begin_us).max(1) as f64 / 1e6,
            p50_ms: latency.percentile(50.0) / 1e3,
            p99_ms: latency.percentile(99.0) / 1e3,
            lost_percent: 100.0 * due.saturating_sub(delivered) as f64 / due.max(1) as f64,
        }
    }
}

/// A connection that was let in.
pub(super) struct Wire {
    pub(super) stream: TcpStream,
    read: Vec<u8>,
}

impl Wire {
    pub(super) async fn enter(to: SocketAddr, client_id: &str) -> anyhow::Result<Self> {
        let stream = timeout(PATIENCE, TcpStream::connect(to)).await.context("the port does not accept")??;
        stream.set_nodelay(true)?;
        let mut wire = Self { stream, read: Vec::with_capacity(READ_BYTES) };
        wire.stream.write_all(&Connect::new(Version::V4, client_id).bytes()).await?;
        let let_in = wire.first().await? == first::CONNACK && wire.read.get(3) == Some(&0);
        wire.read.clear();
        if let_in { Ok(wire) } else { bail!("a connection of the load was refused") }
    }

    pub(super) async fn subscribe(&mut self, filter: &str, qos: u8) -> anyhow::Result<()> {
        self.stream.write_all(&wire::subscribe(Version::V4, 1, filter, qos)).await?;
        let granted = self.first().await? == first::SUBACK && self.read.get(4) == Some(&qos);
        self.read.clear();
        if granted { Ok(()) } else { bail!("the subscription of the load was refused") }
    }

    /// Waits for the first byte of the first packet.
    async fn first(&mut self) -> anyhow::Result<u8> {
        while Seen::front(&self.read).is_none() {
            timeout(PATIENCE, self.more()).await.context("no answer came")??;
        }
        Ok(self.read[0])
    }

    pub(super) async fn more(&mut self) -> anyhow::Result<()> {
        self.read.reserve(READ_BYTES);
        match self.stream.read_buf(&mut self.read).await.context("a connection of the load broke")? {
            0 => bail!("the broker ended a connection of the load"),
            _ => Ok(()),
        }
    }

    /// Hands over every whole packet.
    pub(super) fn packets(&mut self, mut take: impl FnMut(Seen<'_>)) {
        let mut at = 0;
        while let Some(seen) = Seen::front(&self.read[at..]) {
            take(seen);
            at += seen.bytes;
        }
        self.read.drain(..at);
    }
}

/// One publisher, until the time is over and what it sent is acknowledged.
async fn publish(mut wire: Wire, ledger: Rc<Ledger>, number: usize) -> anyhow::Result<()> {
    let load = ledger.load;
    let mut packet = Packet::new(load, number)?;
    let mut out = Vec::new();
    let mut under_way = 0;
    loop {
        if load.qos == 0 {
            under_way = ledger.flows[number].0.get();
        }
        out.clear();
        while under_way < load.window && !ledger.stop.get() {
            packet.append(&mut out);
            under_way += 1;
            if load.qos == 0 {
                ledger.flows[number].0.set(under_way);
                ledger.published.set(ledger.published.get() + 1);
            }
        }
        if !out.is_empty() {
            wire.stream.write_all(&out).await.context("a publisher cannot write")?;
        }
        if load.qos == 0 {
            if ledger.stop.get() {
                return Ok(());
            }
            let (flow, freed) = &ledger.flows[number];
            if timeout(STALLED / 4, freed.notified()).await.is_err() {
                // What was under way for so long is lost.
                flow.set(0);
            }
            continue;
        }
        if under_way == 0 {
            return Ok(());
        }
        timeout(PATIENCE, wire.more()).await.context("no PUBACK came in time")??;
        let mut acked = 0;
        wire.packets(|seen| acked += usize::from(seen.kind() == first::PUBACK));
        under_way = under_way.saturating_sub(acked);
        ledger.published.set(ledger.published.get() + acked as u64);
    }
}

/// One subscriber, until it is dropped. The first one frees the windows of QoS 0.
async fn hear(mut wire: Wire, ledger: Rc<Ledger>, frees: bool) -> anyhow::Result<()> {
    let mut acks = Vec::new();
    loop {
        wire.more().await?;
        acks.clear();
        take(&mut wire, &ledger, frees, &mut acks);
        if !acks.is_empty() {
            wire.stream.write_all(&acks).await.context("a subscriber cannot write")?;
        }
    }
}

/// Counts what has arrived, and writes its acknowledgements.
fn take(wire: &mut Wire, ledger: &Ledger, frees: bool, acks: &mut Vec<u8>) {
    let now_us = now_us();
    let mut latency = ledger.latency.borrow_mut();
    let mut heard = 0;
    wire.packets(|seen| {
        let Some(message) = seen.message(Version::V4) else { return };
        if message.id > 0 {
            acks.extend(wire::ack(first::PUBACK, message.id));
        }
        let Some((sent_us, publisher)) = stamp(message.payload) else { return };
        latency.add(now_us.saturating_sub(sent_us));
        heard += 1;
        if frees
            && ledger.load.qos == 0
            && let Some((flow, freed)) = ledger.flows.get(publisher)
        {
            flow.set(flow.get().saturating_sub(1));
            freed.notify_one();
        }
    });
    ledger.delivered.set(ledger.delivered.get() + heard);
    ledger.last_us.set(now_us);
}

fn stamp(payload: &[u8]) -> Option<(u64, usize)> {
    let (sent_us, rest) = payload.split_first_chunk()?;
    let publisher = u32::from_be_bytes(*rest.first_chunk()?);
    Some((u64::from_be_bytes(*sent_us), publisher as usize))
}

/// The publish of a publisher: the same bytes each time, but for identifier and moment.
struct Packet {
    bytes: Vec<u8>,
    id_at: Option<usize>,
    stamp_at: usize,
    last_id: u16,
}

impl Packet {
    fn new(load: Load, number: usize) -> anyhow::Result<Self> {
        let topic = format!("load/{number}");
        let mut payload = vec![b'x'; load.payload_bytes.max(STAMP_BYTES)];
        payload[8..STAMP_BYTES].copy_from_slice(&u32::try_from(number)?.to_be_bytes());
        let publish = if load.qos == 0 { Publish::lossy(&topic, &payload) } else { Publish::new(&topic, 1, &payload) };
        let bytes = publish.bytes(Version::V4);
        let stamp_at = bytes.len() - payload.len();
        Ok(Self { bytes, id_at: (load.qos > 0).then(|| stamp_at - 2), stamp_at, last_id: 0 })
    }

    fn append(&mut self, out: &mut Vec<u8>) {
        self.last_id = self.last_id.checked_add(1).unwrap_or(1);
        if let Some(at) = self.id_at {
            self.bytes[at..at + 2].copy_from_slice(&self.last_id.to_be_bytes());
        }
        self.bytes[self.stamp_at..self.stamp_at + 8].copy_from_slice(&now_us().to_be_bytes());
        out.extend_from_slice(&self.bytes);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const LOAD: Load = Load { publishers: 1, fan_out: 1, qos: 1, window: 1, payload_bytes: 100, time_ms: 1 };

    #[test]
    fn each_publish_has_its_own_identifier_and_moment() {
        for (qos, id) in [(1, 2), (0, 0)] {
            let mut packet = Packet::new(Load { qos, ..LOAD }, 7).unwrap();
            let mut out = Vec::new();
            packet.append(&mut out);
            let second = out.len();
            packet.append(&mut out);
            let message = Seen::front(&out[second..]).unwrap().message(Version::V4).unwrap();
            assert_eq!((message.topic, message.id, message.payload.len()), (&b"load/7"[..], id, 100));
            let (sent_us, publisher) = stamp(message.payload).unwrap();
            assert!(publisher == 7 && sent_us <= now_us() && sent_us > 0);
        }
    }

    #[test]
    fn what_never_arrives_is_lost() {
        let ledger = Ledger {
            load: Load { fan_out: 2, ..LOAD },
            stop: Cell::new(true),
            published: Cell::new(100),
            delivered: Cell::new(150),
            last_us: Cell::new(3_000_000),
            latency: RefCell::default(),
            flows: Vec::new(),
        };
        let measured = ledger.measured(1_000_000);
        assert_eq!((measured.lost_percent, measured.seconds, measured.rate()), (25.0, 2.0, 75.0));
    }
}
