//! The rig `models`: accuracy, likelihood, speed, memory and size of model files, through our own engine.

use crate::alone::{Alone, Answered, measure};
use crate::figures::{mean, percent_of, risk_area, risk_at, shown};
use crate::prompts::{Expected, Line, Task, read};
use crate::report::{Check, Common, finish, table};
use anyhow::{Context as _, bail};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use tidegate_engine::protocol::Signals;

/// Least accuracy of `tide-edge` and of any model without a bar of its own, in percent: intent, action.
const EDGE_BARS: (f64, f64) = (91.0, 80.0);
/// Least accuracy of `tide-cloud`, in percent: intent, action.
const CLOUD_BARS: (f64, f64) = (93.0, 88.0);
/// Lines of each file that the short version takes, evenly spread.
const SHORT_LINES: usize = 150;
/// The label of an utterance that belongs to no intent.
const OUT_OF_SCOPE: &str = "oos";

/// Options of the rig.
#[derive(clap::Args, Debug)]
pub(crate) struct Options {
    #[command(flatten)]
    common: Common,
    /// Lines with `prompt` and `intent`, in scope.
    #[arg(long, value_name = "FILE")]
    intent: PathBuf,
    /// Lines with `prompt` and `answer`.
    #[arg(long, value_name = "FILE")]
    action: PathBuf,
    /// Lines with `prompt` and the intent `oos`.
    #[arg(long, value_name = "FILE")]
    oos: Option<PathBuf>,
    /// Model files; else the two that are shipped.
    #[arg(long, value_name = "FILE", num_args = 1..)]
    model: Vec<PathBuf>,
}

/// The prompts of all files, and where each begins.
struct Sets {
    lines: Vec<Line>,
    intents: usize,
    actions: usize,
}

/// Runs the rig.
pub(crate) fn run(options: &Options) -> anyhow::Result<ExitCode> {
    let sets = sets(options)?;
    let models = if options.model.is_empty() { shipped_models()? } else { options.model.clone() };
    let mut rows = Vec::new();
    let mut risks = Vec::new();
    let mut checks = Vec::new();
    for model in &models {
        let alone = measure(model, &sets.lines)?;
        let score = Score::of(&alone, &sets);
        rows.push(score.row(model, &alone));
        risks.extend(risk_rows(model, &alone, &sets));
        checks.extend(score.checks(model));
    }
    let header =
        ["model", "MB", "sha256", "intent %", "oos recall %", "action %", "log-likelihood", "tokens/s", "resident MB"];
    println!("{}", table(&header, &rows));
    println!("Risk (wrong answers in percent) among the surest share of all answers, per confidence signal:");
    println!("{}", table(&["signal", "50 %", "80 %", "90 %", "95 %", "100 %", "area"], &risks));
    let more = serde_json::json!({ "models": rows, "models_header": header, "risk": risks });
    finish("models", &options.common, &checks, &more)
}

/// The two models of the repository.
pub(crate) fn shipped_models() -> anyhow::Result<Vec<PathBuf>> {
    ["tide-edge.gguf", "tide-cloud.gguf"].iter().map(|name| shipped_model(name)).collect()
}

/// One model of the repository: in `agent/models` above this binary.
pub(crate) fn shipped_model(name: &str) -> anyhow::Result<PathBuf> {
    let binary = crate::process::own_binary()?;
    let found = binary.ancestors().map(|up| up.join("agent/models").join(name)).find(|path| path.is_file());
    found.with_context(|| format!("no agent/models/{name} above {}", binary.display()))
}

fn sets(options: &Options) -> anyhow::Result<Sets> {
    let intents = sample(read(&options.intent)?, options.common.short);
    let actions = sample(read(&options.action)?, options.common.short);
    let oos = options.oos.as_deref().map(read).transpose()?.unwrap_or_default();
    if intents.iter().any(|line| line.task() != Task::Intent) {
        bail!("{} has a line without intent", options.intent.display());
    }
    if actions.iter().any(|line| !matches!(line.expected, Expected::Action(_))) {
        bail!("{} has a line without answer", options.action.display());
    }
    let (intent_count, action_count) = (intents.len(), actions.len());
    let lines = intents.into_iter().chain(actions).chain(sample(oos, options.common.short)).collect();
    Ok(Sets { lines, intents: intent_count, actions: action_count })
}

fn sample(lines: Vec<Line>, short: bool) -> Vec<Line> {
    let step = if short { lines.len().div_ceil(SHORT_LINES).max(1) } else { 1 };
    lines.into_iter().step_by(step).collect()
}

/// Accuracy in percent of the answers that can be judged.
pub(crate) fn accuracy(answers: &[Answered]) -> Option<f64> {
    let judged: Vec<bool> = answers.iter().filter_map(|a| a.right).collect();
    percent_of(judged.iter().filter(|right| **right).count(), judged.len())
}

struct Score {
    intent: Option<f64>,
    oos: Option<f64>,
    action: Option<f64>,
    likelihood: Option<f64>,
    tokens_per_s: f64,
}

impl Score {
    fn of(alone: &Alone, sets: &Sets) -> Self {
        let (intents, rest) = alone.answers.split_at(sets.intents);
        let (actions, oos) = rest.split_at(sets.actions);
        let sums: Vec<f64> = alone.answers.iter().filter_map(|a| a.signals).map(|s| s.sum_logprob).collect();
        let tokens: u32 = alone.answers.iter().map(|a| a.tokens).sum();
        let wall_us: u64 = alone.answers.iter().map(|a| a.wall_us).sum();
        Self {
            intent: accuracy(intents),
            oos: accuracy(oos),
            action: accuracy(actions),
            likelihood: mean(&sums),
            tokens_per_s: f64::from(tokens) / (wall_us as f64 / 1e6),
        }
    }

    fn row(&self, model: &Path, alone: &Alone) -> Vec<String> {
        vec![
            stem(model),
            format!("{:.2}", alone.bytes as f64 / 1e6),
            alone.sha256.chars().take(12).collect(),
            shown(self.intent, 2),
            shown(self.oos, 1),
            shown(self.action, 2),
            shown(self.likelihood, 3),
            format!("{:.0}", self.tokens_per_s),
            format!("{:.1}", alone.resident_bytes as f64 / 1e6),
        ]
    }

    fn checks(&self, model: &Path) -> [Check; 2] {
        let name = stem(model);
        let (intent, action) = if name.contains("cloud") { CLOUD_BARS } else { EDGE_BARS };
        [
            Check::at_least(format!("{name} intent, in scope"), self.intent.unwrap_or(f64::NAN), intent, "%"),
            Check::at_least(format!("{name} action, exact"), self.action.unwrap_or(f64::NAN), action, "%"),
        ]
    }
}

fn stem(model: &Path) -> String {
    model.file_stem().unwrap_or_default().to_string_lossy().into_owned()
}

type Signal = fn(&Signals) -> f64;
/// The confidence signals; the higher, the surer.
const SIGNALS: [(&str, Signal); 4] = [
    ("minimum token probability", |s| s.min_logprob.exp()),
    ("mean log-probability", |s| s.mean_logprob),
    ("first-token margin", |s| s.first_margin),
    ("product of probabilities", |s| s.sum_logprob.exp()),
];

/// Risk-coverage of every signal, over the in-scope intents, all intents with out-of-scope ones, and the actions.
fn risk_rows(model: &Path, alone: &Alone, sets: &Sets) -> Vec<Vec<String>> {
    let is_oos = |line: &Line| matches!(&line.expected, Expected::Intent(label) if label == OUT_OF_SCOPE);
    let answered = |wanted: &dyn Fn(&Line) -> bool, signal: Signal| -> Vec<(f64, bool)> {
        let pairs = sets.lines.iter().zip(&alone.answers).filter(|(line, _)| wanted(line));
        pairs.filter_map(|(_, a)| Some((a.signals.as_ref().map_or(f64::NEG_INFINITY, signal), a.right?))).collect()
    };
    let mut rows = Vec::new();
    for (name, signal) in SIGNALS {
        let in_scope = answered(&|line| line.task() == Task::Intent && !is_oos(line), signal);
        let actions = answered(&|line| line.task() == Task::Action, signal);
        rows.push(risk_row(format!("{} intent: {name}", stem(model)), &in_scope));
        rows.push(risk_row(format!("{} action: {name}", stem(model)), &actions));
    }
    rows.sort_by_key(|row| row[0].contains("action:"));
    rows
}

fn risk_row(name: String, answers: &[(f64, bool)]) -> Vec<String> {
    let risks = [0.5, 0.8, 0.9, 0.95, 1.0].map(|coverage| shown(risk_at(answers, coverage), 2));
    std::iter::once(name).chain(risks).chain([shown(risk_area(answers), 2)]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answered(right: Option<bool>) -> Answered {
        Answered { right, signals: Some(Signals::default()), tokens: 2, wall_us: 1_000 }
    }

    #[test]
    fn accuracy_leaves_out_what_nobody_knows() {
        let answers = [answered(Some(true)), answered(Some(false)), answered(None), answered(Some(true))];
        assert_eq!(shown(accuracy(&answers), 1), "66.7");
        assert_eq!(accuracy(&[answered(None)]), None);
    }

    #[test]
    fn the_score_keeps_the_files_apart_and_the_bars_follow_the_name() {
        let line = |expected| Line { prompt: String::new(), expected };
        let sets = Sets {
            lines: vec![line(Expected::Intent("a".into())), line(Expected::Action(serde_json::json!({})))],
            intents: 1,
            actions: 1,
        };
        let answers = vec![answered(Some(true)), answered(Some(false))];
        let alone = Alone { name: String::new(), sha256: String::new(), bytes: 1, resident_bytes: 1, answers };
        let score = Score::of(&alone, &sets);
        assert_eq!((score.intent, score.action, score.oos), (Some(100.0), Some(0.0), None));
        assert_eq!(score.tokens_per_s, 2_000.0);
        let bars = |name: &str| score.checks(Path::new(name)).map(|check| check.bar);
        assert_eq!(bars("m/tide-cloud.gguf"), [93.0, 88.0]);
        assert_eq!(bars("m/tide-edge-q4_0.gguf"), [91.0, 80.0]);
    }

    #[test]
    fn the_short_version_spreads_over_the_file() {
        let line = |n: usize| Line { prompt: n.to_string(), expected: Expected::Unknown };
        let taken = sample((0..3_000).map(line).collect(), true);
        assert_eq!(taken.len(), SHORT_LINES);
        assert_eq!(taken[149].prompt, "2980");
        assert_eq!(sample((0..3_000).map(line).collect(), false).len(), 3_000);
    }
}
