//! One connection to a broker of either protocol version, behind one small face: MQTT 5 where the peer has it, else
//! 3.1.1.
//!
//! Invariants: a [`Line`] is one connection and dies with it; one task does nothing but poll rumqttc, because `poll` must
//! neither be cancelled nor wait for its own client; everything published at QoS 1 comes from the owner of the line, so
//! that the n-th [`Heard::Sent`] belongs to its n-th publish.

use super::broker::{Broker, LinkError, Terms};
use super::hear::{self, Down, Heard, Incoming, Raw};
use bytes::Bytes;
use rumqttc::v5::mqttbytes::QoS as QoS5;
use rumqttc::v5::mqttbytes::v5::PublishProperties;
use rumqttc::{NetworkOptions, QoS, v5};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

/// Requests that wait for the poller: window, acknowledgements and subscriptions fit many times.
const REQUESTS_MAX: usize = 512;
/// Events that wait for the reader; when it is full, the poller waits and with it the broker.
const EVENTS_MAX: usize = 256;

/// A version of the protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Version {
    /// MQTT 5: reason codes, Receive Maximum, expiry.
    Five,
    /// MQTT 3.1.1: none of these.
    Three,
}

impl Version {
    /// As people write it.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Five => "5",
            Self::Three => "3.1.1",
        }
    }
}

/// How surely a publish goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Delivery {
    /// QoS 0: no word comes back.
    Once,
    /// QoS 1: acknowledged.
    Acknowledged,
}

/// What the broker keeps of a publish.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Retain {
    /// Nothing after delivery.
    No,
    /// The last one of its topic.
    Last,
}

/// A publish on its way out. Not `Debug`: it holds a payload.
pub(crate) struct Parcel {
    /// Topic name.
    pub(crate) topic: String,
    /// The bytes.
    pub(crate) payload: Bytes,
    /// QoS.
    pub(crate) delivery: Delivery,
    /// Whether the broker keeps it for later subscribers.
    pub(crate) retain: Retain,
    /// Message Expiry in seconds; MQTT 5 only.
    pub(crate) expiry_s: Option<u32>,
    /// User properties; MQTT 5 only.
    pub(crate) user: Vec<(String, String)>,
    /// Correlation Data; MQTT 5 only.
    pub(crate) correlation: Option<Bytes>,
}

impl Parcel {
    /// A QoS 1 publish without anything more.
    pub(crate) fn acknowledged(topic: String, payload: impl Into<Bytes>) -> Self {
        let (delivery, retain) = (Delivery::Acknowledged, Retain::No);
        Self { topic, payload: payload.into(), delivery, retain, expiry_s: None, user: Vec::new(), correlation: None }
    }

    /// Retained state at QoS 0: it is told again with every connection.
    pub(crate) fn state(topic: String, payload: Bytes) -> Self {
        let (delivery, retain) = (Delivery::Once, Retain::Last);
        Self { topic, payload, delivery, retain, expiry_s: None, user: Vec::new(), correlation: None }
    }
}

/// The client does not take a request: its queue is full or its connection over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the client takes no {0}")]
pub(crate) struct Untaken(pub(crate) &'static str);

enum Client {
    Three(rumqttc::AsyncClient),
    Five(v5::AsyncClient),
    /// A test reads what is said on it.
    #[cfg(test)]
    Scripted(mpsc::UnboundedSender<Said>),
}

/// What is said on a scripted line.
#[cfg(test)]
pub(crate) enum Said {
    /// A publish.
    Publish(Box<Parcel>),
    /// Anything else.
    Other,
}

#[cfg(test)]
impl Line {
    /// A line to nobody: what is said on it comes out here, what it hears is up to the test.
    pub(crate) fn scripted() -> (Self, mpsc::UnboundedReceiver<Said>) {
        let (out, said) = mpsc::unbounded_channel();
        let (_, events) = mpsc::channel(1);
        (Self { client: Client::Scripted(out), events, poller: tokio::spawn(async {}) }, said)
    }
}

/// One connection.
pub(crate) struct Line {
    client: Client,
    events: mpsc::Receiver<Heard>,
    poller: JoinHandle<()>,
}

impl Line {
    /// Starts to connect; [`Heard::Welcome`] or [`Heard::Down`] follows.
    ///
    /// # Errors
    /// A certificate or password file that cannot be used.
    pub(crate) fn open(broker: &Broker, version: Version, terms: &Terms) -> Result<Self, LinkError> {
        let (out, events) = mpsc::channel(EVENTS_MAX);
        let (client, poller) = match version {
            Version::Five => open_five(broker.options_five(terms)?, out),
            Version::Three => open_three(broker.options_three(terms)?, out),
        };
        Ok(Self { client, events, poller })
    }

    /// What happens next; after [`Heard::Down`] nothing more. Safe to drop.
    pub(crate) async fn next(&mut self) -> Heard {
        let ended = || Heard::Down(Down::broken("the connection's task ended"));
        self.events.recv().await.unwrap_or_else(ended)
    }

    /// Publishes; [`Heard::Sent`] and, at QoS 1, [`Heard::Acked`] follow.
    pub(crate) fn publish(&self, parcel: Parcel) -> Result<(), Untaken> {
        #[cfg(test)]
        if let Client::Scripted(out) = &self.client {
            return out.send(Said::Publish(Box::new(parcel))).map_err(|_| Untaken("publishes"));
        }
        let Parcel { topic, payload, delivery, retain, expiry_s, user, correlation } = parcel;
        let retain = retain == Retain::Last;
        let taken = match &self.client {
            Client::Three(client) => {
                let qos = if delivery == Delivery::Once { QoS::AtMostOnce } else { QoS::AtLeastOnce };
                client.try_publish(topic, qos, retain, payload).is_ok()
            }
            Client::Five(client) => {
                let qos = if delivery == Delivery::Once { QoS5::AtMostOnce } else { QoS5::AtLeastOnce };
                let properties = PublishProperties {
                    message_expiry_interval: expiry_s,
                    user_properties: user,
                    correlation_data: correlation,
                    ..PublishProperties::default()
                };
                client.try_publish_with_properties(topic, qos, retain, payload, properties).is_ok()
            }
            #[cfg(test)]
            Client::Scripted(_) => false,
        };
        taken.then_some(()).ok_or(Untaken("publishes"))
    }

    /// Subscribes; [`Heard::Subscribed`] follows, in the order of the requests.
    pub(crate) fn subscribe(&self, filter: String, delivery: Delivery) -> Result<(), Untaken> {
        let taken = match (&self.client, delivery) {
            (Client::Three(client), Delivery::Once) => client.try_subscribe(filter, QoS::AtMostOnce).is_ok(),
            (Client::Three(client), Delivery::Acknowledged) => client.try_subscribe(filter, QoS::AtLeastOnce).is_ok(),
            (Client::Five(client), Delivery::Once) => client.try_subscribe(filter, QoS5::AtMostOnce).is_ok(),
            (Client::Five(client), Delivery::Acknowledged) => client.try_subscribe(filter, QoS5::AtLeastOnce).is_ok(),
            #[cfg(test)]
            (Client::Scripted(out), _) => out.send(Said::Other).is_ok(),
        };
        taken.then_some(()).ok_or(Untaken("subscriptions"))
    }

    /// Acknowledges a message of this line. Messages are to be acknowledged in the order of their arrival.
    pub(crate) fn acknowledge(&self, message: &Incoming) -> Result<(), Untaken> {
        let taken = match (&self.client, &message.raw) {
            (Client::Three(client), Raw::Three(publish)) => client.try_ack(publish).is_ok(),
            (Client::Five(client), Raw::Five(publish)) => client.try_ack(publish).is_ok(),
            _ => false,
        };
        taken.then_some(()).ok_or(Untaken("acknowledgements"))
    }

    /// Says goodbye; [`Heard::Down`] follows.
    pub(crate) fn disconnect(&self) -> Result<(), Untaken> {
        let taken = match &self.client {
            Client::Three(client) => client.try_disconnect().is_ok(),
            Client::Five(client) => client.try_disconnect().is_ok(),
            #[cfg(test)]
            Client::Scripted(out) => out.send(Said::Other).is_ok(),
        };
        taken.then_some(()).ok_or(Untaken("goodbye"))
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        self.poller.abort();
    }
}

fn open_five(options: v5::MqttOptions, out: mpsc::Sender<Heard>) -> (Client, JoinHandle<()>) {
    let (client, mut connection) = v5::AsyncClient::new(options, REQUESTS_MAX);
    let poller = tokio::spawn(async move {
        let mut stage = hear::Stage::Greeting;
        loop {
            let heard = match connection.poll().await {
                Ok(event) => hear::five(event, &mut stage),
                Err(error) => Some(Heard::Down(hear::down_five(&error, stage))),
            };
            if pass_on(&out, heard).await.is_err() {
                return;
            }
        }
    });
    (Client::Five(client), poller)
}

fn open_three(options: rumqttc::MqttOptions, out: mpsc::Sender<Heard>) -> (Client, JoinHandle<()>) {
    let (client, mut connection) = rumqttc::AsyncClient::new(options, REQUESTS_MAX);
    let mut network = NetworkOptions::new();
    network.set_tcp_nodelay(true);
    network.set_connection_timeout(super::broker::CONNECT_SECONDS_MAX);
    connection.set_network_options(network);
    let poller = tokio::spawn(async move {
        loop {
            let heard = match connection.poll().await {
                Ok(event) => hear::three(event),
                Err(error) => Some(Heard::Down(hear::down_three(&error))),
            };
            if pass_on(&out, heard).await.is_err() {
                return;
            }
        }
    });
    (Client::Three(client), poller)
}

/// Hands over what was heard; fails when the line is over, because the connection or its owner is.
async fn pass_on(out: &mpsc::Sender<Heard>, heard: Option<Heard>) -> Result<(), ()> {
    let Some(heard) = heard else { return Ok(()) };
    let over = matches!(heard, Heard::Down(_));
    out.send(heard).await.map_err(|_| ())?;
    if over { Err(()) } else { Ok(()) }
}
