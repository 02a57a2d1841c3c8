//! The pools that the rigs draw from: validation to choose on, test to report on, and of each prompt what the gateway's
//! model and the cloud's made of it. Test files never choose anything.

use super::file::{File, Row, load};
use anyhow::{Context as _, bail};
use rand::{SeedableRng as _, rngs::StdRng, seq::SliceRandom as _};
use std::collections::BTreeMap;
use std::path::PathBuf;
use tidegate_core::features::Features;
use tidegate_core::judge::{Pair, Verdict};
use tidegate_core::logistic::Labelled;
use tidegate_core::{Calibration, Signals};

/// Files of signals, each made by `tidegate-rigs signals`.
#[derive(clap::Args, Debug)]
pub(crate) struct Files {
    /// The gateway's model on the validation prompts.
    #[arg(long, value_name = "FILE")]
    pub(crate) validation: PathBuf,
    /// The gateway's model on the test prompts.
    #[arg(long, value_name = "FILE")]
    pub(crate) test: PathBuf,
    /// The cloud's model on the validation prompts.
    #[arg(long, value_name = "FILE")]
    pub(crate) cloud_validation: PathBuf,
    /// The cloud's model on the test prompts.
    #[arg(long, value_name = "FILE")]
    pub(crate) cloud_test: PathBuf,
}

/// One prompt as both models answered it.
#[derive(Debug, Clone)]
pub(crate) struct Sample {
    pub(crate) row: Row,
    pub(crate) signals: Signals,
    pub(crate) features: Option<Features>,
    /// Its place in the pool.
    pub(crate) number: usize,
    pub(crate) cloud_right: bool,
    pub(crate) cloud_signals: Signals,
    pub(crate) agree: bool,
    pub(crate) cloud_wall_us: u64,
    pub(crate) cloud_tokens: u32,
}

impl Sample {
    pub(crate) fn right(&self) -> bool {
        self.row.right
    }

    /// As a row to learn from; an answer without features teaches nothing.
    pub(crate) fn labelled(&self) -> Option<Labelled> {
        let answer = self.signals.answer;
        Some(Labelled { features: self.features?, right: self.row.right, weight: 1.0, answer })
    }

    /// The same of the cloud's answer.
    pub(crate) fn cloud_labelled(&self) -> Option<Labelled> {
        let signals = &self.cloud_signals;
        let (features, answer) = (Features::of(signals)?, signals.answer);
        Some(Labelled { features, right: self.cloud_right, weight: 1.0, answer })
    }

    pub(crate) fn verdict(&self, score: f64) -> Verdict {
        (score, self.row.right)
    }

    pub(crate) fn pair(&self, score: f64) -> Pair {
        Pair { score, edge: self.row.right, cloud: self.cloud_right }
    }
}

/// All prompts of a set.
pub(crate) struct Pools {
    pub(crate) validation: Vec<Sample>,
    pub(crate) test: Vec<Sample>,
    pub(crate) edge: String,
    pub(crate) cloud: String,
}

impl Files {
    /// Reads all four, and checks that they belong together.
    pub(crate) fn read(&self) -> anyhow::Result<Pools> {
        let (edge_v, edge_t) = (load(&self.validation)?, load(&self.test)?);
        let (cloud_v, cloud_t) = (load(&self.cloud_validation)?, load(&self.cloud_test)?);
        for (a, b) in [(&edge_v, &edge_t), (&cloud_v, &cloud_t)] {
            if a.head.model_sha256 != b.head.model_sha256 {
                bail!("validation is of {}, test of {}: one model is needed", a.head.model, b.head.model);
            }
        }
        if let Some(name) = edge_v.head.files.iter().find(|(_, hash)| edge_t.head.files.values().any(|h| h == *hash)) {
            bail!("{} is in validation and in test", name.0);
        }
        let name = |file: &File| {
            format!("{} {}", file.head.model, &file.head.model_sha256[..12.min(file.head.model_sha256.len())])
        };
        Ok(Pools {
            edge: name(&edge_t),
            cloud: name(&cloud_t),
            validation: joined(edge_v, &cloud_v).context("validation")?,
            test: joined(edge_t, &cloud_t).context("test")?,
        })
    }
}

fn joined(edge: File, cloud: &File) -> anyhow::Result<Vec<Sample>> {
    if edge.head.files != cloud.head.files || edge.rows.len() != cloud.rows.len() {
        bail!("gateway and cloud were run on different prompts");
    }
    let sample = |(number, (row, other)): (usize, (Row, &Row))| {
        // No answer: nothing free was chosen, so there are no features and the confidence is 0.
        let signals = row.core().unwrap_or_default();
        Sample {
            signals,
            features: Features::of(&signals),
            number,
            cloud_right: other.right,
            cloud_signals: other.core().unwrap_or_default(),
            agree: row.answer == other.answer,
            cloud_wall_us: other.wall_us,
            cloud_tokens: other.tokens,
            row,
        }
    };
    Ok(edge.rows.into_iter().zip(&cloud.rows).enumerate().map(sample).collect())
}

/// Prompts of a task, and how many of them belong to no intent.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Mixture {
    /// Device actions.
    Action,
    /// Intents with this share of out-of-scope utterances.
    Intent(f64),
}

impl Mixture {
    pub(crate) fn name(self) -> String {
        match self {
            Self::Action => "action".to_owned(),
            Self::Intent(0.0) => "intent, in scope".to_owned(),
            Self::Intent(share) => format!("intent, {:.0} % out of scope", 100.0 * share),
        }
    }

    /// As many prompts as the pool has in this mixture, drawn by `seed` where it has more.
    pub(crate) fn of(self, pool: &[Sample], seed: u64) -> Vec<&Sample> {
        let mut random = StdRng::seed_from_u64(seed);
        let mut chosen = |task: &str, oos: bool| {
            let mut found: Vec<&Sample> = pool.iter().filter(|s| s.row.task == task && s.row.oos == oos).collect();
            found.shuffle(&mut random);
            found
        };
        let Self::Intent(share) = self else { return chosen("action", false) };
        let (mut inside, mut outside) = (chosen("intent", false), chosen("intent", true));
        let wanted = |inside: usize| (inside as f64 * share / (1.0 - share)).round() as usize;
        if wanted(inside.len()) > outside.len() {
            inside.truncate((outside.len() as f64 * (1.0 - share) / share).round() as usize);
        }
        outside.truncate(wanted(inside.len()));
        inside.extend(outside);
        inside.shuffle(&mut random);
        inside
    }
}

/// Learns a calibration from these prompts.
pub(crate) fn learned(samples: &[&Sample]) -> anyhow::Result<Calibration> {
    let rows: Vec<Labelled> = samples.iter().filter_map(|s| s.labelled()).collect();
    Calibration::learn(&rows, None).context("calibration")
}

/// What is shipped with a model: calibrations of its validation prompts, by task. What half of a test pool teaches is
/// put on these, as `calibrate` puts what a gateway collects on what came with the model.
pub(crate) struct Shipped(BTreeMap<String, Calibration>);

impl Shipped {
    /// Of the gateway's model.
    pub(crate) fn of(pools: &Pools) -> anyhow::Result<Self> {
        Self::from(&pools.validation, Sample::labelled)
    }

    /// Of the cloud's.
    pub(crate) fn of_cloud(pools: &Pools) -> anyhow::Result<Self> {
        Self::from(&pools.validation, Sample::cloud_labelled)
    }

    fn from(validation: &[Sample], labelled: fn(&Sample) -> Option<Labelled>) -> anyhow::Result<Self> {
        let mut rows: BTreeMap<String, Vec<Labelled>> = BTreeMap::new();
        for sample in validation {
            rows.entry(sample.row.task.clone()).or_default().extend(labelled(sample));
        }
        let learned = |(task, rows): (String, Vec<Labelled>)| {
            let calibration = Calibration::learn(&rows, None).with_context(|| format!("validation of {task}"))?;
            Ok((task, calibration))
        };
        rows.into_iter().map(learned).collect::<anyhow::Result<_>>().map(Self)
    }

    /// The confidence of an answer as it is shipped.
    pub(crate) fn confidence(&self, sample: &Sample) -> anyhow::Result<f64> {
        let task = &sample.row.task;
        let calibration = self.0.get(task).with_context(|| format!("no validation prompts of {task}"))?;
        Ok(calibration.confidence(&sample.signals).get())
    }

    /// Learns from these prompts of one task.
    pub(crate) fn learned(&self, samples: &[&Sample]) -> anyhow::Result<Calibration> {
        self.with(samples, Sample::labelled)
    }

    /// The same of the cloud's answers.
    pub(crate) fn cloud_learned(&self, samples: &[&Sample]) -> anyhow::Result<Calibration> {
        self.with(samples, Sample::cloud_labelled)
    }

    fn with(&self, samples: &[&Sample], labelled: fn(&Sample) -> Option<Labelled>) -> anyhow::Result<Calibration> {
        let rows: Vec<Labelled> = samples.iter().filter_map(|s| labelled(s)).collect();
        let prior = samples.first().and_then(|s| self.0.get(&s.row.task));
        Calibration::learn(&rows, prior).context("calibration")
    }
}

/// Mean and the 2.5th and 97.5th percentile.
pub(crate) fn interval(values: &[f64]) -> (f64, f64, f64) {
    let at = |percent| crate::figures::percentile(values, percent).unwrap_or(f64::NAN);
    (crate::figures::mean(values).unwrap_or(f64::NAN), at(2.5), at(97.5))
}
