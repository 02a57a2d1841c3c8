//! The door's section: where it listens, who may come in, what carries general traffic, every bound.

use super::DoorConfig;
use super::reader::{Number, Reader, Section};
use std::net::SocketAddr;
use std::path::PathBuf;
use tidegate_broker::{Anonymous, BackendConfig, DoorLimits, Listener, TlsFiles, check_reply_topic};

/// Where the door listens when nobody says it.
pub(super) const LISTEN_DEFAULT: &str = "127.0.0.1:1883";
/// The embedded backend.
const RUMQTTD: &str = "rumqttd";
const BACKEND: &str = "\"rumqttd\" or \"mqtt://127.0.0.1:PORT\"";

/// Reads `[door]`.
pub(super) fn door(reader: &Reader, section: Section<'_>) -> DoorConfig {
    let listeners = listeners(reader, &section);
    let values = [("\"loopback\"", Anonymous::LoopbackOnly), ("\"off\"", Anonymous::Off)];
    let why = "Who may come without a name: peers on loopback, for devices local-*, or nobody.";
    let anonymous = section.choice("anonymous", &values, Some(0), why).unwrap_or(Anonymous::Off);
    let why = "Lines user:argon2-hash of those who may connect. Read again when it changes, and on SIGHUP.";
    let users = section.path("users_file", "a file", why);
    let why =
        "TOML rules: who may publish, subscribe and leave wills where. Without it all general topics are everybody's.";
    let rights = section.path("rights_file", "a TOML file", why);
    let why =
        "Patterns over {identity} and {client_id} that prompts may name as Response Topic beside their answer topic.";
    let reply_topics = section.texts("reply_topics", &[], "MQTT filters, none of them overlapping tg/#", why);
    for text in &reply_topics {
        if let Err(what) = check_reply_topic(text, &[]) {
            section.refuse("reply_topics", &what);
        }
    }
    let backend = backend(&section);
    let limits_section = section.section("limits");
    let limits = limits(&limits_section);
    limits_section.finish();
    section.finish();
    DoorConfig { listeners, users, rights, reply_topics, backend, anonymous, limits }
}

fn listeners(reader: &Reader, section: &Section<'_>) -> Vec<Listener> {
    let why = "Addresses for MQTT 3.1.1 and 5. Off loopback only with users or client certificates.";
    let plain = addresses(section, "listen", section.texts("listen", &[LISTEN_DEFAULT], "ADDRESS:PORT", why));
    let why = "Addresses for MQTT over TLS; needs cert and key.";
    let secure = addresses(section, "listen_tls", section.texts("listen_tls", &[], "ADDRESS:PORT", why));
    let why =
        "Certificate chain of the TLS addresses. Read again when it changes, and on SIGHUP, as key, CAs and lists are.";
    let cert = section.path("cert", "a PEM file", why);
    let key = section.path("key", "a PEM file", "Private key of the certificate.");
    let why = "CAs whose client certificates name a device.";
    let client_cas = section.paths("client_ca", "a PEM file", why);
    let why = "Certificate revocation lists of those CAs. One past its next update lets none of its CA's clients in.";
    let crls = section.paths("crl", "a PEM file", why);
    let tls = match (cert, key) {
        (Some(cert), Some(key)) => Some(TlsFiles { cert, key, client_cas, crls }),
        (None, None) if secure.is_empty() => None,
        _ => {
            reader.mistake("door.listen_tls needs both door.cert and door.key".to_owned());
            None
        }
    };
    let mut listeners: Vec<Listener> = plain.into_iter().map(|addr| Listener { addr, tls: None }).collect();
    listeners.extend(secure.into_iter().map(|addr| Listener { addr, tls: tls.clone() }));
    if listeners.is_empty() {
        reader.mistake("door.listen and door.listen_tls are empty: allowed is at least one ADDRESS:PORT".to_owned());
    }
    listeners
}

fn addresses(section: &Section<'_>, key: &str, texts: Vec<String>) -> Vec<SocketAddr> {
    let mut found = Vec::new();
    for text in texts {
        match text.parse() {
            Ok(address) => found.push(address),
            Err(_) => section.wrong(key, &format!("{text:?}"), &"ADDRESS:PORT such as 127.0.0.1:1883"),
        }
    }
    found
}

fn backend(section: &Section<'_>) -> BackendConfig {
    let why = "What carries general traffic: rumqttd inside (3.1.1, QoS 0 and 1), or a broker on loopback (all of both versions).";
    let text = section.text_or("backend", RUMQTTD, BACKEND, why);
    let user = section.text("backend_user", "a text", "The door's user name at that broker.");
    let why = "File with its password in the first line.";
    let password_file: Option<PathBuf> = section.path("backend_password_file", "a file", why);
    if text == RUMQTTD {
        return BackendConfig::Rumqttd;
    }
    let address = text.strip_prefix("mqtt://").map(|rest| rest.replace("localhost:", "127.0.0.1:"));
    let address = address.and_then(|rest| rest.trim_end_matches('/').parse::<SocketAddr>().ok());
    match address.filter(|address| address.ip().is_loopback()) {
        Some(addr) => BackendConfig::Mqtt { addr, user, password_file },
        None => {
            section.wrong("backend", &format!("{text:?}"), &BACKEND);
            BackendConfig::Rumqttd
        }
    }
}

fn wide<T: TryInto<u64>>(number: T) -> u64 {
    number.try_into().unwrap_or(u64::MAX)
}

fn narrow<T: TryFrom<u64>>(number: u64) -> T {
    T::try_from(number).unwrap_or_else(|_| unreachable!("the range of each number fits its type"))
}

macro_rules! limits {
    ($($field:ident, $min:literal..=$max:literal, $unit:literal, $why:literal;)*) => {
        /// Reads `[door.limits]`; every bound has a key of its name.
        fn limits(section: &Section<'_>) -> DoorLimits {
            let default = DoorLimits::default();
            let read = |key, (min, max), unit, why, default| {
                section.number(&Number { key, min, max, unit, why }, default)
            };
            DoorLimits {
                $($field: narrow(read(stringify!($field), ($min, $max), $unit, $why, wide(default.$field))),)*
            }
        }
    };
}

limits! {
    connections_max, 1..=20_000, "connections", "Connections at once. Each costs a socket and about 10 KiB.";
    connections_per_identity_max, 1..=20_000, "connections", "Connections of one identity: a device has one, an application a few, local all of the host's.";
    connections_per_address_max, 1..=20_000, "connections", "Connections from one address (IPv6: one /64; loopback is spared): a whole plant may stand behind one.";
    connects_per_s_max, 1..=100_000, "connections per s", "New connections of everybody: a plant that comes back after a power cut takes seconds, not minutes.";
    connects_per_address_per_s_max, 1..=100_000, "connections per s", "New connections from one address; loopback is spared.";
    handshakes_max, 1..=4_096, "handshakes", "TLS handshakes and CONNECTs under way: each costs memory before its peer is known. More wait.";
    handshakes_per_address_max, 1..=4_096, "handshakes", "The same from one address, so that one cannot hold them all; loopback is spared. More are refused.";
    handshake_timeout_ms, 100..=600_000, "ms", "Longest TLS handshake. A slow radio needs seconds, an attacker wants hours.";
    connect_timeout_ms, 100..=600_000, "ms", "Longest wait for CONNECT and for the check of its password.";
    packet_bytes_max, 1_024..=1_000_000, "bytes", "Largest packet: a prompt of 64 KiB, its topic and properties.";
    topic_bytes_max, 320..=65_535, "bytes", "Longest topic name or filter. Ours have up to 290; rumqttd keeps every one that it ever saw.";
    levels_max, 6..=1_024, "levels", "Most levels of a topic name or filter. Ours have six; matching costs a step per level.";
    messages_per_s_max, 1..=10_000_000, "messages per s", "Publishes of one connection, beyond which it is not read for a while: far above any sensor.";
    bytes_per_s_max, 1_024..=10_000_000_000, "bytes per s", "Bytes from one connection, likewise.";
    group_messages_per_s_max, 1..=10_000_000, "messages per s", "Publishes of all connections of one identity, and of one address.";
    group_bytes_per_s_max, 1_024..=10_000_000_000, "bytes per s", "Bytes from all connections of one identity, and of one address.";
    total_messages_per_s_max, 1..=10_000_000, "messages per s", "Publishes of everybody: what the cores are to spend on them.";
    total_bytes_per_s_max, 1_024..=10_000_000_000, "bytes per s", "Bytes from everybody: what the link of the site brings.";
    receive_max, 1..=65_535, "publishes", "Publishes of one client that wait for their verdict: MQTT 5's Receive Maximum. Beyond, it is not read.";
    waiting_total_bytes_max, 65_536..=10_000_000_000, "bytes", "Prompts of everybody that wait for the disk. Beyond, nobody is read until it caught up.";
    inflight_max, 1..=65_535, "publishes", "Outcomes and messages that a client has not acknowledged, if it allows that many.";
    outgoing_bytes_max, 65_536..=1_000_000_000, "bytes", "What waits for one client to read it. Beyond, it is disconnected with 0x97.";
    outgoing_total_bytes_max, 65_536..=10_000_000_000, "bytes", "What waits for all clients. Beyond, those with more than 64 KiB of it are disconnected.";
    subscriptions_max, 1..=10_000, "filters", "Filters of one session.";
    subscriptions_per_identity_max, 1..=1_000_000, "filters", "Filters of all connections of one identity.";
    subscriptions_total_max, 1..=1_000_000, "filters", "Filters of all connections. Each distinct one costs rumqttd 7 KiB for ever.";
    sessions_max, 1..=1_000_000, "sessions", "Sessions without connection. Beyond, the one that is longest away is forgotten.";
    session_expiry_max_ms, 1_000..=31_536_000_000, "ms", "Longest that a session outlives its connection: as long as outcomes are kept.";
    keep_alive_max_s, 1..=65_535, "s", "Longest keep-alive of an MQTT 5 client; zero stays allowed.";
    backend_bytes_max, 4_096..=1_000_000_000, "bytes", "What one client has sent and the backend has not taken. Beyond, the client is not read.";
    rumqttd_filters_max, 1..=1_000_000, "filters", "Filters that rumqttd has seen: it keeps 7 KiB of each until it starts anew. Beyond, a new one is refused with 0x97.";
    rumqttd_filters_per_identity_max, 1..=1_000_000, "filters", "The same of one identity: a dashboard with one for each device of a large plant.";
    rumqttd_topics_max, 1..=10_000_000, "topics", "Topics that rumqttd has seen: it keeps 250 bytes of each. Beyond, a publish to a new one ends its connection with 0x97.";
    rumqttd_topics_per_identity_max, 1..=10_000_000, "topics", "The same of one identity: a collector that publishes for all of a site.";
}
