//! From what the logits said to a probability of being right. Invariants: a [`Confidence`] is finite and in 0..=1,
//! whatever the engine reports; a broken signal is no confidence; a calibration is learned from answers of both kinds.

use crate::event::Signals;
use crate::features::Features;
use crate::fitted::Fitted;
use crate::isotonic::isotonic;
use crate::logistic::{FitError, Labelled, Logistic, sigmoid};

/// Parts of the rows that are held out in turn, so that the isotonic map sees scores of rows that did not make them.
const FOLDS: usize = 5;
/// Probabilities nearer to 0 or 1 are as good as that in log-odds.
const ODDS_MIN: f64 = 1e-9;

/// Predicted probability that an answer is right, finite, 0 to 1.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd)]
pub struct Confidence(f64);

impl Confidence {
    /// Nearest value in 0..=1; not a number is 0.
    #[must_use]
    pub fn new(value: f64) -> Self {
        if value.is_nan() { Self(0.0) } else { Self(value.clamp(0.0, 1.0)) }
    }

    /// 0 to 1.
    #[must_use]
    pub fn get(self) -> f64 {
        self.0
    }
}

/// Why knots are no calibration.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum CalibrationError {
    /// No knots at all.
    #[error("calibration has no knots, at least one is needed")]
    Empty,
    /// A number outside 0..=1, or none.
    #[error("knot {index} is ({raw}, {calibrated}), both numbers must lie in 0 to 1")]
    Range {
        /// Which knot, from 0.
        index: usize,
        /// Its raw value.
        raw: f64,
        /// Its calibrated value.
        calibrated: f64,
    },
    /// Raw values that do not grow, or calibrated values that fall.
    #[error("knot {index} is ({raw}, {calibrated}), raw values must grow and calibrated ones must not fall")]
    Order {
        /// Which knot, from 0.
        index: usize,
        /// Its raw value.
        raw: f64,
        /// Its calibrated value.
        calibrated: f64,
    },
}

/// What the isotonic map is put on.
#[derive(Debug, Clone, PartialEq)]
pub enum Score {
    /// The probability of the sampled tokens, as it is.
    Product,
    /// A logistic model over all signals, with the answers' records.
    Fitted(Box<Fitted>),
}

/// A score, and the isotonic map from it to the share of right answers, measured on held-out prompts.
#[derive(Debug, Clone, PartialEq)]
pub struct Calibration {
    score: Score,
    knots: Vec<(f64, f64)>,
}

impl Calibration {
    /// Knots (raw, calibrated), linear between them, constant outside.
    ///
    /// # Errors
    /// [`CalibrationError`] for no knots, numbers outside 0..=1, raw values that do not grow, calibrated ones that fall.
    pub fn new(knots: Vec<(f64, f64)>) -> Result<Self, CalibrationError> {
        Self::over(Score::Product, knots)
    }

    /// The same over another score.
    ///
    /// # Errors
    /// As [`Calibration::new`].
    pub fn over(score: Score, knots: Vec<(f64, f64)>) -> Result<Self, CalibrationError> {
        if knots.is_empty() {
            return Err(CalibrationError::Empty);
        }
        for (index, &(raw, calibrated)) in knots.iter().enumerate() {
            if !((0.0..=1.0).contains(&raw) && (0.0..=1.0).contains(&calibrated)) {
                return Err(CalibrationError::Range { index, raw, calibrated });
            }
        }
        for (index, pair) in knots.windows(2).enumerate() {
            let ((raw_before, before), (raw, calibrated)) = (pair[0], pair[1]);
            if raw <= raw_before || calibrated < before {
                return Err(CalibrationError::Order { index: index + 1, raw, calibrated });
            }
        }
        Ok(Self { score, knots })
    }

    /// Learns from labelled answers: a score of all rows, and the isotonic map of scores that each came from a model of
    /// the other rows. What the labels leave open is taken from `prior`, a calibration of the same model and task.
    ///
    /// # Errors
    /// [`FitError`] with too few answers of one kind.
    pub fn learn(rows: &[Labelled], prior: Option<&Self>) -> Result<Self, FitError> {
        let line = prior.and_then(Self::line);
        let model = Fitted::learn(rows, line)?;
        let scored = held_out_scores(rows, line).unwrap_or_else(|| {
            // A fold without both kinds: the model's own scores are all there is.
            rows.iter().map(|row| (model.score(&row.features, row.answer), row.right, row.weight)).collect()
        });
        let knots = isotonic(&scored);
        Self::over(Score::Fitted(Box::new(model)), knots).map_err(|_| FitError::Unsettled)
    }

    fn line(&self) -> Option<&Logistic> {
        match &self.score {
            Score::Product => None,
            Score::Fitted(model) => Some(model.line()),
        }
    }

    /// What the map is put on.
    #[must_use]
    pub fn score(&self) -> &Score {
        &self.score
    }

    /// The knots of the map.
    #[must_use]
    pub fn knots(&self) -> &[(f64, f64)] {
        &self.knots
    }

    /// The confidence of an answer with these signals; 0 where they are broken.
    #[must_use]
    pub fn confidence(&self, signals: &Signals) -> Confidence {
        match &self.score {
            Score::Product => self.apply(signals.sum_logprob.exp()),
            Score::Fitted(_) => {
                Features::of(signals).map_or(Confidence(0.0), |f| self.confidence_of(&f, signals.answer))
            }
        }
    }

    /// The same of features and the answer's number. A fitted score is a probability already, smooth and never tied,
    /// and the isotonic map corrects its shape in steps: the middle of both in log-odds has neither ties nor the
    /// line's bend. On the validation prompts its calibration error and its order across tasks are better than the
    /// map's alone.
    #[must_use]
    pub fn confidence_of(&self, features: &Features, answer: u64) -> Confidence {
        let raw = self.rank_of(features, answer);
        let mapped = self.apply(raw);
        match &self.score {
            Score::Product => mapped,
            Score::Fitted(_) => Confidence::new(sigmoid((log_odds(raw) + log_odds(mapped.0)) / 2.0)),
        }
    }

    /// Takes the raw value as it is: for a task that nobody has calibrated yet.
    #[must_use]
    pub fn identity() -> Self {
        Self { score: Score::Product, knots: vec![(0.0, 0.0), (1.0, 1.0)] }
    }

    /// The score before the isotonic map: with the product as score, the product's log-odds stand first among the
    /// features.
    #[must_use]
    pub fn rank_of(&self, features: &Features, answer: u64) -> f64 {
        match &self.score {
            Score::Product => sigmoid(features.get()[0]),
            Score::Fitted(model) => model.score(features, answer),
        }
    }

    /// The confidence of a raw probability. Not finite: 0.
    #[must_use]
    pub fn apply(&self, raw: f64) -> Confidence {
        if !raw.is_finite() {
            return Confidence(0.0);
        }
        let above = self.knots.partition_point(|&(x, _)| x <= raw);
        let value = match (above.checked_sub(1).and_then(|i| self.knots.get(i)), self.knots.get(above)) {
            (Some(&(x0, y0)), Some(&(x1, y1))) => y0 + (y1 - y0) * (raw - x0) / (x1 - x0),
            (Some(&(_, y)), None) | (None, Some(&(_, y))) => y,
            (None, None) => 0.0,
        };
        Confidence::new(value)
    }
}

/// ln(p / (1 − p)), kept finite.
fn log_odds(p: f64) -> f64 {
    let p = p.clamp(ODDS_MIN, 1.0 - ODDS_MIN);
    (p / (1.0 - p)).ln()
}

/// Each row's score from a model of the other folds; none where a fold cannot be fitted.
fn held_out_scores(rows: &[Labelled], prior: Option<&Logistic>) -> Option<Vec<(f64, bool, f64)>> {
    let mut scored = Vec::with_capacity(rows.len());
    for fold in 0..FOLDS {
        let (held, rest): (Vec<_>, Vec<_>) = rows.iter().enumerate().partition(|(index, _)| index % FOLDS == fold);
        let rest: Vec<Labelled> = rest.into_iter().map(|(_, row)| *row).collect();
        let model = Fitted::learn(&rest, prior).ok()?;
        let score = |row: &Labelled| (model.score(&row.features, row.answer), row.right, row.weight);
        scored.extend(held.into_iter().map(|(_, row)| score(row)));
    }
    Some(scored)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn interpolates_between_knots_and_is_constant_outside() {
        let calibration = Calibration::new(vec![(0.2, 0.1), (0.6, 0.5), (0.8, 0.9)]).unwrap();
        let check = |raw: f64, expect: f64| {
            let got = calibration.apply(raw).get();
            assert!((got - expect).abs() < 1e-12, "raw {raw}: got {got}, expected {expect}");
        };
        check(-3.0, 0.1);
        check(0.0, 0.1);
        check(0.2, 0.1);
        check(0.4, 0.3);
        check(0.6, 0.5);
        check(0.7, 0.7);
        check(0.8, 0.9);
        check(7.0, 0.9);
        check(f64::NAN, 0.0);
        check(f64::INFINITY, 0.0);
        check(f64::NEG_INFINITY, 0.0);
    }

    #[test]
    fn one_knot_is_a_constant_and_identity_changes_nothing() {
        assert_eq!(Calibration::new(vec![(0.5, 0.7)]).unwrap().apply(0.1), Confidence::new(0.7));
        for raw in [0.0, 0.25, 1.0] {
            assert_eq!(Calibration::identity().apply(raw), Confidence::new(raw));
        }
    }

    #[test]
    fn refuses_what_is_not_isotonic() {
        let check = |knots: &[(f64, f64)], expect: &str| {
            let error = Calibration::new(knots.to_vec()).unwrap_err().to_string();
            assert!(error.contains(expect), "{error}");
        };
        check(&[], "no knots");
        check(&[(0.0, f64::NAN)], "knot 0 is (0, NaN)");
        check(&[(0.0, 0.0), (1.5, 1.0)], "knot 1 is (1.5, 1)");
        check(&[(0.5, 0.2), (0.5, 0.3)], "knot 1 is (0.5, 0.3)");
        check(&[(0.1, 0.4), (0.2, 0.3)], "must not fall");
    }

    #[test]
    fn a_confidence_is_always_in_range() {
        for value in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, -1.0, 2.0, 0.5] {
            let got = Confidence::new(value).get();
            assert!((0.0..=1.0).contains(&got), "{value} became {got}");
        }
    }
}
