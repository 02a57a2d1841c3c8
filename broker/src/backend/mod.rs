//! What is behind the door for general traffic: an embedded rumqttd, or a broker at a loopback address. Watched;
//! rumqttd is replaced when it dies, the other is waited for.
//!
//! Invariants: no accepted prompt and no outcome depends on it; a router that does not answer for `SILENCE_MAX` counts
//! as dead; whoever holds an [`Address`] hears when there is a new one.

mod rumqttd;
mod seen;
mod trunk;
mod watcher;

use self::rumqttd::Running;
use crate::codec::{Properties, QoS, Version};
use crate::config::{BackendConfig, DoorLimits};
use crate::error::{DoorError, DoorFailure};
use crate::link::{Address, Hello, Kind, Link, Login, Place};
use crate::stats::Counters;
use bytes::Bytes;
pub(crate) use seen::{Brought, Name, Seen};
use std::path::Path;
use std::sync::Arc;
use tokio::sync::{mpsc, watch};
pub(crate) use trunk::{Carried, Load, Trunk};
use watcher::{Source, Watcher};

/// Publishes that wait for the watching task.
const STATEMENTS_MAX: usize = 256;
/// Connections beside those of clients: the watching one and ones that are just closing.
const SPARE_CONNECTIONS: usize = 64;
/// The watching connection at a broker that is not ours. Clients' names start with this and a dash.
const WATCHER: &str = "door";

/// Something that the door itself publishes.
pub(crate) struct Statement {
    pub(crate) topic: String,
    pub(crate) payload: Bytes,
    pub(crate) kind: StatementKind,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum StatementKind {
    /// Retained, and published again when the backend was replaced.
    State,
    /// A client's will.
    Will { qos: QoS, retain: bool, properties: Box<Properties> },
}

/// What the rest of the door needs of the backend.
#[derive(Clone)]
pub(crate) struct Backend {
    pub(crate) kind: Kind,
    pub(crate) address: watch::Receiver<Address>,
    /// What carries publishes to rumqttd; another broker gets each client's from a connection of its own.
    pub(crate) trunk: Option<Trunk>,
    /// The names that rumqttd has seen. What the door says of itself is not among them: its topics are few.
    pub(crate) seen: Arc<Seen>,
    pub(crate) statements: mpsc::Sender<Statement>,
    pub(crate) failure: watch::Receiver<Option<DoorFailure>>,
}

/// The name of a client's loopback connection. rumqttd remembers every name for ever, so there it is a number that is
/// used again; another broker sees the client's own, behind a prefix that keeps it apart from its other clients.
pub(crate) fn client_name(kind: Kind, slot: u32, client_id: &str) -> String {
    match kind {
        Kind::Rumqttd => format!("s{slot}"),
        Kind::Whole => format!("{WATCHER}-{client_id}"),
    }
}

/// Starts rumqttd, or looks for the other broker, and starts the task that watches it.
///
/// # Errors
/// rumqttd does not come up, or the password file cannot be read. Another broker may be away: it is waited for.
pub(crate) async fn start(
    config: &BackendConfig,
    limits: &DoorLimits,
    counters: Arc<Counters>,
) -> Result<Backend, DoorError> {
    let connections_max = limits.connections_max;
    let (source, link, address) = match config {
        BackendConfig::Rumqttd => {
            let (running, link) = Running::start(connections_max).await?;
            let address = running.address.clone();
            (Source::Rumqttd { connections_max, _running: running }, Some(link), address)
        }
        BackendConfig::Mqtt { addr, user, password_file } => {
            let login = login(user.as_deref(), password_file.as_deref())?;
            let announced = Arc::default();
            let mut address = Address { place: Place::Socket { addr: *addr, login }, announced, since: None };
            let link = match Link::open(address.clone(), hello()).await {
                Ok(link) => {
                    address.announced = Arc::new(link.announced());
                    Some(link)
                }
                Err(error) => {
                    tracing::warn!(%addr, %error, "the backend is not there, general traffic waits for it");
                    None
                }
            };
            (Source::Elsewhere, link, address)
        }
    };
    let kind = address.kind();
    let (address_tx, address) = watch::channel(address);
    let (failure_tx, failure) = watch::channel(None);
    let (statements, statements_rx) = mpsc::channel(STATEMENTS_MAX);
    let seen = Arc::new(Seen::new(limits));
    let watcher = Watcher::new(source, link, counters, (address_tx, failure_tx), Arc::clone(&seen));
    tokio::spawn(watcher.run(statements_rx));
    let trunk = (kind == Kind::Rumqttd).then(|| Trunk::start(address.clone()));
    Ok(Backend { kind, address, trunk, seen, statements, failure })
}

/// How the watching connection greets a broker that is not ours: as MQTT 5, for the properties of wills.
fn hello() -> Hello {
    Hello::passing(WATCHER, Version::V5)
}

fn login(user: Option<&str>, password_file: Option<&Path>) -> Result<Option<Login>, DoorError> {
    let Some(user) = user else { return Ok(None) };
    let password = match password_file {
        Some(path) => {
            let read = std::fs::read_to_string(path);
            let text = read.map_err(|source| DoorError::Read { path: path.to_owned(), source })?;
            text.lines().next().unwrap_or_default().into()
        }
        None => "".into(),
    };
    Ok(Some(Login { user: user.into(), password }))
}

#[cfg(test)]
mod tests;
