//! What the store says without being asked: drops and dead letters. Logged at once, announced in sums, since a store
//! that is full drops as fast as messages come.

use super::hub::Hub;
use super::message::{Report, ToBridge};
use std::collections::BTreeMap;
use tidegate_schemas::Topic;
use tidegate_spool::{DropReason, Notice, QueueClass, Spool};
use tokio::sync::mpsc;
use tracing::warn;

/// What happened since it was announced last.
#[derive(Debug, Default)]
pub(super) struct Notices {
    drops: BTreeMap<(QueueClass, DropReason), (u64, u64)>,
    died: u64,
    /// The last letter, in words.
    letter: String,
}

/// Lets the hub hear what the store says.
pub(super) fn listen(spool: &Spool, reports: &mpsc::UnboundedSender<Report>) {
    let reports = reports.clone();
    spool.listen(move |notice| {
        let _ = reports.send(Report::Store(notice));
    });
}

impl Notices {
    pub(super) fn add(&mut self, notice: Notice) {
        match notice {
            Notice::Dropped { class, reason, entries, bytes } => {
                let sum = self.drops.entry((class, reason)).or_default();
                sum.0 += entries;
                sum.1 += bytes;
            }
            Notice::Died { entry, source, reason } => {
                warn!(%entry, device = %source, %reason, "a dead letter was written");
                self.died += 1;
                self.letter = format!("letter {entry} of {source}: {reason}");
            }
        }
    }

    /// The events since the last call: kind and sentence.
    fn take(&mut self) -> Vec<(&'static str, String)> {
        let told = |((class, reason), (entries, bytes)): ((QueueClass, DropReason), (u64, u64))| {
            ("drop", format!("{entries} of {class} dropped ({reason}), {bytes} bytes"))
        };
        let mut events: Vec<_> = std::mem::take(&mut self.drops).into_iter().map(told).collect();
        if self.died > 0 {
            events.push(("dead", format!("{} dead letters, the last is {}", self.died, self.letter)));
        }
        self.died = 0;
        events
    }
}

impl Hub {
    /// Publishes an event on both brokers.
    pub(super) fn announce(&mut self, kind: &'static str, message: String) {
        let count = self.view.events.entry(kind).or_default();
        *count += 1;
        self.view.happenings.add(kind, message.clone());
        let event = tidegate_schemas::Event { message, count: *count };
        let topic = Topic::Event { origin: self.view.origin.clone(), kind: kind.to_owned() }.name();
        let payload = super::view::payload(&event);
        self.hands.front.event(topic.clone(), payload.clone());
        if let Some(bridge) = &self.hands.bridge {
            // A full channel means that the link is busy; the event is in the log and on the local broker.
            let _ = bridge.try_send(ToBridge::Event(topic, payload));
        }
    }

    /// Announces what the store said since the last time.
    pub(super) fn tell_notices(&mut self) {
        for (kind, message) in self.notices.take() {
            warn!(kind, %message, "announced");
            self.announce(kind, message);
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use tidegate_spool::{DeadId, DeadReason};

    #[test]
    fn drops_are_announced_in_sums_and_once() {
        let mut notices = Notices::default();
        for entries in [3, 4] {
            let (class, reason) = (QueueClass::Telemetry, DropReason::Full);
            notices.add(Notice::Dropped { class, reason, entries, bytes: 10 * entries });
        }
        let reason = DeadReason::CrashedEngine { runs: 2 };
        notices.add(Notice::Died { entry: DeadId(7), source: "d1".parse().unwrap(), reason });
        let events = notices.take();
        assert_eq!(events[0], ("drop", "7 of telemetry dropped (full), 70 bytes".to_owned()));
        assert_eq!(events[1].0, "dead");
        assert!(events[1].1.contains("letter 7 of d1: crashed the engine, 2 runs"), "{}", events[1].1);
        assert!(notices.take().is_empty());
    }
}
