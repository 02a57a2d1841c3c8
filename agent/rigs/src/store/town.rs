//! Devices that keep asking a gateway which dies and comes back, and a worker in the cloud that answers at once.
//!
//! Invariants: a prompt that was not acknowledged is published again with every connection; nothing that a device knows
//! is lost with the gateway; the worker never says the same thing twice, so that a second resolution would show.

use super::book::{Book, Sums};
use crate::link::{Link, Packet, Protocol};
use crate::report::Check;
use anyhow::Context as _;
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::Packet as Packet5;
use rumqttc::v5::{AsyncClient, Event, MqttOptions};
use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tidegate_schemas::{
    Body, Control, ControlOp, DeviceId, DeviceTopic, Escalation, Json, Origin, Prompt, PromptId, Resolution,
    ResolvedOutcome, Timing, Topic, Usage, decode_escalation, encode,
};
use tokio::sync::watch;

/// Devices of a town.
const DEVICES: usize = 4;
/// Prompts that each of them has under way.
const WINDOW: usize = 4;
/// How often a device looks whether to ask.
const TICK: Duration = Duration::from_millis(4);
/// Wait before a device connects again.
const RECONNECT: Duration = Duration::from_millis(10);
/// How often somebody who waits looks again.
const LOOK: Duration = Duration::from_millis(10);

/// What devices do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pace {
    /// Ask whenever there is room in the window.
    Ask,
    /// Only hear.
    Hear,
    /// Ask for the stored outcome of everything once more.
    Fetch,
}

/// The devices and the worker.
pub(crate) struct Town {
    // Its tasks end with it.
    _runtime: tokio::runtime::Runtime,
    book: Arc<Mutex<Book>>,
    door: watch::Sender<Option<SocketAddr>>,
    pace: watch::Sender<Pace>,
}

impl Town {
    /// Starts the devices, and a worker where there is a central broker.
    pub(crate) fn new(origin: &Origin, central: Option<SocketAddr>) -> anyhow::Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let book = Arc::new(Mutex::new(Book::default()));
        let (door, doors) = watch::channel(None);
        let (pace, paces) = watch::channel(Pace::Ask);
        for number in 0..DEVICES {
            let protocol = if number % 2 == 0 { Protocol::V4 } else { Protocol::V5 };
            let name: DeviceId = format!("local-{number}").parse()?;
            let topic = |what| Topic::device(origin, what, &name).name();
            let topics = [DeviceTopic::Prompt, DeviceTopic::Control, DeviceTopic::Answer].map(topic);
            let wires = Wires { doors: doors.clone(), paces: paces.clone(), book: Arc::clone(&book) };
            let device = Device {
                name,
                protocol,
                topics,
                wires,
                next: 0,
                unnumbered: VecDeque::new(),
                inflight: HashMap::new(),
            };
            runtime.spawn(device.live());
        }
        if let Some(central) = central {
            runtime.spawn(cloud(central));
        }
        Ok(Self { _runtime: runtime, book, door, pace })
    }

    /// Where the gateway is from now on; nowhere while it is dead.
    pub(crate) fn gateway_at(&self, address: Option<SocketAddr>) {
        self.door.send_replace(address);
    }

    /// What the devices do from now on.
    pub(crate) fn pace(&self, pace: Pace) {
        self.pace.send_replace(pace);
    }

    /// Prompts that were published and have no outcome.
    pub(crate) fn open(&self) -> Vec<PromptId> {
        self.book().open()
    }

    /// The sums.
    pub(crate) fn sums(&self) -> Sums {
        self.book().sums()
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        lock(&self.book)
    }

    /// Waits until `is` holds; says whether it did in time.
    pub(crate) fn wait(&self, limit: Duration, is: impl Fn(&Book) -> bool) -> bool {
        let begin = Instant::now();
        while begin.elapsed() < limit {
            if is(&self.book()) {
                return true;
            }
            std::thread::sleep(LOOK);
        }
        false
    }

    /// The checks of every rig that kills gateways, after the audit.
    pub(crate) fn checks(&self, acknowledged_min: u32) -> Vec<Check> {
        let (sums, lost) = (self.sums(), self.book().lost());
        vec![
            Check::at_least("prompts acknowledged", sums.acknowledged.into(), acknowledged_min.into(), "prompts"),
            Check::at_least("prompts answered", sums.answered.into(), (acknowledged_min / 2).into(), "prompts"),
            Check::at_most("frames of nothing", sums.strangers.into(), 0.0, "frames"),
            Check::at_most("second outcomes", sums.seconds.into(), 0.0, "outcomes"),
            Check::at_most("acknowledged prompts lost", lost.into(), 0.0, "prompts lost"),
        ]
    }

    /// Lets everything come to its end at a gateway that lives, then asks again for every stored outcome that it must
    /// still know. Gives what is wrong, in words.
    pub(crate) fn audit(&self, limit: Duration) -> Vec<String> {
        self.pace(Pace::Hear);
        self.wait(limit, |book| book.sums().open == 0 && book.is_acknowledged());
        self.book().forget_old();
        self.pace(Pace::Fetch);
        self.wait(limit, Book::is_audited);
        self.pace(Pace::Hear);
        self.book().wrong()
    }
}

fn lock(book: &Mutex<Book>) -> MutexGuard<'_, Book> {
    book.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What a device is told and tells.
struct Wires {
    doors: watch::Receiver<Option<SocketAddr>>,
    paces: watch::Receiver<Pace>,
    book: Arc<Mutex<Book>>,
}

struct Device {
    name: DeviceId,
    protocol: Protocol,
    /// Prompt, control and answer.
    topics: [String; 3],
    wires: Wires,
    next: u32,
    /// Published on this connection, packet id not known yet; none for what is no prompt.
    unnumbered: VecDeque<Option<PromptId>>,
    inflight: HashMap<u16, PromptId>,
}

impl Device {
    async fn live(mut self) {
        loop {
            let door = *self.wires.doors.borrow_and_update();
            match door {
                Some(address) => {
                    let mut link = Link::open(self.protocol, address, self.name.as_str());
                    // Whatever ended it, the next connection goes on.
                    let _ = self.epoch(&mut link).await;
                    tokio::time::sleep(RECONNECT).await;
                }
                None => {
                    if self.wires.doors.changed().await.is_err() {
                        return;
                    }
                }
            }
        }
    }

    /// One connection.
    async fn epoch(&mut self, link: &mut Link) -> anyhow::Result<()> {
        self.unnumbered.clear();
        self.inflight.clear();
        let mut subscribed = false;
        let mut tick = tokio::time::interval(TICK);
        loop {
            tokio::select! {
                packet = link.next() => match packet {
                    Packet::Up => link.subscribe(&self.topics[2]).await?,
                    Packet::Subscribed => {
                        subscribed = true;
                        let open = lock(&self.wires.book).unacknowledged(self.name.as_str());
                        for id in open {
                            self.publish(link, id).await?;
                        }
                    }
                    Packet::Down(_) => return Ok(()),
                    Packet::Sent(pkid) => self.inflight.extend(self.unnumbered.pop_front().flatten().map(|id| (pkid, id))),
                    Packet::Acked(pkid, how) => {
                        if let Some(id) = self.inflight.remove(&pkid) {
                            lock(&self.wires.book).puback(&id, how);
                        }
                    }
                    Packet::Message(payload) => lock(&self.wires.book).message(&payload),
                },
                _ = tick.tick(), if subscribed => self.turn(link).await?,
                changed = self.wires.doors.changed() => {
                    changed?;
                    return Ok(());
                }
            }
        }
    }

    async fn turn(&mut self, link: &Link) -> anyhow::Result<()> {
        let pace = *self.wires.paces.borrow();
        match pace {
            Pace::Hear => Ok(()),
            Pace::Ask if lock(&self.wires.book).waiting(self.name.as_str()) >= WINDOW => Ok(()),
            Pace::Ask => {
                self.next += 1;
                let id: PromptId = format!("{}.{}", self.name, self.next).parse()?;
                let payload = payload(&id, self.next)?;
                lock(&self.wires.book).publish(&id, payload);
                self.publish(link, id).await
            }
            Pace::Fetch => {
                let next = lock(&self.wires.book).fetch(self.name.as_str());
                let Some(id) = next else { return Ok(()) };
                let control = serde_json::to_vec(&Control { op: ControlOp::Fetch, id })?;
                self.unnumbered.push_back(None);
                link.publish(&self.topics[1], control).await
            }
        }
    }

    async fn publish(&mut self, link: &Link, id: PromptId) -> anyhow::Result<()> {
        let payload = lock(&self.wires.book).payload(&id).context("a prompt of ours")?;
        self.unnumbered.push_back(Some(id));
        link.publish(&self.topics[0], payload).await
    }
}

/// Two tasks in turn; one prompt in nine is long, so that its record stands in a file of its own.
fn payload(id: &PromptId, number: u32) -> anyhow::Result<Vec<u8>> {
    let task = if number.is_multiple_of(2) { "intent" } else { "action" };
    let text = if number.is_multiple_of(2) {
        format!("how far is it to town {number}")
    } else {
        format!("switch lamp {number} on")
    };
    let text = if number.is_multiple_of(9) { format!("{text} {}", "please ".repeat(800)) } else { text };
    let prompt = Prompt { id: Some(id.clone()), task: Some(task.parse()?), ..Prompt::bare(&text) };
    serde_json::to_vec(&prompt).context("cannot write a prompt")
}

/// Room for the requests of the worker.
const REQUESTS_MAX: usize = 256;

/// A worker without a model: resolves every escalation at once, each time differently.
async fn cloud(central: SocketAddr) {
    let mut said = 0_u64;
    loop {
        let mut options = MqttOptions::new("rig-cloud", central.ip().to_string(), central.port());
        options.set_keep_alive(Duration::from_secs(10)).set_max_packet_size(Some(256 << 10));
        let (client, mut events) = AsyncClient::new(options, REQUESTS_MAX);
        while let Ok(event) = events.poll().await {
            match event {
                Event::Incoming(Packet5::ConnAck(_)) => {
                    let _ = client.try_subscribe(Topic::worker_filter(), QoS::AtLeastOnce);
                }
                Event::Incoming(Packet5::Publish(publish)) => {
                    let Ok(escalation) = decode_escalation(&publish.payload) else { continue };
                    said += 1;
                    let topic = Topic::device(&escalation.origin, DeviceTopic::Resolve, &escalation.device).name();
                    // What does not fit is asked again after its lease.
                    let _ = client.try_publish(topic, QoS::AtLeastOnce, false, encode(&resolution(&escalation, said)));
                }
                Event::Incoming(_) | Event::Outgoing(_) => {}
            }
        }
        tokio::time::sleep(RECONNECT).await;
    }
}

fn resolution(escalation: &Escalation, said: u64) -> Resolution {
    let word = format!("cloud-{said}");
    let body = match escalation.task.schema {
        Some(_) => Body::Json(Json(serde_json::json!({ "intent": word }))),
        None => Body::Text(word.into()),
    };
    Resolution {
        v: 1,
        job: escalation.job,
        origin: escalation.origin.clone(),
        attempt: escalation.attempt,
        outcome: ResolvedOutcome::Answer(body),
        confidence: None,
        model: "rig".parse().expect("letters"),
        usage: Usage::default(),
        timing: Timing::default(),
        traceparent: None,
    }
}

/// Sections of a gateway's configuration for a town: one task always goes to the cloud, and nothing waits long for it.
/// It begins inside the section of the last task.
pub(crate) const SETTINGS: &str =
    "threshold = 1.0\n\n[limits]\nlease_ms_min = 1000\ncloud_wait_ms = 20000\n\n[spool]\nfree_mib_min = 1\n";
