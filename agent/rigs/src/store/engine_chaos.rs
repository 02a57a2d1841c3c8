//! The rig `engine-chaos`: the engine is killed, stopped, starved of memory and poisoned while devices keep asking. Every
//! prompt has one outcome, and what did not kill the engine is no dead letter.
//!
//! A fault is no prompt's doing, so that none may be met by two of them: after each, the rig waits for the outcomes of
//! what had been asked before the next. Poison is a prompt of its own: whenever it runs, its first token kills the engine.

use super::group::Group;
use super::kill::children;
use super::states::progress;
use super::town::Town;
use crate::link::Protocol;
use crate::models::shipped_model;
use crate::probe::{Probe, disk_dir};
use crate::process::leashed;
use crate::report::{Check, Common, finish};
use crate::world::{Gateway, Setup, status};
use anyhow::{Context as _, bail};
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};
use tidegate_schemas::{ErrorCode, Frame, Origin, Prompt, PromptId};

/// Longest pause before a fault, in milliseconds.
const PAUSE_MS_MAX: u64 = 150;
/// Longest wait for another engine: the silence of a stopped one, the longest back-off, and a start.
const REPLACED_MAX: Duration = Duration::from_secs(60);
/// Longest wait for the outcomes of what was asked before a fault.
const SETTLE_MAX: Duration = Duration::from_secs(120);
/// Longest that memory is kept short in one round.
const SHORT_MAX: Duration = Duration::from_secs(5);
/// How often somebody who waits looks again.
const LOOK: Duration = Duration::from_millis(5);
/// Sections of the gateway's configuration; they begin inside `[engine]`. The poison is long enough to be met in its
/// midst.
const SETTINGS: &str = "slots = 4\nthreads = 1\nsilence_ms_max = 2000\n\n[limits]\ninbox_entries_max = 1000\n\n\
    [spool]\nfree_mib_min = 1\n\n[tasks.action]\n\n[tasks.intent]\n\n[tasks.poison]\nsystem = \"intent\"\n\
    max_tokens = 600\nschema = '{\"type\":\"string\",\"pattern\":\"^[ab]{500}$\"}'\n";

/// Options of the rig.
#[derive(clap::Args, Debug)]
pub(crate) struct Options {
    #[command(flatten)]
    common: Common,
    /// Faults [default: 200, short 12].
    #[arg(long, value_name = "N")]
    rounds: Option<u32>,
    /// Seed of all randomness.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// The gateway's model; else the shipped tide-edge.gguf.
    #[arg(long, value_name = "FILE")]
    model: Option<PathBuf>,
}

/// What is done to the engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    Kill,
    Stop,
    Poison,
    Memory,
}

/// What was done, and what came of the poison.
#[derive(Debug, Default, serde::Serialize)]
struct Sums {
    killed: u32,
    stopped: u32,
    out_of_memory: u32,
    memory_was_enough: u32,
    poisoned: u32,
    poison_dead: u32,
    /// Poison that was answered: it was over before it was met, or it ran again and was not met.
    poison_answered: u32,
    poison_wrong: u32,
}

/// Everything that a round needs.
struct Place {
    gateway: Gateway,
    town: Town,
    group: Option<Group>,
    runtime: tokio::runtime::Runtime,
    sums: Sums,
}

/// Runs the rig.
pub(crate) fn run(options: &Options) -> anyhow::Result<ExitCode> {
    let model = options.model.clone().map_or_else(|| shipped_model("tide-edge.gguf"), Ok)?;
    let rounds = options.rounds.unwrap_or(if options.common.short { 12 } else { 200 });
    let dir = disk_dir("engine-chaos")?;
    let origin = Origin { site: "demo".parse()?, gateway: "quay".parse()? };
    let setup = Setup { model: Some(&model), bridge: None, more: SETTINGS };
    let gateway = Gateway::start_as(dir.path(), &setup, leashed)?;
    let group = Group::of(gateway.process.pid());
    if let Err(why) = &group {
        println!("no memory is taken away: {why}");
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let town = Town::new(&origin, None)?;
    town.gateway_at(Some(gateway.door.address));
    let mut place = Place { gateway, town, group: group.ok(), runtime, sums: Sums::default() };
    // What the engine has when it is put into the group is not charged to it; the next one's is.
    place.kill()?;
    let mut chance = StdRng::seed_from_u64(options.seed);
    let begin = Instant::now();
    for round in 0..rounds {
        let fault = place.draw(&mut chance);
        std::thread::sleep(Duration::from_millis(chance.random_range(0..PAUSE_MS_MAX)));
        place.round(round, fault)?;
        progress("faults", (round as usize + 1, rounds as usize), begin);
    }
    judge(options, rounds, &mut place)
}

fn judge(options: &Options, rounds: u32, place: &mut Place) -> anyhow::Result<ExitCode> {
    let wrong = place.town.audit(SETTLE_MAX);
    let status = status(&place.gateway.control)?;
    let restarts = status["engine"]["restarts"].as_u64().unwrap_or(0);
    place.gateway.process.check_alive()?;
    wrong.iter().take(20).for_each(|wrong| println!("{wrong}"));
    let (sums, told) = (&place.sums, place.town.sums());
    println!(
        "{} killed, {} stopped, {} out of memory ({} had enough), {} poisoned ({} dead, {} answered); {restarts} restarts; {} \
         prompts acknowledged, {} answered, {} dead",
        sums.killed,
        sums.stopped,
        sums.out_of_memory,
        sums.memory_was_enough,
        sums.poisoned,
        sums.poison_dead,
        sums.poison_answered,
        told.acknowledged,
        told.answered,
        told.dead
    );
    let mut checks = place.town.checks(rounds);
    checks.push(Check::at_most("innocent dead letters", told.dead.into(), 0.0, "prompts"));
    checks.push(Check::at_most("outcomes of poison that are wrong", sums.poison_wrong.into(), 0.0, "prompts"));
    let least = f64::from(rounds - sums.memory_was_enough - sums.poison_answered);
    checks.push(Check::at_least("restarts of the engine", restarts as f64, least, "restarts"));
    let more = json!({ "seed": options.seed, "faults": sums, "sums": told, "wrong": wrong });
    finish("engine-chaos", &options.common, &checks, &more)
}

impl Place {
    fn draw(&self, chance: &mut StdRng) -> Fault {
        match chance.random_range(0..8) {
            0..3 => Fault::Kill,
            3 => Fault::Stop,
            4..6 => Fault::Poison,
            _ if self.group.is_some() => Fault::Memory,
            _ => Fault::Kill,
        }
    }

    /// One fault; ends when another engine is up and what was asked before has its outcome.
    fn round(&mut self, round: u32, fault: Fault) -> anyhow::Result<()> {
        match fault {
            Fault::Kill => {
                self.kill()?;
                self.sums.killed += 1;
            }
            Fault::Stop => {
                let engine = self.engine()?;
                kill_process(engine, Signal::STOP).context("the engine cannot be stopped")?;
                self.replaced(engine)?;
                self.sums.stopped += 1;
            }
            Fault::Poison => self.poison(round)?,
            Fault::Memory => self.starve()?,
        }
        self.gateway.process.check_alive()?;
        // What the fault may have met, whenever it came.
        let asked = self.town.open();
        if !self.town.wait(SETTLE_MAX, |book| asked.iter().all(|id| book.has_outcome(id))) {
            bail!("{fault:?} in round {round}: not all of {} prompts had an outcome in time", asked.len());
        }
        Ok(())
    }

    fn kill(&self) -> anyhow::Result<()> {
        let engine = self.engine()?;
        // One that is gone meanwhile is as dead.
        let _ = kill_process(engine, Signal::KILL);
        self.replaced(engine)
    }

    /// The engine that is up.
    fn engine(&self) -> anyhow::Result<Pid> {
        self.up(|_| true)
    }

    /// Waits for another engine.
    fn replaced(&self, old: Pid) -> anyhow::Result<()> {
        self.up(|pid| pid != old).map(drop)
    }

    fn up(&self, is: impl Fn(Pid) -> bool) -> anyhow::Result<Pid> {
        let begin = Instant::now();
        while begin.elapsed() < REPLACED_MAX {
            let status = status(&self.gateway.control)?;
            let pid = status["engine"]["pid"].as_i64().and_then(|pid| Pid::from_raw(i32::try_from(pid).ok()?));
            match pid.filter(|pid| status["engine"]["ready"] == true && is(*pid)) {
                Some(pid) => return Ok(pid),
                None => std::thread::sleep(LOOK),
            }
        }
        bail!("no other engine was up within {} s", REPLACED_MAX.as_secs())
    }

    /// Takes memory away until the kernel ends the engine, or for a while.
    fn starve(&mut self) -> anyhow::Result<()> {
        let engine = self.engine()?;
        let Some(group) = &self.group else { return Ok(()) };
        let begin = Instant::now();
        let mut dead = false;
        while !dead && begin.elapsed() < SHORT_MAX {
            group.squeeze()?;
            std::thread::sleep(LOOK);
            dead = !children(self.gateway.process.pid())?.contains(&engine);
        }
        group.release()?;
        match dead {
            true => {
                self.replaced(engine)?;
                self.sums.out_of_memory += 1;
            }
            false => self.sums.memory_was_enough += 1,
        }
        Ok(())
    }

    /// A prompt that kills the engine whenever it runs, as soon as it has said something.
    fn poison(&mut self, round: u32) -> anyhow::Result<()> {
        let id: PromptId = format!("poison.{round}").parse()?;
        let prompt = Prompt { id: Some(id.clone()), task: Some("poison".parse()?), stream: true, ..Prompt::bare("go") };
        let payload = serde_json::to_vec(&prompt)?;
        let (door, pid) = (self.gateway.door.clone(), self.gateway.process.pid());
        let (outcome, deaths) = self.runtime.block_on(async move {
            let mut probe = Probe::connect(&door, "local-poison", Protocol::V5).await?;
            probe.ask(payload).await?;
            let mut deaths = 0;
            loop {
                match probe.frame().await?.1 {
                    Frame::Token(token) if token.id.as_ref() == Some(&id) && token.attempt > deaths => {
                        deaths = token.attempt;
                        for engine in children(pid)? {
                            let _ = kill_process(engine, Signal::KILL);
                        }
                    }
                    frame @ (Frame::Answer(_) | Frame::Error(_)) if frame.id() == Some(&id) => {
                        return anyhow::Ok((frame, deaths));
                    }
                    _ => {}
                }
            }
        })?;
        self.sums.poisoned += 1;
        match (&outcome, deaths) {
            (Frame::Error(error), 2) if error.code == ErrorCode::Dead => self.sums.poison_dead += 1,
            (Frame::Answer(_), _) => self.sums.poison_answered += 1,
            (frame, deaths) => {
                println!("poison in round {round}: {frame:?} after {deaths} deaths");
                self.sums.poison_wrong += 1;
            }
        }
        self.engine().map(drop)
    }
}
