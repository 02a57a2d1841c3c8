//! The rig `engine-raw`: prefill and decode of one sequence, beside llama-bench on the same file with as many threads.

use crate::engine::bench::Bench;
use crate::engine::cache;
use crate::engine::shapes::{Quant, Shape, name_of};
use crate::engine::side::{self, Side};
use crate::engine::spread::{PAIRS_MIN, Pairs, Spread, bandwidth, cores};
use crate::report::{Check, Common, finish, table};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Least share of llama-bench's rates.
const PREFILL_BAR: f64 = 0.95;
const DECODE_BAR: f64 = 0.97;
/// Tokens of a prompt and of an answer.
const PROMPT_TOKENS: u32 = 256;
const ANSWER_TOKENS: u32 = 64;
/// Tokens that stand before the prompt in the second part.
const DEPTH_TOKENS: u32 = 2_048;
/// Shapes of the second part.
const DEEP: [Shape; 2] = [Shape::SmolLm2Of135M, Shape::Qwen25Of05B];

/// Options of the rig.
#[derive(clap::Args, Debug)]
pub(crate) struct Options {
    #[command(flatten)]
    common: Common,
    /// Shapes to measure; else all.
    #[arg(long, num_args = 1..)]
    shape: Vec<Shape>,
    /// Quantisations to measure; else all.
    #[arg(long, num_args = 1..)]
    quant: Vec<Quant>,
    /// Model files to measure instead of shapes.
    #[arg(long, value_name = "FILE", num_args = 1..)]
    model: Vec<PathBuf>,
    /// Threads of both sides; else one per core.
    #[arg(long)]
    threads: Option<u32>,
    /// Layers that a graphics processor takes, on both sides; only builds with cuda, vulkan or metal have one.
    #[arg(long, default_value_t = 0)]
    gpu_layers: u32,
    /// Turns of each pair.
    #[arg(long, default_value_t = PAIRS_MIN)]
    pairs: usize,
    /// llama-bench; else the one that `peers build` made.
    #[arg(long, value_name = "FILE")]
    llama_bench: Option<PathBuf>,
}

/// One model at one depth.
struct Case {
    name: String,
    model: PathBuf,
    depth: u32,
}

/// What was measured of it.
#[derive(serde::Serialize)]
struct Measured {
    name: String,
    depth: u32,
    prompt_tokens: u32,
    prefill: Pairs,
    decode: Pairs,
    bandwidth: Vec<f64>,
}

/// Runs the rig.
pub(crate) fn run(options: &Options) -> anyhow::Result<ExitCode> {
    let bench = Bench::find(options.llama_bench.as_deref())?;
    let threads = options.threads.unwrap_or_else(cores);
    println!("ours: {}", crate::engine::peers::OURS);
    println!("theirs: {}", bench.as_ref().map_or("none", |bench| bench.commit.as_str()));
    println!("{threads} threads, {} layers on a graphics processor, {} turns", options.gpu_layers, options.pairs);
    let mut measured = Vec::new();
    for case in cases(options)? {
        let one = measure(&case, bench.as_ref(), threads, options)?;
        eprintln!("{}", one.row().join("  "));
        measured.push(one);
    }
    let rows: Vec<Vec<String>> = measured.iter().map(Measured::row).collect();
    let header = [
        "model",
        "depth",
        "prompt",
        "prefill t/s",
        "llama-bench",
        "ratio",
        "decode t/s",
        "llama-bench",
        "ratio",
        "GB/s",
    ];
    println!("{}", table(&header, &rows));
    if bench.is_none() {
        println!("engine-raw: skipped: no llama-bench, make one with: tidegate-rigs peers build");
        return Ok(ExitCode::SUCCESS);
    }
    let checks: Vec<Check> = measured.iter().flat_map(Measured::checks).collect();
    finish("engine-raw", &options.common, &checks, &serde_json::json!(measured))
}

fn cases(options: &Options) -> anyhow::Result<Vec<Case>> {
    let of = |name: String, model: PathBuf, depth: u32| Case { name, model, depth };
    if !options.model.is_empty() {
        let stem = |path: &Path| path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        return Ok(options.model.iter().map(|path| of(stem(path), path.clone(), 0)).collect());
    }
    let short = options.common.short;
    let chosen = |given: &[Shape]| match (given.is_empty(), short) {
        (false, _) => given.to_vec(),
        (true, true) => vec![Shape::SmolLm2Of135M],
        (true, false) => Shape::ALL.to_vec(),
    };
    let quants = match (options.quant.is_empty(), short) {
        (false, _) => options.quant.clone(),
        (true, true) => vec![Quant::Q4_0],
        (true, false) => Quant::ALL.to_vec(),
    };
    let mut cases = Vec::new();
    for shape in chosen(&options.shape) {
        for quant in &quants {
            let name = format!("{} {}", name_of(&shape), name_of(quant));
            let model = cache::model(shape, *quant)?;
            cases.push(of(name.clone(), model.clone(), 0));
            if DEEP.contains(&shape) && *quant == Quant::Q4_0 && !short {
                cases.push(of(name, model, DEPTH_TOKENS));
            }
        }
    }
    Ok(cases)
}

fn measure(case: &Case, bench: Option<&Bench>, threads: u32, options: &Options) -> anyhow::Result<Measured> {
    let asked = side::Options {
        model: case.model.clone(),
        threads,
        gpu_layers: options.gpu_layers,
        depth: case.depth,
        prompt: PROMPT_TOKENS,
        answer: ANSWER_TOKENS,
    };
    let mut ours = Side::start(&asked)?;
    let ready = ours.ready;
    // The first turn of ours warms it; llama-bench warms itself in each.
    ours.measure()?;
    let mut measured = Measured {
        name: case.name.clone(),
        depth: case.depth,
        prompt_tokens: ready.prompt_tokens,
        prefill: Pairs::default(),
        decode: Pairs::default(),
        bandwidth: Vec::new(),
    };
    for _ in 0..options.pairs.max(1) {
        measured.bandwidth.push(bandwidth(threads as usize));
        let rates = ours.measure()?;
        let theirs = match bench {
            Some(bench) => bench.rates(&asked, &ready)?,
            None => side::Rates { prefill: f64::NAN, decode: f64::NAN },
        };
        measured.prefill.push(rates.prefill, theirs.prefill);
        measured.decode.push(rates.decode, theirs.decode);
    }
    Ok(measured)
}

impl Measured {
    fn row(&self) -> Vec<String> {
        let begin = [self.name.clone(), self.depth.to_string(), self.prompt_tokens.to_string()];
        let end = [Spread::of(&self.bandwidth).shown(1)];
        begin.into_iter().chain(self.prefill.cells(1)).chain(self.decode.cells(1)).chain(end).collect()
    }

    fn checks(&self) -> [Check; 2] {
        let of = |what: &str| format!("{} at {}: {what} by llama-bench's", self.name, self.depth);
        [self.prefill.at_least(of("prefill"), PREFILL_BAR), self.decode.at_least(of("decode"), DECODE_BAR)]
    }
}
