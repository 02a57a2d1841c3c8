//! The rig `fair`: one device asks twenty times what the gateway can answer, nine others ask politely. They must hardly
//! notice: nine tenths of their rate, and a p95 below twice what it is without the tenth.

use super::peers::{Peer, Sections, origin};
use crate::figures::percentile;
use crate::link::Protocol;
use crate::models::shipped_model;
use crate::probe::{Probe, disk_dir};
use crate::report::{Check, Common, finish, table};
use crate::world::Door;
use anyhow::Context as _;
use std::collections::HashMap;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;
use tidegate_schemas::{Frame, PromptId};
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};

/// What the greedy one asks, as a multiple of the gateway's capacity.
const GREED: f64 = 20.0;
const POLITE: usize = 9;
/// What the polite ones ask together, as a share of the capacity.
const POLITE_SHARE: f64 = 0.45;
/// Their rate beside the greedy one, as a share of their rate without it.
const RATE_SHARE: f64 = 0.9;
/// Their p95 likewise, as a multiple.
const P95_TIMES: f64 = 2.0;
/// Prompts that each of ten devices has on the way while the capacity is measured.
const WINDOW: usize = 2;
/// How long answers may come after the last prompt.
const LATE: Duration = Duration::from_secs(10);

/// Options of the rig.
#[derive(clap::Args, Debug)]
pub(crate) struct Options {
    #[command(flatten)]
    common: Common,
    /// The gateway's model; else the shipped tide-edge.gguf.
    #[arg(long, value_name = "FILE")]
    model: Option<PathBuf>,
    /// Rounds without and with the greedy one.
    #[arg(long)]
    rounds: Option<usize>,
}

/// What the polite ones got.
#[derive(Debug, Clone, Default, serde::Serialize)]
struct Service {
    /// Answers per second.
    rate: f64,
    p95_ms: f64,
}

/// Runs the rig.
pub(crate) fn run(options: &Options) -> anyhow::Result<ExitCode> {
    let model = options.model.clone().map_or_else(|| shipped_model("tide-edge.gguf"), Ok)?;
    let short = options.common.short;
    let time = Duration::from_secs(if short { 3 } else { 20 });
    let dir = disk_dir("fair")?;
    let peer = Peer::door(dir.path(), None, &Sections { model: Some(model), ..Sections::default() })?;
    let door = Door { address: peer.address, origin: origin() };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("cannot start tokio")?;
    let rounds = options.rounds.unwrap_or(if short { 1 } else { 3 });
    let (capacity, pairs) = runtime.block_on(async {
        capacity(&door, "warm", Duration::from_secs(1)).await?;
        let capacity = capacity(&door, "capacity", time / 2).await?;
        let mut pairs = Vec::new();
        for round in 0..rounds {
            let alone = polite(&door, &format!("a{round}"), capacity, time).await?;
            let greedy = tokio::spawn(greedy(door.clone(), format!("g{round}"), capacity, time));
            let beside = polite(&door, &format!("b{round}"), capacity, time).await?;
            let asked = greedy.await.context("the greedy one panicked")??;
            pairs.push((alone, beside, asked));
        }
        anyhow::Ok((capacity, pairs))
    })?;
    println!("capacity: {capacity:.1} answers per second");
    let row = |(alone, beside, asked): &(Service, Service, u64)| {
        let figures = [alone.rate, beside.rate, alone.p95_ms, beside.p95_ms].map(|figure| format!("{figure:.1}"));
        figures.into_iter().chain([asked.to_string()]).collect::<Vec<_>>()
    };
    let header = ["answers/s without", "answers/s with", "p95 ms without", "p95 ms with", "asked by the greedy"];
    println!("{}", table(&header, &pairs.iter().map(row).collect::<Vec<_>>()));
    finish("fair", &options.common, &checks(&pairs)?, &serde_json::to_value(&pairs)?)
}

fn checks(pairs: &[(Service, Service, u64)]) -> anyhow::Result<Vec<Check>> {
    let median = |share: fn(&(Service, Service, u64)) -> f64| {
        percentile(&pairs.iter().map(share).collect::<Vec<_>>(), 50.0).context("nothing was measured")
    };
    let rate = median(|(alone, beside, _)| beside.rate / alone.rate)?;
    let p95 = median(|(alone, beside, _)| beside.p95_ms / alone.p95_ms)?;
    Ok(vec![
        Check::at_least("rate of the polite", rate, RATE_SHARE, "of their lone rate"),
        Check::at_most("p95 of the polite", p95, P95_TIMES, "times their lone p95"),
    ])
}

fn prompt(probe: &Probe, part: &str, number: usize) -> anyhow::Result<(PromptId, Vec<u8>)> {
    let id: PromptId = format!("{part}-{number}").parse()?;
    let payload = probe.payload(&id, &format!("how far is it to town {number}"))?;
    Ok((id, payload))
}

fn is_outcome(frame: &Frame) -> bool {
    matches!(frame, Frame::Answer(answer) if !answer.provisional)
}

/// Answers per second when ten devices always have something on the way.
async fn capacity(door: &Door, part: &str, time: Duration) -> anyhow::Result<f64> {
    let mut asking = JoinSet::new();
    for device in 0..=POLITE {
        let (door, part) = (door.clone(), format!("{part}{device}"));
        asking.spawn(async move {
            let mut probe = Probe::connect(&door, &format!("local-{part}"), Protocol::V4).await?;
            let (end, mut asked, mut answered) = (Instant::now() + time, 0, 0);
            while Instant::now() < end {
                while asked - answered < WINDOW {
                    probe.ask(prompt(&probe, &part, asked)?.1).await?;
                    asked += 1;
                }
                answered += usize::from(is_outcome(&probe.frame().await?.1));
            }
            anyhow::Ok(answered)
        });
    }
    let mut answered = 0;
    while let Some(ended) = asking.join_next().await {
        answered += ended.context("a device panicked")??;
    }
    Ok(answered as f64 / time.as_secs_f64())
}

/// The polite ones together, each at its share of the capacity, whatever comes back.
async fn polite(door: &Door, part: &str, capacity: f64, time: Duration) -> anyhow::Result<Service> {
    let every = Duration::from_secs_f64(POLITE as f64 / (POLITE_SHARE * capacity));
    let mut asking = JoinSet::new();
    for device in 0..POLITE {
        asking.spawn(ask_politely(door.clone(), format!("{part}{device}"), every, time));
    }
    let mut times = Vec::new();
    while let Some(ended) = asking.join_next().await {
        times.extend(ended.context("a device panicked")??);
    }
    let p95_ms = percentile(&times, 95.0).context("the polite ones got no answer")?;
    Ok(Service { rate: times.len() as f64 / time.as_secs_f64(), p95_ms })
}

/// Times until the answers, in ms, of one device that asks in a fixed rhythm.
async fn ask_politely(door: Door, part: String, every: Duration, time: Duration) -> anyhow::Result<Vec<f64>> {
    let mut probe = Probe::connect(&door, &format!("local-{part}"), Protocol::V4).await?;
    let (mut rhythm, end) = (interval(every), Instant::now() + time);
    rhythm.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let mut open: HashMap<PromptId, Instant> = HashMap::new();
    let (mut times, mut number) = (Vec::new(), 0);
    loop {
        let over = Instant::now() >= end;
        if over && open.is_empty() {
            return Ok(times);
        }
        tokio::select! {
            _ = rhythm.tick(), if !over => {
                let (id, payload) = prompt(&probe, &part, number)?;
                number += 1;
                open.insert(id, Instant::now());
                probe.ask(payload).await?;
            }
            frame = probe.frame() => {
                let frame = frame?.1;
                if let Some(begin) = frame.id().filter(|_| is_outcome(&frame)).and_then(|id| open.remove(id)) {
                    times.push(begin.elapsed().as_secs_f64() * 1e3);
                }
            }
            // What is refused or late was not served.
            () = sleep_until(end + LATE) => return Ok(times),
        }
    }
}

/// One device that asks [`GREED`] times what can be answered. Gives how much it asked.
async fn greedy(door: Door, part: String, capacity: f64, time: Duration) -> anyhow::Result<u64> {
    let mut probe = Probe::connect(&door, &format!("local-{part}"), Protocol::V4).await?;
    let mut rhythm = interval(Duration::from_secs_f64(1.0 / (GREED * capacity)));
    rhythm.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let end = Instant::now() + time;
    let mut asked = 0;
    while Instant::now() < end {
        tokio::select! {
            _ = rhythm.tick() => {
                probe.ask(prompt(&probe, &part, asked)?.1).await?;
                asked += 1;
            }
            frame = probe.frame() => drop(frame?),
            () = sleep_until(end) => break,
        }
    }
    Ok(asked as u64)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn the_polite_are_compared_with_themselves() {
        let pair = |rate, p95_ms| (Service { rate: 10.0, p95_ms: 100.0 }, Service { rate, p95_ms }, 1);
        let verdicts = |pairs: &[_]| checks(pairs).unwrap().iter().map(Check::passes).collect::<Vec<_>>();
        assert_eq!(verdicts(&[pair(9.0, 200.0)]), [true, true]);
        assert_eq!(verdicts(&[pair(8.9, 201.0)]), [false, false]);
    }
}
