//! The rig `engine-contention`: decode beside one process that never rests on the last core, against the idle machine and
//! against llama-server as it is by default.

use crate::engine::cache;
use crate::engine::ours::{Ours, prompt};
use crate::engine::server::{Rule, Server, Settings, question};
use crate::engine::shapes::{Quant, Shape};
use crate::engine::spread::{PAIRS_MIN, Pairs, Spread, bandwidth, cores};
use crate::engine::words::words;
use crate::process::{Process, leashed};
use crate::report::{Check, Common, finish, table};
use anyhow::Context as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use tidegate_engine::protocol::{Guesses, Start};

/// Least share of the idle machine's rate.
const IDLE_BAR: f64 = 0.4;
/// Least multiple of llama-server's rate in the same squeeze.
const SERVER_BAR: f64 = 2.0;
/// Tokens of an answer: a second or two of decoding.
const ANSWER_TOKENS: u32 = 48;
const CONTEXT_TOKENS: u32 = 512;

/// Options of the rig.
#[derive(clap::Args, Debug)]
pub(crate) struct Options {
    #[command(flatten)]
    common: Common,
    /// The model; else Qwen2.5 0.5B's shape in Q4_0, or SmolLM2 135M's in the short version.
    #[arg(long, value_name = "FILE")]
    model: Option<PathBuf>,
    /// Threads of ours; else its own choice.
    #[arg(long, default_value_t = 0)]
    threads: u32,
    /// Turns.
    #[arg(long, default_value_t = PAIRS_MIN)]
    pairs: usize,
    /// llama-server; else the one that `peers build` made.
    #[arg(long, value_name = "FILE")]
    llama_server: Option<PathBuf>,
}

/// Runs the rig.
pub(crate) fn run(options: &Options) -> anyhow::Result<ExitCode> {
    let shape = if options.common.short { Shape::SmolLm2Of135M } else { Shape::Qwen25Of05B };
    let model = options.model.clone().map_or_else(|| cache::model(shape, Quant::Q4_0), Ok)?;
    let start = Start {
        context_tokens: CONTEXT_TOKENS,
        threads: options.threads,
        guesses: Guesses::Never,
        ..Start::new(&model)
    };
    let mut ours = Ours::start(&start)?;
    let settings = Settings { model, threads: 0, slots: 1, context_tokens: CONTEXT_TOKENS };
    let server = Server::start(options.llama_server.as_deref(), &settings)?;
    let folder = tempfile::tempdir().context("cannot make a folder")?;
    let (mut idle, mut squeezed, mut memory) = (Pairs::default(), Pairs::default(), Vec::new());
    ours_rate(&mut ours, 0)?;
    server_rate(&server, 0)?;
    for turn in 1..=options.pairs.max(1) {
        memory.push(bandwidth(cores() as usize));
        let alone = ours_rate(&mut ours, turn)?;
        let busy = busy(folder.path())?;
        let beside = ours_rate(&mut ours, turn)?;
        let theirs = server_rate(&server, turn)?;
        drop(busy);
        idle.push(beside, alone);
        squeezed.push(beside, theirs);
    }
    let rows = [
        [vec!["by its idle rate".to_owned()], idle.cells(1).to_vec()].concat(),
        [vec!["by llama-server".to_owned()], squeezed.cells(1).to_vec()].concat(),
    ];
    println!("{}", table(&["decode beside one busy process", "ours t/s", "other t/s", "ratio"], &rows));
    println!("memory {} GB/s, {} cores, of which the last is taken", Spread::of(&memory).shown(1), cores());
    let checks: [Check; 2] =
        [idle.at_least("decode, of the idle rate", IDLE_BAR), squeezed.at_least("decode, by llama-server", SERVER_BAR)];
    finish("engine-contention", &options.common, &checks, &serde_json::json!({ "idle": idle, "squeezed": squeezed }))
}

/// A process that takes all it can get of the last core.
fn busy(folder: &Path) -> anyhow::Result<Process> {
    let mut command = leashed(Path::new("taskset"))?;
    command.args(["-c", &(cores() - 1).to_string(), "sh", "-c", "while :; do :; done"]);
    Process::start("a busy process", command, &folder.join("busy"))
}

fn ours_rate(ours: &mut Ours, turn: usize) -> anyhow::Result<f64> {
    let done = ours.ask(prompt("", &words(16, turn), None, ANSWER_TOKENS))?.done;
    Ok(f64::from(done.completion_tokens - 1) / (done.decode_ms as f64 / 1e3))
}

fn server_rate(server: &Server, turn: usize) -> anyhow::Result<f64> {
    let answer = server.ask(&question("", &words(16, turn), Rule::Free, ANSWER_TOKENS)?)?;
    Ok((answer.tokens as f64 - 1.0) / answer.decode_s)
}
