//! The general traffic of one client: its loopback connection, opened when first needed, renewed when rumqttd was
//! replaced.
//!
//! Invariants: a publish stays in `unacked` until rumqttd acknowledged it; rumqttd gets acknowledgements in its own
//! order, whatever order the client's came in.

use crate::codec::{Ack, Filter, Packet, Properties, Publish, QoS};
use crate::link::{Address, Link, Memory};
use crate::session::Session;
use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::time::Duration;
use tokio::sync::{oneshot, watch};
use tokio::time::{sleep, timeout};

/// Pause before a loopback connection that broke is opened again.
const REOPEN_PAUSE: Duration = Duration::from_millis(50);

type Opening = Pin<Box<dyn Future<Output = io::Result<Link>> + Send>>;

enum State {
    Idle,
    Opening(Opening),
    Up(Link),
    Broken,
}

/// What rumqttd is to remember of a session.
pub(super) fn memory(session: &Session) -> Memory {
    match (session.expiry.is_zero(), session.remembered) {
        (true, _) => Memory::None,
        (false, false) => Memory::Fresh,
        (false, true) => Memory::Resume,
    }
}

/// What the loopback connection brings.
pub(super) enum Arrival {
    Publish(Box<Publish>),
    /// SUBACKs for the client.
    SubAcks(Vec<Packet>),
    Nothing,
}

struct Unacked {
    publish: Publish,
    done: oneshot::Sender<()>,
}

struct Asked {
    link_id: u16,
    client_id: u16,
    codes: Vec<u8>,
}

pub(super) struct General {
    state: State,
    address: watch::Receiver<Address>,
    name: String,
    memory: Memory,
    /// What rumqttd is to know, for when it forgot.
    filters: Vec<Filter>,
    unacked: VecDeque<Unacked>,
    /// QoS 0 publishes and the like that wait for the connection to open.
    backlog: Vec<Packet>,
    backlog_bytes: usize,
    asked: Vec<Asked>,
    /// Packet ids that rumqttd waits for, in its order, and whether the client acknowledged them.
    owed: VecDeque<(u16, bool)>,
    last_id: u16,
}

impl General {
    pub(super) fn new(address: watch::Receiver<Address>, slot: u32, memory: Memory) -> Self {
        Self {
            state: State::Idle,
            address,
            name: format!("s{slot}"),
            memory,
            filters: Vec::new(),
            unacked: VecDeque::new(),
            backlog: Vec::new(),
            backlog_bytes: 0,
            asked: Vec::new(),
            owed: VecDeque::new(),
            last_id: 0,
        }
    }

    pub(super) fn is_used(&self) -> bool {
        !matches!(self.state, State::Idle)
    }

    /// Bytes that rumqttd has not taken.
    pub(super) fn waiting_bytes(&self) -> usize {
        let link = if let State::Up(link) = &self.state { link.waiting_bytes() } else { 0 };
        self.backlog_bytes + link
    }

    /// Opens the connection for a session that rumqttd knows from before.
    pub(super) fn resume(&mut self, filters: Vec<Filter>) {
        self.filters = filters;
        self.open();
    }

    fn open(&mut self) {
        let address = self.address.borrow_and_update().clone();
        self.state = State::Opening(Box::pin(Link::open(address, self.name.clone(), self.memory)));
    }

    fn next_id(&mut self) -> u16 {
        loop {
            self.last_id = self.last_id.checked_add(1).unwrap_or(1);
            if self.unacked.iter().all(|u| u.publish.id != self.last_id) {
                return self.last_id;
            }
        }
    }

    fn push(&mut self, packet: Packet) {
        match &mut self.state {
            State::Up(link) => link.push(&packet),
            State::Idle => {
                self.open();
                self.keep(packet);
            }
            State::Opening(_) | State::Broken => self.keep(packet),
        }
    }

    /// Keeps for later what is not rebuilt at every opening: QoS 0 publishes only.
    fn keep(&mut self, packet: Packet) {
        if let Packet::Publish(publish) = &packet
            && publish.qos == QoS::AtMostOnce
        {
            self.backlog_bytes += publish.payload.len() + publish.topic.len();
            self.backlog.push(packet);
        }
    }

    /// Passes a publish on; resolves when rumqttd acknowledged it, at once for QoS 0.
    pub(super) fn publish(&mut self, mut publish: Publish) -> oneshot::Receiver<()> {
        let (done, receiver) = oneshot::channel();
        publish.properties = Properties::default();
        publish.dup = false;
        if publish.qos == QoS::AtMostOnce {
            self.push(Packet::Publish(Box::new(publish)));
            // The receiver is not waited for at QoS 0.
            let _ = done.send(());
            return receiver;
        }
        publish.qos = QoS::AtLeastOnce;
        publish.id = self.next_id();
        self.unacked.push_back(Unacked { publish: publish.clone(), done });
        self.push(Packet::Publish(Box::new(publish)));
        receiver
    }

    /// Subscribes; the SUBACK with `codes` comes as an arrival.
    pub(super) fn subscribe(&mut self, client_id: u16, filters: Vec<Filter>, codes: Vec<u8>) {
        self.filters.retain(|known| filters.iter().all(|new| new.filter != known.filter));
        self.filters.extend(filters.iter().cloned());
        let link_id = self.next_id();
        self.asked.push(Asked { link_id, client_id, codes });
        self.push(Packet::Subscribe { id: link_id, filters, properties: Box::default() });
    }

    pub(super) fn unsubscribe(&mut self, filter: &str) {
        self.filters.retain(|known| known.filter != filter);
        let id = self.next_id();
        self.push(Packet::Unsubscribe { id, filters: vec![filter.to_owned()] });
    }

    /// The client acknowledged what rumqttd sent under this id.
    pub(super) fn acknowledge(&mut self, link_id: u16) {
        let State::Up(link) = &mut self.state else { return };
        if let Some(owed) = self.owed.iter_mut().find(|(id, done)| *id == link_id && !done) {
            owed.1 = true;
        }
        while let Some((id, true)) = self.owed.front() {
            link.push(&Packet::PubAck(Ack::success(*id)));
            self.owed.pop_front();
        }
    }

    /// The next thing that rumqttd brings. May be dropped at any await without loss.
    pub(super) async fn turn(&mut self) -> Arrival {
        match &mut self.state {
            State::Idle => std::future::pending().await,
            State::Opening(opening) => match opening.await {
                Ok(link) => self.opened(link),
                Err(_) => self.state = State::Broken,
            },
            State::Up(link) => match link.turn().await {
                Ok(packet) => return self.arrived(packet),
                Err(_) => self.state = State::Broken,
            },
            State::Broken => {
                // Either there is a new rumqttd, or the same one lets us in again. A watcher that has gone tells nothing.
                let _ = timeout(REOPEN_PAUSE, self.address.changed()).await;
                sleep(Duration::from_millis(1)).await;
                self.open();
            }
        }
        Arrival::Nothing
    }

    fn opened(&mut self, mut link: Link) {
        if self.memory == Memory::Fresh {
            self.memory = Memory::Resume;
        }
        self.owed.clear();
        if !self.filters.is_empty() {
            let id = self.next_id();
            self.asked.iter_mut().for_each(|asked| asked.link_id = id);
            link.push(&Packet::Subscribe { id, filters: self.filters.clone(), properties: Box::default() });
        }
        for unacked in &self.unacked {
            link.push(&Packet::Publish(Box::new(unacked.publish.clone())));
        }
        for packet in self.backlog.drain(..) {
            link.push(&packet);
        }
        self.backlog_bytes = 0;
        self.state = State::Up(link);
    }

    fn arrived(&mut self, packet: Packet) -> Arrival {
        match packet {
            Packet::Publish(publish) => {
                if publish.qos != QoS::AtMostOnce {
                    self.owed.push_back((publish.id, false));
                }
                Arrival::Publish(publish)
            }
            Packet::PubAck(ack) => {
                if let Some(at) = self.unacked.iter().position(|u| u.publish.id == ack.id)
                    && let Some(unacked) = self.unacked.remove(at)
                {
                    // A connection that is ending waits for nothing any more.
                    let _ = unacked.done.send(());
                }
                Arrival::Nothing
            }
            Packet::SubAck { id, .. } => {
                let answered = self.asked.extract_if(.., |asked| asked.link_id == id);
                Arrival::SubAcks(answered.map(|a| Packet::SubAck { id: a.client_id, codes: a.codes }).collect())
            }
            _ => Arrival::Nothing,
        }
    }

    /// Lets go of rumqttd, so that the session can come back through another connection.
    pub(super) async fn close(self) {
        match self.state {
            State::Up(link) => link.close().await,
            State::Opening(opening) => {
                if let Ok(link) = opening.await {
                    link.close().await;
                }
            }
            State::Idle | State::Broken => {}
        }
    }
}
