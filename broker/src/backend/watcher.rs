//! The task that watches the backend: asks it every half second, replaces or reaches it again, and publishes what the
//! door itself has to say until the backend acknowledged it.

use super::rumqttd::Running;
use super::{Seen, Statement, StatementKind, hello};
use crate::codec::{Ack, Packet, Properties, Publish, QoS, reason};
use crate::error::DoorFailure;
use crate::link::{Address, Kind, Link};
use crate::stats::{Counters, count};
use bytes::Bytes;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, MissedTickBehavior, interval};

/// Time between two canaries: with [`SILENCE_MAX`] a dead router is noticed within 2 s.
const CANARY_EVERY: Duration = Duration::from_millis(500);
/// How long a canary may stay unanswered.
const SILENCE_MAX: Duration = Duration::from_millis(1_500);
/// Replacements within an hour before the process should start anew.
const RESTARTS_MAX: u32 = 3;
const HOUR: Duration = Duration::from_secs(3_600);
/// Retained topics of the gateway that are published again after a replacement.
const STATES_MAX: usize = 64;
/// Publishes of the door itself that the backend has not acknowledged: states and wills. Beyond, the oldest is dropped.
const UNACKED_MAX: usize = 256;

/// Where a backend comes from.
pub(super) enum Source {
    /// We start it.
    Rumqttd { connections_max: usize, _running: Running },
    /// Somebody else does.
    Elsewhere,
}

/// A publish of the door itself, and whether this backend was sent it.
struct Said {
    publish: Publish,
    sent: bool,
}

pub(super) struct Watcher {
    source: Source,
    /// None while the backend is away.
    link: Option<Link>,
    counters: Arc<Counters>,
    address: watch::Sender<Address>,
    failure: watch::Sender<Option<DoorFailure>>,
    seen: Arc<Seen>,
    states: BTreeMap<String, Bytes>,
    unacked: VecDeque<Said>,
    next_id: u16,
    restarts: VecDeque<Instant>,
    /// When the canary that is under way was sent.
    asked: Option<Instant>,
}

async fn turn(link: &mut Option<Link>) -> std::io::Result<Packet> {
    match link {
        Some(link) => link.turn().await,
        None => std::future::pending().await,
    }
}

impl Watcher {
    pub(super) fn new(
        source: Source,
        link: Option<Link>,
        counters: Arc<Counters>,
        (address, failure): (watch::Sender<Address>, watch::Sender<Option<DoorFailure>>),
        seen: Arc<Seen>,
    ) -> Self {
        Self {
            source,
            link,
            counters,
            address,
            failure,
            seen,
            states: BTreeMap::new(),
            unacked: VecDeque::new(),
            next_id: 0,
            restarts: VecDeque::new(),
            asked: None,
        }
    }

    /// Ends when the door has gone, or no rumqttd can be started.
    pub(super) async fn run(mut self, mut statements: mpsc::Receiver<Statement>) {
        let mut canary = interval(CANARY_EVERY);
        canary.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let alive = tokio::select! {
                statement = statements.recv() => match statement {
                    Some(statement) => { self.publish(statement); true }
                    None => break,
                },
                packet = turn(&mut self.link) => packet.is_ok_and(|packet| self.arrived(&packet)),
                _ = canary.tick() => self.ask(),
            };
            if !alive && !self.again().await {
                break;
            }
        }
        if let Some(link) = self.link {
            link.close(0).await;
        }
    }

    fn ask(&mut self) -> bool {
        let Some(link) = &mut self.link else { return false };
        match self.asked {
            Some(at) => at.elapsed() < SILENCE_MAX,
            None => {
                // rumqttd's router answers pings itself, so a ping is a canary that no subscriber can see.
                link.push(&Packet::PingReq);
                self.asked = Some(Instant::now());
                true
            }
        }
    }

    /// Whether the connection goes on.
    fn arrived(&mut self, packet: &Packet) -> bool {
        match packet {
            Packet::PingResp => self.asked = None,
            Packet::PubAck(ack) | Packet::PubComp(ack) => self.acknowledged(ack.id),
            Packet::PubRec(ack) if ack.reason >= reason::UNSPECIFIED => self.acknowledged(ack.id),
            Packet::PubRec(ack) => {
                if let Some(link) = &mut self.link {
                    link.push(&Packet::PubRel(Ack::success(ack.id)));
                }
            }
            Packet::Disconnect { reason, .. } => {
                tracing::warn!(reason = format_args!("0x{reason:02x}"), "the backend ended the watching connection");
                return false;
            }
            _ => {}
        }
        true
    }

    fn publish(&mut self, statement: Statement) {
        let Statement { topic, payload, kind } = statement;
        let (qos, retain, properties) = match kind {
            StatementKind::State => {
                if self.states.len() < STATES_MAX || self.states.contains_key(&topic) {
                    self.states.insert(topic.clone(), payload.clone());
                }
                (QoS::AtLeastOnce, true, Properties::default())
            }
            StatementKind::Will { qos, retain, properties } => match self.address.borrow().kind() {
                Kind::Rumqttd => (QoS::AtLeastOnce, retain, Properties::default()),
                // A QoS 0 will waits for a backend that is away like the others, so it is said at QoS 1.
                Kind::Whole => (qos.max(QoS::AtLeastOnce), retain, *properties),
            },
        };
        self.say(Publish { dup: false, qos, retain, topic, id: 0, properties, payload });
    }

    fn acknowledged(&mut self, id: u16) {
        self.unacked.retain(|said| said.publish.id != id);
        self.pump();
    }

    fn say(&mut self, mut publish: Publish) {
        self.next_id = self.next_id.checked_add(1).unwrap_or(1);
        publish.id = self.next_id;
        if self.unacked.len() >= UNACKED_MAX {
            self.unacked.pop_front();
            count(&self.counters.dropped_frames);
        }
        self.unacked.push_back(Said { publish, sent: false });
        self.pump();
    }

    /// Sends what the backend's window has room for.
    fn pump(&mut self) {
        let Some(link) = &mut self.link else { return };
        let room = link.window().saturating_sub(self.unacked.iter().filter(|said| said.sent).count());
        for said in self.unacked.iter_mut().filter(|said| !said.sent).take(room) {
            link.push(&Packet::Publish(Box::new(said.publish.clone())));
            said.sent = true;
        }
    }

    /// The backend is gone. Whether to go on watching.
    async fn again(&mut self) -> bool {
        let reached = match &mut self.source {
            Source::Rumqttd { connections_max, .. } => {
                let connections_max = *connections_max;
                self.replace(connections_max).await
            }
            Source::Elsewhere => {
                self.reach().await;
                true
            }
        };
        if self.link.is_some() {
            self.repeat();
            self.address.send_modify(|_| {});
        }
        reached
    }

    /// Starts another rumqttd. Whether there is one.
    async fn replace(&mut self, connections_max: usize) -> bool {
        count(&self.counters.backend_restarts);
        self.restarts.push_back(Instant::now());
        self.restarts.retain(|at| at.elapsed() < HOUR);
        let restarts = u32::try_from(self.restarts.len()).unwrap_or(u32::MAX);
        tracing::warn!(restarts, "rumqttd does not answer and is replaced");
        let failure = DoorFailure { restarts, max: RESTARTS_MAX };
        if restarts > RESTARTS_MAX {
            self.failure.send_replace(Some(failure.clone()));
        }
        self.link = None;
        self.seen.forget();
        let Ok((running, link)) = Running::start(connections_max).await else {
            self.failure.send_replace(Some(failure));
            return false;
        };
        self.address.send_if_modified(|address| {
            *address = Address { since: Some(Instant::now()), ..running.address.clone() };
            false
        });
        self.source = Source::Rumqttd { connections_max, _running: running };
        (self.link, self.asked) = (Some(link), None);
        true
    }

    /// Tries once to reach a broker that is not ours; the next canary tries again.
    async fn reach(&mut self) {
        if self.link.take().is_some() {
            count(&self.counters.backend_restarts);
            tracing::warn!("the backend does not answer, general traffic waits for it");
        }
        let address = self.address.borrow().clone();
        self.asked = None;
        if let Ok(link) = Link::open(address, hello()).await {
            tracing::info!("the backend is there");
            let announced = Arc::new(link.announced());
            self.address.send_if_modified(|address| {
                (address.announced, address.since) = (announced, Some(Instant::now()));
                false
            });
            self.link = Some(link);
        }
    }

    /// Says to a new backend what the old one may not have kept.
    fn repeat(&mut self) {
        let unacked = std::mem::take(&mut self.unacked);
        let states = self.states.clone();
        for said in unacked.into_iter().filter(|said| !states.contains_key(&said.publish.topic)) {
            self.say(said.publish);
        }
        for (topic, payload) in states {
            let properties = Properties::default();
            let (dup, qos, retain, id) = (false, QoS::AtLeastOnce, true, 0);
            self.say(Publish { dup, qos, retain, topic, id, properties, payload });
        }
    }
}
