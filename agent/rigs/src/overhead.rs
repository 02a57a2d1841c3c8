//! The rig `overhead`: what the gateway adds to the disk's time and to the engine's, for a lone prompt and at 50 a
//! second. The disk's time is one append and fdatasync of the same size, in the same directory, in the same minutes.

use crate::clock::now_us;
use crate::figures::{percentile, shown};
use crate::link::Protocol;
use crate::models::shipped_model;
use crate::probe::{Probe, disk_dir};
use crate::report::{Check, Common, finish, table};
use crate::world::{Gateway, Setup};
use anyhow::{Context as _, bail};
use std::collections::HashMap;
use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;
use tidegate_schemas::{Frame, PromptId, Timing};

/// Allowed above one append and fdatasync until `accepted`, in ms.
const ACCEPTED_MS: f64 = 2.0;
/// Allowed above two of them, and above the engine's own time, until the final answer, in ms.
const ANSWER_MS: f64 = 4.0;
/// Prompts per second of the second part.
const RATE: f64 = 50.0;

/// Prompts of one turn of the first part, and appends of any turn.
const TURN: usize = 10;
/// Prompts of one turn of the second part: a second of them.
const STEADY_TURN: usize = 50;

/// Options of the rig.
#[derive(clap::Args, Debug)]
pub(crate) struct Options {
    #[command(flatten)]
    common: Common,
    /// The gateway's model; else the shipped tide-edge.gguf.
    #[arg(long, value_name = "FILE")]
    model: Option<PathBuf>,
}

/// Moments of one prompt, in microseconds from its publish.
#[derive(Debug, Clone, Copy)]
struct Measured {
    accepted_us: u64,
    answer_us: u64,
    engine_us: u64,
}

impl Measured {
    fn accepted_ms(&self) -> f64 {
        self.accepted_us as f64 / 1e3
    }

    fn added_ms(&self) -> f64 {
        (self.answer_us as f64 - self.engine_us as f64) / 1e3
    }
}

/// Runs the rig.
pub(crate) fn run(options: &Options) -> anyhow::Result<ExitCode> {
    let model = options.model.clone().map_or_else(|| shipped_model("tide-edge.gguf"), Ok)?;
    let (lone_count, steady_count) = if options.common.short { (100, 250) } else { (500, 2_000) };
    let dir = disk_dir("overhead")?;
    let gateway = Gateway::start(dir.path(), &Setup { model: Some(&model), bridge: None, more: "" })?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("cannot start tokio")?;
    let (lone, steady) = runtime.block_on(async {
        let mut probe = Probe::connect(&gateway.door, "local-overhead", Protocol::V5).await?;
        alone(&mut probe, "warm", TURN).await?;
        let size = probe.payload(&id("lone", 0)?, &text(0))?.len();
        let (mut lone, mut steady) = (Part::new("lone", lone_count), Part::new("at 50/s", steady_count));
        // In turns with the appends, so that both meet the same moods of the disk and the machine.
        for turn in 0..lone_count / TURN {
            lone.disk.extend(append_times(dir.path(), size, TURN)?);
            lone.measured.extend(alone(&mut probe, &format!("lone{turn}"), TURN).await?);
        }
        for turn in 0..steady_count / STEADY_TURN {
            steady.disk.extend(append_times(dir.path(), size, TURN)?);
            steady.measured.extend(steadily(&mut probe, &format!("steady{turn}"), STEADY_TURN).await?);
        }
        anyhow::Ok((lone, steady))
    })?;
    drop(gateway);
    let header = ["prompts", "append p50", "p99", "accepted p50", "p99", "added p50", "p99"];
    println!("{}", table(&header, &[lone.row(), steady.row()]));
    let checks = [lone.checks()?, steady.checks()?].concat();
    finish("overhead", &options.common, &checks, &serde_json::json!([lone.row(), steady.row()]))
}

/// Prompts of one kind, and the appends that were made between them, in ms.
struct Part {
    name: &'static str,
    measured: Vec<Measured>,
    disk: Vec<f64>,
}

impl Part {
    fn new(name: &'static str, count: usize) -> Self {
        Self { name, measured: Vec::with_capacity(count), disk: Vec::with_capacity(count) }
    }

    fn accepted(&self) -> Vec<f64> {
        self.measured.iter().map(Measured::accepted_ms).collect()
    }

    fn added(&self) -> Vec<f64> {
        self.measured.iter().map(Measured::added_ms).collect()
    }

    fn row(&self) -> Vec<String> {
        let figures = [&self.disk, &self.accepted(), &self.added()].map(|ms| [at(ms, 50.0), at(ms, 99.0)]);
        std::iter::once(format!("{}, {}", self.name, self.measured.len())).chain(figures.concat()).collect()
    }

    fn checks(&self) -> anyhow::Result<Vec<Check>> {
        let of = |ms: &[f64], percent| percentile(ms, percent).context("nothing was measured");
        let mut checks = Vec::new();
        for percent in [50.0, 99.0] {
            let disk = of(&self.disk, percent)?;
            let what = format!("{}: PUBLISH to accepted, p{percent}", self.name);
            checks.push(Check::at_most(what, of(&self.accepted(), percent)?, disk + ACCEPTED_MS, "ms"));
            let what = format!("{}: PUBLISH to answer less the engine, p{percent}", self.name);
            checks.push(Check::at_most(what, of(&self.added(), percent)?, 2.0 * disk + ANSWER_MS, "ms"));
        }
        Ok(checks)
    }
}

fn at(ms: &[f64], percent: f64) -> String {
    shown(percentile(ms, percent), 2)
}

fn id(part: &str, number: usize) -> anyhow::Result<PromptId> {
    Ok(format!("{part}-{number}").parse()?)
}

fn text(number: usize) -> String {
    format!("what is {number:06} times four")
}

/// One prompt at a time.
async fn alone(probe: &mut Probe, part: &str, count: usize) -> anyhow::Result<Vec<Measured>> {
    let mut measured = Vec::with_capacity(count);
    for number in 0..count {
        let payload = probe.payload(&id(part, number)?, &text(number))?;
        let published_us = probe.ask(payload).await?;
        let mut accepted_us = None;
        loop {
            match outcome(probe.frame().await?)? {
                Heard::Accepted(_, at_us) => accepted_us = Some(at_us),
                Heard::Answer(_, at_us, timing) => {
                    measured.push(measure(published_us, accepted_us, at_us, timing)?);
                    break;
                }
                Heard::Other => {}
            }
        }
    }
    Ok(measured)
}

/// [`RATE`] prompts per second, whatever comes back.
async fn steadily(probe: &mut Probe, part: &str, count: usize) -> anyhow::Result<Vec<Measured>> {
    let mut ticks = tokio::time::interval(Duration::from_secs_f64(1.0 / RATE));
    let mut published: HashMap<PromptId, u64> = HashMap::new();
    let mut accepted: HashMap<PromptId, u64> = HashMap::new();
    let mut measured = Vec::with_capacity(count);
    let mut next = 0;
    while measured.len() < count {
        tokio::select! {
            _ = ticks.tick(), if next < count => {
                let id = id(part, next)?;
                let payload = probe.payload(&id, &text(next))?;
                published.insert(id, probe.ask(payload).await?);
                next += 1;
            }
            frame = probe.frame() => match outcome(frame?)? {
                Heard::Accepted(id, at_us) => { accepted.insert(id, at_us); }
                Heard::Answer(id, at_us, timing) => {
                    let begin = published.remove(&id).context("an answer to nothing")?;
                    measured.push(measure(begin, accepted.remove(&id), at_us, timing)?);
                }
                Heard::Other => {}
            },
        }
    }
    Ok(measured)
}

enum Heard {
    Accepted(PromptId, u64),
    Answer(PromptId, u64, Timing),
    Other,
}

fn outcome((at_us, frame): (u64, Frame)) -> anyhow::Result<Heard> {
    let id = frame.id().cloned().context("a frame without id")?;
    Ok(match frame {
        Frame::Accepted(_) => Heard::Accepted(id, at_us),
        Frame::Answer(answer) if !answer.provisional => Heard::Answer(id, at_us, answer.timing),
        Frame::Answer(_) | Frame::Token(_) => Heard::Other,
        Frame::Error(error) => bail!("prompt {id} got the error {}: {}", error.code, error.message),
    })
}

fn measure(published_us: u64, accepted_us: Option<u64>, at_us: u64, timing: Timing) -> anyhow::Result<Measured> {
    Ok(Measured {
        accepted_us: accepted_us.context("no accepted frame came before the answer")? - published_us,
        answer_us: at_us - published_us,
        engine_us: 1_000 * (timing.prefill_ms + timing.decode_ms),
    })
}

/// Times of one append and fdatasync of `size` bytes, in ms.
pub(crate) fn append_times(dir: &Path, size: usize, count: usize) -> anyhow::Result<Vec<f64>> {
    let path = dir.join("append");
    let open = OpenOptions::new().create(true).append(true).open(&path);
    let mut file = open.with_context(|| format!("cannot open {}", path.display()))?;
    let bytes = vec![b'x'; size];
    let mut times = Vec::with_capacity(count);
    for _ in 0..count {
        let begin = now_us();
        file.write_all(&bytes)?;
        file.sync_data().context("cannot sync")?;
        times.push((now_us() - begin) as f64 / 1e3);
    }
    Ok(times)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn the_engines_own_time_is_taken_off() {
        let timing = Timing { queued_ms: 1, prefill_ms: 3, decode_ms: 4, total_ms: 9 };
        let measured = measure(1_000, Some(2_500), 12_000, timing).unwrap();
        assert_eq!((measured.accepted_ms(), measured.added_ms()), (1.5, 4.0));
        assert!(measure(1_000, None, 12_000, timing).is_err());
    }

    #[test]
    fn bars_stand_above_the_disk() {
        let part = |accepted_us, engine_us| Part {
            name: "lone",
            measured: vec![Measured { accepted_us, answer_us: 20_000, engine_us }],
            disk: vec![1.0],
        };
        let verdicts = |part: Part| part.checks().unwrap().iter().map(|c| (c.bar, c.passes())).collect::<Vec<_>>();
        assert_eq!(verdicts(part(2_900, 14_500)), [(3.0, true), (6.0, true), (3.0, true), (6.0, true)]);
        assert_eq!(verdicts(part(3_100, 13_000)), [(3.0, false), (6.0, false), (3.0, false), (6.0, false)]);
    }

    #[test]
    fn appends_are_timed() {
        let dir = tempfile::tempdir().unwrap();
        let times = append_times(dir.path(), 100, 3).unwrap();
        assert_eq!(times.len(), 3);
        assert_eq!(std::fs::metadata(dir.path().join("append")).unwrap().len(), 300);
    }
}
