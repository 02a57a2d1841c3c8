//! One model, alone over a set of prompts, in a process of its own: what it would have scored without the other, and
//! what memory it takes. Prompts come on stdin as JSON lines; one JSON value goes to stdout.

use crate::clock::now_us;
use crate::process::{leashed, own_binary};
use crate::prompts::{Line, Task, read_from};
use anyhow::{Context as _, bail};
use serde::{Deserialize, Serialize};
use std::io::{IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{ExitCode, Stdio};
use tidegate_engine::direct::Direct;
use tidegate_engine::protocol::{CHILD_ENV, Run, Signals, Start};
use tidegate_schemas::{Body, JobId, Message, Role};

/// Schema of the shipped task `action`, as the gateway's own configuration has it.
const ACTION_SCHEMA: &str = r#"{"type":"object","properties":{"intent":{"type":"string"}},"required":["intent"],"patternProperties":{"^(name|area|floor|item|search_query|message|conversation_command|color)$":{"anyOf":[{"enum":["all"]},{"type":"string","x-from-prompt":true}]}},"additionalProperties":{"type":["string","number"]}}"#;
/// Most tokens of an answer of the shipped task `action`.
const ACTION_TOKENS_MAX: u32 = 128;
/// Most tokens of an answer of the shipped task `intent`.
const INTENT_TOKENS_MAX: u32 = 16;

/// Options of a lone model.
#[derive(clap::Args, Debug)]
pub(crate) struct Options {
    /// The GGUF file.
    #[arg(long)]
    model: PathBuf,
}

/// A model and what it answered.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Alone {
    /// Its name.
    pub(crate) name: String,
    /// SHA-256 of the file, hexadecimal.
    pub(crate) sha256: String,
    /// Size of the file.
    pub(crate) bytes: u64,
    /// Resident memory after the last prompt.
    pub(crate) resident_bytes: u64,
    /// One answer per prompt, in order.
    pub(crate) answers: Vec<Answered>,
}

/// What became of one prompt.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Answered {
    /// Whether it was right; none where nobody knows.
    pub(crate) right: Option<bool>,
    /// What the logits said; none where there was no answer.
    pub(crate) signals: Option<Signals>,
    /// Tokens written.
    pub(crate) tokens: u32,
    /// How long it took.
    pub(crate) wall_us: u64,
}

/// Runs the model in this process, over the prompts on stdin.
pub(crate) fn run(options: &Options) -> anyhow::Result<ExitCode> {
    let text = std::io::read_to_string(std::io::stdin()).context("cannot read prompts from stdin")?;
    let lines = read_from(&text, Path::new("stdin"))?;
    let bytes = std::fs::metadata(&options.model).with_context(|| options.model.display().to_string())?.len();
    let mut direct = Direct::load(Start::new(&options.model)).with_context(|| options.model.display().to_string())?;
    let mut answers = Vec::with_capacity(lines.len());
    let begin = now_us();
    for (number, line) in lines.iter().enumerate() {
        answers.push(ask(&mut direct, number, line)?);
        progress(direct.name(), number + 1, lines.len(), now_us() - begin);
    }
    let alone = Alone {
        name: direct.name().to_owned(),
        sha256: direct.sha256().to_owned(),
        bytes,
        resident_bytes: resident_bytes(std::process::id())?,
        answers,
    };
    println!("{}", serde_json::to_string(&alone)?);
    Ok(ExitCode::SUCCESS)
}

fn ask(direct: &mut Direct, number: usize, line: &Line) -> anyhow::Result<Answered> {
    let (schema, max_tokens) = shape(line.task());
    let run = Run {
        job: JobId(number as u64 + 1),
        system: line.task().name().to_owned(),
        messages: vec![Message { role: Role::User, content: line.prompt.as_str().into() }],
        schema: schema.map(str::to_owned),
        max_tokens,
        stream: false,
        floor: None,
    };
    let begin = now_us();
    let done = direct.run(run)?;
    let wall_us = now_us() - begin;
    Ok(match done {
        Ok(done) => Answered {
            right: line.judges(&Body::Text(done.text)),
            signals: Some(done.signals),
            tokens: done.completion_tokens,
            wall_us,
        },
        // No answer is a wrong one.
        Err(_) => Answered { right: line.is_known().then_some(false), signals: None, tokens: 0, wall_us },
    })
}

/// Schema and most tokens of an answer, as the gateway has them.
pub(crate) fn shape(task: Task) -> (Option<&'static str>, u32) {
    match task {
        Task::Action => (Some(ACTION_SCHEMA), ACTION_TOKENS_MAX),
        Task::Intent => (None, INTENT_TOKENS_MAX),
    }
}

/// On a terminal, once per hundred prompts: how far, and how long to go.
fn progress(name: &str, done: usize, all: usize, spent_us: u64) {
    if done.is_multiple_of(100) && std::io::stderr().is_terminal() {
        let left_s = spent_us as f64 / done as f64 * (all - done) as f64 / 1e6;
        eprint!("\r{name} alone: {done}/{all}, {left_s:.0} s left   ");
        if done == all {
            eprintln!();
        }
    }
}

/// Starts a child that runs the model over the prompts, and waits for its answers.
pub(crate) fn measure(model: &Path, lines: &[Line]) -> anyhow::Result<Alone> {
    let mut command = leashed(&own_binary()?)?;
    command.args(["alone", "--model"]).arg(model).envs(CHILD_ENV);
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn().context("cannot start a lone model")?;
    let mut stdin = child.stdin.take().context("stdin is piped")?;
    // The child reads all before it writes anything, so that neither can wait for the other.
    for line in lines {
        writeln!(stdin, "{}", line.to_json()).context("a lone model ended early")?;
    }
    drop(stdin);
    let output = child.wait_with_output().context("cannot wait for a lone model")?;
    if !output.status.success() {
        bail!("{} alone ended with {}", model.display(), output.status);
    }
    let alone: Alone = serde_json::from_slice(&output.stdout).context("a lone model said something else")?;
    if alone.answers.len() != lines.len() {
        bail!("{} gave {} answers to {} prompts", model.display(), alone.answers.len(), lines.len());
    }
    Ok(alone)
}

/// Resident memory of a process (VmRSS), in bytes.
pub(crate) fn resident_bytes(pid: u32) -> anyhow::Result<u64> {
    let path = format!("/proc/{pid}/status");
    let status = std::fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
    parse_resident(&status).with_context(|| format!("{path} has no VmRSS"))
}

fn parse_resident(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn resident_memory_is_read_in_bytes() {
        assert_eq!(parse_resident("Name:\tx\nVmRSS:\t    1536 kB\nThreads:\t1\n"), Some(1536 * 1024));
        assert_eq!(parse_resident("Name:\tx\n"), None);
        assert!(resident_bytes(std::process::id()).unwrap() > 0);
    }

    #[test]
    fn the_task_is_the_gateways_own() {
        let shipped = include_str!("../../src/config/shipped.rs");
        assert!(shipped.contains(ACTION_SCHEMA), "the gateway's schema of action differs");
        for (name, tokens) in [("action", ACTION_TOKENS_MAX), ("intent", INTENT_TOKENS_MAX)] {
            let line = shipped.lines().find(|line| line.contains(&format!("name: \"{name}\""))).unwrap();
            assert!(line.contains(&format!("system: \"{name}\"")), "{line}");
            assert!(line.contains(&format!("max_tokens: {tokens}")), "{line}");
        }
    }
}
