//! A loopback connection to rumqttd: MQTT 3.1.1, one client, always drained.
//!
//! Invariants: its socket is closed and rumqttd's end seen before the same client id connects again; nothing that
//! rumqttd sends waits in the socket while the owner polls [`Link::turn`].

use crate::codec::{Connect, Packet, Properties, Version, decode, encode};
use bytes::{Bytes, BytesMut};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// The name under which every loopback connection logs in.
pub(crate) const USER: &str = "door";
/// Largest packet to and from rumqttd, in bytes: the largest that a client may send, and room.
pub(crate) const LINK_PACKET_BYTES_MAX: usize = 1024 * 1024;
/// How long rumqttd may take to accept or to let go; it takes under a millisecond when it lives.
const PATIENCE: Duration = Duration::from_secs(2);
/// rumqttd refuses 0; a link that was silent for so long is opened anew, which costs a millisecond.
const KEEP_ALIVE_S: u16 = u16::MAX;
/// Room for one read, in bytes.
const READ_BYTES: usize = 4 * 1024;

/// Where rumqttd listens now, and its password.
#[derive(Clone)]
pub(crate) struct Address {
    pub(crate) addr: SocketAddr,
    pub(crate) password: Arc<str>,
}

/// What rumqttd does with what it remembers of a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Memory {
    /// Forgets it now, and at the end of the connection.
    None,
    /// Forgets it now, and keeps what follows.
    Fresh,
    /// Goes on with it.
    Resume,
}

pub(crate) struct Link {
    stream: TcpStream,
    incoming: BytesMut,
    out: BytesMut,
}

impl Link {
    pub(crate) async fn open(address: Address, client_id: String, memory: Memory) -> io::Result<Self> {
        if memory == Memory::Fresh {
            Self::connect(&address, &client_id, true).await?.close().await;
        }
        Self::connect(&address, &client_id, memory == Memory::None).await
    }

    async fn connect(address: &Address, client_id: &str, clean_start: bool) -> io::Result<Self> {
        let late = |_| io::Error::new(io::ErrorKind::TimedOut, "rumqttd does not answer");
        let stream = timeout(PATIENCE, TcpStream::connect(address.addr)).await.map_err(late)??;
        stream.set_nodelay(true)?;
        let mut link = Self { stream, incoming: BytesMut::new(), out: BytesMut::new() };
        link.push(&Packet::Connect(Box::new(Connect {
            version: Version::V4,
            clean_start,
            keep_alive_s: KEEP_ALIVE_S,
            client_id: client_id.to_owned(),
            will: None,
            user: Some(USER.to_owned()),
            password: Some(Bytes::copy_from_slice(address.password.as_bytes())),
            properties: Properties::default(),
        })));
        match timeout(PATIENCE, link.turn()).await.map_err(late)?? {
            Packet::ConnAck(ack) if ack.code == 0 => Ok(link),
            _ => Err(io::Error::other("rumqttd refused the connection")),
        }
    }

    pub(crate) fn push(&mut self, packet: &Packet) {
        encode(packet, Version::V4, &mut self.out);
    }

    /// Bytes that rumqttd has not taken yet.
    pub(crate) fn waiting_bytes(&self) -> usize {
        self.out.len()
    }

    /// Writes and reads until a packet is there. May be dropped at any await without loss.
    pub(crate) async fn turn(&mut self) -> io::Result<Packet> {
        loop {
            let decoded = decode(&mut self.incoming, Version::V4, LINK_PACKET_BYTES_MAX);
            if let Some(packet) = decoded.map_err(|bad| io::Error::new(io::ErrorKind::InvalidData, bad.what))? {
                return Ok(packet);
            }
            self.incoming.reserve(READ_BYTES);
            let (mut reader, mut writer) = self.stream.split();
            tokio::select! {
                read = reader.read_buf(&mut self.incoming) => {
                    if read? == 0 {
                        return Err(io::ErrorKind::UnexpectedEof.into());
                    }
                    // rumqttd leaves Nagle's algorithm on; without this its next small packet waits for our delayed ack.
                    rustix::net::sockopt::set_tcp_quickack(&self.stream, true)?;
                }
                written = writer.write_buf(&mut self.out), if !self.out.is_empty() => { written?; }
            }
        }
    }

    /// Says goodbye and waits until rumqttd let go, so that the client id can come again.
    pub(crate) async fn close(mut self) {
        self.push(&Packet::Disconnect { reason: 0, properties: Box::default() });
        let drained = async { while self.turn().await.is_ok() {} };
        if timeout(PATIENCE, drained).await.is_err() {
            tracing::warn!("rumqttd did not close a loopback connection in time");
        }
    }
}
