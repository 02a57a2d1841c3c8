//! rumqttd behind the door: started, watched, replaced.
//!
//! Invariants: it listens on a random loopback address and port with a password made at each start and never logged;
//! no accepted prompt and no outcome depends on it; a router that does not answer for [`SILENCE_MAX`] is replaced.

use crate::codec::{Packet, Properties, Publish, QoS};
use crate::error::{DoorError, DoorFailure};
use crate::link::{Address, LINK_PACKET_BYTES_MAX, Link, Memory, USER};
use crate::stats::{Counters, count};
use bytes::Bytes;
use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};
use tracing::subscriber::NoSubscriber;

/// Time between two canaries: with [`SILENCE_MAX`] a dead router is noticed within 2 s.
const CANARY_EVERY: Duration = Duration::from_millis(500);
/// How long a canary may stay unanswered.
const SILENCE_MAX: Duration = Duration::from_millis(1_500);
/// Replacements within an hour before the process should start anew.
const RESTARTS_MAX: u32 = 3;
const HOUR: Duration = Duration::from_secs(3_600);
/// Attempts to reach a fresh rumqttd, [`START_PAUSE`] apart.
const START_ATTEMPTS: u32 = 200;
const START_PAUSE: Duration = Duration::from_millis(10);
/// Retained topics of the gateway that are published again after a replacement.
const STATES_MAX: usize = 64;
/// Publishes of the door itself that rumqttd has not acknowledged: states and wills. Beyond, the oldest is dropped.
const UNACKED_MAX: usize = 256;
/// Publishes that wait for the watching task.
const STATEMENTS_MAX: usize = 256;
/// Log of one filter inside rumqttd, in bytes and segments: what a slow subscriber may lag behind.
const SEGMENT_BYTES_MAX: usize = 1024 * 1024;
const SEGMENTS_MAX: usize = 3;
/// Connections beside those of clients: the watching one and ones that are just closing.
const SPARE_CONNECTIONS: usize = 64;

/// Something that the door itself publishes.
pub(crate) struct Statement {
    pub(crate) topic: String,
    pub(crate) payload: Bytes,
    pub(crate) kind: StatementKind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum StatementKind {
    /// Retained, and published again when rumqttd was replaced.
    State,
    /// A client's will.
    Will { retain: bool },
}

/// What the rest of the door needs of the backend.
#[derive(Clone)]
pub(crate) struct Backend {
    pub(crate) address: watch::Receiver<Address>,
    pub(crate) statements: mpsc::Sender<Statement>,
    pub(crate) failure: watch::Receiver<Option<DoorFailure>>,
}

/// Starts rumqttd and the task that watches it.
pub(crate) async fn start(connections_max: usize, counters: Arc<Counters>) -> Result<Backend, DoorError> {
    let (running, link) = Running::start(connections_max).await?;
    let (address_tx, address) = watch::channel(running.address.clone());
    let (failure_tx, failure) = watch::channel(None);
    let (statements, statements_rx) = mpsc::channel(STATEMENTS_MAX);
    let watcher = Watcher {
        connections_max,
        counters,
        running,
        link,
        address: address_tx,
        failure: failure_tx,
        states: BTreeMap::new(),
        unacked: VecDeque::new(),
        next_id: 0,
        restarts: VecDeque::new(),
        asked: None,
    };
    tokio::spawn(watcher.run(statements_rx));
    Ok(Backend { address, statements, failure })
}

/// A running rumqttd. Its sockets end when this is dropped; its router thread cannot be stopped and stays idle.
struct Running {
    address: Address,
    _stop: oneshot::Sender<()>,
}

fn random<const N: usize>() -> Result<[u8; N], DoorError> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes)
        .map_err(|e| DoorError::System { what: "random bytes", source: io::Error::other(e.to_string()) })?;
    Ok(bytes)
}

fn free_address() -> Result<SocketAddr, DoorError> {
    let [b, c, d] = random()?;
    let ip = Ipv4Addr::new(127, b, c, d.clamp(1, 254));
    let refused = |source| DoorError::System { what: "a loopback port", source };
    TcpListener::bind((ip, 0)).and_then(|l| l.local_addr()).map_err(refused)
}

impl Running {
    async fn start(connections_max: usize) -> Result<(Self, Link), DoorError> {
        let password: String = random::<32>()?.iter().map(|byte| format!("{byte:02x}")).collect();
        let address = Address { addr: free_address()?, password: password.into() };
        let (stop, stopped) = oneshot::channel();
        let settings = server_settings(&address);
        let router = router_config(connections_max);
        std::thread::Builder::new()
            .name("rumqttd".to_owned())
            .spawn(move || serve(settings, router, stopped))
            .map_err(|source| DoorError::System { what: "a thread for rumqttd", source })?;
        let running = Self { address, _stop: stop };
        let link = running.reach().await?;
        Ok((running, link))
    }

    async fn reach(&self) -> Result<Link, DoorError> {
        let mut last = String::new();
        for _ in 0..START_ATTEMPTS {
            match Link::open(self.address.clone(), "watch".to_owned(), Memory::None).await {
                Ok(link) => return Ok(link),
                Err(error) => last = error.to_string(),
            }
            sleep(START_PAUSE).await;
        }
        Err(DoorError::Backend { what: last })
    }
}

fn router_config(connections_max: usize) -> rumqttd::RouterConfig {
    rumqttd::RouterConfig {
        max_connections: connections_max + SPARE_CONNECTIONS,
        max_outgoing_packet_count: 200,
        max_segment_size: SEGMENT_BYTES_MAX,
        max_segment_count: SEGMENTS_MAX,
        ..rumqttd::RouterConfig::default()
    }
}

fn server_settings(address: &Address) -> rumqttd::ServerSettings {
    rumqttd::ServerSettings {
        name: "loopback".to_owned(),
        listen: address.addr,
        tls: None,
        next_connection_delay_ms: 0,
        connections: rumqttd::ConnectionSettings {
            connection_timeout_ms: 2_000,
            max_payload_size: LINK_PACKET_BYTES_MAX,
            max_inflight_count: 100,
            auth: Some([(USER.to_owned(), address.password.to_string())].into()),
            external_auth: None,
            dynamic_filters: false,
        },
    }
}

/// rumqttd's thread: a runtime of its own, so that dropping it closes every socket. rumqttd calls a client that left
/// an error, so nothing of it is logged; that it died is for the watcher to say.
fn serve(settings: rumqttd::ServerSettings, router: rumqttd::RouterConfig, stopped: oneshot::Receiver<()>) {
    let _silent = tracing::subscriber::set_default(NoSubscriber::default());
    let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else { return };
    let router = rumqttd::Router::new(0, router).spawn();
    let mut server = rumqttd::Server::new(settings, router, rumqttd::protocol::v4::V4);
    runtime.block_on(async {
        tokio::select! {
            _ = server.start(rumqttd::LinkType::Remote) => {}
            _ = stopped => {}
        }
    });
    runtime.shutdown_background();
}

struct Watcher {
    connections_max: usize,
    counters: Arc<Counters>,
    running: Running,
    link: Link,
    address: watch::Sender<Address>,
    failure: watch::Sender<Option<DoorFailure>>,
    states: BTreeMap<String, Bytes>,
    unacked: VecDeque<Publish>,
    next_id: u16,
    restarts: VecDeque<Instant>,
    /// When the canary that is under way was sent.
    asked: Option<Instant>,
}

impl Watcher {
    /// Ends when the door has gone.
    async fn run(mut self, mut statements: mpsc::Receiver<Statement>) {
        let mut canary = interval(CANARY_EVERY);
        canary.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let alive = tokio::select! {
                statement = statements.recv() => match statement {
                    Some(statement) => { self.publish(statement); true }
                    None => break,
                },
                packet = self.link.turn() => packet.map(|packet| self.arrived(&packet)).is_ok(),
                _ = canary.tick() => self.ask(),
            };
            if !alive && !self.replace().await {
                break;
            }
        }
        self.link.close().await;
    }

    fn ask(&mut self) -> bool {
        match self.asked {
            Some(at) => at.elapsed() < SILENCE_MAX,
            None => {
                // rumqttd's router answers pings itself, so a ping is a canary that no subscriber can see.
                self.link.push(&Packet::PingReq);
                self.asked = Some(Instant::now());
                true
            }
        }
    }

    fn arrived(&mut self, packet: &Packet) {
        match packet {
            Packet::PingResp => self.asked = None,
            Packet::PubAck(ack) => self.unacked.retain(|publish| publish.id != ack.id),
            _ => {}
        }
    }

    fn publish(&mut self, statement: Statement) {
        let Statement { topic, payload, kind } = statement;
        if kind == StatementKind::State && (self.states.len() < STATES_MAX || self.states.contains_key(&topic)) {
            self.states.insert(topic.clone(), payload.clone());
        }
        let retain = matches!(kind, StatementKind::State | StatementKind::Will { retain: true });
        self.say(topic, payload, retain);
    }

    fn say(&mut self, topic: String, payload: Bytes, retain: bool) {
        self.next_id = self.next_id.checked_add(1).unwrap_or(1);
        let (id, properties) = (self.next_id, Properties::default());
        let publish = Publish { dup: false, qos: QoS::AtLeastOnce, retain, topic, id, properties, payload };
        self.link.push(&Packet::Publish(Box::new(publish.clone())));
        if self.unacked.len() >= UNACKED_MAX {
            self.unacked.pop_front();
        }
        self.unacked.push_back(publish);
    }

    /// Whether there is a rumqttd again.
    async fn replace(&mut self) -> bool {
        count(&self.counters.backend_restarts);
        self.restarts.push_back(Instant::now());
        self.restarts.retain(|at| at.elapsed() < HOUR);
        let restarts = u32::try_from(self.restarts.len()).unwrap_or(u32::MAX);
        tracing::warn!(restarts, "rumqttd does not answer and is replaced");
        if restarts > RESTARTS_MAX {
            self.failure.send_replace(Some(DoorFailure { restarts, max: RESTARTS_MAX }));
        }
        let Ok((running, link)) = Running::start(self.connections_max).await else {
            self.failure.send_replace(Some(DoorFailure { restarts, max: RESTARTS_MAX }));
            return false;
        };
        (self.running, self.link, self.asked) = (running, link, None);
        let states = self.states.clone();
        let unacked = std::mem::take(&mut self.unacked);
        for publish in unacked.into_iter().filter(|p| !states.contains_key(&p.topic)) {
            self.say(publish.topic, publish.payload, publish.retain);
        }
        for (topic, payload) in states {
            self.say(topic, payload, true);
        }
        self.address.send_replace(self.running.address.clone());
        true
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use tokio::time::timeout;

    /// T2 of the studied faults: a topic that starts outside ASCII kills the router for everybody.
    #[tokio::test]
    async fn a_router_that_died_is_replaced_within_two_seconds() {
        let counters = Arc::new(Counters::default());
        let mut backend = start(4, counters.clone()).await.unwrap();
        let state = |payload: &'static [u8]| Statement {
            topic: "s/health".to_owned(),
            payload: Bytes::from_static(payload),
            kind: StatementKind::State,
        };
        backend.statements.send(state(b"up")).await.unwrap();
        let address = backend.address.borrow_and_update().clone();
        let mut killer = Link::open(address, "killer".to_owned(), Memory::None).await.unwrap();
        let filter = crate::codec::Filter { filter: "#".to_owned(), qos: QoS::AtMostOnce, options: 0 };
        killer.push(&Packet::Subscribe { id: 1, filters: vec![filter], properties: Box::default() });
        killer.turn().await.unwrap();
        let publish = Publish {
            dup: false,
            qos: QoS::AtMostOnce,
            retain: false,
            topic: "é/x".to_owned(),
            id: 0,
            properties: Properties::default(),
            payload: Bytes::new(),
        };
        killer.push(&Packet::Publish(Box::new(publish)));
        let _gone = timeout(Duration::from_secs(1), async { while killer.turn().await.is_ok() {} }).await;
        timeout(Duration::from_secs(3), backend.address.changed()).await.unwrap().unwrap();
        assert_eq!(counters.view().backend_restarts, 1);
        let address = backend.address.borrow().clone();
        let mut link = Link::open(address, "reader".to_owned(), Memory::None).await.unwrap();
        let filter = crate::codec::Filter { filter: "s/+".to_owned(), qos: QoS::AtMostOnce, options: 0 };
        link.push(&Packet::Subscribe { id: 1, filters: vec![filter], properties: Box::default() });
        let retained = timeout(Duration::from_secs(3), async {
            loop {
                if let Packet::Publish(publish) = link.turn().await.unwrap() {
                    return publish;
                }
            }
        });
        assert_eq!(retained.await.unwrap().payload.as_ref(), b"up");
    }
}
