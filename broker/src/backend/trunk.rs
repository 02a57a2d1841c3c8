//! The one connection through which all clients' general publishes reach rumqttd. Many publishes go out in one write and
//! their acknowledgements come back in one read, whoever they are of; a connection per publisher would cost each of
//! them four system calls, and rumqttd, which keeps the read buffer of whatever it keeps, a buffer per message.
//!
//! Invariants: publishes of a client reach rumqttd in the order in which it sent them; each above QoS 0 stays here until
//! rumqttd acknowledged it, and goes to the next one if this one dies; what a client has in here is bounded by the
//! client's connection, which is told by [`Load`].

use crate::codec::{Ack, Packet, Publish, QoS, Version};
use crate::link::{Address, Hello, Link};
use crate::upstream::Taken;
use std::collections::VecDeque;
use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::{Notify, oneshot, watch};
use tokio::time::{Instant, sleep, sleep_until, timeout};

/// Its name at rumqttd; clients' begin with `s` and a number.
const NAME: &str = "trunk";
/// Publishes that rumqttd has unacknowledged, at most: identifiers do not come round before their acknowledgement.
const UNACKED_MAX: usize = 8_192;
/// Bytes that are written before more are taken from the tray.
const OUT_BYTES_MAX: usize = 256 * 1024;
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

/// Where publishes are put; bounded by what each client may have in it.
#[derive(Default)]
struct Tray {
    carried: Mutex<Vec<Carried>>,
    filled: Notify,
}

/// Takes publishes of all clients.
#[derive(Clone)]
pub(crate) struct Trunk {
    tray: Arc<Tray>,
}

impl Trunk {
    /// Starts the task; it ends when the watcher has gone that says where rumqttd is.
    pub(super) fn start(address: watch::Receiver<Address>) -> Self {
        let tray = Arc::<Tray>::default();
        let road =
            Road { tray: Arc::clone(&tray), address, unacked: VecDeque::new(), taken: VecDeque::new(), last_id: 0 };
        tokio::spawn(road.run());
        Self { tray }
    }

    /// Passes a publish on, after those that were put before.
    pub(crate) fn put(&self, carried: Carried) {
        let mut tray = self.tray.carried.lock().unwrap_or_else(PoisonError::into_inner);
        tray.push(carried);
        if tray.len() == 1 {
            drop(tray);
            self.tray.filled.notify_one();
        }
    }
}

struct Road {
    tray: Arc<Tray>,
    address: watch::Receiver<Address>,
    /// What rumqttd was sent and has not acknowledged, oldest first.
    unacked: VecDeque<Carried>,
    /// What was taken from the tray and not sent.
    taken: VecDeque<Carried>,
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
        let again: Vec<_> = self.unacked.drain(..).collect();
        again.into_iter().rev().for_each(|carried| self.taken.push_front(carried));
        loop {
            self.load(&mut link);
            let open = self.unacked.len() < UNACKED_MAX && link.waiting_bytes() < OUT_BYTES_MAX;
            let turned = tokio::select! {
                turned = link.turn_or_room(OUT_BYTES_MAX) => turned,
                () = self.tray.filled.notified(), if open => continue,
            };
            let mut turned = turned.transpose();
            // With what came together, before anything is written.
            while let Some(packet) = turned {
                match packet {
                    Ok(packet) => self.arrived(packet),
                    Err(error) => return error,
                }
                turned = link.ready().transpose();
            }
        }
    }

    /// Puts on the connection what there is room for.
    fn load(&mut self, link: &mut Link) {
        loop {
            if self.taken.is_empty() {
                let mut tray = self.tray.carried.lock().unwrap_or_else(PoisonError::into_inner);
                self.taken.extend(tray.drain(..));
            }
            if self.unacked.len() >= UNACKED_MAX || link.waiting_bytes() >= OUT_BYTES_MAX {
                return;
            }
            let Some(mut carried) = self.taken.pop_front() else { return };
            carried.unload();
            if carried.publish.qos != QoS::AtMostOnce {
                self.last_id = self.last_id.checked_add(1).unwrap_or(1);
                carried.publish.id = self.last_id;
            }
            link.push_publish(&carried.publish);
            if carried.publish.qos != QoS::AtMostOnce {
                self.unacked.push_back(carried);
            }
        }
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
