//! The link to the central broker: escalations out, resolutions in, state retained there too.
//!
//! Invariants: a publish counts as sent on the success PUBACK of exactly that publish; when a connection ends, all that
//! it had not acknowledged is reported unsent; a resolution is acknowledged after its outcome is on disk, in the order
//! of arrival, on the connection that brought it.

use super::message::{Report, ToBridge};
use crate::link::{Backoff, Broker, Epoch, LinkEvent, SILENCE_MAX, Window};
use bytes::Bytes;
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::{
    ConnAck, LastWill, Packet, PubAckReason, Publish, PublishProperties, SubAck, SubscribeReasonCode,
};
use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};
use tidegate_core::Event;
use tidegate_schemas::{
    DEADLINE_MS_MAX, DeviceTopic, ESCALATION_BYTES_MAX, Escalation, JobId, Origin, Topic, decode_resolution, encode,
};
use tokio::sync::mpsc;
use tokio::time::{sleep, sleep_until};
use tracing::{info, warn};

/// First wait before a reconnect.
const RECONNECT_LEAST: Duration = Duration::from_millis(500);
/// Longest wait before a reconnect: a mended link is used half a minute later at the latest.
const RECONNECT_MOST: Duration = Duration::from_secs(30);
/// A connection that held so long was no accident.
const RECONNECT_STABLE: Duration = Duration::from_secs(10);
/// Silence on a publish after which the link counts as dead, although pings may still be due.
const PUBACK_MAX: Duration = Duration::from_secs(8);
/// Publishes that wait for their PUBACK at most; the broker's Receive Maximum may say less.
const WINDOW_MAX: usize = 16;
/// Resolutions that the broker may send before the first is acknowledged.
const RECEIVE_MAX: u16 = 32;
/// How long the broker keeps our subscription while we are away, in seconds: longer than any escalation lives.
const SESSION_EXPIRY_S: u32 = (DEADLINE_MS_MAX / 1000) as u32 + 3600;
/// Longest goodbye.
const GOODBYE_MAX: Duration = Duration::from_secs(1);

/// The bridge and what outlives a connection.
pub(super) struct Bridge {
    broker: Broker,
    origin: Origin,
    orders: mpsc::Receiver<ToBridge>,
    reports: mpsc::UnboundedSender<Report>,
    /// Retained state, for every new connection.
    states: BTreeMap<String, Bytes>,
    /// What the broker says when we are gone without a word.
    will: (String, Bytes),
    /// Resolutions received so far: their numbers.
    received: u64,
}

/// What belongs to one connection and dies with it.
struct Session {
    epoch: Epoch,
    /// Escalations that wait for room in the window.
    waiting: VecDeque<Box<Escalation>>,
    window: Window<(JobId, u32)>,
    window_max: usize,
    payload_max: usize,
    /// Resolutions that are not acknowledged, in order of arrival.
    unacknowledged: VecDeque<(u64, Publish, Dealt)>,
    up: bool,
    heard: Instant,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Dealt {
    Open,
    Done,
}

enum End {
    Stop,
    Lost(String),
}

impl Bridge {
    /// A bridge that connects when it runs.
    pub(super) fn new(
        broker: Broker,
        origin: Origin,
        orders: mpsc::Receiver<ToBridge>,
        reports: mpsc::UnboundedSender<Report>,
        will: (String, Bytes),
    ) -> Self {
        Self { broker, origin, orders, reports, states: BTreeMap::new(), will, received: 0 }
    }

    /// Connects again and again until told to stop.
    pub(super) async fn run(mut self) {
        let mut backoff = Backoff::new(RECONNECT_LEAST, RECONNECT_MOST, RECONNECT_STABLE);
        loop {
            let why = match self.connection(&mut backoff).await {
                End::Stop => return,
                End::Lost(why) => why,
            };
            let wait = backoff.next();
            warn!(broker = %self.broker.address, %why, wait_ms = wait.as_millis(), "the central broker is not there");
            self.event(Event::LinkDown);
            if !self.rest(wait).await {
                return;
            }
        }
    }

    fn event(&self, event: Event) {
        let _ = self.reports.send(Report::Event(event));
    }

    fn unsent(&self, job: JobId, attempt: u32) {
        self.event(Event::EscalationUnsent { job, attempt });
    }

    /// Waits, and says of every publish that it was not sent. False when it is told to stop.
    async fn rest(&mut self, wait: Duration) -> bool {
        let until = tokio::time::Instant::now() + wait;
        loop {
            tokio::select! {
                () = sleep_until(until) => return true,
                order = self.orders.recv() => match order {
                    Some(ToBridge::Publish(e)) => self.unsent(e.job, e.attempt),
                    Some(ToBridge::State(topic, payload)) => { self.states.insert(topic, payload); }
                    Some(ToBridge::Settled(_)) => {}
                    Some(ToBridge::Stop(..)) | None => return false,
                },
            }
        }
    }

    async fn connection(&mut self, backoff: &mut Backoff) -> End {
        let mut options = match self.broker.options() {
            Ok(options) => options,
            Err(error) => return End::Lost(error.to_string()),
        };
        options.set_clean_start(false);
        options.set_session_expiry_interval(Some(SESSION_EXPIRY_S));
        options.set_receive_maximum(Some(RECEIVE_MAX));
        options.set_manual_acks(true);
        let (topic, payload) = self.will.clone();
        options.set_last_will(LastWill::new(topic, payload, QoS::AtLeastOnce, true, None));
        let mut session = Session::new(Epoch::open(options));
        let end = self.lead(&mut session, backoff).await;
        session.waiting.iter().for_each(|e| self.unsent(e.job, e.attempt));
        session.window.into_rest().for_each(|(job, attempt)| self.unsent(job, attempt));
        end
    }

    async fn lead(&mut self, session: &mut Session, backoff: &mut Backoff) -> End {
        loop {
            let silent_at = session.heard + SILENCE_MAX;
            let look_at = if session.window.len() > 0 { Instant::now() + Duration::from_secs(1) } else { silent_at };
            tokio::select! {
                event = session.epoch.next() => {
                    if let Err(why) = self.link(session, event, backoff) { return End::Lost(why) }
                }
                order = self.orders.recv() => match order {
                    Some(ToBridge::Stop(topic, payload)) => {
                        goodbye(session, topic, payload).await;
                        return End::Stop;
                    }
                    None => return End::Stop,
                    Some(order) => if let Err(why) = self.order(session, order) { return End::Lost(why) },
                },
                () = sleep_until(silent_at.min(look_at).into()) => {
                    if let Err(why) = session.watch() { return End::Lost(why) }
                }
            }
        }
    }

    fn order(&mut self, session: &mut Session, order: ToBridge) -> Result<(), String> {
        match order {
            ToBridge::Publish(escalation) if session.up => session.waiting.push_back(escalation),
            ToBridge::Publish(escalation) => self.unsent(escalation.job, escalation.attempt),
            ToBridge::State(topic, payload) => {
                if session.up {
                    session.state(&topic, &payload)?;
                }
                self.states.insert(topic, payload);
            }
            ToBridge::Settled(number) => session.settle(number)?,
            ToBridge::Stop(..) => {}
        }
        self.pump(session)
    }

    /// Publishes what fits the window.
    fn pump(&mut self, session: &mut Session) -> Result<(), String> {
        while session.up && session.window.len() < session.window_max {
            let Some(escalation) = session.waiting.pop_front() else { return Ok(()) };
            let (job, attempt) = (escalation.job, escalation.attempt);
            let payload = encode(&*escalation);
            if payload.len() > session.payload_max {
                warn!(%job, bytes = payload.len(), max = session.payload_max, "an escalation is too large to publish");
                self.unsent(job, attempt);
                continue;
            }
            let topic = Topic::device(&self.origin, DeviceTopic::Escalate, &escalation.device).name();
            let properties = PublishProperties {
                message_expiry_interval: escalation.expires_in_ms.map(expiry_seconds),
                ..PublishProperties::default()
            };
            let client = &session.epoch.client;
            let sent = client.try_publish_with_properties(topic, QoS::AtLeastOnce, false, payload, properties);
            if sent.is_err() {
                session.waiting.push_front(escalation);
                return Err("the client takes no publishes".to_owned());
            }
            session.window.requested((job, attempt));
        }
        Ok(())
    }

    fn link(&mut self, session: &mut Session, event: LinkEvent, backoff: &mut Backoff) -> Result<(), String> {
        match event {
            LinkEvent::Down(why) => return Err(why),
            LinkEvent::Sent(packet) => session.window.sent(packet),
            LinkEvent::Packet(packet) => {
                session.heard = Instant::now();
                self.packet(session, *packet, backoff)?;
            }
        }
        self.pump(session)
    }

    fn packet(&mut self, session: &mut Session, packet: Packet, backoff: &mut Backoff) -> Result<(), String> {
        match packet {
            Packet::ConnAck(connack) => session.connected(&self.origin, &connack),
            Packet::SubAck(suback) => {
                subscribed(&suback)?;
                backoff.works();
                session.up = true;
                info!(broker = %self.broker.address, "connected to the central broker");
                self.states.iter().try_for_each(|(topic, payload)| session.state(topic, payload))?;
                self.event(Event::LinkUp);
                Ok(())
            }
            Packet::PubAck(ack) => {
                if let Some((job, attempt)) = session.window.acknowledged(ack.pkid) {
                    if ack.reason == PubAckReason::Success {
                        self.event(Event::EscalationSent { job, attempt });
                    } else {
                        info!(%job, reason = ?ack.reason, "the central broker did not take an escalation");
                        self.unsent(job, attempt);
                    }
                }
                Ok(())
            }
            Packet::Publish(publish) => self.arrived(session, publish),
            _ => Ok(()),
        }
    }

    /// A resolution, or something that is none and is acknowledged as read.
    fn arrived(&mut self, session: &mut Session, publish: Publish) -> Result<(), String> {
        self.received += 1;
        let number = self.received;
        let topic = std::str::from_utf8(&publish.topic).ok().and_then(|name| Topic::parse(name).ok());
        let ours =
            matches!(topic, Some(Topic::Device { origin, what: DeviceTopic::Resolve, .. }) if origin == self.origin);
        let resolution = decode_resolution(&publish.payload).ok().filter(|r| ours && r.origin == self.origin);
        let bytes = publish.payload.len();
        session.unacknowledged.push_back((number, publish, Dealt::Open));
        match resolution {
            Some(resolution) => {
                let _ = self.reports.send(Report::Resolution(number, Box::new(resolution)));
                Ok(())
            }
            None => {
                // What is wrong with it may quote it, so only its size is told.
                warn!(bytes, "dropped a publish that is no resolution for this gateway");
                session.settle(number)
            }
        }
    }
}

impl Session {
    fn new(epoch: Epoch) -> Self {
        Self {
            epoch,
            waiting: VecDeque::new(),
            window: Window::new(),
            window_max: WINDOW_MAX,
            payload_max: ESCALATION_BYTES_MAX,
            unacknowledged: VecDeque::new(),
            up: false,
            heard: Instant::now(),
        }
    }

    /// The broker is there: heed its limits, and subscribe, whatever it remembers of us.
    fn connected(&mut self, origin: &Origin, connack: &ConnAck) -> Result<(), String> {
        /// Room for topic and properties within the broker's Maximum Packet Size, in bytes.
        const FRAMING_BYTES: usize = 512;
        if let Some(properties) = &connack.properties {
            // rumqttc reads no acknowledgements of ours while its window is full, so one place stays free.
            let receive = properties.receive_max.map_or(WINDOW_MAX, |max| usize::from(max.saturating_sub(1)).max(1));
            self.window_max = self.window_max.min(receive);
            let packet = properties.max_packet_size.and_then(|max| usize::try_from(max).ok());
            let payload = packet.map_or(ESCALATION_BYTES_MAX, |max| max.saturating_sub(FRAMING_BYTES));
            self.payload_max = self.payload_max.min(payload);
        }
        let filter = Topic::filter_of_gateway(origin, DeviceTopic::Resolve);
        let asked = self.epoch.client.try_subscribe(filter, QoS::AtLeastOnce);
        asked.map_err(|_| "the client takes no subscriptions".to_owned())
    }

    fn state(&self, topic: &str, payload: &Bytes) -> Result<(), String> {
        let sent = self.epoch.client.try_publish(topic, QoS::AtMostOnce, true, payload.clone());
        sent.map_err(|_| "the client takes no state".to_owned())
    }

    /// That resolution is dealt with; acknowledges all that are, in order of arrival.
    fn settle(&mut self, number: u64) -> Result<(), String> {
        if let Some(entry) = self.unacknowledged.iter_mut().find(|(n, ..)| *n == number) {
            entry.2 = Dealt::Done;
        }
        while self.unacknowledged.front().is_some_and(|(.., dealt)| *dealt == Dealt::Done) {
            if let Some((_, publish, _)) = self.unacknowledged.pop_front() {
                self.epoch.client.try_ack(&publish).map_err(|_| "the client takes no acknowledgements".to_owned())?;
            }
        }
        Ok(())
    }

    /// Whether the link lives although nobody said that it does not.
    fn watch(&self) -> Result<(), String> {
        if self.window.oldest().is_some_and(|wait| wait >= PUBACK_MAX) {
            return Err(format!("a publish was not acknowledged for {} s", PUBACK_MAX.as_secs()));
        }
        if self.heard.elapsed() >= SILENCE_MAX {
            return Err(format!("the broker was silent for {} s", SILENCE_MAX.as_secs()));
        }
        Ok(())
    }
}

fn subscribed(suback: &SubAck) -> Result<(), String> {
    match suback.return_codes.first() {
        Some(SubscribeReasonCode::Success(_)) => Ok(()),
        other => Err(format!("the broker refuses our resolutions: {other:?}")),
    }
}

/// Whole seconds, never fewer than what is left: an item lives longer, never shorter.
fn expiry_seconds(ms: u64) -> u32 {
    u32::try_from(ms.div_ceil(1000)).unwrap_or(u32::MAX)
}

/// Says that we go, and waits until it is on its way.
async fn goodbye(session: &mut Session, topic: String, payload: Bytes) {
    if !session.up || session.state(&topic, &payload).is_err() || session.epoch.client.try_disconnect().is_err() {
        return;
    }
    let over = async { while !matches!(session.epoch.next().await, LinkEvent::Down(_)) {} };
    tokio::select! {
        () = over => {}
        () = sleep(GOODBYE_MAX) => {}
    }
}
