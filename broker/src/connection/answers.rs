//! Frames and messages to the client: outcomes oldest first within its window, frames as they come, general messages
//! after them.

use super::{Connection, End, Later, Pulled, Waiting};
use crate::codec::{Packet, Properties, Publish, QoS, Version};
use crate::hall::Note;
use crate::keeper::{Ephemeral, Outgoing};
use crate::rights::answer_topic;
use crate::session::{Sent, What};
use crate::stats::count;
use bytes::Bytes;
use tidegate_schemas::{DeviceId, Encoding, ErrorCode, ErrorFrame, Frame, PromptId, cbor};

/// Outcomes that are asked of the keeper at once for a client that acknowledges nothing.
const UNACKNOWLEDGED_ROOM: usize = 16;
/// Fixed header, topic length, packet id and property length of a publish, at most, in bytes.
const PUBLISH_FRAMING_BYTES: usize = 16;

/// The publish that carries a [`Sent`], at QoS 1.
pub(super) fn publish(sent: &Sent) -> Publish {
    Publish {
        dup: false,
        qos: QoS::AtLeastOnce,
        // A retained general message keeps its flag; the door's own frames are never retained.
        retain: matches!(sent.what, What::General { retain: true, .. }),
        topic: sent.topic.clone(),
        id: sent.id,
        properties: Properties::default(),
        payload: sent.payload.clone(),
    }
}

impl Connection {
    /// How many more QoS 1 publishes the client takes now.
    fn room(&self) -> usize {
        self.client.receive_max.saturating_sub(self.session.inflight.len())
    }

    pub(super) fn note(&mut self, note: Note) -> Result<(), End> {
        match note {
            Note::LookAgain => {
                self.session.feeds.look_again_everywhere();
                Ok(())
            }
            Note::Frame { device, payload, how } => self.frame(&device, payload, how),
            Note::Outcome { device, outgoing } => self.outcome(&device, outgoing),
        }
    }

    fn frame(&mut self, device: &DeviceId, payload: Bytes, how: Ephemeral) -> Result<(), End> {
        let Some(qos) = self.session.hears(device) else { return Ok(()) };
        if how == Ephemeral::Lossy || qos == QoS::AtMostOnce {
            return self.frame_now(device, payload, how, None);
        }
        let topic = answer_topic(&self.shared.origin, device);
        self.queue(Waiting { topic, payload, what: What::Frame })
    }

    /// Sends a frame before anything that is sent after this call: at QoS 0 if it is lossy, subscribed so, or the
    /// window is full.
    pub(super) fn frame_now(
        &mut self,
        device: &DeviceId,
        payload: Bytes,
        how: Ephemeral,
        correlation: Option<Bytes>,
    ) -> Result<(), End> {
        let Some(qos) = self.session.hears(device) else { return Ok(()) };
        let topic = answer_topic(&self.shared.origin, device);
        if self.is_slow() && how == Ephemeral::Lossy || !self.fits(&topic, &payload) {
            count(&self.shared.counters.dropped_frames);
            return Ok(());
        }
        if how == Ephemeral::Lossy || qos == QoS::AtMostOnce || self.room() == 0 {
            return self.send_unacknowledged(topic, payload, correlation);
        }
        self.send_acknowledged(Waiting { topic, payload, what: What::Frame })
    }

    fn send_unacknowledged(&mut self, topic: String, payload: Bytes, correlation: Option<Bytes>) -> Result<(), End> {
        let properties = Properties { correlation, ..Properties::default() };
        let (dup, qos, retain, id) = (false, QoS::AtMostOnce, false, 0);
        self.send(&Packet::Publish(Box::new(Publish { dup, qos, retain, topic, id, properties, payload })))
    }

    fn send_acknowledged(&mut self, waiting: Waiting) -> Result<(), End> {
        let Waiting { topic, payload, what } = waiting;
        let sent = Sent { id: self.session.next_id(), topic, payload, what };
        let packet = Packet::Publish(Box::new(publish(&sent)));
        self.session.inflight.push_back(sent);
        self.send(&packet)
    }

    /// Puts a QoS 1 publish behind those that wait for room in the window.
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
            if self.fits(&waiting.topic, &waiting.payload) {
                self.send_acknowledged(waiting)?;
            } else {
                count(&self.shared.counters.dropped_frames);
                self.meant(&waiting.what);
            }
        }
        Ok(())
    }

    fn fits(&self, topic: &str, payload: &[u8]) -> bool {
        payload.len() + topic.len() + PUBLISH_FRAMING_BYTES <= self.client.packet_bytes_max
    }

    /// An outcome that just arose.
    fn outcome(&mut self, device: &DeviceId, outgoing: Outgoing) -> Result<(), End> {
        let Some(qos) = self.session.hears(device) else { return Ok(()) };
        let has_room = !self.is_slow() && (qos == QoS::AtMostOnce || self.room() > 0);
        if !has_room {
            self.session.feeds.look_again(device);
            return Ok(());
        }
        if !self.session.feeds.is_next(device) || !self.session.feeds.is_new(device, outgoing.job) {
            return Ok(());
        }
        self.send_outcome(device, qos, outgoing)
    }

    fn send_outcome(&mut self, device: &DeviceId, qos: QoS, outgoing: Outgoing) -> Result<(), End> {
        let Outgoing { job, mut payload } = outgoing;
        let topic = answer_topic(&self.shared.origin, device);
        if !self.fits(&topic, &payload) {
            payload = too_large(&payload, self.client.packet_bytes_max);
        }
        self.session.feeds.sent(device, job);
        if qos == QoS::AtMostOnce {
            return self.send_unacknowledged(topic, payload, None);
        }
        self.send_acknowledged(Waiting { topic, payload, what: What::Outcome { device: device.clone(), job } })
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
        let Some(qos) = self.session.hears(&device) else { return Ok(()) };
        let full = list.len() >= max;
        for outgoing in list {
            if !self.session.feeds.is_new(&device, outgoing.job) {
                continue;
            }
            if self.is_slow() || qos != QoS::AtMostOnce && self.room() == 0 {
                self.session.feeds.look_again(&device);
                return Ok(());
            }
            self.send_outcome(&device, qos, outgoing)?;
        }
        if full {
            self.session.feeds.look_again(&device);
        }
        Ok(())
    }

    /// PUBACK of the client.
    pub(super) fn acknowledged(&mut self, id: u16) -> Result<(), End> {
        let Some(at) = self.session.inflight.iter().position(|sent| sent.id == id) else { return Ok(()) };
        if let Some(sent) = self.session.inflight.remove(at) {
            self.meant(&sent.what);
        }
        Ok(())
    }

    fn meant(&mut self, what: &What) {
        match what {
            What::Outcome { device, job } => {
                self.session.feeds.acknowledged(device, *job);
                if self.client.principal.may_use(device) {
                    self.shared.keeper.released(device, *job);
                }
            }
            What::Frame => {}
            What::General { link_id, .. } => self.general.acknowledge(*link_id),
        }
    }

    /// A message from rumqttd.
    pub(super) fn forward_out(&mut self, publish: Publish) -> Result<(), End> {
        let Publish { qos, retain, topic, id, payload, .. } = publish;
        if qos != QoS::AtMostOnce {
            return self.queue(Waiting { topic, payload, what: What::General { link_id: id, retain } });
        }
        if self.is_slow() || !self.fits(&topic, &payload) {
            count(&self.shared.counters.dropped_frames);
            return Ok(());
        }
        let properties = Properties::default();
        let publish = Publish { dup: false, qos, retain, topic, id: 0, properties, payload };
        self.send(&Packet::Publish(Box::new(publish)))
    }

    /// Whether the peer's version knows a packet size of its own.
    pub(super) fn is_v5(&self) -> bool {
        self.client.version == Version::V5
    }
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
