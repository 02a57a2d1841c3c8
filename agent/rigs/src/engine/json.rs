//! The rig `engine-json`: answers under a schema: that they are valid, what they take beside llama-server's, and what the
//! mask costs.

use crate::engine::cache;
use crate::engine::ours::{Ours, prompt};
use crate::engine::server::{Rule, Server, Settings, question};
use crate::engine::shapes::{Quant, Shape};
use crate::engine::spread::{PAIRS_MIN, Pairs, bandwidth, cores};
use crate::engine::words::words;
use crate::report::{Check, Common, finish, table};
use anyhow::{Context as _, bail};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;
use tidegate_engine::protocol::{Forced, Guesses, Start};

/// What a device command becomes.
pub(crate) const SIX_FIELDS: &str = r#"{"type":"object","properties":{"intent":{"enum":["turn_on","turn_off","dim","open","close","query"]},"device":{"enum":["light","lamp","gate","door","fan","heater","valve"]},"room":{"type":"string","maxLength":16},"level":{"type":"integer","minimum":0,"maximum":100},"unit":{"enum":["percent","celsius","none"]},"confirm":{"type":"boolean"}},"required":["intent","device","room","level","unit","confirm"],"additionalProperties":false}"#;
/// The same as a grammar of llama.cpp's, without white space.
pub(crate) const SIX_FIELDS_GRAMMAR: &str = r#"root ::= "{\"intent\":" intent ",\"device\":" device ",\"room\":" room ",\"level\":" level ",\"unit\":" unit ",\"confirm\":" ("true" | "false") "}"
intent ::= "\"turn_on\"" | "\"turn_off\"" | "\"dim\"" | "\"open\"" | "\"close\"" | "\"query\""
device ::= "\"light\"" | "\"lamp\"" | "\"gate\"" | "\"door\"" | "\"fan\"" | "\"heater\"" | "\"valve\""
room ::= "\"" char{0,16} "\""
level ::= "100" | [1-9] [0-9]? | "0"
unit ::= "\"percent\"" | "\"celsius\"" | "\"none\""
char ::= [^"\\\x7F\x00-\x1F] | [\\] (["\\bfnrt] | "u" [0-9a-fA-F]{4})
"#;
/// A string of letters, in which a model has all choice; of others a model of random weights may choose the end at once.
const FREE_STRING: &str = r#"{"type":"object","properties":{"text":{"type":"string","pattern":"^[a-z ]{0,400}$"}},"required":["text"],"additionalProperties":false}"#;
/// Most of llama-server's time.
const SERVER_BAR: f64 = 0.67;
/// Most of the time of a token without a schema.
const MASK_BAR: f64 = 1.05;
/// Answers whose validity is looked at, and that are timed.
const VALID: usize = 1_000;
const TIMED: usize = 40;
/// Tokens of a free string.
const FREE_TOKENS: u32 = 40;
const SYSTEM: &str = "Answer with one JSON object.";
const CONTEXT_TOKENS: u32 = 512;

/// Options of the rig.
#[derive(clap::Args, Debug)]
pub(crate) struct Options {
    #[command(flatten)]
    common: Common,
    /// Threads of both sides; else one per core.
    #[arg(long)]
    threads: Option<u32>,
    /// Turns of each pair.
    #[arg(long, default_value_t = PAIRS_MIN)]
    pairs: usize,
    /// llama-server; else the one that `peers build` made.
    #[arg(long, value_name = "FILE")]
    llama_server: Option<PathBuf>,
}

/// Runs the rig.
pub(crate) fn run(options: &Options) -> anyhow::Result<ExitCode> {
    let threads = options.threads.unwrap_or_else(cores);
    let short = options.common.short;
    let (valid, asked) = validity(threads, if short { VALID / 20 } else { VALID })?;
    let shape = if short { Shape::SmolLm2Of135M } else { Shape::Qwen25Of05B };
    let start = Start { context_tokens: CONTEXT_TOKENS, threads, ..Start::new(cache::model(shape, Quant::Q4_0)?) };
    let memory = bandwidth(threads as usize);
    let (time, tokens) = against_server(&start, options)?;
    // The share of a mask is a matter of the vocabulary, so the large one is measured in both versions.
    let large = Start {
        model_path: cache::model(Shape::Qwen25Of05B, Quant::Q4_0)?,
        guesses: Guesses::Never,
        forced: Forced::OneByOne,
        ..start
    };
    let mask = masks(&large, options.pairs)?;
    let row = |what: &str, pairs: &Pairs| [vec![what.to_owned()], pairs.cells(2).to_vec()].concat();
    let rows = [
        row("s for the answers, by llama-server", &time),
        row("tokens of an answer, by llama-server", &tokens),
        row("ms per token with a mask, by without", &mask),
    ];
    println!("{}", table(&["six fields", "ours", "other", "ratio"], &rows));
    println!("{valid} of {asked} answers valid on the shape of 135M; memory {memory:.1} GB/s");
    let checks = [
        Check::at_least("valid answers, in percent", 100.0 * valid as f64 / asked as f64, 100.0, "%"),
        time.at_most("time of the answers, by llama-server", SERVER_BAR),
        mask.at_most("time of a token with a mask, by without", MASK_BAR),
    ];
    let figures = serde_json::json!({ "valid": valid, "asked": asked, "time": time, "tokens": tokens, "mask": mask });
    finish("engine-json", &options.common, &checks, &figures)
}

/// Answers of a model that talks nonsense, some of them cut short; how many of them are valid.
fn validity(threads: u32, asked: usize) -> anyhow::Result<(usize, usize)> {
    let validator = validator()?;
    let model = cache::model(Shape::SmolLm2Of135M, Quant::Q4_0)?;
    let mut ours = Ours::start(&Start { context_tokens: CONTEXT_TOKENS, threads, slots: 4, ..Start::new(model) })?;
    // The shortest valid answer has some sixty tokens here.
    let run = |n: usize| prompt(SYSTEM, &words(8 + n % 5, n), Some(SIX_FIELDS), 96 + (n % 64) as u32);
    let answers = ours.crowd((0..asked).map(run).collect(), 4)?;
    let valid = answers.iter().filter(|answer| is_valid(&validator, answer.done.text.reveal())).count();
    Ok((valid, asked))
}

fn validator() -> anyhow::Result<jsonschema::Validator> {
    let schema = serde_json::from_str(SIX_FIELDS).context("the schema is not JSON")?;
    jsonschema::validator_for(&schema).context("the schema is none")
}

fn is_valid(validator: &jsonschema::Validator, text: &str) -> bool {
    serde_json::from_str(text).is_ok_and(|value| validator.is_valid(&value))
}

/// Seconds and tokens of the same questions, one after the other.
fn against_server(start: &Start, options: &Options) -> anyhow::Result<(Pairs, Pairs)> {
    let mut ours = Ours::start(start)?;
    let settings =
        Settings { model: start.model_path.clone(), threads: start.threads, slots: 1, context_tokens: CONTEXT_TOKENS };
    let server = Server::start(options.llama_server.as_deref(), &settings)?;
    let turns = options.pairs.max(1);
    let share = TIMED.div_ceil(turns);
    let (mut time, mut tokens) = (Pairs::default(), Pairs::default());
    let (validator, mut broken) = (validator()?, 0);
    for turn in 0..=turns {
        let texts: Vec<String> = (0..share).map(|n| words(12, turn * share + n)).collect();
        let began = Instant::now();
        let runs = texts.iter().map(|text| prompt(SYSTEM, text, Some(SIX_FIELDS), 160)).collect();
        let mine = ours.crowd(runs, 1)?;
        let mine_s = began.elapsed().as_secs_f64();
        let bodies = texts.iter().map(|text| question(SYSTEM, text, Rule::Grammar(SIX_FIELDS_GRAMMAR), 160));
        let bodies = bodies.collect::<anyhow::Result<Vec<_>>>()?;
        let began = Instant::now();
        let theirs = server.crowd(&bodies, 1)?;
        broken += theirs.iter().filter(|answer| !is_valid(&validator, &answer.text)).count();
        // The first turn warms both.
        if turn > 0 {
            time.push(mine_s, began.elapsed().as_secs_f64());
            let written = mine.iter().map(|answer| f64::from(answer.done.completion_tokens)).sum::<f64>();
            let theirs = theirs.iter().map(|answer| answer.tokens as f64).sum::<f64>();
            tokens.push(written / share as f64, theirs / share as f64);
        }
    }
    println!("{broken} of llama-server's {} answers are not valid", (turns + 1) * share);
    Ok((time, tokens))
}

/// Milliseconds of a token where a schema leaves all choice, and without one.
fn masks(start: &Start, turns: usize) -> anyhow::Result<Pairs> {
    let mut ours = Ours::start(start)?;
    let mut per_token = |schema: Option<&str>, turn: usize| {
        let done = ours.ask(prompt(SYSTEM, &words(12, turn), schema, FREE_TOKENS))?.done;
        if done.completion_tokens < FREE_TOKENS / 2 {
            bail!("an answer of {} tokens measures no mask", done.completion_tokens);
        }
        Ok::<_, anyhow::Error>(done.decode_ms as f64 / f64::from(done.completion_tokens.max(2) - 1))
    };
    let mut pairs = Pairs::default();
    for turn in 0..=turns.max(1) {
        let (with, without) = (per_token(Some(FREE_STRING), turn)?, per_token(None, turn)?);
        if turn > 0 {
            pairs.push(with, without);
        }
    }
    Ok(pairs)
}
