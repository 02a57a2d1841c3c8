//! Guesses at the next tokens from what stands in the prompt and the answer so far (prompt lookup, Saxena 2023), and
//! whether guessing pays.
//!
//! Invariant: pure. A wrong guess costs time and never changes an answer: each guess is checked by the model.

use llama_cpp_2::token::LlamaToken;
use std::time::Duration;

/// Longest run of tokens that is looked for; a shorter one is tried when it does not stand anywhere.
const LOOK_BACK_MAX: usize = 3;
/// Shortest: one token alone says too little, two are a word's end and the next one's begin.
const LOOK_BACK_MIN: usize = 2;
/// Most tokens of one guess: values that are copied are names of a few words.
pub(crate) const GUESS_TOKENS_MAX: usize = 6;
/// Weight of a new measurement in the running means.
const WEIGHT: f64 = 0.1;
/// After so many steps without a guess, where guessing did not pay, it is tried again: prompts change.
const RETRY_STEPS: u32 = 256;
/// Guesses that are checked before the first verdict.
const TRIAL_GUESSES: u32 = 8;

/// What followed the last tokens of `text` where they stood before, the latest place first; empty: nowhere.
pub(crate) fn guess(text: &[LlamaToken], most: usize) -> &[LlamaToken] {
    for len in (LOOK_BACK_MIN..=LOOK_BACK_MAX).rev() {
        let Some(split) = text.len().checked_sub(len) else { continue };
        let (before, tail) = text.split_at(split);
        let place = (0..before.len()).rev().find(|at| text[*at..].starts_with(tail));
        if let Some(at) = place {
            let from = at + len;
            return &text[from..text.len().min(from + most)];
        }
    }
    &[]
}

/// Whether guessing pays on this machine with this model, from what steps cost and how often guesses were right.
#[derive(Debug, Default)]
pub(crate) struct Payoff {
    /// Seconds of a step of one token.
    plain_s: Option<f64>,
    /// Seconds of a step with a guess.
    guessed_s: Option<f64>,
    /// Tokens that a step with a guess brought, at least one.
    brought: f64,
    guesses: u32,
    steps_without: u32,
}

impl Payoff {
    /// Whether to guess in the next step.
    pub(crate) fn pays(&mut self) -> Pays {
        let (Some(plain), Some(guessed)) = (self.plain_s, self.guessed_s) else {
            // The price of a plain step comes first: it is what a guess is compared with.
            return if self.plain_s.is_some() { Pays::Yes } else { Pays::No };
        };
        if self.guesses < TRIAL_GUESSES || guessed < plain * self.brought {
            return Pays::Yes;
        }
        self.steps_without += 1;
        if self.steps_without >= RETRY_STEPS {
            (self.steps_without, self.guesses) = (0, 0);
        }
        Pays::No
    }

    /// A step of one sequence with one token.
    pub(crate) fn plain(&mut self, took: Duration) {
        fold(&mut self.plain_s, took.as_secs_f64());
    }

    /// A step of one sequence with a guess, of which `right` tokens were right.
    pub(crate) fn guessed(&mut self, took: Duration, right: usize) {
        fold(&mut self.guessed_s, took.as_secs_f64());
        let brought = 1.0 + right as f64;
        self.brought = if self.guesses == 0 { brought } else { self.brought + WEIGHT * (brought - self.brought) };
        self.guesses = self.guesses.saturating_add(1);
    }
}

/// Whether a guess is worth its time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pays {
    /// It brings more tokens than it costs, or is being tried.
    Yes,
    /// It does not.
    No,
}

fn fold(mean: &mut Option<f64>, value: f64) {
    *mean = Some(mean.map_or(value, |old| old + WEIGHT * (value - old)));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tokens(text: &str) -> Vec<LlamaToken> {
        text.bytes().map(|byte| LlamaToken(i32::from(byte))).collect()
    }

    #[test]
    fn a_guess_is_what_followed_the_last_time() {
        for (text, most, expect) in [
            ("abcdXabc", 4, "dXab"),
            ("abcdXabc", 2, "dX"),
            // The latest place wins.
            ("abc1abc2abc", 1, "2"),
            // Three tokens are surer than two.
            ("xab1 yab2 xab", 1, "1"),
            ("qab1 rab", 3, "1 r"),
            ("abcdef", 3, ""),
            // One token alone is no reason.
            ("a1b2a", 3, ""),
            ("aaaa", 3, "a"),
            ("", 3, ""),
            ("a", 3, ""),
        ] {
            assert_eq!(guess(&tokens(text), most), tokens(expect), "{text}");
        }
    }

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn guessing_goes_on_while_it_pays() {
        let mut payoff = Payoff::default();
        assert_eq!(payoff.pays(), Pays::No);
        payoff.plain(10 * MS);
        for _ in 0..100 {
            assert_eq!(payoff.pays(), Pays::Yes);
            payoff.guessed(14 * MS, 2);
        }
    }

    #[test]
    fn guessing_stops_where_it_costs_more_than_it_brings_and_is_tried_again() {
        let mut payoff = Payoff::default();
        payoff.plain(10 * MS);
        for _ in 0..TRIAL_GUESSES {
            assert_eq!(payoff.pays(), Pays::Yes);
            payoff.guessed(40 * MS, 1);
        }
        let without = (0..RETRY_STEPS).take_while(|_| payoff.pays() == Pays::No).count();
        assert_eq!(without, RETRY_STEPS as usize);
        assert_eq!(payoff.pays(), Pays::Yes);
    }
}
