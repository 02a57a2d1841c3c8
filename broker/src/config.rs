//! What the door is told at start. Every number has a unit and a reason.

use crate::topic::{LEVELS_MAX, TOPIC_BYTES_MAX};
use std::net::SocketAddr;
use std::path::PathBuf;
use tidegate_schemas::{Origin, PROMPT_BYTES_MAX};

const MIB: u64 = 1024 * 1024;

/// Everything that the door is told at start.
#[derive(Debug, Clone)]
pub struct DoorConfig {
    /// Whose topics the door serves.
    pub origin: Origin,
    /// Where it listens; at least one.
    pub listeners: Vec<Listener>,
    /// File of users, one `user:argon2-phc` per line; `#` starts a comment.
    pub users: Option<PathBuf>,
    /// TOML file of rights on general topics; without one everybody who is in may use them all.
    pub rights: Option<PathBuf>,
    /// Patterns over `{identity}` and `{client_id}` of Response Topics that prompts may name beside their own answer
    /// topic.
    pub reply_topics: Vec<String>,
    /// Filters that no reply topic may overlap, beside all below `tg`: the sources of forward rules.
    pub reserved: Vec<String>,
    /// What carries general traffic.
    pub backend: BackendConfig,
    /// Bounds.
    pub limits: DoorLimits,
    /// Who may come without a name.
    pub anonymous: Anonymous,
}

impl DoorConfig {
    /// A door with rumqttd behind it, nobody without a name, and the default bounds.
    #[must_use]
    pub fn new(origin: Origin, listeners: Vec<Listener>) -> Self {
        Self {
            origin,
            listeners,
            users: None,
            rights: None,
            reply_topics: Vec::new(),
            reserved: Vec::new(),
            backend: BackendConfig::Rumqttd,
            limits: DoorLimits::default(),
            anonymous: Anonymous::Off,
        }
    }
}

/// What carries general traffic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BackendConfig {
    /// The embedded rumqttd: 3.1.1, QoS 0 and 1.
    Rumqttd,
    /// Another MQTT 3.1.1 and 5 broker; packets of both versions pass whole.
    Mqtt {
        /// Where it listens, on loopback.
        addr: SocketAddr,
        /// The door's user name there.
        user: Option<String>,
        /// File with its password in the first line.
        password_file: Option<PathBuf>,
    },
}

/// One listening socket.
#[derive(Debug, Clone)]
pub struct Listener {
    /// Address; port 0 takes a free one.
    pub addr: SocketAddr,
    /// With TLS, or plain.
    pub tls: Option<TlsFiles>,
}

/// PEM files of a TLS listener. All are read again while the door runs.
#[derive(Debug, Clone)]
pub struct TlsFiles {
    /// Certificate chain of the door.
    pub cert: PathBuf,
    /// Its private key.
    pub key: PathBuf,
    /// Files of CAs whose client certificates name an identity; without one only user names do.
    pub client_cas: Vec<PathBuf>,
    /// Certificate revocation lists of those CAs.
    pub crls: Vec<PathBuf>,
}

impl TlsFiles {
    /// A listener that asks for no client certificates.
    #[must_use]
    pub fn new(cert: PathBuf, key: PathBuf) -> Self {
        Self { cert, key, client_cas: Vec::new(), crls: Vec::new() }
    }
}

/// Who may come without a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Anonymous {
    /// Peers on loopback, as the principal `local` with the devices `local-*`.
    LoopbackOnly,
    /// Nobody.
    Off,
}

/// Bounds of the door. Over a rate a client is not read until it is within it again; over any other bound it is refused
/// or disconnected with a reason. Peers on loopback have no address of their own, so bounds per address spare them.
#[derive(Debug, Clone)]
pub struct DoorLimits {
    /// Connections at once. A gateway's plant has tens to hundreds of devices; each costs a socket and ~10 KiB.
    pub connections_max: usize,
    /// Connections of one identity: a device has one, an application a few, `local` all of the host's.
    pub connections_per_identity_max: usize,
    /// Connections from one address (IPv6: one /64): a whole plant may stand behind one.
    pub connections_per_address_max: usize,
    /// CONNECTs per second, of everybody: a plant that comes back after a power cut takes seconds, not minutes.
    pub connects_per_s_max: u64,
    /// CONNECTs per second from one address.
    pub connects_per_address_per_s_max: u64,
    /// TLS handshakes and CONNECTs under way at once: each costs memory before its peer is known. More wait.
    pub handshakes_max: usize,
    /// The same from one address, so that one cannot hold them all. More are refused.
    pub handshakes_per_address_max: usize,
    /// From accept to the end of the TLS handshake, in milliseconds. A slow radio needs seconds, an attacker wants hours.
    pub handshake_timeout_ms: u64,
    /// From there to CONNACK, in milliseconds: CONNECT has to come, and a password takes its turn.
    pub connect_timeout_ms: u64,
    /// Largest packet, in bytes: a prompt, its topic and properties.
    pub packet_bytes_max: usize,
    /// Longest topic name or filter, in bytes. rumqttd keeps every one that it ever saw.
    pub topic_bytes_max: usize,
    /// Most levels of a topic name or filter: matching costs one step per level and subscription.
    pub levels_max: usize,
    /// Publishes per second of one connection: far above any sensor, so that a loop gone wild is noticed.
    pub messages_per_s_max: u64,
    /// Bytes per second from one connection.
    pub bytes_per_s_max: u64,
    /// Publishes per second of one identity or address, all of its connections.
    pub group_messages_per_s_max: u64,
    /// Bytes per second of one identity or address.
    pub group_bytes_per_s_max: u64,
    /// Publishes per second of everybody: what the gateway's cores are to spend on it.
    pub total_messages_per_s_max: u64,
    /// Bytes per second of everybody.
    pub total_bytes_per_s_max: u64,
    /// Publishes of one client that wait for their verdict: MQTT 5's Receive Maximum; 3.1.1 clients are not read then.
    pub receive_max: u16,
    /// Bytes of prompts of everybody that wait for the disk. Beyond, nobody is read until it caught up.
    pub waiting_total_bytes_max: u64,
    /// Outcomes and QoS 1 and 2 messages that a client has not acknowledged, if it allows that many. Their bytes are
    /// bounded by `outgoing_bytes_max`.
    pub inflight_max: u16,
    /// Bytes that wait for one client to read them. Beyond, lossy frames are dropped, then the client is disconnected.
    pub outgoing_bytes_max: usize,
    /// The same of everybody. Beyond, clients with more than 64 KiB of it are disconnected.
    pub outgoing_total_bytes_max: u64,
    /// Filters of one session.
    pub subscriptions_max: usize,
    /// Filters of one identity's connections.
    pub subscriptions_per_identity_max: usize,
    /// Filters of everybody's connections. Each distinct one costs rumqttd 7 KiB for ever.
    pub subscriptions_total_max: usize,
    /// Sessions that outlive their connection, in number. Over it the one that is longest away is forgotten.
    pub sessions_max: usize,
    /// Longest that a session outlives its connection, in milliseconds. Outcomes are kept no longer either.
    pub session_expiry_max_ms: u64,
    /// Longest keep-alive of an MQTT 5 client, in seconds; zero stays allowed.
    pub keep_alive_max_s: u16,
    /// Messages of one client that wait for the backend to take them, in bytes. Beyond, the client is not read.
    pub backend_bytes_max: usize,
    /// Filters that rumqttd has seen, of everybody: it keeps 7 KiB of each until it or the process starts anew.
    pub rumqttd_filters_max: usize,
    /// The same of one identity: a dashboard with a filter for each device of a large plant.
    pub rumqttd_filters_per_identity_max: usize,
    /// Topics that rumqttd has seen, of everybody: it keeps 250 bytes of each until it or the process starts anew.
    pub rumqttd_topics_max: usize,
    /// The same of one identity: a site's collector that publishes for all of it.
    pub rumqttd_topics_per_identity_max: usize,
}

impl Default for DoorLimits {
    fn default() -> Self {
        Self {
            connections_max: 1_000,
            connections_per_identity_max: 1_000,
            connections_per_address_max: 1_000,
            connects_per_s_max: 5_000,
            connects_per_address_per_s_max: 100,
            handshakes_max: 64,
            handshakes_per_address_max: 16,
            handshake_timeout_ms: 10_000,
            connect_timeout_ms: 10_000,
            packet_bytes_max: PROMPT_BYTES_MAX + 8 * 1024,
            topic_bytes_max: TOPIC_BYTES_MAX,
            levels_max: LEVELS_MAX,
            messages_per_s_max: 100_000,
            bytes_per_s_max: 64 * MIB,
            group_messages_per_s_max: 500_000,
            group_bytes_per_s_max: 256 * MIB,
            total_messages_per_s_max: 1_000_000,
            total_bytes_per_s_max: 512 * MIB,
            receive_max: 64,
            waiting_total_bytes_max: 32 * MIB,
            inflight_max: 1_000,
            outgoing_bytes_max: 1024 * 1024,
            outgoing_total_bytes_max: 64 * MIB,
            subscriptions_max: 64,
            subscriptions_per_identity_max: 10_000,
            subscriptions_total_max: 20_000,
            sessions_max: 2_000,
            session_expiry_max_ms: 7 * 24 * 3600 * 1000,
            keep_alive_max_s: 3_600,
            backend_bytes_max: 256 * 1024,
            rumqttd_filters_max: 10_000,
            rumqttd_filters_per_identity_max: 1_000,
            rumqttd_topics_max: 100_000,
            rumqttd_topics_per_identity_max: 10_000,
        }
    }
}
