//! What happened lately: counts of the last minute by the second, and of the last hour by the minute. Pure: every moment
//! comes from the caller, in seconds of any clock that does not go back.

use super::meter::{CONFIDENCE_BINS, Way};
use tidegate_schemas::{Timing, Usage};

/// Minutes that are remembered.
const MINUTES: usize = 60;
/// Seconds that are remembered.
const SECONDS: usize = 60;
/// Steps of the latency scale. Each is a quarter above the one before: a percentile is off by 12 % at most.
const LATENCY_STEPS: usize = 80;
/// The first step, in milliseconds; the last stands for all above 14 hours.
const LATENCY_LEAST_MS: f64 = 1.0;
/// How much wider each step is than the one before.
const LATENCY_GROWTH: f64 = 1.25;

/// One minute.
#[derive(Debug, Clone, Copy)]
struct Minute {
    number: u64,
    ways: [u32; Way::ALL.len()],
    latency: [u32; LATENCY_STEPS],
    confidence: [u32; CONFIDENCE_BINS],
    wrote: Wrote,
}

const NOTHING: Minute = Minute {
    number: 0,
    ways: [0; Way::ALL.len()],
    latency: [0; LATENCY_STEPS],
    confidence: [0; CONFIDENCE_BINS],
    wrote: Wrote { tokens: 0, us: 0 },
};

/// Tokens and the time that it took to write them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Wrote {
    pub(super) tokens: u64,
    /// Microseconds.
    pub(super) us: u64,
}

impl Wrote {
    /// What an answer says: its time begins with the first token, which therefore does not count, and is cut to whole
    /// milliseconds, half of one too little on average.
    pub(super) fn of(usage: Usage, timing: Timing) -> Self {
        match u64::from(usage.completion_tokens).saturating_sub(1) {
            0 => Self::default(),
            tokens => Self { tokens, us: timing.decode_ms.saturating_mul(1000).saturating_add(500) },
        }
    }

    /// None of nothing.
    pub(super) fn tokens_per_s(self) -> Option<f64> {
        (self.us > 0).then(|| self.tokens as f64 * 1e6 / self.us as f64)
    }
}

/// The last hour and the last minute.
#[derive(Debug)]
pub(super) struct Window {
    minutes: Box<[Minute; MINUTES]>,
    seconds: [(u64, u32); SECONDS],
}

/// What the last hour was like.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::up) struct Hour {
    /// Outcomes by way.
    pub(in crate::up) ways: [u32; Way::ALL.len()],
    /// Half of the answers took no longer, in milliseconds; none without an answer.
    pub(in crate::up) p50_ms: Option<u64>,
    /// All but one in twenty took no longer, in milliseconds.
    pub(in crate::up) p95_ms: Option<u64>,
    /// Answers by tenth of confidence.
    pub(in crate::up) confidence: [u32; CONFIDENCE_BINS],
}

/// An outcome, as far as it is counted here.
#[derive(Debug, Clone, Copy)]
pub(super) struct Seen {
    pub(super) way: Way,
    /// From receipt to outcome, for answers.
    pub(super) total_ms: Option<u64>,
    pub(super) confidence: Option<f64>,
    /// What was written here.
    pub(super) wrote: Wrote,
}

impl Default for Window {
    fn default() -> Self {
        Self { minutes: Box::new([NOTHING; MINUTES]), seconds: [(0, 0); SECONDS] }
    }
}

impl Window {
    /// A prompt was accepted.
    pub(super) fn accepted(&mut self, now_s: u64) {
        let place = &mut self.seconds[usize::try_from(now_s).unwrap_or(0) % SECONDS];
        if place.0 != now_s {
            *place = (now_s, 0);
        }
        place.1 += 1;
    }

    /// Prompts accepted in the last minute.
    pub(super) fn last_minute(&self, now_s: u64) -> u32 {
        let recent = |at: u64| at <= now_s && now_s - at < SECONDS as u64;
        self.seconds.iter().filter(|(at, _)| recent(*at)).map(|(_, count)| count).sum()
    }

    /// A prompt came to its outcome.
    pub(super) fn ended(&mut self, seen: Seen, now_s: u64) {
        // Minutes count from one, so that an untouched place is no minute.
        let number = now_s / 60 + 1;
        let minute = &mut self.minutes[usize::try_from(number).unwrap_or(0) % MINUTES];
        if minute.number != number {
            *minute = Minute { number, ..NOTHING };
        }
        minute.ways[seen.way as usize] += 1;
        if let Some(ms) = seen.total_ms {
            minute.latency[step(ms)] += 1;
        }
        if let Some(confidence) = seen.confidence {
            minute.confidence[tenth(confidence)] += 1;
        }
        minute.wrote.tokens += seen.wrote.tokens;
        minute.wrote.us += seen.wrote.us;
    }

    fn recent(&self, now_s: u64, minutes: u64) -> impl Iterator<Item = &Minute> {
        let number = now_s / 60 + 1;
        self.minutes.iter().filter(move |m| m.number > 0 && m.number <= number && number - m.number < minutes)
    }

    /// The last hour.
    pub(super) fn hour(&self, now_s: u64) -> Hour {
        let mut sum = NOTHING;
        for minute in self.recent(now_s, MINUTES as u64) {
            sum.ways.iter_mut().zip(minute.ways).for_each(|(all, one)| *all += one);
            sum.latency.iter_mut().zip(minute.latency).for_each(|(all, one)| *all += one);
            sum.confidence.iter_mut().zip(minute.confidence).for_each(|(all, one)| *all += one);
        }
        let percentile = |percent| percentile(&sum.latency, percent);
        Hour { ways: sum.ways, p50_ms: percentile(50), p95_ms: percentile(95), confidence: sum.confidence }
    }

    /// Tokens written per second of decoding in this minute and the one before; none if none were.
    pub(super) fn tokens_per_s(&self, now_s: u64) -> Option<f64> {
        let add = |sum: Wrote, m: &Minute| Wrote { tokens: sum.tokens + m.wrote.tokens, us: sum.us + m.wrote.us };
        self.recent(now_s, 2).fold(Wrote::default(), add).tokens_per_s()
    }
}

/// The tenth of a confidence; 1 belongs to the last.
pub(super) fn tenth(confidence: f64) -> usize {
    ((confidence * CONFIDENCE_BINS as f64) as usize).min(CONFIDENCE_BINS - 1)
}

fn step(ms: u64) -> usize {
    let exact = (ms.max(1) as f64 / LATENCY_LEAST_MS).ln() / LATENCY_GROWTH.ln();
    (exact.ceil() as usize).min(LATENCY_STEPS - 1)
}

/// The upper end of the step that holds this part of all, in milliseconds.
fn percentile(steps: &[u32; LATENCY_STEPS], percent: u64) -> Option<u64> {
    let all: u64 = steps.iter().map(|count| u64::from(*count)).sum();
    let rank = (all * percent).div_ceil(100);
    let mut below = 0;
    let found = steps.iter().position(|count| {
        below += u64::from(*count);
        below >= rank
    });
    let ms = LATENCY_LEAST_MS * LATENCY_GROWTH.powi(i32::try_from(found?).unwrap_or(0));
    (all > 0).then_some(ms.round() as u64)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn seen(total_ms: u64) -> Seen {
        Seen {
            way: Way::Local,
            total_ms: Some(total_ms),
            confidence: Some(0.95),
            wrote: Wrote { tokens: 10, us: 100_000 },
        }
    }

    #[test]
    fn percentiles_are_of_the_last_hour_and_right_to_an_eighth() {
        let mut window = Window::default();
        assert_eq!(window.hour(0).p50_ms, None);
        (1..=100).for_each(|n| window.ended(seen(n * 10), 30 + n));
        let hour = window.hour(200);
        let near = |got: Option<u64>, want: f64| (got.unwrap() as f64 / want - 1.0).abs() < 0.13;
        assert!(near(hour.p50_ms, 500.0) && near(hour.p95_ms, 950.0), "{hour:?}");
        assert_eq!((hour.ways[Way::Local as usize], hour.confidence[9]), (100, 100));
        assert_eq!(window.hour(200 + 3600).ways, [0; Way::ALL.len()], "an hour later nothing of it is left");
        assert_eq!(window.hour(200 + 3600).p95_ms, None);
    }

    #[test]
    fn the_last_minute_is_a_minute() {
        let mut window = Window::default();
        (0..120).for_each(|s| window.accepted(s));
        assert_eq!(window.last_minute(119), 60);
        assert_eq!(window.last_minute(150), 29);
        assert_eq!(window.last_minute(500), 0);
    }

    #[test]
    fn speed_is_that_of_the_last_two_minutes() {
        let mut window = Window::default();
        window.ended(seen(100), 10);
        assert_eq!(window.tokens_per_s(70), Some(100.0));
        assert_eq!(window.tokens_per_s(200), None);
    }

    #[test]
    fn every_latency_has_a_step() {
        for ms in [0, 1, 2, 999, u64::MAX] {
            assert!(step(ms) < LATENCY_STEPS, "{ms}");
        }
        assert_eq!((tenth(0.0), tenth(0.95), tenth(1.0)), (0, 9, 9));
    }
}
