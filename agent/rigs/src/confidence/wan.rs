//! The rig `wan`: the gateway with a cloud behind it against the cloud alone, over links of growing length: latency,
//! money, bytes, energy, accuracy side by side.

use super::line::{HALF_BILLION, normal};
use super::pool::{Files, Mixture, Sample, learned};
use crate::figures::{mean, percentile};
use crate::report::{Check, Common, finish, table};
use rand::{SeedableRng as _, rngs::StdRng};
use std::process::ExitCode;
use tidegate_core::Calibration;
use tidegate_core::cost::{Bill, Hop, Prices, performance_cost_ratio, utility};

/// Round trips, in milliseconds.
const TRIPS_MS: [f64; 4] = [20.0, 80.0, 300.0, 800.0];
/// The round trip that is held to a bar.
const TRIP_BAR_MS: f64 = 80.0;
/// Largest share of the cloud's median latency there.
const SHARE_MAX: f64 = 0.5;
/// Share of answers that are escalated.
const ESCALATED: f64 = 0.2;
/// Bytes around a prompt and an answer on the link: MQTT, TLS record, TCP/IP, and the envelope.
const FRAMING_BYTES: u64 = 420;
/// Time that a first token takes at which responsiveness is 0, in milliseconds.
const SLOWEST_MS: f64 = 3_000.0;
/// Time of the larger model per token, in milliseconds, where a 0.5B shape stands against it.
const CLOUD_MS_PER_TOKEN: f64 = 12.0;

/// Options of the rig.
#[derive(clap::Args, Debug)]
pub(crate) struct Options {
    #[command(flatten)]
    common: Common,
    #[command(flatten)]
    files: Files,
}

/// What one way of serving came to.
struct Served {
    name: String,
    times: Vec<f64>,
    bill: Bill,
    bytes: u64,
    right: usize,
}

/// Runs the rig.
pub(crate) fn run(options: &Options) -> anyhow::Result<ExitCode> {
    let pools = options.files.read()?;
    println!(
        "Measured: answers and service times of {} and {} on the test prompts, on this machine, one after the other. \
         Modelled: round trips with 20 % jitter, prices and energy (the defaults of the cost model).",
        pools.edge, pools.cloud
    );
    let calibration = learned(&Mixture::Intent(0.03).of(&pools.validation, 0))?;
    let samples = Mixture::Intent(0.05).of(&pools.test, 0);
    let threshold = threshold(&samples, &calibration);
    let (mut rows, mut checks) = (Vec::new(), Vec::new());
    for trip in TRIPS_MS {
        let alone = serve(&samples, trip, |_| true, "cloud alone");
        let ours = serve(&samples, trip, |s| calibration.confidence(&s.signals).get() < threshold, "gateway and cloud");
        if trip == TRIP_BAR_MS {
            let share =
                percentile(&ours.times, 50.0).zip(percentile(&alone.times, 50.0)).map_or(f64::NAN, |(a, b)| a / b);
            checks.push(Check::at_most("p50 at 80 ms, of the cloud's", share, SHARE_MAX, ""));
        }
        rows.extend([alone.row(trip), ours.row(trip)]);
    }
    let header = [
        "round trip, way",
        "p50 ms",
        "p95 ms",
        "cents per 1000",
        "kB each",
        "joule each",
        "% right",
        "CPR ¢",
        "U",
        "PCR",
    ];
    println!("{}", table(&header, &rows));
    let crossings: Vec<Vec<String>> = TRIPS_MS.iter().map(|trip| crossing(*trip)).collect();
    println!("A 0.5B shape against a cloud at {CLOUD_MS_PER_TOKEN} ms a token (both modelled), 40 bytes of prompt:");
    println!("{}", table(&["round trip", "gateway is faster up to"], &crossings));
    finish("wan", &options.common, &checks, &serde_json::json!({ "rows": rows, "crossings": crossings }))
}

/// The score under which the escalated share lies.
fn threshold(samples: &[&Sample], calibration: &Calibration) -> f64 {
    let mut scores: Vec<f64> = samples.iter().map(|s| calibration.confidence(&s.signals).get()).collect();
    scores.sort_by(f64::total_cmp);
    scores[(ESCALATED * scores.len() as f64) as usize]
}

fn serve(samples: &[&Sample], trip_ms: f64, hops: impl Fn(&Sample) -> bool, name: &str) -> Served {
    let mut random = StdRng::seed_from_u64(41);
    let prices = Prices::default();
    let local = name != "cloud alone";
    let mut served = Served { name: name.to_owned(), times: vec![], bill: Bill::default(), bytes: 0, right: 0 };
    for sample in samples {
        let (mut time, mut right) = (0.0, sample.right());
        if local {
            time += sample.row.wall_us as f64 / 1e3;
            served.bill = served.bill.and(&prices.local(sample.row.wall_us as f64 / 1e3));
        }
        if hops(sample) {
            time += trip_ms * (0.2 * normal(&mut random)).exp() + sample.cloud_wall_us as f64 / 1e3;
            right = sample.cloud_right;
            let bytes = 2 * FRAMING_BYTES + u64::from(sample.row.prompt_bytes) + u64::from(sample.row.answer_bytes);
            let (read, written) = (u64::from(sample.row.prompt_tokens), u64::from(sample.cloud_tokens));
            served.bill = served.bill.and(&prices.hop(Hop { bytes, read, written }));
            served.bytes += bytes;
        }
        served.times.push(time);
        served.right += usize::from(right);
    }
    served
}

impl Served {
    fn row(&self, trip_ms: f64) -> Vec<String> {
        let n = self.times.len() as f64;
        let at = |percent| percentile(&self.times, percent).unwrap_or(f64::NAN);
        let (accuracy, cents) = (self.right as f64 / n, self.bill.cents() / n);
        let responsive = (1.0 - mean(&self.times).unwrap_or(f64::NAN) / SLOWEST_MS).clamp(0.0, 1.0);
        let u = utility(accuracy, responsive, 0.5);
        vec![
            format!("{trip_ms:.0} ms, {}", self.name),
            format!("{:.1}", at(50.0)),
            format!("{:.1}", at(95.0)),
            format!("{:.4}", 1e3 * cents),
            format!("{:.2}", self.bytes as f64 / n / 1e3),
            format!("{:.3}", self.bill.joule / n),
            format!("{:.2}", 100.0 * accuracy),
            format!("{cents:.6}"),
            format!("{u:.3}"),
            performance_cost_ratio(u, cents).map_or_else(|| "-".to_owned(), |ratio| format!("{ratio:.0}")),
        ]
    }
}

/// The answer length up to which a 0.5B shape is faster than the cloud over this link.
fn crossing(trip_ms: f64) -> Vec<String> {
    const PROMPT_BYTES: f64 = 40.0;
    let read = HALF_BILLION.ms_per_byte * PROMPT_BYTES;
    let tokens = (trip_ms - read) / (HALF_BILLION.ms_per_token - CLOUD_MS_PER_TOKEN);
    let shown = if tokens < 1.0 { "never".to_owned() } else { format!("{tokens:.0} tokens") };
    vec![format!("{trip_ms:.0} ms"), shown]
}
