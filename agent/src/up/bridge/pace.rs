//! How much may be under way at once: in publishes by the broker's Receive Maximum, in bytes by what the link carried
//! so far, and for a while nothing at all when the broker says that it is too much. Pure.
//!
//! The bytes follow the rule of TCP's congestion window (RFC 5681): more with each prompt acknowledgement, half after a
//! late one. Without them a thin link would be filled with minutes of data, and every ping and prompt behind it be late.

use std::time::{Duration, Instant};

/// Publishes under way at most, whatever the broker takes.
const PUBLISHES_MAX: usize = 64;
/// What a broker of MQTT 3.1.1 is sent at once: the default of most, and such brokers cannot say.
const PUBLISHES_OF_THREE: usize = 20;
/// Bytes under way at first: two large escalations.
const BYTES_FIRST: usize = 64 * 1024;
/// Bytes under way at least: one publish goes in any case, others join it up to here.
const BYTES_LEAST: usize = 8 * 1024;
/// Bytes under way at most.
const BYTES_MOST: usize = 8 * 1024 * 1024;
/// An acknowledgement after so long is late: twice a satellite's round trip and some work of the broker.
const LATE: Duration = Duration::from_secs(2);
/// First pause after the broker said that it is too much.
const PAUSE_LEAST: Duration = Duration::from_secs(1);
/// Longest such pause.
const PAUSE_MOST: Duration = Duration::from_secs(60);
/// What our own client gets to empty its queue.
const BREATH: Duration = Duration::from_millis(20);

/// The pace of one connection.
#[derive(Debug)]
pub(super) struct Pace {
    publishes_max: usize,
    bytes_max: usize,
    bytes: usize,
    pause: Duration,
    not_before: Option<Instant>,
}

impl Pace {
    /// Of a connection that is being made.
    pub(super) fn new() -> Self {
        let publishes_max = PUBLISHES_OF_THREE;
        Self { publishes_max, bytes_max: BYTES_FIRST, bytes: 0, pause: PAUSE_LEAST, not_before: None }
    }

    /// The broker's Receive Maximum; without one there is no limit in MQTT 5 (3.1.2.11.3), and ours holds.
    pub(super) fn receive_max(&mut self, max: Option<u16>) {
        // rumqttc reads no acknowledgements of ours while its window is full, so one place stays free.
        let room = max.map_or(PUBLISHES_MAX, |max| usize::from(max.saturating_sub(1)).max(1));
        self.publishes_max = room.min(PUBLISHES_MAX);
    }

    /// Whether a publish of so many bytes may go, `under_way` publishes being on their way.
    /// No place is kept for what matters more: it takes the next one, and with a full window that is a moment away.
    pub(super) fn admits(&self, bytes: usize, under_way: usize, now: Instant) -> bool {
        let room = under_way < self.publishes_max;
        let fits = self.bytes == 0 || self.bytes + bytes <= self.bytes_max;
        room && fits && self.not_before.is_none_or(|at| at <= now)
    }

    /// It goes.
    pub(super) fn sent(&mut self, bytes: usize) {
        self.bytes += bytes;
    }

    /// It was answered after so long, well or for good.
    pub(super) fn answered(&mut self, bytes: usize, waited: Duration) {
        self.bytes = self.bytes.saturating_sub(bytes);
        self.bytes_max = if waited < LATE {
            (self.bytes_max + bytes).min(BYTES_MOST)
        } else {
            (self.bytes_max / 2).max(BYTES_LEAST)
        };
        self.pause = PAUSE_LEAST;
    }

    /// The broker said that it is too much for now: nothing goes for a while, longer each time.
    pub(super) fn too_much(&mut self, bytes: usize, now: Instant) {
        self.bytes = self.bytes.saturating_sub(bytes);
        // Publishes of the same burst are refused together and count once.
        if self.not_before.is_none_or(|at| at <= now) {
            self.not_before = Some(now + self.pause);
            self.pause = (self.pause * 2).min(PAUSE_MOST);
        }
    }

    /// Our own client is full: a moment later it is not.
    pub(super) fn breathe(&mut self, now: Instant) {
        let at = now + BREATH;
        self.not_before = Some(self.not_before.map_or(at, |until| until.max(at)));
    }

    /// When a pause ends, while there is one.
    pub(super) fn resumes(&self, now: Instant) -> Option<Instant> {
        self.not_before.filter(|at| *at > now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn five(receive_max: u16) -> Pace {
        let mut pace = Pace::new();
        pace.receive_max(Some(receive_max));
        pace
    }

    #[test]
    fn the_receive_maximum_is_never_exceeded() {
        let now = Instant::now();
        for (max, expect) in [(1, 1), (2, 1), (20, 19), (1000, 64)] {
            let pace = five(max);
            let under_way = (0..).find(|n| !pace.admits(1, *n, now));
            assert_eq!(under_way, Some(expect), "receive maximum {max}");
        }
    }

    #[test]
    fn a_thin_link_is_not_filled_and_a_wide_one_is() {
        let now = Instant::now();
        let mut pace = five(20);
        assert!(pace.admits(10 * BYTES_FIRST, 0, now), "one goes in any case");
        pace.sent(BYTES_FIRST);
        assert!(!pace.admits(1000, 1, now));
        pace.answered(BYTES_FIRST, Duration::from_secs(9));
        pace.sent(BYTES_FIRST / 2);
        assert!(!pace.admits(1000, 1, now), "half of it after a late word");
        pace.answered(BYTES_FIRST / 2, Duration::from_millis(40));
        pace.sent(BYTES_FIRST / 2);
        assert!(pace.admits(1000, 1, now));
    }

    #[test]
    fn too_much_means_a_pause_that_grows_and_ends_with_success() {
        let now = Instant::now();
        let mut pace = five(20);
        (0..5).for_each(|_| pace.too_much(10, now));
        assert_eq!(pace.resumes(now), Some(now + PAUSE_LEAST), "one burst is one pause");
        assert!(!pace.admits(1, 0, now));
        let later = now + PAUSE_LEAST;
        assert!(pace.admits(1, 0, later));
        pace.too_much(10, later);
        assert_eq!(pace.resumes(later), Some(later + 2 * PAUSE_LEAST));
        pace.answered(10, Duration::ZERO);
        pace.too_much(10, later + 2 * PAUSE_LEAST);
        assert_eq!(pace.resumes(later), Some(later + 3 * PAUSE_LEAST));
    }
}
