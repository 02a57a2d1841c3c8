//! Where a broker is and who we are to it.

use super::epoch::KEEP_ALIVE;
use super::tls;
use crate::cli::LinkArgs;
use bytes::Bytes;
use rumqttc::v5::MqttOptions;
use rumqttc::v5::mqttbytes::{QoS as QoS5, v5::LastWill as LastWill5};
use rumqttc::{LastWill, QoS, Transport};
use std::fmt;
use std::io;
use std::net::ToSocketAddrs;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::{Duration, SystemTime};
use tidegate_schemas::ESCALATION_BYTES_MAX;

/// Port of MQTT (IANA).
const PORT_PLAIN: u16 = 1883;
/// Port of MQTT over TLS (IANA).
const PORT_TLS: u16 = 8883;
/// Longest TCP, TLS and MQTT handshake together, in seconds: a satellite link needs three.
pub(super) const CONNECT_SECONDS_MAX: u64 = 8;
/// Room for topic and properties of a packet, in bytes.
const PACKET_FRAMING_BYTES: usize = 4 * 1024;
/// Publishes that wait for their acknowledgement inside rumqttc, at most: four times our own window, so that ours rules.
const INFLIGHT_MAX: u16 = 256;

/// How the standard library begins what it says of a name that it cannot resolve; it has no kind of error for that.
const LOOKUP_FAILED: &str = "failed to lookup address information";

/// Why a broker cannot be spoken to.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LinkError {
    /// Not an address of a broker.
    #[error("{url:?} is no broker address, allowed is mqtt://HOST[:PORT] or mqtts://HOST[:PORT]")]
    Address {
        /// What was given.
        url: String,
    },
    /// A file cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A file has not what it should have.
    #[error("{} cannot be used for TLS: {what}", path.display())]
    Tls {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
}

/// Host and port of a broker, with or without TLS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Address {
    host: String,
    port: u16,
    secure: bool,
}

impl Address {
    /// Asks the name server for the host; how long that takes is the system's affair.
    ///
    /// # Errors
    /// What it said.
    pub(crate) fn resolve(&self) -> io::Result<()> {
        let bare = self.host.trim_start_matches('[').trim_end_matches(']');
        let none = || io::Error::new(io::ErrorKind::NotFound, "it has no address");
        (bare, self.port).to_socket_addrs()?.next().map(drop).ok_or_else(none)
    }

    /// What is said of a connection that did not come to be because nobody knows the host; none if it is not that.
    pub(crate) fn unresolved(&self, why: &str) -> Option<String> {
        let rest = why.split_once(LOOKUP_FAILED)?.1;
        Some(format!("the name {} does not resolve: {}", self.host, rest.trim_start_matches([':', ' '])))
    }

    /// The host, as it was written.
    pub(crate) fn host(&self) -> &str {
        &self.host
    }

    /// Whether it is this host itself, by its name or number.
    pub(crate) fn is_loopback(&self) -> bool {
        let bare = self.host.trim_start_matches('[').trim_end_matches(']');
        bare == "localhost" || bare.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
    }
}

impl FromStr for Address {
    type Err = LinkError;

    fn from_str(url: &str) -> Result<Self, LinkError> {
        let wrong = || LinkError::Address { url: url.to_owned() };
        let (rest, secure) = match (url.strip_prefix("mqtt://"), url.strip_prefix("mqtts://")) {
            (Some(rest), None) => (rest, false),
            (None, Some(rest)) => (rest, true),
            _ => return Err(wrong()),
        };
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        let (host, port) = match rest.rsplit_once(':') {
            // The last colon of a bracketed IPv6 address without a port belongs to the address.
            Some((host, port)) if !port.ends_with(']') => (host, port.parse().map_err(|_| wrong())?),
            _ => (rest, if secure { PORT_TLS } else { PORT_PLAIN }),
        };
        let allowed = |c: char| c.is_ascii_alphanumeric() || ".-_[]:".contains(c);
        if host.is_empty() || port == 0 || !host.chars().all(allowed) {
            return Err(wrong());
        }
        Ok(Self { host: host.to_owned(), port, secure })
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}:{}", if self.secure { "mqtts" } else { "mqtt" }, self.host, self.port)
    }
}

/// A user name and where its password stands.
#[derive(Debug, Clone)]
pub(crate) struct Credentials {
    /// The user name.
    pub(crate) user: String,
    /// File with the password in its first line.
    pub(crate) password_file: PathBuf,
}

/// Certificate and key of one side.
#[derive(Debug, Clone)]
pub(crate) struct TlsPaths {
    /// Certificate chain (PEM).
    pub(crate) cert: PathBuf,
    /// Private key (PEM).
    pub(crate) key: PathBuf,
}

/// Whom we trust and how we prove who we are.
#[derive(Debug, Clone)]
pub(crate) struct Trust {
    /// CAs (PEM); none takes the system's.
    pub(crate) ca: Option<PathBuf>,
    /// Our certificate.
    pub(crate) identity: Option<TlsPaths>,
}

/// A broker and who we are to it.
#[derive(Debug, Clone)]
pub(crate) struct Broker {
    /// Where it is.
    pub(crate) address: Address,
    /// Our MQTT client id.
    pub(crate) client_id: String,
    /// Our user name, if any.
    pub(crate) credentials: Option<Credentials>,
    /// TLS.
    pub(crate) trust: Trust,
}

/// On which terms a connection is made.
#[derive(Debug, Clone)]
pub(crate) struct Terms {
    /// How long the broker keeps our subscriptions while we are away, in seconds; 0: not at all.
    pub(crate) session_expiry_s: u32,
    /// Messages that the broker may send before the first is acknowledged; MQTT 3.1.1 cannot say it.
    pub(crate) receive_max: u16,
    /// Time between two pings.
    pub(crate) keep_alive: Duration,
    /// Topic and payload of what the broker says, retained, when we are gone without a word.
    pub(crate) will: Option<(String, Bytes)>,
}

impl Broker {
    /// The same for another address.
    pub(crate) fn at(&self, address: &Address) -> Self {
        Self { address: address.clone(), ..self.clone() }
    }

    /// When the newest of the files that a connection is made with was changed; none if there are none.
    pub(crate) fn files_changed(&self) -> Option<SystemTime> {
        let identity = self.trust.identity.iter().flat_map(|i| [&i.cert, &i.key]);
        let password = self.credentials.iter().map(|c| &c.password_file);
        let files = identity.chain(&self.trust.ca).chain(password);
        files.filter_map(|file| std::fs::metadata(file).and_then(|m| m.modified()).ok()).max()
    }

    /// Whether a connection could be made with the files as they are.
    ///
    /// # Errors
    /// The file that cannot be used.
    pub(crate) fn usable(&self, terms: &Terms) -> Result<(), LinkError> {
        self.options_five(terms).map(drop)
    }

    /// Options of one connection of MQTT 5.
    pub(super) fn options_five(&self, terms: &Terms) -> Result<MqttOptions, LinkError> {
        let mut options = self.options()?;
        options.set_keep_alive(terms.keep_alive.max(KEEP_ALIVE));
        options.set_clean_start(terms.session_expiry_s == 0);
        options.set_session_expiry_interval(Some(terms.session_expiry_s));
        options.set_receive_maximum(Some(terms.receive_max));
        options.set_manual_acks(true);
        if let Some((topic, payload)) = &terms.will {
            options.set_last_will(LastWill5::new(topic, payload.clone(), QoS5::AtLeastOnce, true, None));
        }
        Ok(options)
    }

    /// Options of one connection of MQTT 3.1.1.
    pub(super) fn options_three(&self, terms: &Terms) -> Result<rumqttc::MqttOptions, LinkError> {
        let Address { host, port, secure } = &self.address;
        let mut options = rumqttc::MqttOptions::new(self.client_id.clone(), host.clone(), *port);
        options.set_keep_alive(terms.keep_alive.max(KEEP_ALIVE));
        options.set_clean_session(terms.session_expiry_s == 0);
        options.set_inflight(INFLIGHT_MAX);
        let packet_max = ESCALATION_BYTES_MAX + PACKET_FRAMING_BYTES;
        options.set_max_packet_size(packet_max, packet_max);
        options.set_manual_acks(true);
        if let Some((topic, payload)) = &terms.will {
            options.set_last_will(LastWill::new(topic, payload.clone(), QoS::AtLeastOnce, true));
        }
        if let Some(credentials) = &self.credentials {
            options.set_credentials(credentials.user.clone(), first_line(&credentials.password_file)?);
        }
        if *secure {
            options.set_transport(Transport::tls_with_config(tls::client(&self.trust)?));
        }
        Ok(options)
    }

    /// Options of one connection; files are read anew for each, so that renewed certificates are used.
    ///
    /// # Errors
    /// A file that cannot be read or used.
    pub(crate) fn options(&self) -> Result<MqttOptions, LinkError> {
        let mut options = MqttOptions::new(self.client_id.clone(), self.address.host.clone(), self.address.port);
        options.set_keep_alive(KEEP_ALIVE);
        options.set_connection_timeout(CONNECT_SECONDS_MAX);
        options.set_outgoing_inflight_upper_limit(INFLIGHT_MAX);
        let packet_max = u32::try_from(ESCALATION_BYTES_MAX + PACKET_FRAMING_BYTES).unwrap_or(u32::MAX);
        options.set_max_packet_size(Some(packet_max));
        let mut network = options.network_options();
        network.set_tcp_nodelay(true);
        options.set_network_options(network);
        if let Some(credentials) = &self.credentials {
            options.set_credentials(credentials.user.clone(), first_line(&credentials.password_file)?);
        }
        if self.address.secure {
            options.set_transport(Transport::tls_with_config(tls::client(&self.trust)?));
        }
        Ok(options)
    }
}

/// A broker as named on a command line.
///
/// # Errors
/// An address that is none.
pub(crate) fn from_args(url: &str, args: &LinkArgs, client_id: String) -> Result<Broker, LinkError> {
    let credentials = args.user.clone().zip(args.password_file.clone());
    Ok(Broker {
        address: url.parse()?,
        client_id,
        credentials: credentials.map(|(user, password_file)| Credentials { user, password_file }),
        trust: Trust {
            ca: args.ca.clone(),
            identity: args.cert.clone().zip(args.key.clone()).map(|(cert, key)| TlsPaths { cert, key }),
        },
    })
}

fn first_line(path: &Path) -> Result<String, LinkError> {
    let text = std::fs::read_to_string(path).map_err(|source| LinkError::Read { path: path.to_path_buf(), source })?;
    Ok(text.lines().next().unwrap_or_default().to_owned())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_nobody_knows_is_told_as_such() {
        let address: Address = "mqtts://nowhere.invalid".parse().unwrap();
        let why = address.resolve().unwrap_err().to_string();
        let words = address.unresolved(&format!("I/O: {why}")).unwrap();
        assert!(words.starts_with("the name nowhere.invalid does not resolve: ") && words.len() > 45, "{words}");
        assert_eq!(address.unresolved("I/O: Connection refused (os error 111)"), None);
    }

    #[test]
    fn addresses() {
        for (url, expect) in [
            ("mqtt://central", "mqtt://central:1883"),
            ("mqtts://central/", "mqtts://central:8883"),
            ("mqtt://10.0.0.7:11883", "mqtt://10.0.0.7:11883"),
            ("mqtt://[::1]:1884", "mqtt://[::1]:1884"),
            ("mqtt://[::1]", "mqtt://[::1]:1883"),
        ] {
            assert_eq!(url.parse::<Address>().unwrap().to_string(), expect, "{url}");
        }
        for url in ["central", "http://x", "mqtt://", "mqtt://x:0", "mqtt://x:70000", "mqtt://a b", "mqtt://u:p@x"] {
            assert!(url.parse::<Address>().is_err(), "{url}");
        }
    }
}
