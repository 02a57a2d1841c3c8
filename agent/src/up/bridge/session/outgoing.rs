//! What a connection publishes, and in which order: words about ourselves, escalations, then what crosses by rule.

use super::{Cargo, Session, What, down, give_back};
use crate::link::{Delivery, Down, Parcel, Retain};
use crate::trace::hop;
use crate::up::bridge::budget::Payer;
use crate::up::bridge::feed::Item;
use crate::up::bridge::past::Past;
use crate::up::bridge::shore::Shore;
use bytes::Bytes;
use std::time::Instant;
use tidegate_schemas::{DeviceTopic, Escalation, Topic, encode};
use tracing::{info, warn};

impl Session {
    /// Publishes what fits: words and escalations first, then items.
    pub(in crate::up::bridge) fn pump(&mut self, shore: &mut Shore) -> Result<(), Down> {
        while self.up && self.step(shore)? {}
        Ok(())
    }

    /// One publish; false if nothing can go now.
    fn step(&mut self, shore: &mut Shore) -> Result<bool, Down> {
        let now = Instant::now();
        let under_way = self.window.len();
        if !self.pace.admits(1, under_way, now) {
            return Ok(false);
        }
        if let Some((topic, payload)) = self.words.pop_front() {
            self.send(Parcel::acknowledged(topic, payload), What::Word, shore)?;
            return Ok(true);
        }
        if let Some((escalation, past)) = self.waiting.pop_front() {
            return self.escalate(escalation, past, shore);
        }
        let Some(item) = shore.next_item() else { return Ok(false) };
        if item.payload.len() > self.payload_max {
            shore.dead(&item, "larger than the central broker takes");
            return Ok(true);
        }
        if !self.pace.admits(item.bytes(), under_way, now) {
            shore.feed.back(item);
            return Ok(false);
        }
        self.forward(item, shore)
    }

    fn escalate(&mut self, mut escalation: Box<Escalation>, past: Past, shore: &mut Shore) -> Result<bool, Down> {
        let (job, attempt) = (escalation.job, escalation.attempt);
        let came = escalation.prompt.traceparent.clone();
        escalation.prompt.traceparent = came.as_ref().map(hop);
        let payload = encode(&*escalation);
        if payload.len() > self.payload_max {
            warn!(%job, bytes = payload.len(), max = self.payload_max, "an escalation is too large to publish");
            shore.refused(job, attempt, "larger than the central broker takes");
            return Ok(true);
        }
        if !shore.budget.allows(Payer::Escalation) {
            shore.unsent(job, attempt);
            return Ok(true);
        }
        if !self.pace.admits(payload.len(), self.window.len(), Instant::now()) {
            escalation.prompt.traceparent = came;
            self.waiting.push_front((escalation, past));
            return Ok(false);
        }
        let topic = Topic::device(&shore.origin, DeviceTopic::Escalate, &escalation.device).name();
        let expiry_s = escalation.expires_in_ms.map(expiry_seconds);
        let mut user = Vec::new();
        past.tell(&mut user);
        let parcel = Parcel { expiry_s, user, ..Parcel::acknowledged(topic, payload) };
        if let (Some(came), Some(trace)) = (came, &escalation.prompt.traceparent) {
            info!(%job, attempt, %trace, parent = came.parent_id(), "an escalation goes over the link");
        }
        self.send(parcel, What::Escalation(job, attempt), shore)?;
        Ok(true)
    }

    fn forward(&mut self, mut item: Item, shore: &mut Shore) -> Result<bool, Down> {
        let parcel = Parcel {
            topic: item.topic.clone(),
            payload: item.payload.clone(),
            delivery: item.delivery,
            retain: if item.retain { Retain::Last } else { Retain::No },
            expiry_s: item.left_ms().map(expiry_seconds),
            user: item.publishes(),
            correlation: None,
        };
        if item.delivery == Delivery::Acknowledged {
            self.send(parcel, What::Item(item), shore)?;
            return Ok(true);
        }
        let bytes = item.bytes();
        if self.line.publish(parcel).is_err() {
            // At QoS 0 nothing but the client's queue paces us, and it is full: the next acknowledgement or tick goes on.
            self.pace.breathe(Instant::now());
            shore.feed.back(item);
            return Ok(false);
        }
        shore.budget.pay(bytes);
        shore.feed.done(&item);
        Ok(true)
    }

    pub(super) fn send(&mut self, parcel: Parcel, what: What, shore: &mut Shore) -> Result<(), Down> {
        let bytes = parcel.topic.len() + parcel.payload.len();
        let cargo = Cargo { what, bytes };
        if let Err(untaken) = self.line.publish(parcel) {
            give_back(cargo, shore);
            return Err(down(untaken));
        }
        shore.budget.pay(bytes);
        self.pace.sent(bytes);
        self.window.requested(cargo);
        Ok(())
    }

    pub(super) fn state(&self, topic: &str, payload: &Bytes, shore: &mut Shore) -> Result<(), Down> {
        shore.budget.pay(topic.len() + payload.len());
        self.line.publish(Parcel::state(topic.to_owned(), payload.clone())).map_err(down)
    }
}

/// Whole seconds, never fewer than what is left: an item lives longer, never shorter.
fn expiry_seconds(ms: u64) -> u32 {
    u32::try_from(ms.div_ceil(1000)).unwrap_or(u32::MAX)
}
