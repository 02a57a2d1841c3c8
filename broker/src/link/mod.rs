//! A client's connection to the backend: inside the process to rumqttd's router, through a loopback socket to a broker
//! that takes everything, in the version of its client.
//!
//! Invariants: the backend has let go of a client id before the same one connects again; nothing that the backend sends
//! is left where it could block others while the owner polls [`Link::turn`]; no packet over the limit is held.

mod entrance;
mod inside;
mod offsets;
mod wire;
mod words;

use crate::codec::{Packet, Properties, Publish, Version};
pub(crate) use entrance::Entrance;
use inside::Inside;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;
use wire::Wire;

/// Largest packet to and from the backend, in bytes: the largest that a client may send, and room.
const PACKET_BYTES_MAX: usize = 1024 * 1024;
/// How long the backend may take to accept or to let go; it takes under a millisecond when it lives.
const PATIENCE: Duration = Duration::from_secs(2);

/// What kind of broker is behind the door.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// The embedded rumqttd: 3.1.1, QoS 0 and 1, no properties.
    Rumqttd,
    /// A broker that takes packets of both versions whole.
    Whole,
}

/// Where the backend is now, who we are there, and what it said that it can.
#[derive(Clone)]
pub(crate) struct Address {
    pub(crate) place: Place,
    /// From its CONNACK; empty until it was reached once.
    pub(crate) announced: Arc<Properties>,
    /// When it took the place of one that was lost.
    pub(crate) since: Option<Instant>,
}

impl Address {
    pub(crate) fn kind(&self) -> Kind {
        match self.place {
            Place::Inside(_) => Kind::Rumqttd,
            Place::Socket { .. } => Kind::Whole,
        }
    }
}

/// How the backend is reached.
#[derive(Clone)]
pub(crate) enum Place {
    /// In this process; it has no socket that anybody else could find.
    Inside(Entrance),
    Socket {
        addr: SocketAddr,
        login: Option<Login>,
    },
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

/// Whether its owner has room for messages of the backend. Answers are taken in any case.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Appetite {
    Hungry,
    /// What has not left rumqttd stays there, as far as its log reaches.
    Full,
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
        let packet_bytes_max = PACKET_BYTES_MAX as u32;
        let client_id = client_id.to_owned();
        Self { client_id, version, memory: Memory::None, expiry_s: 0, receive_max: u16::MAX, packet_bytes_max }
    }
}

/// An open connection.
pub(crate) enum Link {
    Inside(Box<Inside>),
    Wire(Box<Wire>),
}

impl Link {
    pub(crate) async fn open(address: Address, hello: Hello) -> io::Result<Self> {
        match address.place {
            Place::Inside(entrance) => Ok(Self::Inside(Box::new(entrance.open(&hello).await?))),
            Place::Socket { addr, login } => Ok(Self::Wire(Box::new(Wire::open((addr, login), hello).await?))),
        }
    }

    pub(crate) fn push(&mut self, packet: &Packet) {
        match self {
            Self::Inside(inside) => inside.push(packet),
            Self::Wire(wire) => wire.push(packet),
        }
    }

    pub(crate) fn push_publish(&mut self, publish: &Publish) {
        match self {
            Self::Inside(inside) => inside.publish(publish),
            Self::Wire(wire) => wire.push(&Packet::Publish(Box::new(publish.clone()))),
        }
    }

    /// Whether the backend still had the session.
    pub(crate) fn present(&self) -> bool {
        match self {
            Self::Inside(inside) => inside.present,
            Self::Wire(wire) => wire.present,
        }
    }

    /// What its CONNACK said.
    pub(crate) fn announced(&self) -> Properties {
        match self {
            Self::Inside(_) => Properties::default(),
            Self::Wire(wire) => wire.announced.clone(),
        }
    }

    /// How many publishes the backend takes unacknowledged (MQTT 5.0, 3.2.2.3.3).
    pub(crate) fn window(&self) -> usize {
        match self {
            Self::Inside(_) => u16::MAX.into(),
            Self::Wire(wire) => wire.announced.receive_max.unwrap_or(u16::MAX).into(),
        }
    }

    /// Bytes that the backend has not taken yet, so far as is known.
    pub(crate) fn waiting_bytes(&self) -> usize {
        match self {
            Self::Inside(inside) => inside.waiting_bytes(),
            Self::Wire(wire) => wire.waiting_bytes(),
        }
    }

    /// Messages that rumqttd's log did not hold until its reader took them, since this was asked last.
    pub(crate) fn take_lost(&mut self) -> u64 {
        match self {
            Self::Inside(inside) => inside.take_lost(),
            Self::Wire(_) => 0,
        }
    }

    /// Passes on what was pushed and waits until a packet is there. May be dropped at any await without loss.
    pub(crate) async fn turn(&mut self) -> io::Result<Packet> {
        loop {
            if let Some(packet) = self.turn_or_room(usize::MAX, Appetite::Hungry).await? {
                return Ok(packet);
            }
        }
    }

    /// The same, but when `room_at` bytes or more waited and fewer do now it says so with `None`.
    pub(crate) async fn turn_or_room(&mut self, room_at: usize, appetite: Appetite) -> io::Result<Option<Packet>> {
        match self {
            Self::Inside(inside) => inside.turn_or_room(room_at, appetite).await,
            Self::Wire(wire) => wire.turn_or_room(room_at).await,
        }
    }

    /// Says goodbye, so that the client id can come again: waits until another broker let go, and knows that rumqttd
    /// will have. An MQTT 5 backend hears how many seconds the session lives on.
    pub(crate) async fn close(self, expiry_s: u32) {
        match self {
            // It says goodbye when it is dropped.
            Self::Inside(_) => {}
            Self::Wire(wire) => wire.close(expiry_s).await,
        }
    }
}
