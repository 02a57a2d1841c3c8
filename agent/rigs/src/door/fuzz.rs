//! The rig `door-fuzz`: mutated packets on many connections and TLS handshakes cut at every stage, from a seed. Nothing
//! may panic, memory must come back, and a bystander must not notice.

use super::bystander::Bystander;
use super::peers::{Peer, Sections, topic};
use super::pki::Pki;
use super::socket::{PATIENCE, Socket, ends_in_reset};
use super::wire::{self, Connect, Publish, Version, Will, first};
use crate::probe::disk_dir;
use crate::report::{Check, Common, finish};
use anyhow::Context as _;
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use std::net::{Ipv4Addr, SocketAddr};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;
use tidegate_schemas::DeviceTopic;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinSet;
use tokio::time::timeout;

/// Growth of resident memory, in MB, after the last connection has gone.
const GROWTH_MB: f64 = 8.0;
/// Connections at once: below the handshakes that the door takes at once.
const AT_ONCE: usize = 32;
/// Packets per connection, its CONNECT not counted.
const PACKETS: usize = 25;
/// How long the door may hold a connection: a takeover waits for what the old one has with the disk and the backend,
/// and a CONNECT that waits for it has ten seconds; the rest is for a busy machine.
const HELD_MAX: Duration = Duration::from_secs(45);
/// What rumqttd keeps for each filter, in bytes, and some: filled before memory is read for the first time, since what
/// is bounded and fills slowly is no leak.
const KEPT_BYTES: usize = 4 * 1024 * 1024;
/// Bytes of an attack's payload, in the mean.
const PAYLOAD_BYTES: usize = 100;
/// Connections before memory is read for the first time: threads, heaps and buffers are made by them.
const WARM: usize = 2_000;
/// How long memory may take to come back: sessions and sockets end by the clock.
const SETTLE: Duration = Duration::from_secs(5);
/// Loopback addresses to come from, so that closed connections do not use up the ports of one.
const ADDRESSES: usize = 200;

/// Options of the rig.
#[derive(clap::Args, Debug)]
pub(crate) struct Options {
    #[command(flatten)]
    common: Common,
    /// What the random bytes are made from.
    #[arg(long, default_value_t = 7)]
    seed: u64,
}

/// Runs the rig.
pub(crate) fn run(options: &Options) -> anyhow::Result<ExitCode> {
    let (connections, handshakes) = if options.common.short { (4_000, 500) } else { (200_000, 20_000) };
    let dir = disk_dir("fuzz")?;
    let pki = Pki::new(dir.path())?;
    let peer = Peer::door(dir.path(), Some(&pki), &Sections::default())?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("cannot start tokio")?;
    let bystander = Bystander::start(peer.address);
    bystander.look()?;
    let plain = Plain { to: peer.address, topics: topics()? };
    let tls = Cut { to: peer.second, config: pki.client(None)? };
    runtime.block_on(async {
        fill(peer.address).await?;
        many(WARM, options.seed ^ 1, |seed| plain.clone().attack(seed)).await?;
        many(WARM / 10, options.seed ^ 2, |seed| tls.clone().attack(seed)).await
    })?;
    std::thread::sleep(SETTLE);
    let before = peer.resident_bytes()?;
    let packets = runtime.block_on(many(connections, options.seed, |seed| plain.clone().attack(seed)))?;
    println!("{packets} packets over {connections} connections");
    runtime.block_on(many(handshakes, options.seed, |seed| tls.clone().attack(seed)))?;
    println!("{handshakes} TLS handshakes, cut");
    bystander.look()?;
    let seen = bystander.end()?;
    std::thread::sleep(SETTLE);
    let grown_mb = (peer.resident_bytes()? as f64 - before as f64) / 1e6;
    println!("bystander: {} rounds, the slowest took {:.1} ms", seen.rounds, seen.slowest_ms);
    let panics = f64::from(u8::from(peer.panicked()?));
    let due = if options.common.short { 0.0 } else { 5e6 };
    let checks = [
        Check::at_most("panics", panics, 0.0, "panics"),
        Check::at_most("resident memory grown", grown_mb, GROWTH_MB, "MB"),
        Check::at_least("mutated packets sent", packets as f64, due, "packets"),
        Check::at_least("rounds of the bystander", seen.rounds as f64, 1.0, "rounds"),
    ];
    finish("door-fuzz", &options.common, &checks, &serde_json::json!({ "bystander": seen, "seed": options.seed }))
}

/// Runs attacks, [`AT_ONCE`] at a time, each with a seed of its own, and sums what they sent.
async fn many<F>(count: usize, seed: u64, attack: impl Fn(u64) -> F) -> anyhow::Result<usize>
where
    F: Future<Output = anyhow::Result<usize>> + Send + 'static,
{
    let mut running = JoinSet::new();
    let mut sent = 0;
    for number in 0..count {
        if running.len() >= AT_ONCE
            && let Some(ended) = running.join_next().await
        {
            sent += ended.context("an attack panicked")??;
        }
        running.spawn(attack(seed.wrapping_mul(1_000_003).wrapping_add(number as u64)));
    }
    while let Some(ended) = running.join_next().await {
        sent += ended.context("an attack panicked")??;
    }
    Ok(sent)
}

/// Fills what rumqttd keeps for the filters that the attacks use.
async fn fill(to: SocketAddr) -> anyhow::Result<()> {
    let mut socket = Socket::client(to, Version::V4, "fill").await?;
    for filter in ["fuzz/a", "fuzz/+", "#"] {
        socket.subscribe(filter, 0).await?;
    }
    drop(socket);
    let mut socket = Socket::client(to, Version::V4, "filler").await?;
    let payload = [b'x'; PAYLOAD_BYTES];
    for _ in 0..KEPT_BYTES / PAYLOAD_BYTES / 100 {
        socket.send(&Publish::lossy("fuzz/a", &payload).bytes(Version::V4).repeat(99)).await?;
        socket.publish("fuzz/a", 1, &payload).await?;
    }
    Ok(())
}

/// Connects from one of many loopback addresses; the end of the connection is a reset.
async fn connect(to: SocketAddr, rng: &mut StdRng) -> anyhow::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    let last = u8::try_from(rng.random_range(1..=ADDRESSES))?;
    socket.bind((Ipv4Addr::new(127, 9, 9, last), 0).into()).context("cannot bind a loopback address")?;
    let stream = timeout(PATIENCE, socket.connect(to)).await.context("the door does not accept")??;
    stream.set_nodelay(true)?;
    ends_in_reset(&stream)?;
    Ok(stream)
}

/// Attacks in the clear.
#[derive(Clone)]
struct Plain {
    to: SocketAddr,
    topics: Arc<Vec<String>>,
}

fn topics() -> anyhow::Result<Arc<Vec<String>>> {
    let mut topics = vec!["fuzz/a".to_owned(), "fuzz/+".to_owned(), "#".to_owned(), "é/x".to_owned()];
    topics.push("$SYS/x".to_owned());
    for what in [DeviceTopic::Prompt, DeviceTopic::Answer, DeviceTopic::Control] {
        topics.push(topic(what, "local-fuzz")?);
        topics.push(topic(what, "other")?);
    }
    Ok(Arc::new(topics))
}

impl Plain {
    /// One connection: a CONNECT, mostly well, then packets, mostly not. Gives how many were written.
    async fn attack(self, seed: u64) -> anyhow::Result<usize> {
        let mut rng = StdRng::seed_from_u64(seed);
        let mut stream = connect(self.to, &mut rng).await?;
        let version = if rng.random_bool(0.5) { Version::V4 } else { Version::V5 };
        let mut bytes = self.connect_packet(version, &mut rng);
        if rng.random_bool(0.15) {
            mutate(&mut bytes, &mut rng);
        }
        for _ in 0..PACKETS {
            let mut packet = self.packet(version, &mut rng);
            if rng.random_bool(0.7) {
                mutate(&mut packet, &mut rng);
            }
            bytes.extend(packet);
        }
        bytes.push(rng.random());
        // The door may end the connection at any byte; what it says is read so that it is not held up by us.
        let (mut reader, mut writer) = stream.split();
        let write = async {
            let _closed = writer.write_all(&bytes).await;
            let _closed = writer.shutdown().await;
        };
        let read = async {
            let mut sink = [0; 4096];
            while matches!(reader.read(&mut sink).await, Ok(1..)) {}
        };
        let both = timeout(HELD_MAX, async { tokio::join!(write, read) }).await;
        both.with_context(|| format!("the door holds the connection of seed {seed}"))?;
        Ok(PACKETS + 1)
    }

    fn topic(&self, rng: &mut StdRng) -> &str {
        &self.topics[rng.random_range(0..self.topics.len())]
    }

    fn connect_packet(&self, version: Version, rng: &mut StdRng) -> Vec<u8> {
        let name = format!("fuzz-{}", rng.random_range(0..50));
        let will = Will { topic: self.topic(rng), payload: b"gone", qos: rng.random_range(0..2) };
        let will = rng.random_bool(0.2).then_some(will);
        let keep_alive_s = rng.random();
        Connect { clean: rng.random_bool(0.8), keep_alive_s, will, ..Connect::new(version, &name) }.bytes()
    }

    /// A packet that is well, of any kind.
    fn packet(&self, version: Version, rng: &mut StdRng) -> Vec<u8> {
        let id = rng.random_range(1..200);
        let topic = self.topic(rng).to_owned();
        match rng.random_range(0..10) {
            0..=4 => {
                let payload: Vec<u8> = (0..rng.random_range(0..200)).map(|_| rng.random()).collect();
                let qos = rng.random_range(0..3);
                let id = if qos == 0 { 0 } else { id };
                let retain = rng.random_bool(0.1);
                Publish { topic: topic.as_bytes(), qos, id, retain, payload: &payload, properties: &[] }.bytes(version)
            }
            5 => wire::subscribe(version, id, &topic, rng.random_range(0..3)),
            6 => wire::unsubscribe(version, id, &topic),
            7 => vec![first::PINGREQ, 0],
            8 => {
                let acks = [first::PUBACK, first::PUBREC, first::PUBREL, first::PUBCOMP];
                wire::ack(acks[rng.random_range(0..acks.len())], id).to_vec()
            }
            _ => wire::GOODBYE.to_vec(),
        }
    }
}

/// Flips, overwrites, inserts or cuts.
fn mutate(bytes: &mut Vec<u8>, rng: &mut StdRng) {
    for _ in 0..rng.random_range(1..4) {
        if bytes.is_empty() {
            return;
        }
        let at = rng.random_range(0..bytes.len());
        match rng.random_range(0..6) {
            0 => bytes[at] ^= 1 << rng.random_range(0..8),
            1 => bytes[at] = [0, 0x7f, 0x80, 0xff][rng.random_range(0..4)],
            2 => bytes[at] = rng.random(),
            3 => bytes.insert(at, rng.random()),
            4 => drop(bytes.remove(at)),
            _ => bytes.truncate(at),
        }
    }
}

/// Attacks on the handshake.
#[derive(Clone)]
struct Cut {
    to: SocketAddr,
    config: Arc<rustls::ClientConfig>,
}

impl Cut {
    /// A handshake that ends after any number of bytes, or goes on with other bytes than it should.
    async fn attack(self, seed: u64) -> anyhow::Result<usize> {
        let mut rng = StdRng::seed_from_u64(seed);
        let mut stream = connect(self.to, &mut rng).await?;
        let name = rustls::pki_types::ServerName::try_from("localhost").context("localhost is a name")?;
        let mut client = rustls::ClientConnection::new(self.config, name)?;
        // A handshake writes some 900 bytes; beyond, it is whole and CONNECT is what does not come.
        let mut left: usize = rng.random_range(0..1_200);
        let spoil = rng.random_bool(0.5);
        let mut read = [0; 8 * 1024];
        loop {
            let mut flight = Vec::new();
            while client.wants_write() {
                client.write_tls(&mut flight)?;
            }
            let cut = flight.len() >= left;
            flight.truncate(left);
            left -= flight.len();
            if cut && spoil {
                mutate(&mut flight, &mut rng);
            }
            let written = stream.write_all(&flight).await;
            if cut || written.is_err() || !client.is_handshaking() {
                return Ok(1);
            }
            let Ok(Ok(bytes @ 1..)) = timeout(PATIENCE, stream.read(&mut read)).await else { return Ok(1) };
            client.read_tls(&mut &read[..bytes])?;
            client.process_new_packets()?;
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_makes_the_same_bytes_and_another_others() {
        let plain = Plain { to: "127.0.0.1:1".parse().unwrap(), topics: topics().unwrap() };
        let make = |seed| {
            let mut rng = StdRng::seed_from_u64(seed);
            let mut bytes = plain.connect_packet(Version::V5, &mut rng);
            bytes.extend(plain.packet(Version::V5, &mut rng));
            mutate(&mut bytes, &mut rng);
            bytes
        };
        assert_eq!(make(1), make(1));
        assert_ne!(make(1), make(2));
    }
}
