//! The rig `engine-prefix`: the time to the first token of prompts under eight long templates in turn, computed whole,
//! with the template kept, and after a restart, beside llama-server with a slot for each template.

use crate::engine::cache;
use crate::engine::ours::{Ours, prompt};
use crate::engine::server::{Rule, Server, Settings, question};
use crate::engine::shapes::{Quant, Shape};
use crate::engine::spread::{PAIRS_MIN, Pairs, Spread, bandwidth, cores};
use crate::engine::words::{count_for, words};
use crate::report::{Common, finish, table};
use anyhow::{Context as _, bail};
use std::fs::DirEntry;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};
use tidegate_engine::protocol::Start;

/// Most of the time that the whole prompt takes.
const COLD_BAR: f64 = 0.10;
/// Most of llama-server's time.
const SERVER_BAR: f64 = 1.0;
/// Most of the warm time that the first prompt after a restart takes.
const RESTART_BAR: f64 = 1.2;
const TEMPLATES: usize = 8;
const TEMPLATE_TOKENS: usize = 512;
const TAIL_TOKENS: usize = 32;
/// Window of a prompt, in tokens.
const CONTEXT_TOKENS: u32 = 1_024;
/// Room for the eight templates: 100 MB of keys and values of 12 KiB each.
const PREFIX_BYTES: u64 = 100_000_000;

/// How long the first engine may take to save what it computed.
const SAVING_MAX: Duration = Duration::from_secs(60);
/// Between two looks at the folder.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Options of the rig.
#[derive(clap::Args, Debug)]
pub(crate) struct Options {
    #[command(flatten)]
    common: Common,
    /// The model; else Qwen2.5 0.5B's shape in Q4_0, or SmolLM2 135M's in the short version.
    #[arg(long, value_name = "FILE")]
    model: Option<PathBuf>,
    /// Threads of both sides; else one per core.
    #[arg(long)]
    threads: Option<u32>,
    /// Turns over all templates.
    #[arg(long, default_value_t = PAIRS_MIN)]
    pairs: usize,
    /// llama-server; else the one that `peers build` made.
    #[arg(long, value_name = "FILE")]
    llama_server: Option<PathBuf>,
}

/// The texts of all prompts.
struct Texts {
    /// Words of a template and of a tail.
    template: usize,
    tail: usize,
}

impl Texts {
    /// Of the wanted lengths in tokens, as this model cuts them.
    fn measured(ours: &mut Ours) -> anyhow::Result<Self> {
        const TRIED: usize = 64;
        let mut count = |words: &str| Ok::<_, anyhow::Error>(ours.ask(prompt("", words, None, 1))?.done.prompt_tokens);
        let made = (count(&words(TRIED, 0))? - count("")?) as usize;
        Ok(Self { template: count_for(TEMPLATE_TOKENS, TRIED, made), tail: count_for(TAIL_TOKENS, TRIED, made) })
    }

    /// Templates differ from their first words on.
    fn template(&self, round: usize, number: usize) -> String {
        format!("task {round} {number} {}", words(self.template - 3, round * TEMPLATES + number))
    }

    fn tail(&self, seed: usize) -> String {
        words(self.tail, 1_000 + seed)
    }
}

/// Runs the rig.
pub(crate) fn run(options: &Options) -> anyhow::Result<ExitCode> {
    let shape = if options.common.short { Shape::SmolLm2Of135M } else { Shape::Qwen25Of05B };
    let model = options.model.clone().map_or_else(|| cache::model(shape, Quant::Q4_0), Ok)?;
    let threads = options.threads.unwrap_or_else(cores);
    let mut start = Start {
        context_tokens: CONTEXT_TOKENS,
        threads,
        prefixes: 2 * TEMPLATES as u32,
        prefix_bytes_max: PREFIX_BYTES,
        ..Start::new(&model)
    };
    let mut ours = Ours::start(&start)?;
    let texts = Texts::measured(&mut ours)?;
    let settings = Settings { model, threads, slots: TEMPLATES as u32, context_tokens: CONTEXT_TOKENS };
    let server = Server::start(options.llama_server.as_deref(), &settings)?;
    let memory = bandwidth(threads as usize);
    let (cold, warm) = in_turns(&mut ours, &server, &texts, options.pairs.max(1))?;
    drop((ours, server));
    let folder = tempfile::tempdir().context("cannot make a folder")?;
    let restarted = restarts(&mut start, folder.path(), &texts, options.pairs.max(1))?;
    let row = |what: &str, pairs: &Pairs| [vec![what.to_owned()], pairs.cells(2).to_vec()].concat();
    let rows = [
        row("warm by cold", &cold),
        row("warm by llama-server's", &warm),
        row("first after a restart by warm", &restarted),
    ];
    println!("{}", table(&["time to the first token", "ours ms", "other ms", "ratio"], &rows));
    println!("{TEMPLATES} templates of {TEMPLATE_TOKENS} tokens, tails of {TAIL_TOKENS}; memory {memory:.1} GB/s");
    let checks = [
        cold.at_most("warm by cold", COLD_BAR),
        warm.at_most("warm by llama-server's", SERVER_BAR),
        restarted.at_most("first after a restart by warm", RESTART_BAR),
    ];
    let figures = serde_json::json!({ "cold": cold, "warm": warm, "restarted": restarted });
    finish("engine-prefix", &options.common, &checks, &figures)
}

/// Warm against cold, and ours against theirs, a median over all templates per turn.
fn in_turns(ours: &mut Ours, server: &Server, texts: &Texts, turns: usize) -> anyhow::Result<(Pairs, Pairs)> {
    let (mut cold, mut warm) = (Pairs::default(), Pairs::default());
    for turn in 0..turns {
        // The first prompt under a template computes it, on both sides.
        let first = ours_ms(ours, texts, turn, 0)?;
        server_ms(server, texts, turn, 0)?;
        let again = ours_ms(ours, texts, turn, 1)?;
        let theirs = server_ms(server, texts, turn, 1)?;
        cold.push(again, first);
        warm.push(again, theirs);
    }
    Ok((cold, warm))
}

/// The median over the templates, in turn, in ms.
fn ours_ms(ours: &mut Ours, texts: &Texts, turn: usize, pass: usize) -> anyhow::Result<f64> {
    let mut ask = |number: usize| {
        let run = prompt(&texts.template(turn, number), &texts.tail(pass * TEMPLATES + number), None, 1);
        Ok(1e3 * ours.ask(run)?.wall_s)
    };
    let times = (0..TEMPLATES).map(&mut ask).collect::<anyhow::Result<Vec<f64>>>()?;
    Ok(Spread::of(&times).median)
}

fn server_ms(server: &Server, texts: &Texts, turn: usize, pass: usize) -> anyhow::Result<f64> {
    let ask = |number: usize| {
        let body = question(&texts.template(turn, number), &texts.tail(pass * TEMPLATES + number), Rule::Free, 1)?;
        Ok(1e3 * server.ask(&body)?.wall_s)
    };
    let times = (0..TEMPLATES).map(ask).collect::<anyhow::Result<Vec<f64>>>()?;
    Ok(Spread::of(&times).median)
}

/// The first prompt of an engine that found its templates on the disk, against a later one.
fn restarts(start: &mut Start, folder: &Path, texts: &Texts, turns: usize) -> anyhow::Result<Pairs> {
    let systems: Vec<String> = (0..TEMPLATES).map(|number| texts.template(0, number)).collect();
    start.pinned = systems.iter().map(|system| system.as_str().into()).collect();
    start.prefix_dir = Some(folder.to_owned());
    let mut pairs = Pairs::default();
    for turn in 0..=turns {
        let mut ours = Ours::start(start)?;
        let mut ask = |seed: usize| {
            let run = prompt(&systems[turn % TEMPLATES], &texts.tail(seed), None, 1);
            Ok::<_, anyhow::Error>(1e3 * ours.ask(run)?.wall_s)
        };
        let first = ask(10 * turn)?;
        let later = (1..=PAIRS_MIN).map(|n| ask(10 * turn + n)).collect::<anyhow::Result<Vec<f64>>>()?;
        if turn == 0 {
            // This one computes the templates and saves them; an idle engine does it by itself.
            for system in &systems {
                ours.ask(prompt(system, &texts.tail(0), None, 1))?;
            }
            saved(folder)?;
            continue;
        }
        pairs.push(first, Spread::of(&later).median);
    }
    Ok(pairs)
}

/// Waits until every template stands on the disk: an idle engine saves by itself.
fn saved(folder: &Path) -> anyhow::Result<()> {
    let began = Instant::now();
    let whole = |entry: std::io::Result<DirEntry>| {
        entry.is_ok_and(|entry| entry.path().extension().is_some_and(|end| end == "prefix"))
    };
    while std::fs::read_dir(folder)?.map(whole).filter(|whole| *whole).count() < TEMPLATES {
        if began.elapsed() > SAVING_MAX {
            bail!("not all {TEMPLATES} templates are on the disk after {} s", SAVING_MAX.as_secs());
        }
        std::thread::sleep(LOOK_EVERY);
    }
    Ok(())
}
