//! One connection to the central broker: escalations, items and words out, resolutions in.
//!
//! Invariants: a publish counts as taken on the success PUBACK of exactly that publish; when the connection ends, all
//! that it had not acknowledged is given back as unsent; a resolution is acknowledged after its outcome is on disk, in
//! the order of arrival, on the connection that brought it.

mod outgoing;

use super::feed::Item;
use super::pace::Pace;
use super::past::Past;
use super::shore::Shore;
use super::watch::Watch;
use crate::link::{Ack, Cause, Delivery, Down, Heard, Incoming, Line, Parcel, Untaken, Version, Welcome, Window};
use crate::up::message::ToBridge;
use bytes::Bytes;
use std::collections::VecDeque;
use std::time::{Duration, Instant};
use tidegate_schemas::{DeviceTopic, ESCALATION_BYTES_MAX, Escalation, JobId, Topic, decode_resolution};
use tracing::{info, warn};

/// Room for topic and properties within the broker's Maximum Packet Size, in bytes.
const FRAMING_BYTES: usize = 512;
/// Words about ourselves that wait for the window, at most; the oldest gives way.
const WORDS_MAX: usize = 64;

/// Shortest sleep between two looks, so that a moment that has come cannot make the loop spin.
const LOOK_LEAST: Duration = Duration::from_millis(1);
/// The same while the broker has not taken us.
const LOOK_UNTAKEN: Duration = Duration::from_millis(250);

/// A publish under way: what it is, and its bytes.
struct Cargo {
    what: What,
    bytes: usize,
}

enum What {
    Escalation(JobId, u32),
    Item(Item),
    Word,
    Canary,
}

/// A subscription whose answer is due.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Asked {
    Resolutions,
    Canary,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Dealt {
    Open,
    Done,
}

/// What belongs to one connection and dies with it.
pub(super) struct Session {
    line: Line,
    pub(super) watch: Watch,
    pace: Pace,
    window: Window<Cargo>,
    /// Escalations that wait for room.
    waiting: VecDeque<(Box<Escalation>, Past)>,
    /// Events that wait for room.
    words: VecDeque<(String, Bytes)>,
    /// Resolutions that are not acknowledged, in order of arrival.
    unacknowledged: VecDeque<(u64, Box<Incoming>, Dealt)>,
    asked: VecDeque<Asked>,
    payload_max: usize,
    /// Tells canaries of this connection from any other.
    nonce: u32,
    up: bool,
    /// Whether anything was acknowledged on it.
    progressed: bool,
}

impl Session {
    /// A session on a connection that is being made.
    pub(super) fn new(line: Line, watch: Watch) -> Self {
        Self {
            line,
            watch,
            pace: Pace::new(),
            window: Window::new(),
            waiting: VecDeque::new(),
            words: VecDeque::new(),
            unacknowledged: VecDeque::new(),
            asked: VecDeque::new(),
            payload_max: ESCALATION_BYTES_MAX,
            nonce: getrandom::u32().unwrap_or(0),
            up: false,
            progressed: false,
        }
    }

    /// What is heard next. Safe to drop.
    pub(super) async fn next(&mut self) -> Heard {
        self.line.next().await
    }

    /// Whether the broker took us and our subscription.
    pub(super) fn is_up(&self) -> bool {
        self.up
    }

    /// Whether the link stood still for its whole life although something was under way.
    pub(super) fn stalled(&self) -> bool {
        self.up && !self.progressed && self.window.len() > 0
    }

    /// When to look again without being called.
    pub(super) fn wake(&self, now: Instant) -> Instant {
        let watch = self.watch.next(self.window.oldest(), now);
        let wake = self.pace.resumes(now).map_or(watch, |at| watch.min(at));
        // A canary that is due before the broker took us waits, and must not make the loop spin.
        wake.max(now + if self.up { LOOK_LEAST } else { LOOK_UNTAKEN })
    }

    /// Time has passed.
    pub(super) fn tick(&mut self, shore: &mut Shore) -> Result<(), Down> {
        let now = Instant::now();
        if let Some(why) = self.watch.death(self.window.oldest(), now) {
            return Err(Down::broken(why));
        }
        if self.up
            && let Some(number) = self.watch.release(now)
        {
            let payload = format!("{:08x}-{number}", self.nonce);
            let parcel = Parcel::acknowledged(shore.canary_topic(), payload.into_bytes());
            self.send(parcel, What::Canary, shore)?;
        }
        self.pump(shore)
    }

    /// An order of the hub.
    pub(super) fn order(&mut self, order: ToBridge, shore: &mut Shore) -> Result<(), Down> {
        match order {
            ToBridge::Publish(escalation, past) if self.up => self.waiting.push_back((escalation, past)),
            ToBridge::Publish(escalation, _) => shore.unsent(escalation.job, escalation.attempt),
            ToBridge::State(topic, payload) => {
                if self.up {
                    self.state(&topic, &payload, shore)?;
                }
                shore.remember(topic, payload);
            }
            ToBridge::Event(topic, payload) => {
                if self.words.len() == WORDS_MAX {
                    self.words.pop_front();
                }
                self.words.push_back((topic, payload));
            }
            ToBridge::Settled(number) => self.settle(number)?,
            ToBridge::Stop(..) => {}
        }
        self.pump(shore)
    }

    /// Something was heard.
    pub(super) fn hear(&mut self, heard: Heard, shore: &mut Shore) -> Result<(), Down> {
        match heard {
            Heard::Down(down) => return Err(down),
            Heard::Sent(packet) => self.window.sent(packet),
            other => {
                self.watch.heard(Instant::now());
                self.word(other, shore)?;
            }
        }
        self.pump(shore)
    }

    fn word(&mut self, heard: Heard, shore: &mut Shore) -> Result<(), Down> {
        match heard {
            Heard::Welcome(welcome) => self.welcomed(&welcome, shore),
            Heard::Subscribed(granted) => self.subscribed(granted, shore),
            Heard::Acked(packet, ack) => {
                self.acked(packet, ack, shore);
                Ok(())
            }
            Heard::Message(message) => self.arrived(message, shore),
            Heard::Alive | Heard::Sent(_) | Heard::Down(_) => Ok(()),
        }
    }

    /// The broker is there: heed its limits, and subscribe, whatever it remembers of us.
    fn welcomed(&mut self, welcome: &Welcome, shore: &Shore) -> Result<(), Down> {
        if welcome.version == Version::Five {
            self.pace.receive_max(welcome.receive_max);
        }
        if let Some(max) = welcome.packet_bytes_max.and_then(|max| usize::try_from(max).ok()) {
            self.payload_max = self.payload_max.min(max.saturating_sub(FRAMING_BYTES));
        }
        let filter = Topic::filter_of_gateway(&shore.origin, DeviceTopic::Resolve);
        self.line.subscribe(filter, Delivery::Acknowledged).map_err(down)?;
        self.line.subscribe(shore.canary_topic(), Delivery::Once).map_err(down)?;
        self.asked.extend([Asked::Resolutions, Asked::Canary]);
        shore.spoke(welcome.version);
        Ok(())
    }

    fn subscribed(&mut self, granted: Result<(), String>, shore: &mut Shore) -> Result<(), Down> {
        match (self.asked.pop_front(), granted) {
            (Some(Asked::Resolutions), Ok(())) => {
                self.up = true;
                for (topic, payload) in shore.states() {
                    self.state(&topic, &payload, shore)?;
                }
                shore.up();
                Ok(())
            }
            (Some(Asked::Resolutions), Err(why)) => Err(Down { why, cause: Cause::Refused }),
            (Some(Asked::Canary), Ok(())) => {
                self.watch.taken(Instant::now());
                Ok(())
            }
            (Some(Asked::Canary), Err(_)) => {
                info!(topic = %shore.canary_topic(), "the canary may not be heard, its acknowledgement has to do");
                Ok(())
            }
            (None, _) => Ok(()),
        }
    }

    fn acked(&mut self, packet: u16, ack: Ack, shore: &mut Shore) {
        let Some((cargo, waited)) = self.window.acknowledged_after(packet) else { return };
        self.progressed = true;
        let now = Instant::now();
        match &ack {
            Ack::Later(reason) => {
                self.pace.too_much(cargo.bytes, now);
                warn!(reason, "the central broker takes no more for now");
            }
            _ => self.pace.answered(cargo.bytes, waited),
        }
        match (cargo.what, ack) {
            (What::Escalation(job, attempt), Ack::Taken) => shore.sent(job, attempt),
            (What::Escalation(job, attempt), Ack::Nobody | Ack::Later(_)) => shore.unsent(job, attempt),
            (What::Escalation(job, attempt), Ack::Never(reason)) => shore.refused(job, attempt, reason),
            // Nobody listens to a telemetry topic now: the broker has done what it does with such a publish.
            (What::Item(item), Ack::Taken | Ack::Nobody) => shore.feed.done(&item),
            (What::Item(item), Ack::Later(_)) => shore.feed.back(item),
            (What::Item(item), Ack::Never(reason)) => shore.dead(&item, reason),
            (What::Word, _) => {}
            (What::Canary, _) => self.watch.acknowledged(now),
        }
    }

    /// A resolution, our canary, or something that is neither and is acknowledged as read.
    fn arrived(&mut self, message: Box<Incoming>, shore: &mut Shore) -> Result<(), Down> {
        shore.budget.pay(message.topic.len() + message.payload.len());
        if message.topic == shore.canary_topic() {
            let number = self.number_of_canary(&message.payload);
            number.into_iter().for_each(|number| self.watch.returned(number, Instant::now()));
            return self.line.acknowledge(&message).map_err(down);
        }
        let number = shore.number();
        let topic = Topic::parse(&message.topic);
        let ours =
            matches!(&topic, Ok(Topic::Device { origin, what: DeviceTopic::Resolve, .. }) if *origin == shore.origin);
        let resolution = decode_resolution(&message.payload).ok().filter(|r| ours && r.origin == shore.origin);
        let bytes = message.payload.len();
        self.unacknowledged.push_back((number, message, Dealt::Open));
        match resolution {
            Some(resolution) => {
                shore.resolution(number, Box::new(resolution));
                Ok(())
            }
            None => {
                // What is wrong with it may quote it, so only its size is told.
                warn!(bytes, "dropped a publish that is no resolution for this gateway");
                self.settle(number)
            }
        }
    }

    fn number_of_canary(&self, payload: &[u8]) -> Option<u64> {
        let (nonce, number) = std::str::from_utf8(payload).ok()?.split_once('-')?;
        (u32::from_str_radix(nonce, 16).ok()? == self.nonce).then(|| number.parse().ok())?
    }

    /// That resolution is dealt with; acknowledges all that are, in order of arrival.
    fn settle(&mut self, number: u64) -> Result<(), Down> {
        if let Some(entry) = self.unacknowledged.iter_mut().find(|(n, ..)| *n == number) {
            entry.2 = Dealt::Done;
        }
        while self.unacknowledged.front().is_some_and(|(.., dealt)| *dealt == Dealt::Done) {
            if let Some((_, message, _)) = self.unacknowledged.pop_front() {
                self.line.acknowledge(&message).map_err(down)?;
            }
        }
        Ok(())
    }

    /// The connection is over: all that it had not seen acknowledged is unsent.
    pub(super) fn end(self, shore: &mut Shore) {
        self.waiting.iter().for_each(|(e, _)| shore.unsent(e.job, e.attempt));
        self.window.into_rest().for_each(|cargo| give_back(cargo, shore));
    }

    /// Says that we go, and waits until it is on its way.
    pub(super) async fn goodbye(&mut self, last: Option<(String, Bytes)>, shore: &mut Shore, most: Duration) {
        let told = last.is_none_or(|(topic, payload)| self.state(&topic, &payload, shore).is_ok());
        if !self.up || !told || self.line.disconnect().is_err() {
            return;
        }
        let over = async { while !matches!(self.line.next().await, Heard::Down(_)) {} };
        let _ = tokio::time::timeout(most, over).await;
    }
}

fn give_back(cargo: Cargo, shore: &mut Shore) {
    match cargo.what {
        What::Escalation(job, attempt) => shore.unsent(job, attempt),
        What::Item(item) => shore.feed.back(item),
        What::Word | What::Canary => {}
    }
}

fn down(untaken: Untaken) -> Down {
    Down::broken(untaken.to_string())
}
