//! The general traffic of one client: its connection to the backend, opened when first needed, renewed when the backend was
//! replaced. Publishes to rumqttd go through the trunk instead.
//!
//! Invariants: a publish stays with session or trunk until the backend acknowledged it; rumqttd gets acknowledgements in
//! its own order, whatever order the client's came in; SUBACK and UNSUBACK follow the backend's.

use super::asked::{Asked, Questions};
use super::ramp::Ramp;
use crate::backend::Backend;
use crate::codec::{Ack, Filter, Packet, Publish, QoS, reason};
use crate::link::{Address, Appetite, Hello, Kind, Link, Memory};
use crate::upstream::{Stage, Taken, Unacked, Upstream};
use futures_util::FutureExt;
use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::time::Duration;
use tokio::sync::{oneshot, watch};
use tokio::time::{Instant, sleep, sleep_until, timeout};

/// After the backend was lost publishes wait so long before they go to the new one, so that those who subscribed have
/// said so again: all of them are told at once, and a reconnection takes milliseconds.
const RENEWAL: Duration = Duration::from_millis(500);
/// Pause before a loopback connection that broke is opened again.
const REOPEN_PAUSE: Duration = Duration::from_millis(50);

type Opening = Pin<Box<dyn Future<Output = io::Result<Link>> + Send>>;

enum State {
    Idle,
    Opening(Opening),
    Up(Link),
    Broken,
}

/// What the loopback connection brings.
pub(super) enum Arrival {
    Publish(Box<Publish>),
    /// SUBACKs and UNSUBACKs for the client.
    Acks(Vec<Packet>),
    /// The backend has forgotten what it sent; the acknowledgements that are due all the same.
    Forgot(Vec<Packet>),
    Nothing,
}

pub(super) struct General {
    kind: Kind,
    /// The way of publishes, if the backend is rumqttd.
    ramp: Option<Ramp>,
    bytes_max: usize,
    state: State,
    address: watch::Receiver<Address>,
    hello: Hello,
    questions: Questions,
    upstream: Upstream,
    /// QoS 0 publishes that wait for the connection to open.
    backlog: Vec<Packet>,
    backlog_bytes: usize,
    /// Packet ids that rumqttd waits for, in its order, and whether the client acknowledged them.
    owed: VecDeque<(u16, bool)>,
    /// Until when publishes wait.
    hold: Option<Instant>,
    /// Whether a connection was lost.
    lost: bool,
}

impl General {
    /// `bytes_max` is what the backend may not have taken before the client is not read any more.
    pub(super) fn new(backend: &Backend, hello: Hello, upstream: Upstream, bytes_max: usize) -> Self {
        Self {
            kind: backend.kind,
            ramp: backend.trunk.clone().map(|trunk| Ramp::new(trunk, bytes_max)),
            bytes_max,
            state: State::Idle,
            address: backend.address.clone(),
            hello,
            questions: Questions::default(),
            upstream,
            backlog: Vec::new(),
            backlog_bytes: 0,
            owed: VecDeque::new(),
            hold: None,
            lost: false,
        }
    }

    pub(super) fn is_used(&self) -> bool {
        !matches!(self.state, State::Idle)
    }

    /// Bytes that the backend has not taken.
    pub(super) fn waiting_bytes(&self) -> usize {
        let link = if let State::Up(link) = &self.state { link.waiting_bytes() } else { 0 };
        self.backlog_bytes + link + self.ramp.as_ref().map_or(0, Ramp::bytes)
    }

    pub(super) fn take_lost(&mut self) -> u64 {
        if let State::Up(link) = &mut self.state { link.take_lost() } else { 0 }
    }

    /// Opens the connection for a session that the backend knows from before.
    pub(super) fn resume(&mut self, filters: Vec<(Filter, Option<u32>)>) {
        self.questions.knows(filters);
        self.open();
    }

    fn open(&mut self) {
        let address = self.address.borrow_and_update().clone();
        self.state = State::Opening(Box::pin(Link::open(address, self.hello.clone())));
    }

    fn next_id(&mut self) -> u16 {
        let questions = &self.questions;
        self.upstream.next_id(|id| questions.has(id))
    }

    fn push(&mut self, packet: Packet) {
        match &mut self.state {
            State::Up(link) if self.hold.is_none() || !matches!(packet, Packet::Publish(_)) => link.push(&packet),
            State::Idle => {
                self.open();
                self.keep(packet);
            }
            State::Up(_) | State::Opening(_) | State::Broken => self.keep(packet),
        }
    }

    /// Keeps for later what is not rebuilt at every opening: QoS 0 publishes only.
    fn keep(&mut self, packet: Packet) {
        let Packet::Publish(publish) = &packet else { return };
        if publish.qos == QoS::AtMostOnce {
            self.backlog_bytes += publish.payload.len() + publish.topic.len();
            self.backlog.push(packet);
        }
    }

    /// Passes a publish on; resolves when the backend acknowledged it, at once for QoS 0.
    pub(super) fn publish(&mut self, mut publish: Publish) -> oneshot::Receiver<Taken> {
        if let Some(ramp) = &mut self.ramp {
            return ramp.publish(publish, self.questions.is_open());
        }
        let (done, receiver) = oneshot::channel();
        publish.properties = publish.properties.of_message();
        if publish.qos == QoS::AtMostOnce {
            publish.dup = false;
            // The receiver is not waited for at QoS 0.
            self.push(Packet::Publish(Box::new(publish)));
            return receiver;
        }
        if let Some(unacked) = self.upstream.repeated(&publish) {
            unacked.done = Some(done);
            return receiver;
        }
        publish.dup = false;
        let client_id = publish.id;
        publish.id = self.next_id();
        self.upstream.unacked.push_back(Unacked { publish, client_id, stage: Stage::Waiting, done: Some(done) });
        if matches!(self.state, State::Idle) {
            self.open();
        }
        self.pump();
        receiver
    }

    /// Passes on what waited for the answer to a question.
    fn let_go(&mut self) {
        if let Some(ramp) = &mut self.ramp
            && !self.questions.is_open()
        {
            ramp.let_go();
        }
    }

    /// Sends the publishes that the backend's window has room for.
    fn pump(&mut self) {
        let State::Up(link) = &mut self.state else { return };
        if self.hold.is_some() {
            return;
        }
        let room = link.window().saturating_sub(self.upstream.under_way());
        let waiting = self.upstream.unacked.iter_mut().filter(|u| u.stage == Stage::Waiting);
        for unacked in waiting.take(room) {
            link.push(&Packet::Publish(Box::new(unacked.publish.clone())));
            unacked.stage = Stage::Published;
        }
    }

    /// Subscribes; the SUBACK with `codes` comes as an arrival, the places in `forwarded` with the backend's codes.
    pub(super) fn subscribe(&mut self, question: Asked) {
        let link_id = self.next_id();
        let packet = self.questions.subscribe(link_id, question);
        self.push(packet);
    }

    /// Unsubscribes; the UNSUBACK with `codes` comes as an arrival.
    pub(super) fn unsubscribe(&mut self, client_id: u16, filters: Vec<String>, codes: Vec<u8>) {
        // One packet each: rumqttd answers several filters with several UNSUBACKs.
        let mut named = Vec::with_capacity(filters.len());
        for filter in filters {
            named.push((self.next_id(), filter));
        }
        for packet in self.questions.unsubscribe(client_id, named, codes) {
            self.push(packet);
        }
    }

    /// The client acknowledged what the backend sent under this id.
    pub(super) fn acknowledge(&mut self, link_id: u16, qos: QoS, code: u8) {
        if link_id == 0 {
            return;
        }
        if qos == QoS::ExactlyOnce && code < reason::UNSPECIFIED {
            self.upstream.received.insert(link_id);
        }
        let State::Up(link) = &mut self.state else { return };
        let ack = Ack { id: link_id, reason: code, reason_string: None };
        match (self.kind, qos) {
            (Kind::Rumqttd, _) => {
                if let Some(owed) = self.owed.iter_mut().find(|(id, done)| *id == link_id && !done) {
                    owed.1 = true;
                }
                while let Some((id, true)) = self.owed.front() {
                    link.push(&Packet::PubAck(Ack::success(*id)));
                    self.owed.pop_front();
                }
            }
            (Kind::Whole, QoS::ExactlyOnce) => link.push(&Packet::PubRec(ack)),
            (Kind::Whole, _) => link.push(&Packet::PubAck(ack)),
        }
    }

    /// The door answers for it from now on; its packet id means nothing any more.
    pub(super) fn taken_over(&mut self, link_id: u16) -> u16 {
        self.acknowledge(link_id, QoS::AtLeastOnce, reason::SUCCESS);
        0
    }

    /// The next thing that the backend brings. May be dropped at any await without loss.
    pub(super) async fn turn(&mut self, appetite: Appetite) -> Arrival {
        let waits = self.questions.is_open();
        match &mut self.state {
            State::Idle => eased(&mut self.ramp, waits).await,
            State::Opening(opening) => match opening.await {
                Ok(link) => return self.opened(link),
                Err(_) => self.state = State::Broken,
            },
            State::Up(link) => {
                let held = self.hold.unwrap_or_else(Instant::now);
                let turned = tokio::select! {
                    turned = link.turn_or_room(self.bytes_max, appetite) => turned,
                    () = sleep_until(held), if self.hold.is_some() => {
                        self.go_on();
                        return Arrival::Nothing;
                    }
                    // There is room, as when the connection itself has it: the client may be read again.
                    () = eased(&mut self.ramp, waits) => return Arrival::Nothing,
                };
                match turned {
                    Ok(packet) => return packet.map_or(Arrival::Nothing, |packet| self.arrived(packet)),
                    Err(_) => (self.state, self.lost) = (State::Broken, true),
                }
            }
            State::Broken => {
                // Either there is a new backend, or the same one lets us in again. A watcher that has gone tells nothing.
                let _ = timeout(REOPEN_PAUSE, self.address.changed()).await;
                sleep(Duration::from_millis(1)).await;
                self.open();
            }
        }
        Arrival::Nothing
    }

    /// What the open connection has brought already.
    pub(super) fn ready(&mut self, appetite: Appetite) -> Option<Arrival> {
        if matches!(self.state, State::Up(_)) { self.turn(appetite).now_or_never() } else { None }
    }

    fn opened(&mut self, mut link: Link) -> Arrival {
        if self.hello.memory == Memory::Fresh {
            self.hello.memory = Memory::Resume;
        }
        // rumqttd numbers anew what it sends again.
        let forgot = !link.present() || self.kind == Kind::Rumqttd;
        self.owed.clear();
        let mut due = Vec::new();
        if forgot {
            self.upstream.received.clear();
            let id = self.next_id();
            due = self.questions.again(id, &mut |packet| link.push(packet));
            self.let_go();
        } else {
            self.questions.repeat(&mut |packet| link.push(packet));
        }
        for unacked in &mut self.upstream.unacked {
            match unacked.stage {
                Stage::Released if !forgot => link.push(&Packet::PubRel(Ack::success(unacked.publish.id))),
                Stage::Published if !forgot => {
                    let publish = Publish { dup: true, ..unacked.publish.clone() };
                    link.push(&Packet::Publish(Box::new(publish)));
                }
                Stage::Waiting | Stage::Published | Stage::Released => unacked.stage = Stage::Waiting,
            }
        }
        let renewed = self.address.borrow().since.map(|since| since + RENEWAL);
        let reopened = (forgot && self.lost).then(|| Instant::now() + RENEWAL);
        self.hold = renewed.max(reopened).filter(|until| *until > Instant::now());
        self.state = State::Up(link);
        if self.hold.is_none() {
            self.go_on();
        }
        if forgot { Arrival::Forgot(due) } else { Arrival::Nothing }
    }

    /// Publishes what waited.
    fn go_on(&mut self) {
        self.hold = None;
        if let State::Up(link) = &mut self.state {
            self.backlog.drain(..).for_each(|packet| link.push(&packet));
            self.backlog_bytes = 0;
        }
        self.pump();
    }

    fn arrived(&mut self, packet: Packet) -> Arrival {
        match packet {
            Packet::Publish(publish) => return self.delivered(publish),
            Packet::PubAck(ack) | Packet::PubComp(ack) => self.taken(ack),
            Packet::PubRec(ack) if ack.reason >= reason::UNSPECIFIED => self.taken(ack),
            Packet::PubRec(ack) => {
                let unacked = self.upstream.unacked.iter_mut().find(|u| u.publish.id == ack.id);
                unacked.into_iter().for_each(|unacked| unacked.stage = Stage::Released);
                self.push(Packet::PubRel(Ack::success(ack.id)));
            }
            Packet::PubRel(ack) => {
                self.upstream.received.remove(&ack.id);
                self.push(Packet::PubComp(Ack::success(ack.id)));
            }
            Packet::SubAck { id, codes } | Packet::UnsubAck { id, codes } => {
                let due = self.questions.answered(id, &codes);
                self.let_go();
                return Arrival::Acks(due);
            }
            Packet::Disconnect { reason, .. } => {
                tracing::warn!(reason = format_args!("0x{reason:02x}"), "the backend ended a loopback connection");
                (self.state, self.lost) = (State::Broken, true);
            }
            _ => {}
        }
        Arrival::Nothing
    }

    fn delivered(&mut self, publish: Box<Publish>) -> Arrival {
        match (self.kind, publish.qos) {
            // Without an identifier it is acknowledged already.
            (Kind::Rumqttd, _) if publish.id == 0 => {}
            (Kind::Rumqttd, QoS::AtLeastOnce | QoS::ExactlyOnce) => self.owed.push_back((publish.id, false)),
            (Kind::Whole, QoS::ExactlyOnce) if self.upstream.received.contains(&publish.id) => {
                self.push(Packet::PubRec(Ack::success(publish.id)));
                return Arrival::Nothing;
            }
            _ => {}
        }
        Arrival::Publish(publish)
    }

    fn taken(&mut self, ack: Ack) {
        let Ack { id, reason, reason_string } = ack;
        self.upstream.done(id, Taken { reason, reason_string });
        self.pump();
    }

    /// Lets go of the backend, so that the session can come back through another connection; `expiry_s` is how long it
    /// lives on. A client may have published and left before there was a connection: what it said is passed on all the
    /// same. Returns what is to be kept for then.
    pub(super) async fn close(mut self, expiry_s: u32) -> Upstream {
        if let State::Opening(opening) = &mut self.state
            && let Ok(link) = opening.await
        {
            self.opened(link);
            self.go_on();
        }
        if let Some(ramp) = &mut self.ramp {
            ramp.finish().await;
        }
        if let State::Up(link) = self.state {
            link.close(expiry_s).await;
        }
        self.upstream.left()
    }
}

/// Resolves when the client may be read again.
async fn eased(ramp: &mut Option<Ramp>, waits: bool) {
    match ramp {
        Some(ramp) => ramp.eased(waits).await,
        None => std::future::pending().await,
    }
}
