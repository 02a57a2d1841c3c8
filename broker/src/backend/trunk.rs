//! The one connection through which all clients' general publishes reach rumqttd. Many publishes are told it at once and
//! their acknowledgements come back at once, whoever they are of; a connection per publisher would cost 80 KB each, and
//! rumqttd's one thread a wake of another for each message.
//!
//! Invariants: publishes of a client reach rumqttd in the order in which it sent them; each above QoS 0 stays here until
//! rumqttd acknowledged it, and goes to the next one if this one dies; what a client has in here is bounded by the
//! client's connection, which is told by [`Load`].

use crate::codec::{Ack, Packet, Publish, QoS, Version};
use crate::link::{Address, Appetite, Hello, Link};
use crate::upstream::Taken;
use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio::time::{Instant, sleep, sleep_until, timeout};

/// Its name at rumqttd; clients' begin with `s` and a number.
const NAME: &str = "trunk";
/// Publishes that rumqttd has unacknowledged, at most: identifiers do not come round before their acknowledgement.
const UNACKED_MAX: usize = 8_192;
/// Bytes at QoS 0 that rumqttd may not have taken before it is given more.
const OUT_BYTES_MAX: usize = 256 * 1024;
/// Publishes of all clients that wait to be put on the connection: beyond, each client keeps its own.
const TRAY_MAX: usize = 1_024;
/// After rumqttd was replaced publishes wait so long, so that those who subscribed have said so again.
const RENEWAL: Duration = Duration::from_millis(500);
/// Pause before a connection that broke is opened again.
const REOPEN_PAUSE: Duration = Duration::from_millis(50);

/// Bytes of one client that rumqttd has not been sent.
#[derive(Debug, Clone)]
pub(crate) struct Load(Arc<Weight>);

#[derive(Debug)]
struct Weight {
    bytes: AtomicUsize,
    bytes_max: usize,
    eased: Notify,
}

impl Load {
    /// Of a client that is not read while it has so many.
    pub(crate) fn new(bytes_max: usize) -> Self {
        Self(Arc::new(Weight { bytes: AtomicUsize::new(0), bytes_max, eased: Notify::new() }))
    }

    pub(crate) fn bytes(&self) -> usize {
        self.0.bytes.load(Ordering::Relaxed)
    }

    /// Waits until the client may be read again.
    pub(crate) async fn eased(&self) {
        self.0.eased.notified().await;
    }

    fn add(&self, bytes: usize) {
        self.0.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    fn remove(&self, bytes: usize) {
        let before = self.0.bytes.fetch_sub(bytes, Ordering::Relaxed);
        if before >= self.0.bytes_max && before - bytes < self.0.bytes_max {
            self.0.eased.notify_one();
        }
    }
}

/// A publish on its way.
pub(crate) struct Carried {
    publish: Publish,
    load: Load,
    bytes: usize,
    /// None at QoS 0.
    done: Option<oneshot::Sender<Taken>>,
}

impl Carried {
    /// With what resolves when rumqttd acknowledged it, which it never does at QoS 0.
    pub(crate) fn new(publish: Publish, load: &Load) -> (Self, oneshot::Receiver<Taken>) {
        let (done, receiver) = oneshot::channel();
        let bytes = publish.payload.len() + publish.topic.len();
        load.add(bytes);
        let done = (publish.qos != QoS::AtMostOnce).then_some(done);
        (Self { publish, load: load.clone(), bytes, done }, receiver)
    }

    /// It is no burden of the client any more.
    fn unload(&mut self) {
        self.load.remove(std::mem::take(&mut self.bytes));
    }
}

impl Drop for Carried {
    fn drop(&mut self) {
        self.unload();
    }
}

/// Takes publishes of all clients.
#[derive(Clone)]
pub(crate) struct Trunk {
    tray: mpsc::Sender<Carried>,
}

impl Trunk {
    /// Starts the task; it ends when the watcher has gone that says where rumqttd is.
    pub(super) fn start(address: watch::Receiver<Address>) -> Self {
        let (tray, waiting) = mpsc::channel(TRAY_MAX);
        let (unacked, taken) = (VecDeque::new(), Vec::new());
        let road = Road { tray: waiting, address, unacked, again: VecDeque::new(), taken, last_id: 0 };
        tokio::spawn(road.run());
        Self { tray }
    }

    /// Passes a publish on, after those that were put before; gives it back when there is no room.
    pub(crate) fn put(&self, carried: Carried) -> Option<Carried> {
        match self.tray.try_send(carried) {
            Err(mpsc::error::TrySendError::Full(carried)) => Some(carried),
            // Without the task nothing is passed on, nor waited for.
            Ok(()) | Err(mpsc::error::TrySendError::Closed(_)) => None,
        }
    }

    /// Waits for room.
    pub(crate) async fn room(&self) {
        drop(self.tray.reserve().await);
    }
}

struct Road {
    tray: mpsc::Receiver<Carried>,
    address: watch::Receiver<Address>,
    /// What rumqttd was sent and has not acknowledged, oldest first.
    unacked: VecDeque<Carried>,
    /// What an earlier rumqttd was sent and did not acknowledge, oldest first.
    again: VecDeque<Carried>,
    /// What was taken from the tray and not sent.
    taken: Vec<Carried>,
    last_id: u16,
}

impl Road {
    async fn run(mut self) {
        let mut lost = false;
        while self.address.has_changed().is_ok() {
            let address = self.address.borrow_and_update().clone();
            let since = address.since;
            match Link::open(address, Hello::passing(NAME, Version::V4)).await {
                Ok(link) => {
                    self.renewed(since, lost).await;
                    let ended = self.serve(link).await;
                    tracing::debug!(why = ?ended, "the connection that carries publishes ended");
                    lost = true;
                }
                // Either there is a new one soon, or the same lets us in again. A watcher that has gone ends the loop.
                Err(_) => drop(timeout(REOPEN_PAUSE, self.address.changed()).await),
            }
            sleep(Duration::from_millis(1)).await;
        }
    }

    /// Waits until those who subscribed have subscribed again.
    async fn renewed(&self, since: Option<Instant>, lost: bool) {
        let renewed = since.map(|since| since + RENEWAL).max(lost.then(|| Instant::now() + RENEWAL));
        if let Some(until) = renewed {
            sleep_until(until).await;
        }
    }

    /// Ends with the connection. What it had not acknowledged waits for the next one.
    async fn serve(&mut self, mut link: Link) -> io::Error {
        self.unacked.extend(std::mem::take(&mut self.again));
        self.again = std::mem::take(&mut self.unacked);
        loop {
            while self.has_room(&link)
                && let Some(carried) = self.again.pop_front()
            {
                self.send(carried, &mut link);
            }
            let room = if self.again.is_empty() && self.has_room(&link) { self.room() } else { 0 };
            let turned = tokio::select! {
                turned = link.turn_or_room(OUT_BYTES_MAX, Appetite::Hungry) => turned,
                count = self.tray.recv_many(&mut self.taken, room), if room > 0 => {
                    if count == 0 {
                        return io::ErrorKind::BrokenPipe.into();
                    }
                    let mut taken = std::mem::take(&mut self.taken);
                    taken.drain(..).for_each(|carried| self.send(carried, &mut link));
                    self.taken = taken;
                    continue;
                }
            };
            match turned {
                Ok(packet) => packet.into_iter().for_each(|packet| self.arrived(packet)),
                Err(error) => return error,
            }
        }
    }

    /// How many publishes may be under way beside those that are.
    fn room(&self) -> usize {
        UNACKED_MAX.saturating_sub(self.unacked.len()).min(TRAY_MAX)
    }

    fn has_room(&self, link: &Link) -> bool {
        self.room() > 0 && link.waiting_bytes() < OUT_BYTES_MAX
    }

    fn send(&mut self, mut carried: Carried, link: &mut Link) {
        carried.unload();
        if carried.publish.qos == QoS::AtMostOnce {
            return link.push_publish(&carried.publish);
        }
        self.last_id = self.last_id.checked_add(1).unwrap_or(1);
        carried.publish.id = self.last_id;
        link.push_publish(&carried.publish);
        self.unacked.push_back(carried);
    }

    fn arrived(&mut self, packet: Packet) {
        let Packet::PubAck(Ack { id, reason, reason_string }) = packet else { return };
        // rumqttd acknowledges in order.
        let Some(at) = self.unacked.iter().position(|carried| carried.publish.id == id) else { return };
        if let Some(done) = self.unacked.remove(at).and_then(|mut carried| carried.done.take()) {
            // A connection that has ended waits for nothing any more.
            let _ = done.send(Taken { reason, reason_string });
        }
    }
}
