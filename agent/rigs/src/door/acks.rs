//! The rig `door-acks`: how many prompts a second are acknowledged when they are on disk, beside Debian's mosquitto told
//! to save after every change, and how long a lone prompt waits for its acknowledgement above the disk's own time.
//!
//! The door is the real gateway with its real store. Its engine child is stopped (SIGSTOP) while acknowledgements are
//! counted: what it computes is measured elsewhere, and it would take the processor from both sides of this.

use super::load::Wire;
use super::peers::{Keeping, Kind, Peer, Sections, topic};
use super::socket::{PATIENCE, Socket};
use super::wire::{Connect, Publish, Version, first};
use crate::clock::now_us;
use crate::figures::percentile;
use crate::overhead::append_times;
use crate::probe::disk_dir;
use crate::report::{Check, Common, finish, table};
use anyhow::{Context as _, bail};
use rustix::process::{Pid, Signal, kill_process};
use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::path::Path;
use std::process::ExitCode;
use std::rc::Rc;
use std::time::{Duration, Instant};
use tidegate_schemas::DeviceTopic;
use tokio::io::AsyncWriteExt as _;
use tokio::task::{JoinSet, LocalSet};
use tokio::time::{sleep, timeout};

/// Acknowledgements per second, as a multiple of mosquitto's.
const SHARE: f64 = 2.0;
/// Allowed above one append and fdatasync until a lone PUBACK, in ms.
const LONE_MS: f64 = 1.0;
/// Frames that may be missing, in percent: they are the first to be dropped when a device is slow.
const FRAMES_MISSING: f64 = 1.0;
const PUBLISHERS: usize = 200;
const WINDOW: usize = 20;
/// Bytes of a small prompt's text, and of every tenth.
const SMALL_BYTES: usize = 60;
const LARGE_BYTES: usize = 8 * 1024;
/// Lone prompts between two groups of appends, and those appends.
const LONE_TURN: usize = 10;
/// How long the engine child may take to appear.
const ENGINE_LIMIT: Duration = Duration::from_secs(30);

/// Room for every prompt of a run.
const LIMITS: &str = "\n[limits]\ninbox_entries_max = 1000000\ninbox_mib_max = 16384\n\
    device_entries_max = 1000000\n\n[spool]\noutcomes_entries_max = 10000000\noutcomes_mib_max = 1048576\n";

/// Options of the rig.
#[derive(clap::Args, Debug)]
pub(crate) struct Options {
    #[command(flatten)]
    common: Common,
    /// Rounds of both brokers.
    #[arg(long)]
    rounds: Option<usize>,
}

/// What one broker did in one round.
#[derive(Debug, Clone, Copy, serde::Serialize)]
struct Turn {
    kind: Kind,
    acks_per_s: f64,
    /// `accepted` frames per PUBACK.
    frames: f64,
    cpu_ms_per_10000: f64,
}

/// Runs the rig.
pub(crate) fn run(options: &Options) -> anyhow::Result<ExitCode> {
    let short = options.common.short;
    let rounds = options.rounds.unwrap_or(if short { 1 } else { 3 });
    let time = Duration::from_millis(if short { 1_000 } else { 5_000 });
    let mut turns = Vec::new();
    for _ in 0..rounds {
        turns.push(turn(Kind::Door, time).context("the door")?);
        turns.push(turn(Kind::Mosquitto, time).context("mosquitto")?);
    }
    let (disk, lone) = alone(if short { 50 } else { 500 })?;
    println!("{}", table(&["broker", "acks/s", "accepted frames per ack", "CPU ms/10,000"], &rows(&turns)));
    let checks = checks(&turns, &disk, &lone)?;
    finish("door-acks", &options.common, &checks, &serde_json::to_value(&turns)?)
}

fn rows(turns: &[Turn]) -> Vec<Vec<String>> {
    let row = |turn: &Turn| {
        let (acks, frames) = (format!("{:.0}", turn.acks_per_s), format!("{:.3}", turn.frames));
        vec![turn.kind.name().to_owned(), acks, frames, format!("{:.1}", turn.cpu_ms_per_10000)]
    };
    turns.iter().map(row).collect()
}

fn checks(turns: &[Turn], disk: &[f64], lone: &[f64]) -> anyhow::Result<Vec<Check>> {
    let of = |kind| turns.iter().filter(move |turn| turn.kind == kind);
    let shares: Vec<f64> =
        of(Kind::Door).zip(of(Kind::Mosquitto)).map(|(door, other)| door.acks_per_s / other.acks_per_s).collect();
    let median = |values: &[f64]| percentile(values, 50.0).context("nothing was measured");
    let missing = of(Kind::Door).map(|turn| 100.0 * (1.0 - turn.frames)).fold(f64::NEG_INFINITY, f64::max);
    Ok(vec![
        Check::at_least("durable acks per second", median(&shares)?, SHARE, "of mosquitto's"),
        Check::at_most("accepted frames missing", missing, FRAMES_MISSING, "%"),
        Check::at_most("lone PUBACK, p50", median(lone)?, median(disk)? + LONE_MS, "ms"),
    ])
}

fn turn(kind: Kind, time: Duration) -> anyhow::Result<Turn> {
    let dir = disk_dir("acks")?;
    let peer = start(kind, dir.path())?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("cannot start tokio")?;
    let before_s = peer.cpu_s()?;
    let counts = LocalSet::new().block_on(&runtime, prompt_all(peer.address, kind, time))?;
    let cpu_s = peer.cpu_s()? - before_s;
    let acked = counts.acked.max(1) as f64;
    Ok(Turn {
        kind,
        acks_per_s: acked / counts.seconds,
        frames: counts.frames as f64 / acked,
        cpu_ms_per_10000: 1e3 * cpu_s / (acked / 1e4),
    })
}

fn start(kind: Kind, dir: &Path) -> anyhow::Result<Peer> {
    if kind == Kind::Mosquitto {
        return Peer::mosquitto(dir, None, Keeping::EveryChange);
    }
    let peer = Peer::door(dir, None, &Sections { more: LIMITS.to_owned(), ..Sections::default() })?;
    stop_child(peer.process.pid())?;
    Ok(peer)
}

/// Stops the engine: the only child of the gateway.
fn stop_child(gateway: u32) -> anyhow::Result<()> {
    let begin = Instant::now();
    while begin.elapsed() < ENGINE_LIMIT {
        let children = std::fs::read_dir("/proc")?.filter_map(|entry| {
            let pid: i32 = entry.ok()?.file_name().to_str()?.parse().ok()?;
            let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
            let parent: u32 = stat.rsplit_once(") ")?.1.split(' ').nth(1)?.parse().ok()?;
            (parent == gateway).then_some(pid)
        });
        if let Some(pid) = children.filter_map(Pid::from_raw).next() {
            return kill_process(pid, Signal::STOP).context("cannot stop the engine");
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    bail!("the gateway started no engine within {} s", ENGINE_LIMIT.as_secs())
}

#[derive(Debug, Default)]
struct Counts {
    acked: u64,
    frames: u64,
    seconds: f64,
}

#[derive(Default)]
struct Shared {
    stop: Cell<bool>,
    acked: Cell<u64>,
    frames: Cell<u64>,
    /// The first refusal, if there was one.
    refusal: RefCell<Option<String>>,
    last_us: Cell<u64>,
}

async fn prompt_all(to: SocketAddr, kind: Kind, time: Duration) -> anyhow::Result<Counts> {
    // Mosquitto keeps only what a session is there for: one that takes every prompt, as the gateway's inbox does.
    let mut taker = JoinSet::new();
    if kind == Kind::Mosquitto {
        taker.spawn_local(take(to).await?);
    }
    let shared = Rc::new(Shared::default());
    let mut wires = Vec::with_capacity(PUBLISHERS);
    for number in 0..PUBLISHERS {
        let mut wire = Wire::enter(to, &format!("local-{number}")).await?;
        wire.subscribe(&topic(DeviceTopic::Answer, &format!("local-{number}"))?, 1).await?;
        wires.push(wire);
    }
    let begin_us = now_us();
    let mut publishers = JoinSet::new();
    for (number, wire) in wires.into_iter().enumerate() {
        publishers.spawn_local(prompt(wire, shared.clone(), number));
    }
    sleep(time).await;
    shared.stop.set(true);
    while let Some(ended) = publishers.join_next().await {
        ended.context("a publisher panicked")??;
    }
    if let Some(refusal) = shared.refusal.take() {
        bail!("a prompt was refused, so that its acknowledgement says nothing: {refusal}");
    }
    let seconds = (shared.last_us.get() - begin_us) as f64 / 1e6;
    Ok(Counts { acked: shared.acked.get(), frames: shared.frames.get(), seconds })
}

/// A persistent session that acknowledges everything.
async fn take(to: SocketAddr) -> anyhow::Result<impl Future<Output = anyhow::Result<()>>> {
    let connect = Connect { clean: false, ..Connect::new(Version::V4, "taker") };
    let (mut socket, _) = Socket::enter(to, &connect).await?;
    socket.subscribe("tg/v1/+/+/prompt/+", 1).await?;
    Ok(async move {
        loop {
            let packet = socket.next().await?;
            socket.acknowledge(&packet).await?;
        }
    })
}

/// The payload of one prompt.
fn payload(device: usize, number: usize) -> String {
    let bytes = if number % 10 == 9 { LARGE_BYTES } else { SMALL_BYTES };
    let text = "the pump at the north end hums and the valve is warm ".repeat(bytes / 50 + 1);
    format!("{{\"id\":\"d{device}-{number}\",\"input\":\"{}\"}}", &text[..bytes])
}

/// One publisher, until the time is over and what it sent is acknowledged.
async fn prompt(mut wire: Wire, shared: Rc<Shared>, device: usize) -> anyhow::Result<()> {
    let topic = topic(DeviceTopic::Prompt, &format!("local-{device}"))?;
    let (mut under_way, mut sent) = (0, 0_usize);
    let mut out = Vec::new();
    loop {
        out.clear();
        while under_way < WINDOW && !shared.stop.get() {
            let id = u16::try_from(sent % 60_000)? + 1;
            out.extend(Publish::new(&topic, id, payload(device, sent).as_bytes()).bytes(Version::V4));
            (under_way, sent) = (under_way + 1, sent + 1);
        }
        if under_way == 0 {
            return Ok(());
        }
        if !out.is_empty() {
            wire.stream.write_all(&out).await.context("a publisher cannot write")?;
        }
        timeout(PATIENCE, wire.more()).await.context("no PUBACK came in time")??;
        let (mut acked, mut frames) = (0, 0);
        wire.packets(|seen| match seen.kind() {
            first::PUBACK => acked += 1,
            first::PUBLISH => {
                let text = seen.message(Version::V4).map(|m| String::from_utf8_lossy(m.payload)).unwrap_or_default();
                frames += u64::from(text.contains("\"accepted\""));
                if text.contains("\"error\"") {
                    shared.refusal.borrow_mut().get_or_insert(text.into_owned());
                }
            }
            _ => {}
        });
        under_way -= acked;
        shared.acked.set(shared.acked.get() + acked as u64);
        shared.frames.set(shared.frames.get() + frames);
        shared.last_us.set(now_us());
    }
}

/// Times of appends, and of lone prompts until their PUBACK, in turns, both in ms.
fn alone(count: usize) -> anyhow::Result<(Vec<f64>, Vec<f64>)> {
    let dir = disk_dir("acks")?;
    let peer = start(Kind::Door, dir.path())?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("cannot start tokio")?;
    let topic = topic(DeviceTopic::Prompt, "local-lone")?;
    let mut socket = runtime.block_on(Socket::client(peer.address, Version::V4, "local-lone"))?;
    let (mut disk, mut lone) = (Vec::new(), Vec::new());
    // The first prompts make files and threads.
    for number in 0..count + LONE_TURN {
        if number % LONE_TURN == 0 {
            disk.extend(append_times(dir.path(), payload(0, 0).len(), LONE_TURN)?);
        }
        let payload = payload(0, number * 10);
        let begin_us = now_us();
        runtime.block_on(socket.publish(&topic, u16::try_from(number + 1)?, payload.as_bytes()))?;
        if number >= LONE_TURN {
            lone.push((now_us() - begin_us) as f64 / 1e3);
        }
    }
    Ok((disk, lone))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_tenth_of_the_prompts_is_large_and_all_are_prompts() {
        let mut large = 0;
        for number in 0..100 {
            let payload = payload(3, number);
            large += usize::from(payload.len() > LARGE_BYTES);
            let (prompt, _) = tidegate_schemas::decode_prompt(payload.as_bytes()).unwrap();
            assert_eq!(prompt.id.unwrap().to_string(), format!("d3-{number}"));
        }
        assert_eq!(large, 10);
    }

    #[test]
    fn bars_are_mosquittos_rate_and_the_disks_time() {
        let turn = |kind, acks_per_s| Turn { kind, acks_per_s, frames: 1.0, cpu_ms_per_10000: 1.0 };
        let turns = [turn(Kind::Door, 19_000.0), turn(Kind::Mosquitto, 10_000.0)];
        let checks = checks(&turns, &[2.0], &[2.9]).unwrap();
        assert_eq!(checks.iter().map(Check::passes).collect::<Vec<_>>(), [false, true, true]);
    }
}
