//! rumqttd's router is really wedged, then killed, while clients stay connected. A process of its own, since it does so
//! through the one place where the router's thread runs code of ours: the global tracing subscriber.
#![allow(clippy::unwrap_used)]

#[allow(dead_code)]
#[path = "../door/support.rs"]
mod support;

use rumqttc::{Packet, QoS};
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant};
use support::*;
use tidegate_broker::Door;
use tracing::span::{Attributes, Id, Record};
use tracing::subscriber::Interest;
use tracing::{Event, Metadata, Subscriber};

const NOTHING: u8 = 0;
/// The next router thread that says something says nothing more.
const WEDGE: u8 = 1;
/// It panics.
const KILL: u8 = 2;
static FATE: AtomicU8 = AtomicU8::new(NOTHING);

/// From a dead router to a new one: canary, silence and start take at most 2 s; the rest is for a busy machine.
const REPLACED_MAX: Duration = Duration::from_millis(3_000);

struct Saboteur;

impl Subscriber for Saboteur {
    fn register_callsite(&self, _: &'static Metadata<'static>) -> Interest {
        Interest::sometimes()
    }

    fn enabled(&self, _: &Metadata<'_>) -> bool {
        if std::thread::current().name().is_some_and(|name| name.starts_with("router-")) {
            match FATE.swap(NOTHING, Ordering::SeqCst) {
                WEDGE => loop {
                    std::thread::park();
                },
                KILL => panic!("killed by the test"),
                _ => {}
            }
        }
        false
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn event(&self, _: &Event<'_>) {}
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}

struct Clients {
    reader: Client,
    writer: Client,
    said: u32,
}

impl Clients {
    /// A message and a prompt; the message may have to wait for another router.
    async fn speak(&mut self, keeper: &FakeKeeper) {
        self.said += 1;
        let word = format!("message {}", self.said);
        self.writer.mqtt.publish(PROMPT, QoS::AtLeastOnce, false, word.clone()).await.unwrap();
        let prompts = self.said as usize;
        keeper.until(|store| store.prompts.len() == prompts).await;
        assert!(matches!(self.writer.next().await, Packet::PubAck(_)), "prompts need no router");
        self.writer.mqtt.publish("n/x", QoS::AtLeastOnce, false, word).await.unwrap();
    }

    /// The message arrives, once acknowledged, at the reader that never left.
    async fn arrived(&mut self) {
        let word = format!("message {}", self.said);
        assert!(matches!(self.writer.next().await, Packet::PubAck(_)));
        while self.reader.message().await != ("n/x".to_owned(), word.clone()) {}
    }
}

async fn struck(door: &Door, fate: u8) {
    let before = door.stats().backend_restarts;
    let begin = Instant::now();
    FATE.store(fate, Ordering::SeqCst);
    until(|| door.stats().backend_restarts > before).await;
    let took = begin.elapsed();
    assert!(took <= REPLACED_MAX, "noticed after {took:?}");
    assert_eq!(FATE.load(Ordering::SeqCst), NOTHING, "the router was struck, not something else");
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_stay_while_routers_are_wedged_and_killed_and_the_fourth_ends_the_door() {
    tracing::subscriber::set_global_default(Saboteur).unwrap();
    let (door, keeper) = door().await;
    door.publish_state("tg/v1/s/g/state/health".to_owned(), bytes::Bytes::from_static(b"up"));
    let mut reader = Client::connect(&door, "reader").await;
    reader.subscribe("n/+", QoS::AtLeastOnce).await;
    let writer = Client::connect(&door, "writer").await;
    let mut clients = Clients { reader, writer, said: 0 };
    clients.speak(&keeper).await;
    clients.arrived().await;
    for (fate, restarts) in [(WEDGE, 1), (KILL, 2), (KILL, 3)] {
        // Said while the router is dying: neither a subscription nor an unacknowledged publish is lost with it.
        tokio::join!(struck(&door, fate), clients.speak(&keeper));
        clients.arrived().await;
        let mut late = Client::connect(&door, "late").await;
        late.subscribe("tg/v1/s/g/state/+", QoS::AtLeastOnce).await;
        assert_eq!(late.message().await.1, "up", "the gateway's state is there again");
        assert_eq!((door.stats().backend_restarts, clients.reader.packets.is_closed()), (restarts, false));
        late.mqtt.disconnect().await.unwrap();
    }
    assert!(tokio::time::timeout(Duration::from_millis(100), door.failed()).await.is_err());
    struck(&door, KILL).await;
    let failure = tokio::time::timeout(PATIENCE, door.failed()).await.expect("the fourth within an hour is too many");
    assert_eq!((failure.restarts, failure.max), (4, 3));
    clients.speak(&keeper).await;
    clients.arrived().await;
}
