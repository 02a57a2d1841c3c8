//! Files of signals: what a model's logits said about each prompt of a set, and whether its answer was right. No text.

use anyhow::{Context as _, bail};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use tidegate_core::Signals as CoreSignals;
use tidegate_core::early::Trail;
use tidegate_engine::protocol::Signals;

/// Version of the file.
pub(crate) const VERSION: u32 = 1;

/// First line of a file.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Head {
    /// Version of the file.
    pub(crate) v: u32,
    /// Name of the model.
    pub(crate) model: String,
    /// SHA-256 of the model file.
    pub(crate) model_sha256: String,
    /// SHA-256 of each file of prompts, by its name.
    pub(crate) files: BTreeMap<String, String>,
}

/// One prompt and what became of it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Row {
    /// Name of the task.
    pub(crate) task: String,
    /// Whether the prompt belongs to no intent.
    pub(crate) oos: bool,
    /// Whether the answer was right.
    pub(crate) right: bool,
    /// The beginning of the answer's hash, lower-cased and trimmed.
    pub(crate) answer: u64,
    /// Bytes of the prompt.
    pub(crate) prompt_bytes: u32,
    /// Tokens of template and prompt.
    pub(crate) prompt_tokens: u32,
    /// Tokens written.
    pub(crate) tokens: u32,
    /// Bytes of the answer.
    pub(crate) answer_bytes: u32,
    /// How long it took, in microseconds.
    pub(crate) wall_us: u64,
    /// What the logits said; none where there was no answer.
    pub(crate) signals: Option<Signals>,
    /// Log-probabilities of the free tokens.
    pub(crate) logprobs: Vec<f32>,
}

/// A file of signals.
#[derive(Debug, Clone)]
pub(crate) struct File {
    /// What it was made from.
    pub(crate) head: Head,
    /// One row per prompt, in the order of the prompts.
    pub(crate) rows: Vec<Row>,
}

/// Reads a file of signals.
pub(crate) fn load(path: &Path) -> anyhow::Result<File> {
    let file = std::fs::File::open(path).with_context(|| format!("cannot read {}", path.display()))?;
    let mut lines = BufReader::new(file).lines();
    let first = lines.next().context("the file of signals is empty")??;
    let head: Head =
        serde_json::from_str(&first).with_context(|| format!("{} is no file of signals", path.display()))?;
    if head.v != VERSION {
        bail!("{} has version {}, this program reads {VERSION}", path.display(), head.v);
    }
    let mut rows = Vec::new();
    for line in lines {
        rows.push(serde_json::from_str(&line?).with_context(|| format!("{}:{}", path.display(), rows.len() + 2))?);
    }
    Ok(File { head, rows })
}

impl Row {
    /// The signals as the core has them; none where there was no answer.
    pub(crate) fn core(&self) -> Option<CoreSignals> {
        let from = self.signals.as_ref()?;
        Some(CoreSignals {
            sum_logprob: from.sum_logprob,
            min_logprob: from.min_logprob,
            mean_logprob: from.mean_logprob,
            first_margin: from.first_margin,
            first_entropy: from.first_entropy,
            tokens: from.tokens,
            low_logprob: from.low_logprob,
            median_logprob: from.median_logprob,
            second_margin: from.second_margin,
            mean_margin: from.mean_margin,
            min_margin: from.min_margin,
            mean_entropy: from.mean_entropy,
            max_entropy: from.max_entropy,
            first_energy: from.first_energy,
            mean_removed: from.mean_removed,
            max_removed: from.max_removed,
            forced: from.forced,
            prompt_tokens: self.prompt_tokens,
            prompt_bytes: self.prompt_bytes,
            answer: self.answer.max(1),
            trail: Some(Trail::of(&self.logprobs, from.sum_logprob)),
        })
    }
}
