//! A logistic model over [`Features`]: fitted by Newton's method with a ridge on standardised features, so that signals
//! that say the same share their weight. Invariants: a model's numbers are finite; a fit needs both outcomes.

use crate::features::{FEATURES, Features};

/// Weights and the intercept.
const SIZE: usize = FEATURES + 1;
/// Most Newton steps: ten do where the outcomes can be told apart at all.
const STEPS_MAX: usize = 40;
/// A step smaller than this ends the fit.
const STEP_MIN: f64 = 1e-8;
/// Fewest rows of each outcome from which a fit is more than a guess.
pub const ROWS_PER_OUTCOME_MIN: usize = 10;
/// Ridge on standardised weights, per model and not per row: on the validation prompts 3, 10, 30 and 100 differ by less
/// than 0.006 of routing efficiency.
pub const RIDGE: f64 = 10.0;

/// Why there is no fit.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FitError {
    /// Too few of one outcome.
    #[error("{right} right and {wrong} wrong answers, {ROWS_PER_OUTCOME_MIN} of each are needed")]
    TooFew {
        /// Right answers.
        right: usize,
        /// Wrong answers.
        wrong: usize,
    },
    /// The steps did not lead to a finite model.
    #[error("the fit did not settle")]
    Unsettled,
    /// A number that is not finite, or a scale that is not over zero.
    #[error("weight {0} of the model is not a usable number")]
    NotFinite(usize),
}

/// A fitted model.
#[derive(Debug, Clone, PartialEq)]
pub struct Logistic {
    centre: [f64; FEATURES],
    scale: [f64; FEATURES],
    weights: [f64; SIZE],
}

/// One labelled answer; its weight counts it more or less than once.
#[derive(Debug, Clone, Copy)]
pub struct Labelled {
    /// What the model sees.
    pub features: Features,
    /// Whether the answer was right.
    pub right: bool,
    /// How much it counts; 1 is once.
    pub weight: f64,
    /// Which answer it is, as in [`Signals`](crate::Signals); 0 where that is unknown.
    pub answer: u64,
}

impl Logistic {
    /// Fits a model.
    ///
    /// # Errors
    /// [`FitError`] where one outcome is too rare or the numbers do not settle.
    pub fn fit(rows: &[Labelled], ridge: f64) -> Result<Self, FitError> {
        let (centre, scale) = moments(rows);
        Self { centre, scale, weights: [0.0; SIZE] }.refitted(rows, ridge)
    }

    /// Fits from here on: weights are drawn to this model's, on its centres and scales.
    ///
    /// # Errors
    /// As [`Logistic::fit`].
    pub fn refitted(&self, rows: &[Labelled], ridge: f64) -> Result<Self, FitError> {
        let right = rows.iter().filter(|row| row.right).count();
        let wrong = rows.len() - right;
        if right.min(wrong) < ROWS_PER_OUTCOME_MIN {
            return Err(FitError::TooFew { right, wrong });
        }
        let mut model = self.clone();
        let inputs: Vec<[f64; SIZE]> = rows.iter().map(|row| model.input(&row.features)).collect();
        for _ in 0..STEPS_MAX {
            let off = std::array::from_fn(|i| model.weights[i] - self.weights[i]);
            let pull = Pull { off: &off, ridge };
            let step = newton_step(&model.weights, &inputs, rows, pull).ok_or(FitError::Unsettled)?;
            // Half a step at most of what could overshoot: standardised weights seldom go past 5.
            let largest = step.iter().fold(0.0_f64, |a, b| a.max(b.abs()));
            let damping = (2.0 / largest.max(2.0)).min(1.0);
            model.weights.iter_mut().zip(step).for_each(|(weight, part)| *weight += damping * part);
            if largest < STEP_MIN {
                break;
            }
        }
        Self::from_parts(model.centre, model.scale, model.weights)
    }

    /// A model from a file: centres, scales, then weights with the intercept last.
    ///
    /// # Errors
    /// [`FitError::NotFinite`] for a number that is not finite or a scale that is not over zero.
    pub fn from_parts(centre: [f64; FEATURES], scale: [f64; FEATURES], weights: [f64; SIZE]) -> Result<Self, FitError> {
        let bad = (0..FEATURES).find(|i| !(centre[*i].is_finite() && scale[*i].is_finite() && scale[*i] > 0.0));
        let bad = bad.or_else(|| (0..SIZE).find(|i| !weights[*i].is_finite()));
        bad.map_or(Ok(Self { centre, scale, weights }), |index| Err(FitError::NotFinite(index)))
    }

    /// Centres, scales, weights with the intercept last.
    #[must_use]
    pub fn parts(&self) -> (&[f64; FEATURES], &[f64; FEATURES], &[f64; SIZE]) {
        (&self.centre, &self.scale, &self.weights)
    }

    /// Probability of being right, before isotonic calibration; 0 to 1.
    #[must_use]
    pub fn score(&self, features: &Features) -> f64 {
        sigmoid(self.log_odds(features))
    }

    /// The same in log-odds.
    #[must_use]
    pub fn log_odds(&self, features: &Features) -> f64 {
        self.input(features).iter().zip(&self.weights).map(|(x, w)| x * w).sum()
    }

    fn input(&self, features: &Features) -> [f64; SIZE] {
        let mut input = [1.0; SIZE];
        for (i, value) in features.get().iter().enumerate() {
            // Far outside of what was fitted, a line knows nothing.
            input[i] = ((value - self.centre[i]) / self.scale[i]).clamp(-5.0, 5.0);
        }
        input
    }
}

/// 1 / (1 + e^-x).
#[must_use]
pub fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

/// Weighted mean and standard deviation of each feature; 1 where a feature never changes.
fn moments(rows: &[Labelled]) -> ([f64; FEATURES], [f64; FEATURES]) {
    let total: f64 = rows.iter().map(|row| row.weight).sum::<f64>().max(f64::MIN_POSITIVE);
    let (mut centre, mut scale) = ([0.0; FEATURES], [0.0; FEATURES]);
    for row in rows {
        row.features.get().iter().zip(&mut centre).for_each(|(value, sum)| *sum += row.weight * value / total);
    }
    for row in rows {
        for (i, value) in row.features.get().iter().enumerate() {
            scale[i] += row.weight * (value - centre[i]).powi(2) / total;
        }
    }
    let root = |variance: f64| if variance > 1e-12 { variance.sqrt() } else { 1.0 };
    (centre, scale.map(root))
}

/// What draws the weights back to where the fit began; the intercept is free.
struct Pull<'a> {
    off: &'a [f64; SIZE],
    ridge: f64,
}

/// Where Newton's method goes from here; none where the system has no solution.
fn newton_step(weights: &[f64; SIZE], inputs: &[[f64; SIZE]], rows: &[Labelled], pull: Pull) -> Option<[f64; SIZE]> {
    let mut gradient = [0.0; SIZE];
    let mut hessian = [[0.0; SIZE]; SIZE];
    for (input, row) in inputs.iter().zip(rows) {
        let p = sigmoid(input.iter().zip(weights).map(|(x, w)| x * w).sum());
        let error = row.weight * (f64::from(u8::from(row.right)) - p);
        let curve = row.weight * (p * (1.0 - p)).max(1e-9);
        for i in 0..SIZE {
            gradient[i] += error * input[i];
            let scaled = curve * input[i];
            for j in 0..=i {
                hessian[i][j] += scaled * input[j];
            }
        }
    }
    for i in 0..FEATURES {
        gradient[i] -= pull.ridge * pull.off[i];
        hessian[i][i] += pull.ridge;
    }
    hessian[FEATURES][FEATURES] += 1e-9;
    solve(hessian, gradient)
}

/// Cholesky: the lower triangle of a positive definite matrix, solved for one right-hand side.
fn solve(mut a: [[f64; SIZE]; SIZE], mut b: [f64; SIZE]) -> Option<[f64; SIZE]> {
    for i in 0..SIZE {
        for j in 0..=i {
            let sum: f64 = (0..j).map(|k| a[i][k] * a[j][k]).sum();
            let value = a[i][j] - sum;
            if i == j {
                if !value.is_finite() || value <= 0.0 {
                    return None;
                }
                a[i][i] = value.sqrt();
            } else {
                a[i][j] = value / a[j][j];
            }
        }
    }
    for i in 0..SIZE {
        let sum: f64 = (0..i).map(|k| a[i][k] * b[k]).sum();
        b[i] = (b[i] - sum) / a[i][i];
    }
    for i in (0..SIZE).rev() {
        let sum: f64 = (i + 1..SIZE).map(|k| a[k][i] * b[k]).sum();
        b[i] = (b[i] - sum) / a[i][i];
    }
    b.iter().all(|value| value.is_finite()).then_some(b)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use rand::{Rng, SeedableRng, rngs::StdRng};

    /// Rows whose outcome follows a known line in the first two features.
    fn rows(count: usize, seed: u64) -> Vec<Labelled> {
        let mut random = StdRng::seed_from_u64(seed);
        let row = |_| {
            let mut values = [0.0; FEATURES];
            values.iter_mut().for_each(|v| *v = random.random_range(-1.0..1.0));
            let right = random.random_bool(sigmoid(1.0 + 3.0 * values[0] - 2.0 * values[1]));
            Labelled { features: Features::from_values(values).unwrap(), right, weight: 1.0, answer: 0 }
        };
        (0..count).map(row).collect()
    }

    #[test]
    fn it_finds_the_line_that_made_the_labels() {
        let model = Logistic::fit(&rows(20_000, 1), 1.0).unwrap();
        let check = |first: f64, second: f64| {
            let mut values = [0.0; FEATURES];
            (values[0], values[1]) = (first, second);
            let got = model.score(&Features::from_values(values).unwrap());
            let expect = sigmoid(1.0 + 3.0 * first - 2.0 * second);
            assert!((got - expect).abs() < 0.03, "({first}, {second}): {got}, expected {expect}");
        };
        check(0.0, 0.0);
        check(0.5, -0.5);
        check(-0.5, 0.5);
    }

    #[test]
    fn few_labels_move_a_line_that_was_fitted_before_little_and_many_move_it_far() {
        let old = Logistic::fit(&rows(5_000, 5), 1.0).unwrap();
        let turned = |count: usize| {
            let mut labels = rows(count, 6);
            labels.iter_mut().for_each(|row| row.right = !row.right);
            old.refitted(&labels, 100.0).unwrap().parts().2[0]
        };
        let before = old.parts().2[0];
        assert!(turned(60) > 0.3 * before, "{} from {before}", turned(60));
        assert!(turned(20_000) < -0.5 * before, "{} from {before}", turned(20_000));
    }

    #[test]
    fn one_outcome_alone_is_no_fit() {
        let mut all_right = rows(100, 2);
        all_right.iter_mut().for_each(|row| row.right = true);
        assert_eq!(Logistic::fit(&all_right, 1.0), Err(FitError::TooFew { right: 100, wrong: 0 }));
        all_right.iter_mut().for_each(|row| row.right = false);
        assert_eq!(Logistic::fit(&all_right, 1.0), Err(FitError::TooFew { right: 0, wrong: 100 }));
        assert_eq!(Logistic::fit(&[], 1.0), Err(FitError::TooFew { right: 0, wrong: 0 }));
    }

    #[test]
    fn features_that_never_change_or_say_the_same_do_no_harm() {
        let mut twins = rows(500, 3);
        for row in &mut twins {
            let mut values = *row.features.get();
            values[2] = values[0];
            values[3] = 7.0;
            row.features = Features::from_values(values).unwrap();
        }
        let model = Logistic::fit(&twins, RIDGE).unwrap();
        assert!(twins.iter().all(|row| (0.0..=1.0).contains(&model.score(&row.features))));
    }

    #[test]
    fn outcomes_that_a_line_separates_give_a_finite_model() {
        let mut split = rows(200, 4);
        split.iter_mut().for_each(|row| row.right = row.features.get()[0] > 0.0);
        let model = Logistic::fit(&split, RIDGE).unwrap();
        assert!(model.parts().2.iter().all(|weight| weight.is_finite()));
    }

    #[test]
    fn a_model_with_nan_or_without_scale_is_refused() {
        let (ones, mut weights) = ([1.0; FEATURES], [0.0; SIZE]);
        assert!(Logistic::from_parts(ones, ones, weights).is_ok());
        assert_eq!(Logistic::from_parts(ones, [0.0; FEATURES], weights), Err(FitError::NotFinite(0)));
        weights[3] = f64::NAN;
        assert_eq!(Logistic::from_parts(ones, ones, weights), Err(FitError::NotFinite(3)));
    }
}
