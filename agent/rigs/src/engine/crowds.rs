//! The rigs `engine-crowd` and `engine-tiny`: short templated prompts from many clients, beside llama-server.

use crate::engine::cache;
use crate::engine::crowd::{HEADER, Outcome, Terms, Work};
use crate::engine::json::{SIX_FIELDS, SIX_FIELDS_GRAMMAR};
use crate::engine::server::Rule;
use crate::engine::shapes::{Quant, Shape};
use crate::engine::spread::{PAIRS_MIN, cores};
use crate::engine::words::words;
use crate::models::shipped_model;
use crate::report::{Check, Common, finish, table};
use std::path::PathBuf;
use std::process::ExitCode;

/// Least multiple of llama-server's answers per second from four clients on, with one, and with a tiny model.
const CROWD_BAR: f64 = 1.5;
const ALONE_BAR: f64 = 1.1;
const TINY_BAR: f64 = 2.0;
/// Most of llama-server's p95.
const P95_BAR: f64 = 1.0;
/// Least share of our own rate with one client.
const SERIAL_BAR: f64 = 1.0;
/// Clients of the tiny model.
const TINY_CLIENTS: usize = 16;
/// Prompts of a turn at least.
const PROMPTS: usize = 8;
/// Prompts of a turn of a tiny model: some tenths of a second.
const TINY_PROMPTS: usize = 160;
/// Longest answer, in tokens.
const ANSWER_TOKENS: u32 = 128;
/// Two strings that a model of device commands knows.
const COMMAND: &str = r#"{"type":"object","properties":{"intent":{"type":"string","maxLength":32},"name":{"type":"string","maxLength":32}},"required":["intent","name"],"additionalProperties":false}"#;
/// What devices say.
const SENTENCES: [&str; 8] = [
    "turn off the lights in the packing hall",
    "dim the desk lamp to 40 percent",
    "set the thermostat in the drying chamber to 21 degrees",
    "open the north gate",
    "is the compressor in bay seven running",
    "lock the cold store door",
    "start a timer for 25 minutes",
    "add copper gaskets to the spare parts list",
];

/// Options of both rigs.
#[derive(clap::Args, Debug)]
pub(crate) struct Options {
    #[command(flatten)]
    common: Common,
    /// Clients; else 1, 4, 8 and 16.
    #[arg(long, num_args = 1..)]
    clients: Vec<usize>,
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

impl Options {
    fn terms(&self, clients: usize, prompts: usize) -> Terms<'_> {
        Terms {
            threads: self.threads.unwrap_or_else(cores),
            clients,
            turns: self.pairs.max(1),
            prompts,
            llama_server: self.llama_server.as_deref(),
        }
    }
}

fn sentences() -> Vec<String> {
    SENTENCES.iter().map(|sentence| (*sentence).to_owned()).collect()
}

fn cloud() -> anyhow::Result<Work> {
    Ok(Work {
        name: "tide-cloud, JSON".to_owned(),
        model: shipped_model("tide-cloud.gguf")?,
        system: "action".to_owned(),
        schema: Some(COMMAND),
        rule: Rule::Schema(COMMAND),
        max_tokens: ANSWER_TOKENS,
        texts: sentences(),
        context_tokens: 512,
    })
}

fn shape() -> anyhow::Result<Work> {
    Ok(Work {
        name: "0.5B, JSON".to_owned(),
        model: cache::model(Shape::Qwen25Of05B, Quant::Q4_0)?,
        system: format!("Answer in JSON. {}", words(40, 1)),
        schema: Some(SIX_FIELDS),
        rule: Rule::Grammar(SIX_FIELDS_GRAMMAR),
        max_tokens: ANSWER_TOKENS,
        texts: sentences(),
        context_tokens: 512,
    })
}

/// Runs `engine-crowd`.
pub(crate) fn run(options: &Options) -> anyhow::Result<ExitCode> {
    let given = if options.common.short { vec![1, 4] } else { vec![1, 4, 8, 16] };
    let counts = if options.clients.is_empty() { given } else { options.clients.clone() };
    let works = if options.common.short { vec![cloud()?] } else { vec![cloud()?, shape()?] };
    let (mut outcomes, mut checks) = (Vec::new(), Vec::new());
    for work in &works {
        let mut alone = None;
        for clients in &counts {
            // A fast model gets more prompts, so that a turn is no moment.
            let least = if work.schema == Some(COMMAND) { 4 * PROMPTS } else { PROMPTS };
            let outcome = work.compare(options.terms(*clients, least.max(2 * clients)))?;
            eprintln!("{}", outcome.row().join("  "));
            checks.extend(crowd_checks(&outcome, alone));
            alone = alone.or(Some(outcome.ours()).filter(|_| *clients == 1));
            outcomes.push(outcome);
        }
    }
    end("engine-crowd", options, &checks, &outcomes)
}

/// Runs `engine-tiny`.
pub(crate) fn tiny(options: &Options) -> anyhow::Result<ExitCode> {
    let work = Work {
        name: "tide-edge, intent".to_owned(),
        model: shipped_model("tide-edge.gguf")?,
        system: "intent".to_owned(),
        schema: None,
        rule: Rule::Free,
        max_tokens: 16,
        texts: sentences(),
        context_tokens: 256,
    };
    let counts = if options.clients.is_empty() { vec![TINY_CLIENTS] } else { options.clients.clone() };
    let (mut outcomes, mut checks) = (Vec::new(), Vec::new());
    for clients in counts {
        let outcome = work.compare(options.terms(clients, TINY_PROMPTS.max(2 * clients)))?;
        println!("{:.0} prompts per second from {clients} clients", outcome.ours());
        checks.push(outcome.rate.at_least(format!("answers per second, {clients} clients"), TINY_BAR));
        outcomes.push(outcome);
    }
    end("engine-tiny", options, &checks, &outcomes)
}

fn end(rig: &str, options: &Options, checks: &[Check], outcomes: &[Outcome]) -> anyhow::Result<ExitCode> {
    println!("{}", table(&HEADER, &outcomes.iter().map(Outcome::row).collect::<Vec<_>>()));
    finish(rig, &options.common, checks, &serde_json::json!(outcomes))
}

fn crowd_checks(outcome: &Outcome, alone: Option<f64>) -> Vec<Check> {
    let of = |what: &str| format!("{}, {} clients: {what}", outcome.name, outcome.clients);
    let bar = if outcome.clients == 1 { ALONE_BAR } else { CROWD_BAR };
    let mut checks =
        vec![outcome.rate.at_least(of("answers per second"), bar), outcome.p95.at_most(of("p95"), P95_BAR)];
    if let Some(alone) = alone {
        checks.push(Check::at_least(of("by one client"), outcome.ours() / alone, SERIAL_BAR, "×"));
    }
    checks
}
