//! What the door knows of a client beyond one connection. A session belongs to exactly one task at a time: its
//! connection while it is online, the hall while it is away.

use crate::codec::{Filter, Properties, QoS};
use crate::rights::Reach;
use crate::topic;
use crate::upstream::Upstream;
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;
use tidegate_schemas::{DeviceId, JobId};

/// Acknowledged outcomes that a session remembers, so that a list made before the acknowledgement sends none again.
const DONE_MAX: usize = 256;
/// Devices whose outcomes one session follows: more than one only for `local`.
const FEEDS_MAX: usize = 256;
/// Identifiers that are taken for free at once: less than there are, since those given meanwhile come round again.
const FREE_MAX: u16 = 30_000;
/// Outcomes that a feed remembers to have sent at QoS 0.
const SENT_MAX: usize = 4_096;

#[derive(Debug, Default)]
pub(crate) struct Session {
    /// Number of the loopback client id; unique among living sessions.
    pub(crate) slot: u32,
    pub(crate) filters: Vec<Subscription>,
    /// Packet ids of QoS 2 publishes that were taken and not released.
    pub(crate) received: BTreeSet<u16>,
    /// Sent at QoS 1 or 2 and not acknowledged, oldest first.
    pub(crate) inflight: Inflight,
    last_id: u16,
    /// How many identifiers after the last one are known to be free.
    free: u16,
    pub(crate) feeds: Feeds,
    /// Whether the backend remembers something of it.
    pub(crate) remembered: bool,
    /// What is between it and the backend.
    pub(crate) upstream: Upstream,
    /// How long it outlives its connection; zero ends it.
    pub(crate) expiry: Duration,
}

#[derive(Debug, Clone)]
pub(crate) struct Subscription {
    /// As the client asked.
    pub(crate) asked: Filter,
    /// What was granted; the backend may grant less of what it serves.
    pub(crate) qos: QoS,
    pub(crate) reach: Option<Reach>,
    /// Whether outcomes with a Response Topic may come here.
    pub(crate) replies: bool,
    pub(crate) forward: bool,
    /// Subscription identifier of MQTT 5.
    pub(crate) id: Option<u32>,
}

impl Subscription {
    fn hears(&self, device: &DeviceId, response_topic: Option<&str>) -> bool {
        match (response_topic, &self.reach) {
            (Some(name), _) => self.replies && topic::matches(&self.asked.filter, name),
            (None, Some(reach)) => reach.covers(device),
            (None, None) => false,
        }
    }
}

/// A publish on its way to the client, at QoS 1 or 2.
#[derive(Debug, Clone)]
pub(crate) struct Sent {
    pub(crate) id: u16,
    pub(crate) qos: QoS,
    pub(crate) topic: String,
    pub(crate) payload: Bytes,
    pub(crate) properties: Option<Box<Properties>>,
    /// QoS 2: the client has it and is told to forget the packet id.
    pub(crate) released: bool,
    pub(crate) what: What,
}

/// What was sent at QoS 1 or 2 and is not acknowledged, oldest first, with its bytes.
#[derive(Debug, Default)]
pub(crate) struct Inflight {
    sent: VecDeque<Sent>,
    bytes: usize,
}

impl Inflight {
    pub(crate) fn len(&self) -> usize {
        self.sent.len()
    }

    /// Bytes of topics and payloads.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Sent> {
        self.sent.iter()
    }

    pub(crate) fn push(&mut self, sent: Sent) {
        self.bytes += sent.bytes();
        self.sent.push_back(sent);
    }

    /// Takes out the first that is meant.
    pub(crate) fn take(&mut self, is: impl Fn(&Sent) -> bool) -> Option<Sent> {
        let at = self.sent.iter().position(is)?;
        let sent = self.sent.remove(at)?;
        self.bytes -= sent.bytes();
        Some(sent)
    }

    /// The client has a QoS 2 message: only its identifier is kept. What it meant, if that is new.
    pub(crate) fn release(&mut self, id: u16) -> Option<Option<What>> {
        let sent = self.sent.iter_mut().find(|sent| sent.id == id && sent.qos == QoS::ExactlyOnce)?;
        let what = (!sent.released).then(|| sent.what.clone());
        self.bytes -= sent.payload.len();
        (sent.released, sent.payload, sent.properties) = (true, Bytes::new(), None);
        Some(what)
    }

    pub(crate) fn retain(&mut self, keep: impl Fn(&Sent) -> bool) {
        self.sent.retain(keep);
        self.bytes = self.sent.iter().map(Sent::bytes).sum();
    }

    /// The backend has forgotten what it sent.
    fn forgotten(&mut self) {
        for sent in &mut self.sent {
            if let What::General { link_id, .. } = &mut sent.what {
                *link_id = 0;
            }
        }
    }

    /// All of it, to be sorted anew.
    pub(crate) fn drain(&mut self) -> impl Iterator<Item = Sent> + use<> {
        self.bytes = 0;
        std::mem::take(&mut self.sent).into_iter()
    }
}

impl Sent {
    fn bytes(&self) -> usize {
        self.topic.len() + self.payload.len()
    }
}

/// What an acknowledgement of a [`Sent`] means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum What {
    /// The outcome is released.
    Outcome { device: DeviceId, job: JobId },
    /// Nothing.
    Frame,
    /// The backend gets its acknowledgement for this packet id; 0 when it has forgotten it.
    General { link_id: u16, retain: bool },
}

impl Session {
    pub(crate) fn new(slot: u32) -> Self {
        Self { slot, ..Self::default() }
    }

    /// A packet id that nothing in flight has. What is in flight is looked through once in many thousand times: the
    /// identifiers up to the next one in use stay free, since new ones are given only behind.
    pub(crate) fn next_id(&mut self) -> u16 {
        loop {
            self.last_id = self.last_id.checked_add(1).unwrap_or(1);
            if self.free > 0 {
                self.free -= 1;
                return self.last_id;
            }
            let away = self.inflight.iter().map(|sent| sent.id.wrapping_sub(self.last_id)).min();
            if away != Some(0) {
                // One less on the way over 0, which is no identifier.
                self.free = away.map_or(FREE_MAX, |away| away.saturating_sub(2).min(FREE_MAX));
                return self.last_id;
            }
        }
    }

    /// The QoS at which the session hears of a device, on its answer topic or on this one; `None` when it does not.
    pub(crate) fn hears(&self, device: &DeviceId, response_topic: Option<&str>) -> Option<QoS> {
        self.filters.iter().filter(|s| s.hears(device, response_topic)).map(|s| s.qos.min(QoS::AtLeastOnce)).max()
    }

    /// The identifiers of the subscriptions by which it hears.
    pub(crate) fn identifiers(&self, device: &DeviceId, response_topic: Option<&str>) -> Vec<u32> {
        self.filters.iter().filter(|s| s.id.is_some() && s.hears(device, response_topic)).filter_map(|s| s.id).collect()
    }

    /// The backend has forgotten what it sent: acknowledgements of it go nowhere.
    pub(crate) fn backend_forgot(&mut self) {
        self.inflight.forgotten();
    }

    /// A device on whose answer topic the session listens.
    pub(crate) fn listening_device(&self) -> Option<DeviceId> {
        self.filters.iter().find_map(|s| match &s.reach {
            Some(Reach::One(device)) => Some(device.clone()),
            _ => None,
        })
    }

    pub(crate) fn reaches(&self) -> Vec<Reach> {
        let replies = self.filters.iter().any(|s| s.replies).then_some(Reach::Replies);
        self.filters.iter().filter_map(|s| s.reach.clone()).chain(replies).collect()
    }

    pub(crate) fn forwards(&self) -> bool {
        self.filters.iter().any(|s| s.forward)
    }

    pub(crate) fn unsubscribe(&mut self, filter: &str) -> Option<Subscription> {
        let at = self.filters.iter().position(|s| s.asked.filter == filter)?;
        Some(self.filters.remove(at))
    }
}

/// Which outcomes a session was sent, per device.
#[derive(Debug, Default)]
pub(crate) struct Feeds {
    feeds: BTreeMap<DeviceId, Feed>,
    done: VecDeque<JobId>,
}

#[derive(Debug, Default)]
struct Feed {
    sent: BTreeSet<JobId>,
    /// Outcomes that the session has no subscription for: their Response Topic is another.
    unheard: BTreeSet<JobId>,
    /// The keeper may have something that was not sent.
    behind: bool,
    pulling: bool,
}

impl Feeds {
    fn feed(&mut self, device: &DeviceId) -> &mut Feed {
        if self.feeds.len() >= FEEDS_MAX && !self.feeds.contains_key(device) {
            self.feeds.retain(|_, feed| !feed.sent.is_empty() || feed.behind || feed.pulling);
            if self.feeds.len() >= FEEDS_MAX {
                self.feeds.pop_first();
            }
        }
        self.feeds.entry(device.clone()).or_default()
    }

    /// The keeper may have something for the device.
    pub(crate) fn look_again(&mut self, device: &DeviceId) {
        self.feed(device).behind = true;
    }

    /// The same after a subscription: what was not heard may be now.
    pub(crate) fn listen_again(&mut self, device: &DeviceId) {
        let feed = self.feed(device);
        feed.unheard.clear();
        feed.behind = true;
    }

    /// The session does not hear of this one.
    pub(crate) fn unheard(&mut self, device: &DeviceId, job: JobId) {
        let feed = self.feed(device);
        if feed.unheard.len() >= SENT_MAX {
            feed.unheard.pop_first();
        }
        feed.unheard.insert(job);
    }

    pub(crate) fn look_again_everywhere(&mut self) {
        self.feeds.values_mut().for_each(|feed| feed.behind = true);
    }

    /// A new connection: lists under way belong to the old one.
    pub(crate) fn resumed(&mut self) {
        self.feeds.values_mut().for_each(|feed| (feed.pulling, feed.behind) = (false, true));
    }

    /// Whether the outcome is the next one to send; otherwise the feed is behind, and it comes with the next list.
    pub(crate) fn is_next(&mut self, device: &DeviceId) -> bool {
        let feed = self.feed(device);
        let next = !feed.behind && !feed.pulling;
        feed.behind |= !next;
        next
    }

    pub(crate) fn is_new(&mut self, device: &DeviceId, job: JobId) -> bool {
        let done = self.done.contains(&job);
        let feed = self.feed(device);
        !done && !feed.sent.contains(&job) && !feed.unheard.contains(&job)
    }

    pub(crate) fn sent(&mut self, device: &DeviceId, job: JobId) {
        let feed = self.feed(device);
        if feed.sent.len() >= SENT_MAX {
            feed.sent.pop_first();
        }
        feed.sent.insert(job);
    }

    /// What was sent did not reach the client, and comes again with the next list.
    pub(crate) fn unsent(&mut self, device: &DeviceId, job: JobId) {
        let feed = self.feed(device);
        feed.sent.remove(&job);
        feed.behind = true;
    }

    pub(crate) fn acknowledged(&mut self, device: &DeviceId, job: JobId) {
        self.feed(device).sent.remove(&job);
        if self.done.len() >= DONE_MAX {
            self.done.pop_front();
        }
        self.done.push_back(job);
    }

    /// A device whose list is due, and how many outcomes to ask for so that `room` of them are new.
    pub(crate) fn next_pull(&mut self, room: usize) -> Option<(DeviceId, usize)> {
        let known = self.done.len();
        let (device, feed) = self.feeds.iter_mut().find(|(_, feed)| feed.behind && !feed.pulling)?;
        (feed.behind, feed.pulling) = (false, true);
        Some((device.clone(), feed.sent.len() + feed.unheard.len() + known + room))
    }

    pub(crate) fn pulled(&mut self, device: &DeviceId) {
        self.feed(device).pulling = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(id: u16) -> Sent {
        let (topic, payload) = ("t".to_owned(), Bytes::from_static(b"four"));
        Sent { id, qos: QoS::AtLeastOnce, topic, payload, properties: None, released: false, what: What::Frame }
    }

    #[test]
    fn identifiers_in_use_are_not_given_twice_and_0_never() {
        let mut session = Session::new(1);
        let stuck = [1, 2, 7, 65_535];
        for _ in 0..200_000 {
            let id = session.next_id();
            assert!(id != 0 && session.inflight.iter().all(|sent| sent.id != id), "{id} is in use");
            session.inflight.push(sent(id));
            // Most are acknowledged at once, some never.
            if !stuck.contains(&id) {
                session.inflight.take(|sent| sent.id == id);
            }
        }
        assert_eq!(session.inflight.iter().map(|sent| sent.id).collect::<Vec<_>>(), stuck);
        assert_eq!((session.inflight.len(), session.inflight.bytes()), (4, 20));
    }
}
