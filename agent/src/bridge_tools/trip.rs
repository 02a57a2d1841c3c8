//! One message to an address of the central broker and back, under a client id of its own, so that a running gateway's
//! session is left alone.

use crate::config::{BridgeConfig, Config};
use crate::link::{Ack, Address, Broker, Cause, Delivery, Heard, Line, Parcel, Protocol, Terms, Version, Welcome};
use crate::terminal::Progress;
use serde_json::json;
use std::fmt::Write as _;
use std::time::{Duration, Instant};
use tidegate_schemas::{DeviceTopic, Topic};

/// The event topic that `bridge test` uses, beside the running gateway's own canary.
const CANARY: &str = "canary";

/// Between two looks at how long a trip takes.
const PROGRESS_EVERY: Duration = Duration::from_millis(250);

/// What was found at one address.
#[derive(Debug)]
pub(crate) struct Trip {
    /// Where.
    pub(crate) address: Address,
    /// The version that was spoken, or tried last.
    pub(crate) version: Version,
    /// What is wrong; none if a message went there and back, or as far as our rights go.
    pub(crate) fault: Option<String>,
    connected: Option<Duration>,
    acknowledged: Option<Duration>,
    /// From the publish until it was back; none where our rights do not let us hear it.
    pub(crate) back: Option<Duration>,
    /// QoS 1 publishes that the broker takes at once; none where it does not say.
    pub(crate) receive_max: Option<u16>,
    /// The largest packet that it takes, in bytes; none where it does not say.
    pub(crate) packet_bytes_max: Option<u32>,
}

/// All addresses, one after the other.
pub(crate) async fn all(config: &Config, bridge: &BridgeConfig, limit: Duration) -> Vec<Trip> {
    let mut found = Vec::with_capacity(bridge.addresses.len());
    for address in &bridge.addresses {
        let mut progress = Progress::new(format!("waiting for {address}"));
        let deadline = Instant::now() + limit;
        let mut trip = std::pin::pin!(one(config, bridge, address, limit));
        found.push(loop {
            match tokio::time::timeout(PROGRESS_EVERY, &mut trip).await {
                Ok(trip) => break trip,
                Err(_) => progress.until(deadline),
            }
        });
    }
    found
}

async fn one(config: &Config, bridge: &BridgeConfig, address: &Address, limit: Duration) -> Trip {
    let first = if let Protocol::Only(version) = bridge.protocol { version } else { Version::Five };
    let (trip, cause) = attempt(config, bridge, address, first, limit).await;
    let older = cause == Some(Cause::Version) && bridge.protocol == Protocol::Auto;
    if older { attempt(config, bridge, address, Version::Three, limit).await.0 } else { trip }
}

async fn attempt(
    config: &Config,
    bridge: &BridgeConfig,
    address: &Address,
    version: Version,
    limit: Duration,
) -> (Trip, Option<Cause>) {
    let mut trip = Trip {
        address: address.clone(),
        version,
        fault: None,
        connected: None,
        acknowledged: None,
        back: None,
        receive_max: None,
        packet_bytes_max: None,
    };
    let client_id = format!("{}-test-{}", bridge.broker.client_id, std::process::id());
    let broker = Broker { client_id, ..bridge.broker.at(address) };
    let terms = Terms { session_expiry_s: 0, receive_max: 8, keep_alive: bridge.keep_alive, will: None };
    let line = match Line::open(&broker, version, &terms) {
        Ok(line) => line,
        Err(error) => {
            trip.fault = Some(error.to_string());
            return (trip, None);
        }
    };
    let cause = match tokio::time::timeout(limit, walk(line, config, &mut trip)).await {
        Ok(cause) => cause,
        Err(_) => {
            let step = match (trip.connected, trip.acknowledged) {
                (None, _) => "no CONNACK",
                (Some(_), None) => "no PUBACK",
                (Some(_), Some(_)) => "the message did not come back",
            };
            trip.fault = Some(format!("{step} within {} s", limit.as_secs()));
            None
        }
    };
    (trip, cause)
}

/// Connect, subscribe, publish, hear it.
async fn walk(mut line: Line, config: &Config, trip: &mut Trip) -> Option<Cause> {
    let topic = Topic::Event { origin: config.origin.clone(), kind: CANARY.to_owned() }.name();
    let payload = format!("test-{}", getrandom::u32().unwrap_or(0));
    let (start, mut published, mut answers, mut hears) = (Instant::now(), None, 0, false);
    loop {
        match line.next().await {
            Heard::Down(down) => {
                trip.fault = Some(down.why);
                return Some(down.cause);
            }
            Heard::Welcome(Welcome { receive_max, packet_bytes_max, .. }) => {
                trip.connected = Some(start.elapsed());
                (trip.receive_max, trip.packet_bytes_max) = (receive_max, packet_bytes_max);
                let resolve = Topic::filter_of_gateway(&config.origin, DeviceTopic::Resolve);
                let asked =
                    [line.subscribe(resolve, Delivery::Acknowledged), line.subscribe(topic.clone(), Delivery::Once)];
                if let Some(untaken) = asked.into_iter().find_map(Result::err) {
                    trip.fault = Some(untaken.to_string());
                    return None;
                }
            }
            Heard::Subscribed(granted) => {
                answers += 1;
                match granted {
                    Err(why) if answers == 1 => {
                        trip.fault = Some(format!("resolutions: {why}"));
                        return None;
                    }
                    granted => hears = answers == 2 && granted.is_ok(),
                }
                if answers == 2 {
                    published = Some(Instant::now());
                    let parcel = Parcel::acknowledged(topic.clone(), payload.clone().into_bytes());
                    trip.fault = line.publish(parcel).err().map(|untaken| untaken.to_string());
                }
            }
            Heard::Acked(_, Ack::Taken | Ack::Nobody) => trip.acknowledged = published.map(|at| at.elapsed()),
            Heard::Acked(_, Ack::Later(why) | Ack::Never(why)) => {
                trip.fault = Some(format!("the publish was refused: {why}"));
                return None;
            }
            Heard::Message(message) if message.topic == topic && message.payload == payload.as_bytes() => {
                trip.back = published.map(|at| at.elapsed());
            }
            Heard::Message(_) | Heard::Sent(_) | Heard::Alive => {}
        }
        if trip.fault.is_some() || trip.acknowledged.is_some() && (trip.back.is_some() || !hears) {
            let _ = line.disconnect();
            return None;
        }
    }
}

/// For a person.
pub(super) fn table(trips: &[Trip]) -> String {
    let mut text = String::new();
    let ms = |time: Option<Duration>| time.map_or("-".to_owned(), |t| format!("{:.1} ms", t.as_secs_f64() * 1000.0));
    for trip in trips {
        let word = if trip.fault.is_none() { "ok   " } else { "fault" };
        let _ = writeln!(text, "{word}  {}  MQTT {}", trip.address, trip.version.word());
        let _ = match &trip.fault {
            Some(fault) => writeln!(text, "       {fault}"),
            None => writeln!(
                text,
                "       connected in {}, PUBACK in {}, there and back in {}, receive maximum {}, maximum packet {}",
                ms(trip.connected),
                ms(trip.acknowledged),
                trip.back.map_or("- (our rights do not let us hear it)".to_owned(), |back| ms(Some(back))),
                trip.receive_max.map_or("not limited".to_owned(), |max| max.to_string()),
                trip.packet_bytes_max.map_or("not limited".to_owned(), |max| format!("{max} bytes")),
            ),
        };
    }
    text
}

/// For a script.
pub(super) fn json(trips: &[Trip]) -> String {
    let ms = |time: Option<Duration>| time.map(|t| t.as_secs_f64() * 1000.0);
    let all: Vec<_> = trips
        .iter()
        .map(|t| {
            json!({ "address": t.address.to_string(), "mqtt": t.version.word(), "fault": t.fault,
                "connected_ms": ms(t.connected), "puback_ms": ms(t.acknowledged), "back_ms": ms(t.back),
                "receive_max": t.receive_max, "packet_bytes_max": t.packet_bytes_max })
        })
        .collect();
    format!("{}\n", serde_json::Value::Array(all))
}
