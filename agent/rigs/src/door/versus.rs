//! The rig `door-vs-mosquitto`: the same general traffic through our door, through rumqttd alone and through Debian's
//! mosquitto, in turns. The figures are ratios within a round, so that a busy machine is busy for all of them.

use super::load::{Load, Measured, drive};
use super::peers::{Keeping, Kind, Peer, Sections};
use crate::figures::percentile;
use crate::probe::disk_dir;
use crate::report::{Check, Common, finish, table};
use anyhow::Context as _;
use std::process::ExitCode;

/// Delivered throughput at a window of 20, as a share of mosquitto's.
const WIDE_SHARE: f64 = 1.0;
/// The same at a window of 1, where every message waits for the way through two processes' worth of queues.
const NARROW_SHARE: f64 = 0.6;
/// Processor time per delivered message, as a share of mosquitto's.
const CPU_SHARE: f64 = 1.0;
/// Bytes of a payload: a reading of a sensor in JSON.
const PAYLOAD_BYTES: usize = 100;
const KINDS: [Kind; 3] = [Kind::Door, Kind::Rumqttd, Kind::Mosquitto];

/// Options of the rig.
#[derive(clap::Args, Debug)]
pub(crate) struct Options {
    #[command(flatten)]
    common: Common,
    /// Rounds of all three brokers per load.
    #[arg(long)]
    rounds: Option<usize>,
    /// Only loads whose name contains this, such as `QoS 1, 200 to 1`.
    #[arg(long, value_name = "PART")]
    only: Option<String>,
}

/// One broker under one load.
#[derive(Debug, Clone, serde::Serialize)]
struct Turn {
    kind: Kind,
    measured: Measured,
    /// Processor time per 10,000 deliveries, in milliseconds.
    cpu_ms: f64,
}

/// All turns under one load.
#[derive(Debug, serde::Serialize)]
struct Cell {
    name: String,
    load: Load,
    turns: Vec<Turn>,
}

/// Runs the rig.
pub(crate) fn run(options: &Options) -> anyhow::Result<ExitCode> {
    let short = options.common.short;
    let rounds = options.rounds.unwrap_or(if short { 1 } else { 3 });
    let wanted = |name: &str| options.only.as_ref().is_none_or(|part| name.contains(part));
    let mut cells = Vec::new();
    for load in loads(short).into_iter().filter(|load| wanted(&name(load))) {
        let cell = measure(load, rounds)?;
        println!("{}", cell.table());
        cells.push(cell);
    }
    let checks: Vec<Check> = cells.iter().flat_map(Cell::checks).collect();
    finish("door-vs-mosquitto", &options.common, &checks, &serde_json::to_value(&cells)?)
}

fn loads(short: bool) -> Vec<Load> {
    let load = |publishers, fan_out, qos, window, time_ms| Load {
        publishers,
        fan_out,
        qos,
        window,
        payload_bytes: PAYLOAD_BYTES,
        time_ms,
    };
    if short {
        return vec![load(1, 1, 1, 1, 500), load(10, 1, 1, 20, 500), load(200, 1, 1, 20, 500)];
    }
    let mut loads = Vec::new();
    for qos in [1, 0] {
        for (publishers, fan_out) in [(1, 1), (10, 1), (200, 1), (1, 50), (10, 50), (200, 50)] {
            for window in [1, 20] {
                loads.push(load(publishers, fan_out, qos, window, 2_000));
            }
        }
    }
    loads
}

fn name(load: &Load) -> String {
    format!("QoS {}, {} to {}, window {}", load.qos, load.publishers, load.fan_out, load.window)
}

/// Each broker in turn, fresh each time.
fn measure(load: Load, rounds: usize) -> anyhow::Result<Cell> {
    let mut turns = Vec::with_capacity(rounds * KINDS.len());
    for _ in 0..rounds {
        for kind in KINDS {
            turns.push(turn(kind, load).with_context(|| format!("{} under {}", kind.name(), name(&load)))?);
        }
    }
    Ok(Cell { name: name(&load), load, turns })
}

fn turn(kind: Kind, load: Load) -> anyhow::Result<Turn> {
    let dir = disk_dir("versus")?;
    let peer = match kind {
        Kind::Door => Peer::door(dir.path(), None, &Sections::default())?,
        Kind::Rumqttd => Peer::rumqttd(dir.path(), &[])?,
        Kind::Mosquitto => Peer::mosquitto(dir.path(), None, Keeping::Memory)?,
    };
    // Threads, buffers and logs are made by the first messages.
    drive(peer.address, Load { time_ms: 100, ..load })?;
    let before_s = peer.cpu_s()?;
    let measured = drive(peer.address, load)?;
    let cpu_ms = 1e3 * (peer.cpu_s()? - before_s) / (measured.delivered.max(1) as f64 / 1e4);
    Ok(Turn { kind, measured, cpu_ms })
}

impl Cell {
    /// The median over the rounds.
    fn median(&self, kind: Kind, figure: impl Fn(&Turn) -> f64) -> f64 {
        let values: Vec<f64> = self.turns.iter().filter(|turn| turn.kind == kind).map(figure).collect();
        percentile(&values, 50.0).unwrap_or(f64::NAN)
    }

    /// The median over the rounds of the door's figure as a share of mosquitto's in the same round.
    fn share(&self, figure: impl Fn(&Turn) -> f64) -> f64 {
        let of = |kind| self.turns.iter().filter(move |turn| turn.kind == kind);
        let shares = of(Kind::Door).zip(of(Kind::Mosquitto)).map(|(door, other)| figure(door) / figure(other));
        percentile(&shares.collect::<Vec<_>>(), 50.0).unwrap_or(f64::NAN)
    }

    fn table(&self) -> String {
        let row = |kind: Kind| {
            let figure = |figure: fn(&Turn) -> f64, digits: usize| format!("{:.digits$}", self.median(kind, figure));
            vec![
                kind.name().to_owned(),
                figure(|t| t.measured.rate(), 0),
                figure(|t| t.measured.p50_ms, 3),
                figure(|t| t.measured.p99_ms, 3),
                figure(|t| t.cpu_ms, 1),
                figure(|t| t.measured.lost_percent, 2),
            ]
        };
        let header = [self.name.as_str(), "delivered/s", "p50 ms", "p99 ms", "CPU ms/10,000", "lost %"];
        table(&header, &KINDS.map(row))
    }

    /// The bars are about QoS 1; at QoS 0 brokers may drop.
    fn checks(&self) -> Vec<Check> {
        if self.load.qos == 0 {
            return Vec::new();
        }
        let bar = if self.load.window == 1 { NARROW_SHARE } else { WIDE_SHARE };
        let throughput = self.share(|turn| turn.measured.rate());
        vec![
            Check::at_least(format!("{}: throughput", self.name), throughput, bar, "of mosquitto's"),
            Check::at_most(
                format!("{}: CPU per message", self.name),
                self.share(|t| t.cpu_ms),
                CPU_SHARE,
                "of mosquitto's",
            ),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn turn(kind: Kind, delivered: u64, cpu_ms: f64) -> Turn {
        let measured = Measured { published: 1, delivered, seconds: 1.0, p50_ms: 1.0, p99_ms: 2.0, lost_percent: 0.0 };
        Turn { kind, measured, cpu_ms }
    }

    #[test]
    fn the_door_is_held_to_mosquittos_figures_of_the_same_round() {
        let load = loads(true)[1];
        let turns = vec![
            turn(Kind::Door, 100, 10.0),
            turn(Kind::Mosquitto, 100, 10.0),
            turn(Kind::Door, 50, 20.0),
            turn(Kind::Mosquitto, 40, 40.0),
            turn(Kind::Door, 200, 10.0),
            turn(Kind::Mosquitto, 400, 5.0),
        ];
        let cell = Cell { name: name(&load), load, turns };
        let checks = cell.checks();
        assert_eq!(checks.iter().map(|c| c.figure).collect::<Vec<_>>(), [1.0, 1.0]);
        assert!(checks.iter().all(Check::passes));
        assert_eq!(cell.name, "QoS 1, 10 to 1, window 20");
    }
}
