//! One MQTT connection of a device: rumqttc's 3.1.1 or 5 client behind one small face.
//!
//! Invariants: one connection epoch each: after `Down` the link is dead and a new one is opened; packets are published
//! from one place only, so that the n-th `Sent` belongs to the n-th `publish`; a message is acknowledged when the next
//! packet is asked for, so that one that its device never took comes again on the next link.

use anyhow::Context as _;
use bytes::Bytes;
use rumqttc::v5::mqttbytes::QoS as QoS5;
use rumqttc::v5::mqttbytes::v5::{Packet as Packet5, PubAckReason};
use rumqttc::{Event, NetworkOptions, Outgoing, Packet as Packet4, QoS, v5};
use std::net::SocketAddr;
use std::time::Duration;
use tokio::sync::mpsc;

/// Keep-alive of a device; rumqttc takes no less than 5 s.
const KEEP_ALIVE: Duration = Duration::from_secs(10);
/// Requests between a device and its client: more than any rig has on the way at once.
const REQUESTS_MAX: usize = 1_024;
/// Publishes without acknowledgement at once.
const INFLIGHT_MAX: u16 = 512;
/// Largest packet of either direction, in bytes: an outcome of 64 KiB and its header.
const PACKET_BYTES_MAX: u32 = 80 * 1024;
/// Packets between client and device; when the device is slower, the client waits.
const PACKETS_MAX: usize = 1_024;
/// How long an MQTT 5 session outlives its connection, in seconds.
const SESSION_EXPIRY_S: u32 = 3_600;

/// The protocol of a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum, serde::Serialize, serde::Deserialize)]
pub(crate) enum Protocol {
    /// MQTT 3.1.1.
    V4,
    /// MQTT 5.
    V5,
}

/// What happened on a link.
#[derive(Debug)]
pub(crate) enum Packet {
    /// The session stands.
    Up,
    /// The subscription stands.
    Subscribed,
    /// The oldest publish without packet id has got this one.
    Sent(u16),
    /// The peer acknowledged a packet id, or refused it.
    Acked(u16, Acknowledgement),
    /// A message came.
    Message(Bytes),
    /// The connection is over.
    Down(String),
}

/// How a publish was acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Acknowledgement {
    /// With success, or in MQTT 3.1.1 at all.
    Success,
    /// With a reason code of failure, which only MQTT 5 has.
    Failure,
}

enum Client {
    V4(rumqttc::AsyncClient),
    V5(v5::AsyncClient),
}

/// A message as its client knows it, to be acknowledged.
#[derive(Debug)]
enum Publish {
    V4(rumqttc::Publish),
    V5(v5::mqttbytes::v5::Publish),
}

impl Publish {
    fn payload(&self) -> Bytes {
        match self {
            Self::V4(publish) => publish.payload.clone(),
            Self::V5(publish) => publish.payload.clone(),
        }
    }
}

/// What a client hands over.
#[derive(Debug)]
enum Arrival {
    Publish(Publish),
    Packet(Packet),
}

/// One connection of a device.
pub(crate) struct Link {
    client: Client,
    arrivals: mpsc::Receiver<Arrival>,
    /// The last message, which its device has by now.
    taken: Option<Publish>,
}

impl Link {
    /// Starts connecting; `Up` or `Down` follows.
    pub(crate) fn open(protocol: Protocol, address: SocketAddr, client_id: &str) -> Self {
        let (out, arrivals) = mpsc::channel(PACKETS_MAX);
        let client = match protocol {
            Protocol::V4 => open_v4(address, client_id, out),
            Protocol::V5 => open_v5(address, client_id, out),
        };
        Self { client, arrivals, taken: None }
    }

    /// The next thing that happens; `Down` for ever once the connection is over. May be given up at any moment.
    pub(crate) async fn next(&mut self) -> Packet {
        if let Some(publish) = &self.taken {
            self.acknowledge(publish).await;
            self.taken = None;
        }
        match self.arrivals.recv().await {
            Some(Arrival::Packet(packet)) => packet,
            Some(Arrival::Publish(publish)) => Packet::Message(self.taken.insert(publish).payload()),
            None => Packet::Down("the link is over".to_owned()),
        }
    }

    async fn acknowledge(&self, publish: &Publish) {
        // A link that is down cannot say it any more: the message comes again.
        let _ = match (&self.client, publish) {
            (Client::V4(client), Publish::V4(publish)) => client.ack(publish).await.is_ok(),
            (Client::V5(client), Publish::V5(publish)) => client.ack(publish).await.is_ok(),
            (Client::V4(_), Publish::V5(_)) | (Client::V5(_), Publish::V4(_)) => false,
        };
    }

    /// Subscribes at QoS 1.
    pub(crate) async fn subscribe(&self, filter: &str) -> anyhow::Result<()> {
        match &self.client {
            Client::V4(client) => client.subscribe(filter, QoS::AtLeastOnce).await.context("cannot subscribe"),
            Client::V5(client) => client.subscribe(filter, QoS5::AtLeastOnce).await.context("cannot subscribe"),
        }
    }

    /// Publishes at QoS 1; `Sent` and `Acked` follow.
    pub(crate) async fn publish(&self, topic: &str, payload: Vec<u8>) -> anyhow::Result<()> {
        match &self.client {
            Client::V4(client) => {
                client.publish(topic, QoS::AtLeastOnce, false, payload).await.context("cannot publish")
            }
            Client::V5(client) => {
                client.publish(topic, QoS5::AtLeastOnce, false, payload).await.context("cannot publish")
            }
        }
    }

    /// Says goodbye.
    pub(crate) async fn close(self) {
        // A link that is down already needs no goodbye.
        let _ = match &self.client {
            Client::V4(client) => client.disconnect().await.is_ok(),
            Client::V5(client) => client.disconnect().await.is_ok(),
        };
    }
}

fn open_v4(address: SocketAddr, client_id: &str, out: mpsc::Sender<Arrival>) -> Client {
    let mut options = rumqttc::MqttOptions::new(client_id, address.ip().to_string(), address.port());
    options.set_keep_alive(KEEP_ALIVE).set_clean_session(false).set_inflight(INFLIGHT_MAX).set_manual_acks(true);
    options.set_max_packet_size(PACKET_BYTES_MAX as usize, PACKET_BYTES_MAX as usize);
    let (client, mut events) = rumqttc::AsyncClient::new(options, REQUESTS_MAX);
    let mut network = NetworkOptions::new();
    network.set_tcp_nodelay(true);
    events.set_network_options(network);
    tokio::spawn(async move {
        loop {
            let arrival = match events.poll().await {
                Ok(event) => from_v4(event),
                Err(error) => Some(Arrival::Packet(Packet::Down(error.to_string()))),
            };
            if pass_on(&out, arrival).await.is_err() {
                return;
            }
        }
    });
    Client::V4(client)
}

fn open_v5(address: SocketAddr, client_id: &str, out: mpsc::Sender<Arrival>) -> Client {
    let mut options = v5::MqttOptions::new(client_id, address.ip().to_string(), address.port());
    options.set_keep_alive(KEEP_ALIVE).set_clean_start(false).set_manual_acks(true);
    options.set_session_expiry_interval(Some(SESSION_EXPIRY_S)).set_max_packet_size(Some(PACKET_BYTES_MAX));
    options.set_outgoing_inflight_upper_limit(INFLIGHT_MAX);
    let mut network = NetworkOptions::new();
    network.set_tcp_nodelay(true);
    options.set_network_options(network);
    let (client, mut events) = v5::AsyncClient::new(options, REQUESTS_MAX);
    tokio::spawn(async move {
        loop {
            let arrival = match events.poll().await {
                Ok(event) => from_v5(event),
                Err(error) => Some(Arrival::Packet(Packet::Down(error.to_string()))),
            };
            if pass_on(&out, arrival).await.is_err() {
                return;
            }
        }
    });
    Client::V5(client)
}

/// Hands over what arrived; fails when the epoch is over, because the connection or the device is.
async fn pass_on(out: &mpsc::Sender<Arrival>, arrival: Option<Arrival>) -> Result<(), ()> {
    let Some(arrival) = arrival else { return Ok(()) };
    let over = matches!(arrival, Arrival::Packet(Packet::Down(_)));
    out.send(arrival).await.map_err(|_| ())?;
    if over { Err(()) } else { Ok(()) }
}

fn from_v4(event: Event) -> Option<Arrival> {
    Some(Arrival::Packet(match event {
        Event::Incoming(Packet4::Publish(publish)) => return Some(Arrival::Publish(Publish::V4(publish))),
        Event::Incoming(Packet4::ConnAck(_)) => Packet::Up,
        Event::Incoming(Packet4::SubAck(_)) => Packet::Subscribed,
        Event::Incoming(Packet4::PubAck(ack)) => Packet::Acked(ack.pkid, Acknowledgement::Success),
        Event::Outgoing(Outgoing::Publish(pkid)) => Packet::Sent(pkid),
        Event::Incoming(_) | Event::Outgoing(_) => return None,
    }))
}

fn from_v5(event: v5::Event) -> Option<Arrival> {
    Some(Arrival::Packet(match event {
        v5::Event::Incoming(Packet5::Publish(publish)) => return Some(Arrival::Publish(Publish::V5(publish))),
        v5::Event::Incoming(Packet5::ConnAck(_)) => Packet::Up,
        v5::Event::Incoming(Packet5::SubAck(_)) => Packet::Subscribed,
        v5::Event::Incoming(Packet5::PubAck(ack)) => Packet::Acked(ack.pkid, acknowledgement(ack.reason)),
        v5::Event::Incoming(Packet5::Disconnect(why)) => Packet::Down(format!("{:?}", why.reason_code)),
        v5::Event::Outgoing(Outgoing::Publish(pkid)) => Packet::Sent(pkid),
        v5::Event::Incoming(_) | v5::Event::Outgoing(_) => return None,
    }))
}

fn acknowledgement(reason: PubAckReason) -> Acknowledgement {
    match reason {
        PubAckReason::Success | PubAckReason::NoMatchingSubscribers => Acknowledgement::Success,
        _ => Acknowledgement::Failure,
    }
}
