//! The rig `wear`: what the store writes to a card per prompt, file system journal included. The store lies alone on
//! a loop device; each prompt is kept, concluded and released, as the gateway does with one that it answers itself.

use super::history::settle;
use super::loopback::{Loopback, missing};
use super::recording::limits;
use super::{records, skip};
use crate::figures::shown;
use crate::probe::disk_dir;
use crate::report::{Check, Common, finish, table};
use anyhow::Context as _;
use serde_json::json;
use std::process::ExitCode;
use std::sync::mpsc::{Sender, channel};
use std::time::{Duration, Instant};
use tidegate_schemas::JobId;
use tidegate_spool::{Change, Limits, Spool, SpoolError};

/// Bytes of the text of a prompt, and of its outcome's frame: a sentence and a small answer with its envelope.
const PAYLOAD_BYTES: usize = 256;
/// Size of the loop device, in MiB: the store and its ballast, and a journal as a card has it.
const DISK_MIB: u64 = 256;

/// Prompts under way at once: a machine that cannot reach the rate does what it can.
const OPEN_MAX: u64 = 400;
/// Longest wait for an answer of the store.
const ANSWER_MAX: Duration = Duration::from_secs(30);

/// Options of the rig.
#[derive(clap::Args, Debug)]
pub(crate) struct Options {
    #[command(flatten)]
    common: Common,
}

/// What one rate wrote.
struct Part {
    rate: u64,
    prompts: u64,
    bytes: f64,
    syncs: f64,
    /// Prompts per second that came about.
    reached: f64,
}

/// Bytes per prompt that a rate may write: 48 KB, 12 KB, four times the payload and 2 KB.
const BARS: [(u64, f64); 3] = [(1, 48_000.0), (100, 12_000.0), (1_000, 4.0 * PAYLOAD_BYTES as f64 + 2_000.0)];

/// Runs the rig.
pub(crate) fn run(options: &Options) -> anyhow::Result<ExitCode> {
    if let Some(reason) = missing() {
        return Ok(skip("wear", &reason));
    }
    let dir = disk_dir("wear")?;
    let (mut checks, mut parts) = (Vec::new(), Vec::new());
    for (rate, bar) in BARS {
        let time = Duration::from_secs(if options.common.short { 8 } else { 60 });
        eprintln!("{rate} prompts a second for {} s", time.as_secs());
        let disk = Loopback::new(&dir.path().join(format!("at-{rate}")), DISK_MIB)?;
        let part = measure(&disk, rate, time)?;
        checks.push(Check::at_most(format!("written at {rate}/s"), part.bytes / 1e3, bar / 1e3, "KB per prompt"));
        parts.push(part);
    }
    let row = |part: &Part| {
        let name = format!("{}/s", part.rate);
        let reached = shown(Some(part.reached), 0);
        vec![name, part.prompts.to_string(), reached, shown(Some(part.bytes), 0), shown(Some(part.syncs), 2)]
    };
    let rows: Vec<Vec<String>> = parts.iter().map(row).collect();
    println!("{}", table(&["rate", "prompts", "reached/s", "bytes per prompt", "fsyncs per prompt"], &rows));
    let more = json!({ "payload_bytes": PAYLOAD_BYTES, "parts": parts.iter().map(|part| json!({
        "rate": part.rate, "prompts": part.prompts, "reached": part.reached, "bytes_per_prompt": part.bytes,
        "fsyncs_per_prompt": part.syncs })).collect::<Vec<_>>() });
    finish("wear", &options.common, &checks, &more)
}

fn measure(disk: &Loopback, rate: u64, time: Duration) -> anyhow::Result<Part> {
    let limits = Limits { behind_max: Limits::default().behind_max, ..limits() };
    let (spool, _) = Spool::open(&disk.path.join("store"), limits)?;
    // What an opening writes is no prompt's.
    let (written, syncs) = (disk.written_bytes()?, settle(&spool)?.syncs);
    let begin = Instant::now();
    let prompts = at_rate(&spool, rate, time)?;
    let took = begin.elapsed();
    let syncs = settle(&spool)?.syncs - syncs;
    let bytes = disk.written_bytes()? - written;
    spool.close();
    let per_prompt = |count: u64| count as f64 / prompts as f64;
    let reached = prompts as f64 / took.as_secs_f64();
    Ok(Part { rate, prompts, bytes: per_prompt(bytes), syncs: per_prompt(syncs), reached })
}

/// The step of a job that came to its end.
type Ended = (u64, Next, Result<(), SpoolError>);

/// What follows.
#[derive(Clone, Copy)]
enum Next {
    Conclude,
    Release,
    Nothing,
}

/// Keeps prompts at a rate, and lets each go its way.
fn at_rate(spool: &Spool, rate: u64, time: Duration) -> anyhow::Result<u64> {
    let (ended, ends) = channel();
    let count = rate * time.as_secs();
    let (begin, mut kept, mut over) = (Instant::now(), 0, 0);
    while over < count {
        let due = Duration::from_secs_f64(kept as f64 / rate as f64).saturating_sub(begin.elapsed());
        if kept < count && due.is_zero() && kept - over < OPEN_MAX {
            kept += 1;
            submit(spool, (kept, Next::Conclude), Change::Keep(records::prompt(kept, PAYLOAD_BYTES)), &ended);
            continue;
        }
        let wait = if kept < count && !due.is_zero() { due } else { ANSWER_MAX };
        let Ok((job, next, result)) = ends.recv_timeout(wait) else {
            anyhow::ensure!(!due.is_zero(), "the store does not answer");
            continue;
        };
        result.context("the store refused a change")?;
        match next {
            Next::Conclude => {
                let outcome = Change::Conclude(records::outcome(job, PAYLOAD_BYTES));
                submit(spool, (job, Next::Release), outcome, &ended);
            }
            Next::Release => submit(spool, (job, Next::Nothing), Change::Release { job: JobId(job) }, &ended),
            Next::Nothing => over += 1,
        }
    }
    Ok(count)
}

fn submit(spool: &Spool, then: (u64, Next), change: Change, ended: &Sender<Ended>) {
    let ended = ended.clone();
    spool.submit(change, move |result| {
        // The receiver lives until all have come.
        let _ = ended.send((then.0, then.1, result));
    });
}
