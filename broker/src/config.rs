//! What the door is told at start. Every number has a unit and a reason.

use std::net::SocketAddr;
use std::path::PathBuf;
use tidegate_schemas::{Origin, PROMPT_BYTES_MAX};

/// Everything that the door is told at start.
#[derive(Debug, Clone)]
pub struct DoorConfig {
    /// Whose topics the door serves.
    pub origin: Origin,
    /// Where it listens; at least one.
    pub listeners: Vec<Listener>,
    /// File of users, one `user:argon2-phc` per line; `#` starts a comment.
    pub users: Option<PathBuf>,
    /// Bounds.
    pub limits: DoorLimits,
    /// Who may come without a name.
    pub anonymous: Anonymous,
}

/// One listening socket.
#[derive(Debug, Clone)]
pub struct Listener {
    /// Address; port 0 takes a free one.
    pub addr: SocketAddr,
    /// With TLS, or plain.
    pub tls: Option<TlsFiles>,
}

/// PEM files of a TLS listener.
#[derive(Debug, Clone)]
pub struct TlsFiles {
    /// Certificate chain of the door.
    pub cert: PathBuf,
    /// Its private key.
    pub key: PathBuf,
    /// CAs whose client certificates name an identity; without it only user names do.
    pub client_ca: Option<PathBuf>,
}

/// Who may come without a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Anonymous {
    /// Peers on loopback, as the principal `local` with the devices `local-*`.
    LoopbackOnly,
    /// Nobody.
    Off,
}

/// Bounds of the door.
#[derive(Debug, Clone)]
pub struct DoorLimits {
    /// Connections at once. A gateway's plant has tens to hundreds of devices; each costs a socket and ~10 KiB.
    pub connections_max: usize,
    /// TLS handshakes and CONNECTs under way at once: each costs memory before its peer is known.
    pub handshakes_max: usize,
    /// From accept to CONNECT, in milliseconds. A slow radio needs seconds, an attacker wants hours.
    pub connect_timeout_ms: u64,
    /// Largest packet, in bytes: a prompt, its topic and properties.
    pub packet_bytes_max: usize,
    /// Publishes of one client that wait for their verdict: MQTT 5's Receive Maximum; 3.1.1 clients are not read then.
    pub receive_max: u16,
    /// Outcomes and QoS 1 messages that a client has not acknowledged, if it allows that many.
    pub inflight_max: u16,
    /// Bytes that wait for one client to read them. Beyond, lossy frames are dropped, then the client is disconnected.
    pub outgoing_bytes_max: usize,
    /// Filters of one session.
    pub subscriptions_max: usize,
    /// Sessions that outlive their connection, in number. Over it the one that is longest away is forgotten.
    pub sessions_max: usize,
    /// Longest that a session outlives its connection, in milliseconds. Outcomes are kept no longer either.
    pub session_expiry_max_ms: u64,
    /// Longest keep-alive of an MQTT 5 client, in seconds; zero stays allowed.
    pub keep_alive_max_s: u16,
    /// Messages of one client that wait for rumqttd to take them, in bytes. Beyond, the client is not read.
    pub backend_bytes_max: usize,
}

impl Default for DoorLimits {
    fn default() -> Self {
        Self {
            connections_max: 1_000,
            handshakes_max: 64,
            connect_timeout_ms: 10_000,
            packet_bytes_max: PROMPT_BYTES_MAX + 8 * 1024,
            receive_max: 64,
            inflight_max: 32,
            outgoing_bytes_max: 1024 * 1024,
            subscriptions_max: 64,
            sessions_max: 2_000,
            session_expiry_max_ms: 7 * 24 * 3600 * 1000,
            keep_alive_max_s: 3_600,
            backend_bytes_max: 256 * 1024,
        }
    }
}
