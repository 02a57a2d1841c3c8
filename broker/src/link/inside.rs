//! A connection inside the process, straight to rumqttd's router: no socket, no encoding, and one thread less on the way.
//!
//! Invariants: nothing here waits for the router; its window and its pauses are kept, so that what its client does not
//! take stays in its log; it never speaks of a connection that it has left, which would be another's by then.

use super::entrance::Entrance;
use super::offsets::Offsets;
use super::words::{self, Deal};
use super::{Appetite, Hello, Memory};
use crate::codec::{Ack, Packet, Publish, QoS};
use rumqttd::local::{LinkRx, LinkTx};
use rumqttd::protocol::{Disconnect, DisconnectReasonCode, Packet as Word, PingReq, Publish as Message};
use rumqttd::{Forward, Notification};
use std::collections::{BTreeSet, VecDeque};
use std::io;
use std::pin::Pin;
use std::time::Duration;
use tokio::time::sleep;

/// Pause before a router whose queue of events is full is told again.
const TELL_AGAIN: Duration = Duration::from_millis(1);

/// Messages that are taken from the router while there is no room for them, so that answers between them get through. Beyond,
/// nothing is: the router pauses after 200, and the rest stays in its log.
const HELD_MAX: usize = 256;

/// Both ends of a connection. It leaves the router when it is dropped.
pub(super) struct Line {
    tx: LinkTx,
    rx: LinkRx,
    present: bool,
    /// Whether the router was ever asked to go on after a pause. It dies of such a word about a connection that has
    /// left, and a goodbye may overtake it; so another of the same name has to come, who cannot.
    resumed: bool,
    left: bool,
}

impl Line {
    pub(super) fn new(tx: LinkTx, rx: LinkRx, present: bool) -> Self {
        Self { tx, rx, present, resumed: false, left: false }
    }

    /// Another has taken its name.
    pub(super) fn forget(mut self) {
        self.left = true;
    }

    fn push(&self, word: Word) {
        self.tx.buffer().push_back(word);
    }

    /// Tells the router that there is something. False if it has too much to do now, or has died, which the other end
    /// says.
    fn tell(&mut self) -> bool {
        // Of the calls that do not wait this is the one that changes nothing: nobody subscribes an empty filter.
        self.tx.try_unsubscribe(String::new()).is_ok()
    }

    /// Says goodbye. False if another of its name has to come.
    fn leave(&mut self) -> bool {
        if !self.left && !self.resumed {
            let reason_code = DisconnectReasonCode::NormalDisconnection;
            self.push(Word::Disconnect(Disconnect { reason_code }, None));
            self.left = self.tell();
        }
        self.left
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        self.leave();
    }
}

/// Whose ping a PINGRESP answers.
enum Ping {
    Owners,
    /// Ours: the router has taken so many bytes at QoS 0, which it does not acknowledge.
    Mark(usize),
}

pub(crate) struct Inside {
    line: Line,
    entrance: Entrance,
    name: String,
    memory: Memory,
    /// Whether the backend still had the session.
    pub(super) present: bool,
    given_up: Pin<Box<dyn Future<Output = ()> + Send>>,
    deal: Option<Deal>,
    filters: BTreeSet<String>,
    offsets: Offsets,
    /// Messages that had left the log before they were read.
    lost: u64,
    /// Messages that came while there was no room for them, up to [`HELD_MAX`].
    held: VecDeque<Message>,
    /// The router waits until it is asked to go on.
    paused: bool,
    /// It does not know yet of all that was pushed.
    untold: bool,
    pings: VecDeque<Ping>,
    /// Bytes at QoS 0 that it may not have taken, marked and not.
    marked_bytes: usize,
    unmarked_bytes: usize,
}

impl Inside {
    pub(super) fn new(line: Line, hello: &Hello, entrance: Entrance) -> Self {
        Self {
            present: line.present,
            line,
            name: hello.client_id.clone(),
            memory: hello.memory,
            given_up: Box::pin(entrance.clone().given_up()),
            entrance,
            deal: None,
            filters: BTreeSet::new(),
            offsets: Offsets::default(),
            lost: 0,
            held: VecDeque::new(),
            paused: false,
            untold: false,
            pings: VecDeque::new(),
            marked_bytes: 0,
            unmarked_bytes: 0,
        }
    }

    pub(super) fn push(&mut self, packet: &Packet) {
        let word = match packet {
            Packet::Publish(publish) => return self.publish(publish),
            Packet::PubAck(ack) => words::acknowledged(ack.id),
            Packet::Subscribe { id, filters, .. } => {
                let deal = *self.deal.get_or_insert_with(|| Deal::for_filters(self.memory, filters));
                self.filters.extend(filters.iter().map(|filter| filter.filter.clone()));
                words::subscribe(*id, filters, deal)
            }
            Packet::Unsubscribe { id, filters } => {
                self.filters.retain(|filter| !filters.contains(filter));
                words::unsubscribe(*id, filters)
            }
            Packet::PingReq => {
                self.pings.push_back(Ping::Owners);
                Word::PingReq(PingReq)
            }
            // Nothing else is said to rumqttd.
            _ => return,
        };
        self.say(word);
    }

    pub(super) fn publish(&mut self, publish: &Publish) {
        if publish.qos == QoS::AtMostOnce {
            self.unmarked_bytes += publish.topic.len() + publish.payload.len();
        }
        self.say(words::publish(publish));
    }

    fn say(&mut self, word: Word) {
        self.line.push(word);
        self.untold = true;
    }

    pub(super) fn waiting_bytes(&self) -> usize {
        self.marked_bytes + self.unmarked_bytes
    }

    pub(super) fn take_lost(&mut self) -> u64 {
        std::mem::take(&mut self.lost)
    }

    /// Tells the router of what was pushed. False if that has to be done again.
    fn tell(&mut self) -> bool {
        if self.untold {
            if self.unmarked_bytes > 0 && self.marked_bytes == 0 {
                self.marked_bytes = std::mem::take(&mut self.unmarked_bytes);
                self.pings.push_back(Ping::Mark(self.marked_bytes));
                self.line.push(Word::PingReq(PingReq));
            }
            self.untold = !self.line.tell();
        }
        !self.untold
    }

    pub(super) async fn turn_or_room(&mut self, room_at: usize, appetite: Appetite) -> io::Result<Option<Packet>> {
        let full = self.waiting_bytes() >= room_at;
        // Only what is acknowledged at once needs room: of the rest the window holds back QoS 1, and QoS 0 is dropped.
        let hungry = appetite == Appetite::Hungry || self.deal != Some(Deal::Swapped);
        loop {
            if hungry && let Some(message) = self.held.pop_front() {
                return Ok(Some(self.delivered(message)));
            }
            if hungry && self.paused {
                self.line.resumed = true;
                self.line.rx.wake().await.map_err(|_| io::ErrorKind::BrokenPipe)?;
                self.paused = false;
            }
            let told = self.tell();
            tokio::select! {
                biased;
                notification = self.line.rx.next(), if hungry || self.held.len() < HELD_MAX => {
                    let notification = notification.map_err(|_| io::ErrorKind::BrokenPipe)?;
                    let packet = notification.map(|notification| self.take(notification)).transpose()?.flatten();
                    if packet.is_some() {
                        return Ok(packet);
                    }
                }
                () = sleep(TELL_AGAIN), if !told => {}
                () = &mut self.given_up => return Err(io::ErrorKind::BrokenPipe.into()),
            }
            if full && self.waiting_bytes() < room_at {
                return Ok(None);
            }
        }
    }

    /// What the router says, if it is for the owner and need not wait.
    fn take(&mut self, notification: Notification) -> io::Result<Option<Packet>> {
        let word: Option<Word> = match notification {
            Notification::Forward(Forward { publish, cursor, .. }) => {
                // A retained message has none.
                self.lost += cursor.map_or(0, |(_, at)| self.offsets.pass(at, self.filters.len()));
                self.held.push_back(publish);
                return Ok(None);
            }
            Notification::Unschedule => {
                self.paused = true;
                return Ok(None);
            }
            notification => notification.into(),
        };
        match word {
            Some(Word::PubAck(ack, _)) => Ok(Some(Packet::PubAck(Ack::success(ack.pkid)))),
            Some(Word::SubAck(ack, _)) => {
                let deal = self.deal.unwrap_or(Deal::Straight);
                let codes = ack.return_codes.iter().map(|code| words::code(*code, deal)).collect();
                Ok(Some(Packet::SubAck { id: ack.pkid, codes }))
            }
            Some(Word::UnsubAck(ack, _)) => Ok(Some(Packet::UnsubAck { id: ack.pkid, codes: Vec::new() })),
            Some(Word::PingResp(_)) => Ok(self.pong()),
            Some(Word::Disconnect(..)) => Err(io::ErrorKind::ConnectionAborted.into()),
            _ => Ok(None),
        }
    }

    fn pong(&mut self) -> Option<Packet> {
        match self.pings.pop_front()? {
            Ping::Owners => Some(Packet::PingResp),
            Ping::Mark(bytes) => {
                self.marked_bytes -= bytes;
                // What was said since then needs a mark too.
                self.untold |= self.unmarked_bytes > 0;
                None
            }
        }
    }

    fn delivered(&mut self, message: Message) -> Packet {
        let (mut publish, grade) = words::message(message);
        if self.deal == Some(Deal::Swapped) {
            if grade == QoS::AtLeastOnce {
                self.say(words::acknowledged(publish.id));
            }
            publish.id = 0;
            publish.qos = Deal::Swapped.of(grade);
        }
        Packet::Publish(Box::new(publish))
    }
}

impl Drop for Inside {
    fn drop(&mut self) {
        if !self.line.leave() {
            self.entrance.close(std::mem::take(&mut self.name), self.memory);
            // Its own goodbye would come from nobody.
            self.line.left = true;
        }
    }
}
