//! Frames and messages to the client: outcomes oldest first within its window, frames as they come, general messages
//! after them.

use super::{Connection, End, Later, Pulled, Waiting};
use crate::codec::{Ack, Packet, Properties, Publish, QoS, Version, reason};
use crate::hall::Note;
use crate::keeper::{Ephemeral, Outgoing};
use crate::link::{Appetite, Kind};
use crate::rights::answer_topic;
use crate::session::{Sent, What};
use crate::stats::count;
use bytes::Bytes;
use std::sync::atomic::Ordering;
use tidegate_schemas::{DeviceId, Encoding, ErrorCode, ErrorFrame, Frame, PromptId, Reply, cbor};

/// Outcomes that are asked of the keeper at once for a client that acknowledges nothing.
const UNACKNOWLEDGED_ROOM: usize = 16;
/// Fixed header, topic length, packet id and property length of a publish, at most, in bytes.
const PUBLISH_FRAMING_BYTES: usize = 16;

/// The publish that carries a [`Sent`].
pub(super) fn publish(sent: &Sent) -> Publish {
    Publish {
        dup: false,
        qos: sent.qos,
        // A retained general message keeps its flag; the door's own frames are never retained.
        retain: matches!(sent.what, What::General { retain: true, .. }),
        topic: sent.topic.clone(),
        id: sent.id,
        properties: sent.properties.as_deref().cloned().unwrap_or_default(),
        payload: sent.payload.clone(),
    }
}

impl Connection {
    /// How many more QoS 1 and 2 publishes the client takes now: none when too many or too many bytes are in flight.
    fn room(&self) -> usize {
        let inflight = &self.session.inflight;
        if inflight.bytes() > self.shared.limits.outgoing_bytes_max {
            return 0;
        }
        self.client.receive_max.saturating_sub(inflight.len())
    }

    pub(super) fn note(&mut self, note: Note) -> Result<(), End> {
        match note {
            Note::LookAgain => {
                self.session.feeds.look_again_everywhere();
                Ok(())
            }
            Note::Rights => self.rights_changed(),
            Note::Frame { device, payload, how, reply } => self.frame(&device, payload, how, &reply),
            Note::Outcome { device, outgoing } => self.outcome(&device, outgoing),
        }
    }

    /// The topic of a frame, and how the session hears of it there.
    fn heard(&self, device: &DeviceId, reply: &Reply) -> Option<(String, QoS)> {
        let qos = self.session.hears(device, reply.topic.as_deref())?;
        let topic = reply.topic.clone().unwrap_or_else(|| answer_topic(&self.shared.origin, device));
        Some((topic, qos))
    }

    /// What MQTT 5 says beside a frame: Correlation Data, and the identifiers of the subscriptions that it comes by
    /// (MQTT 5.0, 3.3.2.3.8).
    fn said(&self, device: &DeviceId, reply: &Reply) -> Option<Box<Properties>> {
        if self.client.version == Version::V4 {
            return None;
        }
        let correlation = reply.correlation.as_ref().map(|bytes| Bytes::copy_from_slice(bytes));
        let subscription_ids = self.session.identifiers(device, reply.topic.as_deref());
        if correlation.is_none() && subscription_ids.is_empty() {
            return None;
        }
        Some(Box::new(Properties { correlation, subscription_ids, ..Properties::default() }))
    }

    fn frame(&mut self, device: &DeviceId, payload: Bytes, how: Ephemeral, reply: &Reply) -> Result<(), End> {
        let Some((topic, qos)) = self.heard(device, reply) else { return Ok(()) };
        if how == Ephemeral::Lossy || qos == QoS::AtMostOnce {
            return self.frame_now(device, payload, how, reply);
        }
        let properties = self.said(device, reply);
        self.queue(Waiting { qos: QoS::AtLeastOnce, topic, payload, properties, what: What::Frame })
    }

    /// Sends a frame before anything that is sent after this call: at QoS 0 if it is lossy, subscribed so, or the
    /// window is full.
    pub(super) fn frame_now(
        &mut self,
        device: &DeviceId,
        payload: Bytes,
        how: Ephemeral,
        reply: &Reply,
    ) -> Result<(), End> {
        let Some((topic, qos)) = self.heard(device, reply) else { return Ok(()) };
        let properties = self.said(device, reply);
        if self.is_slow() && how == Ephemeral::Lossy || !self.fits(&topic, &payload, properties.as_deref()) {
            count(&self.shared.counters.dropped_frames);
            return Ok(());
        }
        let lossy = how == Ephemeral::Lossy || qos == QoS::AtMostOnce || self.room() == 0;
        let qos = if lossy { QoS::AtMostOnce } else { QoS::AtLeastOnce };
        self.send_now(Waiting { qos, topic, payload, properties, what: What::Frame })
    }

    /// Sends a publish; above QoS 0 it is in flight from now on.
    fn send_now(&mut self, waiting: Waiting) -> Result<(), End> {
        let Waiting { qos, topic, payload, properties, what } = waiting;
        let id = if qos == QoS::AtMostOnce { 0 } else { self.session.next_id() };
        let sent = Sent { id, qos, topic, payload, properties, released: false, what };
        let packet = Packet::Publish(Box::new(publish(&sent)));
        if qos != QoS::AtMostOnce {
            self.session.inflight.push(sent);
        }
        self.send(&packet)
    }

    /// Puts a publish above QoS 0 behind those that wait for room in the window.
    fn queue(&mut self, waiting: Waiting) -> Result<(), End> {
        self.waiting_bytes += waiting.payload.len() + waiting.topic.len();
        self.waiting.push_back(waiting);
        if self.waiting_bytes > self.shared.limits.outgoing_bytes_max {
            return Err(End::slow());
        }
        self.send_waiting()
    }

    pub(super) fn send_waiting(&mut self) -> Result<(), End> {
        while self.room() > 0
            && !self.is_slow()
            && let Some(waiting) = self.waiting.pop_front()
        {
            self.waiting_bytes -= waiting.payload.len() + waiting.topic.len();
            if self.fits(&waiting.topic, &waiting.payload, waiting.properties.as_deref()) {
                self.send_now(waiting)?;
            } else {
                count(&self.shared.counters.dropped_frames);
                self.meant(&waiting.what, waiting.qos, reason::SUCCESS);
            }
        }
        Ok(())
    }

    fn fits(&self, topic: &str, payload: &[u8], properties: Option<&Properties>) -> bool {
        let max = self.client.packet_bytes_max;
        if max == usize::MAX {
            return true;
        }
        let said = properties.map_or(0, Properties::encoded_bytes);
        payload.len() + topic.len() + said + PUBLISH_FRAMING_BYTES <= max
    }

    /// What is in flight from an earlier connection may be over what this one takes (MQTT 5.0, 3.1.2.11.4): a message
    /// counts as delivered, an outcome comes again from the store, as it is due to one who takes so little.
    pub(super) fn drop_what_does_not_fit(&mut self) {
        for sent in self.session.inflight.drain() {
            if sent.released || self.fits(&sent.topic, &sent.payload, sent.properties.as_deref()) {
                self.session.inflight.push(sent);
                continue;
            }
            match &sent.what {
                What::Outcome { device, job } => self.session.feeds.unsent(device, *job),
                what => self.meant(what, sent.qos, reason::SUCCESS),
            }
            count(&self.shared.counters.dropped_frames);
        }
    }

    /// An outcome that just arose.
    fn outcome(&mut self, device: &DeviceId, outgoing: Outgoing) -> Result<(), End> {
        let Some((topic, qos)) = self.heard(device, &outgoing.reply) else { return Ok(()) };
        let has_room = !self.is_slow() && (qos == QoS::AtMostOnce || self.room() > 0);
        if !has_room {
            self.session.feeds.look_again(device);
            return Ok(());
        }
        if !self.session.feeds.is_next(device) || !self.session.feeds.is_new(device, outgoing.job) {
            return Ok(());
        }
        self.send_outcome(device, (topic, qos), outgoing)
    }

    fn send_outcome(&mut self, device: &DeviceId, (topic, qos): (String, QoS), outgoing: Outgoing) -> Result<(), End> {
        let Outgoing { job, mut payload, reply } = outgoing;
        let properties = self.said(device, &reply);
        if !self.fits(&topic, &payload, properties.as_deref()) {
            payload = too_large(&payload, self.client.packet_bytes_max);
        }
        self.session.feeds.sent(device, job);
        let what = What::Outcome { device: device.clone(), job };
        self.send_now(Waiting { qos, topic, payload, properties, what })
    }

    /// Asks the keeper for what feeds that are behind have not sent.
    pub(super) fn start_pulls(&mut self) {
        while !self.is_slow() && self.room() > 0 {
            let room = self.room().min(UNACKNOWLEDGED_ROOM);
            let Some((device, max)) = self.session.feeds.next_pull(room) else { return };
            let pending = self.shared.keeper.pending(&device, None, max);
            let pull: Later<Pulled> = Box::pin(async move { (device, max, pending.await) });
            self.pulls.push(pull);
        }
    }

    pub(super) fn pulled(&mut self, (device, max, list): Pulled) -> Result<(), End> {
        self.session.feeds.pulled(&device);
        let full = list.len() >= max;
        for outgoing in list {
            if !self.session.feeds.is_new(&device, outgoing.job) {
                continue;
            }
            let Some((topic, qos)) = self.heard(&device, &outgoing.reply) else {
                self.session.feeds.unheard(&device, outgoing.job);
                continue;
            };
            if self.is_slow() || qos != QoS::AtMostOnce && self.room() == 0 {
                self.session.feeds.look_again(&device);
                return Ok(());
            }
            self.send_outcome(&device, (topic, qos), outgoing)?;
        }
        if full {
            self.session.feeds.look_again(&device);
        }
        Ok(())
    }

    /// PUBACK of the client.
    pub(super) fn acknowledged(&mut self, ack: Ack) -> Result<(), End> {
        self.end_inflight(ack.id, QoS::AtLeastOnce, ack.reason);
        Ok(())
    }

    fn end_inflight(&mut self, id: u16, qos: QoS, code: u8) {
        let ended = self.session.inflight.take(|sent| sent.id == id && sent.qos == qos && !sent.released);
        if let Some(sent) = ended {
            self.meant(&sent.what, qos, code);
        }
    }

    /// PUBREC of the client: it has the message, or does not want it (MQTT 5.0, 4.3.3).
    pub(super) fn received(&mut self, ack: Ack) -> Result<(), End> {
        if ack.reason >= reason::UNSPECIFIED {
            self.end_inflight(ack.id, QoS::ExactlyOnce, ack.reason);
            return Ok(());
        }
        let Some(what) = self.session.inflight.release(ack.id) else {
            return self.send(&Packet::PubRel(Ack { reason: reason::ID_NOT_FOUND, ..Ack::success(ack.id) }));
        };
        what.iter().for_each(|what| self.meant(what, QoS::ExactlyOnce, reason::SUCCESS));
        self.send(&Packet::PubRel(Ack::success(ack.id)))
    }

    /// PUBCOMP of the client: the packet id is free.
    pub(super) fn completed(&mut self, id: u16) -> Result<(), End> {
        self.session.inflight.take(|sent| sent.id == id && sent.released);
        Ok(())
    }

    fn meant(&mut self, what: &What, qos: QoS, code: u8) {
        match what {
            What::Outcome { device, job } => {
                self.session.feeds.acknowledged(device, *job);
                if self.client.principal.may_use(device) {
                    self.shared.keeper.released(device, *job);
                }
            }
            What::Frame => {}
            What::General { link_id, .. } => self.general.acknowledge(*link_id, qos, code),
        }
    }

    /// The backend does not know any more what it sent.
    pub(super) fn backend_forgot(&mut self) {
        self.session.backend_forgot();
        for waiting in &mut self.waiting {
            if let What::General { link_id, .. } = &mut waiting.what {
                *link_id = 0;
            }
        }
    }

    /// Whether a message of the backend is on its way to the client from before its link broke.
    fn is_under_way(&self, id: u16) -> bool {
        let is = |what: &What| matches!(what, What::General { link_id, .. } if *link_id == id);
        self.session.inflight.iter().any(|s| !s.released && is(&s.what)) || self.waiting.iter().any(|w| is(&w.what))
    }

    /// A message from the backend.
    pub(super) fn forward_out(&mut self, publish: Publish) -> Result<(), End> {
        let Publish { dup, qos, retain, topic, id, payload, properties } = publish;
        let link_id = id;
        // Others that use the same broker may speak on our topics there; only what we say of ourselves is for everybody.
        if is_private(&topic) {
            self.general.acknowledge(link_id, qos, reason::SUCCESS);
            return Ok(());
        }
        let properties = (properties != Properties::default()).then(|| Box::new(properties));
        if qos != QoS::AtMostOnce {
            if dup && self.is_under_way(link_id) {
                return Ok(());
            }
            let link_id = if self.takes_over() { self.general.taken_over(link_id) } else { link_id };
            return self.queue(Waiting { qos, topic, payload, properties, what: What::General { link_id, retain } });
        }
        if self.is_slow() || !self.fits(&topic, &payload, properties.as_deref()) {
            count(&self.shared.counters.dropped_frames);
            return Ok(());
        }
        self.send_now(Waiting { qos, topic, payload, properties, what: What::General { link_id, retain } })
    }

    /// Counts what had left rumqttd's log before this client took it.
    pub(super) fn count_lost(&mut self) {
        let lost = self.general.take_lost();
        if lost > 0 {
            self.shared.counters.dropped_frames.fetch_add(lost, Ordering::Relaxed);
            let (who, peer) = (&self.client.principal, self.client.peer);
            tracing::warn!(%who, %peer, lost, "messages left rumqttd's log before a slow client took them");
        }
    }

    /// Whether a message is acknowledged to rumqttd when it is here, so that rumqttd's window of 100 is not filled by
    /// the way to the client: in a session that ends with its connection nobody will ask for it again, and while little
    /// waits. Else the client's acknowledgement is waited for, and its slowness is rumqttd's to hold.
    fn takes_over(&self) -> bool {
        self.shared.backend.kind == Kind::Rumqttd
            && self.session.expiry.is_zero()
            && self.general_appetite() == Appetite::Hungry
    }

    /// Whether so little waits for the client that the backend may send more.
    pub(super) fn general_appetite(&self) -> Appetite {
        let little = self.waiting_bytes + self.out.len() < self.shared.limits.outgoing_bytes_max / 4;
        if little { Appetite::Hungry } else { Appetite::Full }
    }

    /// Whether the peer's version knows a packet size of its own.
    pub(super) fn is_v5(&self) -> bool {
        self.client.version == Version::V5
    }
}

/// Whether a topic is one of ours that clients do not read through the backend.
fn is_private(topic: &str) -> bool {
    let mut levels = topic.split('/');
    levels.next() == Some("tg") && !matches!(levels.nth(3), Some("state" | "event"))
}

#[derive(serde::Deserialize)]
struct OnlyId {
    id: Option<PromptId>,
}

/// What is delivered instead of an outcome that the client cannot take; the outcome stays for `fetch`.
fn too_large(payload: &[u8], max: usize) -> Bytes {
    let encoding = Encoding::of(payload).unwrap_or(Encoding::Text);
    let id = match encoding {
        Encoding::Cbor => cbor::from_slice::<OnlyId>(payload, payload.len()).ok().and_then(|o| o.id),
        Encoding::Json => serde_json::from_slice::<OnlyId>(payload).ok().and_then(|o| o.id),
        Encoding::Text => None,
    };
    let message = format!("answer is {} bytes, this client takes packets of {max}", payload.len());
    let frame = Frame::Error(ErrorFrame { id, code: ErrorCode::TooLarge, message, retry_after_ms: None });
    encoding.frame(&frame).unwrap_or_default().into()
}
