//! What of the bridge outlives a connection: what the hub is told, the retained state, the items, the bytes of the day.

use super::budget::{Budget, Payer};
use super::feed::{Feed, Item};
use crate::link::{Cause, Version};
use crate::up::message::{BridgeFacts, Report};
use bytes::Bytes;
use std::collections::BTreeMap;
use tidegate_core::Event;
use tidegate_schemas::{JobId, Origin, Resolution, Topic};
use tokio::sync::mpsc;
use tracing::{info, warn};

/// The event topic that only the canary uses.
const CANARY: &str = "canary";

/// Our side.
pub(super) struct Shore {
    /// Who we are.
    pub(super) origin: Origin,
    /// What crosses by rule.
    pub(super) feed: Feed,
    /// The bytes of the day.
    pub(super) budget: Budget,
    reports: mpsc::UnboundedSender<Report>,
    /// Retained state, for every new connection.
    states: BTreeMap<String, Bytes>,
    /// Resolutions received so far: their numbers.
    received: u64,
    facts: BridgeFacts,
}

impl Shore {
    /// With nothing said yet.
    pub(super) fn new(origin: Origin, feed: Feed, budget: Budget, reports: mpsc::UnboundedSender<Report>) -> Self {
        Self { origin, feed, budget, reports, states: BTreeMap::new(), received: 0, facts: BridgeFacts::default() }
    }

    fn event(&self, event: Event) {
        let _ = self.reports.send(Report::Event(event));
    }

    /// The central broker has that publish.
    pub(super) fn sent(&self, job: JobId, attempt: u32) {
        self.event(Event::EscalationSent { job, attempt });
    }

    /// That publish did not count.
    pub(super) fn unsent(&self, job: JobId, attempt: u32) {
        self.event(Event::EscalationUnsent { job, attempt });
    }

    /// The central broker will never take it: what there is here becomes the outcome, and the next one flows.
    pub(super) fn refused(&self, job: JobId, attempt: u32, reason: &'static str) {
        warn!(%job, reason, "the central broker refuses an escalation for good");
        self.event(Event::EscalationRefused { job, attempt, by: reason.to_owned() });
    }

    /// The central broker will never take that item: it becomes a dead letter, and the next one flows.
    pub(super) fn dead(&mut self, item: &Item, reason: &'static str) {
        warn!(topic = %item.topic, bytes = item.payload.len(), reason, "the central broker refuses an item for good");
        self.feed.dead(item, reason);
    }

    /// The next item that may cross.
    pub(super) fn next_item(&mut self) -> Option<Item> {
        let budget = &self.budget;
        self.feed.next(|priority| budget.allows(Payer::Telemetry(priority)))
    }

    /// A resolution came.
    pub(super) fn resolution(&self, number: u64, resolution: Box<Resolution>) {
        let _ = self.reports.send(Report::Resolution(number, resolution));
    }

    /// The number of the next message.
    pub(super) fn number(&mut self) -> u64 {
        self.received += 1;
        self.received
    }

    /// State that the next connection tells again.
    pub(super) fn remember(&mut self, topic: String, payload: Bytes) {
        self.states.insert(topic, payload);
    }

    /// All of it.
    pub(super) fn states(&self) -> Vec<(String, Bytes)> {
        self.states.iter().map(|(topic, payload)| (topic.clone(), payload.clone())).collect()
    }

    /// The topic that only the canary uses.
    pub(super) fn canary_topic(&self) -> String {
        Topic::Event { origin: self.origin.clone(), kind: CANARY.to_owned() }.name()
    }

    /// A broker took us.
    pub(super) fn spoke(&self, version: Version) {
        info!(version = version.word(), "the central broker took us");
    }

    /// The link is up.
    pub(super) fn up(&mut self) {
        self.event(Event::LinkUp);
        (self.facts.refused, self.facts.away) = (None, None);
        self.facts.connected = true;
        self.tell();
    }

    /// The link is down, and why. A broker that refuses us only a person can mend.
    pub(super) fn down(&mut self, why: String, cause: Cause) {
        if self.facts.connected {
            self.event(Event::LinkDown);
        }
        self.facts.connected = false;
        if cause == Cause::Refused {
            self.facts.refused = Some(why.clone());
        }
        self.facts.away = Some(why);
        self.tell();
    }

    /// Where we are connected, or try to.
    pub(super) fn at(&mut self, broker: String, version: Version) {
        (self.facts.broker, self.facts.version) = (broker, version.word());
    }

    /// Tells the hub what changed.
    pub(super) fn tell(&mut self) {
        self.facts.budget = self.budget.told();
        let _ = self.reports.send(Report::Bridge(Box::new(self.facts.clone())));
    }
}
