//! Publishes from the client: to the keeper, to rumqttd, or refused. Acknowledged in order, after the word of whoever
//! takes them.

use super::{Connection, End};
use crate::codec::{Ack, Packet, Publish, QoS, Version, reason};
use crate::hall::{Mail, Note};
use crate::keeper::{Ephemeral, Submission, Verdict};
use crate::rights::{Target, answer_topic};
use crate::stats::count;
use crate::topic;
use bytes::Bytes;
use std::future::ready;
use tidegate_schemas::{DeviceId, Encoding, ErrorCode, ErrorFrame, Frame, decode_prompt};

/// Topics that a client may give an alias: one prompt and one control topic, and some telemetry.
pub(crate) const ALIASES_MAX: u16 = 16;

/// A publish that can be acknowledged.
pub(super) struct Settled {
    pub(super) id: u16,
    pub(super) qos: QoS,
    outcome: Outcome,
}

enum Outcome {
    /// rumqttd took it, or it was a repetition.
    Taken,
    /// The backend went away; the client sends it again.
    Lost,
    /// Refused without a frame: nobody on this connection would read it.
    Denied(&'static str),
    Verdict {
        device: DeviceId,
        verdict: Verdict,
        correlation: Option<Bytes>,
    },
}

impl Settled {
    pub(super) fn is_taken(&self) -> bool {
        matches!(self.outcome, Outcome::Taken | Outcome::Verdict { verdict: Verdict::Kept { .. }, .. })
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
        topic::check_name(&publish.topic).map_err(|bad| End::Refused(reason::TOPIC_INVALID, bad.0))?;
        if publish.qos == QoS::ExactlyOnce && self.session.received.contains(&publish.id) {
            self.settled(publish.id, publish.qos, Outcome::Taken);
            return Ok(());
        }
        match self.client.principal.target(&self.shared.origin, &publish.topic) {
            Target::General => self.forward_in(publish),
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
        let answer = answer_topic(&self.shared.origin, &device);
        if properties.response_topic.as_ref().is_some_and(|topic| *topic != answer) {
            let message = "response topic is not this device's answer topic".to_owned();
            let verdict = refusal(&payload, ErrorCode::NotAllowed, message);
            self.settled(id, qos, Outcome::Verdict { device, verdict, correlation: None });
            return Ok(());
        }
        let correlation = properties.correlation;
        let submission = Submission {
            device: device.clone(),
            // A copy, so that a small prompt does not keep the read buffer alive.
            payload: Bytes::copy_from_slice(&payload),
            expiry_ms: properties.message_expiry_s.map(|s| u64::from(s) * 1000),
            correlation: correlation.clone(),
            traceparent: properties.traceparent,
        };
        let verdict = match kind {
            Kind::Prompt => self.shared.keeper.prompt(submission),
            Kind::Control => self.shared.keeper.control(submission),
        };
        self.settling.push_back(Box::pin(async move {
            let verdict = verdict.await;
            Settled { id, qos, outcome: Outcome::Verdict { device, verdict, correlation } }
        }));
        Ok(())
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
        let correlation = publish.properties.correlation.clone();
        self.settled(publish.id, publish.qos, Outcome::Verdict { device, verdict, correlation });
        Ok(())
    }

    fn forward_in(&mut self, publish: Publish) -> Result<(), End> {
        let (id, qos) = (publish.id, publish.qos);
        let taken = self.general.publish(publish);
        if qos != QoS::AtMostOnce {
            self.settling.push_back(Box::pin(async move {
                let outcome = if taken.await.is_ok() { Outcome::Taken } else { Outcome::Lost };
                Settled { id, qos, outcome }
            }));
        }
        Ok(())
    }

    /// Acknowledges a publish, its frame first.
    pub(super) fn settle(&mut self, settled: Settled) -> Result<(), End> {
        let Settled { id, qos, outcome } = settled;
        match outcome {
            Outcome::Taken => self.acknowledge(qos, Ack::success(id)),
            Outcome::Lost => Ok(()),
            Outcome::Denied(what) => {
                count(&self.shared.counters.refused);
                self.acknowledge(qos, refused_ack(id, reason::NOT_AUTHORISED, what.to_owned()))
            }
            Outcome::Verdict { device, verdict: Verdict::Kept { frame }, correlation } => {
                if let Some(frame) = frame {
                    self.verdict_frame(&device, frame, Ephemeral::Lossy, correlation)?;
                }
                self.acknowledge(qos, Ack::success(id))
            }
            Outcome::Verdict { device, verdict: Verdict::Refused { code, message, frame }, correlation } => {
                count(&self.shared.counters.refused);
                self.verdict_frame(&device, frame, Ephemeral::Provisional, correlation)?;
                self.acknowledge(qos, refused_ack(id, code.puback_reason(), message))
            }
        }
    }

    /// A frame about a publish: to this connection now, before the acknowledgement, and to the others that listen.
    fn verdict_frame(
        &mut self,
        device: &DeviceId,
        payload: Bytes,
        how: Ephemeral,
        correlation: Option<Bytes>,
    ) -> Result<(), End> {
        let note = Note::Frame { device: device.clone(), payload: payload.clone(), how };
        if !self.tell_hall(Mail::Note { device: device.clone(), note, except: Some(self.conn) }) {
            count(&self.shared.counters.dropped_frames);
        }
        self.frame_now(device, payload, how, correlation)
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
