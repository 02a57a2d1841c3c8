//! Publishes from the client: to the keeper, to rumqttd, or refused. Acknowledged in order, after the word of whoever
//! takes them.

use super::{Connection, End};
use crate::backend::Name;
use crate::codec::{Ack, Packet, Properties, Publish, QoS, Version, reason};
use crate::hall::{Mail, Note};
use crate::keeper::{Ephemeral, Forwarding, Submission, Verdict};
use crate::link::Kind as LinkKind;
use crate::rights::{Action, Names, Principal, Target, answer_topic};
use crate::shared::Shared;
use crate::stats::count;
use crate::topic;
use crate::upstream::Taken;
use bytes::Bytes;
use std::future::ready;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use tidegate_schemas::{CORRELATION_BYTES_MAX, DeviceId, Encoding, ErrorCode, ErrorFrame, Frame, Reply, decode_prompt};

/// Topics that a client may give an alias: one prompt and one control topic, and some telemetry.
pub(crate) const ALIASES_MAX: u16 = 16;

/// A publish that can be acknowledged.
pub(super) struct Settled {
    pub(super) id: u16,
    pub(super) qos: QoS,
    outcome: Outcome,
}

enum Outcome {
    /// The backend took it or said why not.
    Backend(Taken),
    /// A repetition.
    Repeated,
    /// The backend went away; the client sends it again.
    Lost,
    /// A rule takes it and the disk does not. MQTT 5 says so; a 3.1.1 client, which cannot be told, is disconnected and
    /// sends it again.
    Unkept(&'static str),
    /// Refused without a frame: nobody on this connection would read it.
    Denied(&'static str),
    Verdict {
        device: DeviceId,
        verdict: Verdict,
        reply: Reply,
    },
}

impl Settled {
    pub(super) fn is_taken(&self) -> bool {
        match &self.outcome {
            Outcome::Backend(taken) => taken.reason < reason::UNSPECIFIED,
            Outcome::Repeated | Outcome::Verdict { verdict: Verdict::Kept { .. }, .. } => true,
            Outcome::Lost | Outcome::Unkept(_) | Outcome::Denied(_) | Outcome::Verdict { .. } => false,
        }
    }
}

/// Bytes of a publish that is with the keeper, in the door's total until the keeper's word.
struct Charged {
    shared: Arc<Shared>,
    bytes: u64,
}

impl Charged {
    fn new(shared: &Arc<Shared>, bytes: usize) -> Self {
        let bytes = bytes as u64;
        shared.meters.waiting_bytes.fetch_add(bytes, Ordering::Relaxed);
        Self { shared: Arc::clone(shared), bytes }
    }
}

impl Drop for Charged {
    fn drop(&mut self) {
        self.shared.meters.waiting_bytes.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// Which of the keeper's two doors.
enum Kind {
    Prompt,
    Control,
}

impl Connection {
    pub(super) fn publish(&mut self, mut publish: Publish) -> Result<(), End> {
        count(&self.shared.counters.publishes);
        self.resolve_alias(&mut publish)?;
        if publish.topic.is_empty() {
            return Err(End::protocol("topic is empty and has no alias"));
        }
        topic::check_name(&publish.topic, self.shared.topics())
            .map_err(|bad| End::Refused(reason::TOPIC_INVALID, bad.0))?;
        check_properties(&publish.properties)?;
        if publish.qos == QoS::ExactlyOnce && self.session.received.contains(&publish.id) {
            self.settled(publish.id, publish.qos, Outcome::Repeated);
            return Ok(());
        }
        match self.client.principal.target(&self.shared.origin, &publish.topic) {
            Target::General => self.general_in(publish),
            Target::Denied(what) => self.deny(&publish, what),
            Target::Prompt(_) | Target::Control(_) if publish.retain => {
                self.deny(&publish, "prompts and control messages cannot be retained")
            }
            Target::Prompt(device) => self.submit(publish, device, &Kind::Prompt),
            Target::Control(device) => self.submit(publish, device, &Kind::Control),
        }
    }

    fn resolve_alias(&mut self, publish: &mut Publish) -> Result<(), End> {
        let Some(alias) = publish.properties.topic_alias else { return Ok(()) };
        let invalid = |what| End::Refused(reason::ALIAS_INVALID, what);
        if alias == 0 || alias > ALIASES_MAX {
            return Err(invalid("topic alias is not within 1 and the announced maximum of 16"));
        }
        if publish.topic.is_empty() {
            let known = self.aliases.get(&alias).ok_or(invalid("topic alias has no topic yet"))?;
            publish.topic.clone_from(known);
        } else {
            self.aliases.insert(alias, publish.topic.clone());
        }
        Ok(())
    }

    fn submit(&mut self, publish: Publish, device: DeviceId, kind: &Kind) -> Result<(), End> {
        let Publish { id, qos, properties, payload, .. } = publish;
        let reply = match self.reply(&device, &properties) {
            Ok(reply) => reply,
            Err((code, message)) => {
                let verdict = refusal(&payload, code, message);
                self.settled(id, qos, Outcome::Verdict { device, verdict, reply: Reply::default() });
                return Ok(());
            }
        };
        let submission = Submission {
            device: device.clone(),
            // A copy, so that a small prompt does not keep the read buffer alive.
            payload: Bytes::copy_from_slice(&payload),
            expiry_ms: properties.message_expiry_s.map(|s| u64::from(s) * 1000),
            reply: reply.clone(),
            traceparent: properties.traceparent().map(str::to_owned),
        };
        let charged = Charged::new(&self.shared, payload.len());
        let verdict = match kind {
            Kind::Prompt => self.shared.keeper.prompt(submission),
            Kind::Control => self.shared.keeper.control(submission),
        };
        self.settling.push_back(Box::pin(async move {
            let verdict = verdict.await;
            drop(charged);
            Settled { id, qos, outcome: Outcome::Verdict { device, verdict, reply } }
        }));
        Ok(())
    }

    /// Where the outcome goes and with what, or why not.
    fn reply(&self, device: &DeviceId, properties: &Properties) -> Result<Reply, (ErrorCode, String)> {
        let topic = match &properties.response_topic {
            None => None,
            Some(name) if *name == answer_topic(&self.shared.origin, device) => None,
            Some(name) => {
                let rights = self.shared.rights.borrow();
                let reading = self.shared.reading(&rights, &self.client.client_id);
                if name.len() > self.shared.limits.topic_bytes_max
                    || !self.client.principal.may_have_replies(reading, name)
                {
                    let message = "response topic is neither this device's answer topic nor one of reply_topics";
                    return Err((ErrorCode::NotAllowed, message.to_owned()));
                }
                Some(name.clone())
            }
        };
        let correlation = properties.correlation.as_ref().map(|bytes| bytes.to_vec());
        match correlation.as_ref().map(Vec::len).filter(|len| *len > CORRELATION_BYTES_MAX) {
            Some(len) => {
                let message = format!("correlation data are {len} bytes, limit is {CORRELATION_BYTES_MAX}");
                Err((ErrorCode::TooLarge, message))
            }
            None => Ok(Reply { topic, correlation }),
        }
    }

    fn settled(&mut self, id: u16, qos: QoS, outcome: Outcome) {
        self.settling.push_back(Box::pin(ready(Settled { id, qos, outcome })));
    }

    /// Refuses a publish below `tg`. MQTT 5 has a reason code; a 3.1.1 client gets an `error` frame where it listens for
    /// answers, else it is disconnected, the only other thing that the specification leaves.
    fn deny(&mut self, publish: &Publish, what: &'static str) -> Result<(), End> {
        let (who, peer) = (&self.client.principal, self.client.peer);
        tracing::warn!(%who, %peer, what, "publish refused");
        let Some(device) = self.session.listening_device() else {
            return match self.client.version {
                Version::V4 => Err(End::Refused(reason::NOT_AUTHORISED, what)),
                Version::V5 => {
                    self.settled(publish.id, publish.qos, Outcome::Denied(what));
                    Ok(())
                }
            };
        };
        let verdict = refusal(&publish.payload, ErrorCode::NotAllowed, what.to_owned());
        let correlation = publish.properties.correlation.as_ref().map(|bytes| bytes.to_vec());
        let reply = Reply { topic: None, correlation };
        self.settled(publish.id, publish.qos, Outcome::Verdict { device, verdict, reply });
        Ok(())
    }

    /// A publish outside `tg`: where a rule allows it and the backend can carry it.
    fn general_in(&mut self, publish: Publish) -> Result<(), End> {
        let names = Names { identity: self.client.principal.identity(), client_id: &self.client.client_id };
        if !self.shared.rights.borrow().allow(Action::Publish, names, &publish.topic) {
            return self.deny(&publish, "no rule allows to publish to this topic");
        }
        let announced = self.shared.backend.address.borrow().announced.clone();
        if publish.retain && announced.retain_available == Some(0) {
            return Err(End::Refused(reason::RETAIN_UNSUPPORTED, "retained messages are not available"));
        }
        if announced.qos_max.is_some_and(|max| publish.qos as u8 > max) {
            return Err(End::Refused(reason::QOS_UNSUPPORTED, "the QoS is above the announced maximum"));
        }
        if !self.is_known(&publish.topic) {
            return Err(End::Refused(reason::QUOTA, "rumqttd has seen as many topics as it may, this one is new"));
        }
        self.forward_in(publish)
    }

    /// Whether rumqttd knows the topic, or has room for it. What was asked of last is most of what is asked.
    fn is_known(&mut self, topic: &str) -> bool {
        if self.shared.backend.kind != LinkKind::Rumqttd || self.last_topic == topic {
            return true;
        }
        let known = self.shared.backend.seen.admit(Name::Topic, topic, self.usage.brought());
        if known {
            topic.clone_into(&mut self.last_topic);
        }
        known
    }

    fn forward_in(&mut self, publish: Publish) -> Result<(), End> {
        let (id, qos) = (publish.id, publish.qos);
        let kept = self.shared.keeper.forward(forwarding(&self.client.principal, &publish));
        let taken = self.general.publish(publish);
        if qos != QoS::AtMostOnce {
            self.settling.push_back(Box::pin(async move {
                let kept = match kept {
                    Some(kept) => kept.await,
                    None => Ok(()),
                };
                let outcome = match (kept, taken.await) {
                    (Err(why), _) => Outcome::Unkept(why),
                    (Ok(()), Ok(taken)) => Outcome::Backend(taken),
                    (Ok(()), Err(_)) => Outcome::Lost,
                };
                Settled { id, qos, outcome }
            }));
        }
        Ok(())
    }

    /// Acknowledges a publish, its frame first.
    pub(super) fn settle(&mut self, settled: Settled) -> Result<(), End> {
        let Settled { id, qos, outcome } = settled;
        match outcome {
            Outcome::Repeated => self.acknowledge(qos, Ack::success(id)),
            Outcome::Backend(Taken { reason, reason_string }) => {
                self.acknowledge(qos, Ack { id, reason, reason_string })
            }
            Outcome::Lost => Ok(()),
            Outcome::Unkept(why) => {
                count(&self.shared.counters.refused);
                match self.client.version {
                    Version::V4 => Err(End::Refused(reason::QUOTA, why)),
                    Version::V5 => self.acknowledge(qos, refused_ack(id, reason::QUOTA, why.to_owned())),
                }
            }
            Outcome::Denied(what) => {
                count(&self.shared.counters.refused);
                self.acknowledge(qos, refused_ack(id, reason::NOT_AUTHORISED, what.to_owned()))
            }
            Outcome::Verdict { device, verdict: Verdict::Kept { frame }, reply } => {
                if let Some(frame) = frame {
                    self.verdict_frame(&device, frame, Ephemeral::Lossy, reply)?;
                }
                self.acknowledge(qos, Ack::success(id))
            }
            Outcome::Verdict { device, verdict: Verdict::Refused { code, message, frame }, reply } => {
                count(&self.shared.counters.refused);
                self.verdict_frame(&device, frame, Ephemeral::Provisional, reply)?;
                self.acknowledge(qos, refused_ack(id, code.puback_reason(), message))
            }
        }
    }

    /// A frame about a publish: to this connection now, before the acknowledgement, and to the others that listen.
    fn verdict_frame(&mut self, device: &DeviceId, payload: Bytes, how: Ephemeral, reply: Reply) -> Result<(), End> {
        let alone = self.shared.crowd.is_thin() && self.session.hears(device, None).is_some();
        if !alone {
            let note = Note::Frame { device: device.clone(), payload: payload.clone(), how, reply: reply.clone() };
            if !self.tell_hall(Mail::Note { device: device.clone(), note, except: Some(self.conn) }) {
                count(&self.shared.counters.dropped_frames);
            }
        }
        self.frame_now(device, payload, how, &reply)
    }

    fn acknowledge(&mut self, qos: QoS, mut ack: Ack) -> Result<(), End> {
        if !self.client.wants_reasons {
            ack.reason_string = None;
        }
        match qos {
            QoS::AtMostOnce => Ok(()),
            QoS::AtLeastOnce => self.send(&Packet::PubAck(ack)),
            QoS::ExactlyOnce => {
                if ack.reason < reason::UNSPECIFIED || self.client.version == Version::V4 {
                    self.session.received.insert(ack.id);
                }
                self.send(&Packet::PubRec(ack))
            }
        }
    }

    /// PUBREL: the client forgets the packet id, and so does the session.
    pub(super) fn release(&mut self, id: u16) -> Result<(), End> {
        let known = self.session.received.remove(&id);
        let reason = if known { reason::SUCCESS } else { reason::ID_NOT_FOUND };
        self.send(&Packet::PubComp(Ack { id, reason, reason_string: None }))
    }
}

/// What the specification forbids to clients whatever the topic (MQTT 5.0, 3.3.2.3.5 and 3.3.4).
fn check_properties(properties: &Properties) -> Result<(), End> {
    if properties.response_topic.as_ref().is_some_and(|name| name.is_empty() || name.contains(['+', '#'])) {
        return Err(End::protocol("response topic is empty or has a wildcard"));
    }
    if !properties.subscription_ids.is_empty() {
        return Err(End::protocol("a client's publish has a subscription identifier"));
    }
    Ok(())
}

/// What the keeper is offered of a general publish.
fn forwarding<'p>(principal: &'p Principal, publish: &'p Publish) -> Forwarding<'p> {
    Forwarding {
        source: principal.identity(),
        topic: &publish.topic,
        payload: &publish.payload,
        retain: publish.retain,
        expiry_ms: publish.properties.message_expiry_s.map(|s| u64::from(s) * 1000),
        via: publish.properties.via(),
    }
}

fn refused_ack(id: u16, reason: u8, message: String) -> Ack {
    Ack { id, reason, reason_string: Some(message) }
}

/// The door's own refusal, written as the payload was.
fn refusal(payload: &[u8], code: ErrorCode, message: String) -> Verdict {
    let encoding = Encoding::of(payload).unwrap_or(Encoding::Json);
    let id = decode_prompt(payload).ok().and_then(|(prompt, _)| prompt.id);
    let frame = Frame::Error(ErrorFrame { id, code, message: message.clone(), retry_after_ms: None });
    Verdict::Refused { code, message, frame: encoding.frame(&frame).unwrap_or_default().into() }
}
