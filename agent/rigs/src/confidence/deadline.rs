//! The rig `deadline`: how many prompts are answered in time, by a gateway that weighs slack against links and loads, and
//! by those that do not?

use super::line::{HALF_BILLION, Job, Line, normal, pause};
use super::pool::{Files, Sample};
use crate::report::{Check, Common, finish, table};
use rand::{Rng as _, SeedableRng as _, rngs::StdRng};
use std::process::ExitCode;
use tidegate_core::interval::{Place, Spread, place};

/// Prompts per scenario and policy.
const PROMPTS: usize = 20_000;
/// Prompts of the short version.
const PROMPTS_SHORT: usize = 3_000;
/// Prompts between two changes of link and arrivals.
const PHASE: usize = 250;
/// Time that the larger model takes per token, in milliseconds, with its own queue.
const CLOUD_MS_PER_TOKEN: f64 = 12.0;
/// What an unanswered publish costs when it was lost: the retransmission timeout, in milliseconds.
const RETRANSMIT_MS: f64 = 400.0;
/// Thresholds of the static policies, on the product of probabilities.
const THRESHOLDS: [f64; 3] = [0.5, 0.8, 0.95];
/// Least lead in the mixed scenario, in points.
const LEAD_MIN: f64 = 5.0;

/// Options of the rig.
#[derive(clap::Args, Debug)]
pub(crate) struct Options {
    #[command(flatten)]
    common: Common,
    #[command(flatten)]
    files: Files,
}

/// What the link and the devices do.
#[derive(Debug, Clone, Copy)]
struct Scenario {
    name: &'static str,
    /// Round trips, one per phase in turn, in milliseconds; not finite: no link.
    trips_ms: &'static [f64],
    /// Share of messages that are lost once.
    loss: f64,
    /// Loads, one per phase in turn.
    loads: &'static [f64],
}

const SCENARIOS: [Scenario; 8] = [
    Scenario { name: "20 ms", trips_ms: &[20.0], loss: 0.0, loads: &[0.7] },
    Scenario { name: "80 ms", trips_ms: &[80.0], loss: 0.0, loads: &[0.7] },
    Scenario { name: "300 ms", trips_ms: &[300.0], loss: 0.0, loads: &[0.7] },
    Scenario { name: "800 ms", trips_ms: &[800.0], loss: 0.0, loads: &[0.7] },
    Scenario { name: "80 ms, 5 % loss", trips_ms: &[80.0], loss: 0.05, loads: &[0.7] },
    Scenario { name: "outages", trips_ms: &[80.0, f64::INFINITY, 80.0], loss: 0.0, loads: &[0.6] },
    Scenario { name: "bursts", trips_ms: &[80.0], loss: 0.0, loads: &[0.3, 1.6] },
    Scenario {
        name: "mixed",
        trips_ms: &[20.0, 800.0, 80.0, f64::INFINITY, 300.0],
        loss: 0.02,
        loads: &[0.4, 1.3, 0.8],
    },
];

/// Who decides.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Policy {
    EdgeOnly,
    CloudOnly,
    Threshold(f64),
    Slack,
}

/// Runs the rig.
pub(crate) fn run(options: &Options) -> anyhow::Result<ExitCode> {
    let pools = options.files.read()?;
    let samples: Vec<&Sample> = pools.test.iter().filter(|s| s.row.task == "action").collect();
    let prompts = if options.common.short { PROMPTS_SHORT } else { PROMPTS };
    println!(
        "Measured: bytes, tokens and probabilities of {} device actions by {}. Modelled: speeds of a 0.5B shape, a cloud \
         at {CLOUD_MS_PER_TOKEN} ms a token, round trips with 20 % jitter, loss, outages, Poisson arrivals, deadlines of \
         0.8 to 4 s. A provisional answer in time is in time, as promised.",
        samples.len(),
        pools.edge
    );
    let mut policies = vec![Policy::EdgeOnly, Policy::CloudOnly];
    policies.extend(THRESHOLDS.map(Policy::Threshold));
    policies.push(Policy::Slack);
    let (mut rows, mut checks) = (Vec::new(), Vec::new());
    for scenario in SCENARIOS {
        let outcomes: Vec<(f64, f64)> = policies.iter().map(|p| simulate(&samples, scenario, *p, prompts)).collect();
        let cells = outcomes.iter().map(|(met, escalated)| format!("{met:.1} ({escalated:.0})"));
        rows.push(std::iter::once(scenario.name.to_owned()).chain(cells).collect());
        checks.extend(judged(scenario.name, &outcomes));
    }
    let header = ["scenario", "edge only", "cloud only", "under 0.5", "under 0.8", "under 0.95", "slack"];
    println!("In time, % (escalated, %):\n{}", table(&header, &rows));
    finish("deadline", &options.common, &checks, &serde_json::json!({ "rows": rows }))
}

/// The lead over the best of the others, and the escalations against the best of those that escalate.
fn judged(name: &str, outcomes: &[(f64, f64)]) -> Vec<Check> {
    let Some((ours, others)) = outcomes.split_last() else { return Vec::new() };
    let best = others.iter().map(|o| o.0).fold(f64::NEG_INFINITY, f64::max);
    let escalating = others.iter().filter(|o| o.1 > 0.0).max_by(|a, b| a.0.total_cmp(&b.0));
    let bar = if name == "mixed" { LEAD_MIN } else { 0.0 };
    let mut checks =
        vec![Check::at_least(format!("{name}: lead over the best baseline"), ours.0 - best, bar, "points")];
    if let Some(escalating) = escalating {
        checks.push(Check::at_most(format!("{name}: escalated"), ours.1, escalating.1, "%"));
    }
    checks
}

/// Share in time and share escalated, in percent.
fn simulate(samples: &[&Sample], scenario: Scenario, policy: Policy, prompts: usize) -> (f64, f64) {
    let mut random = StdRng::seed_from_u64(17);
    let mut world = World { line: Line::new(), trips: Spread::default(), landing: Vec::new() };
    let own = |s: &&Sample| {
        HALF_BILLION.ms_per_byte * f64::from(bytes(s)) + HALF_BILLION.ms_per_token * f64::from(s.row.tokens)
    };
    let own_ms = samples.iter().map(own).sum::<f64>() / samples.len() as f64;
    let (mut now, mut met, mut escalated) = (0.0, 0, 0);
    for number in 0..prompts {
        let phase = number / PHASE;
        now += pause(own_ms / scenario.loads[phase % scenario.loads.len()], &mut random);
        let trip = scenario.trips_ms[phase % scenario.trips_ms.len()];
        let sample = samples[random.random_range(0..samples.len())];
        let deadline = random.random_range(800.0..4_000.0);
        let cloud = cloud_ms(sample, trip, scenario.loss, &mut random);
        let (took, hopped) = world.serve(sample, policy, (now, deadline, cloud), &mut random);
        met += usize::from(took <= deadline);
        escalated += usize::from(hopped);
    }
    (100.0 * met as f64 / prompts as f64, 100.0 * escalated as f64 / prompts as f64)
}

fn bytes(sample: &Sample) -> u32 {
    400 + sample.row.prompt_bytes
}

/// What the cloud takes for a prompt; infinite without a link.
fn cloud_ms(sample: &Sample, trip_ms: f64, loss: f64, random: &mut StdRng) -> f64 {
    let lost = if random.random_bool(loss) { RETRANSMIT_MS + trip_ms } else { 0.0 };
    trip_ms * (0.2 * normal(random)).exp() + CLOUD_MS_PER_TOKEN * f64::from(sample.cloud_tokens.max(1)) + lost
}

struct World {
    line: Line,
    trips: Spread,
    /// Resolutions that are to come: when, and what they took.
    landing: Vec<(f64, f64)>,
}

/// What a trip is predicted as before the spread corrects it, in milliseconds.
const TRIP_MS: f64 = 300.0;

impl World {
    /// How long the answer takes, and whether the prompt hopped.
    fn serve(&mut self, sample: &Sample, policy: Policy, at: (f64, f64, f64), random: &mut StdRng) -> (f64, bool) {
        let (now, deadline, cloud) = at;
        let (over, rest): (Vec<_>, Vec<_>) = std::mem::take(&mut self.landing).into_iter().partition(|l| l.0 <= now);
        self.landing = rest;
        over.into_iter().for_each(|(_, took)| self.trips.add(TRIP_MS, took));
        let job = Job { bytes: bytes(sample), tokens: sample.row.tokens.max(1) };
        let link = cloud.is_finite();
        let here = |line: &mut Line, random: &mut StdRng| line.run(job, now, HALF_BILLION, random) - now;
        match policy {
            Policy::EdgeOnly => (here(&mut self.line, random), false),
            Policy::CloudOnly => (cloud, true),
            // The local answer is there provisionally while the cloud is asked: the deadline makes it final.
            Policy::Threshold(threshold) => {
                let doubt = sample.signals.sum_logprob.exp() < threshold;
                (here(&mut self.line, random), doubt && link)
            }
            Policy::Slack => {
                let (_, local) = self.line.predict(job, now);
                let reach = link.then(|| self.trips.around_or_near(TRIP_MS));
                // Asked twice, as the gateway does: on arrival, and when its turn comes and the wait is known.
                let waited = self.line.turn(now) - now;
                let at_turn = || place(self.line.own(job), reach, Some(deadline - waited));
                let hop_after = match place(local, reach, Some(deadline)) {
                    Place::Cloud => Some(0.0),
                    Place::Here => (at_turn() == Place::Cloud).then_some(waited),
                };
                let Some(waited) = hop_after else { return (here(&mut self.line, random), false) };
                self.landing.push((now + waited + cloud, cloud));
                (waited + cloud, true)
            }
        }
    }
}
