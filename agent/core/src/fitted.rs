//! A score that was learned: a logistic line over the signals, and what each answer's own record adds to it.

use crate::features::Features;
use crate::logistic::{FitError, Labelled, Logistic, RIDGE, sigmoid};
use crate::records::{Records, Seen};

/// Ridge towards a line that was fitted before, as a shipped one: on the validation prompts, split into what is shipped
/// and what is collected later, 100 ranked better than 10, 30 and a fit of its own.
pub const RIDGE_TO_PRIOR: f64 = 100.0;

/// A learned score.
#[derive(Debug, Clone, PartialEq)]
pub struct Fitted {
    line: Logistic,
    records: Records,
}

impl Fitted {
    /// Learns from labelled answers; with a line that was fitted before, what the labels do not say stays as it was.
    ///
    /// # Errors
    /// [`FitError`] with too few answers of one kind.
    pub fn learn(rows: &[Labelled], prior: Option<&Logistic>) -> Result<Self, FitError> {
        let line = match prior {
            Some(prior) => prior.refitted(rows, RIDGE_TO_PRIOR)?,
            None => Logistic::fit(rows, RIDGE)?,
        };
        let seen = |row: &Labelled| Seen {
            answer: row.answer,
            right: row.right,
            weight: row.weight,
            expected: line.score(&row.features),
        };
        let records = Records::fitted(rows.iter().map(seen));
        Ok(Self { line, records })
    }

    /// From a file.
    #[must_use]
    pub fn new(line: Logistic, records: Records) -> Self {
        Self { line, records }
    }

    /// The line.
    #[must_use]
    pub fn line(&self) -> &Logistic {
        &self.line
    }

    /// The records of the answers.
    #[must_use]
    pub fn records(&self) -> &Records {
        &self.records
    }

    /// Probability of being right, before isotonic calibration; 0 to 1.
    #[must_use]
    pub fn score(&self, features: &Features, answer: u64) -> f64 {
        sigmoid(self.line.log_odds(features) + self.records.offset(answer))
    }
}
