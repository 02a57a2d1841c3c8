//! A loopback connection to a broker that takes everything: one client, in its own version, always drained.
//!
//! Invariants: nothing that the backend sends waits in the socket while the owner polls; no packet over the limit is
//! held.

use super::{Hello, Login, Memory, PACKET_BYTES_MAX, PATIENCE};
use crate::codec::{Ack, Connect, Packet, Properties, QoS, Version, decode, encode, publish_head, reason};
use bytes::{Buf, Bytes, BytesMut};
use std::io;
use std::net::SocketAddr;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// A link that was silent for so long is opened anew, which costs a millisecond.
const KEEP_ALIVE_S: u16 = u16::MAX;
/// Room for one read, in bytes.
const READ_BYTES: usize = 4 * 1024;
/// The same while each read fills it.
const READ_BYTES_MAX: usize = 64 * 1024;

impl Hello {
    fn connect(&self, login: Option<&Login>, clean_start: bool) -> Connect {
        let v5 = self.version == Version::V5;
        let keeps = v5 && self.memory != Memory::None;
        let packet_bytes_max = self.packet_bytes_max.min(PACKET_BYTES_MAX as u32);
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

pub(crate) struct Wire {
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
    pub(super) present: bool,
    /// What its CONNACK said.
    pub(super) announced: Properties,
}

impl Wire {
    pub(super) async fn open(to: (SocketAddr, Option<Login>), hello: Hello) -> io::Result<Self> {
        // MQTT 5 says in one CONNECT that the session starts anew and is kept; 3.1.1 needs two.
        if hello.memory == Memory::Fresh && hello.version == Version::V4 {
            Self::connect(&to, &hello, true).await?.close(0).await;
            return Self::connect(&to, &hello, false).await;
        }
        Self::connect(&to, &hello, hello.memory != Memory::Resume).await
    }

    async fn connect(
        (addr, login): &(SocketAddr, Option<Login>),
        hello: &Hello,
        clean_start: bool,
    ) -> io::Result<Self> {
        let late = |_| io::Error::new(io::ErrorKind::TimedOut, "the backend does not answer");
        let stream = timeout(PATIENCE, TcpStream::connect(addr)).await.map_err(late)??;
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
        link.push(&Packet::Connect(Box::new(hello.connect(login.as_ref(), clean_start))));
        match timeout(PATIENCE, link.turn()).await.map_err(late)?? {
            Packet::ConnAck(ack) if ack.code == 0 => {
                (link.present, link.announced) = (ack.session_present, ack.properties);
                Ok(link)
            }
            Packet::ConnAck(ack) => Err(io::Error::other(format!("it refused the connection: 0x{:02x}", ack.code))),
            _ => Err(io::Error::other("it does not answer CONNECT with CONNACK")),
        }
    }

    pub(super) fn push(&mut self, packet: &Packet) {
        encode(packet, self.version, &mut self.out);
    }

    /// Bytes that the backend has not taken yet.
    pub(super) fn waiting_bytes(&self) -> usize {
        self.out.len()
    }

    /// Writes and reads until a packet is there. May be dropped at any await without loss.
    pub(super) async fn turn(&mut self) -> io::Result<Packet> {
        loop {
            if let Some(packet) = self.take()? {
                return Ok(packet);
            }
            self.step().await?;
        }
    }

    /// The same, but when `room_at` bytes or more waited and fewer do now it says so with `None`.
    pub(super) async fn turn_or_room(&mut self, room_at: usize) -> io::Result<Option<Packet>> {
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
                // Brokers leave Nagle's algorithm on; without this their next small packet waits for our delayed ack.
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
        match decode(&mut self.incoming, self.version, PACKET_BYTES_MAX) {
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
        tracing::warn!(bytes = head.bytes, max = PACKET_BYTES_MAX, "dropped a message of the backend, too large");
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
    pub(super) async fn close(mut self, expiry_s: u32) {
        let session_expiry_s = self.keeps.then_some(expiry_s);
        let properties = Box::new(Properties { session_expiry_s, ..Properties::default() });
        self.push(&Packet::Disconnect { reason: 0, properties });
        let drained = async { while self.turn().await.is_ok() {} };
        if timeout(PATIENCE, drained).await.is_err() {
            tracing::warn!("the backend did not close a loopback connection in time");
        }
    }
}
