//! A loopback connection to the backend: one client, always drained. To rumqttd it speaks MQTT 3.1.1, to a broker that
//! takes everything the version of its client.
//!
//! Invariants: its socket is closed and the backend's end seen before the same client id connects again; nothing that
//! the backend sends waits in the socket while the owner polls [`Link::turn`]; no packet over the limit is held.

use crate::codec::{
    Ack, Connect, Packet, Properties, Publish, QoS, Version, decode, encode, encode_publish, publish_head, reason,
};
use bytes::{Buf, Bytes, BytesMut};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};

/// Largest packet to and from the backend, in bytes: the largest that a client may send, and room.
pub(crate) const LINK_PACKET_BYTES_MAX: usize = 1024 * 1024;
/// How long the backend may take to accept or to let go; it takes under a millisecond when it lives.
const PATIENCE: Duration = Duration::from_secs(2);
/// rumqttd refuses 0; a link that was silent for so long is opened anew, which costs a millisecond.
const KEEP_ALIVE_S: u16 = u16::MAX;
/// Room for one read, in bytes.
const READ_BYTES: usize = 4 * 1024;
/// The same while each read fills it.
const READ_BYTES_MAX: usize = 64 * 1024;

/// What kind of broker is behind the door.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// The embedded rumqttd: 3.1.1, QoS 0 and 1, no properties.
    Rumqttd,
    /// A broker that takes packets of both versions whole.
    Whole,
}

/// Where the backend listens now, who we are there, and what it said that it can.
#[derive(Clone)]
pub(crate) struct Address {
    pub(crate) addr: SocketAddr,
    pub(crate) login: Option<Login>,
    pub(crate) kind: Kind,
    /// From its CONNACK; empty until it was reached once.
    pub(crate) announced: Arc<Properties>,
    /// When it took the place of one that was lost.
    pub(crate) since: Option<Instant>,
}

/// A name at the backend. Never logged.
#[derive(Clone)]
pub(crate) struct Login {
    pub(crate) user: Arc<str>,
    pub(crate) password: Arc<str>,
}

/// What the backend does with what it remembers of a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Memory {
    /// Forgets it now, and at the end of the connection.
    None,
    /// Forgets it now, and keeps what follows.
    Fresh,
    /// Goes on with it.
    Resume,
}

/// Who comes to the backend.
#[derive(Debug, Clone)]
pub(crate) struct Hello {
    pub(crate) client_id: String,
    pub(crate) version: Version,
    pub(crate) memory: Memory,
    /// How long the backend keeps the session, in seconds; MQTT 5 only.
    pub(crate) expiry_s: u32,
    /// How much the client takes unacknowledged; MQTT 5 only.
    pub(crate) receive_max: u16,
    /// Largest packet that the client takes, in bytes; MQTT 5 only.
    pub(crate) packet_bytes_max: u32,
}

impl Hello {
    /// One that keeps no session.
    pub(crate) fn passing(client_id: &str, version: Version) -> Self {
        let packet_bytes_max = LINK_PACKET_BYTES_MAX as u32;
        let client_id = client_id.to_owned();
        Self { client_id, version, memory: Memory::None, expiry_s: 0, receive_max: u16::MAX, packet_bytes_max }
    }

    fn connect(&self, login: Option<&Login>, clean_start: bool) -> Connect {
        let v5 = self.version == Version::V5;
        let keeps = v5 && self.memory != Memory::None;
        let packet_bytes_max = self.packet_bytes_max.min(LINK_PACKET_BYTES_MAX as u32);
        Connect {
            version: self.version,
            clean_start,
            keep_alive_s: KEEP_ALIVE_S,
            client_id: self.client_id.clone(),
            will: None,
            user: login.map(|login| login.user.to_string()),
            password: login.map(|login| Bytes::copy_from_slice(login.password.as_bytes())),
            properties: Properties {
                session_expiry_s: keeps.then_some(self.expiry_s),
                receive_max: v5.then_some(self.receive_max),
                packet_bytes_max: v5.then_some(packet_bytes_max),
                ..Properties::default()
            },
        }
    }
}

pub(crate) struct Link {
    stream: TcpStream,
    version: Version,
    incoming: BytesMut,
    /// Room for the next read, in bytes.
    appetite: usize,
    out: BytesMut,
    /// Bytes of a packet over the limit that are still to be thrown away.
    skipping: usize,
    /// Whether the backend keeps the session after this connection.
    keeps: bool,
    /// Whether the backend still had the session.
    pub(crate) present: bool,
    /// What its CONNACK said.
    pub(crate) announced: Properties,
}

impl Link {
    pub(crate) async fn open(address: Address, hello: Hello) -> io::Result<Self> {
        // MQTT 5 says in one CONNECT that the session starts anew and is kept; 3.1.1 needs two.
        if hello.memory == Memory::Fresh && hello.version == Version::V4 {
            Self::connect(&address, &hello, true).await?.close(0).await;
            return Self::connect(&address, &hello, false).await;
        }
        Self::connect(&address, &hello, hello.memory != Memory::Resume).await
    }

    async fn connect(address: &Address, hello: &Hello, clean_start: bool) -> io::Result<Self> {
        let late = |_| io::Error::new(io::ErrorKind::TimedOut, "the backend does not answer");
        let stream = timeout(PATIENCE, TcpStream::connect(address.addr)).await.map_err(late)??;
        stream.set_nodelay(true)?;
        let mut link = Self {
            stream,
            version: hello.version,
            incoming: BytesMut::new(),
            appetite: READ_BYTES,
            out: BytesMut::new(),
            skipping: 0,
            keeps: hello.memory != Memory::None,
            present: false,
            announced: Properties::default(),
        };
        link.push(&Packet::Connect(Box::new(hello.connect(address.login.as_ref(), clean_start))));
        match timeout(PATIENCE, link.turn()).await.map_err(late)?? {
            Packet::ConnAck(ack) if ack.code == 0 => {
                (link.present, link.announced) = (ack.session_present, ack.properties);
                Ok(link)
            }
            Packet::ConnAck(ack) => Err(io::Error::other(format!("it refused the connection: 0x{:02x}", ack.code))),
            _ => Err(io::Error::other("it does not answer CONNECT with CONNACK")),
        }
    }

    pub(crate) fn push(&mut self, packet: &Packet) {
        encode(packet, self.version, &mut self.out);
    }

    /// A publish for rumqttd, which speaks 3.1.1.
    pub(crate) fn push_publish(&mut self, publish: &Publish) {
        encode_publish(publish, &mut self.out);
    }

    /// How many publishes the backend takes unacknowledged (MQTT 5.0, 3.2.2.3.3).
    pub(crate) fn window(&self) -> usize {
        self.announced.receive_max.unwrap_or(u16::MAX).into()
    }

    /// Bytes that the backend has not taken yet.
    pub(crate) fn waiting_bytes(&self) -> usize {
        self.out.len()
    }

    /// Writes and reads until a packet is there. May be dropped at any await without loss.
    pub(crate) async fn turn(&mut self) -> io::Result<Packet> {
        loop {
            if let Some(packet) = self.take()? {
                return Ok(packet);
            }
            self.step().await?;
        }
    }

    /// The same, but when `room_at` bytes or more waited and fewer do now it says so with `None`.
    pub(crate) async fn turn_or_room(&mut self, room_at: usize) -> io::Result<Option<Packet>> {
        let full = self.out.len() >= room_at;
        loop {
            if let Some(packet) = self.take()? {
                return Ok(Some(packet));
            }
            self.step().await?;
            if full && self.out.len() < room_at {
                return Ok(None);
            }
        }
    }

    /// A packet that is there already.
    pub(crate) fn ready(&mut self) -> io::Result<Option<Packet>> {
        self.take()
    }

    /// One read or write.
    async fn step(&mut self) -> io::Result<()> {
        self.incoming.reserve(self.appetite);
        let (mut reader, mut writer) = self.stream.split();
        tokio::select! {
            read = reader.read_buf(&mut self.incoming) => {
                let bytes = read?;
                if bytes == 0 {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
                let wanted = if bytes >= self.appetite { self.appetite * 4 } else { bytes.next_power_of_two() };
                self.appetite = wanted.clamp(READ_BYTES, READ_BYTES_MAX);
                // rumqttd leaves Nagle's algorithm on; without this its next small packet waits for our delayed ack.
                rustix::net::sockopt::set_tcp_quickack(&self.stream, true)?;
            }
            written = writer.write_buf(&mut self.out), if !self.out.is_empty() => { written?; }
        }
        Ok(())
    }

    fn take(&mut self) -> io::Result<Option<Packet>> {
        let skipped = self.skipping.min(self.incoming.len());
        self.incoming.advance(skipped);
        self.skipping -= skipped;
        if self.skipping > 0 {
            return Ok(None);
        }
        match decode(&mut self.incoming, self.version, LINK_PACKET_BYTES_MAX) {
            Ok(packet) => Ok(packet),
            Err(bad) if bad.reason == reason::TOO_LARGE => self.skip(),
            Err(bad) => Err(io::Error::new(io::ErrorKind::InvalidData, bad.what)),
        }
    }

    /// Throws a publish away that is over the limit, acknowledged: a 3.1.1 broker cannot be told the limit, and would
    /// send it again for ever.
    fn skip(&mut self) -> io::Result<Option<Packet>> {
        let invalid = |what| io::Error::new(io::ErrorKind::InvalidData, what);
        let head = publish_head(&self.incoming).map_err(|bad| invalid(bad.what))?;
        let Some(head) = head else { return Ok(None) };
        tracing::warn!(bytes = head.bytes, max = LINK_PACKET_BYTES_MAX, "dropped a message of the backend, too large");
        match head.qos {
            QoS::AtMostOnce => {}
            QoS::AtLeastOnce => self.push(&Packet::PubAck(Ack::success(head.id))),
            QoS::ExactlyOnce => self.push(&Packet::PubRec(Ack::success(head.id))),
        }
        self.skipping = head.bytes;
        self.take()
    }

    /// Says goodbye and waits until the backend let go, so that the client id can come again. An MQTT 5 backend hears
    /// how many seconds the session lives on.
    pub(crate) async fn close(mut self, expiry_s: u32) {
        let session_expiry_s = self.keeps.then_some(expiry_s);
        let properties = Box::new(Properties { session_expiry_s, ..Properties::default() });
        self.push(&Packet::Disconnect { reason: 0, properties });
        let drained = async { while self.turn().await.is_ok() {} };
        if timeout(PATIENCE, drained).await.is_err() {
            tracing::warn!("the backend did not close a loopback connection in time");
        }
    }
}
