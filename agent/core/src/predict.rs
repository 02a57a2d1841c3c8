//! How long a prompt will take here: from measured speeds, not from configuration. Invariants: a prediction grows with
//! the bytes to read, the tokens to write and the work ahead; before the first measurement the start values hold.

use std::collections::BTreeMap;
use std::ops::{Add, Sub};
use tidegate_schemas::TaskName;

/// Weight of the newest measurement: five answers after a change of load, two thirds of it are in the estimate.
const NEWEST_WEIGHT: f64 = 0.2;
/// Milliseconds to read a byte before anything was measured: a small model on four slow cores, 150 tokens per second.
const START_PREFILL_MS_PER_BYTE: f64 = 1.5;
/// Milliseconds to write a token before anything was measured: 25 tokens per second, a small model on slow cores.
const START_DECODE_MS_PER_TOKEN: f64 = 40.0;
/// Part of its expected time that an inference is thought to need still when it is over its time.
const OVERDUE_DIVISOR: u64 = 10;

/// What an inference has to do, in units that stay right when the speeds change.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Work {
    /// Bytes of template and prompt to read.
    pub bytes: u64,
    /// Tokens to write, expected.
    pub tokens: u64,
}

impl Add for Work {
    type Output = Self;
    fn add(self, other: Self) -> Self {
        Self { bytes: self.bytes.saturating_add(other.bytes), tokens: self.tokens.saturating_add(other.tokens) }
    }
}

impl Sub for Work {
    type Output = Self;
    fn sub(self, other: Self) -> Self {
        Self { bytes: self.bytes.saturating_sub(other.bytes), tokens: self.tokens.saturating_sub(other.tokens) }
    }
}

/// What an inference took.
#[derive(Debug, Clone, Copy)]
pub struct Measured {
    /// Bytes of template and prompt that were read.
    pub bytes: u64,
    /// Tokens that were written.
    pub tokens: u32,
    /// Time for reading, in milliseconds.
    pub prefill_ms: u64,
    /// Time for writing, in milliseconds.
    pub decode_ms: u64,
}

/// Exponentially weighted mean; the first measurement replaces the start value.
#[derive(Debug, Clone, Copy)]
enum Mean {
    Start(f64),
    Measured(f64),
}

impl Mean {
    fn get(self) -> f64 {
        match self {
            Self::Start(value) | Self::Measured(value) => value,
        }
    }

    fn measured(self) -> Option<f64> {
        match self {
            Self::Start(_) => None,
            Self::Measured(value) => Some(value),
        }
    }

    fn add(&mut self, value: f64) {
        *self = match *self {
            Self::Start(_) => Self::Measured(value),
            Self::Measured(mean) => Self::Measured(mean + NEWEST_WEIGHT * (value - mean)),
        };
    }
}

/// Measured speeds of the engine and output lengths of the tasks.
#[derive(Debug, Clone)]
pub struct Predictor {
    prefill_ms_per_byte: Mean,
    decode_ms_per_token: Mean,
    output_tokens: BTreeMap<TaskName, Mean>,
}

impl Predictor {
    /// Start values: the expected output length of each task, in tokens.
    #[must_use]
    pub fn new(expected_tokens: impl IntoIterator<Item = (TaskName, u32)>) -> Self {
        Self {
            prefill_ms_per_byte: Mean::Start(START_PREFILL_MS_PER_BYTE),
            decode_ms_per_token: Mean::Start(START_DECODE_MS_PER_TOKEN),
            output_tokens: expected_tokens.into_iter().map(|(task, n)| (task, Mean::Start(f64::from(n)))).collect(),
        }
    }

    /// What a prompt of `bytes`, template included, has to do; never more than `max_tokens` to write.
    #[must_use]
    pub fn work(&self, task: &TaskName, bytes: u64, max_tokens: u32) -> Work {
        let expected = self.output_tokens.get(task).map_or(f64::from(max_tokens), |m| m.get());
        Work { bytes, tokens: expected.min(f64::from(max_tokens)).ceil() as u64 }
    }

    /// Time of this work in a slot, in milliseconds.
    #[must_use]
    pub fn own_ms(&self, work: Work) -> u64 {
        let read = self.prefill_ms_per_byte.get() * work.bytes as f64;
        let write = self.decode_ms_per_token.get() * work.tokens as f64;
        (read + write).ceil() as u64
    }

    /// What is left of an inference that has run for `elapsed_ms`, in milliseconds.
    #[must_use]
    pub fn left_ms(&self, work: Work, elapsed_ms: u64) -> u64 {
        let own = self.own_ms(work);
        own.saturating_sub(elapsed_ms).max(own / OVERDUE_DIVISOR)
    }

    /// Time until a slot is free for a prompt with this ahead of it, in milliseconds. `running_ms`: what is left of
    /// each inference under way. A free slot and nobody ahead: none. Otherwise the slots share what is ahead.
    #[must_use]
    pub fn wait_ms(&self, queued: Work, running_ms: &[u64], slots: u32) -> u64 {
        let free = running_ms.len() < slots as usize;
        if free && queued == Work::default() {
            return 0;
        }
        let soonest = if free { 0 } else { running_ms.iter().copied().min().unwrap_or(0) };
        let ahead = self.own_ms(queued).saturating_add(running_ms.iter().sum());
        soonest.max(ahead / u64::from(slots.max(1)))
    }

    /// Learns from an inference.
    pub fn measure(&mut self, task: &TaskName, seen: Measured) {
        if seen.bytes > 0 {
            self.prefill_ms_per_byte.add(seen.prefill_ms as f64 / seen.bytes as f64);
        }
        if seen.tokens == 0 {
            return;
        }
        self.decode_ms_per_token.add(seen.decode_ms as f64 / f64::from(seen.tokens));
        if let Some(mean) = self.output_tokens.get_mut(task) {
            mean.add(f64::from(seen.tokens));
        }
    }

    /// Tokens written per second of one inference; none before the first.
    #[must_use]
    pub fn decode_tokens_per_s(&self) -> Option<f64> {
        per_second(self.decode_ms_per_token)
    }

    /// Bytes read per second of one inference; none before the first.
    #[must_use]
    pub fn prefill_bytes_per_s(&self) -> Option<f64> {
        per_second(self.prefill_ms_per_byte)
    }
}

fn per_second(ms_each: Mean) -> Option<f64> {
    ms_each.measured().filter(|ms| *ms > 0.0).map(|ms| 1000.0 / ms)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn task() -> TaskName {
        "intent".parse().unwrap()
    }

    /// Reads 2 bytes per ms, writes a token in 10 ms, 20 tokens per answer.
    fn measured() -> Predictor {
        let mut predictor = Predictor::new([(task(), 7)]);
        predictor.measure(&task(), Measured { bytes: 200, tokens: 20, prefill_ms: 100, decode_ms: 200 });
        predictor
    }

    #[test]
    fn own_time_is_reading_plus_writing_at_measured_speed() {
        let predictor = measured();
        let check = |bytes: u64, max_tokens: u32, expect: u64| {
            assert_eq!(predictor.own_ms(predictor.work(&task(), bytes, max_tokens)), expect, "{bytes} {max_tokens}");
        };
        check(200, 64, 300);
        check(2000, 64, 1200);
        check(200, 5, 150);
        check(0, 64, 200);
    }

    #[test]
    fn a_constant_would_be_wrong() {
        let predictor = measured();
        let work = predictor.work(&task(), 200, 64);
        let own = predictor.own_ms(work);
        let alone = predictor.wait_ms(Work::default(), &[], 1);
        let behind_one = predictor.wait_ms(Work::default(), &[own], 1);
        let behind_ten = predictor.wait_ms((0..9).fold(Work::default(), |sum, _| sum + work), &[own], 1);
        assert_eq!((alone, behind_one, behind_ten), (0, 300, 3000));

        let mut slower = predictor.clone();
        for _ in 0..50 {
            slower.measure(&task(), Measured { bytes: 200, tokens: 20, prefill_ms: 1000, decode_ms: 2000 });
        }
        let slow = slower.own_ms(work);
        assert!((2990..=3001).contains(&slow), "ten times slower was learnt as {slow} ms after {own} ms");
        assert!(predictor.own_ms(predictor.work(&task(), 60_000, 64)) > 20 * own, "a long prompt takes longer");
    }

    #[test]
    fn slots_share_what_is_ahead() {
        let predictor = measured();
        let queued = Work { bytes: 0, tokens: 20 };
        let check = |queued: Work, running: &[u64], slots: u32, expect: u64| {
            assert_eq!(predictor.wait_ms(queued, running, slots), expect, "{queued:?} {running:?} {slots}");
        };
        check(Work::default(), &[], 2, 0);
        check(Work::default(), &[400], 2, 0);
        check(Work::default(), &[400, 600], 2, 500);
        check(Work::default(), &[10, 600], 2, 305);
        check(queued, &[400, 600], 2, 600);
        check(queued, &[400], 1, 600);
    }

    #[test]
    fn an_overdue_inference_is_not_thought_to_be_done() {
        let predictor = measured();
        let work = predictor.work(&task(), 200, 64);
        assert_eq!(predictor.left_ms(work, 100), 200);
        assert_eq!(predictor.left_ms(work, 299), 30);
        assert_eq!(predictor.left_ms(work, 90_000), 30);
    }

    #[test]
    fn output_length_is_learnt_per_task() {
        let other: TaskName = "action".parse().unwrap();
        let mut predictor = Predictor::new([(task(), 7), (other.clone(), 50)]);
        assert_eq!(predictor.work(&task(), 10, 64).tokens, 7);
        predictor.measure(&task(), Measured { bytes: 10, tokens: 30, prefill_ms: 1, decode_ms: 1 });
        assert_eq!(predictor.work(&task(), 10, 64).tokens, 30);
        assert_eq!(predictor.work(&other, 10, 64).tokens, 50);
    }

    #[test]
    fn rates_are_silent_until_measured() {
        assert_eq!(Predictor::new([]).decode_tokens_per_s(), None);
        assert_eq!(measured().decode_tokens_per_s(), Some(100.0));
        assert_eq!(measured().prefill_bytes_per_s(), Some(2000.0));
    }
}
