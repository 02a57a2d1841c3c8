//! The rig `door-crowd`: two thousand devices over TLS. How fast they come in from cold beside mosquitto, and what each
//! one costs in memory while it is idle.

use super::peers::{Keeping, Kind, Peer, Sections, topic};
use super::pki::Pki;
use super::socket::Socket;
use super::wire::{Connect, Version};
use crate::figures::percentile;
use crate::probe::disk_dir;
use crate::report::{Check, Common, finish, table};
use anyhow::Context as _;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tidegate_schemas::DeviceTopic;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

/// Resident memory of an idle TLS device, in KB.
const DEVICE_KB: f64 = 20.0;
/// Handshakes per second, as a share of mosquitto's.
const SHARE: f64 = 0.8;
/// Handshakes at once: below what the door takes at once.
const AT_ONCE: usize = 32;
/// How long the brokers rest before their memory is read.
const REST: Duration = Duration::from_secs(2);

/// Options of the rig.
#[derive(clap::Args, Debug)]
pub(crate) struct Options {
    #[command(flatten)]
    common: Common,
    /// Rounds of both brokers.
    #[arg(long)]
    rounds: Option<usize>,
}

/// A crowd at one broker.
#[derive(Debug, Clone, Copy, serde::Serialize)]
struct Turn {
    kind: Kind,
    handshakes_per_s: f64,
    /// Resident memory per idle TLS device, in KB.
    device_kb: f64,
    /// The same of a plain client that publishes and hears general traffic.
    general_kb: f64,
}

/// Runs the rig.
pub(crate) fn run(options: &Options) -> anyhow::Result<ExitCode> {
    let short = options.common.short;
    let (rounds, devices) = if short { (1, 200) } else { (3, 2_000) };
    let mut turns = Vec::new();
    for _ in 0..options.rounds.unwrap_or(rounds) {
        for kind in [Kind::Door, Kind::Mosquitto] {
            turns.push(turn(kind, devices).with_context(|| kind.name().to_owned())?);
        }
    }
    let row = |turn: &Turn| {
        let figures = [turn.handshakes_per_s, turn.device_kb, turn.general_kb].map(|figure| format!("{figure:.1}"));
        std::iter::once(turn.kind.name().to_owned()).chain(figures).collect::<Vec<_>>()
    };
    let header = ["broker", "handshakes/s", "KB per TLS device", "KB per general client"];
    println!("{}", table(&header, &turns.iter().map(row).collect::<Vec<_>>()));
    finish("door-crowd", &options.common, &checks(&turns)?, &serde_json::to_value(&turns)?)
}

fn checks(turns: &[Turn]) -> anyhow::Result<Vec<Check>> {
    let of = |kind| turns.iter().filter(move |turn| turn.kind == kind);
    let shares =
        of(Kind::Door).zip(of(Kind::Mosquitto)).map(|(ours, other)| ours.handshakes_per_s / other.handshakes_per_s);
    let median = |values: Vec<f64>| percentile(&values, 50.0).context("nothing was measured");
    let device_kb = median(of(Kind::Door).map(|turn| turn.device_kb).collect())?;
    Ok(vec![
        Check::at_least("TLS handshakes from cold", median(shares.collect())?, SHARE, "of mosquitto's"),
        Check::at_most("resident memory per idle TLS device", device_kb, DEVICE_KB, "KB"),
    ])
}

fn turn(kind: Kind, devices: usize) -> anyhow::Result<Turn> {
    let dir = disk_dir("crowd")?;
    let pki = Pki::new(dir.path())?;
    let peer = match kind {
        Kind::Mosquitto => Peer::mosquitto(dir.path(), Some(&pki), Keeping::Memory)?,
        Kind::Door | Kind::Rumqttd => Peer::door(dir.path(), Some(&pki), &Sections::default())?,
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let tls = pki.client(None)?;
    // The first ones make threads, heaps and caches.
    drop(runtime.block_on(crowd(devices / 10, |number| device(peer.second, tls.clone(), number)))?);
    let per = |before: u64| -> anyhow::Result<f64> {
        std::thread::sleep(REST);
        Ok((peer.resident_bytes()? as f64 - before as f64) / 1e3 / devices as f64)
    };
    std::thread::sleep(REST);
    let before = peer.resident_bytes()?;
    let begin = Instant::now();
    let idle = runtime.block_on(crowd(devices, |number| device(peer.second, tls.clone(), number)))?;
    let handshakes_per_s = devices as f64 / begin.elapsed().as_secs_f64();
    let device_kb = per(before)?;
    let before = peer.resident_bytes()?;
    let general = runtime.block_on(crowd(devices, |number| general(peer.address, number)))?;
    let general_kb = per(before)?;
    drop((idle, general));
    Ok(Turn { kind, handshakes_per_s, device_kb, general_kb })
}

/// Lets `count` come in, [`AT_ONCE`] at a time, and holds them.
async fn crowd<F>(count: usize, enter: impl Fn(usize) -> F) -> anyhow::Result<Vec<Socket>>
where
    F: Future<Output = anyhow::Result<Socket>> + Send + 'static,
{
    let places = Arc::new(Semaphore::new(AT_ONCE));
    let mut entering = JoinSet::new();
    for number in 0..count {
        let place = places.clone().acquire_owned().await?;
        let enter = enter(number);
        entering.spawn(async move {
            let socket = enter.await;
            drop(place);
            socket
        });
    }
    let mut sockets = Vec::with_capacity(count);
    while let Some(ended) = entering.join_next().await {
        sockets.push(ended.context("a connection panicked")??);
    }
    Ok(sockets)
}

/// A device that listens for its answers and says nothing.
async fn device(to: SocketAddr, tls: Arc<rustls::ClientConfig>, number: usize) -> anyhow::Result<Socket> {
    let mut socket = Socket::open_tls(to, &tls, Version::V4).await?;
    let name = format!("local-crowd-{number}");
    socket.greet(&Connect { keep_alive_s: 0, ..Connect::new(Version::V4, &name) }).await?;
    socket.subscribe(&topic(DeviceTopic::Answer, &name)?, 1).await?;
    Ok(socket)
}

/// A client of general traffic that has published and heard something.
async fn general(to: SocketAddr, number: usize) -> anyhow::Result<Socket> {
    let name = format!("crowd-general-{number}");
    let connect = Connect { keep_alive_s: 0, ..Connect::new(Version::V4, &name) };
    let (mut socket, _) = Socket::enter(to, &connect).await?;
    socket.subscribe(&format!("crowd/{}", number % 10), 0).await?;
    socket.publish(&format!("crowd/word/{}", number % 10), 1, b"hello").await?;
    Ok(socket)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_compared_within_a_round_and_memory_is_our_own() {
        let turn = |kind, handshakes_per_s, device_kb| Turn { kind, handshakes_per_s, device_kb, general_kb: 1.0 };
        let turns = [turn(Kind::Door, 80.0, 19.0), turn(Kind::Mosquitto, 100.0, 99.0)];
        let verdicts = |turns: &[Turn]| checks(turns).unwrap().iter().map(Check::passes).collect::<Vec<_>>();
        assert_eq!(verdicts(&turns), [true, true]);
        assert_eq!(verdicts(&[turn(Kind::Door, 79.0, 21.0), turns[1]]), [false, false]);
    }
}
