//! Answers of both sides to the same prompts from so many clients at once.

use crate::engine::ours::{Ours, prompt};
use crate::engine::server::{Rule, Server, Settings, question};
use crate::engine::spread::{Pairs, Spread, bandwidth};
use crate::figures::{mean, percentile};
use std::path::{Path, PathBuf};
use std::time::Instant;
use tidegate_engine::protocol::Start;

/// What clients ask of a model.
#[derive(Debug, Clone)]
pub(crate) struct Work {
    pub(crate) name: String,
    pub(crate) model: PathBuf,
    pub(crate) system: String,
    pub(crate) schema: Option<&'static str>,
    /// The same for llama-server.
    pub(crate) rule: Rule<'static>,
    pub(crate) max_tokens: u32,
    /// Texts of the prompts, gone round.
    pub(crate) texts: Vec<String>,
    /// Window of one prompt, in tokens.
    pub(crate) context_tokens: u32,
}

/// How it is asked.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Terms<'a> {
    pub(crate) threads: u32,
    pub(crate) clients: usize,
    pub(crate) turns: usize,
    /// Prompts of a turn.
    pub(crate) prompts: usize,
    pub(crate) llama_server: Option<&'a Path>,
}

/// What was measured.
#[derive(Debug, Clone, serde::Serialize)]
pub(crate) struct Outcome {
    pub(crate) name: String,
    pub(crate) clients: usize,
    /// Answers per second.
    pub(crate) rate: Pairs,
    /// What one answer in twenty takes longer than, in seconds.
    pub(crate) p95: Pairs,
    /// Tokens per answer.
    pub(crate) tokens: Pairs,
    pub(crate) bandwidth: Vec<f64>,
    /// Slots with which llama-server was best.
    pub(crate) server_slots: u32,
}

/// One turn of one side.
struct Turn {
    rate: f64,
    p95: f64,
    tokens: f64,
}

impl Turn {
    fn of(began: Instant, walls: &[f64], tokens: &[f64]) -> Self {
        let nan = f64::NAN;
        Self {
            rate: walls.len() as f64 / began.elapsed().as_secs_f64(),
            p95: percentile(walls, 95.0).unwrap_or(nan),
            tokens: mean(tokens).unwrap_or(nan),
        }
    }
}

impl Work {
    fn text(&self, turn: usize, number: usize) -> &str {
        &self.texts[(turn * 31 + number) % self.texts.len()]
    }

    fn ours(&self, ours: &mut Ours, terms: Terms<'_>, turn: usize) -> anyhow::Result<Turn> {
        let run = |n| prompt(&self.system, self.text(turn, n), self.schema, self.max_tokens);
        let runs = (0..terms.prompts).map(run).collect();
        let began = Instant::now();
        let answers = ours.crowd(runs, terms.clients)?;
        let walls: Vec<f64> = answers.iter().map(|answer| answer.wall_s).collect();
        let tokens: Vec<f64> = answers.iter().map(|answer| f64::from(answer.done.completion_tokens)).collect();
        Ok(Turn::of(began, &walls, &tokens))
    }

    fn theirs(&self, server: &Server, terms: Terms<'_>, turn: usize) -> anyhow::Result<Turn> {
        let body = |n| question(&self.system, self.text(turn, n), self.rule, self.max_tokens);
        let bodies = (0..terms.prompts).map(body).collect::<anyhow::Result<Vec<_>>>()?;
        let began = Instant::now();
        let answers = server.crowd(&bodies, terms.clients)?;
        let walls: Vec<f64> = answers.iter().map(|answer| answer.wall_s).collect();
        let tokens: Vec<f64> = answers.iter().map(|answer| answer.tokens as f64).collect();
        Ok(Turn::of(began, &walls, &tokens))
    }

    fn server(&self, terms: Terms<'_>, slots: u32) -> anyhow::Result<Server> {
        let settings =
            Settings { model: self.model.clone(), threads: terms.threads, slots, context_tokens: self.context_tokens };
        Server::start(terms.llama_server, &settings)
    }

    /// llama-server with the number of slots that answers most per second here.
    fn best_server(&self, terms: Terms<'_>) -> anyhow::Result<(Server, u32)> {
        let mut tried = vec![1, 4, u32::try_from(terms.clients)?];
        tried.retain(|slots| *slots as usize <= terms.clients);
        tried.dedup();
        let mut best: Option<(Server, u32, f64)> = None;
        for slots in tried {
            let server = self.server(terms, slots)?;
            self.theirs(&server, Terms { prompts: terms.clients, ..terms }, 0)?;
            let rate = self.theirs(&server, terms, 1)?.rate;
            if best.as_ref().is_none_or(|(_, _, most)| rate > *most) {
                best = Some((server, slots, rate));
            }
        }
        let (server, slots, _) = best.ok_or_else(|| anyhow::anyhow!("no clients"))?;
        Ok((server, slots))
    }

    /// Both sides in turns.
    pub(crate) fn compare(&self, terms: Terms<'_>) -> anyhow::Result<Outcome> {
        let (server, server_slots) = self.best_server(terms)?;
        let start = Start {
            context_tokens: self.context_tokens,
            threads: terms.threads,
            slots: u32::try_from(terms.clients)?,
            ..Start::new(&self.model)
        };
        let mut ours = Ours::start(&start)?;
        self.ours(&mut ours, terms, 0)?;
        let mut outcome = Outcome {
            name: self.name.clone(),
            clients: terms.clients,
            rate: Pairs::default(),
            p95: Pairs::default(),
            tokens: Pairs::default(),
            bandwidth: Vec::new(),
            server_slots,
        };
        for turn in 2..2 + terms.turns {
            outcome.bandwidth.push(bandwidth(terms.threads as usize));
            let ours = self.ours(&mut ours, terms, turn)?;
            let theirs = self.theirs(&server, terms, turn)?;
            outcome.rate.push(ours.rate, theirs.rate);
            outcome.p95.push(ours.p95, theirs.p95);
            outcome.tokens.push(ours.tokens, theirs.tokens);
        }
        Ok(outcome)
    }
}

/// Head of the table of outcomes.
pub(crate) const HEADER: [&str; 12] = [
    "prompts",
    "clients",
    "answers/s",
    "llama-server",
    "ratio",
    "p95 s",
    "llama-server",
    "ratio",
    "tokens",
    "llama-server",
    "slots of it",
    "GB/s",
];

impl Outcome {
    pub(crate) fn row(&self) -> Vec<String> {
        let tokens = self.tokens.cells(1);
        let begin = [self.name.clone(), self.clients.to_string()];
        let end = [self.server_slots.to_string(), Spread::of(&self.bandwidth).shown(1)];
        let figures = self.rate.cells(2).into_iter().chain(self.p95.cells(3)).chain(tokens.into_iter().take(2));
        begin.into_iter().chain(figures).chain(end).collect()
    }

    /// Our answers per second.
    pub(crate) fn ours(&self) -> f64 {
        Spread::of(&self.rate.ours).median
    }
}
