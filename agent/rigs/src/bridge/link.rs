//! The rig `link`: an outage with a backlog, silent cuts while it drains, a peer that forgot its sessions; and the same
//! load through mosquitto's own bridge beside it.
//!
//! The link is a proxy with a round trip of 40 ms. What the window and the round trip allow is the peer's Receive
//! Maximum (mosquitto: 20) per round trip, and that is measured: from a publish through the same proxy to its PUBACK,
//! before there is any load. Beside it a peer that acknowledges late, refuses and breaks off ([`super::moody`]).

use super::load::{Audit, Auditor, publish, round_trip};
use super::moody::Moody;
use super::peer::{Peer, bridge_lines};
use crate::clock::now_us;
use crate::figures::{percentile, shown};
use crate::link::Protocol;
use crate::models::shipped_model;
use crate::probe::{Probe, disk_dir};
use crate::report::{Check, Common, finish, table};
use crate::world::{Gateway, Proxy, Setup, queued, status};
use anyhow::{Context as _, bail};
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};
use tidegate_schemas::Frame;

/// One way of the link, in milliseconds.
const ONE_WAY_MS: u64 = 20;
/// Receive Maximum that mosquitto announces (`max_inflight_messages`).
const RECEIVE_MAX: f64 = 20.0;
/// Share of what window and round trip allow that a drain must reach.
const RATE_SHARE: f64 = 0.8;
/// How much slower a prompt may be while a backlog drains.
const SLOWER: f64 = 1.5;
/// Publishes from which the round trip is measured.
const TRIPS: usize = 40;
/// Items for the peer of many moods; it takes a second or so for each that it does not like.
const MOODY_ITEMS: u64 = 10_000;
/// The same in the short version.
const MOODY_ITEMS_SHORT: u64 = 1_000;
/// Without an arrival for so long, what has not come is lost: longer than any watchdog and back-off together.
const QUIET: Duration = Duration::from_secs(90);
/// Longest wait for the link.
const LINK_LIMIT: Duration = Duration::from_secs(90);
const FILTER: &str = "load/#";
const TOPIC: &str = "load/sensor";
const RULE: &str = "\n[[bridge.forward]]\nfilter = \"load/#\"\n";
/// A store that takes the whole outage from one device.
const ROOM: &str = "\n[spool]\ntelemetry_entries_max = 1000000\ntelemetry_device_entries_max = 1000000\n";
/// Items that one device may leave by default, with room to spare.
const ITEMS_DEFAULT: u64 = 40_000;

/// Options of the rig.
#[derive(clap::Args, Debug)]
pub(crate) struct Options {
    #[command(flatten)]
    common: Common,
    /// Seed of the faults.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Items of the outage.
    #[arg(long)]
    items: Option<u64>,
    /// What to judge. A busy machine changes times, and neither what is lost nor what comes twice.
    #[arg(long, value_enum, default_value_t = Part::All)]
    part: Part,
}

/// What to judge.
#[derive(clap::ValueEnum, Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    /// Losses, repeats and times, beside mosquitto's bridge.
    All,
    /// Losses and second outcomes.
    Kept,
}

/// Runs the rig.
pub(crate) fn run(options: &Options) -> anyhow::Result<ExitCode> {
    let items = options.items.unwrap_or(if options.common.short { 2_000 } else { 100_000 });
    let (prompts, cuts) = if options.common.short { (30, 3) } else { (200, 12) };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(async {
        let moody = moody(if options.common.short { MOODY_ITEMS_SHORT } else { MOODY_ITEMS }, options.seed).await?;
        let ours = ours(&Plan { items, prompts, cuts, seed: options.seed }).await?;
        let more = |checks: Vec<Check>| checks.into_iter().chain(moody.checks()).collect::<Vec<_>>();
        println!("{}", moody.told);
        if options.part == Part::Kept {
            let rows = [row("tidegate", &ours.outage), row("tidegate, cut while draining", &ours.cuts)];
            println!("{}", table(&["over an outage", "lost", "twice", "items/s"], &rows));
            return finish("link", &options.common, &more(ours.kept()), &serde_json::json!({ "seed": options.seed }));
        }
        let defaults = theirs(items, "").await.context("mosquitto's bridge")?;
        let unlimited = theirs(items, "max_queued_messages 0").await.context("mosquitto's bridge without limit")?;
        let rows = [
            row("tidegate", &ours.outage),
            row("tidegate, cut while draining", &ours.cuts),
            row("mosquitto's bridge", &defaults),
            row("mosquitto's bridge, queues without limit", &unlimited),
        ];
        println!(
            "seed {}, {items} items, round trip {} ms by the proxy, {:.1} ms measured",
            options.seed,
            2 * ONE_WAY_MS,
            ours.round_trip.as_secs_f64() * 1e3
        );
        println!("{}", table(&["over an outage", "lost", "twice", "items/s"], &rows));
        let found = serde_json::json!({ "seed": options.seed, "rows": rows,
            "round_trip_ms": ours.round_trip.as_secs_f64() * 1e3 });
        finish("link", &options.common, &more(ours.checks()?), &found)
    })
}

fn row(name: &str, audit: &Audit) -> Vec<String> {
    vec![name.to_owned(), audit.lost.to_string(), audit.twice.to_string(), shown(Some(audit.rate), 0)]
}

struct Plan {
    items: u64,
    prompts: usize,
    cuts: u64,
    seed: u64,
}

/// What was found of ours.
struct Ours {
    outage: Audit,
    cuts: Audit,
    /// From a publish to its PUBACK without any load, median.
    round_trip: Duration,
    /// Publish to answer, in ms.
    quiet_ms: Vec<f64>,
    busy_ms: Vec<f64>,
    /// Outcomes beyond the first.
    second: usize,
}

impl Ours {
    fn checks(&self) -> anyhow::Result<Vec<Check>> {
        let p95 = |ms: &[f64]| percentile(ms, 95.0).context("no prompt was measured");
        let allowed = RECEIVE_MAX / self.round_trip.as_secs_f64();
        let mut checks = self.kept();
        checks.extend([
            Check::at_least("drain rate", self.outage.rate, RATE_SHARE * allowed, "items/s"),
            Check::at_most(
                "prompt to answer while draining, p95",
                p95(&self.busy_ms)?,
                SLOWER * p95(&self.quiet_ms)?,
                "ms",
            ),
        ]);
        Ok(checks)
    }

    /// What no machine is too busy for.
    fn kept(&self) -> Vec<Check> {
        vec![
            Check::at_most("lost over the outage", self.outage.lost as f64, 0.0, "items"),
            Check::at_most("lost over cuts while draining", self.cuts.lost as f64, 0.0, "items"),
            Check::at_most("second outcomes", self.second as f64, 0.0, "outcomes"),
        ]
    }
}

async fn ours(plan: &Plan) -> anyhow::Result<Ours> {
    let dir = disk_dir("link")?;
    let mut central = Peer::start(dir.path(), "central", "max_queued_messages 0")?;
    let proxy = Proxy::start(dir.path(), central.address)?;
    say(&proxy, &format!("delay {ONE_WAY_MS}"))?;
    let round_trip = round_trip(proxy.address, TRIPS).await.context("the round trip")?;
    let model = shipped_model("tide-edge.gguf")?;
    let more = if plan.items > ITEMS_DEFAULT { format!("{ROOM}{RULE}") } else { RULE.to_owned() };
    let gateway = Gateway::start(dir.path(), &Setup { model: Some(&model), bridge: Some(proxy.address), more: &more })?;
    let auditor = Auditor::start(central.address, FILTER);
    auditor.ready().await;
    let mut probe = Probe::connect(&gateway.door, "local-probe", Protocol::V5).await?;
    let mut asked = Asked::default();
    link_is(&gateway.control, "up").await?;
    ask(&mut probe, plan.prompts / 4, &mut asked).await?;
    let quiet_ms = ask(&mut probe, plan.prompts, &mut asked).await?;
    say(&proxy, "silence")?;
    publish(gateway.door.address, "local-load", TOPIC, 0..plan.items).await?;
    link_is(&gateway.control, "down").await?;
    central.revive()?;
    auditor.ready().await;
    auditor.rewind();
    say(&proxy, "heal")?;
    say(&proxy, "reset")?;
    let (outage, busy_ms) = tokio::join!(auditor.wait(0..plan.items, QUIET), async {
        link_is(&gateway.control, "up").await?;
        ask(&mut probe, plan.prompts, &mut asked).await
    });
    let more = plan.items..plan.items + plan.items / 4;
    publish(gateway.door.address, "local-load", TOPIC, more.clone()).await?;
    let (cuts, faults) = tokio::join!(auditor.wait(more, QUIET), faults(&proxy, plan));
    faults?;
    Ok(Ours { outage, cuts, round_trip, quiet_ms, busy_ms: busy_ms?, second: asked.second })
}

/// What was found with the peer of many moods.
struct OfMoody {
    lost: u64,
    again: u64,
    /// Refused for good, and dead letters.
    refused: u64,
    letters: u64,
    told: String,
}

impl OfMoody {
    fn checks(&self) -> [Check; 3] {
        [
            Check::at_most("lost with a peer of many moods", self.lost as f64, 0.0, "items"),
            Check::at_most("sent again though answered", self.again as f64, 0.0, "items"),
            Check::at_most(
                "refused for good without a letter",
                self.refused.abs_diff(self.letters) as f64,
                0.0,
                "items",
            ),
        ]
    }
}

/// Items through a peer that acknowledges late, refuses some for now and some for good, and breaks off.
async fn moody(items: u64, seed: u64) -> anyhow::Result<OfMoody> {
    let dir = disk_dir("link-moody")?;
    let moody = Moody::start(seed).await?;
    let model = shipped_model("tide-edge.gguf")?;
    let gateway = Gateway::start(dir.path(), &Setup { model: Some(&model), bridge: Some(moody.address), more: RULE })?;
    link_is(&gateway.control, "up").await?;
    publish(gateway.door.address, "local-load", TOPIC, 0..items).await?;
    let (mut settled, mut since) = (0, Instant::now());
    while settled < items as usize && since.elapsed() < QUIET {
        let now = moody.book(|book| book.settled());
        if now != settled {
            (settled, since) = (now, Instant::now());
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let refused = moody.book(|book| book.refused() as u64);
    let begin = Instant::now();
    while letters(dir.path())? < refused && begin.elapsed() < LINK_LIMIT {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let letters = letters(dir.path())?;
    Ok(moody.book(|book| OfMoody {
        lost: book.missing(items),
        again: book.again,
        refused,
        letters,
        told: format!(
            "a peer of many moods took {items} items: {} answers late, {} times too much for now, {refused} refused for \
             good, {} connections broken off",
            book.late, book.later, book.broken
        ),
    }))
}

/// Dead letters of the gateway in that directory.
fn letters(dir: &Path) -> anyhow::Result<u64> {
    let counts = queued(dir)?;
    let dead = counts["classes"].as_array().and_then(|all| all.iter().find(|class| class["class"] == "dead"));
    dead.and_then(|dead| dead["entries"].as_u64()).context("the gateway counts no dead letters")
}

/// Faults of every kind, one after the other, while items drain.
async fn faults(proxy: &Proxy, plan: &Plan) -> anyhow::Result<()> {
    let mut random = StdRng::seed_from_u64(plan.seed);
    for _ in 0..plan.cuts {
        tokio::time::sleep(Duration::from_millis(random.random_range(100..800))).await;
        match random.random_range(0..4) {
            0 => say(proxy, &format!("cut {}", random.random_range(1..3000)))?,
            1 => say(proxy, "reset")?,
            2 => {
                say(proxy, "drop")?;
                tokio::time::sleep(Duration::from_millis(random.random_range(200..2_000))).await;
                // Bytes are missing in the middle: what follows is no MQTT, and the broker closes.
                say(proxy, "heal")?;
            }
            _ => {
                say(proxy, "throttle 4000")?;
                tokio::time::sleep(Duration::from_millis(random.random_range(500..2_000))).await;
                say(proxy, "throttle 0")?;
            }
        }
    }
    say(proxy, "heal")
}

fn say(proxy: &Proxy, word: &str) -> anyhow::Result<()> {
    let answer = proxy.say(word)?;
    if answer == "ok" { Ok(()) } else { bail!("the proxy says {answer}") }
}

async fn link_is(control: &Path, state: &str) -> anyhow::Result<()> {
    let begin = Instant::now();
    while begin.elapsed() < LINK_LIMIT {
        if status(control).is_ok_and(|s| s["health"]["link"] == state) {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    bail!("the link is not {state} after {} s", LINK_LIMIT.as_secs())
}

/// Prompts so far, and outcomes beyond the first of any.
#[derive(Default)]
struct Asked {
    count: usize,
    second: usize,
}

/// One prompt at a time; publish to final answer, in ms.
async fn ask(probe: &mut Probe, count: usize, asked: &mut Asked) -> anyhow::Result<Vec<f64>> {
    let mut took_ms = Vec::with_capacity(count);
    for _ in 0..count {
        asked.count += 1;
        let id = format!("live-{}", asked.count).parse()?;
        let begin_us = probe.ask(probe.payload(&id, &format!("what is {} times four", asked.count))?).await?;
        loop {
            let (at_us, frame) = probe.frame().await?;
            let own = frame.id() == Some(&id);
            match frame {
                Frame::Answer(answer) if !answer.provisional && own => {
                    took_ms.push((at_us.min(now_us()) - begin_us) as f64 / 1e3);
                    break;
                }
                Frame::Answer(answer) if !answer.provisional => asked.second += 1,
                Frame::Error(error) => bail!("prompt {id} got the error {}", error.code),
                _ => {}
            }
        }
    }
    Ok(took_ms)
}

/// The same outage through mosquitto's own bridge.
async fn theirs(items: u64, lines: &str) -> anyhow::Result<Audit> {
    let dir = disk_dir("link-mosquitto")?;
    let mut central = Peer::start(dir.path(), "central", "max_queued_messages 0")?;
    let proxy = Proxy::start(dir.path(), central.address)?;
    say(&proxy, &format!("delay {ONE_WAY_MS}"))?;
    let local = Peer::start(dir.path(), "local", &format!("{lines}\n{}", bridge_lines(proxy.address, FILTER)))?;
    let auditor = Auditor::start(central.address, FILTER);
    auditor.ready().await;
    publish(local.address, "load", TOPIC, items..items + 1).await?;
    auditor.wait(items..items + 1, QUIET).await;
    say(&proxy, "silence")?;
    publish(local.address, "load", TOPIC, 0..items).await?;
    central.revive()?;
    auditor.ready().await;
    auditor.rewind();
    say(&proxy, "heal")?;
    say(&proxy, "reset")?;
    Ok(auditor.wait(0..items, QUIET / 3).await)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_single_loss_fails_and_so_does_a_slow_drain() {
        let good = Audit { lost: 0, twice: 3, rate: 450.0 };
        let round_trip = Duration::from_millis(40);
        let quiet_ms = vec![10.0];
        let ours = |outage, busy| Ours {
            outage,
            cuts: good,
            round_trip,
            quiet_ms: quiet_ms.clone(),
            busy_ms: vec![busy],
            second: 0,
        };
        let passes = |ours: Ours| ours.checks().unwrap().iter().all(Check::passes);
        assert!(passes(ours(good, 15.0)));
        assert!(!passes(ours(Audit { lost: 1, ..good }, 15.0)));
        assert!(!passes(ours(Audit { rate: 399.0, ..good }, 15.0)));
        assert!(!passes(ours(good, 15.1)));
    }
}
