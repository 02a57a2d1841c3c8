//! Telemetry with sequence numbers: published on one side, audited on the other.

use crate::link::{Link, Packet, Protocol};
use anyhow::{Context as _, bail};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::task::JoinHandle;

/// Publishes that wait for their acknowledgement at once.
const WINDOW: usize = 64;
/// Longest wait for any acknowledgement.
const ACK_LIMIT: Duration = Duration::from_secs(120);
/// Pause before the auditor connects again.
const AGAIN: Duration = Duration::from_millis(100);
/// Bytes of a payload: a reading of a sensor as JSON.
const PAYLOAD_BYTES: usize = 100;

/// Publishes sequence numbers at QoS 1 and returns when each is acknowledged.
pub(super) async fn publish(
    to: SocketAddr,
    name: &str,
    topic: &str,
    numbers: std::ops::Range<u64>,
) -> anyhow::Result<()> {
    let mut link = Link::open(Protocol::V4, to, name);
    let (mut next, mut waiting) = (numbers.start, 0);
    let mut up = false;
    loop {
        while up && waiting < WINDOW && next < numbers.end {
            link.publish(topic, payload(next)).await?;
            (next, waiting) = (next + 1, waiting + 1);
        }
        if next == numbers.end && waiting == 0 {
            link.close().await;
            return Ok(());
        }
        match tokio::time::timeout(ACK_LIMIT, link.next()).await.context("a publish is not acknowledged")? {
            Packet::Up => up = true,
            Packet::Acked(..) => waiting -= 1,
            Packet::Down(why) => bail!("the publisher's connection ended: {why}"),
            Packet::Subscribed | Packet::Sent(_) | Packet::Message(_) => {}
        }
    }
}

/// From a publish at QoS 1 to its acknowledgement, one at a time: the median of so many.
pub(super) async fn round_trip(to: SocketAddr, trips: usize) -> anyhow::Result<Duration> {
    let mut link = Link::open(Protocol::V5, to, "trips");
    let (mut took, mut begun) = (Vec::with_capacity(trips), Instant::now());
    while took.len() < trips {
        match tokio::time::timeout(ACK_LIMIT, link.next()).await.context("a publish is not acknowledged")? {
            Packet::Acked(..) => took.push(begun.elapsed()),
            Packet::Down(why) => bail!("the connection ended: {why}"),
            Packet::Up => {}
            Packet::Subscribed | Packet::Sent(_) | Packet::Message(_) => continue,
        }
        begun = Instant::now();
        link.publish("trips", payload(0)).await?;
    }
    link.close().await;
    took.sort_unstable();
    took.get(trips / 2).copied().context("no round trip was measured")
}

fn payload(number: u64) -> Vec<u8> {
    let mut bytes = format!("{number} ").into_bytes();
    bytes.resize(PAYLOAD_BYTES, b'.');
    bytes
}

/// What has arrived.
#[derive(Debug, Default)]
struct Arrived {
    /// How often each number came.
    counts: BTreeMap<u64, u32>,
    /// Since the clock was started anew.
    first: Option<Instant>,
    last: Option<Instant>,
    subscribed: bool,
}

/// Listens at the central broker and counts.
pub(super) struct Auditor {
    arrived: Arc<Mutex<Arrived>>,
    task: JoinHandle<()>,
}

/// What an audit found.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Audit {
    /// Numbers that never came.
    pub(super) lost: u64,
    /// Arrivals beyond the first.
    pub(super) twice: u64,
    /// Numbers that came per second, from the first of them to the last.
    pub(super) rate: f64,
}

impl Auditor {
    /// Subscribes, again after every loss of its connection.
    pub(super) fn start(central: SocketAddr, filter: &str) -> Self {
        let arrived: Arc<Mutex<Arrived>> = Arc::default();
        let (kept, filter) = (arrived.clone(), filter.to_owned());
        let task = tokio::spawn(async move {
            loop {
                listen(central, &filter, &kept).await;
                lock(&kept).subscribed = false;
                tokio::time::sleep(AGAIN).await;
            }
        });
        Self { arrived, task }
    }

    /// Waits until it is subscribed.
    pub(super) async fn ready(&self) {
        while !lock(&self.arrived).subscribed {
            tokio::time::sleep(AGAIN).await;
        }
    }

    /// Starts the clock of a drain anew.
    pub(super) fn rewind(&self) {
        let mut arrived = lock(&self.arrived);
        (arrived.first, arrived.last) = (None, None);
    }

    /// Waits until all of these have arrived, or nothing new has for `quiet`.
    pub(super) async fn wait(&self, numbers: std::ops::Range<u64>, quiet: Duration) -> Audit {
        let (mut found, mut since) = (0, Instant::now());
        loop {
            let now = lock(&self.arrived).counts.range(numbers.clone()).count() as u64;
            if now == numbers.end - numbers.start || now == found && since.elapsed() >= quiet {
                return self.audit(numbers);
            }
            if now != found {
                (found, since) = (now, Instant::now());
            }
            tokio::time::sleep(AGAIN).await;
        }
    }

    fn audit(&self, numbers: std::ops::Range<u64>) -> Audit {
        let arrived = lock(&self.arrived);
        let counts: Vec<u32> = arrived.counts.range(numbers.clone()).map(|(_, count)| *count).collect();
        let came = counts.len() as u64;
        let seconds = arrived.first.zip(arrived.last).map_or(0.0, |(first, last)| (last - first).as_secs_f64());
        Audit {
            lost: numbers.end - numbers.start - came,
            twice: counts.iter().map(|count| u64::from(*count) - 1).sum(),
            rate: if seconds > 0.0 { came as f64 / seconds } else { 0.0 },
        }
    }
}

impl Drop for Auditor {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn lock(arrived: &Mutex<Arrived>) -> std::sync::MutexGuard<'_, Arrived> {
    arrived.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn listen(central: SocketAddr, filter: &str, arrived: &Mutex<Arrived>) {
    let mut link = Link::open(Protocol::V4, central, "auditor");
    loop {
        match link.next().await {
            Packet::Up => {
                if link.subscribe(filter).await.is_err() {
                    return;
                }
            }
            Packet::Subscribed => lock(arrived).subscribed = true,
            Packet::Message(payload) => {
                let number = std::str::from_utf8(&payload).ok().and_then(|t| t.split(' ').next()?.parse().ok());
                if let Some(number) = number {
                    let (mut arrived, now) = (lock(arrived), Instant::now());
                    *arrived.counts.entry(number).or_default() += 1;
                    arrived.first.get_or_insert(now);
                    arrived.last = Some(now);
                }
            }
            Packet::Down(_) => return,
            Packet::Sent(_) | Packet::Acked(..) => {}
        }
    }
}
