//! Runs prompts through the engine and writes down, per prompt, what the logits said and whether the answer was right.
//! Invariant: the file holds no text of prompts or answers; an answer is a hash, good only for comparing two models.

use super::file::{Head, Row, VERSION};
use crate::clock::now_us;
use crate::prompts::{Expected, Line, read};
use anyhow::{Context as _, bail};
use sha2::{Digest as _, Sha256};
use std::collections::BTreeMap;
use std::io::{BufWriter, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use tidegate_engine::direct::Direct;
use tidegate_engine::protocol::{Done, Run, Start};
use tidegate_schemas::{Body, JobId, Message, Role};

/// The label of an utterance that belongs to no intent.
const OUT_OF_SCOPE: &str = "oos";

/// Options of the rig.
#[derive(clap::Args, Debug)]
pub(crate) struct Options {
    /// Files of lines with `prompt` and `intent`.
    #[arg(long, value_name = "FILE", num_args = 1..)]
    intent: Vec<PathBuf>,
    /// Files of lines with `prompt` and `answer`.
    #[arg(long, value_name = "FILE", num_args = 1..)]
    action: Vec<PathBuf>,
    /// The model file (GGUF).
    #[arg(long, value_name = "FILE")]
    model: PathBuf,
    /// Where the signals go (JSON lines).
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// Threads of the engine.
    #[arg(long, default_value_t = 1)]
    threads: u32,
}

/// Runs the rig.
pub(crate) fn run(options: &Options) -> anyhow::Result<ExitCode> {
    let mut lines = Vec::new();
    let mut files = BTreeMap::new();
    for path in options.intent.iter().chain(&options.action) {
        lines.extend(read(path)?);
        files.insert(named(path), hash_of(path)?);
    }
    if lines.is_empty() || lines.iter().any(|line| !line.is_known()) {
        bail!("every line needs an intent or an answer, and at least one line is needed");
    }
    let start = Start { threads: options.threads, ..Start::new(&options.model) };
    let mut direct = Direct::load(start).with_context(|| options.model.display().to_string())?;
    let head = Head { v: VERSION, model: direct.name().to_owned(), model_sha256: direct.sha256().to_owned(), files };
    let mut out = BufWriter::new(std::fs::File::create(&options.out).context("cannot write the signals")?);
    writeln!(out, "{}", serde_json::to_string(&head)?)?;
    let mut right = 0;
    for (number, line) in lines.iter().enumerate() {
        let row = ask(&mut direct, number, line)?;
        right += usize::from(row.right);
        writeln!(out, "{}", serde_json::to_string(&row)?)?;
    }
    out.flush()?;
    let share = 100.0 * right as f64 / lines.len() as f64;
    println!("signals: {} prompts, {share:.2} % right, written to {}", lines.len(), options.out.display());
    Ok(ExitCode::SUCCESS)
}

/// Folder and file name: enough to tell one file of prompts from another, and nothing of the machine.
fn named(path: &Path) -> String {
    let parts: Vec<_> = path.iter().map(|part| part.to_string_lossy()).collect();
    parts[parts.len().saturating_sub(2)..].join("/")
}

fn hash_of(path: &Path) -> anyhow::Result<String> {
    let bytes = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    Ok(Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect())
}

fn ask(direct: &mut Direct, number: usize, line: &Line) -> anyhow::Result<Row> {
    let (schema, max_tokens) = crate::alone::shape(line.task());
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
    let done = direct.run(run)?.ok();
    let wall_us = now_us() - begin;
    Ok(row(line, done, wall_us))
}

fn row(line: &Line, done: Option<Done>, wall_us: u64) -> Row {
    let text = done.as_ref().map(|done| done.text.reveal().trim().to_lowercase()).unwrap_or_default();
    let hash = Sha256::digest(&text);
    let right = done.as_ref().and_then(|done| line.judges(&Body::Text(done.text.clone())));
    Row {
        task: line.task().name().to_owned(),
        oos: matches!(&line.expected, Expected::Intent(label) if label == OUT_OF_SCOPE),
        right: right.unwrap_or(false),
        answer: u64::from_le_bytes(hash[..8].try_into().expect("a hash has 32 bytes")),
        prompt_bytes: u32::try_from(line.prompt.len()).unwrap_or(u32::MAX),
        prompt_tokens: done.as_ref().map_or(0, |done| done.prompt_tokens),
        tokens: done.as_ref().map_or(0, |done| done.completion_tokens),
        answer_bytes: u32::try_from(text.len()).unwrap_or(u32::MAX),
        wall_us,
        signals: done.as_ref().map(|done| done.signals),
        logprobs: done.map(|done| done.logprobs).unwrap_or_default(),
    }
}
