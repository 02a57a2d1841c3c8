//! The rig `engine-memory`: what a model is predicted to take before it is loaded, beside the most that its process took.

use crate::engine::cache;
use crate::engine::ours::{Ours, prompt};
use crate::engine::shapes::{Quant, Shape, name_of};
use crate::engine::words::words;
use crate::models::shipped_models;
use crate::report::{Check, Common, finish, table};
use anyhow::Context as _;
use std::path::PathBuf;
use std::process::ExitCode;
use tidegate_engine::fit::memory_needed;
use tidegate_engine::protocol::{CacheType, Start};

/// Furthest that a prediction may be from the measured peak.
const BAR_PERCENT: f64 = 5.0;
/// Windows of one sequence, in tokens.
const CONTEXTS: [u32; 3] = [512, 2_048, 8_192];
/// Sequences at once.
const SLOTS: [u32; 2] = [1, 4];
/// Words of a prompt: more tokens than one step takes, so that every buffer is filled once.
const WORDS: usize = 60;
/// Tokens of an answer.
const ANSWER_TOKENS: u32 = 12;

/// Of half of the answers: its tables are a part of what an engine takes.
const SCHEMA: &str =
    r#"{"type":"object","properties":{"on":{"enum":[true,false]}},"required":["on"],"additionalProperties":false}"#;

/// Options of the rig.
#[derive(clap::Args, Debug)]
pub(crate) struct Options {
    #[command(flatten)]
    common: Common,
    /// Shapes to measure; else all.
    #[arg(long, num_args = 1..)]
    shape: Vec<Shape>,
    /// Quantisations to measure; else q4_0, whose weights are copied, and q8_0, whose are not.
    #[arg(long, num_args = 1..)]
    quant: Vec<Quant>,
    /// Model files to measure instead of shapes.
    #[arg(long, value_name = "FILE", num_args = 1..)]
    model: Vec<PathBuf>,
}

/// One start, predicted and measured, in bytes.
#[derive(serde::Serialize)]
struct Measured {
    name: String,
    context_tokens: u32,
    slots: u32,
    cache: &'static str,
    predicted: u64,
    peak: u64,
}

impl Measured {
    fn off_percent(&self) -> f64 {
        (self.predicted as f64 / self.peak.max(1) as f64 - 1.0) * 100.0
    }

    fn row(&self) -> Vec<String> {
        let mib = |bytes: u64| format!("{:.1}", bytes as f64 / f64::from(1 << 20));
        let settings = [self.context_tokens.to_string(), self.slots.to_string(), self.cache.to_owned()];
        let figures = [mib(self.predicted), mib(self.peak), format!("{:+.1} %", self.off_percent())];
        [self.name.clone()].into_iter().chain(settings).chain(figures).collect()
    }
}

/// Runs the rig.
pub(crate) fn run(options: &Options) -> anyhow::Result<ExitCode> {
    println!("Random weights in true shapes: memory does not depend on the values.");
    let mut measured = Vec::new();
    for (name, model) in models(options)? {
        for start in starts(model, options.common.short) {
            let one = measure(&name, &start)?;
            eprintln!("{}", one.row().join("  "));
            measured.push(one);
        }
    }
    let header = ["model", "context", "slots", "kv", "predicted MiB", "peak MiB", "off"];
    println!("{}", table(&header, &measured.iter().map(Measured::row).collect::<Vec<_>>()));
    let check = |m: &Measured| {
        let what = format!("{} at {} × {} {}", m.name, m.slots, m.context_tokens, m.cache);
        Check::at_most(what, m.off_percent().abs(), BAR_PERCENT, "% off")
    };
    let checks: Vec<Check> = measured.iter().map(check).collect();
    finish("engine-memory", &options.common, &checks, &serde_json::json!(measured))
}

fn models(options: &Options) -> anyhow::Result<Vec<(String, PathBuf)>> {
    let named = if options.common.short { shipped_models()? } else { options.model.clone() };
    if !named.is_empty() {
        let named = named.iter().map(|path| {
            let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
            (name, path.clone())
        });
        return Ok(named.collect());
    }
    let shapes = if options.shape.is_empty() { Shape::ALL.to_vec() } else { options.shape.clone() };
    let quants = if options.quant.is_empty() { vec![Quant::Q4_0, Quant::Q8_0] } else { options.quant.clone() };
    let pairs = shapes.iter().flat_map(|shape| quants.iter().map(move |quant| (*shape, *quant)));
    pairs
        .map(|(shape, quant)| Ok((format!("{} {}", name_of(&shape), name_of(&quant)), cache::model(shape, quant)?)))
        .collect()
}

/// Windows, sequences and types of keys and values.
fn starts(model: PathBuf, short: bool) -> Vec<Start> {
    let contexts: &[u32] = if short { &[256, 512] } else { &CONTEXTS };
    let slots = if short { &SLOTS[..1] } else { &SLOTS[..] };
    let settings = contexts.iter().flat_map(|context| slots.iter().map(move |slots| (*context, *slots)));
    let both = settings.flat_map(|(context, slots)| [CacheType::F16, CacheType::Q8_0].map(|kv| (context, slots, kv)));
    both.map(|(context_tokens, slots, cache)| Start { context_tokens, slots, cache, ..Start::new(&model) }).collect()
}

fn measure(name: &str, start: &Start) -> anyhow::Result<Measured> {
    let predicted = memory_needed(start).with_context(|| name.to_owned())?.total;
    let mut engine = Ours::start(start)?;
    let slots = start.slots as usize;
    let schema = |i: usize| (i % 2 == 1).then_some(SCHEMA);
    let run = |i| prompt("answer briefly", &words(WORDS, i), schema(i), ANSWER_TOKENS);
    let runs = (0..2 * slots).map(run).collect();
    engine.crowd(runs, slots)?;
    let cache = match start.cache {
        CacheType::F16 => "f16",
        CacheType::Q8_0 => "q8_0",
    };
    let (context_tokens, slots) = (start.context_tokens, start.slots);
    Ok(Measured { name: name.to_owned(), context_tokens, slots, cache, predicted, peak: peak_bytes(engine.pid())? })
}

/// The most that a process had resident (proc(5), VmHWM), in bytes.
fn peak_bytes(pid: u32) -> anyhow::Result<u64> {
    let path = format!("/proc/{pid}/status");
    let text = std::fs::read_to_string(&path).with_context(|| path.clone())?;
    let line =
        text.lines().find_map(|line| line.strip_prefix("VmHWM:")).with_context(|| format!("{path} has no VmHWM"))?;
    let kib: u64 = line.trim().trim_end_matches("kB").trim().parse().with_context(|| line.to_owned())?;
    Ok(kib * 1024)
}
