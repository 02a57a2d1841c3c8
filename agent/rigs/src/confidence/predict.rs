//! The rig `predict`: how far is the predicted time of a prompt off, under load and when the speed changes?

use super::line::{HALF_BILLION, Job, Line, Speed, pause};
use super::pool::{Files, Sample};
use crate::figures::percentile;
use crate::report::{Check, Common, finish, table};
use rand::{Rng as _, SeedableRng as _, rngs::StdRng};
use std::process::ExitCode;

/// Loads: share of the time that the gateway is busy at full speed.
const LOADS: [f64; 3] = [0.3, 0.6, 0.9];
/// Prompts per load.
const PROMPTS: usize = 12_000;
/// Prompts of the short version.
const PROMPTS_SHORT: usize = 3_000;
/// Prompts that are not judged: nothing was measured before.
const WARM_UP: usize = 200;
/// Speed in the middle third, as a share of full speed: a gateway that throttles.
const THROTTLED: f64 = 0.8;
/// Largest median error, in percent of the actual time.
const ERROR_MAX: f64 = 10.0;
/// Bytes of the task's system text, read anew with each prompt.
const SYSTEM_BYTES: u32 = 400;

/// Options of the rig.
#[derive(clap::Args, Debug)]
pub(crate) struct Options {
    #[command(flatten)]
    common: Common,
    #[command(flatten)]
    files: Files,
}

/// Runs the rig.
pub(crate) fn run(options: &Options) -> anyhow::Result<ExitCode> {
    let pools = options.files.read()?;
    let jobs: Vec<Job> = pools.test.iter().filter(|s| s.row.task == "action").map(job).collect();
    println!(
        "Measured: bytes and tokens of {} device actions by {}. Modelled: the speeds of a 0.5B shape ({} ms a byte, {} ms \
         a token, 6 % jitter), Poisson arrivals, one slot; in the middle third it throttles to {:.0} %. The predictor is \
         the gateway's own.",
        jobs.len(),
        pools.edge,
        HALF_BILLION.ms_per_byte,
        HALF_BILLION.ms_per_token,
        100.0 * THROTTLED
    );
    let prompts = if options.common.short { PROMPTS_SHORT } else { PROMPTS };
    let (mut rows, mut checks) = (Vec::new(), Vec::new());
    for load in LOADS {
        let (error, inside) = simulate(&jobs, load, prompts);
        rows.push(vec![format!("{load}"), format!("{error:.1}"), format!("{inside:.1}")]);
        checks.push(Check::at_most(format!("median error at load {load}"), error, ERROR_MAX, "%"));
        checks.push(Check::at_least(format!("inside the 90 % interval at load {load}"), inside, 85.0, "%"));
        checks.push(Check::at_most(format!("inside the 90 % interval at load {load}"), inside, 95.0, "%"));
    }
    println!("{}", table(&["load", "median error %", "inside the interval %"], &rows));
    finish("predict", &options.common, &checks, &serde_json::json!({ "rows": rows }))
}

fn job(sample: &Sample) -> Job {
    Job { bytes: SYSTEM_BYTES + sample.row.prompt_bytes, tokens: sample.row.tokens.max(1) }
}

/// Median error of the prediction in percent, and how many in a hundred actual times lie in the interval.
fn simulate(jobs: &[Job], load: f64, prompts: usize) -> (f64, f64) {
    let mut random = StdRng::seed_from_u64(31);
    let mut line = Line::new();
    let own =
        |job: &Job| HALF_BILLION.ms_per_byte * f64::from(job.bytes) + HALF_BILLION.ms_per_token * f64::from(job.tokens);
    // The load is that of the slowest part, or no queue would ever end there.
    let mean_ms = jobs.iter().map(own).sum::<f64>() / jobs.len() as f64 / load / THROTTLED;
    let (mut now, mut errors, mut inside) = (0.0, Vec::new(), 0);
    for number in 0..prompts {
        now += pause(mean_ms, &mut random);
        let factor = if (prompts / 3..2 * prompts / 3).contains(&number) { THROTTLED } else { 1.0 };
        let speed =
            Speed { ms_per_byte: HALF_BILLION.ms_per_byte / factor, ms_per_token: HALF_BILLION.ms_per_token / factor };
        let job = jobs[random.random_range(0..jobs.len())];
        let (_, interval) = line.predict(job, now);
        let actual = line.run(job, now, speed, &mut random) - now;
        if number >= WARM_UP {
            errors.push(100.0 * (interval.mid_ms - actual).abs() / actual);
            inside += usize::from((interval.low_ms..=interval.high_ms).contains(&actual));
        }
    }
    (percentile(&errors, 50.0).unwrap_or(f64::NAN), 100.0 * inside as f64 / errors.len() as f64)
}
