//! Our side of `engine-raw`: the engine in a process of its own, so that its threads wait as the gateway's do. A line on
//! stdin is one measurement, a line of JSON on stdout its figures.

use crate::engine::words::{count_for, words};
use anyhow::{Context as _, bail};
use serde::{Deserialize, Serialize};
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, ExitCode, Stdio};
use std::time::Instant;
use tidegate_engine::direct::Direct;
use tidegate_engine::protocol::{CHILD_ENV, Done, Guesses, Run, Start};
use tidegate_schemas::{JobId, Message, Role};

/// Room in the window for the template beside what is measured, in tokens.
const MARKUP_TOKENS: u32 = 64;
/// Words that a text's tokens are counted on.
const TRIED_WORDS: usize = 64;

/// What is measured.
#[derive(clap::Args, Debug, Clone)]
pub(crate) struct Options {
    /// The GGUF file.
    #[arg(long)]
    pub(crate) model: PathBuf,
    #[arg(long)]
    pub(crate) threads: u32,
    #[arg(long)]
    pub(crate) gpu_layers: u32,
    /// Tokens that stand in the cache before the measured prompt.
    #[arg(long)]
    pub(crate) depth: u32,
    /// Tokens of the prompt, about.
    #[arg(long)]
    pub(crate) prompt: u32,
    /// Tokens of the answer.
    #[arg(long)]
    pub(crate) answer: u32,
}

/// What is said once, before the first measurement.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) struct Ready {
    /// Tokens that one measurement computes of its prompt.
    pub(crate) prompt_tokens: u32,
    /// Tokens that stand before them.
    pub(crate) depth_tokens: u32,
}

/// Figures of one measurement, in tokens per second.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) struct Rates {
    pub(crate) prefill: f64,
    pub(crate) decode: f64,
}

/// Runs the side.
pub(crate) fn run(options: &Options) -> anyhow::Result<ExitCode> {
    let mut side = Measuring::load(options)?;
    say(&side.ready)?;
    for line in std::io::stdin().lock().lines() {
        line.context("cannot read from stdin")?;
        say(&side.measure()?)?;
    }
    Ok(ExitCode::SUCCESS)
}

fn say(value: &impl Serialize) -> anyhow::Result<()> {
    println!("{}", serde_json::to_string(value)?);
    std::io::stdout().flush().context("cannot write to stdout")
}

struct Measuring {
    direct: Direct,
    system: String,
    words: usize,
    answer: u32,
    ready: Ready,
    turn: usize,
}

impl Measuring {
    fn load(options: &Options) -> anyhow::Result<Self> {
        let start = Start {
            context_tokens: options.depth + options.prompt + options.answer + MARKUP_TOKENS,
            threads: options.threads,
            gpu_layers: options.gpu_layers,
            // At depth the first tokens are a template that stays computed.
            prefixes: u32::from(options.depth > 0),
            // Random weights repeat themselves: guesses would measure that.
            guesses: Guesses::Never,
            ..Start::new(&options.model)
        };
        let direct = Direct::load(start).with_context(|| options.model.display().to_string())?;
        let ready = Ready { prompt_tokens: 0, depth_tokens: 0 };
        let mut side = Self { direct, system: String::new(), words: 0, answer: options.answer, ready, turn: 0 };
        side.calibrate(options)?;
        Ok(side)
    }

    /// Finds texts of the wanted lengths, and counts what a measurement will compute. Contents are cut into tokens by
    /// themselves, so counts add up.
    fn calibrate(&mut self, options: &Options) -> anyhow::Result<()> {
        let markup = self.count("", 0)?;
        let tried = self.count("", TRIED_WORDS)? - markup;
        let wanted = |tokens: u32| count_for(tokens as usize, TRIED_WORDS, tried as usize);
        self.words = wanted(options.prompt.saturating_sub(markup).max(1));
        let mut alone = self.count("", self.words)?;
        // Not one over: a step of sixty-four would be followed by a step of one.
        while alone > options.prompt && self.words > 1 {
            self.words -= 1;
            alone = self.count("", self.words)?;
        }
        if options.depth > 0 {
            self.system = words(wanted(options.depth), 1);
        }
        let system = self.system.clone();
        // Of a prompt under a system prompt all is computed but that and the markup that opens the message, some four
        // tokens.
        let all = self.count(&system, self.words)?;
        let opening = if options.depth > 0 { 4 } else { 0 };
        let prompt_tokens = alone - opening;
        self.ready = Ready { prompt_tokens, depth_tokens: all - prompt_tokens };
        Ok(())
    }

    fn count(&mut self, system: &str, count: usize) -> anyhow::Result<u32> {
        Ok(self.ask(system, &words(count, 0), 1)?.prompt_tokens)
    }

    fn ask(&mut self, system: &str, text: &str, max_tokens: u32) -> anyhow::Result<Done> {
        let run = Run {
            job: JobId(1),
            system: system.to_owned(),
            messages: vec![Message { role: Role::User, content: text.into() }],
            schema: None,
            max_tokens,
            stream: false,
            floor: None,
        };
        self.direct.run(run)?.map_err(|fault| anyhow::anyhow!("a run failed: {fault:?}"))
    }

    fn measure(&mut self) -> anyhow::Result<Rates> {
        self.turn += 1;
        let (system, text) = (self.system.clone(), words(self.words, self.turn));
        let began = Instant::now();
        let done = self.ask(&system, &text, 1)?;
        let prefill_s = began.elapsed().as_secs_f64();
        let tokens = done.prompt_tokens - self.ready.depth_tokens;
        let done = self.ask(&system, &text, 1 + self.answer)?;
        if done.completion_tokens < 2 {
            bail!("the model ended its answer after {} tokens", done.completion_tokens);
        }
        let decode_s = done.decode_ms as f64 / 1e3;
        Ok(Rates { prefill: f64::from(tokens) / prefill_s, decode: f64::from(done.completion_tokens - 1) / decode_s })
    }
}

/// The side's process, seen from the rig.
pub(crate) struct Side {
    child: Child,
    orders: ChildStdin,
    figures: BufReader<ChildStdout>,
    pub(crate) ready: Ready,
}

impl Side {
    pub(crate) fn start(options: &Options) -> anyhow::Result<Self> {
        let mut command = crate::process::leashed(&crate::process::own_binary()?)?;
        let number = |n: u32| n.to_string();
        command.arg("raw-side").arg("--model").arg(&options.model);
        for (name, value) in [
            ("--threads", options.threads),
            ("--gpu-layers", options.gpu_layers),
            ("--depth", options.depth),
            ("--prompt", options.prompt),
            ("--answer", options.answer),
        ] {
            command.args([name, &number(value)]);
        }
        command.envs(CHILD_ENV).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().context("cannot start our side")?;
        let orders = child.stdin.take().context("our side has no stdin")?;
        let mut figures = BufReader::new(child.stdout.take().context("our side has no stdout")?);
        let ready = line(&mut figures, &options.model)?;
        Ok(Self { child, orders, figures, ready })
    }

    pub(crate) fn measure(&mut self) -> anyhow::Result<Rates> {
        self.orders.write_all(b"\n").context("our side is gone")?;
        line(&mut self.figures, Path::new("our side"))
    }
}

impl Drop for Side {
    fn drop(&mut self) {
        // Both fail only when it has ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn line<T: serde::de::DeserializeOwned>(figures: &mut BufReader<ChildStdout>, what: &Path) -> anyhow::Result<T> {
    let mut text = String::new();
    figures.read_line(&mut text).context("cannot read from our side")?;
    if text.is_empty() {
        bail!("{}: our side ended early", what.display());
    }
    serde_json::from_str(&text).context("our side said no figures")
}
