//! Labelled answers: a file of prompts run through the model, or what the cloud answered while the gateway ran.

use crate::cli::CalibrateArgs;
use crate::config::Config;
use crate::failure::Failure;
use crate::learned;
use serde_json::Value;
use sha2::{Digest, Sha256};
use std::path::Path;
use tidegate_core::Signals;
use tidegate_core::early::Trail;
use tidegate_core::features::{Features, single_signals};
use tidegate_engine::direct::Direct;
use tidegate_engine::protocol::{Done, Run, Start, Stop};
use tidegate_schemas::{JobId, Message, Role, TaskName, TaskSpec};

/// Most labelled prompts: an hour of a small model.
const PROMPTS_MAX: usize = 100_000;
/// Largest file of prompts, in bytes.
const BYTES_MAX: u64 = 256 * 1024 * 1024;

/// One labelled answer.
#[derive(Debug, Clone)]
pub(super) struct Answer {
    /// What the model saw of it; none where there was no usable answer.
    pub(super) features: Option<Features>,
    /// Each single signal, by name; empty where only features are known.
    pub(super) singles: Vec<(&'static str, f64)>,
    /// How the sum of its log-probabilities fell.
    pub(super) trail: Trail,
    /// Stands for the answer; 0 where there was no usable one.
    pub(super) answer: u64,
    /// Whether it was right.
    pub(super) right: bool,
    /// Whether the cloud's was, where that is known.
    pub(super) cloud: Option<bool>,
}

/// All of them, and where they come from.
#[derive(Debug)]
pub(super) struct Set {
    /// File name, or what stands for it.
    pub(super) name: String,
    /// SHA-256 of the file, hexadecimal.
    pub(super) sha256: String,
    /// The answers.
    pub(super) answers: Vec<Answer>,
}

/// One labelled prompt.
struct Line {
    prompt: String,
    answer: Value,
}

/// Gathers labelled answers.
pub(super) fn gather(
    args: &CalibrateArgs,
    config: &Config,
    task: &TaskName,
    (model, sha256): (&Path, &str),
) -> Result<Set, Failure> {
    let Some(data) = &args.data else { return escalations(config, task, sha256) };
    let known = config.tasks.get(task).ok_or_else(|| {
        let names = config.tasks.keys().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        Failure::config(format!("task {task} is not one of the configuration's: {names}"))
    })?;
    let failed = |why: String| Failure::other(format!("{}: {why}", data.display()));
    let bytes = std::fs::metadata(data).map_err(|e| failed(e.to_string()))?.len();
    if bytes > BYTES_MAX {
        return Err(failed(format!("{bytes} bytes, limit is {BYTES_MAX}")));
    }
    let text = std::fs::read_to_string(data).map_err(|e| failed(e.to_string()))?;
    let lines = lines(&text).map_err(failed)?;
    let start = |path: &Path| Start { context_tokens: config.engine.context_tokens, ..Start::new(path) };
    let ours = answers(start(model), &known.spec, &lines)?;
    let theirs = args.cloud_model.as_deref().map(|path| answers(start(path), &known.spec, &lines)).transpose()?;
    let answer = |(index, mut answer): (usize, Answer)| {
        answer.cloud = theirs.as_ref().map(|theirs| theirs[index].right);
        answer
    };
    Ok(Set {
        name: data.file_name().unwrap_or_default().to_string_lossy().into_owned(),
        sha256: Sha256::digest(&text).iter().map(|byte| format!("{byte:02x}")).collect(),
        answers: ours.into_iter().enumerate().map(answer).collect(),
    })
}

/// What the cloud answered: its answer counts as right, so a disagreement is our error.
fn escalations(config: &Config, task: &TaskName, sha256: &str) -> Result<Set, Failure> {
    let place = config.data_dir.join(learned::NAME);
    let failed = |why: String| Failure::other(format!("{}: {why}", place.display()));
    let (model, labels) = learned::labels(&config.data_dir, sha256, task).map_err(failed)?;
    if model != sha256 {
        return Err(failed(format!("learned with a model with sha256 {model}, this one has {sha256}")));
    }
    let answer = |label: learned::Label| Answer {
        features: label.features(),
        singles: Vec::new(),
        trail: label.trail(),
        answer: label.answer,
        right: label.agree,
        cloud: Some(true),
    };
    Ok(Set { name: "escalations".to_owned(), sha256: String::new(), answers: labels.into_iter().map(answer).collect() })
}

fn lines(text: &str) -> Result<Vec<Line>, String> {
    let mut found = Vec::new();
    for (number, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        found.push(parse(line).map_err(|why| format!("line {}: {why}", number + 1))?);
        if found.len() > PROMPTS_MAX {
            return Err(format!("over {PROMPTS_MAX} prompts, which is the limit"));
        }
    }
    Ok(found)
}

fn parse(line: &str) -> Result<Line, String> {
    // The reason of a parser may repeat the text; its place is enough.
    let record: Value = serde_json::from_str(line).map_err(|e| format!("no JSON at column {}", e.column()))?;
    let prompt = record["prompt"].as_str().ok_or("prompt is missing or is no text")?.to_owned();
    let answer = match (&record["answer"], &record["intent"]) {
        (answer @ (Value::String(_) | Value::Object(_)), Value::Null) => answer.clone(),
        (Value::Null, intent @ Value::String(_)) => intent.clone(),
        _ => return Err("one of answer (a text or an object) and intent (a text) is needed".to_owned()),
    };
    Ok(Line { prompt, answer })
}

/// What a model answers to all of them.
fn answers(start: Start, spec: &TaskSpec, lines: &[Line]) -> Result<Vec<Answer>, Failure> {
    let mut engine = Direct::load(start).map_err(Failure::other)?;
    let run = |(number, line): (usize, &Line)| Run {
        job: JobId(number as u64),
        system: spec.system.clone(),
        messages: vec![Message { role: Role::User, content: line.prompt.as_str().into() }],
        schema: spec.schema.clone(),
        max_tokens: spec.max_tokens,
        stream: false,
        floor: None,
    };
    let runs = lines.iter().enumerate().map(run).collect();
    let done = engine.run_all(runs).map_err(Failure::other)?;
    // An answer without a valid ending has no confidence, as in the gateway.
    let usable = |result: &Result<Done, _>| result.as_ref().ok().filter(|done| done.stop == Stop::End).cloned();
    Ok(done.iter().zip(lines).map(|(result, line)| answer(usable(result), line)).collect())
}

fn answer(done: Option<Done>, line: &Line) -> Answer {
    let Some(done) = done else {
        return Answer {
            features: None,
            singles: Vec::new(),
            trail: Trail::flat(0.0),
            answer: 0,
            right: false,
            cloud: None,
        };
    };
    let prompt_bytes = u32::try_from(line.prompt.len()).unwrap_or(u32::MAX);
    let signals = Signals { prompt_bytes, ..crate::up::signals(&done) };
    Answer {
        features: Features::of(&signals),
        singles: single_signals(&signals).to_vec(),
        trail: signals.trail.unwrap_or(Trail::flat(signals.sum_logprob)),
        answer: signals.answer,
        right: same(&line.answer, done.text.reveal()),
        cloud: None,
    }
}

/// Text equal but for case and white space around it; JSON equal after lower-casing, numbers by value.
pub(crate) fn same(expected: &Value, given: &str) -> bool {
    match expected {
        Value::String(text) => text.trim().to_lowercase() == given.trim().to_lowercase(),
        other => serde_json::from_str(given).is_ok_and(|given: Value| lowered(&given) == lowered(other)),
    }
}

fn lowered(value: &Value) -> Value {
    match value {
        Value::String(text) => text.to_lowercase().into(),
        Value::Array(list) => list.iter().map(lowered).collect(),
        Value::Object(map) => map.iter().map(|(key, value)| (key.to_lowercase(), lowered(value))).collect(),
        Value::Number(number) => number.as_f64().map_or_else(|| value.clone(), Value::from),
        Value::Null | Value::Bool(_) => value.clone(),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_broken_line_is_named_without_its_text() {
        let check = |text: &str, expect: &str| {
            let why = lines(text).err().unwrap();
            assert!(why.contains(expect) && !why.contains("secret"), "{why}");
        };
        check("{\"prompt\":\"secret\",\"intent\":\"a\"}\n{\"prompt\": secret}\n", "line 2: no JSON at column");
        check("{\"prompt\":\"secret\"}\n", "line 1: one of answer");
        check("{\"intent\":\"secret\"}\n", "line 1: prompt is missing");
        check("{\"prompt\":\"a\",\"intent\":\"secret\",\"answer\":\"b\"}\n", "line 1: one of answer");
    }

    #[test]
    fn answers_are_compared_as_in_the_rigs() {
        assert!(same(&Value::from("tell_joke"), " Tell_Joke\n"));
        let action = serde_json::json!({"intent": "HassTurnOn", "level": 20});
        assert!(same(&action, r#"{"level":20.0,"intent":"hassturnon"}"#));
        assert!(!same(&action, "pump"));
    }
}
