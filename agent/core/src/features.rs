//! What a confidence model sees of an answer: the engine's [`Signals`] on scales on which a straight line makes sense
//! (log-odds of probabilities, logarithms of amounts). Invariant: [`Features`] are finite; signals that are not, or an
//! answer without a single free token, have none.

use crate::event::Signals;

/// How many there are.
pub const FEATURES: usize = 20;

/// Their names, in order: what a calibration file and a report call them.
pub const FEATURE_NAMES: [&str; FEATURES] = [
    "product",
    "min_logprob",
    "low_logprob",
    "median_logprob",
    "mean_logprob",
    "first_margin",
    "second_margin",
    "min_margin",
    "mean_margin",
    "first_entropy",
    "max_entropy",
    "mean_entropy",
    "first_energy",
    "mean_removed",
    "max_removed",
    "length",
    "forced_share",
    "prompt_length",
    "bytes_per_token",
    "energy_by_odds",
];

/// Probabilities nearer to 0 or 1 than this say no more: a model in 8 bits cannot mean it.
const EPSILON: f64 = 1e-5;

/// An answer as a confidence model sees it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Features([f64; FEATURES]);

impl Features {
    /// The features of these signals; none where a signal is no finite number, a probability is out of range, or nothing
    /// was chosen freely.
    #[must_use]
    pub fn of(signals: &Signals) -> Option<Self> {
        let s = signals;
        let tokens = f64::from(s.tokens);
        let all = tokens + f64::from(s.forced);
        let odds = log_odds(s.sum_logprob.exp());
        let values = [
            odds,
            log_odds(s.min_logprob.exp()),
            log_odds(s.low_logprob.exp()),
            log_odds(s.median_logprob.exp()),
            log_odds(s.mean_logprob.exp()),
            log_odds(s.first_margin),
            log_odds(s.second_margin),
            log_odds(s.min_margin),
            log_odds(s.mean_margin),
            (s.first_entropy.max(0.0) + EPSILON).ln(),
            (s.max_entropy.max(0.0) + EPSILON).ln(),
            (s.mean_entropy.max(0.0) + EPSILON).ln(),
            s.first_energy,
            (s.mean_removed.max(0.0) + EPSILON).ln(),
            (s.max_removed.max(0.0) + EPSILON).ln(),
            (1.0 + tokens).ln(),
            f64::from(s.forced) / all.max(1.0),
            (1.0 + f64::from(s.prompt_tokens)).ln(),
            f64::from(s.prompt_bytes) / f64::from(s.prompt_tokens.max(1)),
            s.first_energy * odds / 10.0,
        ];
        // Logarithms and clamps hide a NaN in some places, so the signals are looked at themselves.
        let sound = raw(s).iter().all(|value| value.is_finite()) && values.iter().all(|value| value.is_finite());
        (sound && s.tokens > 0 && s.sum_logprob <= 0.0).then_some(Self(values))
    }

    /// The values, in the order of [`FEATURE_NAMES`].
    #[must_use]
    pub fn get(&self) -> &[f64; FEATURES] {
        &self.0
    }

    /// Made-up features, for tests and for rows that were read from a file.
    #[must_use]
    pub fn from_values(values: [f64; FEATURES]) -> Option<Self> {
        values.iter().all(|value| value.is_finite()).then_some(Self(values))
    }
}

/// The single signals that others route by, the higher the surer: each is what the combined one has to beat.
#[must_use]
pub fn single_signals(signals: &Signals) -> [(&'static str, f64); 9] {
    let s = signals;
    [
        ("product", s.sum_logprob),
        ("min log-probability", s.min_logprob),
        ("10 % quantile", s.low_logprob),
        ("mean log-probability", s.mean_logprob),
        ("first-token margin", s.first_margin),
        ("mean margin", s.mean_margin),
        ("min margin", s.min_margin),
        ("first-token entropy", -s.first_entropy),
        ("mean entropy", -s.mean_entropy),
    ]
}

fn raw(s: &Signals) -> [f64; 15] {
    [
        s.sum_logprob,
        s.min_logprob,
        s.low_logprob,
        s.median_logprob,
        s.mean_logprob,
        s.first_margin,
        s.second_margin,
        s.min_margin,
        s.mean_margin,
        s.first_entropy,
        s.max_entropy,
        s.mean_entropy,
        s.first_energy,
        s.mean_removed,
        s.max_removed,
    ]
}

/// ln(p / (1 - p)), with p kept off both ends.
fn log_odds(p: f64) -> f64 {
    let p = p.clamp(EPSILON, 1.0 - EPSILON);
    (p / (1.0 - p)).ln()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sound() -> Signals {
        Signals { sum_logprob: -0.5, min_logprob: -0.3, mean_logprob: -0.1, tokens: 5, ..Signals::default() }
    }

    #[test]
    fn sound_signals_have_finite_features() {
        let features = Features::of(&sound()).map(|f| *f.get());
        assert!(features.is_some_and(|f| f.iter().all(|v| v.is_finite())), "{features:?}");
    }

    #[test]
    fn a_broken_signal_is_no_confidence() {
        for broken in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
            let cases = [
                Signals { sum_logprob: broken, ..sound() },
                Signals { min_logprob: broken, ..sound() },
                Signals { first_margin: broken, ..sound() },
                Signals { first_entropy: broken, ..sound() },
                Signals { first_energy: broken, ..sound() },
                Signals { max_removed: broken, ..sound() },
            ];
            for signals in cases {
                assert_eq!(Features::of(&signals), None, "{signals:?}");
            }
        }
        assert_eq!(Features::of(&Signals { tokens: 0, ..sound() }), None);
        assert_eq!(Features::of(&Signals { sum_logprob: 0.5, ..sound() }), None);
    }
}
