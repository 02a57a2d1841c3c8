//! One connection of a worker: escalations in, resolutions out, acknowledgements in order of arrival.

use super::desk::{Desk, Key, Resolved, Taken};
use crate::engine::EngineReport;
use crate::link::{Backoff, Epoch, LinkEvent, SILENCE_MAX, Window};
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::{Packet, PubAckReason, Publish, SubscribeReasonCode};
use std::collections::VecDeque;
use std::time::{Duration, Instant};
use tidegate_schemas::{Topic, decode_escalation};
use tokio::sync::mpsc;
use tokio::time::sleep_until;
use tracing::{info, warn};

/// Silence on a publish after which the link counts as dead.
const PUBACK_MAX: Duration = Duration::from_secs(8);

/// Wait before a resolution is published again that the broker did not take for now.
const AGAIN_AFTER: Duration = Duration::from_secs(2);
/// Gateways and brokers that an escalation may have passed: more is a loop.
const HOPS_MAX: u8 = 4;

/// How a connection ended.
pub(super) enum End {
    /// Asked to.
    Stop,
    /// It broke.
    Lost(String),
}

/// An escalation as this connection brought it.
struct Delivery {
    publish: Publish,
    /// None for what is no escalation: nothing to wait for.
    key: Option<Key>,
    resolved: bool,
}

/// One connection.
pub(super) struct Session {
    epoch: Epoch,
    window: Window<Key>,
    deliveries: VecDeque<Delivery>,
    /// Resolutions that the broker did not take for now, and when they go again; bounded by the deliveries.
    again: VecDeque<(Instant, Key)>,
    heard: Instant,
}

impl Session {
    /// A session on a connection that is being made.
    pub(super) fn new(epoch: Epoch) -> Self {
        let (deliveries, again) = (VecDeque::new(), VecDeque::new());
        Self { epoch, window: Window::new(), deliveries, again, heard: Instant::now() }
    }

    /// Works until the connection ends.
    pub(super) async fn run(
        &mut self,
        desk: &mut Desk,
        engine: &mut mpsc::Receiver<EngineReport>,
        backoff: &mut Backoff,
    ) -> End {
        loop {
            let silent_at = self.heard + SILENCE_MAX;
            let look_at = if self.window.len() > 0 { Instant::now() + Duration::from_secs(1) } else { silent_at };
            let again_at = self.again.front().map_or(silent_at, |(at, _)| *at);
            let wake = silent_at.min(look_at).min(desk.next_expiry().unwrap_or(silent_at)).min(again_at);
            let done = tokio::select! {
                event = self.epoch.next() => self.link(event, desk, backoff),
                Some(report) = engine.recv() => {
                    let ended = desk.engine(report);
                    self.publish_all(&ended, desk)
                }
                () = sleep_until(wake.into()) => {
                    let ended = desk.expire();
                    let told = self.publish_all(&ended, desk).and_then(|()| self.publish_again(desk));
                    told.and_then(|()| self.watch())
                }
            };
            if let Err(why) = done {
                return End::Lost(why);
            }
        }
    }

    fn watch(&self) -> Result<(), String> {
        if self.window.oldest().is_some_and(|wait| wait >= PUBACK_MAX) {
            return Err(format!("a publish was not acknowledged for {} s", PUBACK_MAX.as_secs()));
        }
        if self.heard.elapsed() >= SILENCE_MAX {
            return Err(format!("the broker was silent for {} s", SILENCE_MAX.as_secs()));
        }
        Ok(())
    }

    fn link(&mut self, event: LinkEvent, desk: &mut Desk, backoff: &mut Backoff) -> Result<(), String> {
        match event {
            LinkEvent::Down(why) => Err(why),
            LinkEvent::Sent(packet) => {
                self.window.sent(packet);
                Ok(())
            }
            LinkEvent::Packet(packet) => {
                self.heard = Instant::now();
                self.packet(*packet, desk, backoff)
            }
        }
    }

    fn packet(&mut self, packet: Packet, desk: &mut Desk, backoff: &mut Backoff) -> Result<(), String> {
        match packet {
            Packet::ConnAck(_) => {
                let asked = self.epoch.client.try_subscribe(Topic::worker_filter(), QoS::AtLeastOnce);
                asked.map_err(|_| "the client takes no subscriptions".to_owned())
            }
            Packet::SubAck(ack) => match ack.return_codes.first() {
                Some(SubscribeReasonCode::Success(_)) => {
                    backoff.works();
                    info!("connected to the central broker");
                    Ok(())
                }
                other => Err(format!("the broker refuses the escalations: {other:?}")),
            },
            Packet::PubAck(ack) => match self.window.acknowledged(ack.pkid) {
                Some(key) => self.answered(key, ack.reason),
                None => Ok(()),
            },
            Packet::Publish(publish) => self.arrived(publish, desk),
            _ => Ok(()),
        }
    }

    /// The broker's word about a resolution. What it does not take for now goes again, and its escalation stays
    /// unacknowledged; what it never takes must not block those behind it.
    fn answered(&mut self, key: Key, reason: PubAckReason) -> Result<(), String> {
        match reason {
            PubAckReason::Success | PubAckReason::NoMatchingSubscribers => {}
            PubAckReason::QuotaExceeded
            | PubAckReason::UnspecifiedError
            | PubAckReason::ImplementationSpecificError
            | PubAckReason::PacketIdentifierInUse => {
                warn!(origin = %key.0, job = %key.1, ?reason, "a resolution is not taken for now");
                self.again.push_back((Instant::now() + AGAIN_AFTER, key));
                return Ok(());
            }
            PubAckReason::NotAuthorized | PubAckReason::TopicNameInvalid | PubAckReason::PayloadFormatInvalid => {
                warn!(origin = %key.0, job = %key.1, ?reason, "a resolution was refused");
            }
        }
        self.resolved(&key)
    }

    /// Publishes what the broker did not take and whose time has come.
    fn publish_again(&mut self, desk: &Desk) -> Result<(), String> {
        while self.again.front().is_some_and(|(at, _)| *at <= Instant::now()) {
            let Some((_, key)) = self.again.pop_front() else { return Ok(()) };
            match desk.resolution(&key) {
                Some(resolved) => self.publish(key, resolved.clone())?,
                // Forgotten meanwhile: the gateway publishes again after its lease.
                None => self.resolved(&key)?,
            }
        }
        Ok(())
    }

    fn arrived(&mut self, publish: Publish, desk: &mut Desk) -> Result<(), String> {
        let decoded = decode_escalation(&publish.payload).ok();
        let Some(escalation) = decoded.filter(|escalation| escalation.hops <= HOPS_MAX) else {
            // What is wrong with it may quote it, so only its size is told.
            warn!(bytes = publish.payload.len(), "dropped a publish that is no escalation, or one that goes round");
            self.deliveries.push_back(Delivery { publish, key: None, resolved: true });
            return self.acknowledge();
        };
        let key = (escalation.origin.clone(), escalation.job);
        info!(origin = %key.0, job = %key.1, attempt = escalation.attempt, "took an escalation");
        let properties = publish.properties.as_ref();
        let expiry = properties.and_then(|p| p.message_expiry_interval).map(|s| Duration::from_secs(s.into()));
        let told = escalation.expires_in_ms.map(Duration::from_millis);
        let left = expiry.into_iter().chain(told).min();
        self.deliveries.push_back(Delivery { publish, key: Some(key.clone()), resolved: false });
        match desk.take(Box::new(escalation), left) {
            Taken::UnderWay => Ok(()),
            Taken::Resolved(resolved) => self.publish(key, resolved),
        }
    }

    fn publish_all(&mut self, ended: &[Key], desk: &Desk) -> Result<(), String> {
        ended.iter().try_for_each(|key| match desk.resolution(key) {
            Some(resolved) => self.publish(key.clone(), resolved.clone()),
            None => Ok(()),
        })
    }

    fn publish(&mut self, key: Key, resolved: Resolved) -> Result<(), String> {
        let sent = self.epoch.client.try_publish(resolved.topic, QoS::AtLeastOnce, false, resolved.payload);
        sent.map_err(|_| "the client takes no publishes".to_owned())?;
        self.window.requested(key);
        Ok(())
    }

    /// A resolution is with the broker: its escalations may be acknowledged.
    fn resolved(&mut self, key: &Key) -> Result<(), String> {
        self.deliveries.iter_mut().filter(|d| d.key.as_ref() == Some(key)).for_each(|d| d.resolved = true);
        self.acknowledge()
    }

    /// Acknowledges in order of arrival, as far as it is resolved.
    fn acknowledge(&mut self) -> Result<(), String> {
        while self.deliveries.front().is_some_and(|d| d.resolved) {
            if let Some(delivery) = self.deliveries.pop_front() {
                let asked = self.epoch.client.try_ack(&delivery.publish);
                asked.map_err(|_| "the client takes no acknowledgements".to_owned())?;
            }
        }
        Ok(())
    }
}
