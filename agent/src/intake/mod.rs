//! Intake: in place of a door, the gateway is a client of the devices' own broker. It subscribes their prompt and
//! control topics, acknowledges each after the store's word, and publishes outcomes at QoS 1.
//!
//! Invariants: a prompt is acknowledged towards the broker after it is on disk or refused, in the order of arrival; an
//! outcome is released on the broker's success PUBACK of exactly that publish, and not when the broker says that nobody
//! subscribes it. What the broker weakens is said by [`weakened`].

mod session;
mod settling;

use crate::link::{Address, Backoff, Broker, Cause, Down, Line, Pause, Protocol, Search, Terms};
use bytes::Bytes;
use session::Session;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;
use tidegate_broker::{Ephemeral, Keeper, Kept, Outgoing};
use tidegate_schemas::{DEADLINE_MS_MAX, DeviceId, JobId, Origin};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::sleep_until;
use tracing::{info, warn};

/// Orders that wait for the intake; beyond, lossy frames are dropped and outcomes come from the store.
const ORDERS_MAX: usize = 1024;
/// Prompts that the broker may send before the first is on disk: a group commit of the store.
const RECEIVE_MAX: u16 = 64;
/// How long the broker keeps prompts for us while we are away, in seconds: longer than any may live.
const SESSION_EXPIRY_S: u32 = (DEADLINE_MS_MAX / 1000) as u32 + 3600;
/// Time between two pings: the broker is near.
const KEEP_ALIVE: Duration = Duration::from_secs(5);
/// First wait before a reconnect.
const RECONNECT_LEAST: Duration = Duration::from_millis(100);
/// Longest wait before a reconnect: devices wait for this broker as well.
const RECONNECT_MOST: Duration = Duration::from_secs(5);
/// A connection that held so long was no accident.
const RECONNECT_STABLE: Duration = Duration::from_secs(10);
/// Longest goodbye.
const GOODBYE_MAX: Duration = Duration::from_secs(1);

/// What an intake needs besides a [`Keeper`]: outcomes of all devices.
pub(crate) trait Outcomes: Keeper {
    /// Outcomes that nobody acknowledged, of all devices, oldest first, after `after`, at most `max`.
    fn waiting(&self, after: Option<JobId>, max: usize) -> Kept<Vec<(DeviceId, Outgoing)>>;
    /// The broker of the intake is there, or why it is not.
    fn intake(&self, fault: Option<String>);
}

/// Which promises a broker between the devices and the gateway weakens, one sentence each.
pub(crate) fn weakened(address: &Address) -> Vec<String> {
    vec![
        format!("promise 1: {address} acknowledges a prompt before it is on disk here; until then it is that broker's"),
        format!("promise 2: an outcome counts as delivered when {address} took it for a subscriber"),
        "promise 5: a refusal of an overfull gateway reaches the device after its PUBACK".to_owned(),
        format!("promise 8: who publishes and reads which device's topics is decided by {address}"),
    ]
}

/// What the intake is told.
enum ToIntake {
    Outcome(DeviceId, JobId, Bytes),
    Frame(DeviceId, Bytes, Ephemeral),
    State(String, Bytes),
    Event(String, Bytes),
    Stop,
}

/// The intake, as the gateway holds it. Its methods return at once.
pub(crate) struct Intake {
    orders: mpsc::Sender<ToIntake>,
    /// An outcome found no place among the orders: all have to be looked for in the store.
    missed: Arc<AtomicBool>,
    dropped: AtomicU64,
    task: JoinHandle<()>,
}

impl Intake {
    /// Starts connecting, and goes on for ever.
    pub(crate) fn start(broker: Broker, origin: Origin, keeper: Arc<dyn Outcomes>, will: (String, Bytes)) -> Self {
        let (orders, ear) = mpsc::channel(ORDERS_MAX);
        let missed = Arc::new(AtomicBool::new(false));
        let shore = Shore { origin, keeper, states: BTreeMap::new(), missed: missed.clone() };
        let terms = Terms {
            session_expiry_s: SESSION_EXPIRY_S,
            receive_max: RECEIVE_MAX,
            keep_alive: KEEP_ALIVE,
            will: Some(will),
        };
        let task = tokio::spawn(run(broker, terms, shore, ear));
        Self { orders, missed, dropped: AtomicU64::new(0), task }
    }

    /// An outcome just became durable.
    pub(crate) fn outcome_ready(&self, device: &DeviceId, job: JobId, payload: Bytes) {
        if self.orders.try_send(ToIntake::Outcome(device.clone(), job, payload)).is_err() {
            self.missed.store(true, Ordering::Relaxed);
        }
    }

    /// A frame for a device that is not the first delivery of an outcome.
    pub(crate) fn send(&self, device: &DeviceId, payload: Bytes, how: Ephemeral) {
        self.order(ToIntake::Frame(device.clone(), payload, how));
    }

    /// Retained state.
    pub(crate) fn state(&self, topic: String, payload: Bytes) {
        self.order(ToIntake::State(topic, payload));
    }

    /// An event.
    pub(crate) fn event(&self, topic: String, payload: Bytes) {
        self.order(ToIntake::Event(topic, payload));
    }

    /// Frames that found no place.
    pub(crate) fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    fn order(&self, order: ToIntake) {
        if self.orders.try_send(order).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Says goodbye and ends.
    pub(crate) async fn shutdown(self) {
        let _ = self.orders.send(ToIntake::Stop).await;
        let _ = self.task.await;
    }
}

/// What outlives a connection.
struct Shore {
    origin: Origin,
    keeper: Arc<dyn Outcomes>,
    states: BTreeMap<String, Bytes>,
    missed: Arc<AtomicBool>,
}

enum End {
    Stop,
    Lost(Down),
}

async fn run(broker: Broker, terms: Terms, mut shore: Shore, mut orders: mpsc::Receiver<ToIntake>) {
    let mut search = Search::new(vec![broker.address.clone()], Protocol::Auto);
    let mut backoff = Backoff::new(RECONNECT_LEAST, RECONNECT_MOST, RECONNECT_STABLE);
    loop {
        let (_, version) = search.target();
        let (end, was_up) = match Line::open(&broker, version, &terms) {
            Err(error) => (End::Lost(Down { why: error.to_string(), cause: Cause::Refused }), false),
            Ok(line) => {
                let mut session = Session::new(line, KEEP_ALIVE);
                let end = session.run(&mut shore, &mut orders, &mut backoff).await;
                if matches!(end, End::Stop) {
                    session.goodbye(&terms, GOODBYE_MAX).await;
                }
                (end, session.is_up())
            }
        };
        let End::Lost(down) = end else { return info!("the intake is closed") };
        let pause = if was_up { search.lost(down.cause) } else { search.failed(down.cause) };
        let wait = if pause == Pause::None { Duration::ZERO } else { backoff.next() };
        let wait_ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
        warn!(broker = %broker.address, why = %down.why, wait_ms, "the broker of the intake is not there");
        shore.keeper.intake(Some(format!("the broker of the intake {} is not there: {}", broker.address, down.why)));
        if !rest(wait, &mut shore, &mut orders).await {
            return;
        }
    }
}

/// Without a broker, outcomes wait in the store and frames are nobody's. False when it is told to stop.
async fn rest(wait: Duration, shore: &mut Shore, orders: &mut mpsc::Receiver<ToIntake>) -> bool {
    let until = tokio::time::Instant::now() + wait;
    loop {
        tokio::select! {
            () = sleep_until(until) => return true,
            order = orders.recv() => match order {
                Some(ToIntake::State(topic, payload)) => { shore.states.insert(topic, payload); }
                Some(ToIntake::Outcome(..) | ToIntake::Frame(..) | ToIntake::Event(..)) => {}
                Some(ToIntake::Stop) | None => return false,
            },
        }
    }
}
