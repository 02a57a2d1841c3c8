//! A link that can be broken: forwards TCP, goes silent without FIN or RST, loses bytes, resets, cuts in mid-packet,
//! delays, throttles, heals, and counts bytes.
//!
//! The control socket takes one word per line and answers each with one line: `silence`, `drop`, `heal`, `reset`,
//! `cut BYTES`, `delay MS`, `throttle BYTES_PER_S`, `stats`. A delay holds each direction for so long without holding
//! back what follows; a throttle of 0 is none.

use anyhow::Context as _;
use rustix::net::sockopt::set_socket_linger;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::time::Instant;

/// Connections at once; more wait in the kernel.
const CONNECTIONS_MAX: usize = 64;
/// Bytes that one direction reads at a time.
const CHUNK_BYTES: usize = 16 * 1024;
/// Chunks that are on a slow way at once; when it is full, the sender waits.
const CHUNKS_MAX: usize = 256;
/// Between the last byte that passes and the reset that cuts a packet.
const CUT_PAUSE: Duration = Duration::from_millis(100);
/// What can be said.
const WORDS: &str = "silence, drop, heal, reset, cut BYTES, delay MS, throttle BYTES_PER_S, stats";
/// How long the far side may take to accept.
const CONNECT_WAIT: Duration = Duration::from_secs(5);

/// Options of the proxy.
#[derive(clap::Args, Debug)]
pub(crate) struct Options {
    /// Where clients connect.
    #[arg(long)]
    listen: SocketAddr,
    /// Where their bytes go.
    #[arg(long)]
    to: SocketAddr,
    /// Where `silence`, `heal`, `reset` and `stats` are taken.
    #[arg(long)]
    control: SocketAddr,
}

/// What the link does now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    /// Bytes pass.
    Open,
    /// Nothing is read or written; every socket stays.
    Silent,
    /// Bytes are read and lost, as on a radio out of reach; every socket stays.
    Lossy,
}

#[derive(Debug, Default)]
struct Counts {
    /// Bytes from clients.
    up: AtomicU64,
    /// Bytes to clients.
    down: AtomicU64,
    connections: AtomicU64,
    /// How long a byte is on its way, in milliseconds.
    delay_ms: AtomicU64,
    /// Bytes per second of one direction; 0: as fast as it goes.
    throttle: AtomicU64,
    /// Bytes from clients after which all connections are reset, once; 0: none.
    cut_after: AtomicU64,
}

#[derive(Clone)]
struct Link {
    mode: Arc<watch::Sender<Mode>>,
    /// Grows with each reset.
    resets: Arc<watch::Sender<u64>>,
    counts: Arc<Counts>,
}

impl Link {
    fn new() -> Self {
        Self {
            mode: Arc::new(watch::Sender::new(Mode::Open)),
            resets: Arc::new(watch::Sender::new(0)),
            counts: Arc::default(),
        }
    }

    /// Obeys one word of the control socket.
    fn obey(&self, word: &str) -> String {
        if let Some((word, number)) = word.trim().split_once(' ') {
            return self.set(word, number);
        }
        match word.trim() {
            "drop" => self.mode.send_replace(Mode::Lossy),
            "silence" => self.mode.send_replace(Mode::Silent),
            "heal" => self.mode.send_replace(Mode::Open),
            "reset" => {
                self.resets.send_modify(|n| *n += 1);
                Mode::Open
            }
            "stats" => {
                let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
                let counts = &self.counts;
                let (up, down) = (read(&counts.up), read(&counts.down));
                return format!("up {up} down {down} connections {}", read(&counts.connections));
            }
            other => return format!("unknown word {other:?}, known are {WORDS}"),
        };
        "ok".to_owned()
    }

    fn set(&self, word: &str, number: &str) -> String {
        let Ok(value) = number.parse::<u64>() else { return format!("{number:?} is no number") };
        let place = match word {
            "delay" => &self.counts.delay_ms,
            "throttle" => &self.counts.throttle,
            "cut" => &self.counts.cut_after,
            other => return format!("unknown word {other:?}, known are {WORDS}"),
        };
        place.store(value, Ordering::Relaxed);
        "ok".to_owned()
    }
}

/// Runs the proxy until it is killed.
pub(crate) fn run(options: &Options) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("cannot start tokio")?;
    runtime.block_on(async {
        let listener = listen(options.listen).await?;
        let control = listen(options.control).await?;
        let link = Link::new();
        tokio::spawn(take_words(control, link.clone()));
        forward_all(listener, options.to, link).await;
        Ok(ExitCode::SUCCESS)
    })
}

async fn listen(address: SocketAddr) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address).await.with_context(|| format!("cannot listen at {address}"))
}

async fn take_words(control: TcpListener, link: Link) {
    while let Ok((stream, _)) = control.accept().await {
        let (read, mut write) = stream.into_split();
        let mut lines = BufReader::new(read).lines();
        while let Ok(Some(word)) = lines.next_line().await {
            let answer = link.obey(&word) + "\n";
            if write.write_all(answer.as_bytes()).await.is_err() {
                break;
            }
        }
    }
}

async fn forward_all(listener: TcpListener, to: SocketAddr, link: Link) {
    let room = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let Ok(place) = Arc::clone(&room).acquire_owned().await else { return };
        let Ok((client, _)) = listener.accept().await else { continue };
        let link = link.clone();
        tokio::spawn(async move {
            forward(client, to, link).await;
            drop(place);
        });
    }
}

/// Lives as long as one connection. A reset ends both sides with RST; an end of either side ends both.
async fn forward(mut client: TcpStream, to: SocketAddr, link: Link) {
    link.counts.connections.fetch_add(1, Ordering::Relaxed);
    let mut resets = link.resets.subscribe();
    // A connection made in silence is accepted by the kernel and learns nothing until the link heals.
    let mut mode = link.mode.subscribe();
    tokio::select! {
        _ = mode.wait_for(|m| *m == Mode::Open) => {}
        _ = resets.changed() => return reset(&client),
    }
    let Ok(Ok(mut server)) = tokio::time::timeout(CONNECT_WAIT, TcpStream::connect(to)).await else {
        return reset(&client);
    };
    // Small frames must not wait for each other: the proxy is no part of what is measured.
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    let was_reset = {
        let (client_read, client_write) = client.split();
        let (server_read, server_write) = server.split();
        tokio::select! {
            () = pump(client_read, server_write, &link, Way::Up) => false,
            () = pump(server_read, client_write, &link, Way::Down) => false,
            _ = resets.changed() => true,
        }
    };
    if was_reset {
        reset(&client);
        reset(&server);
    }
}

/// Makes the close that follows a reset (RST): no lingering, nothing flushed.
fn reset(stream: &TcpStream) {
    // Fails only on a socket that is gone, which needs no reset.
    let _ = set_socket_linger(stream, Some(Duration::ZERO));
}

/// A direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Up,
    Down,
}

/// Carries one direction until it ends. What was read before a silence is written after it.
async fn pump(from: impl AsyncReadExt + Unpin, to: impl AsyncWriteExt + Unpin, link: &Link, way: Way) {
    let (out, chunks) = mpsc::channel(CHUNKS_MAX);
    tokio::select! {
        () = take(from, out, link, way) => {}
        () = give(to, chunks, link, way) => {}
    }
}

/// Reads, and puts each chunk on its way.
async fn take(mut from: impl AsyncReadExt + Unpin, out: mpsc::Sender<(Instant, Vec<u8>)>, link: &Link, way: Way) {
    let mut mode = link.mode.subscribe();
    let mut chunk = vec![0; CHUNK_BYTES];
    loop {
        if mode.wait_for(|m| *m != Mode::Silent).await.is_err() {
            return;
        }
        let read = tokio::select! {
            read = from.read(&mut chunk) => read,
            _ = mode.wait_for(|m| *m == Mode::Silent) => continue,
        };
        let Ok(bytes @ 1..) = read else {
            // What is on its way still arrives.
            drop(out);
            return std::future::pending().await;
        };
        if *mode.borrow() == Mode::Lossy {
            continue;
        }
        let kept = link.cut(bytes, way);
        let due = Instant::now() + Duration::from_millis(link.counts.delay_ms.load(Ordering::Relaxed));
        if out.send((due, chunk[..kept].to_vec())).await.is_err() {
            return;
        }
    }
}

/// Writes each chunk when it is due, as fast as the way is.
async fn give(
    mut to: impl AsyncWriteExt + Unpin,
    mut chunks: mpsc::Receiver<(Instant, Vec<u8>)>,
    link: &Link,
    way: Way,
) {
    let mut mode = link.mode.subscribe();
    while let Some((due, chunk)) = chunks.recv().await {
        tokio::time::sleep_until(due).await;
        if mode.wait_for(|m| *m != Mode::Silent).await.is_err() || to.write_all(&chunk).await.is_err() {
            return;
        }
        let count = if way == Way::Up { &link.counts.up } else { &link.counts.down };
        count.fetch_add(chunk.len() as u64, Ordering::Relaxed);
        let throttle = link.counts.throttle.load(Ordering::Relaxed);
        if throttle > 0 {
            tokio::time::sleep(Duration::from_secs_f64(chunk.len() as f64 / throttle as f64)).await;
        }
    }
}

impl Link {
    /// How many of these bytes still pass before a cut that was asked for; the cut follows a moment later.
    fn cut(&self, bytes: usize, way: Way) -> usize {
        let left = self.counts.cut_after.load(Ordering::Relaxed);
        if way == Way::Down || left == 0 {
            return bytes;
        }
        let passing = (left as usize).min(bytes);
        self.counts.cut_after.store(left - passing as u64, Ordering::Relaxed);
        if left as usize <= bytes {
            let link = self.clone();
            tokio::spawn(async move {
                // The part of the packet that passes must be there before the reset.
                tokio::time::sleep(CUT_PAUSE).await;
                link.resets.send_modify(|n| *n += 1);
            });
        }
        passing
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    /// A proxy before a server that echoes; gives the client's connection.
    async fn echo() -> (TcpStream, Link) {
        let server = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let to = server.local_addr().unwrap();
        tokio::spawn(async move {
            while let Ok((stream, _)) = server.accept().await {
                let (mut read, mut write) = stream.into_split();
                tokio::spawn(async move { tokio::io::copy(&mut read, &mut write).await });
            }
        });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = listener.local_addr().unwrap();
        let link = Link::new();
        tokio::spawn(forward_all(listener, to, link.clone()));
        (TcpStream::connect(at).await.unwrap(), link)
    }

    async fn say(client: &mut TcpStream, word: &[u8]) {
        client.write_all(word).await.unwrap();
    }

    async fn hear(client: &mut TcpStream, bytes: usize) -> std::io::Result<Vec<u8>> {
        let mut heard = vec![0; bytes];
        tokio::time::timeout(Duration::from_secs(10), client.read_exact(&mut heard)).await.unwrap()?;
        Ok(heard)
    }

    #[tokio::test]
    async fn forwards_and_counts_each_direction() {
        let (mut client, link) = echo().await;
        say(&mut client, b"hello").await;
        assert_eq!(hear(&mut client, 5).await.unwrap(), b"hello");
        assert_eq!(link.obey("stats"), "up 5 down 5 connections 1");
    }

    #[tokio::test]
    async fn silence_closes_nothing_and_healing_delivers_what_waited() {
        let (mut client, link) = echo().await;
        say(&mut client, b"a").await;
        hear(&mut client, 1).await.unwrap();
        assert_eq!(link.obey("silence"), "ok");
        say(&mut client, b"lost?").await;
        let mut nothing = [0; 1];
        let quiet = tokio::time::timeout(Duration::from_millis(200), client.read(&mut nothing)).await;
        assert!(quiet.is_err(), "bytes, FIN or RST passed a silent link");
        link.obey("heal");
        assert_eq!(hear(&mut client, 5).await.unwrap(), b"lost?");
    }

    #[tokio::test]
    async fn a_reset_arrives_as_one_also_out_of_silence() {
        let (mut client, link) = echo().await;
        say(&mut client, b"a").await;
        hear(&mut client, 1).await.unwrap();
        link.obey("silence");
        link.obey("reset");
        let error = hear(&mut client, 1).await.unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    }

    #[tokio::test]
    async fn a_delay_holds_bytes_and_not_what_follows_them() {
        let (mut client, link) = echo().await;
        assert_eq!(link.obey("delay 40"), "ok");
        let start = std::time::Instant::now();
        for _ in 0..5 {
            say(&mut client, b"x").await;
        }
        hear(&mut client, 5).await.unwrap();
        let took = start.elapsed();
        assert!(took >= Duration::from_millis(80), "there and back in {took:?}");
    }

    #[tokio::test]
    async fn bytes_are_lost_without_a_word_and_a_cut_leaves_half_a_packet() {
        let (mut client, link) = echo().await;
        // Through once: a connection that the proxy has not taken yet would wait for the link instead.
        say(&mut client, b"x").await;
        hear(&mut client, 1).await.unwrap();
        link.obey("drop");
        say(&mut client, b"lost").await;
        let mut nothing = [0; 1];
        let quiet = tokio::time::timeout(Duration::from_millis(200), client.read(&mut nothing)).await;
        assert!(quiet.is_err(), "lost bytes came, or the connection ended");
        link.obey("heal");
        assert_eq!(link.obey("cut 3"), "ok");
        say(&mut client, b"abcdef").await;
        assert_eq!(hear(&mut client, 3).await.unwrap(), b"abc");
        assert!(hear(&mut client, 1).await.is_err());
    }

    #[tokio::test]
    async fn an_unknown_word_is_named() {
        assert!(Link::new().obey("mend").contains("unknown word \"mend\""));
    }
}
