//! Which publish an acknowledgement belongs to.
//!
//! rumqttc gives no handle for a publish. Its events `Outgoing(Publish(id))` come in the order of the requests, so a
//! queue of requests and those events give each its packet id, and PUBACKs find theirs.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

/// QoS 1 publishes of one connection that are not acknowledged.
#[derive(Debug)]
pub(crate) struct Window<T> {
    requested: VecDeque<(T, Instant)>,
    sent: HashMap<u16, (T, Instant)>,
}

impl<T> Window<T> {
    /// Nothing is under way.
    pub(crate) fn new() -> Self {
        Self { requested: VecDeque::new(), sent: HashMap::new() }
    }

    /// Publishes under way.
    pub(crate) fn len(&self) -> usize {
        self.requested.len() + self.sent.len()
    }

    /// A publish was handed to rumqttc.
    pub(crate) fn requested(&mut self, what: T) {
        self.requested.push_back((what, Instant::now()));
    }

    /// rumqttc gave the oldest requested publish this packet id; 0 is that of QoS 0, which is not counted.
    pub(crate) fn sent(&mut self, packet: u16) {
        if packet == 0 {
            return;
        }
        if let Some(what) = self.requested.pop_front() {
            self.sent.insert(packet, what);
        }
    }

    /// The broker acknowledged this packet id.
    pub(crate) fn acknowledged(&mut self, packet: u16) -> Option<T> {
        self.sent.remove(&packet).map(|(what, _)| what)
    }

    /// The broker acknowledged this packet id; how long that took.
    pub(crate) fn acknowledged_after(&mut self, packet: u16) -> Option<(T, Duration)> {
        self.sent.remove(&packet).map(|(what, at)| (what, at.elapsed()))
    }

    /// How long the oldest publish waits.
    pub(crate) fn oldest(&self) -> Option<Duration> {
        let all = self.requested.iter().chain(self.sent.values());
        all.map(|(_, at)| at.elapsed()).max()
    }

    /// Everything that was not acknowledged: the connection is over.
    pub(crate) fn into_rest(self) -> impl Iterator<Item = T> {
        self.requested.into_iter().chain(self.sent.into_values()).map(|(what, _)| what)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn acknowledgements_find_their_publish_in_any_order() {
        let mut window = Window::new();
        for job in ["a", "b", "c"] {
            window.requested(job);
        }
        window.sent(0);
        window.sent(7);
        window.sent(8);
        assert_eq!(window.acknowledged(8), Some("b"));
        assert_eq!(window.acknowledged(8), None);
        assert_eq!(window.acknowledged(9), None);
        assert_eq!(window.len(), 2);
        assert!(window.oldest().is_some());
        let mut rest: Vec<_> = window.into_rest().collect();
        rest.sort_unstable();
        assert_eq!(rest, ["a", "c"]);
    }
}
