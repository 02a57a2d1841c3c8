//! Whom the page turned away, and why: counted for `/metrics`, the page and `doctor`, and told in the log without letting
//! whoever is turned away fill it.

use serde_json::{Map, Value};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tracing::warn;

/// At most one line of the log per reason in this time; the next one has the sum.
const TELL_EVERY: Duration = Duration::from_secs(60);

/// Why a request was not served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::up) enum Why {
    /// It asked under a name that is not in `page.hosts`.
    Host,
    /// Another site sent it, or it acts without the header of our page.
    Foreign,
    /// It showed no token, or a wrong one.
    Token,
    /// Its head or body is too large, or no body of ours.
    Body,
    /// It did not come, or was not taken, in time.
    Slow,
    /// All places are taken.
    Crowd,
}

impl Why {
    /// All of them.
    pub(in crate::up) const ALL: [Self; 6] =
        [Self::Host, Self::Foreign, Self::Token, Self::Body, Self::Slow, Self::Crowd];

    /// Its word in labels.
    pub(in crate::up) fn word(self) -> &'static str {
        match self {
            Self::Host => "host",
            Self::Foreign => "foreign",
            Self::Token => "token",
            Self::Body => "body",
            Self::Slow => "slow",
            Self::Crowd => "crowd",
        }
    }

    /// For a person.
    fn words(self) -> &'static str {
        match self {
            Self::Host => "asked under a foreign name",
            Self::Foreign => "sent by another site",
            Self::Token => "without the right token",
            Self::Body => "too large or malformed",
            Self::Slow => "too slow",
            Self::Crowd => "had to wait or were too many",
        }
    }
}

/// The counts since the start.
#[derive(Debug)]
pub(in crate::up) struct Turned {
    start: Instant,
    counts: [AtomicU64; Why::ALL.len()],
    /// When each may be told next, in milliseconds since the start.
    tell_at: [AtomicU64; Why::ALL.len()],
}

impl Turned {
    /// Nobody yet.
    pub(in crate::up) fn new() -> Self {
        Self { start: Instant::now(), counts: Default::default(), tell_at: Default::default() }
    }

    /// One more.
    pub(super) fn add(&self, why: Why) {
        let place = why as usize;
        let total = self.counts[place].fetch_add(1, Ordering::Relaxed) + 1;
        let ms = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        let (now, due) = (ms(self.start.elapsed()), self.tell_at[place].load(Ordering::Relaxed));
        let next = now.saturating_add(ms(TELL_EVERY));
        // Whoever moves the time tells it; the others of the same moment do not.
        let exchange = || self.tell_at[place].compare_exchange(due, next, Ordering::Relaxed, Ordering::Relaxed);
        if now >= due && exchange().is_ok() {
            warn!(why = why.words(), total, "the page turned a request away");
        }
    }

    /// By reason.
    pub(in crate::up) fn counts(&self) -> [(&'static str, u64); Why::ALL.len()] {
        Why::ALL.map(|why| (why.word(), self.counts[why as usize].load(Ordering::Relaxed)))
    }

    /// For `status`: in words, without those that are zero.
    pub(in crate::up) fn json(&self) -> Value {
        let told = |why: &Why| {
            let count = self.counts[*why as usize].load(Ordering::Relaxed);
            (count > 0).then(|| (why.words().to_owned(), Value::from(count)))
        };
        Value::Object(Why::ALL.iter().filter_map(told).collect::<Map<_, _>>())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_are_counted_apart() {
        let turned = Turned::new();
        (0..3).for_each(|_| turned.add(Why::Token));
        turned.add(Why::Crowd);
        assert_eq!(turned.counts().map(|(_, count)| count), [0, 0, 3, 0, 0, 1]);
        assert_eq!(
            turned.json(),
            serde_json::json!({ "without the right token": 3, "had to wait or were too many": 1 })
        );
    }
}
