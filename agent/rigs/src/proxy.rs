//! A link that can be broken: forwards TCP, goes silent without FIN or RST, resets, heals, and counts bytes.
//!
//! The control socket takes one word per line and answers each with one line: `silence`, `heal`, `reset`, `stats`.

use anyhow::Context as _;
use rustix::net::sockopt::set_socket_linger;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};

/// Connections at once; more wait in the kernel.
const CONNECTIONS_MAX: usize = 64;
/// Bytes that one direction reads at a time.
const CHUNK_BYTES: usize = 16 * 1024;
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
}

#[derive(Debug, Default)]
struct Counts {
    /// Bytes from clients.
    up: AtomicU64,
    /// Bytes to clients.
    down: AtomicU64,
    connections: AtomicU64,
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
        match word.trim() {
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
            other => return format!("unknown word {other:?}, known are silence, heal, reset, stats"),
        };
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
            () = pump(client_read, server_write, &link.counts.up, link.mode.subscribe()) => false,
            () = pump(server_read, client_write, &link.counts.down, link.mode.subscribe()) => false,
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

/// Carries one direction until it ends. What was read before a silence is written after it.
async fn pump(
    mut from: impl AsyncReadExt + Unpin,
    mut to: impl AsyncWriteExt + Unpin,
    count: &AtomicU64,
    mut mode: watch::Receiver<Mode>,
) {
    let mut chunk = vec![0; CHUNK_BYTES];
    loop {
        if mode.wait_for(|m| *m == Mode::Open).await.is_err() {
            return;
        }
        let read = tokio::select! {
            read = from.read(&mut chunk) => read,
            _ = mode.wait_for(|m| *m == Mode::Silent) => continue,
        };
        let Ok(bytes @ 1..) = read else { return };
        if mode.wait_for(|m| *m == Mode::Open).await.is_err() || to.write_all(&chunk[..bytes]).await.is_err() {
            return;
        }
        count.fetch_add(bytes as u64, Ordering::Relaxed);
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
    async fn an_unknown_word_is_named() {
        assert!(Link::new().obey("mend").contains("unknown word \"mend\""));
    }
}
