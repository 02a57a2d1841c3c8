//! One MQTT connection of a rig, byte by byte: plain or TLS, from any loopback address, with everything bounded in time.

use super::wire::{self, Connect, Message, Publish, Seen, Version, first};
use anyhow::{Context as _, bail};
use rustix::net::sockopt::set_socket_linger;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// Longest wait for a packet that is due. A busy machine delays by seconds, a broken broker for ever.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);
/// How long nothing may come before it counts as nothing.
pub(crate) const QUIET: Duration = Duration::from_millis(1_500);
/// Room for one read, in bytes.
const READ_BYTES: usize = 16 * 1024;

trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

/// A connection.
pub(crate) struct Socket {
    stream: Box<dyn Stream>,
    read: Vec<u8>,
    version: Version,
}

/// A packet that owns its bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Packet {
    /// Its first byte.
    pub(crate) first: u8,
    /// What follows its length.
    pub(crate) body: Vec<u8>,
}

impl Packet {
    /// Its kind: the first byte without the flags.
    pub(crate) fn kind(&self) -> u8 {
        self.first & 0xf0
    }

    /// As the wire has it.
    pub(crate) fn seen(&self) -> Seen<'_> {
        Seen { first: self.first, body: &self.body, bytes: self.body.len() + 2 }
    }

    /// Topic, packet identifier and payload of a PUBLISH.
    pub(crate) fn message(&self, version: Version) -> Option<Message<'_>> {
        if self.kind() == first::PUBLISH { self.seen().message(version) } else { None }
    }

    /// The reason code of a CONNACK (the return code of 3.1.1).
    pub(crate) fn connack_code(&self) -> Option<u8> {
        if self.kind() == first::CONNACK { self.body.get(1).copied() } else { None }
    }

    /// The reason code of a PUBACK or PUBREC; success where none stands.
    pub(crate) fn ack_code(&self) -> u8 {
        self.body.get(2).copied().unwrap_or(0)
    }
}

impl Socket {
    /// Connects without a word of MQTT.
    pub(crate) async fn open(to: SocketAddr, version: Version) -> anyhow::Result<Self> {
        let stream = timeout(PATIENCE, TcpStream::connect(to)).await.context("the port does not accept")??;
        stream.set_nodelay(true)?;
        Ok(Self { stream: Box::new(stream), read: Vec::new(), version })
    }

    /// Connects through TLS without a word of MQTT.
    pub(crate) async fn open_tls(
        to: SocketAddr,
        config: &Arc<rustls::ClientConfig>,
        version: Version,
    ) -> anyhow::Result<Self> {
        let stream = timeout(PATIENCE, TcpStream::connect(to)).await.context("the port does not accept")??;
        stream.set_nodelay(true)?;
        let name = rustls::pki_types::ServerName::try_from("localhost").context("localhost is a name")?;
        let connector = tokio_rustls::TlsConnector::from(config.clone());
        let stream = timeout(PATIENCE, connector.connect(name, stream)).await.context("no TLS in time")??;
        Ok(Self { stream: Box::new(stream), read: Vec::new(), version })
    }

    /// Connects and is let in; gives whether the session was there.
    pub(crate) async fn enter(to: SocketAddr, connect: &Connect<'_>) -> anyhow::Result<(Self, bool)> {
        let mut socket = Self::open(to, connect.version).await?;
        let present = socket.greet(connect).await?;
        Ok((socket, present))
    }

    /// Connects with a clean session and is let in.
    pub(crate) async fn client(to: SocketAddr, version: Version, client_id: &str) -> anyhow::Result<Self> {
        Ok(Self::enter(to, &Connect::new(version, client_id)).await?.0)
    }

    /// Says CONNECT and is let in; gives whether the session was there.
    pub(crate) async fn greet(&mut self, connect: &Connect<'_>) -> anyhow::Result<bool> {
        self.send(&connect.bytes()).await?;
        let packet = self.next().await.context("no CONNACK came")?;
        match packet.connack_code() {
            Some(0) => Ok(packet.body[0] == 1),
            Some(code) => bail!("CONNACK has the code 0x{code:02x}"),
            None => bail!("instead of CONNACK came a packet 0x{:02x}", packet.first),
        }
    }

    /// Writes bytes.
    pub(crate) async fn send(&mut self, bytes: &[u8]) -> anyhow::Result<()> {
        let write = async {
            self.stream.write_all(bytes).await?;
            self.stream.flush().await
        };
        timeout(PATIENCE, write).await.context("nothing is read on the other side")?.context("cannot write")
    }

    /// The next packet.
    pub(crate) async fn next(&mut self) -> anyhow::Result<Packet> {
        match self.within(PATIENCE).await? {
            Some(packet) => Ok(packet),
            None => bail!("no packet came within {} s", PATIENCE.as_secs()),
        }
    }

    /// The next packet, none when nothing comes in time; an error when the connection ends.
    pub(crate) async fn within(&mut self, patience: Duration) -> anyhow::Result<Option<Packet>> {
        let until = tokio::time::Instant::now() + patience;
        loop {
            if let Some(seen) = Seen::front(&self.read) {
                let packet = Packet { first: seen.first, body: seen.body.to_vec() };
                let bytes = seen.bytes;
                self.read.drain(..bytes);
                return Ok(Some(packet));
            }
            self.read.reserve(READ_BYTES);
            match tokio::time::timeout_at(until, self.stream.read_buf(&mut self.read)).await {
                Err(_) => return Ok(None),
                Ok(Ok(0)) => bail!("the connection ended"),
                Ok(read) => read.map(drop).context("the connection broke")?,
            }
        }
    }

    /// The next packet of a kind; others are passed over, but for PUBLISH at QoS 1, which is acknowledged.
    pub(crate) async fn expect(&mut self, kind: u8) -> anyhow::Result<Packet> {
        loop {
            let packet = self.next().await?;
            if packet.kind() == kind & 0xf0 {
                return Ok(packet);
            }
            self.acknowledge(&packet).await?;
        }
    }

    /// Acknowledges a PUBLISH at QoS 1.
    pub(crate) async fn acknowledge(&mut self, packet: &Packet) -> anyhow::Result<()> {
        match packet.message(self.version) {
            Some(message) if message.id > 0 => self.send(&wire::ack(first::PUBACK, message.id)).await,
            _ => Ok(()),
        }
    }

    /// Subscribes, and gives the code of the SUBACK.
    pub(crate) async fn subscribe(&mut self, filter: &str, qos: u8) -> anyhow::Result<u8> {
        self.send(&wire::subscribe(self.version, 1, filter, qos)).await?;
        let packet = self.expect(first::SUBACK).await?;
        packet.body.last().copied().context("the SUBACK is empty")
    }

    /// Publishes at QoS 1, and gives the code of the PUBACK.
    pub(crate) async fn publish(&mut self, topic: &str, id: u16, payload: &[u8]) -> anyhow::Result<u8> {
        self.send(&Publish::new(topic, id, payload).bytes(self.version)).await?;
        Ok(self.expect(first::PUBACK).await?.ack_code())
    }

    /// The next message, acknowledged: topic and payload. None when nothing comes in time.
    pub(crate) async fn message(&mut self, patience: Duration) -> anyhow::Result<Option<(String, Vec<u8>)>> {
        let until = tokio::time::Instant::now() + patience;
        loop {
            let left = until.saturating_duration_since(tokio::time::Instant::now());
            let Some(packet) = self.within(left).await? else { return Ok(None) };
            self.acknowledge(&packet).await?;
            if let Some(message) = packet.message(self.version) {
                let topic = String::from_utf8_lossy(message.topic).into_owned();
                return Ok(Some((topic, message.payload.to_vec())));
            }
        }
    }

    /// Whether the other side ends the connection in time. What comes meanwhile is passed over.
    pub(crate) async fn ends_within(&mut self, patience: Duration) -> bool {
        let until = tokio::time::Instant::now() + patience;
        loop {
            match self.within(until.saturating_duration_since(tokio::time::Instant::now())).await {
                Ok(Some(_)) => {}
                Ok(None) => return false,
                Err(_) => return true,
            }
        }
    }
}

/// A TCP connection whose end is a reset, so that no port stays occupied.
pub(crate) fn ends_in_reset(stream: &TcpStream) -> anyhow::Result<()> {
    set_socket_linger(stream, Some(Duration::ZERO)).context("cannot set SO_LINGER")
}
